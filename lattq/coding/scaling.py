"""What codes of one step decode to: gains of rows and columns on a grid of points."""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from lattq._array import short_repr
from lattq.coding.narrow import in_cells

__all__ = ["AS_THEY_ARE", "Scaling"]


@short_repr
@dataclasses.dataclass(frozen=True, eq=False)
class Scaling:
    """The map of codes to weights: (k + shift - zero) * step * column gain * row gain / divisor / row divisor.

    Operations are those of float64 in this order: a decoder that does them one weight after the other gets the same
    bits as one that does them with whole matrices.

    Attributes
    ----------
    step, zero : of all codes
    shifts : of the codes -K ... K; other codes have none
    columns, rows : gains of columns and of rows; None for 1
    divisors, row_divisors : what columns are divided by, and then rows; None for 1

    Examples
    --------
    >>> Scaling(0.5, rows=np.array([1.0, 2.0])).apply(np.array([[1, 2], [3, 4]]))
    array([[0.5, 1. ],
           [3. , 4. ]])
    """

    step: float
    zero: float = 0.0
    shifts: Float[np.ndarray, " codes"] | None = None
    columns: Float[np.ndarray, " columns"] | None = None
    rows: Float[np.ndarray, " rows"] | None = None
    divisors: Float[np.ndarray, " columns"] | None = None
    row_divisors: Float[np.ndarray, " rows"] | None = None

    def apply(
        self, codes: Int[np.ndarray, "rows some"], columns: Int[np.ndarray, " some"] | None = None
    ) -> Float[np.ndarray, "rows some"]:
        """What codes decode to, which are those of some columns, or of all."""
        values = codes.astype(np.float64)
        if self.shifts is not None:
            middle = len(self.shifts) // 2
            inside = np.abs(codes) <= middle
            values[inside] += self.shifts[codes[inside] + middle]
        values = (values - self.zero) * self.step
        some = slice(None) if columns is None else columns
        if self.columns is not None:
            values = values * self.columns[some]
        if self.rows is not None:
            values = values * self.rows[:, None]
        if self.divisors is not None:
            values = values / self.divisors[some]
        return values if self.row_divisors is None else values / self.row_divisors[:, None]

    def bound(self, least: int, most: int) -> float:
        """No value of codes from `least` to `most` is larger; infinite where that is not known.

        >>> Scaling(0.5, columns=np.array([3.0])).bound(-2, 1)
        3.0...
        """
        found = max(abs(least), abs(most)) + abs(self.zero) + _largest(self.shifts, 0.0)
        found *= abs(self.step) * _largest(self.columns, 1.0) * _largest(self.rows, 1.0) * (1 + 1e-12)
        for divisors in (self.divisors, self.row_divisors):
            found = found if divisors is None else found / float(divisors.min())
        return found

    def idle(self, columns: Int[np.ndarray, " some"], out: np.ndarray) -> tuple[int, int]:
        """Write what codes of 0 decode to into columns of `out`; returns 0 for the least and the largest of them."""
        for start in range(0, len(out) if len(columns) else 0, ROWS):
            some = slice(start, start + ROWS)
            zeros = np.zeros((len(out[some]), len(columns)), dtype=np.int32)
            out[some, columns] = in_cells(self._of_rows(some).apply(zeros, columns), out.dtype)
        return 0, 0

    def _of_rows(self, some: slice) -> "Scaling":
        """The same of some rows."""
        parts = {"rows": self.rows, "row_divisors": self.row_divisors}
        return dataclasses.replace(self, **{name: one if one is None else one[some] for name, one in parts.items()})

    @property
    def arguments(self) -> tuple[Any, ...]:
        """What the kernels of `lattq.kernels.rans` take: whether integers stay as they are, and numbers of float64."""
        parts = [self.shifts, self.columns, self.rows, self.divisors, self.row_divisors]
        shifts, *gains = (NOTHING if part is None else np.ascontiguousarray(part, dtype=np.float64) for part in parts)
        return (False, shifts, float(self.zero), float(self.step), *gains)


NOTHING = np.empty(0)
ROWS = 64  # of columns of zeros that are written at once
AS_THEY_ARE = (True, NOTHING, 0.0, 1.0, NOTHING, NOTHING, NOTHING, NOTHING)


def _largest(values: np.ndarray | None, without: float) -> float:
    return without if values is None else float(np.abs(values).max(initial=0.0))
