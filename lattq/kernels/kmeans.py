"""Nearest entries of a codebook, 32 vectors at a time, and the sums of their cells.

Coordinates lie as (blocks, dimension, 16). A loop over all entries keeps the coordinates of two blocks, their best
scores and indices in registers, so that no table of distances exists. The score is the inner product less half the
squared length of an entry: the greatest is the nearest, and of equal ones the first wins.
"""

from typing import no_type_check  # functions wrapped for run-time checks would not compile

import numba
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from lattq.kernels.lanes import LANES, Vector, row_pointer

__all__ = ["PAIR", "add_cells", "nearest", "spread_blocks", "squared_error"]

PAIR = 2 * LANES
compiled = numba.njit(cache=True, nogil=True, error_model="numpy")


@compiled
@no_type_check
def spread_blocks(x, start, stop, out):
    """Rows from `start` on as (blocks, dimension, 16); the last row again where rows run out."""
    for block in range(out.shape[0]):
        for lane in range(LANES):
            row = min(start + block * LANES + lane, stop - 1)
            for i in range(x.shape[1]):
                out[block, i, lane] = x[row, i]


@compiled
@no_type_check
def nearest(blocks, dimension, entries, found):
    """Index of the best of `entries`, rows of coordinates and minus half the squared length, for all vectors.

    `dimension` is a tuple as long as vectors are: their length is part of the compiled code.
    """
    for pair in range(blocks.shape[0] // 2):
        _pair(blocks, pair, dimension, entries, len(entries), found)


@compiled
@no_type_check
def add_cells(x, weights, found, start, stop, mass, moment):
    """Add up weights and weighted coordinates of each cell, in the order of rows."""
    for row in range(start, stop):
        cell = found[row]
        weight = weights[row] if len(weights) else 1.0
        mass[cell] += weight
        for i in range(x.shape[1]):
            moment[cell, i] += weight * x[row, i]


@compiled
@no_type_check
def squared_error(x, weights, found, centroids, start, stop, errors):
    """Fill `errors` of each row with its weighted squared error, and return their sum."""
    total = 0.0
    for row in range(start, stop):
        error = 0.0
        for i in range(x.shape[1]):
            difference = x[row, i] - centroids[found[row], i]
            error += difference * difference
        error *= weights[row] if len(weights) else 1.0
        errors[row] = error
        total += error
    return total


@intrinsic
@no_type_check
def _pair(typing, blocks, pair, dimension, entries, count, found):
    """Indices of the best entries for the two blocks 2 pair and 2 pair + 1."""

    def emit(context, builder, signature, arguments):
        kinds, d = signature.args, signature.args[2].count
        memory, number, _, table, many, out = arguments
        one = ir.Constant(number.type, 1)
        first = builder.shl(number, one)
        halves = [first, builder.or_(first, one)]
        points = [_load(context, builder, kinds[0], memory, half, d) for half in halves]
        scalar, vector = points[0][0].value.type.element, points[0][0].value.type
        names = ir.VectorType(ir.IntType(32), LANES)
        lowest = ir.Constant(vector, [ir.Constant(scalar, float("-inf"))] * LANES)
        best = [_variable(builder, lowest) for _ in halves]
        index = [_variable(builder, ir.Constant(names, [ir.Constant(names.element, 0)] * LANES)) for _ in halves]
        data = context.make_array(kinds[3])(context, builder, table).data
        width = ir.Constant(number.type, d + 1)
        with cgutils.for_range(builder, many) as loop:
            base = builder.gep(data, [builder.mul(loop.index, width)])
            entry = [_every(builder, vector, _at(builder, base, i)) for i in range(d + 1)]
            name = _every(builder, names, builder.trunc(loop.index, names.element))
            for one_half in range(2):
                score = entry[d]
                for i in range(d):
                    score = _fma(builder, points[one_half][i].value, entry[i], score)
                held = builder.load(best[one_half])
                better = builder.fcmp_ordered(">", score, held)
                builder.store(builder.select(better, score, held), best[one_half])
                kept = builder.select(better, name, builder.load(index[one_half]))
                builder.store(kept, index[one_half])
        for one_half, row in enumerate(halves):
            pointer = row_pointer(context, builder, kinds[5], out, row)
            builder.store(builder.load(index[one_half]), pointer, align=4)
        return context.get_dummy_value()

    return types.void(blocks, pair, dimension, entries, count, found), emit


@no_type_check
def _load(context, builder, kind, memory, block, d):
    """The d coordinates of 16 vectors."""
    base = builder.mul(block, ir.Constant(block.type, d))
    rows = [builder.add(base, ir.Constant(block.type, i)) for i in range(d)]
    return [Vector(builder, builder.load(row_pointer(context, builder, kind, memory, row), align=4)) for row in rows]


@no_type_check
def _variable(builder, value):
    """A variable that starts at a value; LLVM turns it into a register."""
    place = cgutils.alloca_once(builder, value.type)
    builder.store(value, place)
    return place


@no_type_check
def _at(builder, base, place):
    """Number `place` after an address."""
    return builder.load(builder.gep(base, [ir.Constant(ir.IntType(64), place)]))


@no_type_check
def _every(builder, vector, number):
    """A number in all lanes."""
    single = builder.insert_element(ir.Constant(vector, ir.Undefined), number, ir.Constant(ir.IntType(32), 0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [ir.Constant(ir.IntType(32), 0)] * LANES)
    return builder.shuffle_vector(single, ir.Constant(vector, ir.Undefined), zeros)


@no_type_check
def _fma(builder, a, b, c):
    """a b + c, rounded once: the same on every processor."""
    kind = a.type
    name = f"llvm.fma.v{kind.count}{kind.element.intrinsic_name}"
    function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(kind, [kind] * 3), name)
    return builder.call(function, [a, b, c])
