"""One safetensors file, written array by array and read in place; equal contents are equal bytes."""

import contextlib
import dataclasses
import json
import math
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lattq.coding.damage import reading
from lattq.errors import DamagedFileError, InvalidInputError
from lattq.llm.measure.origin import MeasuredLayer, Origin
from lattq.llm.measure.sums import shapes_of
from lattq.llm.source.weights import Entry, read_header

__all__ = ["pieces", "read_statistics", "write_statistics"]

FORMAT = "lattq.statistics"
VERSION = 2
REST = ".rest"
SIZES = {"F64": np.dtype("<f8"), "I64": np.dtype("<i8"), "F32": np.dtype("<f4")}

Layers = Mapping[str, MeasuredLayer]


def write_statistics(
    path: str | Path, layers: Layers, arrays: Mapping[str, np.ndarray], origin: Origin, *, exact: bool
) -> None:
    """Write a file that appears whole or not at all."""
    with _appearing(Path(path).absolute()) as file:
        for piece in pieces(layers, arrays, origin, exact=exact):
            file.write(piece)


def pieces(
    layers: Layers, arrays: Mapping[str, np.ndarray], origin: Origin, *, exact: bool = True
) -> Iterator[bytes | memoryview]:
    """What a file holds, array by array; without `exact`, products in float32 and nothing beside them."""
    keep = exact and origin.exact
    shapes = {key: shape for key, shape in _shapes(layers, exact=keep).items() if key in arrays}
    types = {key: _type(key, exact=keep) for key in shapes}
    ordered = sorted(shapes, key=lambda key: (-SIZES[types[key]].itemsize, key))  # each aligned to its type
    header, end = {}, 0
    for key in ordered:
        start, end = end, end + math.prod(shapes[key]) * SIZES[types[key]].itemsize
        header[key] = {"dtype": types[key], "shape": list(shapes[key]), "data_offsets": [start, end]}
    about = {
        "layers": {name: dataclasses.asdict(one) for name, one in layers.items()},
        "origin": dataclasses.asdict(origin) | {"exact": keep},
        "version": VERSION,
    }
    metadata = {FORMAT: json.dumps(about, sort_keys=True, separators=(",", ":"))}
    encoded = json.dumps({"__metadata__": metadata} | header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)
    yield len(encoded).to_bytes(8, "little") + encoded
    for key in ordered:
        yield np.ascontiguousarray(arrays[key], dtype=SIZES[types[key]]).reshape(-1).view(np.uint8).data


def read_statistics(path: str | Path) -> tuple[dict[str, MeasuredLayer], dict[str, np.ndarray], Origin]:
    """Layers, arrays and origin; raises as `Statistics.load` says."""
    path = Path(path)
    if not path.is_file():
        msg = f"there is no file {path}; make statistics with `lattq measure`"
        raise InvalidInputError(msg)
    entries = read_header(path)
    about = _about(path)
    with reading(f"the header of {path}"):
        layers = {
            name: MeasuredLayer(**{**one, "shape": tuple(one["shape"]), "siblings": tuple(one["siblings"])})
            for name, one in about["layers"].items()
        }
        origin: dict[str, Any] = {
            key: tuple(one) if isinstance(one, list) else one for key, one in about["origin"].items()
        }
        found = layers, _arrays(path, entries), Origin(**origin)
        _check(path, entries, layers, found[2])
    return found


def _about(path: Path) -> dict[str, Any]:
    with reading(f"the header of {path}"), path.open("rb") as file:
        text = json.loads(file.read(int.from_bytes(file.read(8), "little"))).get("__metadata__", {}).get(FORMAT)
    if text is None:
        msg = f"{path} holds no statistics; make them with `lattq measure`"
        raise InvalidInputError(msg)
    with reading(f"the header of {path}"):
        about = dict(json.loads(text))
        version = about["version"]
    if version != VERSION:
        msg = f"{path} is of version {version}, and this lattq reads {VERSION}; measure again"
        raise DamagedFileError(msg)
    return about


def _arrays(path: Path, entries: Mapping[str, Entry]) -> dict[str, np.ndarray]:
    """Views of the file: one mapping, since each takes a descriptor."""
    whole = np.memmap(path, np.uint8, "r")
    return {
        key: whole[entry.start : entry.end].view(SIZES[entry.dtype]).reshape(entry.shape)
        for key, entry in entries.items()
    }


def _check(path: Path, entries: Mapping[str, Entry], layers: Layers, origin: Origin) -> None:
    """Raise `DamagedFileError` unless the arrays are those of the layers."""
    shapes = _shapes(layers, exact=origin.exact)
    needed = {key for one in layers.values() if one.leader for key in shapes if key.startswith(f"{one.leader}.inputs.")}
    wrong = [key for key, one in entries.items() if shapes.get(key) != one.shape]
    wrong += [key for key, one in entries.items() if key not in wrong and one.dtype != _type(key, exact=origin.exact)]
    wrong += sorted(needed - entries.keys())
    orphans = [name for name, one in layers.items() if not any(layers[other].leader for other in one.siblings)]
    if wrong or orphans or not entries or origin.scored < 1:
        what = (wrong or orphans or ["it"])[0]
        msg = f"{path} is no whole file of statistics: {what} is not as it must be; fetch it again"
        raise DamagedFileError(msg)


def _shapes(layers: Layers, *, exact: bool) -> dict[str, tuple[int, ...]]:
    """Shapes of all arrays that the statistics of some layers may have."""
    found = {}
    for name, layer in layers.items():
        rows, columns = layer.shape
        sides = {
            "inputs": shapes_of("inputs", 1, columns),
            "outputs": shapes_of("outputs", layer.groups, rows // layer.groups),
            "guided": shapes_of("guided", layer.guides, columns) if layer.guides else {},
        }
        for side, shapes in sides.items():
            for part, shape in shapes.items():
                found[f"{name}.{side}.{part}"] = shape
                if exact:
                    found[f"{name}.{side}.{part}{REST}"] = shape
    return found


def _type(key: str, *, exact: bool) -> str:
    if key.endswith(REST):
        return "I64"
    return "F32" if key.endswith(".outer") and not exact else "F64"


@contextlib.contextmanager
def _appearing(path: Path) -> Iterator[Any]:
    """A file that appears whole or not at all."""
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")
    try:
        with partial.open("wb") as file:
            yield file
        partial.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise
