"""Products of matrices of 4-bit codes: look-ups in tables of 16 numbers in the instructions that read the codes.

A block of 128 columns of a row is 16 words of 32 bits, and bits 4 k ... 4 k + 3 of word l hold column 16 k + l: then 16
codes of neighbouring columns lie side by side after one shift. A table with its scale is a vector register, and a
permutation of it by 16 codes gives 16 weights in float32, rounded as a product in float32 is.
"""

import functools
from typing import no_type_check  # functions wrapped for run-time checks would not compile

import numba
import numpy as np
from llvmlite import binding, ir
from numba.core import cgutils, types
from numba.extending import intrinsic

__all__ = ["BLOCK", "LANES", "pack", "product", "runs_permutations"]

BLOCK, LANES, SIDES = 128, 16, 4  # columns of a block and of a vector, right-hand sides taken together
FLOATS, WORDS = ir.VectorType(ir.FloatType(), LANES), ir.VectorType(ir.IntType(32), LANES)


def pack(index: np.ndarray) -> np.ndarray:
    """Words of indices 0 ... 15, (rows, columns) with columns a multiple of 128.

    >>> [hex(word) for word in pack(np.arange(128)[None] // 16)[0, :2]]
    ['0x76543210', '0x76543210']
    """
    parts = index.reshape(len(index), -1, BLOCK // LANES, LANES)
    words = np.zeros((len(index), parts.shape[1], LANES), dtype=np.uint32)
    for k in range(BLOCK // LANES):
        words |= parts[:, :, k].astype(np.uint32) << np.uint32(4 * k)
    return words.reshape(len(index), -1)


@functools.cache
def runs_permutations() -> bool:
    """Whether compiled code may use the permutation of 16 floats, as code for this very processor with AVX-512 may."""
    own = numba.config.CPU_NAME is None and numba.config.CPU_FEATURES is None  # pyright: ignore[reportAttributeAccessIssue]
    return own and bool(binding.get_host_cpu_features().get("avx512f", False))


def product(
    words: np.ndarray,
    tables: np.ndarray,
    which: np.ndarray,
    scales: np.ndarray,
    x: np.ndarray,
    out: np.ndarray,
    rows: range,
    *,
    plain: bool = False,
) -> None:
    """Write rows of the product into `out`, (right-hand sides, rows), float32.

    Parameters
    ----------
    words : of `pack`
    tables : (tables, 16), float32
    which : table of each row and group, (rows, groups), uint16
    scales : of each row and group, float32; groups have 16, 32, 64 or a multiple of 128 columns
    x : (right-hand sides, columns), float32
    plain : the form for any processor, which `runs_permutations` decides otherwise
    """
    group = x.shape[1] // scales.shape[1]
    if plain or not runs_permutations():
        _plain(words, tables, which, scales, x, out, rows.start, rows.stop, group)
        return
    each, repeat = max(1, BLOCK // group), max(1, group // BLOCK)
    marker = (0,) * each
    for side in range(0, len(x), SIDES):
        sides = min(SIDES, len(x) - side)
        if sides in (1, SIDES):
            part, found = x[side : side + sides], out[side : side + sides]
        else:
            part, found = np.zeros((SIDES, x.shape[1]), np.float32), np.empty((SIDES, out.shape[1]), np.float32)
            part[:sides] = x[side:]
        each_side = (0,) * len(part)
        _permuted(words, tables, which, scales, part, found, rows.start, rows.stop, repeat, marker, each_side)
        if len(found) != sides:
            out[side:, rows.start : rows.stop] = found[:sides, rows.start : rows.stop]


@numba.njit(cache=True, nogil=True)
@no_type_check
def _plain(words, tables, which, scales, x, out, first, last, group):
    """One code after the other."""
    for row in range(first, last):
        for side in range(x.shape[0]):
            total = np.float32(0.0)
            for column in range(x.shape[1]):
                word = words[row, column // BLOCK * LANES + column % LANES]
                code = (word >> np.uint32(4 * (column % BLOCK // LANES))) & np.uint32(15)
                place = column // group
                total += tables[which[row, place], code] * scales[row, place] * x[side, column]
            out[side, row] = total


@numba.njit(cache=True, nogil=True)
@no_type_check
def _permuted(words, tables, which, scales, x, out, first, last, repeat, each, sides):
    """Two rows at a time, which share what is read of x, for as many right-hand sides as `sides` is long."""
    blocks = words.shape[1] // LANES
    for row in range(first, last - 1, 2):
        _row(words, tables, which, scales, x, out, row, blocks, repeat, each, sides, (0, 0))
    if (last - first) % 2:
        _row(words, tables, which, scales, x, out, last - 1, blocks, repeat, each, sides, (0,))


@intrinsic
@no_type_check
def _row(typing, words, tables, which, scales, x, out, row, blocks, repeat, each, sides, rows):
    """Products of neighbouring rows; the last three count groups of a block, right-hand sides and rows by length."""

    def emit(context, builder, signature, arguments):
        kinds = signature.args
        arrays = [context.make_array(kind)(context, builder, a) for kind, a in zip(kinds, arguments[:6], strict=False)]
        words, tables, which, scales, x, out = (array.data for array in arrays)
        first, blocks, repeat = arguments[6:9]
        each, sides, count = (len(kind) for kind in kinds[9:12])
        lines = [builder.add(first, first.type(i)) for i in range(count)]
        zero = ir.Constant(FLOATS, [0.0] * LANES)
        chains = range(SIDES if sides == 1 else 1)  # of sums, enough to hide the latency of an addition
        sums = [[[cgutils.alloca_once_value(builder, zero) for _ in chains] for _ in range(sides)] for _ in lines]
        columns = builder.mul(blocks, blocks.type(BLOCK))
        runs = builder.udiv(blocks, repeat)
        with cgutils.for_range(builder, runs) as outer:
            held = [_scaled(builder, (tables, which, scales), row, runs, outer.index, each) for row in lines]
            with cgutils.for_range(builder, repeat) as inner:
                block = builder.add(builder.mul(outer.index, repeat), inner.index)
                read = []
                for row in lines:
                    start = builder.mul(builder.add(builder.mul(row, blocks), block), blocks.type(LANES))
                    read.append(_load(builder, words, start, WORDS))
                _block(builder, held, read, x, builder.mul(block, blocks.type(BLOCK)), columns, sums)
        for row, of_row in zip(lines, sums, strict=True):
            for side, own in enumerate(of_row):
                place = builder.add(builder.mul(row.type(side), builder.extract_value(arrays[5].shape, 1)), row)
                builder.store(_total(builder, [builder.load(one) for one in own]), builder.gep(out, [place]))
        return context.get_dummy_value()

    return types.void(words, tables, which, scales, x, out, row, blocks, repeat, each, sides, rows), emit


@no_type_check
def _scaled(builder, arrays, row, runs, run, each):
    """Tables of some groups of a row, times their scales."""
    tables, which, scales = arrays
    start = builder.mul(builder.add(builder.mul(row, runs), run), row.type(each))
    found = []
    for i in range(each):
        place = builder.add(start, row.type(i))
        number = builder.zext(builder.load(builder.gep(which, [place])), row.type)
        table = _load(builder, tables, builder.mul(number, row.type(LANES)), FLOATS)
        found.append(builder.fmul(table, _spread(builder, builder.load(builder.gep(scales, [place])))))
    return found


@no_type_check
def _block(builder, held, words, x, start, columns, sums):
    """Add the products of 128 columns to the sums of each row and right-hand side."""
    kind = ir.FunctionType(FLOATS, [FLOATS, WORDS])
    permute = cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.avx512.permvar.sf.512")
    fused = cgutils.get_or_insert_function(builder.module, ir.FunctionType(FLOATS, [FLOATS] * 3), "llvm.fma.v16f32")
    for k in range(BLOCK // LANES):
        amount = ir.Constant(WORDS, [4 * k] * LANES)  # the permutation reads the low four bits
        tables = [own[k * len(own) * LANES // BLOCK] for own in held]
        shifted = [builder.lshr(word, amount) for word in words]
        weights = [builder.call(permute, pair) for pair in zip(tables, shifted, strict=True)]
        for side in range(len(sums[0])):
            place = builder.add(start, builder.add(builder.mul(columns, columns.type(side)), columns.type(LANES * k)))
            other = _load(builder, x, place, FLOATS)
            for weight, of_row in zip(weights, sums, strict=True):
                found = of_row[side][k % len(of_row[side])]
                builder.store(builder.call(fused, [weight, other, builder.load(found)]), found)


@no_type_check
def _load(builder, data, index, kind):
    """Vector from this entry on."""
    return builder.load(builder.bitcast(builder.gep(data, [index]), kind.as_pointer()), align=4)


@no_type_check
def _spread(builder, number):
    """A number in every lane."""
    single = builder.insert_element(ir.Constant(FLOATS, ir.Undefined), number, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(single, single, ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES))


@no_type_check
def _total(builder, vectors):
    """Sum of the entries of some vectors, by halves."""
    while len(vectors) > 1:
        vectors = [builder.fadd(one, other) for one, other in zip(vectors[::2], vectors[1::2], strict=True)]
    value, lanes = vectors[0], LANES
    while lanes > 1:
        lanes //= 2
        masks = [ir.Constant(ir.VectorType(ir.IntType(32), lanes), list(range(i, i + lanes))) for i in (0, lanes)]
        value = builder.fadd(*(builder.shuffle_vector(value, value, mask) for mask in masks))
    return builder.extract_element(value, ir.Constant(ir.IntType(32), 0))
