"""Palettes of a weight matrix: indices of a few bits into small tables, as hardware with lookup tables reads them.

A group of rows shares a table of 2^bits entries, each a number or a short vector along a row. Rows may have scales, and
entries may be small integers times a step; the fit knows both.
"""

import dataclasses
import math

import numpy as np
from jaxtyping import Float, Int

from lattq._array import Array, from_host, short_repr, to_host
from lattq._options import as_integer, normalize
from lattq.codebooks.clustering import check_weights, different_rows, finite_floats
from lattq.codebooks.kmeans import kmeans, nearest
from lattq.codebooks.kmeans_1d import kmeans_1d
from lattq.errors import InvalidInputError

__all__ = ["Palette", "PaletteDesign"]

_BITS = (1, 2, 3, 4, 6, 8)


@short_repr
@dataclasses.dataclass(frozen=True, eq=False)
class Palette:
    """Tables of a matrix.

    Attributes
    ----------
    tables : entries of each group of rows, (groups, 2^bits, dimension), float64; with rounded entries, these are
    scale : factor of each row, a float16 number in float64, or None
    design : how it was made
    steps : of rounded entries, a float16 number for each table, or None

    Examples
    --------
    >>> weight = np.array([[0.0, 1.0, 0.0, 1.0], [3.0, 3.0, 3.0, 5.0]])
    >>> palette = PaletteDesign(bits=1, group=1).fit(weight)
    >>> palette.encode(weight), palette.decode(palette.encode(weight))
    (array([[0, 1, 0, 1],
           [0, 0, 0, 1]], dtype=int32), array([[0., 1., 0., 1.],
           [3., 3., 3., 5.]]))
    """

    tables: Float[np.ndarray, "groups size dimension"]
    scale: Float[np.ndarray, " rows"] | None
    design: "PaletteDesign"
    steps: Float[np.ndarray, " groups"] | None = None

    def encode(self, weight: Float[Array, "rows columns"]) -> Int[Array, "rows indices"]:
        """Index of the nearest entry of each number or vector of a matrix."""
        host = self.design.checked(weight)
        scaled = host if self.scale is None else host / self.scale[:, None]
        parts = np.split(scaled, len(self.tables))
        vectors = [part.reshape(-1, self.design.dimension) for part in parts]
        found = [nearest(part, table) for part, table in zip(vectors, self.tables, strict=True)]
        return from_host(np.concatenate(found).reshape(len(host), -1), like=weight)

    def decode(self, indices: Int[Array, "rows indices"]) -> Float[Array, "rows columns"]:
        """The matrix."""
        host = to_host(indices)
        parts = [table[part] for table, part in zip(self.tables, np.split(host, len(self.tables)), strict=True)]
        found = np.concatenate(parts).reshape(len(host), -1)
        return from_host(found if self.scale is None else found * self.scale[:, None], like=indices)

    def bits(self, rows: int, columns: int) -> float:
        """Bits per weight: indices, tables, steps of rounded entries and scales of rows, each of 16 bits."""
        groups, size, dimension = self.tables.shape
        entry = self.design.entry_bits
        table = size * dimension * (16 if entry is None else entry) + (0 if entry is None else 16)
        total = rows * columns / dimension * self.design.bits + groups * table
        return (total + (0 if self.scale is None else 16 * rows)) / (rows * columns)


@dataclasses.dataclass(frozen=True)
class PaletteDesign:
    """How to make a palette.

    Parameters
    ----------
    bits : of an index: 1, 2, 3, 4, 6 or 8
    group : rows that share a table; None for all
    dimension : numbers that an index stands for, side by side in a row, 1 to 8
    scaled : divide each row by its root mean square first, stored in float16
    entry_bits : None for entries in float16; 8 or 4 for integers -127 ... 127 or -7 ... 7 times one step of a table

    Raises
    ------
    InvalidInputError : if an option is not among these.

    Examples
    --------
    >>> PaletteDesign(bits=4, dimension=2, entry_bits=8).fit(np.eye(4)).bits(4, 4)
    19.0
    """

    bits: int = 4
    group: int | None = None
    dimension: int = 1
    scaled: bool = False
    entry_bits: int | None = None

    def __post_init__(self) -> None:
        normalize(self, as_integer, "bits", "dimension", optional=("group", "entry_bits"))
        for name, allowed in (("bits", _BITS), ("dimension", range(1, 9)), ("entry_bits", (None, 8, 4))):
            if getattr(self, name) not in allowed:
                msg = f"`{name}` is {getattr(self, name)}; pass one of {', '.join(map(str, allowed))}"
                raise InvalidInputError(msg)
        if self.group is not None and self.group < 1:
            msg = f"`group` is {self.group}; give at least 1 row"
            raise InvalidInputError(msg)

    def checked(self, weight: Array) -> np.ndarray:
        """The matrix on the host in float64, if groups and vectors divide it."""
        host = finite_floats("weight", weight).astype(np.float64)
        if host.ndim != 2 or host.shape[0] % (self.group or 1) or host.shape[1] % self.dimension:
            msg = (
                f"`weight` has shape {host.shape}; groups of {self.group or 1} rows and vectors of {self.dimension} "
                "numbers must divide it"
            )
            raise InvalidInputError(msg)
        return host

    def fit(self, weight: Float[Array, "rows columns"], weights: Float[Array, "..."] | None = None) -> Palette:
        """The tables with the least (weighted) squared error: exact for numbers, by `kmeans` for vectors.

        Parameters
        ----------
        weight : matrix
        weights : of squared errors, above zero, one for each index: shape (rows, columns / dimension)

        Raises
        ------
        InvalidInputError : if sizes do not divide, or a number is not finite or a weight not positive.
        """
        host = self.checked(weight)
        rows, places = host.shape[0], host.shape[1] // self.dimension
        mass = np.ones((rows, places)) if weights is None else check_weights(weights, (rows, places))
        scale = _row_scales(host) if self.scaled else None
        if scale is not None:
            host, mass = host / scale[:, None], mass * scale[:, None] ** 2
        groups = rows // (self.group or rows)
        vectors, masses = host.reshape(groups, -1, self.dimension), mass.reshape(groups, -1)
        tables, steps = zip(*(self._table(part, own) for part, own in zip(vectors, masses, strict=True)), strict=True)
        return Palette(np.stack(tables), scale, self, None if self.entry_bits is None else np.array(steps))

    def _table(self, x: np.ndarray, mass: np.ndarray) -> tuple[np.ndarray, float]:
        """Entries of a group and their step; the last entry again where there are fewer different vectors."""
        size = 1 << self.bits
        if self.dimension == 1:
            entries = kmeans_1d(x[:, 0], min(size, len(np.unique(x))), mass).centroids[:, None]
        else:
            entries = kmeans(x, min(size, different_rows(x, size)), mass).centroids
        entries = np.concatenate([entries, np.repeat(entries[-1:], size - len(entries), axis=0)])
        if self.entry_bits is None:
            return _half(entries), 0.0
        return _rounded(x, mass, entries, (1 << (self.entry_bits - 1)) - 1)


def _row_scales(weight: np.ndarray) -> np.ndarray:
    """Root mean squares in float16; 1 for rows of zeros."""
    found = np.sqrt(np.mean(weight**2, axis=1)).astype(np.float16).astype(np.float64)
    return np.where((found > 0) & np.isfinite(found), found, 1.0)


def _half(values: np.ndarray) -> np.ndarray:
    """Rounded to float16."""
    if np.abs(values).max() > np.finfo(np.float16).max:
        msg = f"`weight` needs an entry of {np.abs(values).max():.6g}; float16 ends at 65504: scale the weights"
        raise InvalidInputError(msg)
    return values.astype(np.float16).astype(np.float64)


def _rounded(x: np.ndarray, mass: np.ndarray, entries: np.ndarray, largest: int) -> tuple[np.ndarray, float]:
    """Integers times a step, and the step: the best of some, with cells and rounded means found in turn for each."""
    best, least, chosen = entries, math.inf, 0.0
    top = float(np.abs(entries).max()) or 1.0
    for share in np.linspace(0.5, 1.0, 9 if largest > 7 else 33)[::-1]:
        step = float(_half(np.array(top * share / largest))) or float(np.finfo(np.float16).smallest_subnormal)
        found, error = _rounded_lloyd(x, mass, entries, step, largest)
        if error < least:
            best, least, chosen = found, error, step
    return best, chosen


def _rounded_lloyd(
    x: np.ndarray, mass: np.ndarray, entries: np.ndarray, step: float, largest: int
) -> tuple[np.ndarray, float]:
    """Cells of the entries, then rounded means of cells, which are the best rounded entries, until nothing falls."""

    def rounded(values: np.ndarray) -> np.ndarray:
        return np.clip(np.rint(values / step), -largest, largest) * step

    table, best, least = rounded(entries), entries, math.inf
    while True:
        cells = nearest(x, table)
        error = float(mass @ np.square(x - table[cells]).sum(axis=1))
        if not error < least:
            return best, least
        best, least = table, error
        total = np.bincount(cells, mass, len(table))
        sums = np.stack([np.bincount(cells, mass * column, len(table)) for column in x.T], axis=1)
        table = np.where(total[:, None] > 0, rounded(sums / np.where(total > 0, total, 1.0)[:, None]), table)
