"""Rounding a Gaussian to a grid and entropy-coding the integers: the exact curve, at every rate."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.optimize import root_scalar
from scipy.special import entr, ndtr

from lattq._options import among
from lattq.bounds._checks import Number, exactly_one, positive
from lattq.errors import InvalidInputError, shown

__all__ = ["EntropyCodedScalar", "Reconstruction", "entropy_coded_scalar"]

Reconstruction = Literal["shrunk", "centroid", "midpoint"]

_FINE = 0.01  # steps (per standard deviation) below this have closed forms exact to rounding
_COARSE = 70.0  # the entropy at this step is 1e-266 bit
_FINEST_RATE = 500.0  # bits; the distortion stays a normal number


@dataclass(frozen=True)
class EntropyCodedScalar:
    """One point of the curve of an entropy-coded uniform quantizer on a Gaussian source.

    Attributes
    ----------
    step : side of the cells; integer k stands for the interval [(k - ½) step, (k + ½) step)
    rate : entropy of the integers, bits per sample
    distortion : squared error per sample
    gain : E[X X̂] / E[X̂²], the factor on the midpoints X̂ = k · step that minimises the error
    gap : rate - R(distortion), bits per sample

    Examples
    --------
    >>> point = entropy_coded_scalar(step=0.1, variance=4.0)
    >>> round(point.rate, 4), round(point.distortion * 12 / point.step**2, 4), round(point.gap, 4)
    (6.3692, 0.9998, 0.2546)
    """

    step: float
    rate: float
    distortion: float
    gain: float
    gap: float


def entropy_coded_scalar(
    rate: Number | None = None,
    step: Number | None = None,
    variance: Number = 1.0,
    *,
    reconstruction: Reconstruction = "shrunk",
) -> EntropyCodedScalar:
    """Return rate and distortion of rounding N(0, variance) to multiples of a step with ideal entropy coding.

    Exact, theory (1.18) to (1.20): sums over all cells, or their Poisson transform where the sums would cancel.

    Parameters
    ----------
    rate : wanted entropy, in bits per sample, between 1e-260 and 500;
    step : or the side of the cells.
    variance : of the source.
    reconstruction : "shrunk" puts out gain · k · step, "centroid" the mean of the cell, "midpoint" k · step.

    Returns
    -------
    Step, rate, distortion, gain and gap to R(D).

    Raises
    ------
    InvalidInputError : if not exactly one of `rate` and `step` is given, or a number is out of range.

    References
    ----------
    Gish and Pierce 1968 (the 0.2546 bit); Widrow and Kollár 2008 (the Poisson transforms).

    Examples
    --------
    >>> point = entropy_coded_scalar(rate=1.0)
    >>> round(point.step, 3), round(point.gain, 3), round(point.gap, 3)
    (2.422, 0.7, 0.239)
    >>> round(entropy_coded_scalar(rate=1.0, reconstruction="midpoint").gap, 3)
    0.453
    """
    exactly_one(rate=rate, step=step)
    if not among(reconstruction, ("shrunk", "centroid", "midpoint")):
        msg = f"`reconstruction` is {shown(reconstruction)}; pass 'shrunk', 'centroid' or 'midpoint'"
        raise InvalidInputError(msg)
    deviation = math.sqrt(positive("variance", variance))
    side = _side_of_rate(positive("rate", rate)) if rate is not None else _side_of_step(step, deviation)
    cross, power, noise, shrunk = _moments(side)
    error = {"shrunk": shrunk, "midpoint": noise}.get(reconstruction) or _centroid_error(side, noise, shrunk)
    bits = _entropy(side)
    gap = bits + min(0.0, 0.5 * math.log2(error))
    return EntropyCodedScalar(side * deviation, bits, error * deviation**2, cross / power, max(0.0, gap))


def _side_of_step(step: Number | None, deviation: float) -> float:
    side = positive("step", 0.0 if step is None else step) / deviation
    if not 2.0**-_FINEST_RATE < side <= _COARSE:
        msg = f"`step` is {side:.6g} standard deviations; pass 2^-{_FINEST_RATE:.0f} to {_COARSE:.0f} of them"
        raise InvalidInputError(msg)
    return side


def _side_of_rate(rate: float) -> float:
    """Invert `_entropy`, which falls with the step."""
    if not _entropy(_COARSE) <= rate <= _FINEST_RATE:
        msg = f"`rate` is {rate:.6g} bits; pass one between 1e-260 and {_FINEST_RATE:.0f}"
        raise InvalidInputError(msg)
    if rate >= _entropy(_FINE):
        square = 2.0 * math.pi * math.e * 4.0**-rate
        return math.sqrt(square / (1.0 - square / 12.0))
    # Logarithms on both axes: the curve is then nearly straight at both ends.
    bracket = (math.log(_FINE / 2), math.log(_COARSE))
    log_side = root_scalar(lambda x: math.log(_entropy(math.exp(x)) / rate), bracket=bracket, xtol=1e-15).root
    return math.exp(log_side)


def _entropy(side: float) -> float:
    """Return the entropy of round(X / side) in bits, X ~ N(0, 1)."""
    if side < _FINE:
        # The integers of X have the entropy of X + U, U uniform in a cell: Gaussian up to terms of order side^8.
        return 0.5 * math.log2(2.0 * math.pi * math.e * (1.0 + side * side / 12.0)) - math.log2(side)
    probabilities, tail = _cells(side)
    central = -(1.0 - 2.0 * tail) * math.log1p(-2.0 * tail)
    return (central + 2.0 * float(entr(probabilities).sum())) / math.log(2.0)


def _cells(side: float) -> tuple[np.ndarray, float]:
    """Return P(k) for k = 1, 2, ..., and P(k > 0)."""
    tails = ndtr(-_edges(side))
    return -np.diff(tails, append=0.0), float(tails[0])


def _edges(side: float) -> np.ndarray:
    """Return the upper edges of cells 0, 1, ..., as far as float64 has a tail (38 standard deviations)."""
    return side * (np.arange(math.ceil(39.0 / side) + 1) + 0.5)


def _density(x: np.ndarray) -> np.ndarray:
    return np.exp(-0.5 * x * x) / math.sqrt(2.0 * math.pi)


def _moments(side: float) -> tuple[float, float, float, float]:
    """Return E[X X̂], E[X̂²], the error of the midpoints X̂, and that of gain · X̂."""
    if side >= 1.0:
        edges = _edges(side)
        cross = 2.0 * side * float(_density(edges).sum())
        power = 2.0 * side * side * float((2.0 * np.arange(edges.size) + 1.0) @ ndtr(-edges))
        return cross, power, 1.0 - 2.0 * cross + power, 1.0 - cross * (cross / power)
    # The sums above, Poisson-transformed: E[(X - X̂)²] and E[X (X - X̂)] without the 1 that would cancel.
    m = np.arange(1.0, 8.0)
    terms = np.exp(-2.0 * (math.pi * m / side) ** 2) * (-1.0) ** m
    noise = side * side * (1.0 / 12.0 + float((terms / m**2).sum()) / math.pi**2)
    correlation = -2.0 * float(terms.sum())
    power = 1.0 - 2.0 * correlation + noise
    return 1.0 - correlation, power, noise, (noise - correlation**2) / power


def _centroid_error(side: float, noise: float, shrunk: float) -> float:
    """Return the error of reconstructing each cell by its mean: that of midpoints less that of the wrong place."""
    if side < _FINE:  # the means of such fine cells are proportional to the midpoints
        return shrunk
    probabilities, _ = _cells(side)
    edges = np.append(_edges(side), np.inf)
    live = probabilities > 1e-290
    first_moments = -np.diff(_density(edges))
    midpoints = side * np.arange(1.0, probabilities.size + 1.0)
    offsets = first_moments[live] / probabilities[live] - midpoints[live]
    return noise - 2.0 * float(probabilities[live] @ offsets**2)
