"""One pass of the loop over fronts, where the rows of a group hear each other as the columns do.

With D = tr(G E Σ Eᵀ), Σ = U diag(d) Uᵀ and G = V diag(c) Vᵀ, both unit lower triangular, and P = E U,

    target_ij = w_ij + (P_ij - e_ij) + Σ_{k>i} V_ki P_kj

makes Vᵀ E U hold exactly the plain rounding errors, so that D is their squares weighted by c_i d_j (theory 15.2).
Entry (i, j) hears (k, l) ≥ (i, j) alone: an anti-diagonal is quantized at once, the last one first.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from lattq.coding.fronts import Fronts

__all__ = ["Wave"]

CHUNK = 64  # fronts whose errors reach each other one by one; what comes from before is a matrix product
STRIP = 32  # rows or columns of such a product: it computes STRIP / CHUNK more than is needed
LINES = 128  # numbers: rows that begin at a multiple of it would compete for the same lines of a cache

Step = Callable[[int, np.ndarray], tuple[np.ndarray, np.ndarray]]


@dataclasses.dataclass(eq=False)
class Wave:
    """The state of a pass.

    Parameters
    ----------
    weight : W, columns in the order of the loop
    shift : what is added to all targets before any feedback of these columns
    unit : U, of which what lies below the diagonal (of blocks) counts
    rows_unit : V of each group of rows
    block : columns that are quantized together

    Attributes
    ----------
    error, codes : W - Ŵ and codes of what was visited, else 0
    summed : P, transposed
    """

    weight: Float[np.ndarray, "rows columns"]
    shift: Float[np.ndarray, "rows columns"]
    unit: Float[np.ndarray, "columns columns"]
    rows_unit: Float[np.ndarray, "groups height height"]
    block: int = 1

    def __post_init__(self) -> None:
        self.shape = rows, columns = self.weight.shape
        self.height = self.rows_unit.shape[1]
        self.fronts = Fronts(rows, columns // self.block, self.height)
        kind = self.weight.dtype
        self._weight, self._unit, self._rows_unit = map(_spread, (self.weight, self.unit, self.rows_unit))
        self._pulled, self._shift = _spread(self.shift), _spread(self.shift)
        self._error, self._codes = _spread(np.zeros(self.shape, kind)), _spread(np.zeros(self.shape, np.int32))
        self._rows_pulled, self._summed = (_spread(np.zeros((columns, rows), kind)) for _ in range(2))

    @property
    def error(self) -> Float[np.ndarray, "rows columns"]:
        """W - Ŵ."""
        return self._error[:, : self.shape[1]]

    @property
    def codes(self) -> Int[np.ndarray, "rows columns"]:
        """The codes."""
        return self._codes[:, : self.shape[1]]

    @property
    def summed(self) -> Float[np.ndarray, "columns rows"]:
        """P, transposed."""
        return self._summed[:, : self.shape[0]]

    def run(self, step: Step) -> None:
        """Quantize all fronts, the last one first; `step` gives codes and reconstructions for the targets of one."""
        from lattq.kernels import fronts as kernels  # numba takes long to import, and few need it

        targets: Any = kernels.targets
        feed: Any = kernels.feed
        for last in range(self.fronts.number, 0, -CHUNK):
            first = max(0, last - CHUNK)
            self._pull_columns(first, last)
            self._pull_rows(first, last)
            for front in range(last - 1, first - 1, -1):
                place: Any = (*self.shape, front, self.height, self.block)
                sides: Any = (self._weight, self._pulled, self._rows_pulled)
                units: Any = (self._unit, self._rows_unit)
                kept: Any = (self._error, self._summed, self._codes)
                target = np.empty((self.fronts.size(front), self.block), dtype=self.weight.dtype)
                targets(*sides, *place, target)
                codes, found = step(front, target)
                feed(*sides, *place, first, *units, found, codes, *kept)

    def _pull_columns(self, first: int, last: int) -> None:
        """What columns that are done feed into the entries of these fronts, rows in strips."""
        groups, b = len(self.rows_unit), self.block
        columns = self.shape[1]
        error, pulled, shift = (x.reshape(groups, self.height, -1) for x in (self._error, self._pulled, self._shift))
        for start in range(0, self.height, STRIP):
            stop = min(start + STRIP, self.height)
            low, high = max(0, first - stop + 1) * b, min(self.fronts.columns, last - start) * b
            if low < high:
                strip = slice(None), slice(start, stop), slice(low, high)
                pulled[strip] = np.matmul(error[:, start:stop, low:columns], self._unit[low:, low:high])
                pulled[strip] += shift[strip]

    def _pull_rows(self, first: int, last: int) -> None:
        """What rows that are done feed into the entries of these fronts, columns in strips."""
        groups, b, rows = len(self.rows_unit), self.block, self.shape[0]
        summed, pulled = (
            x[:, :rows].reshape(-1, groups, self.height).swapaxes(0, 1) for x in (self._summed, self._rows_pulled)
        )
        for start in range(0, self.fronts.columns, STRIP):
            stop = min(start + STRIP, self.fronts.columns)
            low, high = max(0, first - stop + 1), min(self.height, last - start)
            if low < high:
                strip = slice(start * b, stop * b)
                pulled[:, strip, low:high] = np.matmul(summed[:, strip, low:], self._rows_unit[:, low:, low:high])


def _spread(x: np.ndarray) -> np.ndarray:
    """A copy with room behind each line, so that lines do not begin at multiples of a power of two."""
    room = -x.shape[-1] % LINES + LINES // 8
    return np.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, room)])
