"""The files of a quantized model: written, and counted."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lattq.coding import reading
from lattq.errors import DamagedFileError, InvalidInputError, LattqError
from lattq.llm.run.plugin import LattqConfig
from lattq.llm.source.checkpoint import read_config

__all__ = ["expected_bytes", "stored_bytes", "write_model"]

# Files beside the weights that a model directory keeps: tokenizer, generation, sentence-transformers, licence.
COMPANIONS = (
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "*.model",
    "chat_template*",
    "generation_config.json",
    "preprocessor_config.json",
    "modules.json",
    "*sentence*.json",
    "?_*/config.json",
    "LICENSE*",
)


def write_model(model: Any, source: str | Path, directory: Path, max_shard_size: str) -> None:
    """Write a model and what lies beside the weights of `source`; raises `LattqError` if the disk refuses."""
    try:
        model.save_pretrained(directory, max_shard_size=max_shard_size)
        copy_companions(source, directory)
    except OSError as error:
        msg = f"cannot write the model to {directory} ({error}); make room and repeat the call: it continues"
        raise LattqError(msg) from error


def copy_companions(source: str | Path, out: Path) -> None:
    """Copy tokenizer, generation and sentence-transformers files."""
    for path in sorted({path for pattern in COMPANIONS for path in Path(source).glob(pattern) if path.is_file()}):
        target = out / path.relative_to(source)
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(path, target)


def stored_bytes(directory: str | Path) -> int:
    """Bytes of a quantized model directory that replace its dense weights, counted in its files.

    Payloads, their entries in the safetensors headers and in the index, and the block in `config.json`.

    Raises
    ------
    InvalidInputError : if the directory holds no quantized model
    DamagedFileError : if a header or index cannot be read

    Examples
    --------
    >>> from lattq.llm import embedded_model
    >>> stored_bytes(embedded_model())
    Traceback (most recent call last):
    lattq.errors.InvalidInputError: ... holds no quantized layers
    """
    config = read_config(directory)
    if "quantization_config" not in config:
        msg = f"{directory} holds no quantized layers"
        raise InvalidInputError(msg)
    keys = {f"{name}.weight" for name in LattqConfig(**config["quantization_config"]).modules}
    total = _config_bytes(config)
    for path in sorted(Path(directory).glob("*.safetensors")):
        header = _safetensors_header(path)
        for key in keys & header.keys():
            with reading(f"the header of {path}"):
                start, end = map(int, header[key]["data_offsets"])
            total += end - start + _entry_bytes(key, start, end)
    for path in Path(directory).glob("*.index.json"):
        with reading(f"the index {path}"):
            found = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
        total += sum(len(json.dumps({key: found[key]}, indent=2)) for key in keys & found.keys())
    return total


def expected_bytes(modules: Mapping[str, str], sizes: Mapping[str, int], others: int) -> int:
    """What `stored_bytes` will count in a single file.

    Parameters
    ----------
    modules, sizes : shape as `config.json` has it, and payload bytes, of each quantized layer
    others : bytes of the tensors that stay, which precede the payloads in the file
    """
    total = _config_bytes({"a": 0, "quantization_config": LattqConfig(dict(modules)).to_dict()})
    start = others
    for name in sorted(sizes):
        end = start + sizes[name]
        total += sizes[name] + _entry_bytes(f"{name}.weight", start, end)
        start = end
    return total


def _safetensors_header(path: Path) -> dict[str, Any]:
    with reading(f"the header of {path}"), path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        if size > path.stat().st_size:
            msg = f"{path} has {path.stat().st_size} bytes, its header alone {size}; it is truncated or damaged"
            raise DamagedFileError(msg)
        return dict(json.loads(file.read(size)))


def _entry_bytes(key: str, start: int, end: int) -> int:
    """Length of an entry in a safetensors header, with its comma."""
    entry = {key: {"dtype": "U8", "shape": [end - start], "data_offsets": [start, end]}}
    return len(json.dumps(entry, separators=(",", ":"))) - 1


def _config_bytes(config: dict[str, Any]) -> int:
    """Length of the block `quantization_config` in `config.json`."""
    rest = {key: value for key, value in config.items() if key != "quantization_config"}
    return len(json.dumps(config, indent=2)) - len(json.dumps(rest, indent=2))
