"""The best scale of given values: of integers with or without a zero point, and of number formats (theory 10)."""

import dataclasses

import numpy as np
from jaxtyping import Float, Int, Num

from lattq._array import Array, from_host, require_finite, to_host
from lattq.errors import InvalidInputError

__all__ = ["ScaleFit", "best_scales"]


@dataclasses.dataclass(frozen=True, eq=False)
class ScaleFit:
    """Scales of rows of numbers.

    Attributes
    ----------
    scale : of each row; 0 where every scale is as good as none
    error : weighted squared errors of each row, summed
    grid : which of the value sets each row takes
    """

    scale: Float[Array, " rows"]
    error: Float[Array, " rows"]
    grid: Int[Array, " rows"]


def best_scales(
    x: Float[Array, "rows n"],
    values: Num[np.ndarray, "*grids count"],
    weights: Float[Array, "..."] | None = None,
    *,
    candidates: Float[np.ndarray, " scales"] | None = None,
    start: Int[np.ndarray, " rows"] | None = None,
) -> ScaleFit:
    """For each row the positive scale s that minimises the sum of w (x - s v)², v the nearest of the values.

    The minimum over all scales, found by sorting those at which a number changes its value.

    Parameters
    ----------
    x : numbers
    values : in increasing order; or several such grids of equal size, of which a row takes the best that lies downhill
        of where it starts: the next one is tried as long as errors fall
    weights : of squared errors, zero or above: for each column, or for each number; 1 if not given
    candidates : the only scales allowed, positive and in increasing order; with one grid
    start : the grid that each row starts from; the first if not given

    Returns
    -------
    Scales and errors in the library of `x`, float64.

    Raises
    ------
    InvalidInputError : for numbers, values or weights that are not finite, values that do not increase, negative
        weights, scales that are not positive, or shapes that do not fit

    Examples
    --------
    >>> best_scales(np.array([[0.4, -1.1, 2.1, -2.9]]), np.arange(-4.0, 4.0)).scale.round(3)
    array([0.683])
    >>> best_scales(np.array([[0.4, -1.1]]), np.arange(-4.0, 4.0), candidates=np.array([0.25, 0.4])).scale
    array([0.4])
    """
    from lattq.kernels import scales as native  # numba takes most of a second to import

    host = np.ascontiguousarray(to_host(x), dtype=np.float64)
    grids = np.atleast_2d(np.asarray(values, dtype=np.float64))
    mass = np.ones((1, host.shape[1])) if weights is None else np.atleast_2d(to_host(weights)).astype(np.float64)
    _check(host, grids, mass)
    unit = 2.0 ** np.floor(np.log2(mass.max())) if mass.any() else 1.0  # squares of small weights leave float64
    mass = mass / unit
    found, error, grid = np.zeros(len(host)), np.zeros(len(host)), np.zeros(len(host), np.int64)
    ladders, sizes, doubled = _ladders(grids)
    if candidates is None:
        first = grid if start is None else np.asarray(start, dtype=np.int64)
        native.least_error(host, mass, ladders, sizes, doubled, first, found, error, grid)
    else:
        if len(grids) > 1 or not len(candidates) or candidates[0] <= 0 or not (np.diff(candidates) > 0).all():
            msg = f"`candidates` are {len(candidates)} scales, {len(grids)} grids; pass rising positive ones and a grid"
            raise InvalidInputError(msg)
        halved = np.isin(candidates / 2, candidates)
        above = candidates[~halved].max()
        native.best_of(host, mass, ladders[0], sizes[0], doubled[0], candidates, above, found, error)
    return ScaleFit(*(from_host(array, like=x) for array in (found, error * unit, grid)))


def _check(x: np.ndarray, grids: np.ndarray, mass: np.ndarray) -> None:
    for name, array in (("x", x), ("values", grids), ("weights", mass)):
        require_finite(name, array)
    if x.ndim != 2 or mass.shape not in ((1, x.shape[1]), x.shape) or (mass < 0).any():
        msg = (
            f"`weights` of shape {mass.shape} for numbers of shape {x.shape}; pass one, zero or above, for each number"
        )
        raise InvalidInputError(msg + " or column")
    if grids.ndim != 2 or grids.shape[1] < 1 or (np.diff(grids, axis=1) <= 0).any():
        msg = f"`values` of shape {grids.shape} do not increase; sort them, none twice"
        raise InvalidInputError(msg)


def _ladders(grids: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values of each grid from 0 outwards on both sides, how many there are, and how many have their double."""
    ladders = np.zeros((len(grids), 2, max(grids.shape[1], 2)))
    sizes, doubled = np.ones((2, len(grids), 2), dtype=np.int64)
    for g, values in enumerate(grids):
        for side, outwards in enumerate((values, -values[::-1])):
            ladder = outwards[np.sum(outwards[1:] + outwards[:-1] <= 0) :]
            ladders[g, side, : len(ladder)] = ladder
            within = np.isin(2 * ladder, outwards)
            sizes[g, side], doubled[g, side] = len(ladder), np.argmin(within) if not within.all() else len(ladder)
    return ladders, sizes, doubled
