"""The encoder of interleaved asymmetric numeral systems: what `lattq.kernels.rans` decodes, from the last symbol on."""

from typing import no_type_check  # functions wrapped for run-time checks would not compile

import numpy as np

from lattq.kernels.rans import LONGEST, LOW, MANY, ONE, WORD, ZERO, K, compiled
from lattq.kernels.rans_fronts import in_strip
from lattq.kernels.rans_vector import SLOT_BITS, sixteen_coded, sixteen_low_coded

__all__ = ["encode", "encode_columns", "encode_fronts"]

MOST_WORDS = 16  # of a symbol, and more


@compiled
@no_type_check
def encode(words, p, states, first, symbols, kinds, width, tables, starts):
    """Put integers, the first one number `first` of its stream, before the words from `p` on, in steps of `width`.

    `starts` are the first symbols of tables. Returns the words, which may be new ones, and where they begin.
    """
    p, entries = np.uint64(p), np.empty(width, dtype=np.uint32)
    for start in range((max(len(symbols), 1) - 1) // width * width, -1, -width):
        stop = min(start + width, len(symbols))
        step = symbols[start:stop], kinds[start:stop]
        words, p = _with_step(words, p, states, first + start, step[0], step[1], tables, starts, entries)
    return words, p


@compiled
@no_type_check
def encode_columns(codes, cuts, width, groups, grid, parity, tables, starts, columns, lanes, begin):
    """States and words of integers in some columns of a matrix, between rows `cuts`, `width` columns side by side.

    Row r and column j have the table and low bits ``grid[groups[r], j]``. If `parity` is 1, codes are twice the integer
    and a bit that says which of two tables is its own; else that is 0.
    """
    number = len(groups) * len(columns)
    words, p, states, entries = _begin(number, lanes, begin, width)
    symbols, kinds = np.empty(width, dtype=np.int64), np.empty(width, dtype=np.uint32)
    for cut in range(len(cuts) - 2, -1, -1):
        for left in range((len(columns) - 1) // width * width, -1, -width):
            across = min(width, len(columns) - left)
            for r in range(cuts[cut + 1] - 1, cuts[cut] - 1, -1):
                group = np.uint64(groups[r])
                for j in range(np.uint64(across)):
                    place = np.uint64(left) + j
                    code = np.int64(codes[np.uint64(r), np.uint64(columns[place])])
                    symbols[j] = code >> parity
                    kinds[j] = grid[group, place] + np.uint32((code & parity) << 5)
                number -= across
                some = symbols[:across], kinds[:across]
                words, p = _with_step(words, p, states, number, some[0], some[1], tables, starts, entries)
    return states, words[p:].copy()


@compiled
@no_type_check
def encode_fronts(codes, number, height, fronts, width, groups, grid, tables, starts, lanes, begin):
    """As `encode_columns`, of the `number` codes of neighbouring fronts, which have parities."""
    words, p, states, entries = _begin(number, lanes, begin, width)
    symbols, kinds = np.empty(width, dtype=np.int64), np.empty(width, dtype=np.uint32)
    strips = (fronts[1] - fronts[0] + width - 1) // width
    for strip in range(strips - 1, -1, -1):
        left = fronts[0] + strip * width
        across = min(width, fronts[1] - left)
        for r in range(len(groups) - 1, -1, -1):
            low, high = in_strip(r, height, codes.shape[1], left, across)
            if low >= high:
                continue
            column, group = np.uint64(left - r % height + low), np.uint64(groups[r])
            for j in range(np.uint64(high - low)):
                code = np.int64(codes[np.uint64(r), column + j])
                symbols[j] = code >> 1
                kinds[j] = grid[group, column + j] + np.uint32((code & 1) << 5)
            number -= high - low
            some = symbols[: high - low], kinds[: high - low]
            words, p = _with_step(words, p, states, number, some[0], some[1], tables, starts, entries)
    return states, words[p:].copy()


@compiled
@no_type_check
def _begin(number, lanes, begin, width):
    """Room for words, where they begin, states, and room for the entries of a step."""
    words = np.empty(number + MOST_WORDS * width, dtype=np.uint16)
    return words, np.uint64(len(words)), np.full(lanes, np.uint32(begin)), np.empty(width, dtype=np.uint32)


@compiled
@no_type_check
def _with_step(words, p, states, first, symbols, kinds, tables, starts, entries):
    """Put a step of symbols, the first one number `first`, before the words; returns these and where they begin."""
    _, all_entries, _, ends = tables
    size, mask, odd = np.uint64(len(symbols)), np.uint64(len(states) - 1), np.uint64(0)
    for i in range(size):
        kind = np.uint64(kinds[i])
        table, low_bits = kind >> np.uint64(5), kind & np.uint64(31)
        least, escape = np.int64(ends[table, 0]), np.uint64(ends[table, 1] - ends[table, 0] + 1)
        place = min(np.uint64((symbols[i] >> np.int64(low_bits)) - least), escape)  # what is below has a large one, too
        entries[i] = all_entries[np.uint64(starts[table]) + place]
        odd |= low_bits | np.uint64(place == escape)
    if p < MOST_WORDS * size:
        words = np.concatenate((np.empty(len(words), dtype=np.uint16), words))
        p += np.uint64(len(words) // 2)
    if odd:
        p = _with_rests(words, p, states, first, symbols, kinds, ends)
    i = size
    while i > ZERO:
        lane = (np.uint64(first) + i) & mask
        if lane & MANY == ZERO and mask >= MANY and i > MANY:
            i -= MANY + ONE
            p = sixteen_coded(words, p, states, (np.uint64(first) + i) & mask, entries, i)
            continue
        i -= ONE
        lane, f = (np.uint64(first) + i) & mask, np.uint64(entries[i]) >> WORD
        x, p = _room(np.uint64(states[lane]), words, p, f << np.uint64(32 - SLOT_BITS))
        states[lane] = (x // f << K) + x % f + (np.uint64(entries[i]) & LOW)
    return words, p


@compiled
@no_type_check
def _with_rests(words, p, states, first, symbols, kinds, ends):
    """What `_rest` finds, of the symbols of a step."""
    mask, i = np.uint64(len(states) - 1), np.uint64(len(symbols))
    while i > ZERO:
        whole = (np.uint64(first) + i) & mask & MANY == ZERO and mask >= MANY and i > MANY
        if whole and _only_low_bits(symbols, kinds, ends, i - MANY - ONE):
            i -= MANY + ONE
            p = sixteen_low_coded(words, p, states, (np.uint64(first) + i) & mask, kinds, i, symbols)
            continue
        i -= ONE
        lane, table = (np.uint64(first) + i) & mask, np.uint64(kinds[i]) >> np.uint64(5)
        least, most = np.int64(ends[table, 0]), np.int64(ends[table, 1])
        x, p = _with_rest(np.uint64(states[lane]), words, p, symbols[i], np.int64(kinds[i]) & 31, least, most)
        states[lane] = x
    return p


@compiled
@no_type_check
def _only_low_bits(symbols, kinds, ends, start):
    """Whether sixteen symbols have no more to them than a word of low bits each."""
    more = False
    for i in range(start, start + MANY + ONE):
        table, low_bits = np.uint64(kinds[i]) >> np.uint64(5), np.int64(kinds[i]) & 31
        m = symbols[i] >> low_bits
        more |= m < ends[table, 0] or m > ends[table, 1] or low_bits > 16
    return not more


@compiled
@no_type_check
def _with_rest(x, words, p, symbol, low_bits, least, most):
    """A state with what `_rest` finds."""
    if low_bits:
        last = max(low_bits - 16, 0)
        x, p = _with_bits(x, words, p, last, symbol)
        x, p = _with_bits(x, words, p, low_bits - last, symbol >> last)
    m = symbol >> low_bits
    if least <= m <= most:
        return x, p
    far, length = (least - m if m < least else m - most), 0
    while far >> length > 1:
        length += 1
    for place in range((length - 1) // 16 * 16, -1, -16):
        x, p = _with_bits(x, words, p, min(16, length - place), far >> place)
    for zeros in range(length + (length < LONGEST)):
        x, p = _with_bits(x, words, p, 1, zeros == 0 and length < LONGEST)
    return _with_bits(x, words, p, 1, m < least)


@compiled
@no_type_check
def _room(x, words, p, most):
    """A state below `most`, which gives a word away if it is not."""
    if x >= most:
        p -= ONE
        words[p] = x & LOW
        x >>= WORD
    return x, p


@compiled
@no_type_check
def _with_bits(x, words, p, size, bits):
    """A state with the last `size` bits of an integer as its own last."""
    x, p = _room(x, words, p, ONE << np.uint64(32 - size))
    return x << np.uint64(size) | np.uint64(bits & ((1 << size) - 1)), p
