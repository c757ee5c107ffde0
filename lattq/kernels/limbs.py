"""Sums of floats in integers of two limbs, which add in any order to the same."""

from typing import no_type_check  # functions wrapped for run-time checks would not compile

import numba
import numpy as np

__all__ = ["BITS", "LARGEST", "add_integers", "add_rows"]

BITS = 62  # of the lower limb, sign included
LARGEST = 2.0**52  # of the upper limb: what is beyond a float of the sum then fits an integer of 64 bits
HALF = 1 << (BITS - 1)
UP = 2.0**BITS
DOWN = 2.0**-BITS

compiled = numba.njit(cache=True, nogil=True, error_model="numpy")


@compiled
@no_type_check
def add_rows(values, triangle, scale, high, low):
    """Add ``rint(values * scale)`` to the limbs, row by row; the place of the first value out of range, or -1.

    Parameters
    ----------
    values : (rows, columns)
    triangle : whether only the first i + 1 values of row i count
    scale : a power of 2
    high, low : vectors of as many limbs as values count; low within ± 2^61
    """
    rows, columns = values.shape
    place = 0
    for row in range(rows):
        length = row + 1 if triangle else columns
        for column in range(length):
            scaled = values[row, column] * scale
            above = np.rint(scaled * DOWN)
            if not abs(above) < LARGEST:
                return place
            total = low[place] + np.int64(np.rint(scaled - above * UP))
            over = (total + HALF) >> BITS
            low[place] = total - (over << BITS)
            over += np.int64(above)
            if over != 0:  # rarely, if the unit is chosen well, which halves the traffic
                high[place] += over
                if abs(high[place]) >= LARGEST:
                    return place
            place += 1
    return -1


@compiled
@no_type_check
def add_integers(values, high, low):
    """Add integers below 2^62 to the limbs."""
    for place in range(len(values)):
        total = low[place] + values[place]
        over = (total + HALF) >> BITS
        low[place] = total - (over << BITS)
        high[place] += over
