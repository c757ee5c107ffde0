"""Execute the py:percent notebooks and write them as Markdown pages, with their figures, under docs/_generated.

    python docs/render.py                # all pages, before mkdocs
    python docs/render.py NAME ...       # only execute these notebooks, as the tests do

Run from the repository root. A notebook that raises or warns fails. What it printed and drew is kept in .notebooks,
under a digest of all that it depends on: the notebook, the library, this file and the packages. Nothing runs twice on
the same files, so that pages built after the tests take over what the tests executed.

The figures of the published measurements are copied there too.
"""

import functools
import hashlib
import os
import shutil
import sys
import tempfile
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
SOURCES = {"theory": ROOT / "theory", "tutorials": ROOT / "docs" / "tutorials"}
TARGET, KEPT = ROOT / "docs" / "_generated", ROOT / ".notebooks"
# Cells before the first and after the last, which no page shows: shapes and types are checked as in tests, and warnings
# are errors, but for those of the kernel as it shuts down.
STRICT = """
import warnings
import jaxtyping
from tests import type_checks
type_checks.install()
jaxtyping.install_import_hook("lattq", "beartype.beartype")
warnings.simplefilter("error")
"""
RELAXED = 'import warnings; warnings.simplefilter("ignore")'


def notebooks() -> dict[str, list[Path]]:
    """The notebooks of each kind, in the order of their names."""
    return {kind: sorted(folder.glob("[0-9]*.py")) for kind, folder in SOURCES.items()}


@functools.cache
def digest_of_surroundings() -> bytes:
    """Digest of everything that a notebook depends on, but for itself."""
    files = [
        Path(__file__),
        ROOT / "tests" / "type_checks.py",
        *(path for path in (ROOT / "lattq").rglob("*") if path.is_file()),
    ]
    found = hashlib.sha256(sys.version.encode())
    for path in sorted(path for path in files if "__pycache__" not in path.parts):
        found.update(f"\0{path.relative_to(ROOT)}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    found.update("\0".join(sorted(f"{one.name} {one.version}" for one in distributions())).encode())
    return found.digest()


def executed(source: Path) -> Any:
    """The notebook with its outputs: kept ones, or those of a kernel of its own."""
    import nbformat

    digest = hashlib.sha256(digest_of_surroundings() + source.read_bytes()).hexdigest()
    kept = KEPT / f"{source.stem}-{digest[:16]}.ipynb"
    if not kept.exists():
        found = execute(source)
        KEPT.mkdir(exist_ok=True)
        for old in KEPT.glob(f"{source.stem}-*"):
            old.unlink(missing_ok=True)
        partial = kept.with_suffix(f".{os.getpid()}")
        nbformat.write(found, partial)
        partial.replace(kept)
    return nbformat.read(kept, as_version=4)


def execute(source: Path) -> Any:
    """Run all cells from top to bottom in a fresh kernel, in the root of the repository."""
    import jupytext
    import nbformat
    from nbclient import NotebookClient
    from traitlets.config import Config

    print(source.relative_to(ROOT), flush=True)
    notebook: Any = jupytext.read(source)
    shown = notebook.cells
    notebook.cells = [nbformat.v4.new_code_cell(STRICT), *shown, nbformat.v4.new_code_cell(RELAXED)]
    options: dict[str, Any] = {"timeout": 1800, "startup_timeout": 600, "kernel_name": "python3"}
    options["resources"] = {"metadata": {"path": str(ROOT)}}
    with tempfile.TemporaryDirectory() as own:  # sockets of its own, as several notebooks may run at once; no TCP port
        sockets = Config({"KernelManager": {"transport": "ipc", "ip": f"{own}/ipc"}})
        NotebookClient(notebook, config=sockets, **options).execute()
    notebook.cells = shown
    return notebook


def render(source: Path, folder: Path) -> None:
    """Write ``<name>.md`` and ``<name>_files/`` of one notebook into `folder`."""
    from nbconvert import MarkdownExporter

    resources = {"output_files_dir": f"{source.stem}_files"}
    text, resources = MarkdownExporter().from_notebook_node(executed(source), resources)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{source.stem}.md").write_text(text, encoding="utf-8")
    for name, data in resources["outputs"].items():
        figure = folder / name
        figure.parent.mkdir(exist_ok=True)
        figure.write_bytes(data)


def main(names: list[str]) -> None:
    """Execute some notebooks, or render all."""
    os.environ["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"  # figures become outputs of their cells
    if names:
        known = {source.stem: source for sources in notebooks().values() for source in sources}
        for name in names:
            executed(known[name])
        return
    shutil.rmtree(TARGET, ignore_errors=True)
    for kind, sources in notebooks().items():
        for source in sources:
            render(source, TARGET / kind)
    shutil.copytree(ROOT / "benchmarks" / "results", TARGET / "results", ignore=shutil.ignore_patterns("*.json"))


if __name__ == "__main__":
    main(sys.argv[1:])
