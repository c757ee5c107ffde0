"""The best codebook for numbers, exactly: weighted k-means in one dimension by dynamic programming.

Equal numbers are merged first. Numbers of 16 bits have at most 65 536 values, however many there are, and a table from
bit patterns to cells replaces sorting. The best cells are intervals of sorted values; see `lattq.kernels.kmeans_1d`.
"""

import dataclasses
import math

import numpy as np
from jaxtyping import Float

from lattq._array import Array, from_host, short_repr
from lattq._options import as_integer
from lattq.codebooks.clustering import Clustering, check_size, check_weights, finite_floats
from lattq.errors import InvalidInputError

__all__ = ["Distinct", "curve", "distinct", "kmeans_1d"]

_TABLE_BYTES = 1 << 26  # a larger table of cell starts is replaced by halving the problem
_LEAST = 2.0**-50  # of all weight: running sums must grow
_FEW = 2048  # fewer numbers are sorted


def kmeans_1d(
    x: Float[Array, "*rows n"],
    size: int,
    weights: Float[Array, "..."] | None = None,
    *,
    bins: int | None = None,
) -> Clustering:
    """The `size` numbers with the least weighted squared error to `x`; the optimum, not a local one.

    Costs of cells are differences of running sums in float64, taken from the mean: `distortion` is above the least
    possible by at most about 1e-15 of the variance of `x` for each cell.
    Weights below 1e-15 of their sum count as that.

    Parameters
    ----------
    x : numbers, or rows of them: each row gets a codebook of its own
    size : entries of a codebook
    weights : of each number, above zero, or of each column; 1 if not given
    bins : None for the optimum. Otherwise numbers are first merged in so many intervals of equal width, which is faster
        for millions of different values; `excess` then bounds what that may have cost.

    Returns
    -------
    Sorted centroids, the indices of all numbers, and the mean squared error (with weights, the weighted mean).

    Raises
    ------
    InvalidInputError : if a number is not finite, a weight not positive, or `size` above the number of distinct values.

    References
    ----------
    Wu 1991; Grønlund, Larsen, Mathiasen, Nielsen, Schneider and Song 2017.

    Examples
    --------
    >>> found = kmeans_1d(np.array([0.0, 1.0, 5.0, 6.0]), 2, np.array([3.0, 1.0, 1.0, 1.0]))
    >>> found.centroids, found.assignment
    (array([0.25, 5.5 ]), array([0, 0, 1, 1], dtype=int32))
    >>> kmeans_1d(np.array([[0.0, 1.0, 5.0], [7.0, 7.0, 9.0]]), 2).centroids
    array([[0.5, 5. ],
           [7. , 9. ]])
    """
    rows, all_weights, flat = _rows(x, weights)
    if bins is not None and as_integer("bins", bins) < 2:
        msg = f"`bins` is {bins}; give at least 2 intervals"
        raise InvalidInputError(msg)
    parts = [_fit(row, weight, size, bins, None if flat else i) for i, (row, weight) in _enumerated(rows, all_weights)]
    centroids, indices, distortions, excess = (np.array(values) for values in zip(*parts, strict=True))
    if flat:
        centroids, indices, distortions, excess = centroids[0], indices[0], float(distortions[0]), float(excess[0])
    return Clustering(from_host(centroids, like=x), from_host(indices, like=x), distortions, (), excess)


def curve(
    x: Float[Array, "*rows n"], size: int, weights: Float[Array, "..."] | None = None
) -> Float[np.ndarray, "*rows size"]:
    """Least mean squared errors with 1, 2, ..., `size` entries, all from one run; convex in their number.

    Parameters
    ----------
    x, weights : as for `kmeans_1d`; rows have a curve each
    size : entries of the largest codebook

    Returns
    -------
    Squared error per number, to about 1e-15 of the variance times `size`.

    Raises
    ------
    InvalidInputError : as for `kmeans_1d`.

    Examples
    --------
    >>> curve(np.array([0.0, 1.0, 5.0, 6.0]), 4).round(12)
    array([6.5  , 0.25 , 0.125, 0.   ])
    """
    from lattq.kernels.kmeans_1d import last_starts

    rows, all_weights, flat = _rows(x, weights)
    found = []
    for i, (row, weight) in _enumerated(rows, all_weights):
        values = distinct(row, weight)
        k = _check_distinct(size, values, None if flat else i)
        sums = _Sums.of(values.values, values.weights)
        gains = np.empty(k)
        last_starts(sums.weight, sums.moment, gains, np.zeros((k, 1 + len(values.values)), np.int32))
        found.append(np.maximum(sums.total - gains, 0.0) * sums.unit)
    return found[0] if flat else np.array(found)


@short_repr
@dataclasses.dataclass(frozen=True, eq=False)
class Distinct:
    """Different numbers in order, with the weight of all that are equal.

    `patterns` are the 16 bits of each number of the input, if it had so few, and `order` those of `values`.
    """

    values: np.ndarray
    weights: np.ndarray
    patterns: np.ndarray | None = None
    order: np.ndarray | None = None

    def cells(self, x: np.ndarray, starts: np.ndarray) -> np.ndarray:
        """The cell of each number of `x`, where cells begin at places `starts` of `values`."""
        cell = np.zeros(len(self.values), dtype=np.int32)
        cell[starts[1:]] = 1
        if self.patterns is None or self.order is None:
            return np.searchsorted(self.values[starts[1:]], x, side="right").astype(np.int32)
        table = np.zeros(1 << 16, dtype=np.int32)
        table[self.order] = np.cumsum(cell, dtype=np.int32)
        return table[self.patterns]


def distinct(x: np.ndarray, weights: np.ndarray | None = None) -> Distinct:
    """Different values of an array of one dimension, in float64.

    >>> distinct(np.array([2.0, 1.0, 2.0])).weights
    array([1., 2.])
    """
    from lattq.kernels.kmeans_1d import count_patterns, merge

    kind = _sixteen_bits(x) if len(x) > _FEW else None
    if kind is None:
        order = np.argsort(x) if weights is not None else None
        ordered = np.sort(x) if order is None else x[order]
        mass = np.ones(len(x)) if order is None or weights is None else weights[order]
        values, total = np.empty(len(x)), np.empty(len(x))
        found = merge(ordered.astype(np.float64), mass, values, total)
        return Distinct(values[:found], total[:found])
    patterns, meanings = kind
    if weights is None:
        counts = np.zeros(1 << 16, dtype=np.int64)
        count_patterns(patterns, counts)
    else:
        counts = np.bincount(patterns, weights, 1 << 16)
    used = np.flatnonzero(counts)
    used = used[np.argsort(meanings[used], kind="stable")]  # both zeros stay two values
    return Distinct(meanings[used], counts[used].astype(np.float64), patterns, used)


def _sixteen_bits(x: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Bit patterns of numbers that float16 or bfloat16 holds, and what each pattern of 16 bits means."""
    every = np.arange(1 << 16, dtype=np.uint32)
    with np.errstate(over="ignore", invalid="ignore"):
        if x.dtype != np.float16:
            single = x.astype(np.float32, copy=False)
            if single is not x and not np.array_equal(single, x):
                return None
            bits = np.ascontiguousarray(single).view(np.uint32)
            if not (bits & 0xFFFF).any():
                return (bits >> 16).astype(np.uint16), (every << 16).view(np.float32).astype(np.float64)
            half = single.astype(np.float16)
            if not np.array_equal(half, single):
                return None
            x = half
        return np.ascontiguousarray(x).view(np.uint16), every.astype(np.uint16).view(np.float16).astype(np.float64)


@short_repr
@dataclasses.dataclass(frozen=True, eq=False)
class _Sums:
    """Running sums of weights and moments of numbers with mean 0 and largest size 1; `unit` turns errors back."""

    weight: np.ndarray
    moment: np.ndarray
    total: float
    unit: float

    @staticmethod
    def of(values: np.ndarray, weights: np.ndarray) -> "_Sums":
        weights = np.maximum(weights / weights.sum(), _LEAST)
        centred = values - weights @ values / weights.sum()
        scale = float(np.abs(centred).max()) or 1.0
        centred = centred / scale
        weight, moment = (np.concatenate([[0.0], np.cumsum(part)]) for part in (weights, weights * centred))
        return _Sums(weight, moment, float(weights @ centred**2), scale**2)

    def starts(self, size: int) -> np.ndarray:
        """First places of the best cells."""
        from lattq.kernels.kmeans_1d import last_starts, middle_start

        n = len(self.weight) - 1
        kind = np.uint16 if n <= 1 << 16 else np.int32
        if size > 2 and size * (n + 1) * np.dtype(kind).itemsize > _TABLE_BYTES:
            half = size // 2
            middle = int(middle_start(self.weight, self.moment, size, half))
            left, right = self._part(0, middle).starts(half), self._part(middle, n).starts(size - half)
            return np.concatenate([left, middle + right])
        table = np.zeros((size, n + 1), kind)
        last_starts(self.weight, self.moment, np.empty(size), table)
        found, end = np.zeros(size, dtype=np.int64), n
        for t in range(size - 1, 0, -1):
            end = found[t] = table[t, end]
        return found

    def _part(self, low: int, high: int) -> "_Sums":
        weight, moment = (running[low : high + 1] - running[low] for running in (self.weight, self.moment))
        return _Sums(weight, moment, self.total, self.unit)


def _rows(x: Array, weights: Array | None) -> tuple[np.ndarray, np.ndarray | None, bool]:
    """Rows on the host, their weights, and whether there was but one without a row axis."""
    host = finite_floats("x", x)
    if host.ndim > 2:
        msg = f"`x` has shape {host.shape}; pass numbers, or rows of them"
        raise InvalidInputError(msg)
    found = None if weights is None else check_weights(weights, host.shape)
    return np.atleast_2d(host), None if found is None else np.atleast_2d(found), host.ndim == 1


def _enumerated(rows: np.ndarray, weights: np.ndarray | None) -> list:
    return list(enumerate(zip(rows, [None] * len(rows) if weights is None else weights, strict=True)))


def _check_distinct(size: int, values: Distinct, row: int | None) -> int:
    where = "" if row is None else f" in row {row}"
    count = len(values.values) - int(np.sum(np.diff(values.values) == 0))
    return check_size("size", size, count, f"distinct values{where}")


def _fit(x: np.ndarray, weights: np.ndarray | None, size: int, bins: int | None, row: int | None) -> tuple:
    """Centroids, indices, squared error and excess of one row."""
    values = distinct(x, weights)
    k = _check_distinct(size, values, row)
    merged, lost = _merged(values, bins)
    starts = _Sums.of(merged.values, merged.weights).starts(k)
    if bins is not None:
        centroids, _ = _means(merged, starts)
        starts = np.searchsorted(values.values, np.concatenate([[-np.inf], (centroids[1:] + centroids[:-1]) / 2]))
    centroids, error = _means(values, starts)
    excess = 0.0 if bins is None else _excess(merged, lost, k, error)
    return centroids, values.cells(x, starts), error, excess


def _means(values: Distinct, starts: np.ndarray) -> tuple[np.ndarray, float]:
    """Means of cells, and the mean squared error."""
    base = values.values[starts]  # differences within a cell lose no digits to what is common
    offsets = values.values - np.repeat(base, np.diff(starts, append=len(values.values)))
    mass = np.add.reduceat(values.weights, starts)
    means = np.add.reduceat(values.weights * offsets, starts) / mass
    errors = offsets - np.repeat(means, np.diff(starts, append=len(values.values)))
    return base + means, float(values.weights @ errors**2 / values.weights.sum())


def _merged(values: Distinct, bins: int | None) -> tuple[Distinct, np.ndarray]:
    """Numbers of the same interval in one, and the squared error of each interval."""
    if bins is None or len(values.values) <= bins:
        return values, np.zeros(1)
    low, high = values.values[0], values.values[-1]
    place = np.minimum((values.values - low) * (bins / (high - low)), bins - 1).astype(np.int64)
    starts = np.flatnonzero(np.diff(place, prepend=-1))
    means, _ = _means(values, starts)
    errors = (values.values - np.repeat(means, np.diff(starts, append=len(place)))) ** 2
    return Distinct(means, np.add.reduceat(values.weights, starts)), np.add.reduceat(values.weights * errors, starts)


def _excess(merged: Distinct, lost: np.ndarray, size: int, error: float) -> float:
    """Squared error above a lower bound of the least.

    An optimal quantizer splits at most size - 1 intervals. Elsewhere it pays the spread of an interval and the squared
    distance of its mean; in those, by the triangle inequality, at least (√ distances - √ spreads)².
    """
    mass = merged.weights.sum()
    best = _means(merged, _Sums.of(merged.values, merged.weights).starts(size))[1]
    spread, split = lost.sum() / mass, np.sort(lost)[::-1][: size - 1].sum() / mass
    lower = spread - split if best < split else spread + best - 2.0 * math.sqrt(best * split)
    return max(error - lower, 0.0)
