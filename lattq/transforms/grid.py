"""Scales on a grid of 1/16 octave, and in bfloat16."""

import numpy as np
from jaxtyping import Float, Int

from lattq._options import power_of_two
from lattq.coding.integers import decode_integers, encode_integers
from lattq.coding.schema import MOST_EXPONENT, Integer, checked
from lattq.errors import DamagedFileError

__all__ = [
    "MOST_GRID",
    "MOST_STRIDE",
    "OCTAVE",
    "SCALE_GRID",
    "bfloat16",
    "grid_scale",
    "read_grid",
    "stored_grid",
    "widest_grid",
]

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


def stored_grid(exponents: Int[np.ndarray, " n"]) -> list:
    """Exponents of scales 2^(k/16) as entropy-coded integers, the fewer bits the coarser the grid that they lie on.

    >>> stored_grid(np.array([4, 4, 4]))
    [1, 4, 0, b'']
    """
    grid = widest_grid(exponents)
    return [grid, *encode_integers(exponents >> (grid.bit_length() - 1))]


def read_grid(state: list, size: int) -> Int[np.ndarray, " n"]:
    """Inverse of `stored_grid` for so many scales; raises `DamagedFileError`.

    >>> read_grid(stored_grid(np.array([3, 7, 11])), 3)
    array([ 3,  7, 11])
    """
    grid, *coded = state
    grid = checked(Integer(1, 2 * MOST_STRIDE - 1), grid, "grid")
    stride = 1 << (grid.bit_length() - 1)
    most = 2 * MOST_GRID // stride
    exponents = stride * decode_integers(coded, size, -most, most) + grid - stride
    if np.abs(exponents).max(initial=0) > MOST_GRID:
        msg = f"exponents {exponents.min()} ... {exponents.max()}, beyond {MOST_GRID}; the file is damaged"
        raise DamagedFileError(msg)
    return exponents


def bfloat16(values: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """Numbers rounded to bfloat16: the upper half of float32, ties to even.

    >>> bfloat16(np.array([1.0, 1.01]))
    array([1.       , 1.0078125])
    """
    bits = np.asarray(values, dtype=np.float32).view(np.uint32).astype(np.uint64)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
    return rounded.astype(np.uint32).view(np.float32).astype(np.float64)
