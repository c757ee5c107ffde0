"""A linear layer whose weight is a quantized payload."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lattq.llm.run.encoded import Encoded
from lattq.llm.run.inputs import InputRounding
from lattq.llm.source.decoded import Decoded, settled

__all__ = ["LattqLinear"]


class LattqLinear(Encoded, Decoded):
    """A linear layer that stores `Quantized.payload` and decodes it when first used, unless it is before.

    `weight` is the decoded matrix: a frozen parameter, never saved. Where inputs are rounded, the parameter is the
    matrix that they are multiplied by, `moved`, and `weight` is made when code of a class asks for it.

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
    >>> import numpy as np
    >>> import lattq as lq
    >>> dense = nn.Linear(3, 2)
    >>> payload = lq.quantize(dense.weight.detach(), np.eye(3), lq.recipes.huffman_gptq(0.01)).payload
    >>> layer = LattqLinear(2, 3, payload=payload)
    >>> layer(torch.zeros(1, 3)).shape, layer.weight.dtype, layer.encoded.dtype
    (torch.Size([1, 2]), torch.float32, torch.uint8)
    """

    moved: Tensor

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
        super().__init__(rows, columns, payload=payload)
        self.inputs = inputs
        self.begin("weight" if inputs is None else "moved", (rows, columns), dtype)
        self.bias = nn.Parameter(torch.empty(rows)) if bias else None
        self._transform: Any = None  # of a payload whose matrix is `moved`
        self._shown: Tensor | None = None

    @property
    def matrix_dtype(self) -> torch.dtype:
        """That of a dense layer in its place; at least float32 where inputs are rounded."""
        return self.like.dtype if self.inputs is None else torch.promote_types(self.like.dtype, torch.float32)

    def decode(self) -> Float[Tensor, "rows columns"]:
        """The weight, or Ŵ T⁻¹ where inputs are rounded."""
        if self.inputs is None:
            found = self.dequantize(self.matrix_dtype)
        else:
            quantized = self.quantized()
            self._transform = quantized.transform
            found = torch.from_numpy(quantized.decoded()).to(self.matrix_dtype)
        return found.to(self.like.device)

    def fill(self) -> None:
        """Decode the matrix, and let go of a payload that need not be kept."""
        super().fill()
        self.leave()

    def forget(self) -> None:
        """Let go of the matrix."""
        super().forget()
        self._shown = None

    def hold(self, payload: bytes) -> None:
        """Take another payload, of the same shape."""
        super().hold(payload)
        self.forget()

    def __getattr__(self, name: str) -> Any:
        return self._weight() if name == "weight" and self.inputs is not None else super().__getattr__(name)

    def _weight(self) -> Float[Tensor, "rows columns"]:
        """The decoded weight beside `moved`; no values before a checkpoint fills it."""
        if not self._filled:
            return torch.empty(self._extent, dtype=self.like.dtype, device="meta")
        shown = self.__dict__.get("_shown")
        if shown is None or shown.device != self.like.device:
            shown = self._shown = settled(lambda: self.dequantize(self.like.dtype).to(self.like.device))
        return shown

    def forward(self, x: Tensor) -> Tensor:
        """Return x Ŵᵀ + bias; where inputs are rounded, Q(T x) (Ŵ T⁻¹)ᵀ + bias.

        Raises `InvalidInputError` where inputs are rounded and the transform of the payload does not act on them.
        """
        if self.inputs is None:
            return nn.functional.linear(x, self.weight, self.bias)
        weight = self.moved
        moved = self._transform.on_inputs(x.reshape(-1, self.in_features).to(weight.dtype))
        bias = None if self.bias is None else self.bias.to(weight.dtype)
        found = nn.functional.linear(self.inputs(moved), weight, bias)
        return found.to(x.dtype).reshape(*x.shape[:-1], self.out_features)

    def extra_repr(self) -> str:
        """Shape and bits per weight, and how inputs are rounded."""
        return super().extra_repr() + ("" if self.inputs is None else f", inputs={self.inputs}")
