"""One safetensors file, written array by array and read in place; equal contents are equal bytes."""

import contextlib
import json
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lattq.coding.damage import reading
from lattq.errors import DamagedFileError, InvalidInputError
from lattq.llm.source.weights import read_header

__all__ = ["read_arrays", "write_arrays"]

FORMAT = "lattq.statistics"
VERSION = 1
NAMES = {"<f8": "F64", "<i8": "I64", "<f4": "F32"}
TYPES = {name: dtype for dtype, name in NAMES.items()}


def write_arrays(path: str | Path, arrays: Mapping[str, np.ndarray], about: Mapping[str, Any]) -> None:
    """Write arrays in the order of their names; the file appears whole or not at all."""
    path = Path(path).absolute()
    header, end = {}, 0
    ordered = sorted(arrays, key=lambda key: (-arrays[key].dtype.itemsize, key))  # each aligned to its type
    for key in ordered:
        start, end = end, end + arrays[key].nbytes
        name = NAMES[arrays[key].dtype.newbyteorder("<").str]
        header[key] = {"dtype": name, "shape": list(arrays[key].shape), "data_offsets": [start, end]}
    text = json.dumps(dict(about) | {"version": VERSION}, sort_keys=True, separators=(",", ":"))
    header = {"__metadata__": {FORMAT: text}} | header
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")
    try:
        with partial.open("wb") as file:
            file.write(len(encoded).to_bytes(8, "little") + encoded)
            for key in ordered:
                np.ascontiguousarray(arrays[key]).astype(arrays[key].dtype.newbyteorder("<"), copy=False).tofile(file)
        partial.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise


def read_arrays(path: str | Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays of a file, left in it until they are used, and what is told about them.

    Raises
    ------
    DamagedFileError : if the file is not whole
    InvalidInputError : if it is missing, or holds something else
    """
    path = Path(path)
    if not path.is_file():
        msg = f"there is no file {path}; make statistics with `lattq measure`"
        raise InvalidInputError(msg)
    entries = read_header(path)
    with reading(f"the header of {path}"), path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        text = json.loads(file.read(size)).get("__metadata__", {}).get(FORMAT)
    if text is None:
        msg = f"{path} holds no statistics; make them with `lattq measure`"
        raise InvalidInputError(msg)
    with reading(f"the header of {path}"):
        about = dict(json.loads(text))
        version = about.pop("version")
    if version != VERSION:
        msg = f"{path} is of version {version}, this lattq reads {VERSION}; measure again"
        raise DamagedFileError(msg)
    arrays = {}
    for key, entry in entries.items():
        arrays[key] = np.memmap(path, TYPES[entry.dtype], "r", entry.start, entry.shape)
    return arrays, about
