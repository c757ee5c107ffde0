"""The Viterbi algorithm over trellis codes of Z / 4Z: many sequences side by side, or one at a time.

States that differ in the oldest bit lead to the two states that differ in the newest one. Of the four branches of such
a butterfly two carry a label L and two carry L + 2 mod 4, since the polynomial of z1 has both end taps and that of z0
has neither. `lattq.trellis.viterbi.best_path` is the plain form of the same search.
"""

import functools
from typing import no_type_check  # functions wrapped for run-time checks would not compile

import numba
import numpy as np

from lattq.kernels.butterflies import LANES, butterflies, butterfly
from lattq.kernels.distances import metrics

__all__ = ["nearest_codes", "resolution", "search", "searcher"]

FEW = 12  # sequences that are sooner searched one at a time
FEW_BITS = 4  # of the state, up to which whole words are sooner traced back than single lanes
FAR = 8192  # cost of starting elsewhere than in state 0


def nearest_codes(
    x: np.ndarray,
    lengths: np.ndarray,
    polynomials: tuple[int, int],
    odd: np.ndarray | None = None,
    weight: np.ndarray | None = None,
) -> np.ndarray:
    """Codes k of the cheapest sequences: the sum of weight (x - k)² + odd [k is odd] is least.

    Parameters
    ----------
    x : (sequences, longest), float32 or float64; what lies beyond a sequence's length is ignored
    lengths : of the sequences
    polynomials : h0 of z1 and h1 of z0, as in `TrellisCode`
    odd, weight : like `x`, float32; None for 0 and 1. Weights are at most 1

    Examples
    --------
    >>> nearest_codes(np.array([[0.2, 0.9, -1.2, 2.4]]), np.array([4]), (5, 2))
    array([[ 0,  2, -1,  3]], dtype=int32)
    """
    out = np.zeros(x.shape, dtype=np.int32)
    search(x, lengths, searcher(polynomials), odd, weight, out)
    return out


@functools.cache
def searcher(polynomials: tuple[int, int]) -> tuple:
    """What `search` needs of a code: polynomials, resolution, and labels in the form of each of its ways.

    >>> searcher((5, 2))[0]
    (5, 2)
    """
    first, scale = _labels(polynomials), np.array(resolution(polynomials), dtype=np.float32)
    odd_label, upper = _words(polynomials)
    return polynomials, scale, _phases(first), odd_label, upper, (first & 1) > 0, first > 1


@numba.njit(cache=True, nogil=True)
@no_type_check
def search(x, lengths, searcher, odd, weight, out):
    """Write the codes of the cheapest sequences, in the way that suits their number and that of the states."""
    polynomials, scale, phases, odd_words, upper_words, odd_label, upper = searcher
    if len(x) >= FEW:
        _side_by_side(x, lengths, phases, polynomials, scale, odd, weight, out)
    elif len(odd_label) >= LANES:
        _one_by_one(x, lengths, odd_words, upper_words, polynomials, scale, odd, weight, out)
    else:
        _plainly(x, lengths, odd_label, upper, polynomials, scale, odd, weight, out)


def resolution(polynomials: tuple[int, int]) -> tuple[int, int]:
    """Integers per unit of cost, and the largest cost of a branch; both forms search in 16 bits and agree exactly.

    After `memory` steps every state has a path from state 0. If that costs less than `FAR`, the costs of any two paths
    differ by less than 2^15, and their order is the sign of the difference modulo 2^16: nothing needs normalization.

    >>> resolution((0o625, 0o242))
    (256, 1023)
    """
    largest = (FAR - 1) // (polynomials[0].bit_length() - 1)
    return 1 << ((largest + 1) // 4).bit_length() - 1, largest


@functools.cache
def _labels(polynomials: tuple[int, int]) -> np.ndarray:
    """Label of the branch without input from each state whose oldest bit is 0."""
    state = 2 * np.arange(1 << (polynomials[0].bit_length() - 2))
    found = np.zeros(len(state), dtype=np.uint8)
    for weight, polynomial in zip((2, 1), polynomials, strict=True):
        for age in range(polynomial.bit_length()):
            found ^= (weight * (state >> age & polynomial >> age & 1)).astype(np.uint8)
    return found


@functools.cache
def _words(polynomials: tuple[int, int]) -> list[np.ndarray]:
    """The two bits of the labels, 32 states in a word; none where there are fewer."""
    first = _labels(polynomials)
    return [
        np.packbits(bits, bitorder="little")[: len(first) // LANES * 4].view("<u4") for bits in (first & 1, first >> 1)
    ]


def _phases(first: np.ndarray) -> np.ndarray:
    """Labels of the butterflies in the order of their addresses, for every place of the bit that changes.

    In place the register stands still: at phase b the oldest bit, at address bit b, is replaced by the newest.
    """
    half, memory = len(first), len(first).bit_length()
    label = np.empty((memory, half), dtype=np.uint8)
    for bit in range(memory):
        state = np.arange(half)  # its bit i lies at address bit (bit + 1 + i) mod memory
        address = np.zeros(half, dtype=np.int64)
        for i in range(memory - 1):
            address |= ((state >> i) & 1) << ((bit + 1 + i) % memory)
        label[bit] = first[np.argsort(address)]
    return label


@numba.njit(cache=True)
@no_type_check
def _side_by_side(x, lengths, label, polynomials, scale, odd, weight, out):
    """Search of `LANES` sequences at once, in place."""
    memory, half = label.shape
    length = x.shape[1]
    cost = np.empty((2 * half, LANES), dtype=np.int16)
    metric = np.empty((4, length * LANES), dtype=np.int16)
    survivors = np.empty(length * 2 * half, dtype=np.uint32)
    path = np.empty(length, dtype=np.uint32)
    for start in range(0, x.shape[0], LANES):
        metrics(x, lengths, start, LANES, scale, odd, weight, metric)
        cost[:] = FAR
        cost[0] = 0
        for t in range(length):
            bit = memory - 1 - t % memory
            mask = (1 << bit) - 1
            for pair in range(half):
                low, residue = ((pair & ~mask) << 1) | (pair & mask), np.int64(label[bit, pair])
                same, other = residue * length + t, (residue ^ 2) * length + t
                butterfly(cost, low, low | (1 << bit), metric, same, other, survivors, 2 * half * t)
        _trace(memory, cost, survivors, path)
        _codes(x, start, LANES, path, polynomials, out)


@numba.njit(cache=True)
@no_type_check
def _trace(memory, cost, survivors, path):
    """Input bits of the cheapest path of each lane, one word per step."""
    turn = -len(path) % memory  # the newest bit of the last state lies at address bit `turn`
    state = np.zeros(cost.shape[1], dtype=np.int64)
    for lane in range(cost.shape[1]):
        state[lane] = _cheapest(cost[:, lane], memory, turn)
    if memory <= FEW_BITS:
        _trace_words(memory, state, survivors, path)
        return
    for t in range(len(path) - 1, -1, -1):
        bit = memory - 1 - t % memory
        word = np.uint32(0)
        for lane in range(len(state)):
            newest = np.uint32(state[lane] >> bit) & np.uint32(1)
            oldest = np.uint32(survivors[(t << memory) + state[lane]] >> lane) & np.uint32(1)
            state[lane] ^= np.int64(newest ^ oldest) << bit
            word |= newest << np.uint32(lane)
        path[t] = word


@numba.njit(cache=True)
@no_type_check
def _cheapest(cost, memory, turn):
    """Address of the cheapest state, of equally cheap ones the lowest."""
    found = 0
    for i in range(len(cost)):
        address = ((i << turn) | (i >> (memory - turn))) & (len(cost) - 1)
        if np.int16(cost[address] - cost[found]) < 0:
            found = address
    return found


@numba.njit(cache=True)
@no_type_check
def _trace_words(memory, state, survivors, path):
    """For few states: a word for each bit of the state holds that bit of all lanes, and selects for all at once."""
    plane, chosen = np.zeros(memory, dtype=np.uint32), np.empty(1 << memory, dtype=np.uint32)
    for lane in range(len(state)):
        for bit in range(memory):
            plane[bit] |= np.uint32((state[lane] >> bit) & 1) << np.uint32(lane)
    for t in range(len(path) - 1, -1, -1):
        for i in range(1 << memory):
            chosen[i] = survivors[(t << memory) + i]
        for bit in range(memory):
            select = plane[bit]
            for i in range(1 << (memory - 1 - bit)):
                chosen[i] = (chosen[2 * i] & ~select) | (chosen[2 * i + 1] & select)
        bit = memory - 1 - t % memory
        path[t] = plane[bit]
        plane[bit] = chosen[0]


@numba.njit(cache=True)
@no_type_check
def _codes(x, start, lanes, path, polynomials, out):
    """Nearest integers of the residues on the path."""
    one, zero = _filtered(path, polynomials[0]), _filtered(path, polynomials[1])
    for lane in range(min(lanes, x.shape[0] - start)):
        row, found, shift = x[start + lane], out[start + lane], np.uint32(lane)
        for t in range(len(path)):
            residue = np.int32((zero[t] >> shift) & np.uint32(1)) + 2 * np.int32((one[t] >> shift) & np.uint32(1))
            found[t] = residue + np.int32(4 * np.rint((row[t] - residue) / 4))


@numba.njit(cache=True)
@no_type_check
def _filtered(path, polynomial):
    """h(D) u mod 2, of all lanes at once."""
    found = np.zeros(len(path), dtype=np.uint32)
    for age in range(16):
        if (polynomial >> age) & 1:
            for t in range(age, len(path)):
                found[t] ^= path[t - age]
    return found


@numba.njit(cache=True)
@no_type_check
def _one_by_one(x, lengths, odd_label, upper, polynomials, scale, odd, weight, out):
    """Search of two sequences after two, side by side over pairs of states, a multiple of `LANES`.

    Steps of one sequence wait for each other; those of the other fill the time.
    """
    chunks, half, longest = len(odd_label), LANES * len(odd_label), x.shape[1]
    metric = np.empty((2, 4, longest), dtype=np.int16)
    survivors = np.empty((2, longest, 2 * chunks), dtype=np.uint32)  # pairs' first states, then their second ones
    path = np.zeros((2, longest), dtype=np.uint32)
    cost, new = np.empty((2, 2 * half), dtype=np.int16), np.empty((2, 2 * half), dtype=np.int16)
    for row in range(0, x.shape[0], 2):
        other = min(row + 1, x.shape[0] - 1)
        metrics(x, lengths, row, 1, scale, odd, weight, metric[0])
        metrics(x, lengths, other, 1, scale, odd, weight, metric[1])
        cost[:] = FAR
        cost[:, 0] = 0
        both = min(lengths[row], lengths[other])
        a, b, c, d = cost[0], cost[1], new[0], new[1]
        for t in range(both):
            _advance(a, c, metric[0], odd_label, upper, survivors[0], t)
            _advance(b, d, metric[1], odd_label, upper, survivors[1], t)
            a, b, c, d = c, d, a, b
        for t in range(both, lengths[row]):
            _advance(a, c, metric[0], odd_label, upper, survivors[0], t)
            a, c = c, a
        for t in range(both, lengths[other]):
            _advance(b, d, metric[1], odd_label, upper, survivors[1], t)
            b, d = d, b
        one, two = _lowest(a), _lowest(b)
        one = _back(one, both, lengths[row], half, survivors[0], path[0])
        two = _back(two, both, lengths[other], half, survivors[1], path[1])
        for t in range(both - 1, -1, -1):
            one = _before(one, t, half, survivors[0], path[0])
            two = _before(two, t, half, survivors[1], path[1])
        _codes(x, row, 1, path[0], polynomials, out)
        _codes(x, other, 1, path[1], polynomials, out)


@numba.njit(cache=True)
@no_type_check
def _advance(cost, new, metric, odd_label, upper, survivors, t):
    """One step of all states."""
    chunks = len(odd_label)
    near, far = (metric[0, t], metric[1, t]), (metric[2, t], metric[3, t])
    for chunk in range(chunks):
        at = 2 * chunks * t
        butterflies(cost, chunk, chunks + chunk, near, far, odd_label, upper, chunk, new, survivors, at)


@numba.njit(cache=True)
@no_type_check
def _back(state, first, last, half, survivors, path):
    """The state at time `first` of the path that ends at time `last` in a state."""
    for t in range(last - 1, first - 1, -1):
        state = _before(state, t, half, survivors, path)
    return state


@numba.njit(cache=True)
@no_type_check
def _before(state, t, half, survivors, path):
    """The state before a step, whose input is noted."""
    path[t] = state & 1
    pair = state >> 1
    word = survivors[t, 2 * (pair // LANES) + (state & 1)]
    return pair + np.int64((word >> np.uint32(pair % LANES)) & np.uint32(1)) * half


@numba.njit(cache=True)
@no_type_check
def _plainly(x, lengths, odd_label, upper, polynomials, scale, odd, weight, out):
    """`_one_by_one` for states that fill no vector: a loop over pairs, with selects in place of gathers."""
    half, longest = len(odd_label), x.shape[1]
    metric = np.empty((4, longest), dtype=np.int16)
    survivors = np.empty((longest, 2 * half), dtype=np.bool_)
    path = np.zeros(longest, dtype=np.uint32)
    cost, new = np.empty(2 * half, dtype=np.int16), np.empty(2 * half, dtype=np.int16)
    for row in range(x.shape[0]):
        metrics(x, lengths, row, 1, scale, odd, weight, metric)
        cost[:] = FAR
        cost[0] = 0
        for t in range(lengths[row]):
            _step(cost, new, survivors[t], odd_label, upper, metric[0, t], metric[1, t], metric[2, t], metric[3, t])
            cost, new = new, cost
        state = _lowest(cost)
        for t in range(lengths[row] - 1, -1, -1):
            path[t] = state & 1
            state = (state >> 1) + np.int64(survivors[t, state]) * half
        _codes(x, row, 1, path, polynomials, out)


@numba.njit(cache=True)
@no_type_check
def _step(cost, new, survivors, odd, upper, d0, d1, d2, d3):
    """One step of one sequence."""
    half = len(odd)
    for i in range(half):
        low, high = cost[i], cost[i + half]
        near = d1 if odd[i] else d0
        far = d3 if odd[i] else d2
        same = far if upper[i] else near
        other = near if upper[i] else far
        a, b, c, d = np.int16(low + same), np.int16(high + other), np.int16(low + other), np.int16(high + same)
        first, second = np.int16(b - a) < 0, np.int16(d - c) < 0
        survivors[2 * i] = first
        survivors[2 * i + 1] = second
        new[2 * i] = b if first else a
        new[2 * i + 1] = d if second else c


@numba.njit(cache=True)
@no_type_check
def _lowest(cost):
    """The cheapest state, of equally cheap ones the lowest."""
    found = 0
    for i in range(len(cost)):
        if np.int16(cost[i] - cost[found]) < 0:
            found = i
    return found
