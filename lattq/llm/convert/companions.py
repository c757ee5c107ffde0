"""Files of a source beside the weights of its model: all of them come along."""

import json
from collections.abc import Iterator
from pathlib import Path

from lattq.errors import InvalidInputError
from lattq.llm.convert.workspace import partial
from lattq.llm.source.weights import weight_files

__all__ = ["companions"]

# Formats of weights: at the top of a directory, and below it in folders that are no modules, they hold the model again.
WEIGHT_FORMATS = {
    ".bin",
    ".ckpt",
    ".gguf",
    ".h5",
    ".msgpack",
    ".onnx",
    ".onnx_data",
    ".ot",
    ".pt",
    ".pth",
    ".safetensors",
    ".tflite",
}


def companions(source: str | Path, out: str | Path) -> list[Path]:
    """Files of a model directory that stand beside its weights and its `config.json`, at any depth.

    Weights of other formats hold the same model again and stay behind. The folders that `modules.json` names (those of
    sentence-transformers) hold layers of their own: all in them comes along. So does everything else but hidden files,
    and `out` and what is in work beside it.

    Raises
    ------
    InvalidInputError : for a link that leads out of the directory, unless into the blobs of the Hub's cache
    """
    source = Path(source)
    replaced = {path.absolute() for path in weight_files(source)} | {(source / "config.json").absolute()}
    modules = _modules(source)
    found = []
    for path in _files(source, source, _written(out)):
        inside = path.relative_to(source)
        weights = path.suffix in WEIGHT_FORMATS or path.name.endswith(".index.json")
        if path.absolute() in replaced or (weights and inside.parts[0] not in modules):
            continue
        found.append(path)
    return found


def _written(out: str | Path) -> set[Path]:
    """Folders that a conversion writes."""
    out = Path(out).absolute()
    return {out, partial(out)}


def _files(folder: Path, source: Path, written: set[Path]) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.absolute() in written:
            continue
        if path.is_dir() and not path.is_symlink():
            yield from _files(path, source, written)
        else:
            _check_link(path, source)
            yield path


def _check_link(path: Path, source: Path) -> None:
    """Weights may lie elsewhere: they are read as tensors. Anything else would be copied as it is."""
    if not path.is_symlink() or path.suffix in WEIGHT_FORMATS:
        return
    target, home = path.resolve(), source.resolve()
    blobs = home.parent.parent / "blobs" if home.parent.name == "snapshots" else home
    inside = target.is_relative_to(home) or target.parent == blobs
    if path.is_dir() or not (inside and target.is_file()):
        msg = f"{path} is a link to {target}; put the file itself there, or remove the link"
        raise InvalidInputError(msg)


def _modules(source: Path) -> set[str]:
    """Folders that sentence-transformers loads as modules."""
    try:
        entries = json.loads((source / "modules.json").read_text(encoding="utf-8"))
        return {part for entry in entries for part in Path(entry["path"]).parts[:1]}
    except (OSError, ValueError, TypeError, KeyError):
        return set()
