"""The special cases that others published: scales, clipped ranges, an order and a shift of columns, as arrays.

Scales multiply columns of weights and divide inputs (`lattq.transforms.Diagonal`): A is their diagonal matrix.
"""

import itertools
import warnings
from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int
from scipy.cluster.vq import kmeans2

from lattq._array import Array, host_reals
from lattq._options import as_integer, as_seed, check_levels
from lattq.affine.checks import as_fraction, at_least
from lattq.affine.closed_forms import Weights, stacked
from lattq.errors import InvalidInputError

__all__ = ["awq_scales", "clip_factors", "clipped", "midpoint_shift", "range_order", "smoothquant_scales"]


def smoothquant_scales(
    peaks: Float[Array, " _"], weight: Weights, *, strength: float = 0.5
) -> Float[np.ndarray, " columns"]:
    """Return max|x|^strength / max|w|^(1 - strength) of each column, over all weights that read these inputs.

    Columns without inputs or without weights get the geometric mean of the others.

    Parameters
    ----------
    peaks : largest magnitude of each input
    weight : or several that share their inputs
    strength : α of the paper, 0 to 1; 0.5 as published

    Raises
    ------
    InvalidInputError : for negative peaks, or sizes that do not fit

    References
    ----------
    Xiao et al. 2023, "SmoothQuant", arXiv 2211.10438, eq. 4.

    Examples
    --------
    >>> smoothquant_scales(np.array([16.0, 1.0, 0.0]), np.array([[1.0, -4.0, 1.0]]))
    array([4.        , 0.5       , 1.41421356])
    """
    share = as_fraction("strength", strength)
    parts = [weight] if not isinstance(weight, list | tuple) else weight
    columns = np.max([np.abs(host_reals("weight", part)).max(axis=0) for part in parts], axis=0)
    given = _magnitudes("peaks", peaks, len(columns))
    live = (given > 0) & (columns > 0)
    logarithm = np.zeros(len(given))
    logarithm[live] = share * np.log(given[live]) - (1.0 - share) * np.log(columns[live])
    return np.exp(_filled(logarithm, live))


def awq_scales(
    weight: Float[Array, "rows columns"],
    sigma: Float[Array, "columns columns"],
    rounding: Callable[[Float[np.ndarray, "rows columns"]], Float[np.ndarray, "rows columns"]],
    *,
    sizes: Float[Array, " _"] | None = None,
    points: int = 20,
) -> Float[np.ndarray, " columns"]:
    """Return the scales size^r with the least error of the output, r on a grid of `points` from 0 below 1.

    Scales are divided by the root of their largest times their least. The identity (r = 0) is tried too, so the result
    is never worse than no scales with this rounding.

    Parameters
    ----------
    rounding : what a matrix of scaled weights comes back as
    sizes : of inputs, mean |x| as published; None takes the root of the diagonal of Σ
    points : of the grid

    Raises
    ------
    InvalidInputError : for negative sizes, or sizes, Σ and results of `rounding` that do not fit the weight
    NotPositiveSemidefiniteError : for a second moment with a negative pivot

    References
    ----------
    Lin et al. 2024, "AWQ", arXiv 2306.00978, eq. 5.

    Examples
    --------
    >>> weight, sigma = np.array([[0.4, 3.0], [0.4, -3.0]]), np.diag([100.0, 1.0])
    >>> scales = awq_scales(weight, sigma, np.round)
    >>> bool(abs(np.round(weight * scales) / scales - weight)[:, 0].max() < 0.1)
    True
    """
    rows, root = stacked(weight, sigma)
    found = np.sqrt(np.sum(np.square(root), axis=1)) if sizes is None else _magnitudes("sizes", sizes, len(root))
    live = found > 0
    logarithm = _filled(np.log(np.where(live, found, 1.0)), live)
    count = at_least("points", points, 1)
    tried = [np.exp(k / count * logarithm) for k in range(count)]
    tried = [one / np.sqrt(one.max() * one.min()) for one in tried]

    def error(scales: np.ndarray) -> float:
        rounded = host_reals("rounding(weight)", rounding(rows * scales))
        if rounded.shape != rows.shape:
            msg = f"`rounding` returns shape {rounded.shape} for weights of shape {rows.shape}; keep the shape"
            raise InvalidInputError(msg)
        return float(np.sum(np.square((rounded / scales - rows) @ root)))

    return min(tried, key=error)


def clip_factors(
    x: Float[Array, "rows n"], levels: int, weights: Float[Array, " _"] | None = None, *, points: int = 20
) -> Float[np.ndarray, "rows 2"]:
    """Return factors of the least and the largest number of each row between which rounding costs least (OmniQuant).

    The steps of `clipped` are those of the range from factor × min to factor × max. OmniQuant learns the logits of the
    factors (`scipy.special.logit`); here both run over all pairs of a grid of `points` in (0, 1].

    Parameters
    ----------
    x : rows of a group of weights each
    levels : 2 to 256
    weights : of squared errors; 1 if not given
    points : of the grid, the last of which is 1: never worse than the whole range

    Raises
    ------
    InvalidInputError : for NaN, or weights that do not fit

    References
    ----------
    Shao et al. 2024, "OmniQuant", arXiv 2308.13137, eq. 2.

    Examples
    --------
    >>> x = np.array([[0.0, 1.0, 2.0, 3.2, 3.0, 1.0, 2.0]])
    >>> clip_factors(x, 4)
    array([[0.05, 0.95]])
    """
    host, count = host_reals("x", x), as_integer("points", points)
    check_levels(levels)
    mass = np.ones(host.shape[-1]) if weights is None else _magnitudes("weights", weights, host.shape[-1])
    if host.ndim != 2 or count < 1:
        msg = f"`x` has shape {host.shape} and `points` is {count}; pass rows of numbers, and at least one point"
        raise InvalidInputError(msg)
    grid = np.arange(1, count + 1) / count
    best, factors = np.full(len(host), np.inf), np.ones((len(host), 2))
    for pair in itertools.product(grid, grid):
        error = np.square(clipped(host, levels, np.tile(pair, (len(host), 1))) - host) @ mass
        better = error < best
        best[better], factors[better] = error[better], pair
    return factors


def clipped(
    x: Float[np.ndarray, "rows n"], levels: int, factors: Float[np.ndarray, "rows 2"]
) -> Float[np.ndarray, "rows n"]:
    """Return rows rounded to `levels` integers with a zero point, spanning the given parts of their ranges.

    Rows without a range come back as they are.

    >>> clipped(np.array([[0.0, 1.0, 2.0, 3.2]]), 4, np.array([[1.0, 0.9375]]))
    array([[0., 1., 2., 3.]])
    """
    low, high = factors[:, :1] * x.min(axis=1, keepdims=True), factors[:, 1:] * x.max(axis=1, keepdims=True)
    step = (high - low) / (levels - 1)
    flat = step <= 0
    unit = np.where(flat, 1.0, step)
    zero = np.rint(-low / unit)
    return np.where(flat, x, unit * (np.clip(np.rint(x / unit) + zero, 0, levels - 1) - zero))


def range_order(
    low: Float[Array, " n"], high: Float[Array, " n"], *, clusters: int = 32, restarts: int = 10, seed: int = 0
) -> Int[np.ndarray, " n"]:
    """Return the order of columns in which those of like range are neighbours (RPTQ).

    k-means of (max, min) by `scipy.cluster.vq.kmeans2`, the best of some starts; clusters follow each other by the size
    of their mean range, columns in them as they were. For `lattq.transforms.maps.Permutation`.

    Parameters
    ----------
    low, high : of each column
    clusters : at most this many
    restarts, seed : of k-means; 10 as published

    Raises
    ------
    InvalidInputError : for a range whose low end is above its high one

    References
    ----------
    Yuan et al. 2023, "RPTQ", arXiv 2304.01089, section 4.

    Examples
    --------
    >>> range_order(np.array([-1.0, -9.0, -1.1]), np.array([1.0, 9.0, 1.0]), clusters=2)
    array([0, 2, 1])
    """
    ends = np.stack(_range(low, high), axis=1)
    size = min(as_integer("clusters", clusters), len(np.unique(ends, axis=0)))
    if size < 1 or as_integer("restarts", restarts) < 1:
        msg = f"`clusters` is {clusters} and `restarts` {restarts}; pass at least one"
        raise InvalidInputError(msg)
    generator = np.random.default_rng(as_seed(seed))
    tried = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # clusters that lost all their columns are left out below
        for _ in range(restarts):
            centres, labels = kmeans2(ends, size, minit="++", rng=generator)
            tried.append((float(np.sum(np.square(ends - centres[labels]))), labels))
    labels = min(tried, key=lambda one: one[0])[1]
    spans = np.array([(ends[labels == k] @ [-1.0, 1.0]).mean() if (labels == k).any() else 0.0 for k in range(size)])
    return np.argsort(spans[labels], kind="stable")


def midpoint_shift(
    low: Float[Array, " columns"],
    high: Float[Array, " columns"],
    weight: Float[Array, "rows columns"],
    bias: Float[Array, " _"] | None,
) -> tuple[Float[np.ndarray, " columns"], Float[np.ndarray, " rows"]]:
    """Return the shift of inputs that centres their ranges, δ = (max + min) / 2, and the bias b + W δ that undoes it.

    W (x - δ) + (b + W δ) = W x + b.

    Raises
    ------
    InvalidInputError : for a layer without bias, which has no place for W δ, or shapes that do not fit

    References
    ----------
    Wei et al. 2023, "Outlier Suppression+", arXiv 2304.09145, eq. 4.

    Examples
    --------
    >>> midpoint_shift(np.array([-1.0, 2.0]), np.array([1.0, 6.0]), np.array([[1.0, 0.5]]), np.zeros(1))
    (array([0., 4.]), array([2.]))
    """
    if bias is None:
        msg = "`bias` is None; a layer without bias has no place for W δ: leave its inputs where they are"
        raise InvalidInputError(msg)
    rows, old = host_reals("weight", weight), host_reals("bias", bias)
    least, most = _range(low, high)
    if rows.shape != (len(old), len(least)):
        msg = f"`weight` has shape {rows.shape}, where {len(old)} entries of `bias` and {len(least)} inputs are given"
        raise InvalidInputError(msg)
    shift = least / 2 + most / 2
    return shift, old + rows @ shift


def _range(low: Array, high: Array) -> tuple[np.ndarray, np.ndarray]:
    least, most = host_reals("low", low), host_reals("high", high)
    if least.ndim != 1 or least.shape != most.shape or (least > most).any():
        msg = f"`low` has shape {least.shape} and `high` {most.shape}; pass the least and the largest of each column"
        raise InvalidInputError(msg)
    return least, most


def _magnitudes(name: str, values: Array, n: int) -> np.ndarray:
    found = host_reals(name, values)
    if found.shape != (n,) or (found < 0).any():
        msg = f"`{name}` has shape {found.shape}, least entry {found.min(initial=0.0):.3g}; pass {n} numbers, 0 or more"
        raise InvalidInputError(msg)
    return found


def _filled(logarithm: np.ndarray, live: np.ndarray) -> np.ndarray:
    """The mean of the live columns for the others."""
    return np.where(live, logarithm, logarithm[live].mean() if live.any() else 0.0)
