"""Model directories: config, tokenizer, weights."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from torch import nn

from lattq.errors import DamagedFileError, InvalidInputError, LattqError

__all__ = ["load_model", "load_tokenizer", "read_config", "remember_dtypes", "restore_dtypes", "source_hash"]


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


def remember_dtypes(model: nn.Module) -> dict[str, torch.dtype]:
    """The dtype of each parameter and buffer, which `restore_dtypes` gives back."""
    return {name: tensor.dtype for name, tensor in [*model.named_parameters(), *model.named_buffers()]}


def restore_dtypes(model: nn.Module, dtypes: Mapping[str, torch.dtype]) -> None:
    """Undo a cast to a wider type."""
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        tensor.data = tensor.data.to(dtypes[name])
