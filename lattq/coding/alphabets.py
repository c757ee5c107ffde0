"""Tables of slots for symbols of other kinds: equally likely ones, histograms, and bits of a known chance.

All of them follow from integers by integer arithmetic, the same on every machine.
"""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int, UInt

from lattq.coding.interleaved import Part, Reader
from lattq.coding.slots import SHIFT, SLOT_BITS, SlotTables
from lattq.errors import DamagedFileError

__all__ = ["Histogram", "bit_kinds", "bits", "distributions", "equals", "shares"]

SLOTS = 1 << SLOT_BITS
MOST_EQUAL = 9  # bits of equally likely symbols that a table holds; others are coded as they are
MOST_COUNTED = 11  # bits of symbols with a histogram: then those rarer than a slot are a quarter at most
MOST_CHANCE = 64  # chances are i² of 2^13 slots, or what is left of them
BIT_BITS = 16  # of a chance that is given


def shares(counts: Int[np.ndarray, " symbols"]) -> Int[np.ndarray, " symbols"]:
    """2^13 slots in proportion to counts: whole ones, one at least where a count is not 0, then by largest remainder.

    Of equal remainders the first comes first. What rare symbols take beyond, the first of those with the most gives.

    >>> shares(np.array([1, 2, 0, 3])), shares(np.array([1, 10**9]))
    (array([1365, 2731,    0, 4096]), array([   1, 8191]))
    """
    counts = counts.astype(np.int64)
    whole, rest = np.divmod(counts << SLOT_BITS, counts.sum())
    found = np.where(counts > 0, np.maximum(whole, 1), 0)
    left = SLOTS - int(found.sum())
    if left > 0:
        found[np.argsort(-np.where(whole == found, rest, -1), kind="stable")[:left]] += 1
    elif left < 0:
        found[found.argmax()] += left
    return found


def _table(counts: np.ndarray) -> tuple[int, np.ndarray]:
    """Symbols 0, 1 ... without an escape."""
    return 0, np.append(shares(counts), 0)


@functools.cache
def equals(sizes: tuple[int, ...]) -> tuple[SlotTables, UInt[np.ndarray, " sizes"]]:
    """Tables of integers below each of some sizes, 2 or more, which are equally likely; and their kinds.

    Of more than 512 the low bits are coded as they are: then a decoder has to see that they are below their size.

    >>> tables, kinds = equals((2, 2576))
    >>> kinds.tolist(), tables.ends.tolist()
    ([0, 35], [[0, 1], [0, 321]])
    """
    low = [max((size - 1).bit_length() - MOST_EQUAL, 0) for size in sizes]
    counted = []
    for size, bits_below in zip(sizes, low, strict=True):
        whole, rest = divmod(size, 1 << bits_below)
        counted.append(_table(np.array([1 << bits_below] * whole + [rest] * (rest > 0))))
    return SlotTables.of(counted), (np.arange(len(sizes)) << SHIFT | np.array(low)).astype(np.uint32)


def distributions(counts: Int[np.ndarray, "tables symbols"]) -> SlotTables:
    """Tables of symbols 0, 1 ... with these counts, at least two of them not 0; few symbols.

    >>> distributions(np.array([[1, 3]])).entries >> 16
    array([2048, 6144], dtype=uint32)
    """
    return SlotTables.of([_table(one) for one in counts])


@functools.cache
def bits() -> SlotTables:
    """Tables of a bit that is 1 in i² slots, i = 1 ... 64, or 0 in i² slots, i = 63 ... 1.

    Square roots of chances are evenly spaced, so that no chance is far: the nearest costs 1.8e-4 bit at most.
    """
    ones = np.square(np.arange(1, MOST_CHANCE + 1))
    ones = np.append(ones, SLOTS - ones[-2::-1])
    return SlotTables.of([(0, np.array([SLOTS - one, one, 0])) for one in ones])


def bit_kinds(chance: Int[np.ndarray, "*shape"]) -> UInt[np.ndarray, "*shape"]:
    """The nearest of the tables of `bits`, by the square root, for chances of 1 out of 2^16.

    >>> bit_kinds(np.array([1, 32768, 65535])) >> SHIFT
    array([  0,  63, 126], dtype=uint32)
    """
    i = np.arange(1, MOST_CHANCE)
    bounds = 8 * i * i + 8 * i + 2  # 2^16 (i + 1/2)² / 2^13
    table = np.searchsorted(bounds, np.minimum(chance, (1 << BIT_BITS) - chance), side="right")
    table = np.where(2 * chance > 1 << BIT_BITS, 2 * MOST_CHANCE - 2 - table, table)
    return (table << SHIFT).astype(np.uint32)


@dataclasses.dataclass(frozen=True, eq=False)
class Histogram:
    """Tables of the integers 0, 1 ... that occur so often, two of them or more.

    Of those that occur, in their order, the low bits are coded as they are where there are more than 2048. A table
    holds those that have a slot or more, and one symbol for all others, which stand in the next table by themselves.

    Attributes
    ----------
    ranks : number of each integer among those that occur
    low : bits that are coded as they are
    tables : one behind the other; the last symbol of each but the last stands for the next table
    members : what they hold, in order

    Examples
    --------
    >>> histogram = Histogram.of(np.array([5, 0, 90000, 3, 1]))
    >>> [one.tolist() for one in histogram.members], (histogram.tables[0].entries >> 16).tolist()
    ([[1], [0, 2, 3]], [8191, 1])
    """

    ranks: Int[np.ndarray, " integers"]
    low: int
    tables: Sequence[SlotTables]
    members: Sequence[Int[np.ndarray, " some"]]

    @staticmethod
    def of(counts: Int[np.ndarray, " integers"]) -> "Histogram":
        """From how often each occurs."""
        occurs = counts > 0
        ranks, some = np.cumsum(occurs) - 1, counts[occurs].astype(np.int64)
        low = max((len(some) - 1).bit_length() - MOST_COUNTED, 0)
        cells = np.add.reduceat(some, np.arange(0, len(some), 1 << low))
        left, tables, members = np.arange(len(cells)), [], []
        while len(left) > 1 or not members:
            total = int(cells[left].sum())
            held = cells[left] << SLOT_BITS >= total
            rare = left[~held]
            own = np.append(cells[left[held]], cells[rare].sum()) if len(rare) else cells[left]
            tables.append(distributions(own[None]))
            members.append(left[held])
            left = rare
        if len(left):
            members.append(left)  # a single one needs no table
        return Histogram(ranks, low, tables, members)

    def parts(self, integers: Int[np.ndarray, " n"]) -> list[Part]:
        """What `encode_parts` codes."""
        ranks = self.ranks[integers]
        parts, cells = [], ranks >> self.low
        for table, members in zip(self.tables, self.members, strict=False):
            place = np.full(len(self.ranks), len(members))
            place[members] = np.arange(len(members))
            symbols = place[cells]
            parts.append((symbols, np.zeros(len(symbols), dtype=np.uint32), table))
            cells = cells[symbols == len(members)]
        if self.low:
            tables, kinds = equals((1 << self.low,))
            parts.append((ranks & (1 << self.low) - 1, np.full(len(ranks), kinds[0]), tables))
        return parts

    def take(self, reader: Reader, number: int) -> Int[np.ndarray, " n"]:
        """Inverse of `parts`, of so many integers."""
        cells, left = np.empty(0, dtype=np.int64), np.arange(number)
        for level, table in enumerate(self.tables):
            symbols = reader.take(np.zeros(len(left), dtype=np.uint32), table)
            found = np.append(self.members[level], -1)[symbols]
            if level:
                cells[left] = found
                left = left[found < 0]
            else:
                cells, left = found, np.flatnonzero(found < 0)
        if len(self.members) > len(self.tables):
            cells[left] = self.members[-1][0]
        if self.low:
            tables, kinds = equals((1 << self.low,))
            cells = cells << self.low | reader.take(np.full(number, kinds[0]), tables)
        occurring = np.flatnonzero(np.diff(self.ranks, prepend=-1))
        if number and cells.max() >= len(occurring):
            msg = f"symbol {cells.max()} of a histogram of {len(occurring)}; the file is damaged"
            raise DamagedFileError(msg)
        return occurring[cells]
