"""Model directories: reading dense ones, choosing layers, counting the bytes that replace their weights."""

import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from torch import nn

from lattq.coding import reading
from lattq.errors import DamagedFileError, InvalidInputError, LattqError
from lattq.llm.plugin import LattqConfig

__all__ = ["choose_modules", "load_model", "load_tokenizer", "source_hash", "stored_bytes", "write_model"]

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


def load_model(source: str | Path, dtype: Any = "auto") -> Any:
    """Load a model directory as the class its `config.json` names, in evaluation mode.

    Raises
    ------
    InvalidInputError : if the directory does not hold a model that `transformers` can build
    DamagedFileError : if its safetensors are not whole
    """
    config = read_config(source)
    names = config.get("architectures") or []
    kind = getattr(transformers, names[0], None) if names else None
    try:
        model = (kind or transformers.AutoModel).from_pretrained(str(source), dtype=dtype, local_files_only=True)
    except LattqError:
        raise
    except SafetensorError as error:
        msg = f"the safetensors in {source} are truncated or damaged ({error}); fetch them again"
        raise DamagedFileError(msg) from error
    except (OSError, ValueError) as error:
        msg = f"cannot load the model in {source}: {error}"
        raise InvalidInputError(msg) from error
    return model.eval()


def load_tokenizer(source: str | Path) -> Any:
    """Load the tokenizer of a model directory; raises `InvalidInputError` if there is none."""
    try:
        return transformers.AutoTokenizer.from_pretrained(str(source), local_files_only=True)
    except (OSError, ValueError) as error:
        msg = f"{source} has no tokenizer that can be loaded ({error}); copy tokenizer.json beside the model"
        raise InvalidInputError(msg) from error


def read_config(source: str | Path) -> dict[str, Any]:
    """`config.json` of a model directory."""
    path = Path(source) / "config.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        msg = f"{source} is not a model directory: cannot read config.json ({error}); download the model there first"
        raise InvalidInputError(msg) from error


def source_hash(source: str | Path) -> str:
    """Hash of the weights, config and tokenizer of a model directory."""
    digest = hashlib.blake2b(digest_size=16)
    patterns = ("config.json", "tokenizer*", "vocab.*", "*.safetensors", "*.bin")
    for path in sorted({path for pattern in patterns for path in Path(source).glob(pattern)}):
        digest.update(path.name.encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "blake2b").digest())
    return digest.hexdigest()


def find_blocks(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """The repeated blocks of a transformer: its longest list of equal modules that hold linear layers."""
    known = set(getattr(model, "_no_split_modules", None) or ())
    best: list[tuple[str, nn.Module]] = []
    score = (False, 0)
    for name, module in model.named_modules():
        if not isinstance(module, nn.ModuleList) or len({type(block) for block in module}) != 1:
            continue
        if any(isinstance(part, nn.Linear) for part in module.modules()):
            found = (type(module[0]).__name__ in known, len(module))
            if found > score:
                score, best = found, [(f"{name}.{index}", block) for index, block in enumerate(module)]
    return best


def choose_modules(model: Any, modules: Iterable[str] | None = None) -> dict[str, nn.Linear]:
    """Linear layers to quantize, by name: those inside the blocks, or the ones asked for.

    Raises
    ------
    InvalidInputError : if there are none, one does not exist, is not linear, or shares its weight with the embedding
    """
    linears = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    if modules is None:
        inside = tuple(f"{name}." for name, _ in find_blocks(model))
        chosen = [name for name in linears if name.startswith(inside)] if inside else []
    else:
        chosen = list(dict.fromkeys(modules))
    if not chosen:
        msg = f"{type(model).__name__} has no linear layers to quantize; name some in `modules`"
        raise InvalidInputError(msg)
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    for name in chosen:
        if name not in linears:
            msg = (
                f"`modules` names {name!r}, which is not a linear layer; there are {', '.join(list(linears)[:8])}, ..."
            )
            raise InvalidInputError(msg)
        if id(linears[name].weight) in embeddings:
            msg = f"`modules` names {name!r}, whose weight is tied to the embedding; leave it out"
            raise InvalidInputError(msg)
    return {name: linears[name] for name in chosen}


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


def expected_bytes(shapes: Mapping[str, tuple[int, int]], sizes: Mapping[str, int], others: int) -> int:
    """What `stored_bytes` will count in a single file.

    Parameters
    ----------
    shapes, sizes : rows and columns, and payload bytes, of each quantized layer
    others : bytes of the tensors that stay, which precede the payloads in the file
    """
    modules = {name: f"{rows}x{columns}" for name, (rows, columns) in shapes.items()}
    total = _config_bytes({"a": 0, "quantization_config": LattqConfig(modules).to_dict()})
    start = others
    for name in sorted(sizes):
        end = start + sizes[name]
        total += sizes[name] + _entry_bytes(f"{name}.weight", start, end)
        start = end
    return total


def remember_dtypes(model: nn.Module) -> dict[str, torch.dtype]:
    """The dtype of each parameter, which `restore_dtypes` gives back."""
    return {name: parameter.dtype for name, parameter in model.named_parameters()}


def restore_dtypes(model: nn.Module, dtypes: Mapping[str, torch.dtype]) -> None:
    """Undo a cast to a wider type."""
    for name, parameter in model.named_parameters():
        parameter.data = parameter.data.to(dtypes[name])


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
