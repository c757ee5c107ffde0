"""Rate and distortion of one Gaussian, and Shannon's lower bound. Rates in bits per sample."""

import math

from lattq.bounds._checks import Number, non_negative, positive
from lattq.errors import InvalidInputError

__all__ = ["gaussian_distortion", "gaussian_entropy", "gaussian_rate", "shannon_lower_bound"]


def gaussian_rate(variance: Number, distortion: Number) -> float:
    """Return R(D) of a Gaussian source: max(0, ½ log2(variance / distortion)), theory (1.4).

    Parameters
    ----------
    variance : zero is legal and needs no bits.
    distortion : squared error per sample, above zero.

    Returns
    -------
    Bits per sample.

    Raises
    ------
    InvalidInputError : if an argument is NaN, infinite or negative, or `distortion` is zero.

    References
    ----------
    Shannon 1959; Cover and Thomas 2006, theorem 10.3.2.

    Examples
    --------
    >>> gaussian_rate(1.0, 0.25)
    1.0
    >>> gaussian_rate(1.0, 2.0)
    0.0
    """
    variance, distortion = non_negative("variance", variance), positive("distortion", distortion)
    if variance <= distortion:
        return 0.0
    return 0.5 * (math.log2(variance) - math.log2(distortion))


def gaussian_distortion(variance: Number, rate: Number) -> float:
    """Return D(R) of a Gaussian source: variance · 4^-rate, the inverse of `gaussian_rate`.

    Parameters
    ----------
    variance : zero is legal.
    rate : bits per sample.

    Returns
    -------
    Squared error per sample.

    Raises
    ------
    InvalidInputError : if an argument is NaN, infinite or negative.

    References
    ----------
    Cover and Thomas 2006, section 10.3.2.

    Examples
    --------
    >>> gaussian_distortion(1.0, 2.0)
    0.0625
    """
    return non_negative("variance", variance) * 4.0 ** -non_negative("rate", rate)


def gaussian_entropy(variance: Number) -> float:
    """Return the differential entropy ½ log2(2πe · variance) of a Gaussian, in bits.

    Raises
    ------
    InvalidInputError : if `variance` is not positive and finite.

    References
    ----------
    Cover and Thomas 2006, theorem 8.4.1.

    Examples
    --------
    >>> round(gaussian_entropy(1.0), 6)
    2.047096
    """
    return 0.5 * math.log2(2.0 * math.pi * math.e * positive("variance", variance))


def shannon_lower_bound(entropy: Number, distortion: Number) -> float:
    """Return Shannon's lower bound max(0, h - ½ log2(2πe · distortion)) on R(D) of any source, theory (1.5).

    Parameters
    ----------
    entropy : differential entropy of the source in bits (nats divided by ln 2) per sample; any sign.
    distortion : squared error per sample, above zero.

    Returns
    -------
    Bits per sample; equal to R(D) for a Gaussian, and in the limit of small `distortion` for any density.

    Raises
    ------
    InvalidInputError : if `entropy` is not finite or `distortion` not positive.

    References
    ----------
    Shannon 1959; Linder and Zamir 1994.

    Examples
    --------
    A uniform density on an interval of length 1 has no differential entropy.

    >>> round(shannon_lower_bound(0.0, 1e-3), 4)
    2.9358
    """
    entropy = float(entropy)
    if not math.isfinite(entropy):
        msg = f"`entropy` is {entropy}; pass the differential entropy of a density, in bits"
        raise InvalidInputError(msg)
    return max(0.0, entropy - gaussian_entropy(positive("distortion", distortion)))
