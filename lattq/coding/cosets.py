"""Frozen integer tables of Gaussians sampled on the cosets of Z: what codes of lattices and trellises are made of.

A code x = r + M m of known residue r mod M, M = 1, 2, 4 or 8, has P(m) ∝ exp(-(m + r/M)² / 2s²), with s = (scale of x)
/ M. So one family of tables serves all: offsets r/M in eighths, up to 1/2 (the others are mirror images), and eight
scales an octave, s = 2^((k - 1)/8 - 3) for class k. Small scales have classes below 0. Counts are integers out of 2^24
pinned by `FINGERPRINT`, as in `lattq.coding.tables`.

Among all distributions of a code with a given mean square this one has the most entropy, so no code with that mean
square takes more than its rate. Its logarithm is a square and the partition function, a theta series (theory 5.3).
"""

import functools
import hashlib
import math
from typing import Any

import numpy as np

from lattq.coding.tables import CLASSES_PER_OCTAVE, SMALLEST, TAIL, TOTAL
from lattq.errors import LattqError

__all__ = ["MOST", "coset_index", "log_partition", "on_grid", "scale", "upper_half"]

OFFSETS = 5
LARGEST = 1 + CLASSES_PER_OCTAVE * (6 - SMALLEST)  # above it, low bits are coded as they are
MOST = 1 + CLASSES_PER_OCTAVE * (30 - SMALLEST)  # codes have up to 32 bits, and up to 24 of them are low ones
LOWEST = 1 - 3 * CLASSES_PER_OCTAVE  # scale 1/8 of a code, cosets of 8 Z
TABLES = (LARGEST - LOWEST + 1) * OFFSETS
MOST_INDEX = (MOST - LOWEST + 1) * OFFSETS - 1
FINGERPRINT = "970e0cc3b395d5ac"


def scale(index: np.ndarray | int) -> Any:
    """Standard deviation of the Gaussian of a class.

    >>> float(scale(25))
    1.0
    """
    return 2.0 ** ((np.asarray(index) - 1) / CLASSES_PER_OCTAVE + SMALLEST)


def coset_index(residue: np.ndarray, modulus: int, classes: np.ndarray) -> np.ndarray:
    """Tables of codes with this residue mod `modulus`, whose scale classes are given in units of the codes.

    Residues above half the modulus are those of the negative code.

    >>> coset_index(np.array([0, 1, 2, 3]), 4, np.array([25, 25, 25, 25]))
    array([160, 162, 164, 162])
    """
    folded = np.minimum(residue, modulus - residue)
    period = classes - CLASSES_PER_OCTAVE * (modulus.bit_length() - 1)
    return (period - LOWEST) * OFFSETS + folded * (8 // modulus)


def shift(index: int) -> int:
    """Low bits of m that are coded as they are, so that the rest has a table.

    >>> shift(int(coset_index(np.array([0]), 1, np.array([100]))[0]))
    4
    """
    return max(0, -((LARGEST - LOWEST - index // OFFSETS) // CLASSES_PER_OCTAVE))


def shifted(index: int) -> int:
    """The table of what is left without the low bits, which lies half a cell further on average."""
    low = shift(index)
    return (index // OFFSETS - low * CLASSES_PER_OCTAVE) * OFFSETS + OFFSETS - 1 if low else index


def limit(index: int) -> int:
    """Largest |m| that a table codes without escape.

    >>> limit(int(coset_index(np.array([0]), 1, np.array([25]))[0]))
    7
    """
    return math.ceil(TAIL * float(scale(index // OFFSETS + LOWEST)) + 1)


@functools.cache
def counts(index: int) -> np.ndarray:
    """Counts out of 2^24 of m = -limit ... limit and of the escape, which comes last."""
    bound, offset = limit(index), (index % OFFSETS) / 8
    squares = np.square(np.arange(-bound, bound + 1) + offset)
    s = float(scale(index // OFFSETS + LOWEST))
    density = np.exp((squares.min() - squares) / (2 * s * s))
    found = np.maximum(np.rint(density / density.sum() * TOTAL).astype(np.int64), 1)
    found = np.append(found, 1)
    found[found.argmax()] += TOTAL - found.sum()
    return found


@functools.cache
def log_partition(residue: int, modulus: int) -> np.ndarray:
    """log2 Σ exp(-k² / 2s²) over k ≡ residue mod `modulus`, for the classes 0 ... MOST in units of k.

    Class 0 holds zeros only.

    >>> bool(abs(log_partition(0, 1)[25] - np.log2(np.sqrt(2 * np.pi))) < 1e-6)
    True
    """
    wide = float(scale(LARGEST))
    k = residue + modulus * np.arange(-int(16 * wide) // modulus, int(16 * wide) // modulus + 1)
    nearest = np.square(k).min()
    found = np.full(MOST + 1, 0.0 if nearest == 0 else -np.inf)
    for index in range(1, MOST + 1):
        s = float(scale(index))
        if s < wide:
            sums = np.sum(np.exp((nearest - np.square(k)) / (2 * s * s)))
            found[index] = math.log2(sums) - nearest / (2 * s * s) / math.log(2)
        else:  # an integral to all digits
            found[index] = math.log2(s * math.sqrt(2 * math.pi) / modulus)
    return found


def on_grid(probability: np.ndarray) -> np.ndarray:
    """Probabilities of a bit in multiples of 2^-16, never 0 or 1: what a coder uses, the same everywhere.

    >>> on_grid(np.array([1e-9, 0.5])) * 65536
    array([1.0000e+00, 3.2768e+04])
    """
    return np.clip(np.rint(probability * 65536), 1, 65535) / 65536


@functools.cache
def upper_half() -> np.ndarray:
    """P(k ≡ 2 mod 4) of even k, for the classes 0 ... MOST; the two halves of odd k are mirror images.

    >>> upper_half()[[0, 25, 60]].round(3)
    array([0.   , 0.213, 0.5  ])
    """
    zero, two = log_partition(0, 4), log_partition(2, 4)
    return on_grid(1 / (1 + np.exp2(np.clip(zero - two, -60, 60))))


@functools.cache
def check_fingerprint() -> None:
    """Raise if this platform computes other tables than those that wrote the files."""
    digest = hashlib.blake2b(upper_half().astype("<f8").tobytes(), digest_size=8)
    for index in range(TABLES):
        digest.update(counts(index).astype("<i8").tobytes())
    if digest.hexdigest() != FINGERPRINT:
        msg = f"entropy tables come out as {digest.hexdigest()} here, files are written with {FINGERPRINT}; report it"
        raise LattqError(msg)
