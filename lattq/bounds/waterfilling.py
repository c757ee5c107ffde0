"""Reverse waterfilling: rate and distortion of independent Gaussian components.

Every component of variance above the level θ is described with distortion θ; the others are not described at all.
Rates and distortions are means over the components.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from lattq._array import Array, short_repr
from lattq.bounds._checks import Number, exactly_one, non_negative, positive, scalar_or_vector, variance_vector
from lattq.errors import InvalidInputError

__all__ = [
    "ProductWaterfilling",
    "Waterfilling",
    "distortion_rate",
    "rate_distortion",
    "waterfill",
    "waterfill_product",
]


@short_repr
@dataclass(frozen=True, eq=False)
class Waterfilling:
    """How independent Gaussian components share a rate.

    Attributes
    ----------
    level : θ, the distortion of every component that gets bits
    rates : bits of each component, ½ log2(variance / level) or 0
    distortions : squared error of each component, min(variance, level)

    Examples
    --------
    >>> filled = waterfill(np.array([4.0, 1.0]), rate=1.0)
    >>> round(filled.level, 12), filled.rates.round(12).tolist(), round(filled.distortion, 12)
    (0.5, [1.5, 0.5], 0.5)
    """

    level: float
    rates: Float[np.ndarray, " n"]
    distortions: Float[np.ndarray, " n"]

    @property
    def rate(self) -> float:
        """Bits per component, the mean of `rates`."""
        return float(self.rates.mean())

    @property
    def distortion(self) -> float:
        """Squared error per component, the mean of `distortions`."""
        return float(self.distortions.mean())


@dataclass(frozen=True)
class ProductWaterfilling:
    """Waterfilling over all products of a row and a column variance.

    Attributes
    ----------
    level : θ, the distortion of every component that gets bits
    rate : bits per component
    distortion : squared error per component

    Examples
    --------
    >>> filled = waterfill_product(np.array([1.0, 4.0]), np.array([1.0, 0.25]), rate=1.0)
    >>> round(filled.level, 12), round(filled.rate, 12), round(filled.distortion, 12)
    (0.25, 1.0, 0.25)
    """

    level: float
    rate: float
    distortion: float


def waterfill(
    variances: Float[Array, " n"], *, distortion: Number | None = None, rate: Number | None = None
) -> Waterfilling:
    """Share a distortion or a rate among independent Gaussian components, theory (1.8) and (1.9).

    Exact up to rounding: the level solves a linear equation once it is known which components are above it.

    Parameters
    ----------
    variances : of the components; zeros are legal.
    distortion : wanted mean squared error per component. At or above the mean variance no bits are needed.
    rate : or the wanted mean bits per component. Spent in full unless every variance is zero.

    Returns
    -------
    Level, rates and distortions; the level is the largest variance if the rate is zero.

    Raises
    ------
    InvalidInputError : if not exactly one of `distortion` and `rate` is given, `distortion` is not positive, `rate`
        is negative, or `variances` hold a negative number, NaN or infinity.

    References
    ----------
    Kolmogorov 1956; Cover and Thomas 2006, theorem 10.3.3.

    Examples
    --------
    >>> filled = waterfill(np.array([4.0, 1.0, 0.25]), distortion=0.75)
    >>> filled.level, filled.distortions.tolist(), filled.rates.round(6).tolist()
    (1.0, [1.0, 1.0, 0.25], [1.0, 0.0, 0.0])
    """
    values = variance_vector("variances", variances)
    log_level, level = _log_level(np.ones(1), np.sort(values), distortion, rate)
    above = values > level
    rates = np.zeros_like(values)
    rates[above] = np.maximum(np.log(values[above]) - log_level, 0.0) / (2.0 * math.log(2.0))
    return Waterfilling(level, rates, np.minimum(values, level))


def waterfill_product(
    row_variances: Float[Array, " rows"] | Number,
    variances: Float[Array, " n"],
    *,
    distortion: Number | None = None,
    rate: Number | None = None,
) -> ProductWaterfilling:
    """Waterfill the rows · n components of variance ``row_variances[r] * variances[i]`` without listing them.

    The same as `waterfill` of the flattened outer product, in O((rows + n) log n) time.

    Parameters
    ----------
    row_variances : one per row, or a scalar for rows that are all alike; zeros are legal.
    variances : one per column or eigenvalue; zeros are legal.
    distortion : wanted mean squared error per component.
    rate : or the wanted mean bits per component.

    Returns
    -------
    Level, rate and distortion.

    Raises
    ------
    InvalidInputError : as for `waterfill`, or if the products overflow.

    Examples
    --------
    >>> filled = waterfill_product(np.array([1.0, 4.0]), np.array([1.0, 0.25]), distortion=0.5)
    >>> round(filled.level, 6), round(filled.rate, 6)
    (0.583333, 0.541603)
    >>> round(waterfill(np.array([1.0, 0.25, 4.0, 1.0]), distortion=0.5).rate, 6)
    0.541603
    """
    rows = scalar_or_vector("row_variances", row_variances)
    columns = np.sort(variance_vector("variances", variances))
    log_level, level = _log_level(rows, columns, distortion, rate)
    bits = _nats_above(log_level, rows, columns) / (2.0 * math.log(2.0))
    return ProductWaterfilling(level, bits / (rows.size * columns.size), _mean_below(level, rows, columns))


def rate_distortion(variances: Float[Array, " n"], distortion: Number) -> float:
    """Return R(D) of independent Gaussian components, bits per component.

    Parameters
    ----------
    variances : of the components; zeros are legal.
    distortion : squared error per component, above zero.

    Raises
    ------
    InvalidInputError : as for `waterfill`.

    References
    ----------
    Cover and Thomas 2006, theorem 10.3.3.

    Examples
    --------
    >>> rate_distortion(np.array([4.0, 1.0]), 0.5)
    1.0
    """
    return waterfill(variances, distortion=distortion).rate


def distortion_rate(variances: Float[Array, " n"], rate: Number) -> float:
    """Return D(R) of independent Gaussian components, squared error per component; inverse of `rate_distortion`.

    Parameters
    ----------
    variances : of the components; zeros are legal.
    rate : bits per component.

    Raises
    ------
    InvalidInputError : as for `waterfill`.

    Examples
    --------
    >>> round(distortion_rate(np.array([4.0, 1.0]), 1.0), 12)
    0.5
    """
    return waterfill(variances, rate=rate).distortion


def _log_level(
    rows: np.ndarray, columns: np.ndarray, distortion: Number | None, rate: Number | None
) -> tuple[float, float]:
    """Return ln θ and θ for the products of `rows` and sorted `columns`; ln θ outlives an underflow of θ."""
    exactly_one(distortion=distortion, rate=rate)
    count = rows.size * columns.size
    with np.errstate(over="ignore"):
        total = float(rows.sum()) * float(columns.sum())
    if not total < math.inf:
        msg = f"the variances sum to {total}; rescale the source"
        raise InvalidInputError(msg)
    if distortion is None:
        log_level = _log_level_at_rate(rows, columns, 2.0 * math.log(2.0) * count * non_negative("rate", _given(rate)))
        return log_level, math.exp(log_level)
    wanted = count * positive("distortion", distortion)
    level = float(rows.max() * columns.max()) if wanted >= total else _level_at_distortion(rows, columns, wanted)
    return (math.log(level) if level > 0.0 else -math.inf), level


def _given(value: Number | None) -> Number:
    """Return an optional argument that `exactly_one` found given."""
    assert value is not None
    return value


def _level_at_distortion(rows: np.ndarray, columns: np.ndarray, wanted: float) -> float:
    """Solve Σ min(r c, θ) = wanted < Σ r c.

    The left side is concave and piecewise linear in θ, so Newton's steps from below never overshoot, and stop, exactly,
    at the first that leaves the active set unchanged. A step divides the slope or the residual by two at least.
    """
    rows = rows[rows > 0.0]
    below = _prefix_sums(columns)
    level = 0.0
    while True:
        inactive = _inactive(level, rows, columns)
        active = rows.size * columns.size - int(inactive.sum())
        if active == 0:
            return level
        candidate = (wanted - float(rows @ below[inactive])) / active
        if candidate <= level:
            return level
        level = candidate


def _log_level_at_rate(rows: np.ndarray, columns: np.ndarray, wanted: float) -> float:
    """Solve Σ max(0, ln(r c) - t) = wanted; the left side is convex in t, and Newton works as for the distortion."""
    log_rows, log_columns = np.log(rows[rows > 0.0]), np.log(columns[columns > 0.0])
    if log_rows.size == 0 or log_columns.size == 0:
        return -math.inf
    below = _prefix_sums(log_columns)
    log_level = -math.inf
    while True:
        inactive = np.searchsorted(log_columns, log_level - log_rows, side="right")
        counts = log_columns.size - inactive
        active = int(counts.sum())
        if active == 0:
            return log_level
        candidate = (float((below[-1] - below[inactive]).sum() + counts @ log_rows) - wanted) / active
        if candidate <= log_level:
            return log_level
        log_level = candidate


def _nats_above(log_level: float, rows: np.ndarray, columns: np.ndarray) -> float:
    """Return Σ max(0, ln(r c) - ln θ)."""
    log_rows, log_columns = np.log(rows[rows > 0.0]), np.log(columns[columns > 0.0])
    if log_rows.size == 0 or log_columns.size == 0:
        return 0.0
    below = _prefix_sums(log_columns)
    inactive = np.searchsorted(log_columns, log_level - log_rows, side="right")
    nats = (below[-1] - below[inactive]) + (log_columns.size - inactive) * (log_rows - log_level)
    return max(0.0, float(nats.sum()))


def _mean_below(level: float, rows: np.ndarray, columns: np.ndarray) -> float:
    """Return the mean of min(r c, θ)."""
    live = rows[rows > 0.0]
    inactive = _inactive(level, live, columns)
    active = live.size * columns.size - int(inactive.sum())
    return (float(live @ _prefix_sums(columns)[inactive]) + active * level) / (rows.size * columns.size)


def _inactive(level: float, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Return how many of the sorted columns each row (none zero) leaves at or below the level."""
    with np.errstate(over="ignore"):  # infinity is the right answer for a row of almost no variance
        return np.searchsorted(columns, level / rows, side="right")


def _prefix_sums(values: np.ndarray) -> np.ndarray:
    """Return 0, v0, v0 + v1, ...; summed in extended precision where the platform has it."""
    return np.concatenate([[0.0], np.cumsum(values, dtype=np.longdouble).astype(np.float64)])
