"""What rate a step is expected to give: the entropy of Gaussian weights in cells of that size, without a run.

Each weight has a variance v, that of its row times that of its column, in the coordinates of the cells. A cell of side
s then takes ½ log2(2πe v / s²) bits at high rate, and ½ log2(1 + 2πe v / s²) goes on from there to low ones. Coders,
sweeps and errors that were fed back move this by some hundredths of a bit, which searches learn; what they need is how
the rate falls with the step.
"""

import dataclasses
import functools
import math
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.optimize import brentq

from lattq._array import Array, short_repr, to_host
from lattq._metric import Metric
from lattq.linalg.definite import pivots_in_single
from lattq.linalg.ldl import unchecked_ldl

__all__ = ["RateCurve"]

CELL = math.log2(2 * math.pi * math.e)
PARTS = 16  # of an octave of variances: less than 1e-4 bit of a rate
LEAST = 0.01  # bits, below which a curve goes on as a line: searches need a way back
SLOPE = 0.5  # of that line, bits for an octave
FARTHEST = 1000.0  # octaves, which float64 holds: few weights that vary may be asked for any number of bits


@short_repr
@dataclasses.dataclass(frozen=True, eq=False)
class RateCurve:
    """Expected bits per weight as a function of the step.

    Parameters
    ----------
    levels : logarithms, base 2, of variances
    shares : of the weights that have them; the rest have variance 0
    size : of all weights

    Examples
    --------
    >>> from lattq.recipes import watersic
    >>> curve = RateCurve.of(np.ones((1, 2)), Metric(np.eye(2)), watersic(1.0))
    >>> round(curve.rate(0.25), 4), round(curve.step(curve.rate(0.25)), 4)
    (4.0497, 0.25)
    """

    levels: Float[np.ndarray, " n"]
    shares: Float[np.ndarray, " n"]
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
            columns = columns * _pivots(metric.inputs)
            rows = rows if metric.output_factor is None else rows * metric.output_factor.pivots.reshape(-1)
        (first, of_rows), (second, of_columns) = _histogram(rows), _histogram(columns)
        shares = np.convolve(of_rows, of_columns)
        return RateCurve(first + second + 2 * math.log2(peak) + np.arange(len(shares)) / PARTS, shares, host.size)

    def rate(self, step: float) -> float:
        """Bits per weight in cells of side `step`; below a hundredth it falls by half a bit an octave."""
        log = math.log2(step)
        return self._rate(log) if log < self._end else LEAST - SLOPE * (log - self._end)

    def step(self, rate: float) -> float:
        """The step of a rate: the inverse of `rate`."""
        log = self._log(rate) if rate > LEAST else self._end + (LEAST - rate) / SLOPE
        return 2 ** min(max(log, -FARTHEST), FARTHEST)

    @functools.cached_property
    def _end(self) -> float:
        """Logarithm of the step at which a hundredth of a bit is left; 0 if nothing varies."""
        return self._log(LEAST)

    def _rate(self, log: float) -> float:
        return float(self.shares @ np.logaddexp2(0.0, self.levels - 2 * log + CELL)) / 2

    def _log(self, rate: float) -> float:
        """Logarithm of the step of a positive rate, between those of equal variances, the mean and the largest."""
        live = float(self.shares.sum())
        if not live:
            return 0.0
        bits = 2 * rate / live
        low = (float(self.shares @ self.levels) / live + CELL - bits) / 2
        most = float(self.levels[np.flatnonzero(self.shares)[-1]])
        high = (most + CELL - _log2_less_one(bits)) / 2
        found: Any = brentq(lambda log: self._rate(log) - rate, low - 1e-9, high + 1e-9, xtol=1e-12)
        return float(found)


def _log2_less_one(bits: float) -> float:
    """log2(2^bits - 1), for any number of bits above 0.

    >>> _log2_less_one(1.0), _log2_less_one(5000.0)
    (0.0, 5000.0)
    """
    return bits + math.log2(-math.expm1(-bits * math.log(2)))


def _pivots(sigma: Float[np.ndarray, "n n"]) -> Float[np.ndarray, " n"]:
    """In natural order; float32 is more than enough where it finds them.

    >>> _pivots(np.array([[4.0, 2.0], [2.0, 2.0]])).round(6)
    array([4., 1.])
    """
    scale = np.sqrt(np.diag(sigma))
    found = pivots_in_single(sigma, scale) if scale.all() else None
    return unchecked_ldl(sigma, "natural", 1).pivots if found is None else found * scale**2


def _histogram(variances: Float[np.ndarray, " n"]) -> tuple[float, Float[np.ndarray, " bins"]]:
    """Logarithm of the least variance above 0, moved so that the mean is right, and the share in each bin from there.

    >>> first, shares = _histogram(np.array([0.0, 1.0, 4.0, 4.0]))
    >>> first, shares[[0, 32]], len(shares)
    (0.0, array([0.25, 0.5 ]), 33)
    """
    logs = np.log2(variances[variances > 0])
    if not logs.size:
        return 0.0, np.zeros(1)
    bins = np.rint((logs - logs.min()) * PARTS).astype(np.int64)
    return float(logs.mean() - bins.mean() / PARTS), np.bincount(bins) / variances.size
