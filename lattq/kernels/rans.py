"""Interleaved asymmetric numeral systems: many states, one stream of 16-bit words, tables of 2^13 slots.

A state x of 32 bits holds symbols as the last digits of a number in mixed bases. To decode one, the last 13 bits name a
slot, the slot a symbol of f slots of which this is number b, and x becomes f (x >> 13) + b; below 2^16 it takes a word.
Symbol number i belongs to state i mod the number of states, so that the processor works on many at once.

Integers of these functions are unsigned where they index arrays: Numba would look for negative ones.
"""

from typing import no_type_check  # functions wrapped for run-time checks would not compile

import numba
import numpy as np

from lattq.kernels.narrow import put
from lattq.kernels.rans_vector import LANES, ODD, SLOT_BITS, sixteen, sixteen_low

__all__ = [
    "ESCAPE",
    "FULL",
    "ONE",
    "SLOT_BITS",
    "TILE",
    "ZERO",
    "compiled",
    "decode_columns",
    "decode_plain",
    "decode_tile",
    "extremes",
    "write_tile",
]

FULL = 1 << 16  # where the states of a stream with several begin; a single one begins at 1
ESCAPE = -(1 << 15)  # stands for what no slot does
TILE = 1 << 10  # symbols that are decoded before they are written

K, SLOTS, WORD, OPEN = np.uint64(SLOT_BITS), np.uint64((1 << SLOT_BITS) - 1), np.uint64(16), np.uint64(FULL)
LONGEST = np.uint64(59)  # bits after the first of a distance beyond a table
MANY, IS_ODD = np.uint64(LANES - 1), np.uint64(ODD)
LOW, ONE, ZERO, FIVE = np.uint64(0xFFFF), np.uint64(1), np.uint64(0), np.uint64(5)

compiled = numba.njit(cache=True, nogil=True)


@compiled
@no_type_check
def _bits(x, words, p, size):
    """The last bits of a state, up to 16; with the state and the place of the next word."""
    bits = x & ((ONE << size) - ONE)
    x >>= size
    if x < OPEN and p < np.uint64(len(words)):
        return bits, (x << WORD) | np.uint64(words[p]), p + ONE
    return bits, x, p


@compiled
@no_type_check
def _escaped(x, words, p, low, high):
    """An integer beyond `low` ... `high`: a sign, and the distance in Elias' gamma code."""
    below, x, p = _bits(x, words, p, ONE)
    length, part = ZERO, ZERO
    while length < LONGEST:
        part, x, p = _bits(x, words, p, ONE)
        if part:
            break
        length += ONE
    far, place = ONE << length, ZERO
    while place < length:
        size = min(WORD, length - place)
        part, x, p = _bits(x, words, p, size)
        far |= part << place
        place += size
    return (low - np.int64(far) if below else high + np.int64(far)), x, p


@compiled
@no_type_check
def _step(words, p, states, first, kinds, start, stop, slots, entries, values, found):
    """What tables hold of the symbols `start` to `stop`; whether any has more to it, and where the words go on."""
    mask, end, odd = np.uint64(len(states) - 1), np.uint64(len(words)), False
    i = start
    while i < stop:
        lane = (first + i) & mask
        if lane & MANY == ZERO and mask >= MANY and i + MANY < stop and p + MANY < end:
            p = sixteen(words, p, states, lane, kinds, i, slots, entries, values, found)
            odd |= p >= IS_ODD
            p &= ~IS_ODD
            i += MANY + ONE
            continue
        kind, x = np.uint64(kinds[i]), np.uint64(states[lane])
        slot = x & SLOTS
        s = np.uint64(slots[(kind >> FIVE) << K | slot])
        entry = np.uint64(entries[s])
        x = (entry >> WORD) * (x >> K) + slot - (entry & LOW)
        if x < OPEN and p < end:
            x = (x << WORD) | np.uint64(words[p])
            p += ONE
        states[lane] = x
        found[i] = values[s]
        odd |= values[s] == ESCAPE or (kind & np.uint64(31)) != ZERO
        i += ONE
    return odd, p


@compiled
@no_type_check
def _rest(words, p, states, first, kinds, start, stop, ends, found):
    """Escapes and low bits of the symbols of a step, one after the other; returns where the words go on."""
    mask, i = np.uint64(len(states) - 1), start
    while i < stop:
        kind, lane = np.uint64(kinds[i]), (first + i) & mask
        many = lane & MANY == ZERO and mask >= MANY and i + MANY < stop and p + MANY < np.uint64(len(words))
        if many and _only_low_bits(kinds, found, i):
            p = sixteen_low(words, p, states, lane, kinds, i, found)
            i += MANY + ONE
            continue
        x, m, low_bits = np.uint64(states[lane]), found[i], kind & np.uint64(31)
        if m == ESCAPE:
            m, x, p = _escaped(x, words, p, np.int64(ends[kind >> FIVE, 0]), np.int64(ends[kind >> FIVE, 1]))
        for size in (min(low_bits, WORD), low_bits - min(low_bits, WORD)):
            bits, x, p = _bits(x, words, p, size)
            m = m << np.int64(size) | np.int64(bits)
        states[lane], found[i] = x, m
        i += ONE
    return p


@compiled
@no_type_check
def _only_low_bits(kinds, found, i):
    """Whether sixteen symbols have no more to them than a word of low bits each."""
    more = False
    for j in range(i, i + MANY + ONE):
        more |= found[j] == ESCAPE or (kinds[j] & 31) > 16
    return not more


@compiled
@no_type_check
def decode_tile(words, p, states, first, kinds, size, width, labels, path, slots, entries, values, ends, found):
    """Integers of `size` kinds, symbols `first`, `first` + 1 ..., into `found`; returns where the words go on.

    Rows of `width` are steps of as many sequences, whose trellis states are `path`; one label is no trellis.
    Kinds of trellises become those of the supersets.
    """
    last, first = np.uint64(len(labels) - 1), np.uint64(first)
    for row in range(ZERO, np.uint64(size), np.uint64(width)):
        stop = row + np.uint64(width)
        if last:
            for j in range(np.uint64(width)):
                kinds[row + j] += np.uint32(labels[path[j]] & 1) << np.uint32(5)
        odd, p = _step(words, p, states, first, kinds, row, stop, slots, entries, values, found)
        if odd:
            p = _rest(words, p, states, first, kinds, row, stop, ends, found)
        if last:
            for j in range(np.uint64(width)):
                label, m = np.uint64(labels[path[j]]), found[row + j]
                path[j] = (path[j] << ONE | (np.uint64(m) ^ label >> ONE) & ONE) & last
                found[row + j] = m << np.int64(1) | np.int64(label & ONE)
    return p


@compiled
@no_type_check
def decode_plain(words, p, states, first, kinds, width, tables, found):
    """Integers whose tables are known, number `first` of their stream and those after it, in steps of `width`.

    Returns where the words go on.
    """
    labels, path, p = np.zeros(1, dtype=np.uint8), np.zeros(1, dtype=np.uint64), np.uint64(p)
    for start in range(0, len(kinds), width):
        some = min(width, len(kinds) - start)
        where = first + start, kinds[start:], found[start:]
        p = decode_tile(words, p, states, where[0], where[1], some, some, labels, path, *tables, where[2])
    return p


@compiled
@no_type_check
def write_tile(found, top, rows, fronts, height, scaling, out):
    """Integers of rows as they are, or what they decode to by the operations of `Scaling`, in their order.

    They belong to the same fronts in every row, of which those of groups of one row are columns. What `out` may hold
    is said in `lattq.kernels.narrow`.
    """
    plain, shifts, zero, step, column_gains, row_gains, divisors, row_divisors = scaling
    across, middle, i = np.uint64(len(fronts)), len(shifts) // 2, ZERO
    for r in range(np.uint64(top), np.uint64(top + rows)):
        gain, shift = row_gains[r] if len(row_gains) else 1.0, r % np.uint64(height)
        for j in range(across):
            k, c = found[i + j], np.uint64(fronts[j]) - shift
            if plain:
                out[r, c] = k
                continue
            x = np.float64(k)
            if len(shifts) and -middle <= k <= middle:
                x += shifts[np.uint64(k + middle)]
            x = (x - zero) * step
            if len(column_gains):
                x *= column_gains[c]
            x *= gain
            if len(divisors):
                x /= divisors[c]
            if len(row_divisors):
                x /= row_divisors[r]
            put(out, r, c, x)
        i += across


@compiled
@no_type_check
def extremes(found, size):
    """Least and largest of integers."""
    least, most = found[0], found[0]
    for i in range(np.uint64(size)):
        least, most = min(least, found[i]), max(most, found[i])
    return least, most


@compiled
@no_type_check
def decode_columns(words, states, cuts, width, groups, grid, labels, tables, columns, scaling, out):
    """Columns of integers between rows `cuts`, `width` columns side by side.

    Row r and column j have the table and low bits ``grid[groups[r], j]``, and go to column ``columns[j]`` of `out`.
    `scaling` is whether they go there as they are, and else what they decode to. Returns how many words they took, and
    the least and the largest integer.
    """
    slots, entries, values, ends = tables
    kinds, found = np.empty(TILE, dtype=np.uint32), np.empty(TILE, dtype=np.int64)
    path, p, first, least, most = np.empty(width, dtype=np.uint64), ZERO, 0, 0, 0
    for cut in range(len(cuts) - 1):
        for left in range(0, grid.shape[1], width):
            across = min(width, grid.shape[1] - left)
            places = columns[left : left + across]
            path[:] = ZERO
            for top in range(cuts[cut], cuts[cut + 1], TILE // width):
                rows = min(TILE // width, cuts[cut + 1] - top)
                i = ZERO
                for r in range(np.uint64(top), np.uint64(top + rows)):
                    for j in range(np.uint64(left), np.uint64(left + across)):
                        kinds[i] = grid[np.uint64(groups[r]), j]
                        i += ONE
                p = decode_tile(
                    words, p, states, first, kinds, i, across, labels, path, slots, entries, values, ends, found
                )
                first += rows * across
                low, high = extremes(found, i)
                least, most = min(least, low), max(most, high)
                write_tile(found, top, rows, places, 1, scaling, out)
    return p, least, most
