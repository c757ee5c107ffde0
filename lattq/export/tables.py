"""Weights as indices into look-up tables, in the layouts that Core ML's `constexpr_lut_to_dense` can express.

The indices form a grid. Consecutive rows and columns of it share a table; an entry of a table is a number, or a short
vector that lies along a row of the weight or down its rows.
"""

import dataclasses

import numpy as np
from jaxtyping import Float, Float16, Integer

from lattq._array import Array, as_array, require_finite, short_repr, to_host
from lattq._options import as_integer, normalize
from lattq.errors import InvalidInputError

__all__ = ["SIZES", "LookupTable"]

SIZES = (2, 4, 8, 16, 64, 256)  # indices of 1, 2, 3, 4, 6 and 8 bits


@short_repr
@dataclasses.dataclass(frozen=True, eq=False)
class LookupTable:
    """A weight of (rows, columns) numbers as indices into tables. Arrays of any library are copied to NumPy, read-only.

    Parameters
    ----------
    indices : integers from 0 to size - 1: (rows, columns / dimension) with `axis` 1, (rows / dimension, columns) with
        `axis` 0
    tables : entries, (row groups, column groups, size, dimension); numbers that float16 holds exactly. Groups split the
        rows and the columns of `indices` evenly; size is 2, 4, 8, 16, 64 or 256.
    axis : 1 if a vector lies along a row, 0 if it lies down the rows; the same weight either way if dimension is 1

    Raises
    ------
    InvalidInputError : if a shape does not fit, an index lies outside the table, an entry is not finite or not a
        float16, or Core ML has no indices of that width.

    Examples
    --------
    Two groups of rows, four numbers in each table:

    >>> indices = np.array([[0, 1, 2, 3], [3, 3, 0, 0]])
    >>> tables = np.array([[[-1.5, -0.5, 0.5, 1.5]], [[-3.0, -1.0, 1.0, 3.0]]])[..., None]
    >>> weight = LookupTable(indices, tables)
    >>> weight.dense()
    array([[-1.5, -0.5,  0.5,  1.5],
           [ 3. ,  3. , -3. , -3. ]], dtype=float16)
    >>> weight.bits  # indices of 2 bits, and 8 entries of 16 bits for 8 weights
    18.0
    """

    indices: Integer[Array, "index_rows index_columns"]
    tables: Float[Array, "row_groups column_groups size dimension"]
    axis: int = 1

    def __post_init__(self) -> None:
        normalize(self, as_integer, "axis")
        if self.axis not in (0, 1):
            msg = f"`axis` is {self.axis}; pass 1 for vectors along a row, 0 for vectors down the rows"
            raise InvalidInputError(msg)
        tables = _checked_tables(to_host(as_array("tables", self.tables)))
        indices = _checked_indices(to_host(as_array("indices", self.indices)), tables)
        for name, array in (("indices", indices), ("tables", tables)):
            array.setflags(write=False)
            object.__setattr__(self, name, array)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the weight."""
        rows, columns = self.indices.shape
        dimension = self.tables.shape[-1]
        return (rows, columns * dimension) if self.axis else (rows * dimension, columns)

    @property
    def bits(self) -> float:
        """Bits per weight: indices and float16 entries, without headers and padding of a file."""
        width = self.tables.shape[2].bit_length() - 1
        return (self.indices.size * width + 16 * self.tables.size) / (self.shape[0] * self.shape[1])

    def dense(self) -> Float16[np.ndarray, "rows columns"]:
        """The weight, decoded in NumPy."""
        rows, columns = (
            np.arange(length) // (length // groups)
            for length, groups in zip(self.indices.shape, self.tables.shape[:2], strict=True)
        )
        vectors = self.tables[rows[:, None], columns, self.indices]
        return (vectors if self.axis else vectors.transpose(0, 2, 1)).reshape(self.shape)


def _checked_tables(given: np.ndarray) -> np.ndarray:
    """A copy in float16, if no entry changes by that and the shape is one of Core ML's."""
    if given.ndim != 4 or given.size == 0:
        msg = f"`tables` has shape {given.shape}; pass (row groups, column groups, size, dimension), none of them 0"
        raise InvalidInputError(msg)
    size = given.shape[2]
    if size not in SIZES:
        wider = next((width for width in SIZES if width > size), None)
        advice = f"at most {SIZES[-1]}" if wider is None else f"{', '.join(map(str, SIZES))}; pad the tables to {wider}"
        msg = f"`tables` have {size} entries; Core ML has tables of {advice}"
        raise InvalidInputError(msg)
    if given.dtype.kind not in "fiu":
        msg = f"`tables` has dtype {given.dtype}; pass real numbers"
        raise InvalidInputError(msg)
    require_finite("tables", given)
    with np.errstate(over="ignore"):
        found = given.astype(np.float16)
    different = np.argwhere(found != given)
    if len(different):
        place = tuple(map(int, different[0]))
        msg = f"`tables` holds {given[place]} at index {place}, which is no float16; round the entries to float16 first"
        raise InvalidInputError(msg)
    return found


def _checked_indices(given: np.ndarray, tables: np.ndarray) -> np.ndarray:
    """A copy in bytes, if the tables divide the grid and every index has an entry."""
    if given.dtype.kind not in "iu" or given.ndim != 2 or given.size == 0:
        msg = f"`indices` has shape {given.shape} and dtype {given.dtype}; pass a matrix of integers that is not empty"
        raise InvalidInputError(msg)
    for name, length, groups in zip(("rows", "columns"), given.shape, tables.shape[:2], strict=True):
        if length % groups:
            msg = f"`indices` has {length} {name}, which do not split into the {groups} groups of `tables`"
            raise InvalidInputError(msg)
    outside = np.argwhere((given < 0) | (given >= tables.shape[2]))
    if len(outside):
        place = tuple(map(int, outside[0]))
        msg = f"`indices` holds {given[place]} at index {place}; tables of {tables.shape[2]} entries end before that"
        raise InvalidInputError(msg)
    return given.astype(np.uint8)
