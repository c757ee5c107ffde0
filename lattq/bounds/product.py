"""Matrix products AᵀB of factors that are quantized apart: Γ(R) and its relatives, derived in theory 6.1.

A is n × a, B is n × b, and every entry of both gets R bits. The error ‖Ĉ - AᵀB‖² (Frobenius) is normalised by
‖A‖² ‖B‖² / n, its expectation for Ĉ = 0 and independent Gaussian factors: 1 means that nothing was learned.
"""

import math
from typing import Any, cast

import numpy as np
from scipy.optimize import brentq

from lattq._array import Array, host_reals
from lattq._options import as_float
from lattq.bounds._checks import Number, integer_at_least, non_negative, positive
from lattq.errors import InvalidInputError

__all__ = [
    "PRODUCT_CRITICAL_RATE",
    "high_rate_product_distortion",
    "one_sided_product_distortion",
    "product_bits",
    "product_distortion",
    "product_rate",
    "two_rate_product_distortion",
    "unbiased_product_distortion",
    "universal_product_error",
]

PRODUCT_CRITICAL_RATE = cast(
    float, brentq(lambda r: 0.5 * math.log2(1.0 + 4.0 * r * math.log(2.0)) - r, 0.5, 2.0, xtol=1e-15)
)
"""R* = 0.906324 bits, the positive root of R = ½ log2(1 + 4 R ln 2): below it coordinates should be left out."""

_LEFT = (1.0 - 4.0**-PRODUCT_CRITICAL_RATE) ** 2  # 1 - Γ(R*)


def product_distortion(rate: Array | Number) -> Any:
    """Return Γ(R), theory (6.2): the least normalised error of a product whose factors have R bits per entry.

    2 · 4^-R - 16^-R from R* on, and the tangent from (0, 1) below it: keep a fraction R / R* of the coordinates after a
    rotation, and quantize those at R*. No pair of encoders does better on independent Gaussian factors, and nested
    lattices reach it as n grows.

    Parameters
    ----------
    rate : bits per entry of either factor; a number or an array.

    Returns
    -------
    Error over ‖A‖² ‖B‖² / n, of the shape of `rate`.

    Raises
    ------
    InvalidInputError : if a rate is NaN, infinite or negative.

    References
    ----------
    Ordentlich and Polyanskiy 2024, "Optimal quantization for matrix multiplication".

    Examples
    --------
    >>> product_distortion(1.0)
    0.4375
    >>> product_distortion(np.array([0.5, 2.0])).round(6)
    array([0.717706, 0.121094])
    """
    bits = _rates(rate)
    powers = 4.0**-bits
    left = (1.0 - _LEFT * bits / PRODUCT_CRITICAL_RATE, powers * (2.0 - powers))
    return _like(rate, np.where(bits < PRODUCT_CRITICAL_RATE, *left))


def product_rate(distortion: Array | Number) -> Any:
    """Return the rate at which Γ is `distortion`, the inverse of `product_distortion`; 0 from 1 on.

    Parameters
    ----------
    distortion : normalised error, above zero; a number or an array.

    Returns
    -------
    Bits per entry of either factor.

    Raises
    ------
    InvalidInputError : if a distortion is NaN, infinite or not above zero.

    Examples
    --------
    >>> product_rate(0.4375)
    1.0
    """
    values = _reals("distortion", distortion)
    if not ((values > 0.0) & (values < math.inf)).all():
        msg = f"`distortion` holds {values[~((values > 0.0) & (values < math.inf))][0]}; pass finite numbers above zero"
        raise InvalidInputError(msg)
    left = np.clip(1.0 - values, 0.0, None)
    # 2t - t² = D solved for t = 4^-R without cancellation.
    curve = 0.5 * (np.log2(1.0 + np.sqrt(left)) - np.log2(values))
    return _like(distortion, np.where(left < _LEFT, PRODUCT_CRITICAL_RATE * left / _LEFT, curve))


def product_bits(error: Number, norm_a: Number, norm_b: Number, size: int) -> float:
    """Return the effective bits of a measured product: the rate at which Γ equals its normalised error.

    Parameters
    ----------
    error : ‖Ĉ - AᵀB‖², the squared error of all entries together.
    norm_a, norm_b : ‖A‖ and ‖B‖ (Frobenius).
    size : n, the coordinates that are summed over.

    Returns
    -------
    Bits per entry of either factor; what was spent beyond them is lost.

    Raises
    ------
    InvalidInputError : if an argument is not positive and finite, or the normalised error is beyond float64.

    Examples
    --------
    >>> round(product_bits(7.0, norm_a=2.0, norm_b=4.0, size=4), 12)
    1.0
    """
    a, b = positive("norm_a", norm_a), positive("norm_b", norm_b)
    relative = positive("error", error) / a / b / a / b * integer_at_least("size", size, 1)
    if not 0.0 < relative < math.inf:
        msg = f"`error` is {error} for norms of {a} and {b}; float64 does not hold the normalised error"
        raise InvalidInputError(msg)
    return float(product_rate(relative))


def one_sided_product_distortion(rate: Array | Number) -> Any:
    """Return 4^-R: one factor quantized at R bits per entry, the other known exactly.

    Raises
    ------
    InvalidInputError : if a rate is NaN, infinite or negative.

    Examples
    --------
    >>> one_sided_product_distortion(2.0)
    0.0625
    """
    return _like(rate, 4.0 ** -_rates(rate))


def unbiased_product_distortion(rate: Array | Number) -> Any:
    """Return (2 · 4^R - 1) / (4^R - 1)², theory (6.5): both factors decoded without bias.

    Each reconstruction is the factor plus independent noise of relative power 1 / (4^R - 1). Products are then right on
    average, for an error that is 0.78 instead of 0.44 at one bit, and the same at high rate.

    Raises
    ------
    InvalidInputError : if a rate is NaN, infinite or not above zero, or so near it that the error is beyond float64.

    Examples
    --------
    >>> round(unbiased_product_distortion(1.0), 4)
    0.7778
    """
    bits = _rates(rate)
    with np.errstate(over="ignore", divide="ignore"):
        noise = 1.0 / np.expm1(2.0 * math.log(2.0) * bits)
        found = noise * (2.0 + noise)
    if not np.isfinite(found).all():
        msg = f"`rate` holds {bits.min()}; without bits no estimate is unbiased"
        raise InvalidInputError(msg)
    return _like(rate, found)


def high_rate_product_distortion(rate: Array | Number) -> Any:
    """Return 2 · 4^-R, what Γ(R) becomes at high rate: two independent relative errors add.

    Raises
    ------
    InvalidInputError : if a rate is NaN, infinite or negative.

    Examples
    --------
    >>> high_rate_product_distortion(2.0)
    0.125
    """
    return _like(rate, 2.0 * 4.0 ** -_rates(rate))


def two_rate_product_distortion(rate_a: Number, rate_b: Number) -> float:
    """Return the normalised error at rates R_a and R_b, the best fraction of the coordinates kept, theory (6.4).

    With all of them kept it is D_a + D_b - D_a D_b for D = 4^-R. At equal rates it is Γ(R), which no code beats; with
    one rate infinite it is 4^-R. In between it is what the same scheme reaches, stated without a converse.

    Parameters
    ----------
    rate_a, rate_b : bits per entry of A and of B.

    Returns
    -------
    Error over ‖A‖² ‖B‖² / n.

    Raises
    ------
    InvalidInputError : if a rate is NaN, infinite or negative.

    Examples
    --------
    >>> two_rate_product_distortion(1.0, 2.0)
    0.296875
    """
    rates = (non_negative("rate_a", rate_a), non_negative("rate_b", rate_b))
    if min(rates) < 1e-300:
        return 1.0

    def excess(kept: float) -> float:
        """Slope of -log of what is explained, κ (1 - 4^(-R_a/κ)) (1 - 4^(-R_b/κ)), over log κ."""
        exponents = [2.0 * math.log(2.0) * rate / kept for rate in rates]
        return sum(x / math.expm1(x) for x in exponents if x < 700.0) - 1.0

    kept = 1.0 if excess(1.0) <= 0.0 else cast(float, brentq(excess, min(rates) / 10.0, 1.0, xtol=1e-15))
    if kept < 1.0:
        return 1.0 - kept * math.prod(-math.expm1(-2.0 * math.log(2.0) * rate / kept) for rate in rates)
    a, b = (4.0**-rate for rate in rates)
    return a + b - a * b


def universal_product_error(norm_a: Number, norm_b: Number, norm_product: Number, size: int, rate: Number) -> float:
    """Return ‖AᵀB‖² Γ² + (‖A‖² ‖B‖² / n) (Γ - Γ²): the error that is reached for any two matrices, up to o(1).

    The columns of A and B have zero mean: subtract the means first, and add their product, which costs next to nothing.
    The vanishing term of the published theorem, which depends on n and on the precision of the norms, is left out.

    Parameters
    ----------
    norm_a, norm_b : ‖A‖ and ‖B‖ (Frobenius), of the centred columns.
    norm_product : ‖AᵀB‖ of the same.
    size : n, the coordinates that are summed over.
    rate : bits per entry of either factor.

    Returns
    -------
    Expected squared error of all entries of the product together.

    Raises
    ------
    InvalidInputError : if an argument is NaN, infinite or negative, ‖AᵀB‖ above ‖A‖ ‖B‖, or a square beyond float64.

    References
    ----------
    Ordentlich and Polyanskiy 2024, "Optimal quantization for matrix multiplication", the theorem for
    arbitrary matrices (random rotation, dithered nested lattices, scaling by 1 - Γ).

    Examples
    --------
    Orthogonal columns: an error of Γ - Γ², where Gaussian factors have Γ.

    >>> round(universal_product_error(2.0, 2.0, 0.0, size=16, rate=1.0), 6)
    0.246094
    """
    a, b = non_negative("norm_a", norm_a), non_negative("norm_b", norm_b)
    product = non_negative("norm_product", norm_product)
    if product > a * b * (1.0 + 1e-9):
        msg = f"`norm_product` is {product}, above norm_a · norm_b = {a * b}; it is the norm of AᵀB, not of its square"
        raise InvalidInputError(msg)
    gamma = float(product_distortion(non_negative("rate", rate)))
    mean = a * b * (a * b) / integer_at_least("size", size, 1)
    if not mean < math.inf:
        msg = f"`norm_a` is {a} and `norm_b` {b}; the square of their product is beyond float64"
        raise InvalidInputError(msg)
    return product * gamma * (product * gamma) + mean * gamma * (1.0 - gamma)


def _rates(rate: Array | Number) -> np.ndarray:
    bits = _reals("rate", rate)
    if not ((bits >= 0.0) & (bits < math.inf)).all():
        msg = f"`rate` holds {bits[~((bits >= 0.0) & (bits < math.inf))][0]}; pass finite numbers, zero or above"
        raise InvalidInputError(msg)
    return bits


def _reals(name: str, value: Array | Number) -> np.ndarray:
    """A number, or the finite numbers of an array, in float64."""
    return np.asarray(as_float(name, value)) if np.ndim(value) == 0 else host_reals(name, value)


def _like(given: Array | Number, values: Any) -> Any:
    """A number for a number, an array for an array."""
    return float(values) if np.ndim(given) == 0 else values
