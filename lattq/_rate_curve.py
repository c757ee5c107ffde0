"""What rate a step is expected to give: the entropy of Gaussian weights in cells of that size, before anything is coded.

Each weight has a variance, that of its row times that of its column, in the coordinates of the cells. A cell of side s
then takes ½ log2(2πe variance / s²) bits, and none where that is negative (theory 2.1). Coders, sweeps and low rates
move this by a few hundredths of a bit, which searches learn; what they need is how the rate falls with the step.
"""

import dataclasses
import math
from typing import Any

import numpy as np
from jaxtyping import Float

from lattq._array import Array, short_repr, to_host
from lattq._metric import Metric
from lattq.linalg.ldl import unchecked_ldl

__all__ = ["RateCurve"]

CELL = math.log2(2 * math.pi * math.e)
BEYOND = 0.25  # bits for each octave of a squared step where no bits are left: searches need a way back
HALVINGS = 60  # of a bracket of squared steps: to the last digits


@short_repr
@dataclasses.dataclass(frozen=True, eq=False)
class RateCurve:
    """Expected bits per weight as a function of the step.

    Parameters
    ----------
    rows, columns : logarithms, base 2, of the variances of rows and columns that are not 0, columns in falling order
    size : of all weights

    Examples
    --------
    >>> from lattq.recipes import watersic
    >>> curve = RateCurve.of(np.ones((1, 2)), Metric(np.eye(2)), watersic(1.0))
    >>> round(curve.rate(0.25), 4), round(curve.step(curve.rate(0.25)), 4)
    (4.0471, 0.25)
    """

    rows: Float[np.ndarray, " rows"]
    columns: Float[np.ndarray, " columns"]
    size: int

    @staticmethod
    def of(weight: Float[Array, "rows columns"], metric: Metric, scheme: Any) -> "RateCurve":
        """The curve of a layer in the coordinates of a scheme, whose step does not matter here.

        One round of the two-way fit is near enough, and exists for sparse weights too.
        """
        transform = scheme.transform(weight, metric.inputs)
        host, metric = to_host(transform.forward(weight)).astype(np.float64), metric.moved(transform)
        peak = float(np.abs(host).max(initial=0.0)) or 1.0
        squares = np.square(host / peak)
        rows, columns = squares.mean(axis=1) / (squares.mean() or 1.0), squares.mean(axis=0)
        if scheme.equalize:  # then cells are equally large where pivots are equal
            columns = columns * unchecked_ldl(metric.inputs, "natural", 1).pivots
            rows = rows if metric.output_factor is None else rows * metric.output_factor.pivots.reshape(-1)
        logs = (np.log2(one[one > 0]) for one in (rows, columns))
        return RateCurve(next(logs), np.sort(next(logs))[::-1] + 2 * math.log2(peak), host.size)

    def rate(self, step: float) -> float:
        """Bits per weight in cells of side `step`; beyond the largest that matters they go on below 0."""
        level = 2 * math.log2(step) - CELL
        return self._excess(level) if level < self._top else BEYOND * (self._top - level)

    def step(self, rate: float) -> float:
        """The step of a rate: the inverse of `rate`."""
        if rate <= 0:
            return 2 ** ((self._top - rate / BEYOND + CELL) / 2)
        if not self._live:
            return 1.0
        low = min(float(self.rows.mean() + self.columns.mean() - 2 * rate * self.size / self._live), self._top)
        high = self._top
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            low, high = (middle, high) if self._excess(middle) > rate else (low, middle)
        return 2 ** ((high + CELL) / 2)

    @property
    def _top(self) -> float:
        """The largest variance."""
        return float(self.rows.max() + self.columns[0]) if self._live else 0.0

    @property
    def _live(self) -> int:
        return self.rows.size * self.columns.size

    def _excess(self, level: float) -> float:
        """Half of how far variances lie above a level, in octaves, on the mean over all weights."""
        above = np.searchsorted(-self.columns, self.rows - level, side="right")
        sums = np.concatenate([[0.0], np.cumsum(self.columns)])
        return float(above @ (self.rows - level) + sums[above].sum()) / (2 * self.size)
