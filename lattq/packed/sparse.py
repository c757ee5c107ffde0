"""The sparse part of a matrix beside its codes."""

import dataclasses
from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int64, UInt32

from lattq._array import short_repr
from lattq.errors import InvalidInputError
from lattq.transforms.outliers import Sparse

__all__ = ["SparseRows"]


@short_repr
@dataclasses.dataclass(frozen=True, eq=False)
class SparseRows:
    """Entries of a sparse matrix, row by row.

    Attributes
    ----------
    starts : of the rows among the entries, and the end
    columns, values : of the entries
    """

    starts: Int64[np.ndarray, " rows_and_one"]
    columns: UInt32[np.ndarray, " entries"]
    values: Float[np.ndarray, " entries"]

    @staticmethod
    def packed(sparse: Sparse, dense: Float[np.ndarray, "rows columns"]) -> "SparseRows":
        """What the product with `dense` lacks where entries replace its own; `InvalidInputError` if they do not fit.

        >>> found = SparseRows.packed(Sparse(np.array([1, 5]), np.array([9.0, 7.0]), 3), np.ones((2, 3)))
        >>> found.starts, found.values
        (array([0, 1, 2]), array([8., 6.], dtype=float32))
        """
        shape = (rows, columns) = dense.shape
        if sparse.columns != columns or (sparse.places.size and sparse.places[-1] >= rows * columns):
            msg = f"{sparse.places.size} entries of a matrix of {sparse.columns} columns do not fit the shape {shape}"
            raise InvalidInputError(msg)
        values = sparse.values - dense.reshape(-1)[sparse.places]
        starts = np.searchsorted(sparse.places, np.arange(rows + 1) * columns).astype(np.int64)
        return SparseRows(starts, (sparse.places % columns).astype(np.uint32), values.astype(np.float32))

    def after(self, write: Callable[[range], None], x: np.ndarray, out: np.ndarray) -> Callable[[range], None]:
        """What writes rows and then adds the product with (sides, columns) to them in `out`, (sides, rows)."""
        from lattq.kernels import packed_tables as native  # numba takes most of a second to import

        def add(rows: range) -> None:
            write(rows)
            native.add_sparse(self.starts, self.columns, self.values, x, out, rows.start, rows.stop)

        return add
