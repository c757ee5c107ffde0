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
    "LARGEST_CLASS",
    "SHIFT",
    "SLOT_BITS",
    "SlotTables",
    "coset_table",
    "cosets_of",
    "gaussians",
    "kinds_of_codes",
    "kinds_of_cosets",
    "parity_kinds",
    "residue_kinds",
    "slot_counts",
]

SLOT_BITS = 13
ESCAPE = -(1 << 15)
COUNT_BITS = 24  # of the frozen tables
SHIFT = 5  # bits of a kind that say how many low bits there are
LARGEST_CLASS = MOST
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
        """From the least integer and the slots of its symbols, the escape last, of each table; it may have none."""
        sizes = np.array([len(counts) - (counts[-1] == 0) for _, counts in counted])
        values = np.concatenate([np.append(low + np.arange(len(counts) - 1), ESCAPE) for low, counts in counted])
        counts = np.concatenate([counts for _, counts in counted])
        kept = (values != ESCAPE) | (counts > 0)
        values, counts = values[kept], counts[kept]
        first = np.cumsum(counts) - counts & (1 << SLOT_BITS) - 1
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
def cosets_of(modulus: int) -> SlotTables:
    """The tables of m where codes are r + `modulus` m: one for each scale class and each r up to half the modulus.

    >>> len(cosets_of(1).starts), len(cosets_of(8).starts)
    (71, 475)
    """
    cosets.check_fingerprint()
    octaves, folded = modulus.bit_length() - 1, modulus // 2 + 1
    counted = []
    for k in range(WIDEST + (octaves + 1) * tables.CLASSES_PER_OCTAVE + 1):
        for residue in range(folded):
            index = coset_table(k, residue, modulus)
            counted.append(CERTAIN if k == residue == 0 else slot_counts(cosets.counts(index), -cosets.limit(index)))
    return SlotTables.of(counted)


def coset_table(scale_class: int, residue: int, modulus: int) -> int:
    """The frozen table of m, or of what is left of it without its low bits: half a cell further on average.

    >>> coset_table(25, 1, 2), coset_table(79, 1, 2) == coset_table(71, 0, 2)
    (204, True)
    """
    low = int(low_bits(scale_class - tables.CLASSES_PER_OCTAVE * (modulus.bit_length() - 1)))
    rest = max(scale_class, 1) - low * tables.CLASSES_PER_OCTAVE
    return int(coset_index(np.array([0 if low else residue]), modulus, np.array([rest]))[0]) + 4 * (low > 0)


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
def kinds_of_cosets(modulus: int) -> np.ndarray:
    """Table and low bits of m for each scale class of codes with residue 0; those of 1, 2 ... follow in order."""
    octaves, octave = modulus.bit_length() - 1, tables.CLASSES_PER_OCTAVE
    k = np.arange(MOST + 1)
    low = low_bits(k - octave * octaves)
    table = np.where(low > 0, k - (low - 1) * octave, k)
    return ((modulus // 2 + 1) * table << SHIFT | low).astype(np.uint32)


def parity_kinds(classes: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Table and low bits of m, where codes are 2 m or 2 m + 1.

    >>> parity_kinds(np.array([25, 25]), np.array([4, -3])) >> SHIFT
    array([50, 51], dtype=uint32)
    """
    return kinds_of_cosets(2)[classes] + ((codes & 1) << SHIFT).astype(np.uint32)


def residue_kinds(classes: np.ndarray, residues: np.ndarray, modulus: int) -> np.ndarray:
    """Table and low bits of m, where codes are r + `modulus` m, or the negatives of those with r beyond its half.

    >>> residue_kinds(np.array([25, 25]), np.array([1, 3]), 4) >> SHIFT
    array([76, 76], dtype=uint32)
    """
    folded = np.minimum(residues, modulus - residues)
    return kinds_of_cosets(modulus)[classes] + (folded << SHIFT).astype(np.uint32)
