"""Nearest points of BW16: the search of `lattq.lattices.joins.round_bw16`, 16 vectors at a time."""

from typing import no_type_check  # a function wrapped for run-time checks would not compile

import numba
import numpy as np

from lattq.kernels.lanes import LANES, join, keep, spread

__all__ = ["nearest"]

_PATTERN = (0, 15, 10, 5, 12, 3, 6, 9)  # even words of four bits, in pairs of complements


@numba.njit(cache=True)
@no_type_check
def nearest(x, scale, largest, out):
    """Points nearest to x times scale, in integer coordinates, divided by scale; whether all values were in range."""
    kind = x.dtype
    fine = True
    leader, remainder = np.zeros((LANES, 16), np.int32), np.zeros((16, LANES), kind)
    errors, pairs, quarters = np.empty((64, LANES), kind), np.empty((64, LANES), kind), np.empty((64, LANES), kind)
    halves, cost, nothing = np.empty((64, LANES), kind), np.empty((64, LANES), kind), np.zeros((1, LANES), kind)
    best, index = np.empty(LANES, kind), np.empty(LANES, np.int32)
    for start in range(0, len(x), LANES):
        lanes = min(LANES, len(x) - start)
        for lane in range(lanes):
            fine &= _reduce(x[start + lane], scale, largest, leader[lane], remainder, lane)
        _quarters(remainder, errors, pairs, quarters)
        best[:] = np.inf
        index[:] = 0
        _words(quarters, halves, cost, nothing, best, index)
        for lane in range(lanes):
            _round(remainder, lane, index[lane], leader[lane], scale, out[start + lane])
    return fine


@numba.njit(cache=True)
@no_type_check
def _reduce(row, scale, largest, leader, remainder, lane):
    """Leader and remainder of a vector."""
    fine, total = True, 0
    for i in range(16):
        value = row[i] * scale
        fine &= abs(value) <= largest
        leader[i] = np.int32(np.floor(value))
    # The word that agrees with the parities on places 15, 14, 13, 11 and 7: slopes against the value at 15.
    last = leader[15] & 1
    slopes = (last ^ leader[14]) & 1, (last ^ leader[13]) & 1, (last ^ leader[11]) & 1, (last ^ leader[7]) & 1
    for i in range(16):
        turned = ~i
        word = last ^ (slopes[0] & turned) ^ (slopes[1] & (turned >> 1))
        word ^= (slopes[2] & (turned >> 2)) ^ (slopes[3] & (turned >> 3))
        leader[i] -= (leader[i] ^ word) & 1
        total += leader[i]
    leader[0] -= total & 2
    for i in range(16):
        remainder[i, lane] = row[i] * scale - leader[i]
    return fine


@numba.njit(cache=True)
@no_type_check
def _quarters(remainder, errors, pairs, quarters):
    """Tables of the even patterns of 4 coordinates, from those of one and of two."""
    kind = remainder.dtype
    two, residue = np.full((1, LANES), 2, kind), np.zeros((1, LANES), kind)
    for r in range(2):
        residue[:] = r
        for i in range(16):
            spread(remainder, i, residue, two, errors, 2 * i + r)
    for pair in range(8):
        for pattern in range(4):
            join(errors, 4 * pair + (pattern & 1), errors, 4 * pair + 2 + (pattern >> 1), pairs, 4 * pair + pattern)
    for quarter in range(4):
        for part in range(8):
            low = _PATTERN[part] & 3
            high = _PATTERN[part] >> 2
            join(pairs, 8 * quarter + low, pairs, 8 * quarter + 4 + high, quarters, 8 * quarter + part)


@numba.njit(cache=True)
@no_type_check
def _words(quarters, halves, cost, nothing, best, index):
    """The best of 32 words, in the order linear part, turn, sign of the first half, sign of the second."""
    for half in range(2):
        for part in range(4):
            for turn in range(2):
                for sign in range(2):
                    left, right = 16 * half + 2 * part + sign, 16 * half + 8 + 2 * part + (sign ^ turn)
                    join(quarters, left, quarters, right, halves, 16 * half + 4 * part + 2 * turn + sign)
    for word in range(32):
        both, one, other = word >> 2, (word >> 1) & 1, word & 1
        join(halves, 2 * both + one, halves, 16 + 2 * both + other, cost, word)
        keep(cost, 2 * word, nothing, 0, best, index, word)


@numba.njit(cache=True)
@no_type_check
def _round(remainder, lane, index, leader, scale, out):
    """Nearest point r + 2 k with the word r and an even sum of k, plus the leader."""
    kind = remainder.dtype
    one, half = kind.type(1), kind.type(0.5)
    pattern = _PATTERN[2 * (index >> 3)]
    turn, first, second = (index >> 2) & 1, (index >> 1) & 1, index & 1
    total, worst, place, way = 0, -one, 0, 0
    for i in range(16):
        sign = (second if i & 8 else first) ^ (turn if i & 4 else 0)
        r = ((pattern >> (i & 3)) & 1) ^ sign
        offset = remainder[i, lane] - r
        k = np.floor(offset * half + half)
        error = offset - 2 * k
        leader[i] += r + 2 * np.int32(k)
        total += np.int32(k)
        larger = abs(error) > worst
        worst = abs(error) if larger else worst
        place = i if larger else place
        way = (2 if error >= 0 else -2) if larger else way
    leader[place] += way if total & 1 else 0
    for i in range(16):
        out[i] = leader[i] / scale
