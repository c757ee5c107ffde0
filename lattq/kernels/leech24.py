"""Nearest points of the Leech lattice: the search of `lattq.lattices.joins.round_leech`, 16 vectors at a time.

Tables stand in the order of that function, ties go the same way. A part is 2 inner + parity of the sum of k.
"""

from typing import no_type_check  # a function wrapped for run-time checks would not compile

import numba
import numpy as np

from lattq.kernels.lanes import LANES, join, keep, least, spread

__all__ = ["OCTETS", "PLACES", "WORDS", "nearest"]

# Numbers whose bits are words: a generator of the words of even weight on 8 places, all of those by their index, and
# the systematic generator of the Golay code with its information positions.
_BASIS = (255, 23, 45, 89, 27, 53, 105)
OCTETS = np.array([np.bitwise_xor.reduce([n for j, n in enumerate(_BASIS) if i >> j & 1] or [0]) for i in range(128)])
PLACES = np.array([23, 22, 21, 20, 19, 18, 17, 15, 14, 13, 12, 7])
WORDS = np.array([8456733, 4263803, 2165814, 1115749, 592199, 329052, 197422, 35700, 20046, 11565, 5911, 255])


@numba.njit(cache=True)
@no_type_check
def nearest(x, scale, largest, out):
    """Points nearest to x times scale, in integer coordinates, divided by scale; whether all values were in range."""
    kind, fine = x.dtype, True
    leader, remainder = np.zeros((LANES, 24), np.int32), np.zeros((24, LANES), kind)
    quads, parts = np.empty((2 * 192, LANES), kind), np.empty((2 * 384, LANES), kind)
    sums, best, index = np.empty((2 * 128, LANES), kind), np.empty(LANES, kind), np.empty(LANES, np.int32)
    for start in range(0, len(x), LANES):
        lanes = min(LANES, len(x) - start)
        for lane in range(lanes):
            fine &= _reduce(x[start + lane], scale, largest, leader[lane], remainder, lane)
        best[:] = np.inf
        index[:] = 0
        for p in range(2):
            _quads(remainder, p, quads[192 * p : 192 * (p + 1)])
            _sections(quads[192 * p : 192 * (p + 1)], parts[384 * p : 384 * (p + 1)])
            _join_sections(p, parts[384 * p : 384 * (p + 1)], sums[128 * p : 128 * (p + 1)], best, index)
        for lane in range(lanes):
            p, word = _word(lane, index[lane], quads, parts, sums)
            _round(remainder, lane, p, word, leader[lane], scale, out[start + lane])
    return fine


@numba.njit(cache=True)
@no_type_check
def _reduce(row, scale, largest, leader, remainder, lane):
    """Leader and remainder of a vector."""
    fine, total, word = True, 0, 0
    for i in range(24):
        value = row[i] * scale
        fine &= abs(value) <= largest
        leader[i] = np.int32(np.floor(value))
    parity = leader[0] & 1
    for j in range(12):
        word ^= -(((leader[PLACES[j]] - parity) >> 1) & 1) & WORDS[j]
    for i in range(24):
        leader[i] -= (leader[i] - parity - 2 * ((word >> i) & 1)) & 3
        total += leader[i]
    leader[0] -= (total - 4 * parity) & 4
    for i in range(24):
        remainder[i, lane] = row[i] * scale - leader[i]
    return fine


@numba.njit(cache=True)
@no_type_check
def _quads(remainder, p, quads):
    """Tables of the 16 patterns of 4 coordinates, from those of one and of two."""
    kind = remainder.dtype
    four, residue = np.full((1, LANES), 4, kind), np.zeros((1, LANES), kind)
    errors, pairs = np.empty((96, LANES), kind), np.empty((96, LANES), kind)
    for c in range(2):
        residue[:] = p + 2 * c
        for i in range(24):
            spread(remainder, i, residue, four, errors, 2 * i + c)
    for pair in range(12):
        for pattern in range(4):
            join(errors, 4 * pair + (pattern & 1), errors, 4 * pair + 2 + (pattern >> 1), pairs, 4 * pair + pattern)
    for quad in range(6):
        for pattern in range(16):
            join(pairs, 8 * quad + (pattern & 3), pairs, 8 * quad + 4 + (pattern >> 2), quads, 16 * quad + pattern)


@numba.njit(cache=True)
@no_type_check
def _sections(quads, parts):
    """For each third of the coordinates and each word up to its complement the better of the two."""
    for section in range(3):
        first, last = 32 * section, 32 * section + 16
        for pair in range(64):
            word = OCTETS[2 * pair]
            low, high = word & 15, word >> 4
            join(quads, first + low, quads, last + high, parts, 64 * section + pair)
            least(quads, first + 15 - low, quads, last + 15 - high, parts, 64 * section + pair)


@numba.njit(cache=True)
@no_type_check
def _join_sections(p, parts, sums, best, index):
    """The best of all words with glue and parts of the first two thirds joined, then the last third."""
    sums[:] = np.inf
    for glue in range(8):
        for one in range(8):
            for other in range(8):
                least(parts, 8 * glue + one, parts, 64 + 8 * glue + other, sums, 8 * glue + (one ^ other))
        for joined in range(16):
            last = 2 * (128 + 8 * glue) + (joined ^ p)
            keep(sums, 16 * glue + joined, parts, last, best, index, 128 * p + 16 * glue + joined)


@numba.njit(cache=True)
@no_type_check
def _word(lane, index, quads, parts, sums):
    """Parity and Golay word behind the least cost."""
    p, glue, joined = index >> 7, (index >> 4) & 7, index & 15
    first = 384 * p + 16 * glue
    part = 0
    for one in range(16):  # the first; none where a value is not finite
        if parts[first + one, lane] + parts[first + 128 + (one ^ joined), lane] == sums[index, lane]:
            part = one
            break
    word = 0
    for section in range(3):
        chosen = part if section == 0 else (part ^ joined if section == 1 else joined ^ p)
        octet = OCTETS[16 * glue + 2 * (chosen >> 1)]
        low, high = 192 * p + 64 * section + 2 * (octet & 15), 192 * p + 64 * section + 32 + 2 * (octet >> 4)
        odd = chosen & 1
        cost = min(quads[low, lane] + quads[high + odd, lane], quads[low + 1, lane] + quads[high + 1 - odd, lane])
        if cost != parts[first + 128 * section + chosen, lane]:
            octet = 255 - octet
        word |= octet << (8 * section)
    return p, word


@numba.njit(cache=True)
@no_type_check
def _round(remainder, lane, p, word, leader, scale, out):
    """Nearest point p + 2 c + 4 k with the sum of k of the parity p, plus the leader."""
    kind = remainder.dtype
    half, quarter = kind.type(0.5), kind.type(0.25)
    total, worst, place, way = p, -half, 0, 0
    for i in range(24):
        r = p + 2 * ((word >> i) & 1)
        offset = remainder[i, lane] - kind.type(r)
        k = np.floor(offset * quarter + half)
        error = offset - 4 * k
        leader[i] += r + 4 * np.int32(k)
        total += np.int32(k)
        larger = abs(error) > worst
        worst = abs(error) if larger else worst
        place = i if larger else place
        way = (4 if error >= 0 else -4) if larger else way
    leader[place] += way if total & 1 else 0
    for i in range(24):
        out[i] = leader[i] / scale
