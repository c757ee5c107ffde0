"""The files of a quantized model: written, and counted."""

import contextlib
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from lattq.coding.damage import reading
from lattq.errors import LattqError
from lattq.files import plain_modes
from lattq.llm.run.config import LattqConfig, block_of
from lattq.llm.run.digests import RUN, TENSORS
from lattq.llm.run.inputs import InputRounding, input_block
from lattq.llm.source.checkpoint import read_config
from lattq.llm.source.weights import read_header, weight_files

__all__ = ["expected_bytes", "stored_bytes", "write_model", "writing"]

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"


def write_model(model: Any, source: str | Path, beside: Iterable[Path], directory: Path, max_shard_size: str) -> None:
    """Write a model and the files `beside` the weights of `source`; raises `LattqError` if the disk refuses."""
    with writing(directory):
        model.save_pretrained(directory, max_shard_size=max_shard_size)
        copy_companions(source, beside, directory)
        plain_modes(directory)


@contextlib.contextmanager
def writing(directory: Path) -> Iterator[None]:
    """Name a disk that refuses for what it is: safetensors has an error of its own for that, as for damaged files."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        msg = f"cannot write the model to {directory} ({error}); make room and repeat the call: it continues"
        raise LattqError(msg) from error


def copy_companions(source: str | Path, beside: Iterable[Path], out: Path) -> None:
    """Copy files of `source` to the same places in `out`."""
    for path in beside:
        target = out / path.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)


def stored_bytes(directory: str | Path) -> int:
    """Bytes of a quantized model directory that replace its dense weights, counted in its files.

    Payloads, their entries in the safetensors headers and in the index, and the block in `config.json`.

    Only files that are loaded count: the single weight file, or those that the index names.

    Raises
    ------
    InvalidInputError : if the directory holds no quantized model, or the index leads out of it
    DamagedFileError : if a header or index cannot be read, or `config.json` is not the one that was written

    Examples
    --------
    >>> from lattq.llm import embedded_model
    >>> stored_bytes(embedded_model())
    Traceback (most recent call last):
    lattq.errors.InvalidInputError: ... holds no quantized layers of lattq; ...
    """
    config = read_config(directory)
    keys = {f"{name}.weight" for name in block_of(config, directory).modules}
    total = _config_bytes(config)
    for path in weight_files(directory):
        header = read_header(path)
        first = min((entry.start for entry in header.values()), default=0)
        for key in keys & header.keys():
            start, end = header[key].start - first, header[key].end - first
            total += end - start + _entry_bytes(key, start, end)
    index = Path(directory) / INDEX
    if index.is_file() and not (Path(directory) / SINGLE).is_file():
        with reading(f"the index {index}"):
            found = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        total += sum(len(json.dumps({key: found[key]}, indent=2)) for key in keys & found.keys())
    return total


def expected_bytes(
    modules: Mapping[str, str], sizes: Mapping[str, int], others: int, inputs: Mapping[str, InputRounding]
) -> int:
    """What `stored_bytes` will count in a single file.

    Parameters
    ----------
    modules, sizes : shape as `config.json` has it, and payload bytes, of each quantized layer
    others : bytes of the tensors that stay, which precede the payloads in the file
    inputs : how those of each layer are rounded, if they are
    """
    digest = "0" * (2 * TENSORS)
    names = {"run": "0" * (2 * RUN), "digest": digest, "config_digest": digest}
    block = LattqConfig(dict(modules), **names, input_activations=input_block(inputs)).to_dict()
    total = _config_bytes({"a": 0, "quantization_config": block})
    start = others
    for name in sorted(sizes):
        end = start + sizes[name]
        total += sizes[name] + _entry_bytes(f"{name}.weight", start, end)
        start = end
    return total


def _entry_bytes(key: str, start: int, end: int) -> int:
    """Length of an entry in a safetensors header, with its comma."""
    entry = {key: {"dtype": "U8", "shape": [end - start], "data_offsets": [start, end]}}
    return len(json.dumps(entry, separators=(",", ":"))) - 1


def _config_bytes(config: dict[str, Any]) -> int:
    """Length of the block `quantization_config` in `config.json`."""
    rest = {key: value for key, value in config.items() if key != "quantization_config"}
    return len(json.dumps(config, indent=2)) - len(json.dumps(rest, indent=2))
