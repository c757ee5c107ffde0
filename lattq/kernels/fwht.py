"""The fast Walsh–Hadamard transform of rows, four stages for each pass over the memory.

Stages run from the highest bit of the index to the lowest, each a sum and a difference: the additions of the generic
form in the same order, so results agree to the last bit. A pass takes 16 vectors of 64 bytes into registers; stages
inside a vector are shuffles. Rows longer than the first-level cache are split by their highest bits first, and then
each part is finished while it is there.
"""

from typing import no_type_check  # functions wrapped for run-time checks would not compile

import numba
import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

__all__ = ["transform"]

BYTES = 64  # of a vector
CACHED = 1 << 14  # bytes that stay in the first-level cache from pass to pass


def transform(x: np.ndarray, divisor: float) -> np.ndarray:
    """Transform of the rows of a contiguous float32 or float64 array (rows, 2^k), divided by `divisor`.

    >>> transform(np.array([[1.0, 0.0, 2.0, 0.0]]), 2.0)
    array([[ 1.5,  1.5, -0.5, -0.5]])
    """
    out = np.empty_like(x)
    lanes = BYTES // x.itemsize
    divisors = np.full(lanes, divisor, dtype=x.dtype)
    if x.shape[1] < 2 * lanes:
        _short(x, divisors[0], out)
    else:
        _rows(x.reshape(-1), divisors, x.shape[1], CACHED // x.itemsize, out.reshape(-1))
    return out


@numba.njit(cache=True)
@no_type_check
def _short(x, divisor, out):
    """Rows shorter than two vectors."""
    size = x.shape[1]
    for row in range(x.shape[0]):
        out[row] = x[row]
        stride = size // 2
        while stride:
            for i in range(size):
                if not i & stride:
                    one, other = out[row, i], out[row, i + stride]
                    out[row, i], out[row, i + stride] = one + other, one - other
            stride //= 2
        for i in range(size):
            out[row, i] /= divisor


@numba.njit(cache=True)
@no_type_check
def _rows(x, divisors, size, cached, out):
    """Rows of at least two vectors: passes over all of a row, then part by part."""
    lanes = len(divisors)
    for start in range(0, len(x), size):
        source, part = x, size
        while part > cached:
            part = _pass(source, out, start, start + size, part, divisors)
            source = out
        for begin in range(start, start + size, part):
            here, left = source, part
            while left > lanes:
                left = _pass(here, out, begin, begin + part, left, divisors)
                here = out


@numba.njit(cache=True)
@no_type_check
def _pass(source, out, start, stop, size, divisors):
    """Up to four stages on every part of `size` numbers, and the last ones and the division; what size is left."""
    lanes = len(divisors)
    vectors = size // lanes
    few = 16 if vectors >= 16 else (4 if vectors >= 4 else 2)
    stride = vectors // few
    for part in range(start // lanes, stop // lanes, vectors):
        for i in range(part, part + stride):
            if stride == 1:
                if few == 16:
                    last_stages(source, out, i, stride, (0, 0, 0, 0), divisors)
                elif few == 4:
                    last_stages(source, out, i, stride, (0, 0), divisors)
                else:
                    last_stages(source, out, i, stride, (0,), divisors)
            elif few == 16:
                stages(source, out, i, stride, (0, 0, 0, 0))
            else:
                stages(source, out, i, stride, (0, 0))
    return stride * lanes


@no_type_check
def _pointer(context, builder, kind, array, index):
    """Address of a vector of an array, counted in such, and the number of its lanes."""
    data = context.make_array(kind)(context, builder, array).data
    element = context.get_value_type(kind.dtype)
    lanes = BYTES * 8 // kind.dtype.bitwidth
    return builder.gep(builder.bitcast(data, ir.VectorType(element, lanes).as_pointer()), [index]), lanes


@no_type_check
def _butterflies(builder, values):
    """All stages between vectors, whose number is a power of two."""
    half = len(values) // 2
    while half:
        for i in range(len(values)):
            if not i & half:
                one, other = values[i], values[i + half]
                values[i], values[i + half] = builder.fadd(one, other), builder.fsub(one, other)
        half //= 2


@no_type_check
def _inside(builder, value, lanes):
    """All stages inside one vector."""
    stride = lanes // 2
    while stride:
        swapped = ir.Constant(ir.VectorType(ir.IntType(32), lanes), [lane ^ stride for lane in range(lanes)])
        upper = ir.Constant(ir.VectorType(ir.IntType(1), lanes), [bool(lane & stride) for lane in range(lanes)])
        other = builder.shuffle_vector(value, value, swapped)
        value = builder.select(upper, builder.fsub(other, value), builder.fadd(other, value))
        stride //= 2
    return value


@no_type_check
def _places(builder, kind, start, stride):
    """Indices of 2^levels vectors."""
    places = [start]
    for _ in range(2 ** len(kind) - 1):
        places.append(builder.add(places[-1], stride))
    return places


@intrinsic
@no_type_check
def stages(typing, source, out, start, stride, levels):
    """Butterflies on the 2^levels vectors start, start + stride, ...; `levels` counts by its length."""

    def emit(context, builder, signature, arguments):
        kinds, (source, out, start, stride, _) = signature.args, arguments
        places = _places(builder, kinds[4], start, stride)
        values = [builder.load(_pointer(context, builder, kinds[0], source, place)[0], align=4) for place in places]
        _butterflies(builder, values)
        for place, value in zip(places, values, strict=True):
            builder.store(value, _pointer(context, builder, kinds[1], out, place)[0], align=4)
        return context.get_dummy_value()

    return types.void(source, out, start, stride, levels), emit


@intrinsic
@no_type_check
def last_stages(typing, source, out, start, stride, levels, divisors):
    """As `stages`, then those inside each vector, and the division."""

    def emit(context, builder, signature, arguments):
        kinds, (source, out, start, stride, _, divisors) = signature.args, arguments
        below, lanes = _pointer(context, builder, kinds[5], divisors, ir.Constant(start.type, 0))
        divisor, places = builder.load(below, align=4), _places(builder, kinds[4], start, stride)
        values = [builder.load(_pointer(context, builder, kinds[0], source, place)[0], align=4) for place in places]
        _butterflies(builder, values)
        for place, value in zip(places, values, strict=True):
            found = builder.fdiv(_inside(builder, value, lanes), divisor)
            builder.store(found, _pointer(context, builder, kinds[1], out, place)[0], align=4)
        return context.get_dummy_value()

    return types.void(source, out, start, stride, levels, divisors), emit
