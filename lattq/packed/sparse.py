"""The sparse part of a matrix beside its codes."""

import dataclasses
from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int64, UInt32

from lattq import transforms
from lattq.errors import InvalidInputError

__all__ = ["SparseRows"]


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
    def packed(sparse: transforms.Sparse, shape: tuple[int, int]) -> "SparseRows":
        """Entries of a matrix of this shape; raises `InvalidInputError` where they do not fit.

        >>> SparseRows.packed(transforms.Sparse(np.array([1, 5]), np.array([9.0, 7.0]), 3), (2, 3)).starts
        array([0, 1, 2])
        """
        rows, columns = shape
        if sparse.columns != columns or (sparse.places.size and sparse.places[-1] >= rows * columns):
            msg = f"{sparse.places.size} entries of a matrix of {sparse.columns} columns do not fit the shape {shape}"
            raise InvalidInputError(msg)
        starts = np.searchsorted(sparse.places, np.arange(rows + 1) * columns).astype(np.int64)
        return SparseRows(starts, (sparse.places % columns).astype(np.uint32), sparse.values.astype(np.float32))

    def after(self, write: Callable[[range], None], x: np.ndarray, out: np.ndarray) -> Callable[[range], None]:
        """What writes rows and then adds the product with (sides, columns) to them in `out`, (sides, rows)."""
        from lattq.kernels import packed_tables as native  # numba takes most of a second to import

        def add(rows: range) -> None:
            write(rows)
            native.add_sparse(self.starts, self.columns, self.values, x, out, rows.start, rows.stop)

        return add
