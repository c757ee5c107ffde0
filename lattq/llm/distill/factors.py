"""A linear layer whose codes are frozen and whose factors learn.

The weight is the inverse transform of ``row gain x step factor x decoded code x column gain``. The codes' bytes stay as
they are; steps are stored anyway, so factors of them are free. A gain that learns costs what its difference from the
gain that a decoder expects takes as one of a discretised Gaussian.
"""

import functools
import math
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from lattq._array import to_host
from lattq._payload import class_prior, expected_gains
from lattq.errors import InvalidInputError
from lattq.feedback.loop import GAIN_GRID
from lattq.llm.run.layers import LattqLinear
from lattq.quantized import Quantized

__all__ = ["FrozenCodes"]


class FrozenCodes(nn.Module):
    """What a layer with a payload computes, differentiable by its factors.

    Parameters
    ----------
    layer : with a payload; its bias is shared
    gains : whether gains learn too, whose bytes change as they do

    Attributes
    ----------
    steps : factor of each step of the quantizer, one or (rows, groups); None where it has none
    row_gains, column_gains : of the reconstruction, 1 for 1; None where they do not learn. Rows have them unless each
        has steps of its own, columns where the payload stores some: to begin would cost what they differ from those
        that the decoder expects

    Examples
    --------
    >>> import lattq as lq
    >>> payload = lq.quantize(np.eye(4), np.eye(4), lq.recipes.huffman_gptq(0.25)).payload
    >>> layer = FrozenCodes(LattqLinear(4, 4, payload=payload), gains=True)
    >>> layer.steps.shape, layer.row_gains.shape, layer.column_gains
    (torch.Size([1, 1]), torch.Size([4]), None)
    >>> layer.quantized() is layer.plain
    True
    """

    values: Tensor
    map: Tensor
    across: Tensor | None
    offset: Tensor | None
    others: Tensor

    def __init__(self, layer: LattqLinear, *, gains: bool = False) -> None:
        super().__init__()
        self.plain = Quantized.from_payload(layer.payload, (layer.out_features, layer.in_features))
        self.inputs, self.bias = layer.inputs, layer.bias
        step = self.plain.quantizer.steps
        own = step is not None and step.shape[0] > 1
        rows, columns = (g is not None for g in (self.plain.row_gains, self.plain.column_gains))
        self.steps = None if step is None else nn.Parameter(torch.ones(step.shape))
        self.row_gains = self._gains(self.plain.row_gains, 0) if gains and (rows or not own) else None
        self.column_gains = self._gains(self.plain.column_gains, 1) if gains and columns else None
        bare = self.plain.revalued(row_gains=None, column_gains=None) if gains else self.plain
        self.register_buffer("values", torch.from_numpy(bare.decoded()).float(), persistent=False)
        self._set_map()

    def _gains(self, gains: np.ndarray | None, axis: int) -> nn.Parameter:
        found = np.full(self.plain.shape[axis], GAIN_GRID) if gains is None else gains
        return nn.Parameter(torch.from_numpy(found / GAIN_GRID).float())

    def _set_map(self) -> None:
        """Keep what `transform.inverse` does: a matrix, or a factor for each column, factors of rows, a sparse part."""
        sparse, rest = self.plain.transform.split()
        matrix, factors = _on_columns(rest, *self.plain.shape)
        self.register_buffer("across", None if factors is None else factors[:, None], persistent=False)
        diagonal = matrix.diagonal().clone()
        one_by_one = bool((matrix == torch.diag(diagonal)).all())
        self.register_buffer("map", diagonal if one_by_one else matrix, persistent=False)
        zeros, ones = (np.full(self.plain.shape, one) for one in (0.0, 1.0))
        offset = None if sparse is None else torch.from_numpy(sparse.inverse(zeros)).float()
        others = None if sparse is None else torch.from_numpy(sparse.inverse(ones) - sparse.inverse(zeros)).float()
        self.register_buffer("offset", offset, persistent=False)
        self.register_buffer("others", others, persistent=False)

    def decoded(self) -> Float[Tensor, "rows columns"]:
        """The reconstruction in the coordinates of the transform, as `Quantized.decoded`."""
        found = self.values
        if self.steps is not None:
            found = found * self._spread(self.steps)
        if self.row_gains is not None:
            found = found * self.row_gains[:, None]
        return found if self.column_gains is None else found * self.column_gains

    def _spread(self, steps: Tensor) -> Tensor:
        if steps.shape[1] == 1:
            return steps
        group = self.plain.quantizer.group
        return steps.repeat_interleave(group, dim=1)[:, : self.plain.shape[1]]

    @property
    def weight(self) -> Float[Tensor, "rows columns"]:
        """The reconstruction, as `Quantized.dequantize`."""
        found = self.decoded()
        found = found * self.map if self.map.ndim == 1 else found @ self.map
        found = found if self.across is None else found * self.across
        return found if self.offset is None else found * self.others + self.offset

    def forward(self, x: Tensor) -> Tensor:
        """As `LattqLinear`; rounding of inputs passes gradients on."""
        if self.inputs is None:
            return nn.functional.linear(x, self.weight, self.bias)
        moved = self.plain.transform.on_inputs(x)
        rounded = moved + (self.inputs(moved) - moved).detach()
        return nn.functional.linear(rounded, self.decoded(), self.bias)

    def bits(self) -> Tensor:
        """About what the gains take: that many Gaussians of their mean square around what a decoder expects.

        n/2 log2(1 + 12 s²) for n integers of mean square s²: 0 at none, and the entropy of a Gaussian where s is large.
        """
        found = self.values.new_zeros(())
        for gains, expected in ((self.row_gains, 1.0), (self.column_gains, self._expected)):
            if gains is not None:
                power = (GAIN_GRID * (gains - expected)).square().mean()
                found = found + 0.5 * len(gains) * torch.log1p(12 * power) / math.log(2)
        return found

    @functools.cached_property
    def _expected(self) -> Tensor:
        found = expected_gains(self.plain.coder, self.plain.coded, self.plain.shape, class_prior(self.plain.transform))
        return torch.as_tensor(np.asarray(found) / GAIN_GRID, dtype=torch.float32)

    @torch.no_grad()
    def round(self) -> None:
        """Give the factors the values that a file holds."""
        for gains in (self.row_gains, self.column_gains):
            if gains is not None:
                gains.copy_((gains * GAIN_GRID).round().clamp(min=0) / GAIN_GRID)
        if self.steps is not None:
            held = self._stored_steps() / to_host(self.plain.quantizer.steps)
            self.steps.copy_(torch.from_numpy(held))

    def _stored_steps(self) -> np.ndarray:
        """Steps as a file holds them."""
        return to_host(self._quantizer().steps).astype(np.float64)

    def _quantizer(self) -> Any:
        """The quantizer with the learned steps; its own where a factor is 1."""
        plain = self.plain.quantizer
        if self.steps is None or bool((self.steps == 1).all()):
            return plain
        step = to_host(plain.steps).astype(np.float64) * self.steps.detach().double().numpy()
        try:
            return plain.with_steps(step)
        except InvalidInputError:  # beyond what the file's type holds: as it was
            return plain

    def quantized(self) -> Quantized:
        """The codes with what was learned, rounded."""
        learned = {"row_gains": self.row_gains, "column_gains": self.column_gains}
        found = {name: _stored(gains) for name, gains in learned.items() if gains is not None}
        quantizer = self._quantizer()
        same = all(np.array_equal(_filled(own), _filled(getattr(self.plain, name))) for name, own in found.items())
        if same and quantizer is self.plain.quantizer:
            return self.plain
        return self.plain.revalued(quantizer=quantizer, **found)


def _on_columns(transform: Any, rows: int, columns: int) -> tuple[Tensor, Tensor | None]:
    """The matrix by which the inverse of a transform multiplies from the right, and its factors of rows."""
    factors, parts = transform.row_factors, []
    for start in range(0, columns, rows):
        units = np.eye(columns)[start : start + rows]
        found = to_host(transform.inverse(np.pad(units, [(0, rows - len(units)), (0, 0)])))[: len(units)]
        parts.append(found if factors is None else found / factors[: len(units), None])
    return torch.from_numpy(np.concatenate(parts)).float(), None if factors is None else torch.from_numpy(
        factors
    ).float()


def _stored(gains: Tensor) -> np.ndarray | None:
    """Gains in 128ths; None if all are 1."""
    found = (gains.detach() * GAIN_GRID).round().clamp(min=0).to(torch.int64).numpy()
    return None if (found == GAIN_GRID).all() else found


def _filled(gains: np.ndarray | None) -> np.ndarray:
    return np.array(GAIN_GRID) if gains is None else gains
