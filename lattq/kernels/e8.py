"""Nearest points of E8, 16 vectors at a time."""

from typing import no_type_check  # a function wrapped for run-time checks would not compile

import numba
import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from lattq.kernels.lanes import LANES, Vector, row_pointer

__all__ = ["nearest"]


@numba.njit(cache=True)
@no_type_check
def nearest(x, scale, largest, out):
    """Points nearest to x times scale, in integer coordinates, divided by scale; whether all values were in range."""
    fine = True
    whole = len(x) - len(x) % LANES
    for row in range(0, whole, LANES):
        fine &= _sixteen(x, out, row // 2, scale, largest)
    if whole < len(x):
        rest, found = np.zeros((LANES, 8), x.dtype), np.empty((LANES, 8), out.dtype)
        rest[: len(x) - whole] = x[whole:]
        fine &= _sixteen(rest, found, 0, scale, largest)
        out[whole:] = found[: len(x) - whole]
    return fine


@intrinsic
@no_type_check
def _sixteen(typing, x, out, start, scale, largest):
    """Points for 16 vectors, which begin at 16 times `start` in the memory of `x`."""

    def emit(context, builder, signature, arguments):
        columns = _transpose(builder, _load(context, builder, signature.args[0], arguments[0], arguments[2]))
        scale, largest = (_every(columns[0], number) for number in arguments[3:5])
        columns = [column * scale for column in columns]
        fine = columns[0].apply("llvm.fabs").compare("<=", largest)
        for column in columns[1:]:
            fine = fine & column.apply("llvm.fabs").compare("<=", largest)
        points = _points(columns)
        if isinstance(signature.args[1].dtype, types.Float):
            points = [point / scale for point in points]
        else:
            points = [point.integers() for point in points]
        for i, rows in enumerate(_transpose_back(builder, points)):
            row = builder.add(arguments[2], ir.Constant(arguments[2].type, i))
            builder.store(rows.value, row_pointer(context, builder, signature.args[1], arguments[1], row), align=4)
        bits = builder.bitcast(fine.value, ir.IntType(LANES))
        return builder.icmp_signed("==", bits, ir.Constant(bits.type, -1))

    return types.boolean(x, out, start, scale, largest), emit


@no_type_check
def _points(values):
    """Nearest points, from the eight coordinates: both parities at once, as those of the floor of the first or not.

    What is t above its floor is 1 - t below its other neighbour.
    """
    one, two, four = (values[0].constant(float(n)) for n in (1, 2, 4))
    zero = values[0].constant(0.0)
    floors = [value.apply("llvm.floor") for value in values]
    whole = [floor.integers() for floor in floors]
    bit = whole[0].constant(1)
    ups = [((number ^ whole[0]) & bit) for number in whole]
    total = _sum(whole)
    ups_total = _sum(ups)
    above = [value - floor for value, floor in zip(values, floors, strict=True)]
    ups = [up.compare("!=", whole[0].constant(0)) for up in ups]
    near = [up.choose(one - t, t) for up, t in zip(ups, above, strict=True)]
    far = [up.choose(t, one - t) for up, t in zip(ups, above, strict=True)]
    cost, worst, wrong = _cost(near, total + ups_total, four)
    other_cost, other_worst, other_wrong = _cost(far, total - ups_total, four)
    other = other_cost.compare("<", cost)
    worst, pending = other.choose(other_worst, worst), other.choose(other_wrong, wrong)
    points = []
    for floor, up, one_error, other_error in zip(floors, ups, near, far, strict=True):
        turn = pending & other.choose(other_error, one_error).compare("==", worst)
        pending = pending ^ turn
        points.append(floor + (up ^ other).choose(turn.choose(zero - one, one), turn.choose(two, zero)))
    return points


@no_type_check
def _sum(vectors):
    """Sum in the order of the generic form."""
    total = vectors[0]
    for vector in vectors[1:]:
        total = total + vector
    return total


@no_type_check
def _cost(errors, total, four):
    """Squared error with a sum divisible by 4, the largest error, and whether its coordinate must turn."""
    worst = errors[0]
    for error in errors[1:]:
        worst = worst.maximum(error)
    wrong = (total & total.constant(2)).compare("!=", total.constant(0))
    turning = four - four * worst
    return _sum([error * error for error in errors]) + wrong.choose(turning, worst.constant(0.0)), worst, wrong


@no_type_check
def _every(like, number):
    """A number in every lane."""
    vector = Vector(like.builder, ir.Constant(like.value.type, ir.Undefined))
    for lane in range(LANES):
        place = ir.Constant(ir.IntType(32), lane)
        vector.value = like.builder.insert_element(vector.value, number, place)
    return vector


@no_type_check
def _load(context, builder, kind, array, start):
    """Eight rows of 16 numbers, each of two vectors."""
    rows = [builder.add(start, ir.Constant(start.type, i)) for i in range(8)]
    return [Vector(builder, builder.load(row_pointer(context, builder, kind, array, row), align=4)) for row in rows]


@no_type_check
def _shuffle(builder, one, other, mask):
    """Entries of two vectors by index."""
    constant = ir.Constant(ir.VectorType(ir.IntType(32), len(mask)), mask)
    return Vector(builder, builder.shuffle_vector(one.value, other.value, constant))


@no_type_check
def _transpose(builder, rows):
    """From rows to coordinates, in three rounds that each tell even from odd entries; lanes come out permuted."""
    for _ in range(3):
        pairs = list(zip(rows[0::2], rows[1::2], strict=True))
        rows = [
            _shuffle(builder, one, other, list(range(first, 2 * LANES, 2))) for first in (0, 1) for one, other in pairs
        ]
    return rows


@no_type_check
def _transpose_back(builder, rows):
    """Undo `_transpose`: each round interleaves."""
    mask = [lane // 2 + (lane % 2) * LANES for lane in range(2 * LANES)]
    for _ in range(3):
        pairs = [
            [_shuffle(builder, even, odd, half) for half in (mask[:LANES], mask[LANES:])]
            for even, odd in zip(rows[:4], rows[4:], strict=True)
        ]
        rows = [row for pair in pairs for row in pair]
    return rows
