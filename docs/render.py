"""Execute the py:percent notebooks and write them as Markdown pages, with their figures, under docs/_generated.

The figures of the published measurements are copied there too.

Run from the repository root, before mkdocs: ``python docs/render.py``. A notebook that raises fails the build.
"""

import os
import shutil
from pathlib import Path

ROOT = Path(__file__).parent.parent
SOURCES = {"theory": ROOT / "theory", "tutorials": ROOT / "docs" / "tutorials"}
TARGET = ROOT / "docs" / "_generated"


def render(source: Path, folder: Path) -> None:
    """Execute one notebook and write ``<name>.md`` and ``<name>_files/`` into `folder`."""
    import jupytext
    from nbconvert import MarkdownExporter
    from nbconvert.preprocessors import ExecutePreprocessor
    from traitlets.config import Config

    notebook = jupytext.read(source)
    local = Config({"KernelManager": {"transport": "ipc"}})  # no TCP port
    executor = ExecutePreprocessor(timeout=600, kernel_name="python3", config=local)
    executor.preprocess(notebook, {"metadata": {"path": str(ROOT)}})
    resources = {"output_files_dir": f"{source.stem}_files"}
    text, resources = MarkdownExporter().from_notebook_node(notebook, resources)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{source.stem}.md").write_text(text, encoding="utf-8")
    for name, data in resources["outputs"].items():
        figure = folder / name
        figure.parent.mkdir(exist_ok=True)
        figure.write_bytes(data)


def main() -> None:
    """Render every notebook afresh."""
    os.environ["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"  # figures become outputs of their cells
    shutil.rmtree(TARGET, ignore_errors=True)
    for kind, folder in SOURCES.items():
        for source in sorted(folder.glob("*.py")):
            print(f"{kind}/{source.name}", flush=True)
            render(source, TARGET / kind)
    shutil.copytree(ROOT / "benchmarks" / "results", TARGET / "results", ignore=shutil.ignore_patterns("*.json"))


if __name__ == "__main__":
    main()
