"""Sums of squares of codes, in one compiled pass."""

from typing import Any

import numpy as np

__all__ = ["column_squares"]


def column_squares(codes: np.ndarray, rows: np.ndarray | None = None) -> np.ndarray:
    """Sums of squares down the columns, over some rows or all.

    >>> column_squares(np.array([[1, 2], [3, -4]]))
    array([10., 20.])
    """
    from lattq.kernels import counts  # numba takes long to import, and few need it

    found = np.zeros(codes.shape[1])
    add: Any = counts.squares
    add(np.ascontiguousarray(codes), np.arange(len(codes)) if rows is None else rows, found)
    return found
