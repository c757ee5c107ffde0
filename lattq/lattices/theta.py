"""Gaussian weights on a lattice: partition function, mean norm and entropy, in closed form.

The model gives the point with integer coordinates h the probability ``exp(-|h|² / (2 scale²)) / Z(scale)``. For
lattices made of codes Z is a sum of products of one-dimensional sums, theory (4.10) to (4.12), which converge fast at
any scale: directly at small ones, after Poisson's transform at large ones.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from lattq._options import as_float
from lattq.errors import InvalidInputError, shown
from lattq.lattices.lattice import Lattice
from lattq.lattices.series import CodeSeries

__all__ = ["entropy", "log_partition", "mean_norm", "scale_of_norm"]

Scales = Float[np.ndarray, "*batch"] | float | Sequence[float]


def log_partition(lattice: Lattice, scale: Scales) -> Float[np.ndarray, "*batch"]:
    """ln Z(scale): the logarithm of the sum of exp(-|h|² / (2 scale²)) over all points, in integer coordinates.

    Parameters
    ----------
    lattice : Z, D, D_dual, E8, BW16 or Leech24
    scale : of the Gaussian, in integer coordinates, at least 0.01

    Raises
    ------
    InvalidInputError : for a scale that is too small or not finite, or a lattice without a closed form

    Examples
    --------
    >>> from lattq.lattices import E8
    >>> round(float(log_partition(E8, 10.0)), 9), round(8 * math.log(math.sqrt(2 * math.pi) * 10 / 2), 9)
    (20.227011565, 20.227011565)
    """
    return _sums(lattice, scale)[0]


def mean_norm(lattice: Lattice, scale: Scales) -> Float[np.ndarray, "*batch"]:
    """Mean of |h|², in integer coordinates: scale³ times the derivative of `log_partition`.

    Raises
    ------
    InvalidInputError : as `log_partition`

    Examples
    --------
    >>> from lattq.lattices import E8
    >>> round(float(mean_norm(E8, 10.0)), 6)
    800.0
    """
    return _sums(lattice, scale)[1]


def entropy(lattice: Lattice, scale: Scales) -> Float[np.ndarray, "*batch"]:
    """Entropy of the points, bits per dimension.

    Raises
    ------
    InvalidInputError : as `log_partition`

    Examples
    --------
    >>> from lattq.lattices import E8
    >>> round(float(entropy(E8, 2.0)), 6)
    2.047096
    """
    log, norm = _sums(lattice, scale)
    square = np.asarray(scale, dtype=np.float64) ** 2
    return np.asarray((log + norm / (2 * square)) / (lattice.dimension * math.log(2)))


def scale_of_norm(lattice: Lattice, norm: float) -> float:
    """The scale with this mean of |h|², in integer coordinates: the model under which such points take fewest bits.

    Raises
    ------
    InvalidInputError : if no scale from 0.01 to 1e6 has that norm

    Examples
    --------
    >>> from lattq.lattices import E8
    >>> round(scale_of_norm(E8, 800.0), 6)
    10.0
    """
    norm = as_float("norm", norm)
    low, high = math.log(0.01), math.log(1e6)
    if not float(mean_norm(lattice, 0.01)) < norm < float(mean_norm(lattice, 1e6)):
        msg = f"`norm` is {norm}; no Gaussian on {lattice.name} with a scale from 0.01 to 1e6 has that mean"
        raise InvalidInputError(msg)
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if float(mean_norm(lattice, math.exp(middle))) < norm else (low, middle)
    return math.exp((low + high) / 2)


def closed_series(lattice: Any) -> CodeSeries:
    """The series behind the closed forms; raises `InvalidInputError` for what has none.

    >>> from lattq.lattices import E8
    >>> closed_series(E8).modulus
    2
    """
    series = lattice.series if isinstance(lattice, Lattice) else None
    if not isinstance(series, CodeSeries):
        msg = (
            f"`lattice` is {shown(lattice)}, which has no partition function in closed form here; "
            "use Z, D, D_dual, E8, BW16 or Leech24"
        )
        raise InvalidInputError(msg)
    return series


def _sums(lattice: Lattice, scale: Scales) -> tuple[np.ndarray, np.ndarray]:
    """ln Z and the mean norm."""
    series = closed_series(lattice)
    try:
        scales = np.asarray(scale, dtype=np.float64)
    except (TypeError, ValueError):
        msg = f"`scale` is {shown(scale)}; pass a number or an array of them"
        raise InvalidInputError(msg) from None
    if not np.all((scales >= 0.01) & (scales <= 1e9)):
        msg = f"`scale` holds {scales[~((scales >= 0.01) & (scales <= 1e9))].flat[0]}; pass scales from 0.01 to 1e9"
        raise InvalidInputError(msg)
    kinds = sorted({(residue, signs) for _, factors in series.terms for residue, signs, _ in factors})
    lines = {kind: _line(*kind, series.modulus, scales) for kind in kinds}
    largest = np.max([value for value, _ in lines.values()], axis=0)
    lines = {kind: (value / largest, slope / largest) for kind, (value, slope) in lines.items()}
    total, slopes = np.zeros(scales.shape), np.zeros(scales.shape)
    for coefficient, factors in series.terms:
        value, slope = _product([(lines[residue, signs], power) for residue, signs, power in factors])
        total, slopes = total + coefficient * value, slopes + coefficient * slope
    log = np.log(total / series.denominator) + lattice.generator.shape[1] * np.log(largest)
    return np.asarray(log), np.asarray(slopes / total)


def _product(factors: list[tuple[tuple[Any, Any], int]]) -> tuple[Any, Any]:
    """Product of powers, and its sum of squares in place of the sum of ones: the rule of products."""
    value, slope = np.ones(()), np.zeros(())
    for (one, its_slope), power in factors:
        if power:
            power_slope = power * one ** (power - 1) * its_slope
            value, slope = value * one**power, slope * one**power + value * power_slope
    return value, slope


def _line(residue: int, alternating: bool, modulus: int, scales: np.ndarray) -> tuple[Any, Any]:
    """Sums of ± exp(-h² / 2s²) and of ± h² exp(-h² / 2s²) over h = residue + modulus k."""
    large = scales > modulus / math.sqrt(2 * math.pi)  # both forms then need the same few terms
    few, many = np.where(large, modulus, scales)[..., None], np.where(large, scales, modulus)[..., None]
    k = np.arange(-8, 9)
    h = residue + modulus * k
    terms = np.where(alternating & (k % 2 == 1), -1.0, 1.0) * np.exp(-(h**2) / (2 * few**2))
    frequency = 2 * math.pi * (k + 0.5 * alternating) / modulus
    decay = (frequency * many) ** 2
    waves = math.sqrt(2 * math.pi) / modulus * many * np.cos(frequency * residue) * np.exp(-decay / 2)
    value = np.where(large, waves.sum(axis=-1), terms.sum(axis=-1))
    slope = np.where(large, (many**2 * (1 - decay) * waves).sum(axis=-1), (h**2 * terms).sum(axis=-1))
    return value, slope
