"""The Viterbi algorithm on a bitshift register, side by side over the states.

A register of L bits that takes in k bits at a time has 2^L states s = g 2^k + b: the newest k bits b after a past g of
L - k bits. Where a path stands next depends on the last L - k bits of s alone, so the search keeps one cost for each of
the 2^(L-k) pasts. It keeps them for all times: to find a path again costs 2^k sums at each time, and no survivors have
to be written.
"""

from typing import no_type_check

import numba
import numpy as np

__all__ = ["best_states"]

compiled = numba.njit(
    cache=True, nogil=True, error_model="numpy"
)  # what it compiles, the checks of tests must not wrap


def best_states(x: np.ndarray, values: np.ndarray, bits: int, ends: np.ndarray | None = None) -> np.ndarray:
    """As `lattq.trellis.bitshift.best_states`, in float32, for registers of at least two symbols.

    Examples
    --------
    >>> best_states(np.array([[0.9, -1.8]]), np.array([-2.0, -1.0, 1.0, 2.0]), 1)
    array([[2, 0]], dtype=int32)
    """
    fan, found = 1 << bits, np.empty(x.shape, dtype=np.int32)
    table = np.ascontiguousarray(values.reshape(-1, fan).T, dtype=np.float32)
    pasts = np.full(len(x), -1) if ends is None else np.asarray(ends)
    _search(np.asarray(x, dtype=np.float32), table, pasts.astype(np.int64), found)
    return found


@compiled
@no_type_check
def _search(x, table, ends, found):
    """Best states of each sequence: from the past `ends` to the same, or from any to any where that is negative."""
    pasts = table.shape[1]
    cost = np.empty((x.shape[1] + 1, pasts), dtype=np.float32)
    room = np.empty(pasts, dtype=np.float32)
    for row in range(x.shape[0]):
        end = ends[row]
        cost[0] = 0.0 if end < 0 else np.inf
        cost[0, max(end, 0)] = 0.0
        for t in range(x.shape[1]):
            _step(x[row, t], cost[t], table, room, cost[t + 1])
        _trace(x[row], cost, table, np.int64(cost[-1].argmin()) if end < 0 else end, found[row])


@compiled
@no_type_check
def _step(x, cost, table, room, new):
    """Costs of the pasts after one more value; states with equal last L - k bits are `part` pasts apart."""
    fan = table.shape[0]
    part = len(cost) // fan
    room[:] = np.inf
    for b in range(fan):
        best, value = room[b * part : (b + 1) * part], table[b]
        for low in range(0, len(cost), 2 * part):
            high, end = low + part, low + 2 * part
            _relax(x, cost[low:high], cost[high:end], value[low:high], value[high:end], best)
    for h in range(part):
        for b in range(fan):
            new[h * fan + b] = room[b * part + h]


@compiled
@no_type_check
def _relax(x, low, high, value_low, value_high, best):
    """Two of the ways into each state; a function of few arrays, so that LLVM checks for overlaps and vectorises."""
    for h in range(len(best)):
        d, e = x - value_low[h], x - value_high[h]
        one, other = low[h] + d * d, high[h] + e * e
        least = one if one < other else other
        best[h] = least if least < best[h] else best[h]


@compiled
@no_type_check
def _trace(x, cost, table, end, found):
    """States of the cheapest path that ends in the past `end`: of equally cheap ones the lowest."""
    fan, pasts = table.shape
    part = pasts // fan
    past = end
    for t in range(len(x) - 1, -1, -1):
        b, h = past % fan, past // fan
        least, which = np.float32(np.inf), 0
        for j in range(fan):
            d = x[t] - table[b, j * part + h]
            total = cost[t, j * part + h] + d * d
            if total < least:
                least, which = total, j
        found[t] = which * pasts + past
        past = which * part + h
