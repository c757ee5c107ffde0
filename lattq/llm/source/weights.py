"""Weight files of a model directory: which ones `transformers` reads, and what their headers say."""

import json
import pickle
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lattq.coding.damage import reading
from lattq.errors import DamagedFileError, InvalidInputError

__all__ = ["Entry", "dtype_name", "read_header", "read_tensors", "skeleton", "weight_files"]

# In the order in which `transformers` looks for them.
WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
DTYPES: dict[str, torch.dtype] = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E4M3": torch.float8_e4m3fn,
    "I16": torch.int16,
    "U16": torch.uint16,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I32": torch.int32,
    "U32": torch.uint32,
    "F32": torch.float32,
    "C64": torch.complex64,
    "F64": torch.float64,
    "I64": torch.int64,
    "U64": torch.uint64,
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}


class Entry(NamedTuple):
    """A tensor in a safetensors file; its bytes are those from `start` to `end` of the file."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


def weight_files(directory: str | Path) -> list[Path]:
    """The files from which `transformers` reads the tensors of a model directory.

    Raises
    ------
    InvalidInputError : if there are none, or an index names one outside the directory
    DamagedFileError : if an index cannot be read or names a file that is missing
    """
    directory = Path(directory)
    for name in (_explicit(directory), *WEIGHTS):
        if name is None or not (directory / name).is_file():
            continue
        names = _indexed(directory / name) if name.endswith(".index.json") else [name]
        return [_inside(directory, one) for one in sorted(set(names))]
    msg = f"{directory} has no weights: none of {', '.join(WEIGHTS)} is there"
    raise InvalidInputError(msg)


def read_header(path: Path) -> dict[str, Entry]:
    """Tensors of a safetensors file; raises `DamagedFileError` if it is no whole file of that format."""
    try:
        with safe_open(path, framework="pt"):  # judges the header as a whole: offsets, dtypes, the length of the file
            pass
    except SafetensorError as error:
        msg = f"{path} is truncated or damaged ({error}); fetch it again"
        raise DamagedFileError(msg) from None
    with reading(f"the header of {path}"), path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header = dict(json.loads(file.read(size)))
        header.pop("__metadata__", None)
        offset = 8 + size
        return {
            key: Entry(entry["dtype"], tuple(entry["shape"]), *(offset + end for end in entry["data_offsets"]))
            for key, entry in header.items()
        }


def skeleton(files: Iterable[Path]) -> dict[str, Tensor]:
    """The tensors of weight files by their keys, without values, on the device "meta".

    Raises
    ------
    DamagedFileError : if a file is not whole, or two of them hold the same tensor
    """
    found: dict[str, Tensor] = {}
    for path in files:
        mine = _of_safetensors(path) if path.suffix == ".safetensors" else _of_pickle(path, "meta")
        twice = sorted(found.keys() & mine.keys())
        if twice:
            msg = f"{path} holds {twice[0]}, which another weight file holds too; keep one of them"
            raise DamagedFileError(msg)
        found |= mine
    return found


def read_tensors(files: Iterable[Path], keys: Iterable[str]) -> dict[str, Tensor]:
    """Some tensors of weight files."""
    keys, found = set(keys), {}
    for path in files if keys else ():
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as tensors:
                found |= {key: tensors.get_tensor(key) for key in keys & set(tensors.keys())}
        else:
            mine = _of_pickle(path, "cpu")
            found |= {key: mine[key] for key in keys & mine.keys()}
    return found


def dtype_name(dtype: torch.dtype) -> str:
    """What safetensors calls a dtype."""
    return NAMES.get(dtype, str(dtype))


def _of_safetensors(path: Path) -> dict[str, Tensor]:
    found = {}
    for key, entry in read_header(path).items():
        dtype = DTYPES.get(entry.dtype)
        if dtype is None:
            msg = f"{path} holds {key} as {entry.dtype}, which has no counterpart in torch; convert it"
            raise InvalidInputError(msg)
        found[key] = torch.empty(entry.shape, dtype=dtype, device="meta")
    return found


def _of_pickle(path: Path, device: str) -> dict[str, Tensor]:
    try:
        state: Any = torch.load(path, map_location=device, weights_only=True)
        return {key: tensor for key, tensor in state.items() if isinstance(tensor, Tensor)}
    except (pickle.UnpicklingError, RuntimeError, EOFError, AttributeError, ValueError) as error:
        reason = str(error).split("\n")[0]
        msg = f"{path} is no file of tensors alone, or damaged ({reason}); fetch the model as safetensors"
        raise DamagedFileError(msg) from error


def _explicit(directory: Path) -> str | None:
    """The weight file that `config.json` names, which comes before all others."""
    try:
        name = json.loads((directory / "config.json").read_text(encoding="utf-8")).get("transformers_weights")
    except (OSError, ValueError, AttributeError):
        return None
    return name if isinstance(name, str) else None


def _indexed(index: Path) -> list[str]:
    with reading(f"the index {index}"):
        names = list(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        if not names or not all(isinstance(name, str) for name in names):
            msg = "no names of files in `weight_map`"
            raise ValueError(msg)
        return names


def _inside(directory: Path, name: str) -> Path:
    if Path(name).is_absolute() or ".." in Path(name).parts:
        msg = f"the index of {directory} names the weight file {name!r}, which is outside the directory; move it there"
        raise InvalidInputError(msg)
    if not (directory / name).is_file():
        msg = f"{directory} has no file {name}, which its index names; fetch it again"
        raise DamagedFileError(msg)
    return directory / name
