"""The entropy coder of lattice points along the fronts of a matrix.

A point on a front crosses rows and columns, so its entries have scales of their own, while a point has one scale, the
mean square of theirs: that costs half the logarithm of the ratio of their arithmetic mean to the geometric one (theory
15.3). So entries of like scale stand together. Which do is known before anything is coded: it follows from the classes
of rows and of columns that the weights have. The codes have classes of columns of their own, stored as differences.
"""

import dataclasses
import functools
from typing import NamedTuple

import numpy as np

from lattq._options import as_integer, normalize
from lattq.coding import BaseCoder
from lattq.coding.column_blocks import BLOCK, check_block
from lattq.coding.cosets import MOST
from lattq.coding.damage import reading
from lattq.coding.fronts import HEIGHT, Fronts, require_streams
from lattq.coding.integers import encode_integers
from lattq.coding.schema import WORDS, Inner, Record, Series, checked
from lattq.coding.squares import fit_squares, square_classes
from lattq.coding.twoway import DATA as COLUMNS
from lattq.coding.twoway import TwoWayModel, read_scales, stored_scales
from lattq.errors import InvalidInputError
from lattq.lattices.lattice import Lattice
from lattq.lattices.layout import Layout
from lattq.lattices.points import decode_points, encode_points, partitions
from lattq.lattices.words import NAME, check_fingerprint, expected_gains, named
from lattq.parts import register

__all__ = ["FrontLattice", "scale_order", "shared_class"]

DATA = Record(
    noise=COLUMNS.fields["noise"],
    row_classes=Inner(),
    column_classes=Inner(),
    differences=Inner(),
    streams=Series(WORDS, 1, lambda at: at.rows + at.columns),
)
# 2^16 times the squares of scales so many classes below another, and where the class of a mean square changes.
POWERS = np.rint(2.0 ** (16 - np.arange(65) / 4)).astype(np.int64)
EDGES = np.rint(2.0 ** (16 - (np.arange(64) + 0.5) / 4)).astype(np.int64)


def scale_order(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """What entries are sorted by, from the classes of their rows and columns: the largest scales come first.

    So those that are left over are the smallest, which lose the least.

    >>> scale_order(np.array([0, 3]), np.array([20, 25]))
    array([-20, -28])
    """
    return -(rows + columns)


def shared_class(classes: np.ndarray) -> np.ndarray:
    """Class of the mean square of numbers of these classes, for each line; 0 where all are 0. Integer arithmetic.

    >>> shared_class(np.array([[20, 20, 20, 20], [28, 20, 20, 20], [20, 0, 0, 0], [0, 0, 0, 0]]))
    array([20, 23, 13,  0])
    """
    top = classes.max(axis=1, initial=0).astype(np.int64)
    below = np.minimum(top[:, None] - classes, len(POWERS) - 1)
    mean = POWERS[below].sum(axis=1) // max(classes.shape[1], 1)
    lower = np.searchsorted(-EDGES, -mean, side="left")
    return np.where(top > 0, np.maximum(top - lower, 1), 0)


@register("coder", "lattice-fronts")
@dataclasses.dataclass(frozen=True)
class FrontLattice(BaseCoder):
    """Coder of matrices whose fronts are made of lattice points: `encode(codes)` and `decode(data, shape)`.

    Parameters
    ----------
    name : of the lattice, as in `EntropyCodedLattice`
    height : rows of a group, see `lattq.coding.fronts.Fronts`
    block : codes per independent stream, rounded up to whole fronts

    Examples
    --------
    >>> from lattq.lattices import D
    >>> fronts, codes, rng = Fronts(4, 6, height=4), np.zeros(24, dtype=np.int32), np.random.default_rng(0)
    >>> for k in range(fronts.number):
    ...     places = fronts.places(k, k + 1)
    ...     points = places[: len(places) // 2 * 2].reshape(-1, 2)
    ...     codes[points] = D(2).nearest_integer(5 * rng.normal(size=points.shape))
    >>> coder = FrontLattice("D(2)", height=4)
    >>> bool((coder.decode(coder.encode(codes.reshape(4, 6)), (4, 6)).ravel() == codes).all())
    True
    """

    name: str = "E8"
    height: int = 1
    block: int = 1 << 22

    carries = ("row_classes", "column_classes")
    schema = Record(name=NAME, height=HEIGHT, block=BLOCK)

    def __post_init__(self) -> None:
        normalize(self, as_integer, "height", "block")
        check_block(self.block)
        _ = self.lattice, Fronts(self.height, 1, self.height)

    @functools.cached_property
    def lattice(self) -> Lattice:
        """The lattice, which checks `name`."""
        return named(self.name)

    def encode(
        self,
        codes: np.ndarray,
        prior: np.ndarray | int = 0,
        row_classes: np.ndarray | None = None,
        column_classes: np.ndarray | None = None,
    ) -> list:
        """Streams and model of a (rows, columns) integer array; `prior` as in `TwoWay`.

        Parameters
        ----------
        row_classes, column_classes : scale classes that say which entries make up a point; None where all are equal

        Raises
        ------
        InvalidInputError : for a front that is not made of points, or a height that divides no rows
        """
        check_fingerprint()
        if codes.ndim != 2:
            msg = f"`codes` have shape {codes.shape}; pass a matrix"
            raise InvalidInputError(msg)
        rows, columns = (
            np.zeros(size, dtype=np.int64) if classes is None else classes
            for size, classes in zip(codes.shape, (row_classes, column_classes), strict=True)
        )
        if (len(rows), len(columns)) != codes.shape:
            msg = f"classes of {len(rows)} rows and {len(columns)} columns do not fit codes of shape {codes.shape}"
            raise InvalidInputError(msg + "; code the matrix that they were made for")
        layouts = self.layouts(rows, columns)
        kinds = np.zeros(codes.size, dtype=np.int64)
        kinds[np.concatenate([layout.alone for layout in layouts])] = 1
        model = fit_squares(codes, kinds.reshape(codes.shape), partitions(self.lattice), rows, columns)
        flat, classes = codes.reshape(-1).astype(np.int64), square_classes(model).reshape(-1)
        streams = []
        for points, of_points, alone, of_alone in (layout.live(classes) for layout in layouts):
            streams.append(encode_points(self.lattice, flat[points].T, of_points, flat[alone], of_alone))
        known = TwoWayModel(rows, columns, model.noise)
        return [*stored_scales(known, prior), encode_integers(model.columns - columns), streams]

    @reading("entropy-coded lattice")
    def decode(self, data: list, shape: tuple[int, int], prior: np.ndarray | int = 0) -> np.ndarray:
        """Codes of all columns; raises `DamagedFileError`."""
        check_fingerprint()
        known, model, streams = self._read(data, shape, prior)
        layouts = self.layouts(known.rows, known.columns)
        require_streams(streams, len(layouts))
        codes, classes = np.zeros(shape[0] * shape[1], dtype=np.int32), square_classes(model).reshape(-1)
        for stream, layout in zip(streams, layouts, strict=True):
            points, of_points, alone, of_alone = layout.live(classes)
            found, codes[alone] = decode_points(self.lattice, stream, of_points, of_alone)
            codes[points] = found.T
        return codes.reshape(shape)

    def gains(self, data: list, shape: tuple[int, int], prior: np.ndarray | int = 0) -> np.ndarray:
        """As those of `EntropyCodedLattice`."""
        return expected_gains(self.lattice)[np.minimum(self._read(data, shape, prior)[1].columns, MOST)]

    def context(self, data: list, shape: tuple[int, int], prior: np.ndarray | int = 0) -> dict:
        """The classes that say where points lie."""
        known = self._read(data, shape, prior)[0]
        return {"row_classes": known.rows if known.rows.any() else None, "column_classes": known.columns}

    def to_state(self) -> list:
        """All options, for the container."""
        return [self.name, self.height, self.block]

    @staticmethod
    def from_state(state: list, shape: tuple[int, int]) -> "FrontLattice":
        """Inverse of `to_state`, for a matrix whose rows the height divides."""
        found = FrontLattice(*checked(FrontLattice.schema, state, "coder"))
        Fronts.in_file(shape, found.height)
        return found

    def _read(
        self, data: list, shape: tuple[int, int], prior: np.ndarray | int
    ) -> tuple[TwoWayModel, TwoWayModel, list]:
        """Classes that say where points lie, those of the codes, and the streams."""
        *scales, differences, streams = checked(DATA, data, "coded data", columns=shape[1], rows=shape[0])
        known = read_scales(scales, shape, prior)
        return known, read_scales([*scales[:2], differences], shape, known.columns), streams

    def layouts(self, rows: np.ndarray, columns: np.ndarray) -> "list[_Places]":
        """Where the points of each run of fronts lie, and what is in none."""
        fronts, found = Fronts(len(rows), len(columns), self.height), []
        for run in fronts.runs(self.block):
            points, alone = [], []
            for front in run:
                at_row, at_column = fronts.entries(front)
                layout = Layout(scale_order(rows[at_row], columns[at_column]), self.lattice.dimension)
                places = (at_row * len(columns) + at_column)[layout.order]
                points.append(places[: layout.whole].reshape(-1, self.lattice.dimension))
                alone.append(places[layout.whole :])
            found.append(_Places(np.concatenate(points), np.concatenate(alone)))
        return found


class _Places(NamedTuple):
    """Flat places of the entries of points, a point in a line, and of those in none."""

    points: np.ndarray
    alone: np.ndarray

    def live(self, classes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Both, each with its classes: what lies in columns that are not all zeros."""
        shared, own = shared_class(classes[self.points]), classes[self.alone].astype(np.int64)
        live, some = shared > 0, own > 0
        return self.points[live], shared[live], self.alone[some], own[some]
