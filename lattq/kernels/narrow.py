"""Numbers written to arrays as they are, or as the bits of float16 and bfloat16, which Numba does not calculate with.

Bits of float16 are held by arrays of int16, those of bfloat16 by arrays of uint16. Numbers are rounded to float32 and
then, to the nearest and ties to even, to the narrow type.
"""

from typing import no_type_check

import numba
import numpy as np
from numba.extending import overload

__all__ = ["put"]

compiled = numba.njit(cache=True, nogil=True)
ONE, REST, SIGN = np.uint32(1), np.uint32(0x7FFFFFFF), np.uint32(0x8000)
HALF, BITS_OF_HALF, SIXTEEN = np.float32(0.5), np.uint32(126 << 23), np.uint32(16)
# Of float16, as float32: the least normal number, how much larger exponents are, and how many more digits there are.
NORMAL, BIAS, LESS = np.uint32(113 << 23), np.uint32(112 << 23), np.uint32(13)


@compiled
@no_type_check
def _rounded(bits, digits):
    """Without the last digits, to the nearest, ties to even."""
    return (bits + (ONE << (digits - ONE)) - ONE + (bits >> digits & ONE)) >> digits


@compiled
@no_type_check
def bfloat16_bits(x):
    """The bits of a finite number."""
    return np.uint16(_rounded(np.float32(x).view(np.uint32), SIXTEEN))


@compiled
@no_type_check
def float16_bits(x):
    """The bits of a number of at most 65504; below 2^-14, the sum with 1/2 has those digits that are kept."""
    bits = np.float32(x).view(np.uint32)
    size = bits & REST
    if size >= NORMAL:
        found = _rounded(size - BIAS, LESS)
    else:
        found = np.float32(np.float32(abs(x)) + HALF).view(np.uint32) - BITS_OF_HALF
    return np.uint16(found | (bits >> SIXTEEN & SIGN)).view(np.int16)


@no_type_check
def put(out, row, column, x):
    """Write a number into an array, in the type that its dtype stands for; integers of 32 bits as they are."""
    raise NotImplementedError  # for compiled code only


@overload(put)
@no_type_check
def _put(out, row, column, x):
    if out.dtype == numba.uint16:
        return _put_bfloat16
    return _put_float16 if out.dtype == numba.int16 else _put_as_it_is


@no_type_check
def _put_bfloat16(out, row, column, x):
    out[row, column] = bfloat16_bits(x)


@no_type_check
def _put_float16(out, row, column, x):
    out[row, column] = float16_bits(x)


@no_type_check
def _put_as_it_is(out, row, column, x):
    out[row, column] = x
