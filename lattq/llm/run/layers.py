"""A linear layer whose weight is a quantized payload."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from lattq._payload import require_parts
from lattq.llm.run.digests import HASH, unbind
from lattq.llm.run.inputs import InputRounding
from lattq.quantized import Quantized

__all__ = ["ENCODED", "LattqLinear"]

ENCODED = "encoded"  # the buffer of a layer that holds its payload


class LattqLinear(nn.Module):
    """A linear layer that stores `Quantized.payload` and decodes it when first used.

    The buffer `encoded` holds the payload, one-dimensional uint8. `weight` is the decoded matrix, which code of a class
    may ask for its dtype, device and values; it is cached, never saved.

    Parameters
    ----------
    rows, columns : output and input features
    bias : whether there is a bias, kept as it was
    payload : `Quantized.payload`; empty until a checkpoint fills it
    dtype : of the decoded weight, which follows casts of the model; torch's default unless given
    inputs : rounds the inputs, in the coordinates of the payload's transform: Q(T x) (Ŵ T⁻¹)ᵀ, in float32 at least;
        None leaves them as they are

    Examples
    --------
    >>> import lattq as lq
    >>> dense = nn.Linear(3, 2)
    >>> payload = lq.quantize(dense.weight.detach(), np.eye(3), lq.recipes.huffman_gptq(0.01)).payload
    >>> layer = LattqLinear(2, 3, payload=payload)
    >>> layer(torch.zeros(1, 3)).shape, layer.weight.dtype, layer.encoded.dtype
    (torch.Size([1, 2]), torch.float32, torch.uint8)
    """

    encoded: Tensor
    like: Tensor
    _is_hf_initialized = True  # nothing to initialise

    def __init__(
        self,
        rows: int,
        columns: int,
        *,
        bias: bool = False,
        payload: bytes = b"",
        dtype: torch.dtype | None = None,
        inputs: InputRounding | None = None,
    ) -> None:
        super().__init__()
        self.inputs = inputs
        self.out_features, self.in_features = rows, columns
        self.register_buffer(ENCODED, _tensor(payload))
        self.register_buffer("like", torch.empty(0, dtype=dtype), persistent=False)  # follows casts and moves
        self.bias = nn.Parameter(torch.empty(rows)) if bias else None
        self._dense: Tensor | None = None
        self._changed: tuple[Any, Tensor] | None = None
        self._filled = bool(payload)
        self._context: str | None = None

    @property
    def payload(self) -> bytes:
        """`Quantized.payload` of this layer."""
        self.check()
        return self.encoded.cpu().numpy().tobytes()

    @property
    def weight(self) -> Float[Tensor, "rows columns"]:
        """The decoded weight, in the dtype of a dense layer in its place; no values before a checkpoint fills it."""
        if not self._filled:
            return self.like.new_empty((self.out_features, self.in_features), device="meta")
        dense = self._dense
        if dense is None or dense.dtype != self.like.dtype or dense.device != self.encoded.device:
            dense = self._dense = self.dequantize(self.like.dtype)
        return dense

    def hold(self, payload: bytes) -> None:
        """Take another payload, of the same shape."""
        self.encoded = _tensor(payload).to(self.encoded.device)
        self._context, self._filled = None, True
        self._dense = self._changed = None

    def expect(self, context: str) -> None:
        """The buffer comes from a directory, where it was bound to `context`; `check` must follow before any use."""
        self._context, self._filled = context, True

    def check(self) -> None:
        """Raise `DamagedFileError` unless a payload from a directory is whole and this layer's; decodes nothing."""
        if self._context is not None:
            payload = unbind(self.encoded.cpu().numpy().tobytes(), self._context)
            self.encoded[-HASH:] = _tensor(payload[-HASH:]).to(self.encoded.device)
            self._context = None

    def require_parts(self) -> None:
        """Raise `MissingPartError` if decoding needs a package that is not installed; decodes nothing."""
        require_parts(self.payload)

    def dequantize(self, dtype: torch.dtype = torch.float32) -> Float[Tensor, "rows columns"]:
        """Decode the weight, on the device of the payload.

        Raises
        ------
        DamagedFileError : if the payload is not what lattq wrote, or belongs to a layer of another shape
        """
        return torch.from_numpy(self._quantized().dequantize()).to(self.encoded.device, dtype)

    def _quantized(self) -> Quantized:
        return Quantized.from_payload(self.payload, (self.out_features, self.in_features))

    def forward(self, x: Tensor) -> Tensor:
        """Return x Ŵᵀ + bias; where inputs are rounded, Q(T x) (Ŵ T⁻¹)ᵀ + bias.

        Raises `InvalidInputError` where inputs are rounded and the transform of the payload does not act on them.
        """
        if self.inputs is None:
            return nn.functional.linear(x, self.weight, self.bias)
        transform, weight = self._in_coordinates()
        moved = transform.on_inputs(x.reshape(-1, self.in_features).to(weight.dtype))
        bias = None if self.bias is None else self.bias.to(weight.dtype)
        found = nn.functional.linear(self.inputs(moved), weight, bias)
        return found.to(x.dtype).reshape(*x.shape[:-1], self.out_features)

    def _in_coordinates(self) -> tuple[Any, Float[Tensor, "rows columns"]]:
        """The transform T of the payload, and Ŵ T⁻¹ in the dtype of products."""
        dtype = torch.promote_types(self.like.dtype, torch.float32)
        found = self._changed
        if found is None or found[1].dtype != dtype or found[1].device != self.encoded.device:
            quantized = self._quantized()
            weight = torch.from_numpy(quantized.decoded()).to(self.encoded.device, dtype)
            found = self._changed = quantized.transform, weight
        return found

    def extra_repr(self) -> str:
        """Shape and bits per weight, and how inputs are rounded."""
        rate = 8 * self.encoded.numel() / (self.out_features * self.in_features)
        inputs = "" if self.inputs is None else f", inputs={self.inputs}"
        return f"in_features={self.in_features}, out_features={self.out_features}, rate={rate:.3f}{inputs}"

    def _save_to_state_dict(self, *args: Any) -> None:
        self.check()
        super()._save_to_state_dict(*args)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Payloads differ in length: make room for the one that comes."""
        found = state_dict.get(prefix + ENCODED)
        if found is not None and found.dtype == torch.uint8 and found.ndim == 1:
            self.encoded = torch.empty_like(found, device=self.encoded.device)
            self._context, self._filled = None, True
        self._dense = self._changed = None
        super()._load_from_state_dict(state_dict, prefix, *args)


def _tensor(payload: bytes) -> UInt8[Tensor, " n"]:
    if not payload:
        return torch.empty(0, dtype=torch.uint8)
    return torch.from_numpy(np.frombuffer(payload, dtype=np.uint8).copy())
