"""Columns coded one after the other with their feedback, compiled: a line to each column, errors fed upwards."""

from typing import no_type_check  # functions wrapped for run-time checks would not compile

import numba
import numpy as np

__all__ = ["add_errors", "largest_of", "round_columns"]

PART = 512  # rows whose targets and errors of a strip fit the nearest caches


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def add_errors(unit, error, column, first, last, line):
    """Add to a part of a line what the errors of all columns after it feed back, four of them at a time."""
    count = len(error)
    j = column + 1
    while j + 4 <= count:
        a, b, c, d = unit[column, j], unit[column, j + 1], unit[column, j + 2], unit[column, j + 3]
        one, two = error[j, first:last], error[j + 1, first:last]
        three, four = error[j + 2, first:last], error[j + 3, first:last]
        for r in range(len(line)):
            line[r] += (a * one[r] + b * two[r]) + (c * three[r] + d * four[r])
        j += 4
    while j < count:
        a, one = unit[column, j], error[j, first:last]
        for r in range(len(line)):
            line[r] += a * one[r]
        j += 1


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def round_columns(target, weight, unit, idle, step, zero, limits, codes, error):
    """Round columns from the last to the first: codes rint(x / step + zero), cut to low ... high.

    Parameters
    ----------
    target, weight, unit, idle, codes, error : as in `lattq.quantizers.strips.Strip`
    step, zero : one for each row
    limits : least and largest code, infinite for codes without bounds; 0.5, and what no code exceeds

    Returns
    -------
    How many targets are more than half a step beyond the ends, and the largest code where one is too large, else 0.
    """
    rows = target.shape[1]
    overload = 0
    scaled, found = np.empty(PART, dtype=step.dtype), np.empty(PART, dtype=error.dtype)
    for first in range(0, rows, PART):
        last = min(first + PART, rows)
        for column in range(len(target) - 1, -1, -1):
            line = target[column, first:last]
            add_errors(unit, error, column, first, last, line)
            _scale(line, idle[column], step[first:last], zero[first:last], scaled)
            outside, wrong = _cut(scaled[: last - first], limits[0], limits[1], limits[2], limits[3])
            if wrong:
                return overload, largest_of(scaled[: last - first])
            overload += outside
            own = codes[column, first:last]
            _round(scaled, step[first:last], zero[first:last], own, found)
            _subtract(weight[column, first:last], found, error[column, first:last])
    return overload, 0.0


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def _scale(line, idle, step, zero, scaled):
    for r in range(len(line)):
        scaled[r] = line[r] / step[r] + zero[r]
    if idle:
        scaled[: len(line)] = zero


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def _cut(scaled, low, high, half, most):
    """Cut to the ends; how many were more than a half beyond, and whether one is no code."""
    outside, good = 0, 0
    for r in range(len(scaled)):
        x = scaled[r]
        x = low if x < low else x
        x = high if x > high else x
        outside += abs(scaled[r] - x) > half
        good += abs(x) <= most
        scaled[r] = x
    return outside, good < len(scaled)


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def _round(scaled, step, zero, codes, found):
    for r in range(len(codes)):
        code = np.rint(scaled[r])
        codes[r] = np.int32(code)
        found[r] = (code - zero[r]) * step[r]


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def _subtract(weight, found, error):
    for r in range(len(error)):
        error[r] = weight[r] - found[r]


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def largest_of(x):
    """The largest magnitude; NaN if there is one."""
    largest = 0.0
    for one in x:
        if not abs(one) <= largest:
            largest = abs(one)
            if largest != largest:
                break
    return largest
