"""One pass of the loop over fronts, where the rows of a group hear each other as the columns do.

With D = tr(G E Σ Eᵀ), Σ = U diag(d) Uᵀ and G = V diag(c) Vᵀ, both unit lower triangular, and P = E U,

    target_ij = w_ij + (P_ij - e_ij) + Σ_{k>i} V_ki P_kj

makes Vᵀ E U hold exactly the plain rounding errors, so that D is their squares weighted by c_i d_j (theory 15.2).
Entry (i, j) hears (k, l) ≥ (i, j) alone: an anti-diagonal is quantized at once, the last one first.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from lattq.coding.fronts import Fronts

__all__ = ["Wave"]

CHUNK = 64  # fronts that hear each other one by one; what they hear from others is a matrix product
STRIP = 32  # rows or columns of such a product: it computes STRIP / CHUNK more than is needed
LINES = 128  # numbers: rows that begin at a multiple of it would compete for the same lines of a cache

Step = Callable[[int, np.ndarray], tuple[np.ndarray, np.ndarray]]


@dataclasses.dataclass(eq=False)
class Wave:
    """A pass. All matrices are transposed, with a line to a column, columns in the order of the loop.

    Parameters
    ----------
    weight : W
    target : W and what is added to all targets before any feedback of these columns
    unit : Uᵀ, of which what lies above the diagonal (of blocks) counts
    rows_unit : V of each group of rows
    block : columns that are quantized together
    error, codes, summed : written: W - Ŵ, its codes, and P
    """

    weight: Float[np.ndarray, "columns rows"]
    target: Float[np.ndarray, "columns rows"]
    unit: Float[np.ndarray, "columns columns"]
    rows_unit: Float[np.ndarray, "groups height height"]
    block: int
    error: Float[np.ndarray, "columns rows"]
    codes: Int[np.ndarray, "columns rows"]
    summed: Float[np.ndarray, "columns rows"]

    def __post_init__(self) -> None:
        from lattq.kernels import fronts as kernels  # numba takes long to import, and few need it

        self._kernels: Any = kernels
        columns, rows = self.weight.shape
        groups, self.height = self.rows_unit.shape[:2]
        self.fronts = Fronts(rows, columns // self.block, self.height)
        kind = self.weight.dtype
        self._unit = np.pad(self.unit, [(0, 0), (0, -columns % LINES + LINES // 8)])
        width = min(STRIP, self.height)
        self._strips = np.zeros((-(-self.height // width), columns, groups, width), kind)
        self._column_lines = np.empty((CHUNK * self.block, self.block, self.fronts.columns), kind)
        self._row_lines = np.zeros((CHUNK, rows), kind)
        self._kernels.column_lines(self._unit, self.block, self._column_lines)
        self._kernels.row_lines(self.rows_unit, self._row_lines)
        self.error[:], self.summed[:] = 0.0, 0.0

    def run(self, step: Step) -> None:
        """Quantize all fronts, the last one first; `step` gives codes and reconstructions for the targets of one."""
        for last in range(self.fronts.number, 0, -CHUNK):
            self._run(max(0, last - CHUNK), last, step)

    def _run(self, first: int, last: int, step: Step) -> None:
        """Quantize the fronts first ... last - 1, which lie in bands: a line to a front, a number to a row."""
        rows, columns, kind = self.fronts.rows, self.fronts.columns, self.weight.dtype
        bands = np.zeros((5, (last - first) * self.block, rows + LINES // 8), kind)
        weight, heard, rows_heard, error, summed = bands
        codes = np.zeros(weight.shape, np.int32)
        at: Any = (first, self.height, self.block)
        self._kernels.bend(self.weight, *at, weight)
        self._kernels.bend(self.target, *at, heard)
        heard -= weight
        self._hear_columns(first, last, heard)
        self._hear_rows(first, last, rows_heard)
        for front in range(last - 1, first - 1, -1):
            at = (first, front, self.height, self.block)
            target = np.empty((self.fronts.size(front), self.block), kind)
            self._kernels.targets(*bands, self._column_lines, self._row_lines, rows, *at, target)
            found, decoded = step(front, target)
            self._kernels.keep(weight, heard, rows, columns, *at, decoded, found, error, summed, codes)
        for band, plain in ((error, self.error), (summed, self.summed), (codes, self.codes)):
            self._kernels.straighten(band, first, self.height, self.block, plain)
        for strip, part, entries in self._row_strips(first, last):
            self._strips[strip, entries, :, : part.stop - part.start] = self._by_groups(self.error)[entries, :, part]

    def _hear_columns(self, first: int, last: int, heard: np.ndarray) -> None:
        """Add what columns that are done feed into the entries of these fronts, rows in strips."""
        columns, groups, width = self._strips.shape[1:]
        for strip, part, entries in self._row_strips(first, last):
            after = slice(entries.start, columns)
            some = self._unit[entries, after] @ self._strips[strip, after].reshape(-1, groups * width)
            self._add(some.reshape(-1, groups, width), entries.start, part.start, first, heard)

    def _hear_rows(self, first: int, last: int, heard: np.ndarray) -> None:
        """Add what rows that are done feed into the entries of these fronts, columns in strips."""
        summed = self._by_groups(self.summed).swapaxes(0, 1)
        for start in range(0, self.fronts.columns, STRIP):
            stop = min(start + STRIP, self.fronts.columns)
            low, high = max(0, first - stop + 1), min(self.height, last - start)
            if low < high:
                columns = slice(start * self.block, stop * self.block)
                some = np.matmul(summed[:, columns, low:], self.rows_unit[:, low:, low:high])
                self._add(some.swapaxes(0, 1), columns.start, low, first, heard)

    def _add(self, some: np.ndarray, column: int, row: int, first: int, band: np.ndarray) -> None:
        self._kernels.add_block(some, column, row, first, self.height, self.block, band)

    def _row_strips(self, first: int, last: int) -> Iterator[tuple[int, slice, slice]]:
        """Strips of rows: their number, their rows in each group, and the columns that have entries in these fronts."""
        for strip, start in enumerate(range(0, self.height, STRIP)):
            stop = min(start + STRIP, self.height)
            low, high = max(0, first - stop + 1), min(self.fronts.columns, last - start)
            if low < high:
                yield strip, slice(start, stop), slice(low * self.block, high * self.block)

    def _by_groups(self, x: np.ndarray) -> Float[np.ndarray, "columns groups height"]:
        return x.reshape(len(x), -1, self.height)
