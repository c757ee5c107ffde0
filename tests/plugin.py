"""The package of parts under `plugin_package`, as pip would install it, and a process that has not imported it."""

import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

from lattq.parts import registry

HOME = Path(__file__).parent / "plugin_package"
NAME = "lattq_example"


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process that has imported lattq alone."""
    for table in ("_classes", "_kinds"):
        known = getattr(registry, table).items()
        kept = {key: value for key, value in known if "lattq-example" not in str((key, value))}
        monkeypatch.setattr(registry, table, kept)
    monkeypatch.delitem(sys.modules, NAME, raising=False)


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, points: dict[str, str] | None = None) -> ModuleType:
    """Put the module and its metadata on the path, and import it; entry points are those of its `pyproject.toml`."""
    project = tomllib.loads((HOME / "pyproject.toml").read_text())["project"]
    info = folder / f"{NAME}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    named = project["entry-points"]["lattq.parts"] if points is None else points
    lines = [f"{name} = {value}\n" for name, value in named.items()]
    (info / "entry_points.txt").write_text("".join(["[lattq.parts]\n", *lines]))
    forget(monkeypatch)
    monkeypatch.syspath_prepend(str(HOME / "src"))
    monkeypatch.syspath_prepend(str(folder))
    return __import__(NAME)
