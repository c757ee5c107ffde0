"""Nearest points of E8, BW16 and Leech, one vector after the other: the searches of `lattq.lattices`, compiled.

Each function divides the points by `scale`, by which it multiplied the vectors, and returns whether all values were
finite and at most `largest`. Ties go as in the generic bodies: first to last over the same remainders.
"""

from typing import no_type_check  # a checked function would not compile

import numba
import numpy as np

__all__ = ["bw16", "e8", "leech24"]


@numba.njit(cache=True)
@no_type_check
def e8(x, scale, largest, out):
    """Both parities at once: a coordinate that is t above its floor is 1 - t below the other neighbour."""
    one = x.dtype.type(1)
    fine = True
    floors, above = np.empty(8, np.int32), np.empty(8, x.dtype)
    for row in range(x.shape[0]):
        total = np.int32(0)
        cost, other_cost = x.dtype.type(0), x.dtype.type(0)
        for i in range(8):
            value = x[row, i] * scale
            fine &= abs(value) <= largest
            floor = np.floor(value)
            floors[i] = np.int32(floor)
            above[i] = value - floor
        first = floors[0] & 1
        total, other_total = np.int32(0), np.int32(0)
        worst, other_worst = -one, -one
        place, other_place = 0, 0
        for i in range(8):
            t = above[i]
            up = (floors[i] & 1) ^ first
            near, far = (one - t, t) if up else (t, one - t)
            total += floors[i] + up
            other_total += floors[i] + (1 - up)
            cost += near * near
            other_cost += far * far
            place = i if near > worst else place
            worst = max(near, worst)
            other_place = i if far > other_worst else other_place
            other_worst = max(far, other_worst)
        wrong, other_wrong = total & 2, other_total & 2
        cost += (4 - 4 * worst) if wrong else 0
        other_cost += (4 - 4 * other_worst) if other_wrong else 0
        if other_cost < cost:
            first, wrong, place = 1 - first, other_wrong, other_place
        for i in range(8):
            up = (floors[i] & 1) ^ first
            turn = wrong if i == place else 0
            out[row, i] = (floors[i] + up + (-turn if up else turn)) / scale
    return fine
