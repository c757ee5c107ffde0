"""Model directories: config, tokenizer, weights."""

import contextlib
import errno
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import CONFIG_MAPPING

from lattq.errors import DamagedFileError, InvalidInputError, LattqError
from lattq.llm.source.classes import Reading, find_class, named_class, read_by, unread_keys
from lattq.llm.source.weights import read_tensors, skeleton, weight_files

__all__ = [
    "load_config",
    "load_model",
    "load_tokenizer",
    "read_config",
    "remember_dtypes",
    "restore_dtypes",
    "source_hash",
    "unread_tensors",
]

LOCAL: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}  # code of a directory is never run
FULL = (errno.ENOSPC, errno.EDQUOT)


def load_model(source: str | Path, dtype: Any = "auto") -> Any:
    """Load a model directory as the class its `config.json` names, in evaluation mode.

    Where it names none that `transformers` has, the class is found from the tensors.

    Raises
    ------
    InvalidInputError : if the directory does not hold a model that `transformers` can build, lacks tensors, holds some
        of other shapes or that its class would read as something else, or a parameter with a number that is not finite
    DamagedFileError : if its files are not whole
    """
    with loading(f"the model in {source}"):
        kind, config = _class(source)
        model, info = kind.from_pretrained(str(source), config=config, dtype=dtype, output_loading_info=True, **LOCAL)
        found = Reading(sorted(info["missing_keys"]), sorted(info["mismatched_keys"]), [], [], [])
        found.require(source, kind)
        _check_finite(model, source)
        return model.eval()


def _check_finite(model: nn.Module, source: str | Path) -> None:
    for name, parameter in model.named_parameters():
        if parameter.is_meta:  # not decoded yet
            continue
        values = parameter.detach()
        values = values.float() if values.itemsize == 1 else values  # torch asks nothing of eight bits
        if not torch.isfinite(values).all():
            place = tuple(int(one) for one in (~torch.isfinite(values)).nonzero()[0])
            msg = f"{name} of {source} holds {float(values[place])} at {place}; fetch the model again"
            raise InvalidInputError(msg)


def load_config(source: str | Path) -> Any:
    """The configuration of a model directory.

    Raises
    ------
    InvalidInputError : for a type that `transformers` lacks; code in the directory is not run for it
    """
    raw = read_config(source)
    if "model_type" not in raw and (kind := named_class(raw.get("architectures"))) is not None:
        with loading(f"the model in {source}"):
            return kind.config_class.from_pretrained(str(source), local_files_only=True)
    if str(raw.get("model_type")) not in CONFIG_MAPPING:
        msg = (
            f"transformers has no model of the type {raw.get('model_type')!r}, which config.json of {source} names; "
            "use a release that does: code in the directory is not run"
        )
        raise InvalidInputError(msg)
    with loading(f"the model in {source}"):
        return transformers.AutoConfig.from_pretrained(str(source), **LOCAL)


def load_tokenizer(source: str | Path) -> Any:
    """Load the tokenizer of a model directory; raises `InvalidInputError` if there is none, or no model."""
    load_config(source)
    with loading(f"the tokenizer of {source}; is tokenizer.json beside the model?"):
        return transformers.AutoTokenizer.from_pretrained(str(source), **LOCAL)


def unread_tensors(source: str | Path, model: Any) -> dict[str, Tensor]:
    """Tensors of a dense directory for which the model loaded from it has no place, such as heads of other tasks."""
    files = weight_files(source)
    return read_tensors(files, unread_keys(type(model), model.config, skeleton(files)))


def _class(source: str | Path) -> tuple[Any, Any]:
    """The class of a directory and its configuration; tensors that are missing raise before any is read."""
    raw = read_config(source)
    config, kind = load_config(source), named_class(raw.get("architectures"))
    if kind is not None and not isinstance(config, kind.config_class):  # a class of another type of model
        kind = None
    files = weight_files(source)
    if "quantization_config" in raw:  # the plug-in of the method judges its tensors
        return kind or transformers.AutoModel, config
    tensors = skeleton(files)
    if kind is None:
        return find_class(config, tensors), config
    found = read_by(kind, config, tensors)
    found.require(source, kind)
    return kind, config


@contextlib.contextmanager
def loading(what: str) -> Iterator[None]:
    """Turn what `transformers` raises for an unusable directory into errors of lattq; a full disk is none of those."""
    try:
        yield
    except LattqError:
        raise
    except SafetensorError as error:
        msg = f"cannot load {what}: its safetensors are truncated or damaged ({error}); fetch them again"
        raise DamagedFileError(msg) from error
    except OSError as error:
        if error.errno in FULL:
            msg = f"cannot load {what}: {error}; make room on the disk"
            raise LattqError(msg) from error
        raise _unusable(what, error) from error
    except Exception as error:  # tokenizers raise bare ones
        raise _unusable(what, error) from error


def _unusable(what: str, error: Exception) -> InvalidInputError:
    return InvalidInputError(f"cannot load {what}: {error}")


def read_config(source: str | Path) -> dict[str, Any]:
    """`config.json` of a model directory."""
    path = Path(source) / "config.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            msg = f"it holds {str(found)[:40]}, no keys and values"
            raise ValueError(msg)
        return found
    except (OSError, ValueError) as error:  # of decoding, too
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


def remember_dtypes(model: nn.Module) -> dict[str, torch.dtype]:
    """The dtype of each parameter and buffer, by each of its names, which `restore_dtypes` gives back."""
    named = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    return {name: tensor.dtype for name, tensor in named}


def restore_dtypes(model: nn.Module, dtypes: Mapping[str, torch.dtype]) -> None:
    """Undo a cast to a wider type."""
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        tensor.data = tensor.data.to(dtypes[name])
