"""What a design gets to see: a set of entries of the weight matrix, and what a squared error at each of them costs."""

import dataclasses
import functools
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from lattq._array import Array
from lattq.errors import InvalidInputError

__all__ = ["Entries"]


@dataclasses.dataclass(frozen=True, eq=False)
class Entries:
    """A set of entries that share a quantizer, with a power for each: what its squared error is worth.

    The power of an entry is a factor of its row times a factor of its column. Where columns are quantized in blocks,
    errors e of a row in a block cost e · pivot · eᵀ times the factor of the row, and the power is the diagonal of that.

    Parameters
    ----------
    values : what is to be quantized, in the dtype and the library of the loop
    columns : their indices in the matrix, in the order of the loop; None for 0, 1, ...
    pivots : what squared errors cost, one number for each column, or a matrix for each block of columns; None for 1
    row_power : factor of each row; None where all are 1
    kept : which entries count; None where all do. The others have no power: they are stored elsewhere

    Raises
    ------
    InvalidInputError : for numbers of columns, pivots or factors that do not agree

    Examples
    --------
    >>> entries = Entries(np.zeros((2, 2)), pivots=np.array([1.0, 4.0]), row_power=np.array([1.0, 2.0]))
    >>> entries.power
    array([[1., 4.],
           [2., 8.]])
    >>> Entries(np.zeros((2, 3))).power
    array([[1., 1., 1.]])
    """

    values: Float[Array, "rows columns"]
    columns: Any = None
    pivots: Any = None
    row_power: Float[np.ndarray, " rows"] | None = None
    kept: Bool[np.ndarray, "rows columns"] | None = None

    def __post_init__(self) -> None:
        rows, columns = self.values.shape
        if self.columns is None:
            object.__setattr__(self, "columns", np.arange(columns))
        if self.pivots is None:
            object.__setattr__(self, "pivots", np.ones(columns))
        self._check(rows, columns)

    def _check(self, rows: int, columns: int) -> None:
        pivots: Any = self.pivots
        indices: Any = self.columns
        shape = pivots.shape
        width = 1 if len(shape) == 1 else shape[-1]
        if len(indices) != columns or shape not in ((columns,), (columns // width, width, width)):
            msg = f"{len(indices)} `columns` and `pivots` of shape {shape} for {columns} columns; they must agree"
            raise InvalidInputError(msg)
        if self.row_power is not None and self.row_power.shape != (rows,):
            msg = f"`row_power` has shape {self.row_power.shape}, the values {rows} rows; give a factor to each"
            raise InvalidInputError(msg)

    @property
    def block(self) -> int:
        """Columns that are quantized together."""
        return len(self.columns) // len(self.pivots)

    @property
    def metrics(self) -> Float[np.ndarray, "blocks block block"]:
        """The pivots as matrices, one for each block of columns."""
        return self.pivots.reshape(-1, self.block, self.block)

    @functools.cached_property
    def column_power(self) -> Float[np.ndarray, " columns"]:
        """Factor of each column: its pivot, or its place on the diagonal of that of its block."""
        return np.einsum("bii->bi", self.metrics).reshape(-1)

    @functools.cached_property
    def power(self) -> Float[np.ndarray, "#rows columns"]:
        """What a squared error at each entry is worth, on the host; one row where it is the same in all."""
        row = np.ones(1) if self.row_power is None else self.row_power
        power = row[:, None] * self.column_power
        return power if self.kept is None else power * self.kept
