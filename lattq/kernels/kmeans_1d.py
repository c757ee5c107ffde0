"""Optimal cells of sorted numbers: dynamic programming over monotone minima.

With the best j' <= i numbers in t - 1 cells known, the best of the first j in t cells end their last cell's predecessor
at some i, and that i grows with j and with t. So a middle j is searched in full, and its i bounds the search on both
sides: k n log n steps. What is maximised is the sum over cells of (weighted sum)² / weight: total less squared error.
"""

from typing import no_type_check

import numba
import numpy as np

__all__ = ["count_patterns", "last_starts", "merge", "middle_start"]

compiled = numba.njit(cache=True, nogil=True, error_model="numpy")
# A maximum is the same in any order; these flags let LLVM take it over vectors.
scanning = numba.njit(cache=True, nogil=True, error_model="numpy", fastmath={"nnan", "nsz"})


@compiled
@no_type_check
def count_patterns(patterns, counts):
    """Add up how often each 16-bit pattern occurs."""
    for pattern in patterns:
        counts[pattern] += 1


@compiled
@no_type_check
def merge(values, weights, distinct, total):
    """Distinct ones of sorted `values` and their total weights; returns how many there are."""
    size = 0
    for i in range(len(values)):
        if i == 0 or values[i] != distinct[size - 1]:
            distinct[size], total[size] = values[i], 0.0
            size += 1
        total[size - 1] += weights[i]
    return size


@compiled
@no_type_check
def last_starts(weight, moment, gains, starts):
    """Fill `gains[t]` with the best gain of all numbers in t + 1 cells, and `starts[t, j]`, where the last cell begins.

    `weight` and `moment` are the sums of w and w x over the first j numbers, j from 0 to n; `weight` must grow;
    `starts` has n + 1 columns.
    """
    n = len(weight) - 1
    held, found = _one_cell(weight, moment), np.empty(n + 1)
    before, begins, room = np.zeros(n + 1, np.int64), np.zeros(n + 1, np.int64), np.empty(n + 1)
    gains[0] = held[n]
    starts[0] = 0
    for t in range(1, len(gains)):
        _layer(weight, moment, held, found, before, begins, room, t)
        held, found = found, held
        before, begins = begins, before
        gains[t] = held[n]
        for j in range(t + 1, n + 1):
            starts[t, j] = before[j]


@compiled
@no_type_check
def middle_start(weight, moment, size, half):
    """Where cell `half` of the best `size` cells begins, without a table."""
    n = len(weight) - 1
    held, found = _one_cell(weight, moment), np.empty(n + 1)
    before, begins, room = np.zeros(n + 1, np.int64), np.zeros(n + 1, np.int64), np.empty(n + 1)
    place, moved = np.arange(n + 1), np.arange(n + 1)
    for t in range(1, size):
        _layer(weight, moment, held, found, before, begins, room, t)
        held, found = found, held
        before, begins = begins, before
        if t >= half:
            for j in range(t + 1, n + 1):
                moved[j] = place[before[j]]
            place, moved = moved, place
    return place[n]


@compiled
@no_type_check
def _one_cell(weight, moment):
    """Gain of the first j numbers in one cell."""
    found = np.zeros(len(weight))
    for j in range(1, len(weight)):
        found[j] = moment[j] * moment[j] / weight[j]
    return found


@compiled
@no_type_check
def _layer(weight, moment, held, found, before, begins, room, t):
    """Best gains with t + 1 cells from those with t; middles first, then the middles of what is between."""
    n = len(weight) - 1
    step = 1
    while step <= n - t:
        step *= 2
    while step:
        for j in range(t + step, n + 1, 2 * step):
            low, high = max(before[j], t), j - 1
            if j - step > t:
                low = max(low, begins[j - step])
            if j + step <= n:
                high = min(high, begins[j + step])
            low = min(low, high)
            value = _largest(weight, moment, held, room, low, high + 1, weight[j], moment[j])
            best = low
            while room[best] != value:
                best += 1
            found[j], begins[j] = value, best
        step //= 2


@scanning
@no_type_check
def _largest(weight, moment, held, room, low, high, total, sum_):
    """Largest gain over the places where the last cell may begin; all gains are left in `room`."""
    w, m, h, r = weight[low:high], moment[low:high], held[low:high], room[low:high]
    best = -np.inf
    for i in range(len(w)):
        difference = sum_ - m[i]
        value = h[i] + difference * difference / (total - w[i])
        r[i] = value
        best = value if value > best else best
    return best
