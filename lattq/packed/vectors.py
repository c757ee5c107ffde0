"""The form of codebooks: indices of vectors along the rows or down them, into tables of at most 256 entries."""

import dataclasses
from collections.abc import Callable

import numpy as np
from jaxtyping import Float, UInt8, UInt32

from lattq._array import short_repr
from lattq.coding.indices import Indices
from lattq.errors import InvalidInputError
from lattq.packed.forms import VALUES
from lattq.parts.forms import TableForm

__all__ = ["VectorTables", "check_fit", "scalar_group", "vector_tables"]

MOST_ENTRIES, MOST_WEIGHTS = 256, 8  # an index is at most a byte, and an entry one register
SHORTEST = 8  # columns of a group in `Tables`
LEVELS = 16  # values of a scale
PARTS = 8  # of the rows, which threads take, and which each make products of their own
NEAR = 64  # entries of a table whose products stay in the nearest cache


@short_repr
@dataclasses.dataclass(frozen=True, eq=False)
class VectorTables:
    """Indices of vectors, packed without gaps, into tables shared by rows and by columns.

    A unit is a row, or the rows that one vector lies down.

    Attributes
    ----------
    index : bytes of indices of `bits` bits
    entries : of the tables of each group of units, padded by zeros to a power of two
    offsets : of the table of each vector, in entries
    codes, runs, values : of scales: for each unit and run, the run of each vector, and what a code of a run stands for
    gains : of the rows
    shape : units, and vectors of each
    size, dimension : of a table and an entry
    height : units that share a table
    down : whether vectors lie down the rows
    steady : whether the vectors of each word share table and scale
    """

    index: UInt8[np.ndarray, " bytes"]
    bits: int
    entries: Float[np.ndarray, "groups entries lanes"]
    offsets: UInt32[np.ndarray, " vectors"]
    codes: UInt8[np.ndarray, "units runs"]
    runs: UInt32[np.ndarray, " vectors"]
    values: Float[np.ndarray, "runs 16"]
    gains: Float[np.ndarray, " rows"] | None
    shape: tuple[int, int]
    size: int
    dimension: int
    height: int
    down: bool
    steady: bool

    def product(self, x: np.ndarray, out: np.ndarray) -> Callable[[range], None]:
        """What writes rows of the product with (sides, columns) into `out`, (sides, rows)."""
        from lattq.kernels import packed_tables as native  # numba takes most of a second to import

        mode = self.mode(len(x))
        made = mode == native.MADE
        most = 16 if made else 4
        entries = np.ascontiguousarray(self.entries.swapaxes(1, 2)) if made else self.entries
        parts = [(side, self._pieces(x[side : side + most], mode)) for side in range(0, len(x), most)]
        scales = (self.codes, self.runs, self.values)
        tall = self.dimension if self.down else 1

        def write(rows: range) -> None:
            units = range(-(-rows.start // tall), -(-rows.stop // tall))  # that begin in these rows
            place = slice(units.start * tall, units.stop * tall)
            for side, pieces in parts:
                sums = native.product(
                    self.index, self.bits, entries, self.height, self.offsets, scales, pieces,
                    (self.shape[0], self.size), units, mode=mode, steady=self.steady,
                )  # fmt: skip
                if made:
                    found = sums[:, 0].T
                elif self.down:
                    found = sums[..., :tall].swapaxes(0, 1).reshape(sums.shape[1], -1)
                else:
                    found = sums.sum(axis=2).T
                target = out[side : side + most, place]
                np.copyto(target, found[: len(target)])
                if self.gains is not None:
                    target *= self.gains[place]

        return write

    def mode(self, sides: int) -> int:
        """How products with so many sides are made, by the number of registers that are read for an index.

        Entries times pieces of x take one read for the entry, and one of a piece for each side. Products made before
        take one read for up to 16 sides, which counts twice if they lie in a farther cache. To make them takes two
        reads for each number of a table, for eight vectors at once if there is one side and they share the table; the
        units that share a table share this, as far as they are in the same part of the rows. In tables of numbers a
        product for one side saves nothing, and down the rows it would take as many registers as the side has entries:
        there none are made before.
        """
        from lattq.kernels import packed_tables as native  # numba takes most of a second to import

        sides = min(sides, 16)
        if self.down or (sides == 1 and self.dimension == 1):
            return native.DOWN if self.down else native.ALONG
        shared = min(self.height, max(self.shape[0] // PARTS, 1))
        look_up = 1 if sides == 1 and self.size <= NEAR else 2
        at_once = 8 if sides == 1 and self.steady else 1
        made = look_up + 2 * self.size * self.dimension / at_once / shared
        return native.MADE if made < 1 + sides else native.ALONG

    def _pieces(self, x: np.ndarray, mode: int) -> np.ndarray:
        """Right-hand sides as the kernel takes them, whose number and vectors are padded by zeros."""
        from lattq.kernels import packed_tables as native  # numba takes most of a second to import

        sides, vectors, lanes = len(x), len(self.offsets), self.entries.shape[2]
        d, count = (1, x.shape[1]) if self.down else (self.dimension, self.shape[1])
        steps = (1, 8, 16) if mode == native.MADE else (1, 4)
        padded = np.zeros((next(n for n in steps if sides <= n), vectors, 1 if self.down else lanes), dtype=np.float32)
        padded[:sides, :count, :d] = x.reshape(sides, count, d)
        return np.ascontiguousarray(padded.transpose(1, 2, 0)) if mode == native.MADE else padded


def scalar_group(form: TableForm, columns: int) -> int | None:
    """Columns that share table and scale, where the form of 16 numbers holds them.

    >>> scalar_group(TableForm(np.zeros((1, 1, 4, 1)), rows=1, group=1), 100)
    100
    """
    several, scale = form.tables.shape[1] > 1, form.scales
    group = form.group if several else columns
    if scale is not None:
        if several and group % scale.run:
            return None
        group = min(scale.run, group)
    small = form.tables.shape[3] == 1 and form.tables.shape[2] <= VALUES
    return group if small and (group >= SHORTEST or group >= columns) else None


def check_fit(form: TableForm, codes: np.ndarray) -> None:
    """Raise `InvalidInputError` where tables and scales do not reach all weights, which compiled code would not see.

    >>> check_fit(TableForm(np.zeros((1, 1, 4, 1)), rows=1, group=1), np.zeros((2, 3), dtype=int))
    """
    (rows, columns), scale = codes.shape, form.scales
    size, across = form.tables.shape[2], form.tables.shape[1]
    fits = across == 1 or columns <= across * form.group
    if scale is not None:
        reach = min(len(scale.values), scale.codes.shape[1]) * scale.run
        fits = fits and scale.codes.shape[0] == rows and columns <= reach
        fits = fits and 0 <= scale.codes.min() <= scale.codes.max() < min(LEVELS, scale.values.shape[1])
    if not fits or not 0 <= codes.min() <= codes.max() < size:
        msg = f"tables of {across} groups of {form.group} columns, or scales, do not fit the shape {codes.shape}"
        raise InvalidInputError(msg)


def _obstacle(form: TableForm) -> str | None:
    """What a packed product cannot do with these tables, in words."""
    down, across, size, d = form.tables.shape
    scale = form.scales
    checks = [
        (size > MOST_ENTRIES, f"a table of {size} entries"),
        (d > MOST_WEIGHTS, f"a vector of {d} weights"),
        (form.down and scale is not None, "a scale of vectors down the rows"),
        (form.down and down > 1 and form.rows % d != 0, f"a table of {form.rows} rows"),
        (not form.down and across > 1 and form.group % d != 0, f"a group of {form.group} columns"),
        (scale is not None and scale.run % d != 0, f"a scale of {0 if scale is None else scale.run} columns"),
    ]
    return next((text for wrong, text in checks if wrong), None)


def vector_tables(form: TableForm, codes: np.ndarray, gains: np.ndarray | None) -> VectorTables:
    """Packed indices of vectors; raises `InvalidInputError` for what no packed product can do.

    >>> form = TableForm(np.zeros((1, 1, 4, 2)), rows=1, group=1)
    >>> vector_tables(form, np.zeros((2, 4), dtype=int), None).shape
    (2, 2)
    """
    from lattq.kernels import packed_tables as native  # numba takes most of a second to import

    obstacle = _obstacle(form)
    if obstacle:
        msg = (
            f"{obstacle} has no packed product; use up to {MOST_ENTRIES} entries of up to {MOST_WEIGHTS} weights, in "
            "groups of rows and columns with whole vectors, and scales of vectors along the rows"
        )
        raise InvalidInputError(msg)
    check_fit(form, codes)
    groups, across, size, d = form.tables.shape
    index = Indices(size, d, form.down).shared(codes)
    bits = max((size - 1).bit_length(), 1)
    units, vectors = index.shape
    padded = -(-vectors // native.WORD) * native.WORD
    first = np.arange(vectors) * (1 if form.down else d)  # column of each vector
    offsets, runs = (np.zeros(padded, dtype=np.uint32) for _ in range(2))
    steady = True
    if across > 1:
        offsets[: len(first)] = first // form.group * size
        steady = form.group % (native.WORD * (1 if form.down else d)) == 0
    own, values = np.zeros((units, 0), dtype=np.uint8), np.zeros((0, LEVELS), dtype=np.float32)
    scale = form.scales
    if scale is not None:
        runs[: len(first)] = first // scale.run
        steady = steady and scale.run % (native.WORD * d) == 0
        own = np.ascontiguousarray(scale.codes, dtype=np.uint8)
        values = np.zeros((len(scale.values), LEVELS), dtype=np.float32)
        values[:, : scale.values.shape[1]] = scale.values
    height = form.rows // d if form.down else form.rows
    height = min(max(height, 1), units) if groups > 1 else units
    used = np.minimum(np.arange(-(-units // height)), groups - 1)  # the last table serves all rows that are left
    entries = np.zeros((len(used), across * size, 1 << (d - 1).bit_length()), dtype=np.float32)
    entries[..., :d] = form.tables[used].reshape(len(used), -1, d)
    return VectorTables(
        native.pack(index, bits),
        bits,
        entries,
        offsets,
        own,
        runs,
        values,
        None if gains is None else gains.astype(np.float32),
        index.shape,
        size,
        d,
        height,
        form.down,
        steady,
    )
