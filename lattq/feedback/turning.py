"""Columns as lines, in the order of the loop, and back: on the host strip by strip, which spares the caches."""

import numpy as np
from jaxtyping import Int, Shaped

from lattq._array import Array, array_namespace, from_host

__all__ = ["as_columns", "as_lines"]

STRIP = 64  # rows whose entries stay in a cache while they are turned


def as_lines(x: Shaped[Array, "rows columns"], order: Int[np.ndarray, " columns"]) -> Shaped[Array, "columns rows"]:
    """A line to each column, in this order.

    >>> as_lines(np.array([[1, 2], [3, 4]]), np.array([1, 0]))
    array([[2, 4],
           [1, 3]])
    """
    if not isinstance(x, np.ndarray):
        xp = array_namespace(x)
        return xp.take(xp.matrix_transpose(x), from_host(np.ascontiguousarray(order), like=x), axis=0)
    found = np.empty((x.shape[1], x.shape[0]), dtype=x.dtype)
    for start in range(0, x.shape[0], STRIP):
        found[:, start : start + STRIP] = np.take(x[start : start + STRIP], order, axis=1, mode="clip").T
    return found


def as_columns(x: Shaped[Array, "columns rows"], order: Int[np.ndarray, " columns"]) -> Shaped[Array, "rows columns"]:
    """The inverse: columns in their original order.

    >>> as_columns(np.array([[2, 4], [1, 3]]), np.array([1, 0]))
    array([[1, 2],
           [3, 4]])
    """
    index = np.argsort(order)
    if not isinstance(x, np.ndarray):
        xp = array_namespace(x)
        return xp.matrix_transpose(xp.take(x, from_host(index, like=x), axis=0))
    found = np.empty((x.shape[1], x.shape[0]), dtype=x.dtype)
    for start in range(0, x.shape[1], STRIP):
        found[start : start + STRIP] = np.take(x[:, start : start + STRIP].T, index, axis=1, mode="clip")
    return found
