"""A module that holds the payload of one quantized matrix, or knows in which file it lies."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from lattq._payload import require_parts
from lattq.errors import DamagedFileError, InvalidInputError
from lattq.llm.run.digests import HASH, unbind
from lattq.quantized import Quantized

__all__ = ["ENCODED", "Encoded", "Place"]

ENCODED = "encoded"  # the buffer of a layer that holds its payload


@dataclasses.dataclass(frozen=True)
class Place:
    """Bytes `start` to `end` of a file in a directory, which are the payload of a layer bound to `context`."""

    path: Path
    start: int
    end: int
    context: str

    def content(self) -> bytes:
        """What the file holds there."""
        with self.path.open("rb") as file:
            file.seek(self.start)
            return file.read(self.end - self.start)

    def payload(self) -> bytes:
        """The payload; raises `InvalidInputError` without the file, `DamagedFileError` if it holds something else."""
        where = f"the payload of {self.context.partition(' ')[2]} was left in {self.path}"
        advice = "put the file back, or load directories with `LattqConfig(keep_payload=True)`"
        try:
            found = self.content()
        except OSError as error:
            msg = f"{where}, which cannot be read any more ({error}); {advice}"
            raise InvalidInputError(msg) from error
        try:
            return unbind(found, self.context)
        except DamagedFileError as error:
            msg = f"{where}, which has changed since; {advice}"
            raise DamagedFileError(msg) from error


class Encoded(nn.Module):
    """A quantized matrix as bytes: the buffer `encoded` holds `Quantized.payload`, one-dimensional uint8.

    A payload that came from a directory can be left there: then the buffer is empty, and it is read when it is needed.

    Parameters
    ----------
    rows, columns : output and input features
    payload : `Quantized.payload`; empty until a checkpoint fills it

    Examples
    --------
    >>> import lattq as lq
    >>> layer = lq.quantize(np.eye(2), np.eye(2), lq.recipes.huffman_gptq(step=0.25))
    >>> Encoded(2, 2, payload=layer.payload).dequantize()
    tensor([[1., 0.],
            [0., 1.]])
    """

    encoded: Tensor
    _is_hf_initialized = True  # nothing to initialise

    def __init__(self, rows: int, columns: int, *, payload: bytes = b"") -> None:
        super().__init__()
        self.out_features, self.in_features = rows, columns
        self.register_buffer(ENCODED, _tensor(payload))
        self._filled = bool(payload)
        self._context: str | None = None  # that a payload in the buffer is still bound to
        self._place: Place | None = None
        self.keeps = True

    @property
    def payload(self) -> bytes:
        """`Quantized.payload` of this layer."""
        if self.left is not None:
            return self.left.payload()
        self.check()
        return self.encoded.cpu().numpy().tobytes()

    @property
    def ready(self) -> bool:
        """Whether there is a payload, here or in a file."""
        return self._filled

    @property
    def left(self) -> Place | None:
        """Where the payload is, if it is not here."""
        return None if self.encoded.numel() else self._place

    @property
    def payload_bytes(self) -> int:
        """Length of the payload."""
        return self.encoded.numel() if self.left is None else self.left.end - self.left.start

    def hold(self, payload: bytes) -> None:
        """Take another payload, of the same shape."""
        self.encoded = _tensor(payload).to(self.encoded.device)
        self._context, self._place, self._filled, self.keeps = None, None, True, True

    def expect(self, context: str, place: Place | None, *, keeps: bool) -> None:
        """The buffer comes from a directory, where it was bound to `context`; it is checked before it is used.

        Unless the module `keeps` it, it is left in its place once it is decoded.
        """
        self._context, self._place, self._filled, self.keeps = context, place, True, keeps

    def leave(self) -> None:
        """Let go of the payload if it is in a file; it must have been checked."""
        if self._place is not None and self._context is None and not self.keeps:
            self.encoded = self.encoded.new_empty(0)

    def check(self) -> None:
        """Raise `DamagedFileError` unless a payload from a directory is whole and this layer's; decodes nothing."""
        if self._context is not None:
            payload = unbind(self.encoded.cpu().numpy().tobytes(), self._context)
            self.encoded[-HASH:] = _tensor(payload[-HASH:]).to(self.encoded.device)
            self._context = None

    def require_parts(self) -> None:
        """Raise `MissingPartError` if decoding needs a package that is not installed; decodes nothing."""
        require_parts(self.payload)

    def quantized(self) -> Quantized:
        """What the payload holds; raises `DamagedFileError` as `dequantize`."""
        return Quantized.from_payload(self.payload, (self.out_features, self.in_features))

    def dequantize(self, dtype: torch.dtype = torch.float32) -> Float[Tensor, "rows columns"]:
        """Decode the weight, on the device of the payload.

        Raises
        ------
        DamagedFileError : if the payload is not what lattq wrote, or belongs to a layer of another shape
        """
        found = torch.empty((self.out_features, self.in_features), dtype=dtype)
        bits = found.view(torch.int16).numpy().view(np.uint16) if dtype == torch.bfloat16 else found.numpy()
        self.quantized().dequantize(str(dtype).removeprefix("torch."), out=bits)
        return found.to(self.encoded.device)

    def extra_repr(self) -> str:
        """Shape and bits per weight."""
        rate = 8 * self.payload_bytes / (self.out_features * self.in_features)
        return f"in_features={self.in_features}, out_features={self.out_features}, rate={rate:.3f}"

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        self.check()
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if self.left is not None:
            destination[prefix + ENCODED] = _tensor(self.payload)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Payloads differ in length: make room for the one that comes."""
        found = state_dict.get(prefix + ENCODED)
        if found is not None and found.dtype == torch.uint8 and found.ndim == 1:
            self.encoded = torch.empty_like(found, device=self.encoded.device)
            self._context, self._place, self._filled, self.keeps = None, None, True, True
        super()._load_from_state_dict(state_dict, prefix, *args)


def _tensor(payload: bytes) -> UInt8[Tensor, " n"]:
    if not payload:
        return torch.empty(0, dtype=torch.uint8)
    return torch.from_numpy(np.frombuffer(payload, dtype=np.uint8).copy())
