"""The notebooks are plain Python scripts with asserted claims: they run from top to bottom.

They do so once for these tests and for the pages that are made of them (`docs/render.py`).
"""

import subprocess
import sys

import pytest

from docs import render

NOTEBOOKS = [source.stem for sources in render.notebooks().values() for source in sources]


@pytest.mark.slow
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebook_runs(name: str):
    run = subprocess.run(
        [sys.executable, "docs/render.py", name], cwd=render.ROOT, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr[-4000:]
