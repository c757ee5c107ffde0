"""Columns that become sequences of a trellis code one after the other, with their feedback, compiled."""

from typing import no_type_check  # functions wrapped for run-time checks would not compile

import numba
import numpy as np

from lattq.kernels.feedback import add_errors, largest_of
from lattq.kernels.viterbi import search

__all__ = ["price_of_odd", "search_columns"]


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def search_columns(target, weight, unit, idle, side, value, pricing, cuts, searcher, codes, error):
    """Search columns from the last to the first, each cut into sequences of half steps.

    Parameters
    ----------
    target, weight, unit, idle, codes, error : as in `lattq.quantizers.strips.Strip`
    side, value : half a step in the dtype of the targets, and in that of what codes decode to
    pricing : squared error of a code, and the root mean square of codes from where on odd ones cost what even ones do
    cuts : where sequences begin and end
    searcher : of the code

    Returns
    -------
    The largest code where one is too large, else 0.
    """
    rows, count = target.shape[1], len(cuts) - 1
    lengths = cuts[1:] - cuts[:-1]
    longest = lengths.max()
    x, out = np.zeros((count, longest), dtype=target.dtype), np.zeros((count, longest), dtype=np.int32)
    odd = np.empty((count, longest), dtype=np.float32)
    for column in range(len(target) - 1, -1, -1):
        add_errors(unit, error, column, 0, rows, target[column])
        power, good = _scaled(target[column], idle[column], side, cuts, x)
        if not good:
            return largest_of(x.ravel())
        power += pricing[0]
        if power < pricing[1] ** 2:
            odd[:] = price_of_odd(power, pricing[0])
            search(x, lengths, searcher, odd, None, out)
        else:
            search(x, lengths, searcher, None, None, out)
        for i in range(count):
            own = slice(cuts[i], cuts[i + 1])
            _decode(out[i], value, weight[column, own], codes[column, own], error[column, own])
    return 0.0


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def _scaled(line, idle, side, cuts, x):
    """A line in half steps, cut into sequences; its mean square, and whether all are codes."""
    power, good = 0.0, True
    for i in range(len(x)):
        own = line[cuts[i] : cuts[i + 1]]
        for t in range(len(own)):
            x[i, t] = own[t] / side
        if idle:
            x[i] = 0.0
        for t in range(len(own)):
            power += np.float64(x[i, t]) * np.float64(x[i, t])
            good &= abs(x[i, t]) <= 2.0**30
        x[i, len(own) :] = 0.0
    return power / len(line), good


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def _decode(found, value, weight, codes, error):
    for t in range(len(codes)):
        codes[t] = found[t]
        error[t] = weight[t] - found[t] * value


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def price_of_odd(power, noise):
    """2 D' ln (Z_1 / Z_0), as `lattq.quantizers.trellis.price_of_odd` has it for many."""
    q = np.exp(-0.5 / power)
    term, ratio, even, odd = 1.0, q, 1.0, 0.0
    for k in range(1, 17):
        term *= ratio
        ratio *= q * q
        if k % 2:
            odd += 2 * term
        else:
            even += 2 * term
    return 2 * noise / (1 + noise / power) * np.log(odd / even)
