"""What binds the files of a quantized directory together: payloads to their layer and run, tensors to one digest."""

import hashlib
import json
import mmap
import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lattq.errors import DamagedFileError, InvalidInputError
from lattq.llm.source.weights import dtype_name, read_header

__all__ = [
    "RUN",
    "TENSORS",
    "bind",
    "context",
    "digest_of_config",
    "digest_of_files",
    "digest_of_state",
    "digests_of_state",
    "run_name",
    "unbind",
    "verified_at_load",
]

HASH = 8  # bytes of BLAKE2b at the end of a payload
TENSORS = 16  # bytes of the digest of all tensors
RUN = 8  # bytes of the name of a run
SWITCH = "LATTQ_VERIFY"
BLOCK, OWN = "quantization_config", "config_digest"
# What loading and saving again changes in a config, and what may be chosen anew each time.
FREE = {"_attn_implementation", "_name_or_path", "attn_implementation", "dtype", "torch_dtype", "transformers_version"}
FREE |= {"transformers_weights"}

Job = tuple[str, Callable[[], bytes]]


def run_name(settings: Mapping[str, Any]) -> str:
    """Name of a conversion: two that differ in anything that the result depends on have different ones."""
    return _hash(json.dumps(settings, sort_keys=True).encode(), RUN).hex()


def context(run: str, name: str) -> str:
    """What the payload of a layer is bound to in a directory."""
    return f"{run} {name}"


def bind(payload: bytes, context: str) -> bytes:
    """A payload as a directory holds it: its hash is that of its own hash and the context."""
    return payload[:-HASH] + _bound(payload[-HASH:], context)


def unbind(payload: bytes, context: str) -> bytes:
    """Inverse of `bind`.

    Raises
    ------
    DamagedFileError : if a byte differs, or it was bound to another context

    Examples
    --------
    >>> import numpy as np
    >>> import lattq as lq
    >>> payload = lq.quantize(np.eye(4), np.eye(4), lq.recipes.rtn()).payload
    >>> unbind(bind(payload, "run layer"), "run layer") == payload
    True
    """
    body = payload[:-HASH]
    own = _hash(body, HASH)
    if len(payload) <= HASH or _bound(own, context) != payload[-HASH:]:
        msg = f"the hash of {len(payload)} bytes does not match: damaged, or of another layer or run; fetch it again"
        raise DamagedFileError(msg)
    return body + own


def digest_of_state(state: Mapping[str, Tensor]) -> str:
    """Digest of the keys, dtypes, shapes and values of some tensors."""
    return _combined(digests_of_state(state))


def digests_of_state(state: Mapping[str, Tensor]) -> dict[str, bytes]:
    """A digest for each of some tensors."""

    def job(key: str, tensor: Tensor) -> bytes:
        if tensor.device.type == "meta":
            msg = f"{key} has no values here (it is offloaded); load the model without offloading to save it"
            raise InvalidInputError(msg)
        values = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        return _leaf(key, dtype_name(tensor.dtype), tuple(tensor.shape), values.data)

    return _leaves((key, lambda key=key, tensor=tensor: job(key, tensor)) for key, tensor in state.items())


def digest_of_files(files: Iterable[Path]) -> str:
    """`digest_of_state` of all tensors in safetensors files, however they are spread over them.

    Raises
    ------
    DamagedFileError : if a file is not whole, or two hold the same tensor
    """
    found: dict[str, bytes] = {}
    for path in files:
        header = read_header(path)
        twice = sorted(found.keys() & header.keys())
        if twice:
            msg = f"{path} holds {twice[0]}, which another weight file holds too; fetch the directory again"
            raise DamagedFileError(msg)
        found |= _leaves_of_file(path, header)
    return _combined(found)


def digest_of_config(config: Mapping[str, Any]) -> str:
    """Digest of the values in a `config.json`, but for those that each load may choose.

    >>> digest_of_config({"layers": 2, "dtype": "float16"}) == digest_of_config({"layers": 2})
    True
    """
    block = config.get(BLOCK)
    block = {key: value for key, value in block.items() if key != OWN} if isinstance(block, dict) else block
    text = json.dumps(_bound_values({**config, BLOCK: block}), sort_keys=True)
    return _hash(text.encode(), TENSORS).hex()


def verified_at_load() -> bool:
    """Whether directories are read in full and checked when they are loaded, as LATTQ_VERIFY says.

    Raises
    ------
    InvalidInputError : if it is neither "load", the default, nor "use"
    """
    value = os.environ.get(SWITCH, "load")
    if value not in ("load", "use"):
        msg = f'{SWITCH} is {value!r}; set it to "load" (check every tensor when a directory is loaded) or "use"'
        raise InvalidInputError(msg)
    return value == "load"


def _leaves_of_file(path: Path, header: Mapping[str, Any]) -> dict[str, bytes]:
    with (
        path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
        memoryview(content) as view,
    ):

        def job(key: str, entry: Any) -> bytes:
            with view[entry.start : entry.end] as values:
                return _leaf(key, entry.dtype, entry.shape, values)

        return _leaves((key, lambda key=key, entry=entry: job(key, entry)) for key, entry in header.items())


def _leaf(key: str, dtype: str, shape: tuple[int, ...], values: Any) -> bytes:
    digest = hashlib.sha256(f"{len(key)} {key} {dtype} {list(shape)} ".encode())  # twice as fast here as BLAKE2b
    digest.update(values)
    return digest.digest()[:TENSORS]


def _leaves(jobs: Iterable[Job]) -> dict[str, bytes]:
    """Results by key; hashing lets go of the interpreter, so that threads share the work."""
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        pending = {key: pool.submit(job) for key, job in jobs}
        return {key: one.result() for key, one in pending.items()}


def _combined(leaves: Mapping[str, bytes]) -> str:
    return _hash(b"".join(leaves[key] for key in sorted(leaves)), TENSORS).hex()


def _bound_values(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _bound_values(one) for key, one in value.items() if key not in FREE}
    return value


def _bound(own: bytes, context: str) -> bytes:
    return _hash(own + context.encode(), HASH)


def _hash(data: bytes, size: int) -> bytes:
    return hashlib.blake2b(data, digest_size=size).digest()
