"""What each residue mod 4 costs at each time, in integers: the metrics of the Viterbi algorithm.

They are compiled into the searches of `viterbi`: after a change here, compiled files there must be removed.
"""

from typing import no_type_check  # functions wrapped for run-time checks would not compile

import numba
import numpy as np

__all__ = ["metrics"]


@numba.njit(cache=True)
@no_type_check
def metrics(x, lengths, start, lanes, scale, odd, weight, found):
    """Integer cost of each label at each time, (4, length lanes); nothing beyond the end of a sequence."""
    length = x.shape[1]
    turned = np.empty((length, lanes), dtype=np.float32)
    for lane in range(lanes):
        row = min(start + lane, x.shape[0] - 1)
        for t in range(length):
            turned[t, lane] = x[row, t] - 4 * np.rint(x[row, t] / 4)
    if weight is None and odd is None and lengths.min() == length:
        _plain(turned.ravel(), scale[0], scale[1], found[0], found[1], found[2], found[3])
        return
    distance = np.empty((4, length * lanes), dtype=np.float32)
    _squares(turned.ravel(), distance[0], distance[1], distance[2], distance[3])
    _adjust(lengths, start, odd, weight, distance, lanes)
    _integers(distance[0], distance[1], distance[2], distance[3], scale[0], scale[1], found)


@numba.njit(cache=True)
@no_type_check
def _plain(x, scale, largest, zero, one, two, three):
    """`_squares` and `_integers` in one pass."""
    for i in range(len(x)):
        size = abs(x[i])
        right, left = abs(x[i] - np.float32(1.0)), abs(x[i] + np.float32(1.0))
        right, left = min(right, np.float32(4.0) - right), min(left, np.float32(4.0) - left)
        apart = np.float32(2.0) - size
        least = min(min(size, apart), min(right, left))
        least *= least
        zero[i] = np.int16(np.rint(min((size * size - least) * scale, largest)))
        one[i] = np.int16(np.rint(min((right * right - least) * scale, largest)))
        two[i] = np.int16(np.rint(min((apart * apart - least) * scale, largest)))
        three[i] = np.int16(np.rint(min((left * left - least) * scale, largest)))


@numba.njit(cache=True)
@no_type_check
def _adjust(lengths, start, odd, weight, distance, lanes):
    """Weights, the price of odd codes, and nothing beyond the end of a sequence."""
    for lane in range(lanes):
        row = min(start + lane, len(lengths) - 1)
        for t in range(distance.shape[1] // lanes):
            place = t * lanes + lane
            for label in range(4):
                if weight is not None:
                    distance[label, place] *= weight[row, t]
                if odd is not None and label % 2:
                    distance[label, place] += odd[row, t]
                if t >= lengths[row]:
                    distance[label, place] = 0.0


@numba.njit(cache=True)
@no_type_check
def _squares(x, zero, one, two, three):
    """Squared distance of |x| <= 2 from 4Z, 4Z + 1, 4Z + 2 and 4Z + 3."""
    for i in range(len(x)):
        size = abs(x[i])
        right, left = abs(x[i] - np.float32(1.0)), abs(x[i] + np.float32(1.0))
        right, left = min(right, np.float32(4.0) - right), min(left, np.float32(4.0) - left)
        zero[i] = size * size
        one[i] = right * right
        two[i] = (np.float32(2.0) - size) * (np.float32(2.0) - size)
        three[i] = left * left


@numba.njit(cache=True)
@no_type_check
def _integers(zero, one, two, three, scale, largest, found):
    """Costs above the least label's, as integers."""
    first, second, third, fourth = found[0], found[1], found[2], found[3]
    for i in range(len(zero)):
        least = min(min(zero[i], one[i]), min(two[i], three[i]))
        first[i] = np.int16(np.rint(min((zero[i] - least) * scale, largest)))
        second[i] = np.int16(np.rint(min((one[i] - least) * scale, largest)))
        third[i] = np.int16(np.rint(min((two[i] - least) * scale, largest)))
        fourth[i] = np.int16(np.rint(min((three[i] - least) * scale, largest)))
