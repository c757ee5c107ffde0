"""The entropy coder of lattice points down the rows.

Scales are those of columns times those of rows, as in `TwoWay`; rows of like scale stand together in a point, and one
scale serves all of it.
"""

import dataclasses
import functools

import numpy as np

from lattq._options import as_integer, normalize
from lattq.coding import BaseCoder
from lattq.coding.column_blocks import BLOCK, check_block, column_blocks, wanted_blocks
from lattq.coding.cosets import MOST
from lattq.coding.damage import reading
from lattq.coding.schema import Record, checked
from lattq.coding.squares import fit_squares, square_classes
from lattq.coding.twoway import DATA, TwoWayModel, live_codes, read_scales, stored_scales
from lattq.lattices.lattice import Lattice
from lattq.lattices.layout import Layout
from lattq.lattices.points import decode_points, encode_points, partitions
from lattq.lattices.words import NAME, check_fingerprint, expected_gains, named
from lattq.parts import register

__all__ = ["EntropyCodedLattice"]


@register("coder", "lattice")
@dataclasses.dataclass(frozen=True)
class EntropyCodedLattice(BaseCoder):
    """Coder of columns that are made of lattice points: `encode(codes)` and `decode(data, shape)`.

    In the order of the row classes, n rows after n rows are a point in integer coordinates. Rows that are left over at
    the end are multiples of `tail_step`, and coded one by one.

    Parameters
    ----------
    name : of the lattice: Z(n), D(n), D_dual(n), E8, BW16 or Leech24
    block : codes per independent stream, rounded up to whole columns; each costs some 10 bytes

    Examples
    --------
    >>> x = np.random.default_rng(0).normal(size=(5, 3, 24)) * 9
    >>> codes = named("Leech24").nearest_integer(x).transpose(0, 2, 1).reshape(120, 3)
    >>> coder = EntropyCodedLattice("Leech24")
    >>> bool((coder.decode(coder.encode(codes), codes.shape) == codes).all())
    True
    """

    name: str = "E8"
    block: int = 1 << 22

    carries = ("row_classes",)
    schema = Record(name=NAME, block=BLOCK)

    def __post_init__(self) -> None:
        normalize(self, as_integer, "block")
        check_block(self.block)
        _ = self.lattice

    @functools.cached_property
    def lattice(self) -> Lattice:
        """The lattice, which checks `name`."""
        return named(self.name)

    def encode(self, codes: np.ndarray, prior: np.ndarray | int = 0, row_classes: np.ndarray | None = None) -> list:
        """Streams and model of a (rows, columns) integer array; `prior` as in `TwoWay`.

        Parameters
        ----------
        row_classes : scale classes of the rows, which decide which rows make up a point; None where all are equal

        Raises
        ------
        InvalidInputError : for a column that is not made of lattice points
        """
        check_fingerprint()
        rows = np.zeros(len(codes), dtype=np.int64) if row_classes is None else row_classes
        layout = Layout(rows, self.lattice.dimension)
        ordered, alone = codes[layout.order], np.arange(len(codes)) >= layout.whole
        known = np.repeat(layout.classes, layout.repeats)
        model = fit_squares(ordered, alone[:, None], partitions(self.lattice), known, prior)
        grouped = dataclasses.replace(model, rows=layout.classes)
        blocks = column_blocks(codes.shape, self.block)
        streams = [self._encode_block(ordered[:, block], layout, square_classes(grouped, block)) for block in blocks]
        return [*stored_scales(dataclasses.replace(model, rows=rows), prior), streams]

    @reading("entropy-coded lattice")
    def decode(
        self, data: list, shape: tuple[int, int], prior: np.ndarray | int = 0, columns: slice | None = None
    ) -> np.ndarray:
        """Codes of all columns, or of the blocks that cover `columns` only; raises `DamagedFileError`."""
        check_fingerprint()
        model, streams = self._read(data, shape, prior)
        layout = Layout(model.rows, self.lattice.dimension)
        grouped = dataclasses.replace(model, rows=layout.classes)
        codes = np.zeros((shape[0], len(range(*(columns or slice(None)).indices(shape[1])))), dtype=np.int32)
        for block, stream, places, inside in wanted_blocks(streams, shape, self.block, columns):
            live = grouped.live(block)
            decoded = np.zeros((shape[0], block.stop - block.start), dtype=np.int32)
            decoded[:, live - block.start] = self._decode_block(stream, layout, square_classes(grouped, live))
            codes[layout.order[:, None], places] = decoded[:, inside]
        return codes

    def _read(self, data: list, shape: tuple[int, int], prior: np.ndarray | int) -> tuple[TwoWayModel, list]:
        *scales, streams = checked(DATA, data, "coded data", columns=shape[1])
        return read_scales(scales, shape, prior), streams

    def live(self, data: list, shape: tuple[int, int], prior: np.ndarray | int = 0) -> int:
        """How many codes `decode` has to find: those of columns that are not all zeros."""
        return live_codes(data, shape, prior)

    def to_state(self) -> list:
        """Name of the lattice and size of a block, for the container."""
        return [self.name, self.block]

    @staticmethod
    def from_state(state: list, shape: tuple[int, int]) -> "EntropyCodedLattice":
        """Inverse of `to_state`."""
        return EntropyCodedLattice(*checked(EntropyCodedLattice.schema, state, "coder"))

    def gains(self, data: list, shape: tuple[int, int], prior: np.ndarray | int = 0) -> np.ndarray:
        """LMMSE gains, in 128ths, that the column classes predict: 1 - (noise of a cell) / variance."""
        return expected_gains(self.lattice)[np.minimum(self._read(data, shape, prior)[0].columns, MOST)]

    def context(self, data: list, shape: tuple[int, int], prior: np.ndarray | int = 0) -> dict:
        """The row classes, which say where points lie."""
        return {"row_classes": self.row_classes(data, shape, prior)}

    def row_classes(self, data: list, shape: tuple[int, int], prior: np.ndarray | int = 0) -> np.ndarray | None:
        """Scale classes of the rows, as `encode` was given them; None where all are equal."""
        rows = self._read(data, shape, prior)[0].rows
        return rows if rows.any() else None

    def _encode_block(self, codes: np.ndarray, layout: Layout, classes: np.ndarray) -> bytes:
        """Rows of `codes` in order, classes of points and of the rows left over."""
        live = classes.max(axis=0) > 0
        points, alone = self._split(codes[:, live], layout)
        of_points, of_alone = np.split(classes[:, live], [layout.whole // layout.dimension])
        return encode_points(self.lattice, points, of_points.ravel(), alone.ravel(), of_alone.ravel())

    def _decode_block(self, stream: bytes, layout: Layout, classes: np.ndarray) -> np.ndarray:
        """Rows in order, of columns that hold anything."""
        of_points, of_alone = np.split(classes, [layout.whole // layout.dimension])
        points, alone = decode_points(self.lattice, stream, of_points.ravel(), of_alone.ravel())
        return self._joined(points, alone.reshape(of_alone.shape), layout)

    def _split(self, codes: np.ndarray, layout: Layout) -> tuple[np.ndarray, np.ndarray]:
        """Points as columns, point after point and for each of them column after column; and the rows left over."""
        n = layout.dimension
        points = codes[: layout.whole].astype(np.int64).reshape(layout.whole // n, n, codes.shape[1])
        return points.transpose(1, 0, 2).reshape(n, -1), codes[layout.whole :].astype(np.int64)

    def _joined(self, points: np.ndarray, alone: np.ndarray, layout: Layout) -> np.ndarray:
        """Inverse of `_split`."""
        rows = points.reshape(layout.dimension, layout.whole // layout.dimension, alone.shape[1]).transpose(1, 0, 2)
        return np.concatenate([rows.reshape(layout.whole, alone.shape[1]), alone])
