"""What the bounds become at high rate: determinants, pivots and cells. Rates in bits per weight."""

import math

import numpy as np
from jaxtyping import Float

from lattq._array import Array
from lattq.bounds._checks import Number, non_negative, positive, variance_vector
from lattq.bounds._matrix import log_determinant, symmetric
from lattq.errors import InvalidInputError

__all__ = ["CUBIC_GAP", "cancellation_loss", "high_rate_distortion", "high_rate_rate", "space_filling_gap"]

CUBIC_GAP = 0.5 * math.log2(2.0 * math.pi * math.e / 12.0)
"""Bits that rounding to a grid loses against the best code at high rate: ½ log2(2πe / 12) = 0.254614."""


def high_rate_distortion(sigma: Float[Array, "n n"], rate: Number, weight_variance: Number = 1.0) -> float:
    """Return σ_W² det(Σ)^(1/n) 4^-R, theory (1.14): D(R) of a layer once the level is below every eigenvalue.

    Never above `layer_distortion`, and equal to it exactly in that case. Zero for a singular `sigma`.

    Parameters
    ----------
    sigma : second moment of the inputs.
    rate : bits per weight.
    weight_variance : of every weight.

    Returns
    -------
    Squared error of the outputs per weight.

    Raises
    ------
    InvalidInputError : if an argument is not finite, `rate` or `weight_variance` negative or `sigma` not symmetric.
    NotPositiveSemidefiniteError : if `sigma` has a negative eigenvalue beyond rounding.

    References
    ----------
    Lifar, Savkin, Ordentlich and Polyanskiy 2026 (WaterSIC), section 3.1.

    Examples
    --------
    >>> round(high_rate_distortion(np.diag([4.0, 1.0]), rate=2.0), 12)
    0.125
    """
    variance = non_negative("weight_variance", weight_variance)
    mean_log = _mean_log_eigenvalue(sigma)
    return variance * math.exp(mean_log - 2.0 * math.log(2.0) * non_negative("rate", rate))


def high_rate_rate(sigma: Float[Array, "n n"], distortion: Number, weight_variance: Number = 1.0) -> float:
    """Return ½ log2(σ_W² det(Σ)^(1/n) / distortion), the inverse of `high_rate_distortion`.

    Never above `layer_rate`; negative where the formula has lost its meaning.

    Parameters
    ----------
    sigma : second moment of the inputs, not singular.
    distortion : squared error of the outputs per weight, above zero.
    weight_variance : of every weight, above zero.

    Returns
    -------
    Bits per weight.

    Raises
    ------
    InvalidInputError : if `distortion` or `weight_variance` is not positive, or `sigma` is singular or not symmetric.
    NotPositiveSemidefiniteError : if `sigma` has a negative eigenvalue beyond rounding.

    Examples
    --------
    >>> round(high_rate_rate(np.diag([4.0, 1.0]), distortion=0.125), 12)
    2.0
    """
    variance, distortion = positive("weight_variance", weight_variance), positive("distortion", distortion)
    mean_log = _mean_log_eigenvalue(sigma)
    if mean_log == -math.inf:
        msg = "`sigma` is singular: its determinant is 0, and the high-rate form says nothing; use `layer_rate`"
        raise InvalidInputError(msg)
    return 0.5 * (mean_log + math.log(variance) - math.log(distortion)) / math.log(2.0)


def _mean_log_eigenvalue(sigma: Array) -> float:
    matrix, tolerance = symmetric("sigma", sigma)
    return log_determinant("sigma", matrix, tolerance) / len(matrix)


def space_filling_gap(second_moment: Number) -> float:
    """Return ½ log2(2πe G), theory (1.16): bits that cells of normalised second moment G lose at high rate.

    Parameters
    ----------
    second_moment : G, squared error per dimension of a cell of unit volume: 1/12 for the cube, 1/(2πe) for the ball in
        high dimension, which no cell beats.

    Returns
    -------
    Bits per weight; 0.254614 for the cube.

    Raises
    ------
    InvalidInputError : if `second_moment` is below 1/(2πe).

    References
    ----------
    Zador 1982; Conway and Sloane 1999, chapter 2, section 3.

    Examples
    --------
    >>> round(space_filling_gap(1 / 12), 6)
    0.254614
    >>> round(space_filling_gap(929 / 12960), 4)  # E8
    0.146
    """
    ratio = 2.0 * math.pi * math.e * positive("second_moment", second_moment)
    if ratio < 1.0 - 4.0 * np.finfo(np.float64).eps:
        msg = f"`second_moment` is {second_moment}; no cell is below 1/(2πe) = {1 / (2 * math.pi * math.e):.7f}"
        raise InvalidInputError(msg)
    return max(0.0, 0.5 * math.log2(ratio))


def cancellation_loss(pivots: Float[Array, " n"], steps: Float[Array, " n"] | None = None) -> float:
    """Return the bits that successive cancellation with a cubic cell loses at high rate, theory (1.17).

    ½ log2(2πe/12) + ½ log2(AM/GM), where AM and GM are the arithmetic and geometric mean of ``pivots * steps**2``.
    Steps proportional to 1/√pivot (WaterSIC) leave the first term, one step for all (GPTQ) pays for the spread.

    Parameters
    ----------
    pivots : d of Σ = U diag(d) Uᵀ, all above zero: a column with pivot zero costs no bits; leave it out.
    steps : cell side of each column; equal if not given. Only their ratios matter.

    Returns
    -------
    Bits per weight above `high_rate_rate`.

    Raises
    ------
    InvalidInputError : if a pivot or a step is not positive, or their numbers differ.

    References
    ----------
    Chen et al. 2025 (GPTQ is Babai's algorithm); Lifar et al. 2026 (WaterSIC), theorem 3.3.

    Examples
    --------
    >>> pivots = np.array([4.0, 1.0])
    >>> round(cancellation_loss(pivots), 4), round(cancellation_loss(pivots, 1 / np.sqrt(pivots)), 4)
    (0.4156, 0.2546)
    """
    logs = np.log(_all_positive("pivots", pivots))
    if steps is not None:
        sides = _all_positive("steps", steps)
        if sides.size != logs.size:
            msg = f"`steps` has {sides.size} entries; `pivots` has {logs.size}"
            raise InvalidInputError(msg)
        logs = logs + 2.0 * np.log(sides)
    centred = logs - logs.mean()
    peak = float(centred.max())
    spread = (peak + math.log(float(np.exp(centred - peak).mean()))) / (2.0 * math.log(2.0))
    return CUBIC_GAP + max(0.0, spread)


def _all_positive(name: str, values: Array) -> np.ndarray:
    host = variance_vector(name, values)
    if host.min() == 0.0:
        msg = f"`{name}` holds 0 at index {int(host.argmin())}; leave out columns that cost no bits"
        raise InvalidInputError(msg)
    return host
