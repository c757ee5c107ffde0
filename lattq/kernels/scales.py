"""Scales of least squared error, exactly: a sweep over the scales at which a number changes its code.

With the codes fixed the squared error is a parabola in the scale, and a code changes where its number is the scale
times an edge, the middle between two values. A sweep through these places, from large scales to small ones, keeps the
two sums that the parabola needs (theory 10.1).

The values come as ladders: from the one that is nearest to 0 outwards, for numbers above 0 in row 0 and, with the sign
turned, for those below in row 1.
"""

from typing import no_type_check

import numba
import numpy as np

__all__ = ["best_of", "least_error"]

compiled = numba.njit(cache=True, nogil=True, error_model="numpy")
SHRINK = 0.8  # of scales at which the error of what is cut is compared with that of another scale
WINDOW = 1 << 22  # places that are sorted at once, about


@compiled
@no_type_check
def least_error(x, weight, ladders, sizes, doubled, start, scale, error, grid):
    """Fill `scale`, `error` and `grid` with the scale of least squared error of each row of `x`, and where it is.

    Grids, (grids, 2, values), are tried from `start` on in both directions as long as they get better. `weight` has one
    row for all, or one each. `sizes` are those of the ladders, `doubled` how many of their first values have their
    double among the values. Rows without a scale above 0 keep what is in `scale`.
    """
    edges = (ladders[..., 1:] + ladders[..., :-1]) / 2
    n = x.shape[1]
    windows, codes = 1 + n * edges.shape[2] // WINDOW, np.empty(n, np.int32)
    places, order = np.empty((3, 4 * n)), np.empty(4 * n, np.int64)
    for row in range(len(x)):
        numbers, w, first = x[row], weight[min(row, len(weight) - 1)], start[row]
        error[row], grid[row] = np.inf, first
        for direction in (-1, 1):
            g = first if direction < 0 else first + 1
            while 0 <= g < len(ladders):
                low, high = _range(numbers, w, ladders[g], edges[g], sizes[g], doubled[g], error[row])
                if low > high:
                    break
                power, moment, square = _sums(numbers, w, ladders[g], edges[g], sizes[g], high, codes)
                gain, best = (moment * moment / square, moment / square) if moment > 0 else (0.0, 0.0)
                for window in range(windows):
                    last = low if window + 1 == windows else high * (low / high) ** ((window + 1) / windows)
                    places, count = _collect(numbers, w, ladders[g], edges[g], sizes[g], last, codes, places)
                    if count > len(order):
                        order = np.empty(places.shape[1], np.int64)
                    _sort(places[0, :count], order)
                    for k in order[:count]:
                        moment += places[1, k]
                        square += places[2, k]
                        if moment * moment > gain * square and moment > 0:
                            gain, best = moment * moment / square, moment / square
                if not max(power - gain, 0.0) < error[row]:
                    break
                error[row], grid[row] = max(power - gain, 0.0), g
                scale[row] = best if best > 0 else scale[row]
                g += direction


@compiled
@no_type_check
def best_of(x, weight, ladders, sizes, doubled, candidates, above, scale, error):
    """Fill `scale` and `error` with the best of rising candidates, the least if all are as good, and its squared error.

    Where a scale is too large to matter its half is a candidate too, but for those up to `above`.
    """
    edges = (ladders[:, 1:] + ladders[:, :-1]) / 2
    for row in range(len(x)):
        numbers, w = x[row], weight[min(row, len(weight) - 1)]
        plain = min(np.searchsorted(candidates, _full(numbers, w, ladders, sizes)), len(candidates) - 1)
        bound = _error(numbers, w, ladders, edges, sizes, candidates[plain], np.inf)
        low, high = _range(numbers, w, ladders, edges, sizes, doubled, bound)
        first = min(np.searchsorted(candidates, low), plain)
        error[row] = np.inf
        for one in candidates[first:]:
            if one > max(high, above) and error[row] < np.inf:
                break
            found = _error(numbers, w, ladders, edges, sizes, one, error[row])
            if found < error[row]:
                scale[row], error[row] = one, found


@compiled
@no_type_check
def _error(x, weight, ladders, edges, sizes, scale, bound):
    """Squared error of the nearest values, or of enough of them to exceed a bound."""
    total, most = 0.0, bound / (scale * scale)
    for i in range(len(x)):
        if total > most:
            break
        side, size = int(x[i] < 0), abs(x[i]) / scale
        low, high = 0, sizes[side] - 1
        while low < high:
            middle = (low + high) // 2
            if edges[side, middle] < size:
                low = middle + 1
            else:
                high = middle
        difference = size - ladders[side, low]
        total += weight[i] * difference * difference
    return total * scale * scale


@compiled
@no_type_check
def _full(x, weight, ladders, sizes):
    """The least scale that cuts nothing."""
    full = 0.0
    for i in range(len(x)):
        side = int(x[i] < 0)
        if weight[i] > 0 and sizes[side] > 1:
            full = max(full, abs(x[i]) / ladders[side, sizes[side] - 1])
    return full


@compiled
@no_type_check
def _range(x, weight, ladders, edges, sizes, doubled, bound):
    """Scales between which the best one lies, if any is better than `bound`; the lower one first.

    Above `high` only values are used whose doubles are values too: half the scale is as good. Below `low` what is cut
    costs more than all errors at another scale.
    """
    high, least = 0.0, np.inf
    for i in range(len(x)):
        side, size = int(x[i] < 0), abs(x[i])
        if weight[i] > 0 and size > 0 and sizes[side] > 1:
            high = max(high, size / edges[side, max(doubled[side], 1) - 1])
            least = min(least, size / ladders[side, sizes[side] - 1])
    if high == 0.0:
        return 0.0, 0.0
    if bound == np.inf:
        bound = _error(x, weight, ladders, edges, sizes, 0.8 * _full(x, weight, ladders, sizes), np.inf)
    low = high
    while low > SHRINK * least:  # below, all are cut
        cut = 0.0
        for i in range(len(x)):
            side = int(x[i] < 0)
            beyond = max(abs(x[i]) - low * ladders[side, sizes[side] - 1], 0.0)
            cut += weight[i] * beyond * beyond
        if cut > bound:
            return (low, high) if low < high else (1.0, 0.0)
        low *= SHRINK
    return low, high


@compiled
@no_type_check
def _sums(x, weight, ladders, edges, sizes, high, codes):
    """Codes at scales from `high` on, and the sums of weighted squares, products and squares of values."""
    power, moment, square = 0.0, 0.0, 0.0
    for i in range(len(x)):
        side, size, k = int(x[i] < 0), abs(x[i]), 0
        while k < sizes[side] - 1 and size > high * edges[side, k]:
            k += 1
        codes[i] = k if weight[i] > 0 else sizes[side] - 1
        value = ladders[side, k]
        power += weight[i] * size * size
        moment += weight[i] * size * value
        square += weight[i] * value * value
    return power, moment, square


@compiled
@no_type_check
def _collect(x, weight, ladders, edges, sizes, last, codes, places):
    """Scales down to `last` at which codes change, and what this adds to both sums; the codes move there."""
    count = 0
    for i in range(len(x)):
        side = int(x[i] < 0)
        if count + sizes[side] > places.shape[1]:
            wider = np.empty((3, 2 * count + sizes[side]))
            wider[:, :count] = places[:, :count]
            places = wider
        count = _passed(
            abs(x[i]), weight[i], ladders[side], edges[side], sizes[side] - 1, last, codes, i, places, count
        )
    return places, count


@compiled
@no_type_check
def _passed(size, weight, ladder, edges, top, last, codes, i, places, count):
    """Places of one number."""
    k = codes[i]
    while k < top and size > last * edges[k]:
        places[0, count] = size / edges[k]
        places[1, count] = weight * size * (ladder[k + 1] - ladder[k])
        places[2, count] = weight * (ladder[k + 1] * ladder[k + 1] - ladder[k] * ladder[k])
        count += 1
        k += 1
    codes[i] = k
    return count


@compiled
@no_type_check
def _sort(values, order):
    """Fill `order` with the places of falling positive values, through buckets of equal width in their bits.

    The bits of a number grow with it, about as its logarithm.
    """
    count = len(values)
    bits = values.view(np.int64)
    low, high = np.int64(0), np.int64(0)
    for k in range(count):
        low = bits[k] if k == 0 else min(low, bits[k])
        high = max(high, bits[k])
    starts, factor = np.zeros(count + 1, np.int64), (count - 1) / max(high - low, 1)
    for k in range(count):
        starts[int((high - bits[k]) * factor) + 1] += 1
    for bucket in range(count):
        starts[bucket + 1] += starts[bucket]
    ends = starts.copy()
    for k in range(count):
        bucket = int((high - bits[k]) * factor)
        place = ends[bucket]
        ends[bucket] += 1
        while place > starts[bucket] and bits[order[place - 1]] < bits[k]:
            order[place] = order[place - 1]
            place -= 1
        order[place] = k
