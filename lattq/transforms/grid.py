"""Scales on a grid of 1/16 octave, and in bfloat16."""

import numpy as np
from jaxtyping import Float, Int

from lattq._options import power_of_two
from lattq.coding.schema import MOST_EXPONENT

__all__ = ["MOST_GRID", "MOST_STRIDE", "OCTAVE", "SCALE_GRID", "bfloat16", "grid_scale", "widest_grid"]

SCALE_GRID = 16  # scales of `Equalize` lie on a grid of 1/16 octave, which costs 0.0002 bit a weight
OCTAVE = np.array([power_of_two(k, SCALE_GRID) for k in range(SCALE_GRID)])
MOST_GRID = SCALE_GRID * MOST_EXPONENT
MOST_STRIDE = 64  # of the grid that a file stores scales on


def grid_scale(exponents: Int[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """2^(k/16), from the integer and the fractional octave.

    >>> grid_scale(np.array([0, 16, -8])).round(4)
    array([1.    , 2.    , 0.7071])
    """
    return np.ldexp(OCTAVE[exponents % SCALE_GRID], exponents // SCALE_GRID)


def widest_grid(exponents: np.ndarray) -> int:
    """The widest grid that integers lie on, at most 64: its power of two plus where it begins.

    >>> widest_grid(np.array([3, 7, 11])), widest_grid(np.array([2, 3]))
    (7, 1)
    """
    gaps = int(np.gcd.reduce(exponents - exponents[0]))
    stride = min(gaps & -gaps, MOST_STRIDE) or 1
    return stride + int(exponents[0]) % stride


def bfloat16(values: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """Numbers rounded to bfloat16: the upper half of float32, ties to even.

    >>> bfloat16(np.array([1.0, 1.01]))
    array([1.       , 1.0078125])
    """
    bits = np.asarray(values, dtype=np.float32).view(np.uint32).astype(np.uint64)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
    return rounded.astype(np.uint32).view(np.float32).astype(np.float64)
