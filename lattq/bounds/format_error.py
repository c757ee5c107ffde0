"""Squared errors of number formats on Gaussian entries: exact cell by cell, and the floating-point law."""

import math
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.integrate import quad
from scipy.optimize import minimize_scalar

from lattq.bounds._checks import Number, integer_at_least, non_negative, positive
from lattq.bounds.formats import NumberFormat
from lattq.errors import InvalidInputError

__all__ = [
    "best_format_scale",
    "floating_point_distortion",
    "floating_point_loss",
    "format_distortion",
    "format_loss",
    "product_point_density",
]

FARTHEST = 12.0  # standard deviations: what lies beyond weighs less than 1e-30
PIECE = 0.5  # standard deviations, over which 12 Gauss points are exact to double precision
NODES, WEIGHTS = np.polynomial.legendre.leggauss(12)


def format_distortion(number: NumberFormat, *, scale: Number = 1.0, variance: Number = 1.0) -> float:
    """Return the expected squared error of a Gaussian rounded to scale times the nearest value of a format.

    Exact: integrated over every cell, those beyond the largest value (overflow, saturated) and around zero (underflow)
    among them.

    Parameters
    ----------
    number : the format.
    scale : what its values are multiplied by.
    variance : of the Gaussian.

    Returns
    -------
    Squared error per entry.

    Raises
    ------
    InvalidInputError : if `scale` is not positive and finite, or `variance` negative.

    Examples
    --------
    >>> from lattq.bounds.formats import E2M1FN, E4M3FN
    >>> round(format_distortion(E2M1FN, scale=0.5), 6), round(format_distortion(E4M3FN), 8)
    (0.012702, 0.00070451)
    """
    scale, variance = positive("scale", scale), non_negative("variance", variance)
    if variance == 0.0:
        return (scale * float(np.abs(number.values).min())) ** 2
    values = number.values * (scale / math.sqrt(variance))
    return variance * gaussian_error(values, -FARTHEST, FARTHEST)


def best_format_scale(number: NumberFormat, *, variance: Number = 1.0) -> float:
    """Return the scale that minimises `format_distortion`.

    The error of a floating-point format repeats with every octave of the scale but for overflow and underflow, and has
    several minima: they are searched on a grid of 1/32 octave, until the smallest magnitude of the format is far beyond
    the Gaussian, and the best is refined.

    Raises
    ------
    InvalidInputError : if `variance` is not positive, or the format has no value but 0.

    Examples
    --------
    >>> from lattq.bounds.formats import E2M1FN, int_format
    >>> round(best_format_scale(E2M1FN), 4), round(best_format_scale(int_format(4)), 4)
    (0.4871, 0.3534)
    """
    deviation = math.sqrt(positive("variance", variance))
    magnitudes = np.abs(number.values[number.values != 0.0])
    if not magnitudes.size:
        msg = f"{number!r} has no value but 0; no scale helps"
        raise InvalidInputError(msg)
    octaves = max(0, math.ceil(math.log2(number.largest / magnitudes.min()))) + 6

    def error(octave: float) -> float:
        return format_distortion(number, scale=2.0**octave / number.largest)

    grid = np.arange(-32, 32 * octaves) / 32.0
    start = float(grid[np.argmin([error(octave) for octave in grid])])
    best: Any = minimize_scalar(
        error, bounds=(start - 1 / 32, start + 1 / 32), method="bounded", options={"xatol": 1e-9}
    )
    return deviation * 2.0 ** float(best.x) / number.largest


def format_loss(
    number: NumberFormat, *, scale: Number = 1.0, variance: Number = 1.0, scale_bits: Number = 0.0
) -> float:
    """Return the gap of a format to R(D) of the Gaussian, in bits per entry.

    Parameters
    ----------
    number, scale, variance : as for `format_distortion`.
    scale_bits : bits per entry that store the scale: 16 / 128 for one float16 in 128 entries.

    Raises
    ------
    InvalidInputError : as for `format_distortion`, or if `scale_bits` is negative.

    Examples
    --------
    >>> from lattq.bounds.formats import E4M3FN
    >>> round(format_loss(E4M3FN), 4)
    2.7645
    """
    distortion = format_distortion(number, scale=scale, variance=positive("variance", variance))
    rate = number.bits + non_negative("scale_bits", scale_bits)
    return rate + min(0.0, 0.5 * math.log2(distortion / float(variance)))


def floating_point_distortion(mantissa_bits: int) -> float:
    """Return E[(x - Q(x))² / x²] of M mantissa bits without overflow and underflow, theory (6.8).

    Exact for |x| with a logarithm that is uniform over octaves, so for any x under a multiplicative dither. Close to
    3 / (96 ln 2) · 4^-M = 0.0451 · 4^-M from M = 1 on.

    Raises
    ------
    InvalidInputError : if `mantissa_bits` is not a whole number of at least 0.

    Examples
    --------
    >>> [round(floating_point_distortion(m), 8) for m in (1, 2, 3)]
    [0.0107234, 0.00278049, 0.00070205]
    """
    if integer_at_least("mantissa_bits", mantissa_bits, 0) > 20:
        return 3.0 / (96.0 * math.log(2.0)) * 4.0**-mantissa_bits  # equal in double precision
    values = 1.0 + np.arange(2**mantissa_bits + 1) / 2**mantissa_bits
    edges = np.concatenate([[1.0], (values[:-1] + values[1:]) / 2.0, [2.0]])
    # Gauss quadrature within the cells; the closed form ln s + 2v/s - v²/2s² loses all digits on narrow ones.
    half = np.diff(edges)[:, None] / 2.0
    s = edges[:-1, None] + half * (NODES + 1.0)
    return float(np.sum(WEIGHTS * half * (s - values[:, None]) ** 2 / s**3)) / math.log(2.0)


def floating_point_loss(exponent_bits: int, mantissa_bits: int) -> float:
    """Return 1 + E + M + ½ log2 of `floating_point_distortion`: bits lost on a Gaussian that meets no end of the range.

    0.76 for E = 2, and one bit more for each further exponent bit; nearly the same for any M from 1 on.

    Raises
    ------
    InvalidInputError : if there are not at least one exponent bit and no fewer than 0 mantissa bits.

    Examples
    --------
    >>> round(floating_point_loss(4, 3), 3)
    2.762
    """
    rate = 1 + integer_at_least("exponent_bits", exponent_bits, 1) + mantissa_bits
    return rate + 0.5 * math.log2(floating_point_distortion(mantissa_bits))


def product_point_density(x: Float[np.ndarray, "*shape"] | Number, correlation: Number = 0.0) -> Any:
    """Return the density of scalar levels that is best for products of two quantized standard Gaussians, theory (6.6).

    Proportional to exp(-x²/6) ((1 - ρ²) + ρ² x²)^(1/3), for many levels. At ρ = 0, independent factors, it is the
    f^(1/3) of a single Gaussian (Panter and Dite): a product asks for no other levels. Above ρ = 1/√3 it has two peaks.

    Parameters
    ----------
    x : where; a number or an array.
    correlation : ρ of the two entries that are multiplied, between -1 and 1.

    Returns
    -------
    Levels per unit of x, as a share of all of them.

    Raises
    ------
    InvalidInputError : if `correlation` is not between -1 and 1.

    References
    ----------
    Panter and Dite 1951; "Optimal scalar quantization for matrix multiplication" (arXiv 2603.19559).

    Examples
    --------
    >>> round(product_point_density(0.0), 4)  # 1 / √(6π)
    0.2303
    """
    rho = float(correlation)
    if not -1.0 <= rho <= 1.0:
        msg = f"`correlation` is {rho}; it lies between -1 and 1"
        raise InvalidInputError(msg)

    def shape(u: Any) -> Any:
        return np.exp(-(u**2) / 6.0) * np.cbrt((1.0 - rho**2) + rho**2 * u**2)

    mass = 2.0 * quad(shape, 0.0, np.inf, epsabs=0.0, epsrel=1e-12)[0]
    found = shape(np.asarray(x, dtype=np.float64)) / mass
    return float(found) if np.ndim(x) == 0 else found


def gaussian_error(values: np.ndarray, low: float, high: float) -> float:
    """Return ∫ (x - nearest value)² φ(x) dx from low to high.

    >>> round(gaussian_error(np.array([0.0]), -12.0, 12.0), 12)
    1.0
    """
    thresholds = (values[:-1] + values[1:]) / 2.0
    low, high = max(low, -FARTHEST), min(high, FARTHEST)
    inside = thresholds[(thresholds > low) & (thresholds < high)]
    grid = np.linspace(low, high, 1 + math.ceil((high - low) / PIECE))
    edges = np.union1d(inside, grid)
    half = np.diff(edges)[:, None] / 2.0
    centre = edges[:-1, None] + half
    x = centre + half * NODES
    error = x - values[np.searchsorted(thresholds, centre)]
    return float(np.sum(WEIGHTS * half * error**2 * np.exp(-0.5 * x * x))) / math.sqrt(2.0 * math.pi)
