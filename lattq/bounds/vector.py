"""Fixed-rate vector quantization at high rate: what dimension can buy."""

import math

from lattq.bounds._checks import Number, integer_at_least, positive

__all__ = ["ball_second_moment", "fixed_rate_constant", "random_coding_second_moment"]


def ball_second_moment(dimension: int) -> float:
    """Return Γ(n/2 + 1)^(2/n) / ((n + 2) π), the normalised second moment of a ball: no quantizer's cells have less.

    Parameters
    ----------
    dimension : n.

    Raises
    ------
    InvalidInputError : if `dimension` is below 1.

    References
    ----------
    Zador 1982; Gersho 1979.

    Examples
    --------
    >>> round(ball_second_moment(1) * 12, 12), round(ball_second_moment(8), 6)
    (1.0, 0.070454)
    """
    n = integer_at_least("dimension", dimension, 1)
    return math.exp(2.0 / n * math.lgamma(n / 2 + 1)) / ((n + 2) * math.pi)


def random_coding_second_moment(dimension: int) -> float:
    """Return Γ(n/2 + 1)^(2/n) Γ(1 + 2/n) / (n π), which points at random reach: the best cells have no more.

    Parameters
    ----------
    dimension : n.

    Raises
    ------
    InvalidInputError : if `dimension` is below 1.

    References
    ----------
    Zador 1982.

    Examples
    --------
    >>> round(random_coding_second_moment(1), 12), round(random_coding_second_moment(24), 6)
    (0.5, 0.06722)
    """
    n = integer_at_least("dimension", dimension, 1)
    return math.exp(2.0 / n * math.lgamma(n / 2 + 1)) * math.gamma(1 + 2 / n) / (n * math.pi)


def fixed_rate_constant(dimension: int, second_moment: Number) -> float:
    """Return C with squared error C 4^-R for Gaussians of variance 1, R bits per number, n numbers per index.

    C = G · 2π ((n + 2) / n)^((n + 2) / 2), by Zador's formula. At n = 1 it is √3 π / 2; as n grows it tends to 1.

    Parameters
    ----------
    dimension : n.
    second_moment : G, normalised second moment of the cells; of a lattice, its `nsm`.

    Raises
    ------
    InvalidInputError : if `dimension` is below 1 or `second_moment` not positive.

    References
    ----------
    Zador 1982; Gersho 1979.

    Examples
    --------
    >>> round(fixed_rate_constant(1, 1 / 12), 4), round(fixed_rate_constant(8, 929 / 12960), 4)  # E8
    (2.7207, 1.3745)
    """
    n = integer_at_least("dimension", dimension, 1)
    return positive("second_moment", second_moment) * 2 * math.pi * ((n + 2) / n) ** ((n + 2) / 2)
