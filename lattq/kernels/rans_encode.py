"""The encoder of interleaved asymmetric numeral systems: what `lattq.kernels.rans` decodes, from the last symbol on."""

from typing import no_type_check  # functions wrapped for run-time checks would not compile

import numpy as np

from lattq.kernels.rans import LONGEST, LOW, ONE, WORD, K, compiled
from lattq.kernels.rans_vector import SLOT_BITS

__all__ = ["encode"]


@compiled
@no_type_check
def encode(symbols, kinds, steps, tables, starts, lanes, begin):
    """States and words from which the decoders restore integers, in steps of so many; the last come first.

    `starts` are the first symbols of tables.
    """
    _, entries, _, ends = tables
    words = np.empty(len(symbols) + 1024, dtype=np.uint16)
    p, states = len(words), np.full(lanes, np.uint64(begin))
    stop = len(symbols)
    for step in range(len(steps) - 1, -1, -1):
        start = stop - steps[step]
        if p < 8 * steps[step]:
            words = np.concatenate((np.empty(len(words), dtype=np.uint16), words))
            p += len(words) // 2
        for i in range(stop - 1, start - 1, -1):
            least, most = ends[np.int64(kinds[i]) >> 5]
            x, p = _with_rest(states[i & (lanes - 1)], words, p, symbols[i], np.int64(kinds[i]) & 31, least, most)
            states[i & (lanes - 1)] = x
        for i in range(stop - 1, start - 1, -1):
            table, low_bits = np.int64(kinds[i]) >> 5, np.int64(kinds[i]) & 31
            m, least, most = symbols[i] >> low_bits, np.int64(ends[table, 0]), np.int64(ends[table, 1])
            s = starts[table] + (m - least if least <= m <= most else most - least + 1)
            f = np.uint64(entries[s]) >> WORD
            x, p = _room(states[i & (lanes - 1)], words, p, f << np.uint64(32 - SLOT_BITS))
            states[i & (lanes - 1)] = (x // f << K) + x % f + (np.uint64(entries[s]) & LOW)
        stop = start
    return states, words[p:].copy()


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
        p -= 1
        words[p] = x & LOW
        x >>= WORD
    return x, p


@compiled
@no_type_check
def _with_bits(x, words, p, size, bits):
    """A state with the last `size` bits of an integer as its own last."""
    x, p = _room(x, words, p, ONE << np.uint64(32 - size))
    return x << np.uint64(size) | np.uint64(bits & ((1 << size) - 1)), p
