"""The decoder of interleaved asymmetric numeral systems along fronts (`lattq.coding.fronts`).

Fronts stand together in strips of neighbours. A step is the entries that one row has in a strip: they are neighbours in
the matrix as well, and belong to as many sequences.
"""

from typing import no_type_check  # functions wrapped for run-time checks would not compile

import numpy as np

from lattq.kernels.rans import ONE, TILE, ZERO, compiled, decode_tile, extremes, write_tile

__all__ = ["decode_fronts", "in_strip"]


@compiled
@no_type_check
def in_strip(row, height, columns, left, across):
    """Which fronts of a strip have an entry in this row."""
    shift = row % height - left
    return max(0, shift), min(across, columns + shift)


@compiled
@no_type_check
def _alike(row, height, left, low, across, high, until):
    """How many rows from this one on have the same fronts of a strip, and no fresh sequence; at most a tile."""
    if low > 0 or high < across:
        return 1
    inside = row % height
    return min(TILE // across, height - inside, left - inside + 1, until - row)


@compiled
@no_type_check
def decode_fronts(words, states, height, fronts, width, fresh, groups, grid, labels, tables, scaling, out):
    """As `decode_columns` of `lattq.kernels.rans`, for the entries of neighbouring fronts from `fronts` to the last.

    `fresh` are rows where a trellis begins anew, strip by strip, the place of its front in the strip, and where those
    of each strip begin, with the end of the last.
    """
    slots, entries, values, ends = tables
    fresh_rows, fresh_places, fresh_starts = fresh
    numbers = np.arange(fronts[0], fronts[1])
    kinds, found = np.empty(TILE, dtype=np.uint32), np.empty(TILE, dtype=np.int64)
    path, p, first, least, most = np.empty(width, dtype=np.uint64), ZERO, 0, 0, 0
    for strip in range(len(fresh_starts) - 1):
        left, event, last = fronts[0] + strip * width, fresh_starts[strip], fresh_starts[strip + 1]
        across, row = min(width, fronts[1] - left), 0
        path[:] = ZERO
        while row < len(groups):
            low, high = in_strip(row, height, grid.shape[1], left, across)
            if low >= high:
                row += 1
                continue
            while event < last and fresh_rows[event] == row:
                path[fresh_places[event]] = ZERO
                event += 1
            until = fresh_rows[event] if event < last else len(groups)
            rows, count = _alike(row, height, left, low, across, high, until), ZERO
            for r in range(row, row + rows):
                column = left - r % height
                for j in range(np.uint64(column + low), np.uint64(column + high)):
                    kinds[count] = grid[np.uint64(groups[r]), j]
                    count += ONE
            some = path[low:high]
            p = decode_tile(
                words, p, states, first, kinds, count, high - low, labels, some, slots, entries, values, ends, found
            )
            first += rows * (high - low)
            lower, upper = extremes(found, count)
            least, most = min(least, lower), max(most, upper)
            start = left - fronts[0]
            write_tile(found, row, rows, numbers[start + low : start + high], height, scaling, out)
            row += rows
    return p, least, most
