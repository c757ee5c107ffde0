"""Tables of 2^13 slots for an interleaved coder, made from the frozen ones by integer arithmetic.

A symbol of c counts out of 2^24 gets c / 2^11 slots, rounded, and one at least; symbols of less than half a slot are
left to the escape. With 2^K slots an escape that is never used costs 2^-K / ln 2 bits a symbol, and the rounding of
states of 32 bits 4^(K - 16) / (384 ln² 2); the sum is least, 2.6e-4, for K = 13 (theory 3.5). The tails of wide
Gaussians take more: so these leave their last bits to be stored as they are.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from lattq.coding import cosets, tables
from lattq.coding.cosets import MOST, coset_index

__all__ = [
    "SLOT_BITS",
    "SlotTables",
    "gaussians",
    "kinds_of_codes",
    "kinds_of_supersets",
    "parity_kinds",
    "slot_counts",
    "supersets",
]

SLOT_BITS = 13
ESCAPE = -(1 << 15)
COUNT_BITS = 24  # of the frozen tables
SHIFT = 5  # bits of a kind that say how many low bits there are
WIDEST = 62  # the last class with a table, of scale 25: above it, the last bits are coded as they are (theory 3.5)


@dataclasses.dataclass(frozen=True, eq=False)
class SlotTables:
    """Tables behind each other, as the kernels of `lattq.kernels.rans` take them.

    Attributes
    ----------
    slots : symbol of each slot, (tables, 2^13); symbols of all tables are numbered in one row
    entries : of each symbol, 2^16 times its slots plus the first of them
    values : integer of each symbol
    ends : least and largest integer of each table, what lies beyond is an escape; (tables, 2)
    starts : first symbol of each table
    """

    slots: np.ndarray
    entries: np.ndarray
    values: np.ndarray
    ends: np.ndarray
    starts: np.ndarray

    @property
    def arrays(self) -> tuple[np.ndarray, ...]:
        """What decoders need."""
        return self.slots, self.entries, self.values, self.ends

    @staticmethod
    def of(counted: Sequence[tuple[int, np.ndarray]]) -> "SlotTables":
        """From the least integer and the slots of its symbols, the escape last, of each table."""
        sizes = np.array([len(counts) for _, counts in counted])
        counts = np.concatenate([counts for _, counts in counted])
        total = 1 << SLOT_BITS
        first = np.cumsum(counts) - counts & (total - 1)
        values = np.concatenate([np.append(low + np.arange(len(counts) - 1), ESCAPE) for low, counts in counted])
        ends = np.array([(low, low + len(counts) - 2) for low, counts in counted])
        return SlotTables(
            np.repeat(np.arange(len(counts), dtype=np.uint16), counts),
            (counts << 16 | first).astype(np.uint32),
            values.astype(np.int16),
            ends.astype(np.int32),
            np.cumsum(sizes) - sizes,
        )


def slot_counts(counts: np.ndarray, low: int) -> tuple[int, np.ndarray]:
    """Least integer and slots of its symbols, the escape last, from counts of `low`, `low` + 1 ... and of the escape.

    >>> low, slots = slot_counts(tables.gaussian_counts(25), -tables.limit(25))
    >>> low, slots.tolist()
    (-4, [2, 49, 496, 1980, 3137, 1980, 496, 49, 2, 1])
    """
    half = 1 << (COUNT_BITS - SLOT_BITS - 1)
    kept = np.flatnonzero(counts[:-1] >= half)
    inside = counts[kept[0] : kept[-1] + 1]
    rest = int(counts.sum() - inside.sum())
    slots = np.maximum(np.append(inside, rest) + half >> (COUNT_BITS - SLOT_BITS), 1)
    slots[slots.argmax()] += (1 << SLOT_BITS) - slots.sum()
    return low + int(kept[0]), slots


CERTAIN = (0, np.array([(1 << SLOT_BITS) - 1, 1]))  # of columns that are all zeros


@functools.cache
def gaussians() -> SlotTables:
    """The tables of classes of rounded Gaussians."""
    tables.check_fingerprint()
    classes = range(1, WIDEST + 1)
    return SlotTables.of([CERTAIN, *(slot_counts(tables.gaussian_counts(k), -tables.limit(k)) for k in classes)])


@functools.cache
def supersets() -> SlotTables:
    """The tables of m where codes k = 2 m and k = 2 m + 1 have the class c: numbers 2 c and 2 c + 1."""
    cosets.check_fingerprint()
    counted = []
    for k in range(WIDEST + 2 * tables.CLASSES_PER_OCTAVE + 1):
        for parity in (0, 1):
            index = half_index(k, parity)
            counted.append(CERTAIN if k == parity == 0 else slot_counts(cosets.counts(index), -cosets.limit(index)))
    return SlotTables.of(counted)


def half_index(scale_class: int, parity: int) -> int:
    """The frozen table of m, or of what is left of it without its low bits: half a cell further on average.

    >>> half_index(25, 1), half_index(79, 1) == half_index(71, 0)
    (204, True)
    """
    low = int(low_bits(scale_class - tables.CLASSES_PER_OCTAVE))
    rest = max(scale_class, 1) - low * tables.CLASSES_PER_OCTAVE
    return int(coset_index(np.array([0 if low else parity]), 2, np.array([rest]))[0]) + 4 * (low > 0)


def low_bits(scale_class: Any) -> Any:
    """How many of the last bits are coded as they are.

    >>> low_bits(np.array([62, 63, 71]))
    array([0, 1, 2])
    """
    return np.maximum(-((WIDEST - np.asarray(scale_class)) // tables.CLASSES_PER_OCTAVE), 0)[()]


@functools.cache
def kinds_of_codes() -> np.ndarray:
    """Table and low bits of each scale class of codes."""
    k = np.arange(MOST + 1)
    low = low_bits(k)
    return (k - low * tables.CLASSES_PER_OCTAVE << SHIFT | low).astype(np.uint32)


@functools.cache
def kinds_of_supersets() -> np.ndarray:
    """Table of the even codes and low bits of each scale class of codes; that of the odd ones follows."""
    octave = tables.CLASSES_PER_OCTAVE
    k = np.arange(MOST + 1)
    low = low_bits(k - octave)
    table = np.where(low > 0, k - (low - 1) * octave, k)
    return (2 * table << SHIFT | low).astype(np.uint32)


def parity_kinds(classes: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Table and low bits of m, where codes are 2 m or 2 m + 1.

    >>> parity_kinds(np.array([25, 25]), np.array([4, -3])) >> SHIFT
    array([50, 51], dtype=uint32)
    """
    return kinds_of_supersets()[classes] + ((codes & 1) << SHIFT).astype(np.uint32)
