"""Nearest entries where every group of vectors has its own codebook, or the same one in another metric.

Entries lie transposed, (groups, dimension, entries), so that the scores of all entries of a group are vector
instructions. The score is the inner product less half the squared length, and whatever else an entry is charged.
"""

from typing import no_type_check  # functions wrapped for run-time checks would not compile

import numba
import numpy as np

__all__ = ["nearest_in_groups"]

compiled = numba.njit(cache=True, nogil=True, error_model="numpy")


@compiled
@no_type_check
def nearest_in_groups(x, entries, bias, found):
    """Fill `found`, (groups, n), with the best entry of each row of `x`, (groups, n, dimension); first of equal ones.

    `bias` holds what is added to the scores, (groups, entries).
    """
    groups, n, dimension = x.shape
    size = entries.shape[2]
    scores = np.empty(size)
    for group in range(groups):
        table, start = entries[group], bias[group]
        for row in range(n):
            for i in range(size):
                scores[i] = start[i]
            for axis in range(dimension):
                value = x[group, row, axis]
                for i in range(size):
                    scores[i] += value * table[axis, i]
            best, index = scores[0], 0
            for i in range(1, size):
                if scores[i] > best:
                    best, index = scores[i], i
            found[group, row] = index
