"""Fixed-rate integers scaled by the largest entry of a group, on Gaussian entries: the exact expected error.

Every grid here is uniform and wide enough for the largest entry, so no entry is clipped by more than half a step.
With m the largest absolute value of the group:

- "full": step 2m / (levels - 1), multiples of the step; all levels used (GPTQ's symmetric quantizer). With an even
  number of levels the largest entry falls midway between two multiples, and loses half a step.
- "narrow": step m / ((levels - 1) // 2), multiples of the step; ±m is exact, and an even number of levels leaves one
  unused.
- "cells": step 2m / levels, the centres of that many equal cells of [-m, m]; the textbook's uniform quantizer.
"""

import math
from typing import Literal

import numpy as np
from scipy.special import erfcinv, erfinv, log_ndtr

from lattq._options import among
from lattq.bounds._checks import Number, integer_at_least, non_negative, positive
from lattq.errors import InvalidInputError, shown

__all__ = ["Grid", "absmax_asymptotic_loss", "absmax_distortion", "absmax_loss", "expected_squared_maximum"]

Grid = Literal["full", "narrow", "cells"]


def absmax_distortion(levels: int, size: int, *, grid: Grid = "full", variance: Number = 1.0) -> float:
    """Return the expected squared error per entry of absmax quantization of `size` Gaussian entries, theory (1.21).

    Exact: given the largest entry the others are independent truncated Gaussians, and the error of each is integrated
    over the cells, then over the largest entry. The scale is taken as exact.

    Parameters
    ----------
    levels : of the grid, 2**bits of them.
    size : entries that share a scale.
    grid : "full", "narrow" or "cells"; see the head of this module.
    variance : of the entries.

    Returns
    -------
    Squared error per entry.

    Raises
    ------
    InvalidInputError : if `levels` is below 2 (3 for "narrow"), `size` below 1 or `variance` negative.

    Examples
    --------
    >>> round(absmax_distortion(16, 128), 6), round(absmax_distortion(16, 128, grid="narrow"), 6)
    (0.012258, 0.013752)
    """
    levels, size = _check_grid(levels, grid), integer_at_least("size", size, 1)
    maxima, weights = _maximum_rule(size)
    others = _error_inside(maxima, levels, grid)
    largest = np.square(maxima * _loss_of_largest(levels, grid))
    return non_negative("variance", variance) * float(weights @ (others * (size - 1) + largest)) / size


def absmax_loss(levels: int, size: int, *, grid: Grid = "full", scale_bits: Number = 0.0) -> float:
    """Return the gap of absmax quantization to R(D) of the Gaussian, bits per entry.

    The rate is log2(levels) + scale_bits / size.

    Parameters
    ----------
    levels, size, grid : as for `absmax_distortion`.
    scale_bits : bits that store the scale of a group; 0 leaves it uncharged.

    Raises
    ------
    InvalidInputError : as for `absmax_distortion`, or if `scale_bits` is negative.

    Examples
    --------
    >>> round(absmax_loss(16, 128, scale_bits=16), 4)
    0.9499
    """
    levels, size = _check_grid(levels, grid), integer_at_least("size", size, 1)
    rate = math.log2(levels) + non_negative("scale_bits", scale_bits) / size
    return rate + min(0.0, 0.5 * math.log2(absmax_distortion(levels, size, grid=grid)))


def absmax_asymptotic_loss(size: Number) -> float:
    """Return ½ log2(2 ln(size) / 3), theory (1.22): the loss for many levels and a large group, scale uncharged.

    Approached slowly and from above: at 128 entries it exceeds ½ log2(E max² / 3) by 0.13 bit.

    Parameters
    ----------
    size : entries that share a scale, above 1.

    Returns
    -------
    Bits per entry.

    Raises
    ------
    InvalidInputError : if `size` is not above 1.

    Examples
    --------
    >>> round(absmax_asymptotic_loss(128), 2)
    0.85
    """
    if not positive("size", size) > 1.0:
        msg = f"`size` is {size}; the asymptote is for groups of more than one entry"
        raise InvalidInputError(msg)
    return 0.5 * math.log2(2.0 * math.log(size) / 3.0)


def expected_squared_maximum(size: int) -> float:
    """Return E[max x²] over `size` independent standard Gaussians; about 2 ln(size) for many.

    Raises
    ------
    InvalidInputError : if `size` is not a whole number above zero.

    Examples
    --------
    >>> round(expected_squared_maximum(1), 12), round(expected_squared_maximum(128), 4)
    (1.0, 8.1483)
    """
    maxima, weights = _maximum_rule(integer_at_least("size", size, 1))
    return float(weights @ maxima**2)


def _check_grid(levels: int, grid: Grid) -> int:
    if not among(grid, ("full", "narrow", "cells")):
        msg = f"`grid` is {shown(grid)}; pass 'full', 'narrow' or 'cells'"
        raise InvalidInputError(msg)
    return integer_at_least("levels", levels, 3 if grid == "narrow" else 2)


def _steps_to_maximum(levels: int, grid: Grid) -> float:
    """Return m / step."""
    return {"full": (levels - 1) / 2, "narrow": float((levels - 1) // 2), "cells": levels / 2}[grid]


def _loss_of_largest(levels: int, grid: Grid) -> float:
    """Return the error of the largest entry, relative to itself: half a step if it lies between two outputs, else 0."""
    span = _steps_to_maximum(levels, grid)
    between = grid == "cells" or span % 1.0 != 0.0
    return 0.5 / span if between else 0.0


def _error_inside(maxima: np.ndarray, levels: int, grid: Grid) -> np.ndarray:
    """Return E[error² | |x| <= m] for every m: Gauss quadrature within the cells, where the integrand is smooth.

    (Closed forms in erf lose all digits on narrow cells.)
    """
    span = _steps_to_maximum(levels, grid)
    # Cells of the positive half line in steps: the two half cells of each output, cut off at m.
    edges = np.append(np.arange(0.0, span, 0.5), span)
    midrise = grid == "cells" and levels % 2 == 0  # zero is an edge, not an output
    centres = np.floor(edges[:-1]) + 0.5 if midrise else np.floor(edges[:-1] + 0.5)
    nodes, weights = np.polynomial.legendre.leggauss(24 if levels <= 16 else 6)
    widths = np.diff(edges)
    x = edges[:-1, None] + widths[:, None] * (nodes + 1.0) / 2.0
    cost = (weights * widths[:, None] / 2.0 * (x - centres[:, None]) ** 2).ravel()
    steps = maxima / span
    values = np.array([cost @ np.exp(-0.5 * (step * x.ravel()) ** 2) for step in steps])
    mass = 1.0 - 2.0 * np.exp(log_ndtr(-maxima))
    return 2.0 * values * steps**3 / math.sqrt(2.0 * math.pi) / mass


def _maximum_rule(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return nodes and weights of an expectation over the largest of `size` absolute values of N(0, 1)."""
    lowest = math.sqrt(2.0) * float(erfinv(10.0 ** (-20.0 / size)))
    highest = math.sqrt(2.0) * float(erfcinv(1e-20 / size))
    nodes, weights = np.polynomial.legendre.leggauss(200)
    x = lowest + (highest - lowest) * (nodes + 1.0) / 2.0
    # The density size · P(|x| < m)^(size - 1) · 2 φ(m), in logarithms.
    log_density = (size - 1) * np.log1p(-2.0 * np.exp(log_ndtr(-x))) - 0.5 * x * x + math.log(size)
    weights = weights * (highest - lowest) / 2.0 * np.exp(log_density) * math.sqrt(2.0 / math.pi)
    return x, weights / weights.sum()
