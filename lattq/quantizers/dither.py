"""Subtractive dither: numbers that a decoder draws again from a seed."""

import numpy as np

__all__ = ["dither_offsets"]

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
CACHED = 1 << 15  # numbers that a cache holds


def dither_offsets(seed: int, rows: int, columns: np.ndarray) -> np.ndarray:
    """Uniform numbers in [-1/2, 1/2), shape (rows, columns); those of a column depend on seed and column only.

    >>> bool((dither_offsets(1, 3, np.array([2])) == dither_offsets(1, 3, np.arange(4))[:, 2:3]).all())
    True
    """
    start = (np.asarray(columns, dtype=np.uint64) << np.uint64(32)) * GOLDEN
    start += _mixed(np.array([seed], dtype=np.uint64) + GOLDEN)
    found = np.empty((rows, len(columns)))
    height = max(1, CACHED // max(len(columns), 1))
    for first in range(0, rows, height):
        row = np.arange(first, min(first + height, rows), dtype=np.uint64)[:, None]
        found[first : first + height] = (_mixed(row * GOLDEN + start) >> np.uint64(11)) * 2.0**-53 - 0.5
    return found


def _mixed(x: np.ndarray) -> np.ndarray:
    """A permutation of 64-bit integers that leaves no trace of their order: the finalizer of SplitMix64.

    Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
    """
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        x = (x ^ (x >> np.uint64(shift))) * np.uint64(factor)
    return x ^ (x >> np.uint64(31))
