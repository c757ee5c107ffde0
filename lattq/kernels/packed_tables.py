"""Products of matrices whose short vectors are indices into tables of at most 256 entries.

Eight indices of b bits lie in b bytes, least significant bit first, and are read as one word. The indices of some
neighbouring vectors of all rows lie together, so that what is looked up for them stays in a near cache while the rows
pass. A look-up reads one vector register: an entry, for a product with a piece of the right-hand side, or that product
for several sides, made before.
"""

from typing import no_type_check  # functions wrapped for run-time checks would not compile

import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

__all__ = ["STEP", "WORD", "add_sparse", "pack", "product"]

STEP, WORD = 64, 8  # vectors of a block and of a word
LEVELS = 16  # values of a scale
NEAR = 1 << 15  # floats of products that are made at once
CHAINS = 4  # of sums, enough to hide the latency of an addition
ALONG, DOWN, MADE = 0, 1, 2  # entries times pieces of x, entries times numbers of x, products made before


def pack(index: np.ndarray, bits: int) -> np.ndarray:
    """Bytes of indices (units, vectors) below 2^bits, and eight more that the last word may read.

    >>> pack(np.arange(8)[None], 4)[:4].tolist()
    [16, 50, 84, 118]
    """
    vectors = index.shape[1]
    padded = np.zeros((len(index), -(-vectors // WORD) * WORD), dtype=np.uint8)
    padded[:, :vectors] = index
    parts = [padded[:, start : start + STEP].reshape(-1) for start in range(0, vectors, STEP)]
    parts = [np.unpackbits(part[:, None], axis=1, count=bits, bitorder="little").reshape(-1) for part in parts]
    return np.concatenate([np.packbits(part, bitorder="little") for part in parts] + [np.zeros(WORD, np.uint8)])


def product(
    index: np.ndarray,
    bits: int,
    entries: np.ndarray,
    height: int,
    offsets: np.ndarray,
    scales: tuple[np.ndarray, np.ndarray, np.ndarray],
    x: np.ndarray,
    shape: tuple[int, int],
    units: range,
    *,
    mode: int,
    steady: bool,
) -> np.ndarray:
    """Sums of each unit (a row, or rows that vectors lie down), (units, sides, lanes), float32.

    Parameters
    ----------
    index : of `pack`
    entries : of the tables of each group of units, (groups, entries, lanes), float32; for `MADE` lanes
        come before entries
    height : units that share a table
    offsets : of the table of each vector among the entries of its group
    scales : codes (units, runs), the run of each vector, and values (runs, 16); without runs, nothing is scaled
    x : (sides, vectors, lanes) for `ALONG`, (sides, vectors, 1) for `DOWN`, (vectors, lanes, sides) for `MADE`; vectors
        are padded by zeros to whole words
    shape : units in all, and entries of a table
    mode : `ALONG`, `DOWN` or `MADE`; for the last sums are (units, 1, sides)
    steady : whether the vectors of a word share table and scale
    """
    made = mode == MADE
    lanes, sides = (x.shape[2], 1) if made else (entries.shape[2], len(x))
    sums = np.zeros((len(units), sides, lanes), dtype=np.float32)
    vectors = len(x) if made else x.shape[1]
    numbers = (units.start, units.stop, vectors, *shape, height, 0 if made else entries.shape[1])
    marks = [(0,) * length for length in (bits, lanes, sides, mode + 1, 1 + steady, 1 + (scales[0].size > 0))]
    if made:
        once = (0,)
        if lanes == 1 and steady:  # entries times the numbers of eight pieces, which lie side by side
            x, once = np.ascontiguousarray(x.reshape(-1, WORD, x.shape[1]).swapaxes(1, 2)), (0,) * WORD
        marks.append(once)
        _made(index, entries, offsets, *scales, x, sums, numbers, *marks)
    else:
        _direct(index, entries, offsets, *scales, x, sums, numbers, *marks)
    return sums


@numba.njit(cache=True, nogil=True)
@no_type_check
def _direct(index, entries, offsets, codes, runs, values, x, sums, numbers, bits, lanes, sides, mode, steady, scaled):
    """Entries times x."""
    first, last, vectors, units, _, height, group = numbers
    for start in range(0, vectors, STEP):
        words = min(STEP, vectors - start) // WORD
        near = start * units // WORD * len(bits)
        for unit in range(first, last):
            place = near + unit * words * len(bits)
            base = unit // height * group
            _look_up(
                index, place, words, entries, base, offsets, start, x, codes, unit, runs, values, sums, unit - first,
                bits, lanes, sides, mode, steady, scaled,
            )  # fmt: skip


@numba.njit(cache=True, nogil=True)
@no_type_check
def _made(
    index, entries, offsets, codes, runs, values, x, sums, numbers, bits, lanes, sides, mode, steady, scaled, once
):  # fmt: skip
    """Products of entries and pieces of x, made for some words and a group of units, and added up by index.

    Those of the eight vectors of a word lie side by side for each entry, so that places differ by constants.
    """
    first, last, vectors, units, size, height, _ = numbers
    step = min(max(NEAR // (size * len(lanes)) // WORD, 1) * WORD, STEP)
    made = np.empty(step * size * len(lanes), np.float32)
    for start in range(0, vectors, step):
        count = min(step, vectors - start)
        block = start // STEP * STEP
        whole = min(STEP, vectors - block) // WORD
        near = (block * units + start - block) // WORD * len(bits)
        for low in range(first // height * height, last, height):
            table = entries[low // height]
            for i in range(0, count, WORD):
                if len(once) == WORD:
                    offset = np.int64(offsets[start + i])
                    _make(table, offset, x, (start + i) // WORD, made, i // WORD * size, 1, size, once)
                    continue
                for k in range(WORD):
                    offset = np.int64(offsets[start + i + k])
                    _make(table, offset, x, start + i + k, made, i * size + k, WORD, size, lanes)
            for unit in range(max(low, first), min(low + height, last)):
                place = near + unit * whole * len(bits)
                _look_up(
                    index, place, count // WORD, made, size, offsets, start, x, codes, unit, runs, values, sums,
                    unit - first, bits, lanes, sides, mode, steady, scaled,
                )  # fmt: skip


@numba.njit(cache=True, nogil=True)
@no_type_check
def add_sparse(starts, columns, values, x, out, first, last):
    """Add rows of a sparse matrix times x, (sides, columns), to `out`, (sides, rows)."""
    for row in range(first, last):
        for side in range(len(x)):
            total = np.float32(0)
            for place in range(starts[row], starts[row + 1]):
                total += values[place] * x[side, columns[place]]
            out[side, row] += total


@intrinsic
@no_type_check
def _look_up(
    typing, index, place, words, entries, base, offsets, start, x, codes, unit, runs, values, sums, out,
    bits, lanes, sides, mode, steady, scaled,
):  # fmt: skip
    """Add one unit's look-ups of a block to its sums; the last six say by their length what code is made.

    `base` is where the tables of the unit begin, and for products made before the number of entries of a table.
    """

    def emit(context, builder, signature, arguments):
        kinds = signature.args
        names = ("index", "entries", "offsets", "x", "codes", "runs", "values", "sums")
        arrays = [
            context.make_array(kind)(context, builder, argument)
            for kind, argument in zip(kinds, arguments, strict=True)
            if isinstance(kind, types.Array)
        ]
        data = {name: array.data for name, array in zip(names, arrays, strict=True)}
        place, words, base, start, unit, out = (arguments[i] for i in (1, 2, 4, 6, 9, 13))
        bits, lanes, sides, mode, steady, scaled = (kind.count for kind in kinds[14:])
        code = _Code(builder, data, lanes, sides, mode - 1)
        across = arrays[3].shape
        reach = builder.mul(builder.extract_value(across, 1), builder.extract_value(across, 2))
        row = builder.mul(unit, builder.extract_value(arrays[4].shape, 1))
        own = builder.mul(out, place.type(sides * lanes))
        chains = CHAINS if sides == 1 else 1
        held = [[cgutils.alloca_once_value(builder, code.zero) for _ in range(chains)] for _ in range(sides)]
        with cgutils.for_range(builder, words) as loop:
            begin = builder.add(place, builder.mul(loop.index, place.type(bits)))
            pointer = builder.bitcast(builder.gep(data["index"], [begin]), ir.IntType(64).as_pointer())
            word = builder.load(pointer, align=1)
            vector = builder.add(start, builder.mul(loop.index, place.type(WORD)))
            for k in range(WORD):
                entry = builder.and_(builder.lshr(word, word.type(bits * k)), word.type((1 << bits) - 1))
                current = builder.add(vector, vector.type(k))
                if k == 0 or steady == 1:
                    scale = code.scale(row, current) if scaled == 2 else None
                if code.mode == MADE:
                    table = builder.mul(builder.mul(loop.index, base), place.type(WORD))
                    entry = builder.or_(builder.mul(entry, place.type(WORD)), place.type(k))
                elif k == 0 or steady == 1:
                    table = builder.add(base, code.integer("offsets", current))
                found = code.load("entries", builder.mul(builder.add(table, entry), table.type(lanes)))
                code.add(found if scale is None else builder.fmul(found, scale), current, reach, held, k % chains)
        for side, chain in enumerate(held):
            place = builder.add(own, own.type(side * lanes))
            total = code.load("sums", place)
            for one in chain:
                total = builder.fadd(total, builder.load(one))
            code.store(place, total)
        return context.get_dummy_value()

    inputs = (index, place, words, entries, base, offsets, start, x, codes, unit, runs, values, sums, out)
    return types.void(*inputs, bits, lanes, sides, mode, steady, scaled), emit


@intrinsic
@no_type_check
def _make(typing, entries, table, x, vector, made, place, step, size, lanes):
    """Products of the entries of a table with pieces that lie side by side in a register, at every `step` registers."""

    def emit(context, builder, signature, arguments):
        kinds = signature.args
        arrays = [context.make_array(kinds[i])(context, builder, arguments[i]) for i in (0, 2, 4)]
        table, vector, place, step, size = (arguments[i] for i in (1, 3, 5, 6, 7))
        data = dict(zip(("entries", "x", "sums"), (array.data for array in arrays), strict=True))
        code = _Code(builder, data, kinds[8].count)
        width = table.type(code.lanes)
        depth, across = (builder.extract_value(arrays[0].shape, i) for i in range(2))
        with cgutils.for_range(builder, size) as loop:
            total = cgutils.alloca_once_value(builder, code.zero)
            with cgutils.for_range(builder, depth) as inner:
                entry = builder.add(builder.mul(inner.index, across), builder.add(table, loop.index))
                piece = builder.add(builder.mul(vector, depth), inner.index)
                value = builder.fmul(
                    code.spread("entries", entry), code.load("x", builder.mul(piece, width)), flags=("contract",)
                )
                builder.store(builder.fadd(builder.load(total), value, flags=("contract",)), total)
            target = builder.add(place, builder.mul(loop.index, step))
            code.store(builder.mul(target, width), builder.load(total))
        return context.get_dummy_value()

    return types.void(entries, table, x, vector, made, place, step, size, lanes), emit


@no_type_check
class _Code:
    """Writes the instructions that are the same for each look-up."""

    def __init__(self, builder, data, lanes, sides=1, mode=MADE):
        self.builder, self.data, self.lanes, self.sides, self.mode = builder, data, lanes, sides, mode
        self.whole = ir.IntType(64)
        self.kind = ir.VectorType(ir.FloatType(), lanes) if lanes > 1 else ir.FloatType()
        self.zero = ir.Constant(self.kind, [0.0] * lanes if lanes > 1 else 0.0)

    def load(self, name, index):
        """A register from this entry on."""
        pointer = self.builder.gep(self.data[name], [index])
        return self.builder.load(self.builder.bitcast(pointer, self.kind.as_pointer()), align=4)

    def spread(self, name, index):
        """One number in every lane."""
        number = self.builder.load(self.builder.gep(self.data[name], [index]))
        if self.lanes == 1:
            return number
        single = self.builder.insert_element(ir.Constant(self.kind, ir.Undefined), number, ir.IntType(32)(0))
        mask = ir.Constant(ir.VectorType(ir.IntType(32), self.lanes), [0] * self.lanes)
        return self.builder.shuffle_vector(single, single, mask)

    def integer(self, name, index):
        """An entry of an array of integers."""
        return self.builder.zext(self.builder.load(self.builder.gep(self.data[name], [index])), self.whole)

    def scale(self, row, vector):
        """The scale of this vector of the row whose codes begin at `row`."""
        run = self.integer("runs", vector)
        code = self.integer("codes", self.builder.add(row, run))
        return self.spread("values", self.builder.add(self.builder.mul(run, self.whole(LEVELS)), code))

    def add(self, entry, vector, reach, held, chain):
        """Add the products of an entry to the sums of each side."""
        for side in range(self.sides):
            value = entry
            if self.mode != MADE:
                begin = self.builder.mul(reach, self.whole(side))
                step = self.lanes if self.mode == ALONG else 1
                place = self.builder.add(begin, self.builder.mul(vector, self.whole(step)))
                other = self.load("x", place) if self.mode == ALONG else self.spread("x", place)
                value = self.builder.fmul(entry, other, flags=("contract",))
            found = held[side][chain]
            self.builder.store(self.builder.fadd(self.builder.load(found), value, flags=("contract",)), found)

    def store(self, place, value):
        """Write a register to the sums."""
        pointer = self.builder.gep(self.data["sums"], [place])
        self.builder.store(value, self.builder.bitcast(pointer, self.kind.as_pointer()), align=4)
