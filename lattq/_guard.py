"""No quantized matrix is worse than one of zeros: more damping, then gains of rows, and all of it counted."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from lattq._array import Array, to_host
from lattq._distortion import where_measured
from lattq._metric import Metric
from lattq.errors import InvalidInputError
from lattq.feedback.loop import GAIN_GRID
from lattq.least_squares.gains import fit_rows
from lattq.quantized import Quantized
from lattq.transforms import chains

__all__ = ["DAMPINGS", "Encoded", "no_worse_than_zeros"]

DAMPINGS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # fractions of the mean diagonal, theory (2.14)


class Encoded(NamedTuple):
    """A run of a scheme.

    Attributes
    ----------
    found : the result
    feeds_back : tells whether anything was fed back
    bound : what its distortion is known not to exceed; infinite where nothing is known
    """

    found: Quantized
    feeds_back: Callable[[], bool]
    bound: float = math.inf


Encode = Callable[[float], Encoded]


def no_worse_than_zeros(encode: Encode, weight: Float[Array, "rows columns"], metric: Metric) -> Quantized:
    """What `encode` makes of a layer without more damping, if it is no worse than zeros; else the best of what helps.

    Best is the least distortion, where a bit per weight is a factor 4.

    Parameters
    ----------
    encode : from a fraction of the mean diagonal, added to the diagonal before feedback is derived, to a result
    weight, metric : of the layer, checked

    Returns
    -------
    A result whose distortion is at most tr(W Σ Wᵀ) / (rows columns). Its `stats` count `retries`, and say which
    `damping` was best and how many `shrunk_rows` have a gain; nothing of that where all was well.

    Raises
    ------
    InvalidInputError : if nothing helps, as the transform itself keeps weights that make errors worse

    Examples
    --------
    >>> import lattq as lq
    >>> weight, sigma = np.array([[0.9, -0.9]]), np.ones((2, 2))  # whose errors cancel exactly if it is zero
    >>> layer = lq.quantize(weight, sigma, lq.recipes.rtn(levels=2, fit="range"))
    >>> layer.stats["shrunk_rows"], layer.distortion(weight, sigma)
    (1, 0.0)
    """
    found, feeds_back, bound = encode(0.0)
    if np.isfinite(bound) and chains.folded(found.transform) is None and metric.at_least(to_host(weight), bound):
        return found
    host, measure = where_measured(found.transform, to_host(weight).astype(np.float64), metric)

    def distortion(found: Quantized) -> float:
        return measure.squared_error(host - found.dequantize(np.float64))

    first = distortion(found)
    if measure.at_least(host, first):
        return found
    zeros = measure.squared_error(host)
    tried = [(first, 0.0, found)]
    for damping in DAMPINGS if feeds_back() else ():
        again = encode(damping).found
        tried.append((distortion(again), damping, again))
    least, damping, found = min(tried, key=lambda one: (one[0] > zeros, _cost(one[0], one[2].rate)))
    stats = {**found.stats, "retries": len(tried) - 1, "damping": damping}
    if least <= zeros:
        return found.revalued(stats=stats)
    for one in _with_gains(found, to_host(weight).astype(np.float64), metric):
        if distortion(one) <= zeros:
            gains = GAIN_GRID if one.row_gains is None else one.row_gains
            return one.revalued(stats={**stats, "shrunk_rows": int(np.sum(gains != GAIN_GRID))})
    name = type(chains.split_unit(found.transform)[0]).__name__
    msg = (
        f"the distortion is {least:.3g} and that of zeros {zeros:.3g}: the transform {name} keeps some weights exactly "
        "and not those that cancel their errors in `sigma`; choose another one"
    )
    raise InvalidInputError(msg)


def _cost(distortion: float, rate: float) -> float:
    """Distortion in bits, where a factor 4 is a bit per weight."""
    return 0.5 * math.log2(distortion) + rate if distortion > 0 else -math.inf


def _with_gains(found: Quantized, weight: np.ndarray, metric: Metric) -> list[Quantized]:
    """With a gain of least squares for each row, which leaves none worse than zeros, theory (2.15); and zeros."""
    fitted = fit_rows(found, found.transform.forward(weight), metric.moved(found.transform))
    return [fitted, found.revalued(row_gains=np.zeros(len(weight), dtype=np.int64))]
