"""The nearest entry of a table: scalars or vectors, along the rows or down them, with tables for blocks of weights."""

import dataclasses
import itertools
import math
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Num

from lattq._array import Array, from_host, require_finite, short_repr, to_host
from lattq.codebooks.local_metrics import nearest_in_blocks
from lattq.coding.damage import reading
from lattq.coding.indices import Indices
from lattq.coding.packing import pack, packed_size, unpack
from lattq.coding.schema import Choice, Flag, Inner, Integer, Octets, Record, checked
from lattq.errors import DamagedFileError, InvalidInputError
from lattq.parts import register
from lattq.parts.forms import TableForm
from lattq.quantizers.base import BaseQuantizer
from lattq.quantizers.logarithmic import LogScales
from lattq.quantizers.rounded import rounded_entries, stored_tables
from lattq.quantizers.steps import alike, stored_halves

__all__ = ["CodebookQuantizer"]

ENTRY_BITS = (4, 8)
HALVES = 16  # values of half a byte
COUNT = Integer(1, (1 << 31) - 1)
STATE = Record(
    sizes=Record(
        down_groups=Integer(1, lambda at: at.rows),
        across_groups=Integer(1, lambda at: at.columns),
        size=Integer(2, 1 << 16),
        dimension=COUNT,
        height=COUNT,
        group=COUNT,
        entry_bits=Choice(None, *ENTRY_BITS),
        down=Flag(),
        coded=Flag(),
    ),
    body=Inner(),
    scale=Inner(),
)


@register("quantizer", "codebook")
@short_repr
@dataclasses.dataclass(frozen=True, eq=False)
class CodebookQuantizer(BaseQuantizer):
    """The nearest entry of a table, in any metric, times a scale if there is one.

    All weights of a vector carry the index of its entry as their code.

    Attributes
    ----------
    tables : entries of each group of rows and of columns, on the host in float64
    entry_steps : of entries that are integers times a step, one for each table; None for entries in float16
    entry_bits : 4 or 8, of such integers; None for float16
    rows : that share a table
    group : columns that share a table, where there are several
    down : whether vectors lie down the rows, or side by side in a row
    coded : whether indices are entropy coded
    scale : scales of short runs of columns of each row, or None
    weighted : whether blocks measure errors by their pivots; with `metric`, what one measures them by, and `charges`,
        what indices are charged beside, it is for the encoder only

    Examples
    --------
    >>> quantizer = CodebookQuantizer(np.array([[[[0.0], [1.0], [4.0]]]]), rows=2)
    >>> codes = quantizer.encode(np.array([[0.4, 2.0], [9.0, -1.0]]))
    >>> codes, quantizer.decode(codes)
    (array([[0, 1],
           [2, 0]], dtype=int32), array([[0., 1.],
           [4., 0.]]))
    """

    tables: Float[np.ndarray, "row_groups column_groups size dimension"]
    rows: int
    group: int = 1
    entry_steps: Float[np.ndarray, "row_groups column_groups"] | None = None
    entry_bits: int | None = None
    down: bool = False
    coded: bool = False
    scale: LogScales | None = None
    weighted: bool = True
    metric: Float[np.ndarray, "dimension dimension"] | None = None
    charges: Float[np.ndarray, "row_groups column_groups size"] | None = None

    idle_zeros = False  # indices cost as much whatever they are

    @property
    def dimension(self) -> int:
        """Weights of a vector."""
        return self.tables.shape[3]

    @property
    def coder(self) -> Indices:
        """One index for each vector."""
        return Indices(self.tables.shape[2], self.dimension, self.down, self.coded)

    def in_block(self, start: int, metric: Float[np.ndarray, "block block"]) -> "CodebookQuantizer":
        """The quantizer of a block of a group, whose columns begin at `start` and whose errors this matrix weighs."""
        d, size = self.dimension, len(metric)
        if size != (1 if self.down else d) or start % size:
            msg = (
                f"vectors of {d} weights {'down the rows' if self.down else 'along rows'} do not fit blocks of {size} "
                f"columns; pass feedback with block={1 if self.down else d}"
            )
            raise InvalidInputError(msg)
        own = metric.astype(np.float64) if self.weighted and not self.down and metric.any() else None
        scale = None if self.scale is None else self.scale.part(start)
        place = start // self.group if self.tables.shape[1] > 1 else 0
        free = not metric.any()  # the nearest entry, whatever it costs: the error is fed back
        charges = None if self.charges is None or free else self.charges[:, place : place + 1]
        tables = self.tables[:, place : place + 1]
        return dataclasses.replace(self, tables=tables, charges=charges, metric=own, scale=scale)

    def encode(self, x: Float[Array, "rows block"]) -> Int[Array, "rows block"]:
        """Index of the nearest entry of each vector; raises `InvalidInputError` for NaN and infinity."""
        require_finite("x", x)
        host = to_host(x).astype(np.float64)
        factors = np.ones(1) if self.scale is None else self.scale.values(host.shape)
        vectors = self._vectors(host / factors)
        metric = np.eye(self.dimension) if self.metric is None else self.metric
        across = vectors.size // len(vectors) // self.dimension
        codes = np.empty((len(vectors), across), dtype=np.int32)
        for part, tables, charges in self._row_groups(len(vectors)):
            blocks = vectors[part].reshape(len(tables), -1, self.dimension)
            codes[part] = nearest_in_blocks(blocks, tables, metric[None], charges).reshape(-1, across)
        codes = np.repeat(codes, self.dimension, axis=0 if self.down else 1)
        return from_host(codes, like=x)

    def decode(self, codes: Num[Array, "rows block"]) -> Float[Array, "rows block"]:
        """Entries, in float64; raises `InvalidInputError` for what are no indices."""
        host = to_host(codes)
        self.check_codes(host)
        form = TableForm(self.tables, self.rows, self.group, self.down)
        found = form.dense(host)
        return from_host(found if self.scale is None else found * self.scale.values(host.shape), like=codes)

    def check_codes(self, codes: np.ndarray) -> None:
        """Raise `InvalidInputError` for codes that are no indices."""
        size = self.tables.shape[2]
        if not np.issubdtype(codes.dtype, np.integer) or not 0 <= codes.min() <= codes.max() < size:
            msg = f"codes of {codes.dtype} from {codes.min()} to {codes.max()}; indices go from 0 to {size - 1}"
            raise InvalidInputError(msg)

    def check_coder(self, coder: Any) -> None:
        """Raise `InvalidInputError` unless the coder is that of these tables."""
        if coder != self.coder:
            msg = f"{coder} beside tables that {self.coder} belongs to"
            raise InvalidInputError(msg)

    def idle(self, codes: np.ndarray) -> int:
        """0: the entry of the index 0 is as good as others."""
        return 0

    def underflow(self) -> int:
        """Tables whose entries are all below the normal numbers of float16, and coarse."""
        smallest = float(np.finfo(np.float16).smallest_normal)
        largest = np.abs(self.tables).max(axis=(2, 3))
        return int(np.sum((largest > 0) & (largest < smallest)))

    def stored(self) -> "CodebookQuantizer":
        """Entries as float16, or as integers times a float16 step; raises `InvalidInputError` for what is beyond it."""
        tables, steps = stored_tables(self.tables, self.entry_steps, self.entry_bits)
        scale = None if self.scale is None else self.scale.stored()
        if tables is self.tables and steps is self.entry_steps and scale is self.scale:
            return self
        return dataclasses.replace(self, tables=tables, entry_steps=steps, scale=scale)

    def table_form(self) -> TableForm:
        """The tables, and the scales of runs."""
        scale = None if self.scale is None else self.scale.form()
        return TableForm(self.tables, self.rows, self.group, self.down, scale)

    def with_tables(self, tables: np.ndarray) -> "CodebookQuantizer":
        """Other entries, cut to float16 and rounded."""
        limit = float(np.finfo(np.float16).max)
        flat = tables.reshape(-1, *self.tables.shape[2:])
        rounded = [rounded_entries(np.clip(table, -limit, limit), self.entry_bits) for table in flat]
        found = [step for _, step in rounded if step is not None]
        steps = np.stack(found).reshape(self.tables.shape[:2]) if found else None
        stored = np.stack([table for table, _ in rounded]).reshape(self.tables.shape)
        return dataclasses.replace(self, tables=stored, entry_steps=steps)

    def _vectors(self, x: np.ndarray) -> np.ndarray:
        """Vectors of a block in the order of rows, (rows of vectors, vectors across, dimension)."""
        d = self.dimension
        if x.shape[0 if self.down else 1] % d:
            msg = f"a block of {x.shape} weights does not divide into vectors of {d}; choose another `dimension`"
            raise InvalidInputError(msg)
        if self.down:
            return x.reshape(len(x) // d, d, x.shape[1]).transpose(0, 2, 1)
        return x.reshape(len(x), -1, d)

    def _row_groups(self, count: int) -> list[tuple[slice, np.ndarray, np.ndarray | None]]:
        """Rows of vectors, tables and charges: all groups of equal height at once, then the last one if it is less."""
        height = self.rows // self.dimension if self.down else self.rows
        if len(self.tables) > 1 and -(-count // height) != len(self.tables):
            msg = (
                f"{len(self.tables)} tables of {self.rows} rows each do not belong to this many rows; pass all of them"
            )
            raise InvalidInputError(msg)
        whole = min(count // height, len(self.tables))
        cuts = [0, whole, len(self.tables)] if whole * height < count else [0, whole]
        found = []
        for first, last in itertools.pairwise(cuts):
            charges = None if self.charges is None else self.charges[first:last, 0]
            part = slice(first * height, min(last * height, count) if last < len(self.tables) else count)
            if last > first:
                found.append((part, self.tables[first:last, 0], charges))
        return found

    def to_state(self) -> list:
        """Entries as float16, or integers and float16 steps; shapes; scales."""
        if self.entry_steps is None:
            body = [self.tables.astype("<f2").tobytes()]
        else:
            integers = np.rint(self.tables / self.entry_steps[..., None, None]).astype(np.int8)
            body = [_packed(integers, self.entry_bits or 8), self.entry_steps.astype("<f2").tobytes()]
        sizes = [*self.tables.shape, self.rows, self.group, self.entry_bits, self.down, self.coded]
        return [sizes, body, None if self.scale is None else self.scale.to_state()]

    @staticmethod
    def from_state(state: list, shape: tuple[int, int]) -> "CodebookQuantizer":
        """Inverse of `to_state` for a matrix of this shape."""
        sizes, body, scale = checked(STATE, state, "codebook", rows=shape[0], columns=shape[1])
        down_groups, across_groups, size, dimension, height, group, entry_bits, down, coded = sizes
        with reading("a codebook"):
            Indices(size, dimension, down, coded).places(shape)
        expected = (-(-shape[0] // height), 1 if across_groups == 1 else -(-shape[1] // group))
        if (down_groups, across_groups) != expected:
            msg = f"{down_groups} x {across_groups} tables for {height} rows and {group} columns; the file is damaged"
            raise DamagedFileError(msg)
        sides, steps = (down_groups, across_groups, size, dimension), None
        checked(_body(math.prod(sides), math.prod(sides[:2]), entry_bits), body, "tables")
        if entry_bits is None:
            tables = np.frombuffer(body[0], dtype="<f2").astype(np.float64).reshape(sides)
        else:
            steps = stored_halves(body[1], sides[:2])
            tables = _unpacked(body[0], entry_bits, math.prod(sides)).reshape(sides) * steps[..., None, None]
        if not np.isfinite(tables).all():
            msg = "a table holds NaN or infinity; the file is damaged"
            raise DamagedFileError(msg)
        scales = None if scale is None else LogScales.from_state(scale, shape)
        return CodebookQuantizer(tables, height, group, steps, entry_bits, down, coded, scales)

    @classmethod
    def concatenate(cls, parts: "list[CodebookQuantizer]", group: int) -> "CodebookQuantizer | None":
        """One quantizer for the whole matrix from those of its groups, in column order."""
        sides = [(part.tables.shape[0], *part.tables.shape[2:]) for part in parts]
        if not alike(parts, ("rows", "entry_bits", "down", "coded")) or len(set(sides)) > 1:
            return None
        steps: Any = [part.entry_steps for part in parts]
        scales: Any = [part.scale for part in parts]
        charges: Any = [part.charges for part in parts]
        return dataclasses.replace(
            parts[0],
            tables=np.concatenate([part.tables for part in parts], axis=1),
            entry_steps=None if steps[0] is None else np.concatenate(steps, axis=1),
            scale=None if scales[0] is None else LogScales.concatenate(scales),
            group=group if len(parts) > 1 else 1,
            metric=None,
            charges=None if charges[0] is None else np.concatenate(charges, axis=1),
        )


def _body(entries: int, tables: int, entry_bits: int | None) -> Record:
    """Schema of entries in float16, or of integers and their steps."""
    if entry_bits is None:
        return Record(entries=Octets(2 * entries))
    return Record(
        entries=Octets(entries if entry_bits == 8 else packed_size(entries, HALVES)), steps=Octets(2 * tables)
    )


def _packed(integers: np.ndarray, bits: int) -> bytes:
    return integers.tobytes() if bits == 8 else pack(integers.reshape(-1).astype(np.int64) + HALVES // 2, HALVES)


def _unpacked(data: bytes, bits: int, size: int) -> np.ndarray:
    return np.frombuffer(data, dtype=np.int8) if bits == 8 else unpack(data, HALVES, size) - HALVES // 2
