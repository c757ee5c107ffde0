"""Frozen integer tables of discretised Gaussians, one per scale class.

Class 0 is the constant 0. Class k >= 1 is round(N(0, s²)) with s = 2^((k - 1)/8 - 3): eight classes an octave, so a
scale is off by at most 1/16 octave, which costs at most 0.003 bit a symbol and 0.0009 on average. Symbols beyond
`limit` (where the tail is below 2^-24) are an escape. Counts are integers out of 2^24, computed once and pinned by
`FINGERPRINT`, so every platform decodes with the same tables or says that it can't.
"""

import functools
import hashlib
import math

import numpy as np
from scipy.special import ndtr

from lattq.errors import LattqError

__all__ = [
    "CLASSES",
    "CLASSES_PER_OCTAVE",
    "SHARE",
    "code_lengths",
    "expected_gain",
    "gaussian_counts",
    "limit",
    "scale_class",
]

CLASSES_PER_OCTAVE = 8
SMALLEST = -3  # log2 of the scale of class 1: all but 6e-5 of its symbols are 0
LARGEST = 6  # log2 of the largest scale with a table; above it, low bits are coded as they are
CLASSES = 1 + (LARGEST - SMALLEST) * CLASSES_PER_OCTAVE + 1
TOTAL = 1 << 24
TAIL = 5.5  # standard deviations inside the table; beyond it an escape costs less than the table would
# 16 (1 - 4^(-i/8)), rounded: sixteenths of a row factor that a column keeps whose class is i above the noise's.
SHARE = np.array([0, 3, 5, 6, 8, 9, 10, 11, 12, 13, 13, 14, 14, 14, 15, 15, 15, 15, 15, 15, 15, 16, 16])
FINGERPRINT = "05e3bb79983fcc8a"


def scale_class(scale: np.ndarray) -> np.ndarray:
    """Nearest class of a standard deviation in code units, 0 where it is 0; may exceed the classes that have a table.

    >>> scale_class(np.array([0.0, 0.125, 1.0, 2.0]))
    array([ 0,  1, 25, 33])
    """
    with np.errstate(divide="ignore"):
        log = np.log2(scale)
    nearest = np.rint((np.maximum(log, SMALLEST) - SMALLEST) * CLASSES_PER_OCTAVE).astype(np.int64) + 1
    return np.where(scale > 0, nearest, 0)


def limit(index: int) -> int:
    """Largest magnitude that class `index` codes without escape.

    >>> limit(0), limit(25)
    (0, 7)
    """
    if index == 0:
        return 0
    return math.ceil(TAIL * 2 ** ((index - 1) / CLASSES_PER_OCTAVE + SMALLEST) + 1)


@functools.cache
def gaussian_counts(index: int) -> np.ndarray:
    """Counts out of 2^24 of the symbols -limit ... limit and of the escape, which comes last.

    >>> int(gaussian_counts(25).sum()) == 2**24
    True
    """
    bound = limit(index)
    if index == 0:
        return np.array([TOTAL - (1 << 4), 1 << 4])
    scale = 2 ** ((index - 1) / CLASSES_PER_OCTAVE + SMALLEST)
    edges = ndtr((np.arange(bound + 1) + 0.5) / scale)
    half = np.diff(edges, prepend=0.5)
    half[0] *= 2
    counts = np.maximum(np.rint(half * TOTAL).astype(np.int64), 1)
    counts = np.concatenate([counts[:0:-1], counts, [max(1, round(2 * (1 - edges[-1]) * TOTAL))]])
    counts[bound] += TOTAL - counts.sum()  # the centre absorbs the rounding
    return counts


@functools.cache
def expected_gain(index: int) -> int:
    """LMMSE gain E[x q] / E[q²] of q = round(x), x of class `index`, in 128ths; 128 where there is no table.

    Reconstructions are charged only for how their gains differ from this (theory 3.4).

    >>> expected_gain(1), expected_gain(25), expected_gain(70)
    (68, 118, 128)
    """
    if index == 0 or index >= CLASSES:
        return 128
    scale = 2 ** ((index - 1) / CLASSES_PER_OCTAVE + SMALLEST)
    edges = np.arange(limit(index) + 1) + 0.5
    # E[x q] = s² Σ_k pdf(k - ½), E[q²] = 2 Σ_k (2k - 1) P(x > k - ½), summed by parts
    product = scale * np.sum(2 * np.exp(-0.5 * (edges / scale) ** 2)) / np.sqrt(2 * np.pi)
    power = 2 * np.sum(2 * edges * ndtr(-edges / scale))
    return int(np.rint(128 * product / power))


@functools.cache
def code_lengths(magnitude: int) -> np.ndarray:
    """Bits of symbols of size 0 ... `magnitude` in each class, shape (CLASSES, magnitude + 1); an escape adds 32.

    >>> bool(code_lengths(3)[25].argmin() == 0)
    True
    """
    lengths = np.empty((CLASSES, magnitude + 1))
    for index in range(CLASSES):
        counts, bound = gaussian_counts(index), limit(index)
        bits = 24 - np.log2(counts[bound:-1])
        escape = 24 - math.log2(counts[-1]) + 32
        lengths[index] = np.concatenate([bits, np.full(max(0, magnitude - bound), escape)])[: magnitude + 1]
    return lengths


@functools.cache
def check_fingerprint() -> None:
    """Raise if this platform computes other tables than those that wrote the files."""
    digest = hashlib.blake2b(SHARE.astype("<i8").tobytes(), digest_size=8)
    for index in range(CLASSES):
        digest.update(gaussian_counts(index).astype("<i8").tobytes() + bytes([expected_gain(index)]))
    if digest.hexdigest() != FINGERPRINT:
        msg = f"entropy tables come out as {digest.hexdigest()} here, files are written with {FINGERPRINT}; report it"
        raise LattqError(msg)
