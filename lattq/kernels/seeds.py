"""First entries of a codebook: repeated splits of the cell with the largest error, or draws by squared distance."""

import heapq
from typing import no_type_check

import numba
import numpy as np

__all__ = ["draw", "split"]

compiled = numba.njit(cache=True, nogil=True, error_model="numpy")


@compiled
@no_type_check
def split(x, weights, size):
    """Means of `size` cells, each split at the mean of its widest coordinate; returns how many there are.

    Fewer come out where there are fewer different rows.
    """
    n, d = x.shape
    order, room = np.arange(n), np.empty(n, np.int64)
    bounds, means, axes = np.zeros((size, 2), np.int64), np.empty((size, d)), np.zeros(size, np.int64)
    bounds[0, 1] = n
    error = _cell(x, weights, order, 0, n, means[0], axes, 0)
    heap = [(-error, 0)]
    count = 1
    while count < size and len(heap):
        error, cell = heapq.heappop(heap)
        if error == 0.0:
            break
        low, high = bounds[cell]
        middle = _partition(x, order, room, low, high, axes[cell], means[cell, axes[cell]])
        if middle in (low, high):  # the mean of neighbouring numbers is one of them
            continue
        bounds[cell, 1], bounds[count, 0], bounds[count, 1] = middle, middle, high
        for part in (cell, count):
            low, high = bounds[part]
            error = _cell(x, weights, order, low, high, means[part], axes, part)
            heapq.heappush(heap, (-error, part))
        count += 1
    return means, count


@compiled
@no_type_check
def _cell(x, weights, order, low, high, mean, axes, cell):
    """Fill the mean and the widest coordinate of a cell, and return its squared error."""
    d = x.shape[1]
    first, mass = order[low], 0.0
    sums, squares = np.zeros(d), np.zeros(d)
    for place in range(low, high):
        row = order[place]
        weight = weights[row] if len(weights) else 1.0
        mass += weight
        for i in range(d):
            offset = np.float64(x[row, i]) - x[first, i]
            sums[i] += weight * offset
            squares[i] += weight * offset * offset
    total, widest = 0.0, -1.0
    for i in range(d):
        mean[i] = x[first, i] + sums[i] / mass
        error = max(squares[i] - sums[i] * sums[i] / mass, 0.0)
        total += error
        if error > widest:
            widest, axes[cell] = error, i
    return total


@compiled
@no_type_check
def _partition(x, order, room, low, high, axis, threshold):
    """Rows up to the threshold first, in the order they had; returns where the others begin."""
    place, others = low, 0
    for i in range(low, high):
        row = order[i]
        if x[row, axis] <= threshold:
            order[place] = row
            place += 1
        else:
            room[others] = row
            others += 1
    order[place:high] = room[:others]
    return place


@compiled
@no_type_check
def draw(x, weights, uniforms):
    """Rows drawn with probabilities proportional to weight times squared distance from those drawn before.

    Returns the rows, and how many there are: fewer than `uniforms` where no row is left apart from them.
    """
    n, d = x.shape
    rows, least = np.empty(len(uniforms), np.int64), np.ones(n)
    for count in range(len(uniforms)):
        total = 0.0
        for row in range(n):
            total += least[row] * (weights[row] if len(weights) else 1.0)
        if not total > 0.0:
            return rows, count
        rows[count] = _drawn(weights, least, uniforms[count] * total)
        for row in range(n):
            distance = 0.0
            for i in range(d):
                difference = np.float64(x[row, i]) - x[rows[count], i]
                distance += difference * difference
            least[row] = distance if count == 0 or distance < least[row] else least[row]
    return rows, len(uniforms)


@compiled
@no_type_check
def _drawn(weights, least, target):
    """The first row at which the running sum passes the target; the last with a positive share if rounding misses."""
    running, last = 0.0, 0
    for row in range(len(least)):
        share = least[row] * (weights[row] if len(weights) else 1.0)
        running += share
        last = row if share > 0.0 else last
        if running > target:
            return row
    return last
