"""The different values of a weight, and passes over the weight that need no more than a piece of it at a time."""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["ValueTable"]

_CHUNK = 1 << 16  # weights on their way through a table at once


@dataclasses.dataclass(frozen=True, eq=False)
class ValueTable:
    """Different values of a weight and how often they occur, in float64 on the host.

    `used` are bit patterns of 16 bits, in order, and values are theirs; without rounding, values are in order.
    """

    dtype: torch.dtype | None
    values: Tensor
    counts: Tensor
    used: Tensor | None

    @staticmethod
    def of(weight: Tensor, dtype: torch.dtype | None) -> "ValueTable":
        """Values of a weight rounded to `dtype`; without one, its own."""
        if dtype is None:
            values, counts = torch.unique(weight.detach(), return_counts=True)
            return ValueTable(None, values.double().cpu(), counts.double().cpu(), None)
        total = torch.zeros(1 << 16, dtype=torch.int64, device=weight.device)
        for (part,) in _chunks(weight.detach()):
            total += torch.bincount(_patterns(part, dtype), minlength=1 << 16)
        used = total.cpu().nonzero().ravel()
        values = used.to(torch.int16).view(dtype).double()
        return ValueTable(dtype, values, total.cpu()[used].double(), used)

    def gather(self, weight: Tensor, gradient: Tensor) -> np.ndarray:
        """Sum over equal weights."""
        total = torch.zeros(self._rows, dtype=torch.float64, device=weight.device)
        places = self._places(weight.device)
        for part, upper in _chunks(weight.detach(), gradient):
            total += torch.bincount(places(part), upper.double(), minlength=self._rows)
        return (total.cpu() if self.used is None else total.cpu()[self.used]).numpy()

    def spread(
        self, weight: Tensor, values: Tensor, slopes: Tensor | None = None, upper: Tensor | None = None
    ) -> Tensor:
        """A row of `values` for each weight, plus that of `slopes` times `upper`; in the type of the weight."""
        out = torch.empty_like(weight, memory_format=torch.contiguous_format, requires_grad=False)
        table, slope = (None if one is None else self._table(one, out) for one in (values, slopes))
        places = self._places(weight.device)
        for part, target, *rest in _chunks(weight.detach(), out, *(() if upper is None else (upper,))):
            where = places(part)
            found = table[where]  # type: ignore[index]
            target.copy_(found if slope is None else torch.addcmul(found, slope[where], rest[0].to(found.dtype)))
        return out

    @property
    def _rows(self) -> int:
        return len(self.values) if self.used is None else 1 << 16

    def _table(self, values: Tensor, like: Tensor) -> Tensor:
        """One row for each place, in float32 unless the weight has float64."""
        table = torch.zeros(self._rows, dtype=torch.promote_types(like.dtype, torch.float32))
        table[slice(None) if self.used is None else self.used] = values.to(table.dtype)
        return table.to(like.device)

    def _places(self, device: torch.device) -> Any:
        if self.dtype is not None:
            return lambda part: _patterns(part, self.dtype)
        values = self.values.to(device)
        return lambda part: torch.searchsorted(values, part.double())


def _patterns(x: Tensor, dtype: torch.dtype | None) -> Tensor:
    """Bits of numbers of 16 bits, as indices."""
    return x.to(dtype).view(torch.int16).to(torch.int64).bitwise_and_(0xFFFF)


def _chunks(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Flat pieces of tensors of one shape. What is not contiguous is copied a piece at a time: a few rows."""
    if all(x.is_contiguous() for x in tensors):
        yield from zip(*(x.view(-1).split(_CHUNK) for x in tensors), strict=True)
        return
    rows = max(1, _CHUNK // max(1, math.prod(tensors[0].shape[1:])))
    for parts in zip(*(x.split(rows) for x in tensors), strict=True):
        yield tuple(x.reshape(-1) for x in parts)
