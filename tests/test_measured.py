"""What README and docs say was measured is what the published results say."""

from pathlib import Path

import pytest

from benchmarks import tables


@pytest.mark.parametrize("path", tables.FILES, ids=lambda path: path.name)
def test_tables_are_written_from_the_results(path: Path):
    assert path.read_text() == tables.filled(path), "run python benchmarks/tables.py"


def test_every_result_is_shown():
    assert {path.stem for path in tables.RESULTS.glob("*.json")} == set(tables.CLAIMS)
    page = tables.FILES[-1].read_text()
    for name in tables.CLAIMS:
        assert tables.claims(name) in page
