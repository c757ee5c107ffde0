"""Products of matrices of nested E8 codes with an odd q, from 32 bits for each vector of eight weights.

In integer coordinates, where E8 is the even and the odd vectors whose sum is divisible by 4, a coset of q E8 is known
from its coordinates modulo q, since q is odd. Coordinate i is 2 c_i modulo q with -q / 2 < c_i < q / 2. With g = |c|,
and s = 1 for c >= 0, else -1, the shortest even and odd candidates of the coset are

    2 c_i   and   2 c_i - q s_i ,

and the squared length of the first exceeds that of the second by 4 q (sum of g - 2 q). A sum that is not divisible by
4, a question of parities, is put right in one coordinate: the even one becomes 2 c_i - 2 q s_i where g is largest, the
odd one 2 c_i + q s_i where it is least. All that fits bytes, so one instruction works for 64 vectors.

Of equally short ones the leader is the least in the direction exp(-i / 8), as `VoronoiCode` has it. The flips are
found by the largest and the least of distinct keys: 16 g + 15 - i for c >= 0, 16 g + i for c < 0. The two candidates
differ by q in every coordinate, and integer weights 13, 11, ..., 5 tell the sign of that difference for all 256
patterns.
"""

from typing import no_type_check  # functions wrapped for run-time checks would not compile

import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from lattq.kernels.lanes import Vector

__all__ = ["LARGEST", "VECTORS", "leaders", "pack", "product"]

VECTORS, LARGEST = 64, 13  # of a block; the largest q, whose fourth power fits 15 bits
WEIGHTS = (13, 11, 10, 9, 8, 7, 6, 5)
QUARTER = 16  # lanes of float32
SHIFT = np.uint16(2)  # an argument: a constant would be merged with the shift before it, and spoil the high product
BYTES, HALVES = ir.VectorType(ir.IntType(8), VECTORS), ir.VectorType(ir.IntType(16), VECTORS)
FLOATS = ir.VectorType(ir.FloatType(), QUARTER)


def pack(cosets: np.ndarray, scale: np.ndarray, q: int) -> np.ndarray:
    """Words of 16 bits, (rows, blocks, 2, 64): four digits in base q, and above them a bit of the index of the scale.

    Parameters
    ----------
    cosets : c + (q - 1) / 2 of the coordinates, (rows, vectors, 8) with vectors a multiple of 64
    scale : 0 ... 3, (rows, vectors)
    """
    powers = np.array([1, q, q * q, q**3], dtype=np.uint16)
    words = (cosets.reshape(*scale.shape, 2, 4).astype(np.uint16) * powers).sum(axis=-1, dtype=np.uint16)
    words |= ((scale[..., None] >> np.arange(2)) << 15).astype(np.uint16)
    return np.ascontiguousarray(words.reshape(len(words), -1, VECTORS, 2).swapaxes(2, 3))


def leaders(words: np.ndarray, q: int) -> np.ndarray:
    """Leaders in integer coordinates (int8), (vectors, 8), of whole blocks."""
    found = np.empty((words.size // (2 * VECTORS), 8, VECTORS), dtype=np.int8)
    _leaders(words.reshape(-1), (0,) * q, SHIFT, found.reshape(-1))
    return found.swapaxes(1, 2).reshape(-1, 8)


def reciprocal(q: int) -> np.uint16:
    """2^18 / q, rounded up: a quotient is the high half of the product with it, shifted by two."""
    return np.uint16(-(-(1 << 16 + int(SHIFT)) // q))


def product(
    words: np.ndarray, q: int, factors: np.ndarray, scales: np.ndarray, x: np.ndarray, out: np.ndarray, rows: range
) -> None:
    """Write rows of the product into `out`, (right-hand sides, rows), float32.

    Parameters
    ----------
    words : of `pack`
    factors : what the four indices of scales multiply leaders by, float32
    scales : of each row and group of blocks, float32
    x : coordinate after coordinate in each block, (right-hand sides, blocks, 8, 64), float32
    """
    _rows(words, (0,) * q, SHIFT, factors, scales, x, out, rows.start, rows.stop)


@numba.njit(cache=True, nogil=True)
@no_type_check
def _leaders(words, q, shift, found):
    """All blocks."""
    for block in range(len(found) // (8 * VECTORS)):
        decode(words, block, q, shift, found, 8 * block)


@numba.njit(cache=True, nogil=True)
@no_type_check
def _rows(words, q, shift, factors, scales, x, out, first, last):
    """A block is decoded once for all right-hand sides."""
    blocks, sides = words.shape[1], x.shape[0]
    each = blocks // scales.shape[1]
    points, sums = np.empty(8 * VECTORS, np.int8), np.empty((sides, QUARTER), np.float32)
    scaled = np.empty(4, np.float32)
    for row in range(first, last):
        sums[:] = 0
        for block in range(blocks):
            if block % each == 0:
                for i in range(4):
                    scaled[i] = factors[i] * scales[row, block // each]
            decode(words, row * blocks + block, q, shift, points, 0)
            for side in range(sides):
                add(points, words, row * blocks + block, scaled, x, side * blocks + block, sums, side)
        for side in range(sides):
            total = np.float32(0)
            for i in range(QUARTER):
                total += sums[side, i]
            out[side, row] = total


@no_type_check
def _place(context, builder, kind, array, index, vector):
    """Address of a vector of an array, counted in such."""
    data = context.make_array(kind)(context, builder, array).data
    return builder.gep(builder.bitcast(data, vector.as_pointer()), [index])


@intrinsic
@no_type_check
def decode(typing, words, block, q, shift, out, row):
    """Leaders of 64 vectors, coordinate after coordinate, into rows of 64 bytes from this one on; q is a length."""

    def emit(context, builder, signature, arguments):
        kinds, (words, block, _, shift, out, row) = signature.args, arguments
        first = builder.shl(block, block.type(1))
        digits = []
        every = _every(builder, HALVES, shift)
        for place in (first, builder.or_(first, block.type(1))):
            half = Vector(builder, builder.load(_place(context, builder, kinds[0], words, place, HALVES), align=2))
            digits += _digits(half & half.constant(2**15 - 1), len(kinds[2]), every)
        side = Vector(builder, ir.Constant(BYTES, [len(kinds[2])] * VECTORS))
        cosets = [
            Vector(builder, builder.trunc(digit.value, BYTES)) - side.constant(len(kinds[2]) // 2) for digit in digits
        ]
        for i, point in enumerate(_points(cosets, side)):
            place = _place(context, builder, kinds[4], out, builder.add(row, row.type(i)), BYTES)
            builder.store(point.value, place, align=1)
        return context.get_dummy_value()

    return types.void(words, block, q, shift, out, row), emit


@no_type_check
def _every(builder, kind, number):
    """A number in every lane."""
    single = builder.insert_element(ir.Constant(kind, ir.Undefined), number, ir.Constant(ir.IntType(32), 0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), kind.count), [0] * kind.count)
    return Vector(builder, builder.shuffle_vector(single, single, zeros))


@no_type_check
def _digits(number, q, shift):
    """Four digits in base q, the lowest first."""
    builder, wide = number.builder, ir.VectorType(ir.IntType(32), VECTORS)
    inverse, half = (ir.Constant(wide, [value] * VECTORS) for value in (int(reciprocal(q)), 16))
    found = []
    for _ in range(3):
        long = builder.mul(builder.zext(number.value, wide), inverse)
        quotient = builder.lshr(builder.trunc(builder.lshr(long, half), HALVES), shift.value)
        found.append(number - Vector(builder, builder.mul(quotient, number.constant(q).value)))
        number = Vector(builder, quotient)
    return [*found, number]


@no_type_check
def _points(cosets, q):
    """Leaders of the cosets, see above."""
    builder, zero = q.builder, q.constant(0)
    negative = [c.compare("<", zero) for c in cosets]
    sizes = [c.maximum(zero - c) for c in cosets]
    keys = [
        Vector(builder, builder.shl(g.value, g.constant(4).value)) + n.choose(g.constant(i), g.constant(15 - i))
        for i, (g, n) in enumerate(zip(sizes, negative, strict=True))
    ]
    total, bits, most, least = sizes[0], cosets[0], keys[0], keys[0]
    for g, c, key in zip(sizes[1:], cosets[1:], keys[1:], strict=True):
        total, bits, most, least = total + g, bits ^ c, most.maximum(key), least.minimum(key)
    even_wrong = (bits & q.constant(1)).compare("!=", zero)
    odd_wrong = even_wrong ^ bits.compare("<", zero)
    none, twice = q.constant(-1), q + q
    high, low = [_shifted(key) for key in (most, least)]
    excess = total - twice + even_wrong.choose(q - high - high, zero) - odd_wrong.choose(low + low, zero)
    even_flip, odd_flip = even_wrong.choose(most, none), odd_wrong.choose(least, none)
    side = zero
    for key, n, weight in zip(keys, negative, WEIGHTS, strict=True):
        turned = n ^ key.compare("==", even_flip) ^ key.compare("==", odd_flip)
        side = side + turned.choose(q.constant(weight), zero)
    tie = side.compare("<", q.constant(sum(WEIGHTS) // 2 + 1))
    odd = excess.compare(">", tie.choose(none, zero))
    flip, plain, moved = odd.choose(odd_flip, even_flip), odd.choose(q, zero), odd.choose(zero - q, twice)
    found = []
    for c, key, n in zip(cosets, keys, negative, strict=True):
        step = key.compare("==", flip).choose(moved, plain)
        found.append(c + c - n.choose(zero - step, step))
    return found


@no_type_check
def _shifted(key):
    """The size in a key."""
    return Vector(key.builder, key.builder.lshr(key.value, key.constant(4).value))


@intrinsic
@no_type_check
def add(typing, points, words, block, factors, x, place, sums, side):
    """Add the products of 64 leaders and a block of a right-hand side to its 16 sums."""

    def emit(context, builder, signature, arguments):
        kinds, (points, words, block, factors, x, place, sums, side) = signature.args, arguments
        fused = cgutils.get_or_insert_function(builder.module, ir.FunctionType(FLOATS, [FLOATS] * 3), "llvm.fma.v16f32")
        table = context.make_array(kinds[3])(context, builder, factors).data
        own = [_every(builder, FLOATS, builder.load(builder.gep(table, [block.type(i)]))) for i in range(4)]
        target = _place(context, builder, kinds[6], sums, side, FLOATS)
        total = builder.load(target, align=4)
        for quarter in range(VECTORS // QUARTER):
            found = ir.Constant(FLOATS, [0.0] * QUARTER)
            for i in range(8):
                row = block.type(i * 4 + quarter)
                near = ir.VectorType(ir.IntType(8), QUARTER)
                point = builder.load(_place(context, builder, kinds[0], points, row, near), align=1)
                wide = builder.sext(point, ir.VectorType(ir.IntType(32), QUARTER))
                row = builder.add(builder.mul(place, place.type(32)), row)
                other = builder.load(_place(context, builder, kinds[4], x, row, FLOATS), align=4)
                found = builder.call(fused, [builder.sitofp(wide, FLOATS), other, found])
            one, two = (_bit(context, builder, kinds[1], words, block, 4 * half + quarter) for half in (0, 1))
            factor = two.choose(one.choose(own[3], own[2]), one.choose(own[1], own[0]))
            total = builder.call(fused, [factor.value, found, total])
        builder.store(total, target, align=4)
        return context.get_dummy_value()

    return types.void(points, words, block, factors, x, place, sums, side), emit


@no_type_check
def _bit(context, builder, kind, words, block, part):
    """The highest bits of 16 words."""
    near = ir.VectorType(ir.IntType(16), QUARTER)
    row = builder.add(builder.mul(block, block.type(8)), block.type(part))
    word = Vector(builder, builder.load(_place(context, builder, kind, words, row, near), align=2))
    return word.compare("<", word.constant(0))
