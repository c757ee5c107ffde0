"""Products of hierarchical codes with a vector: one look-up in a table of the query for each layer."""

from typing import no_type_check  # functions wrapped for run-time checks would not compile

import numba
import numpy as np

__all__ = ["pack", "product"]

STEP = 64  # vectors whose tables serve all rows before the next ones do: they stay in a near cache


def pack(index: np.ndarray) -> np.ndarray:
    """Indices (rows, layers, vectors) as (parts, rows, layers, 64): what is read together lies together.

    >>> pack(np.zeros((3, 2, 70), dtype=np.uint8)).shape
    (2, 3, 2, 64)
    """
    rows, layers, vectors = index.shape
    padded = np.zeros((rows, layers, -(-vectors // STEP) * STEP), dtype=np.uint8)
    padded[..., :vectors] = index
    return np.ascontiguousarray(np.moveaxis(padded.reshape(rows, layers, -1, STEP), 2, 0))


def product(
    index: np.ndarray, q: np.float32, tables: np.ndarray, scales: np.ndarray, out: np.ndarray, rows: range
) -> None:
    """Write rows of the product into `out`, (right-hand sides, rows), float32.

    Parameters
    ----------
    index : of `pack`; layers count by powers of q
    tables : inner products of leaders and parts of the right-hand sides, (sides, vectors, leaders), float32
    scales : of the rows
    """
    out[:, rows.start : rows.stop] = 0
    for side in range(len(tables)):
        _rows(index, q, tables[side].reshape(-1), tables.shape[2], scales, out[side], rows.start, rows.stop)


@numba.njit(cache=True, nogil=True)
@no_type_check
def _rows(index, q, tables, leaders, scales, out, first, last):
    """Some tables at a time, for all rows."""
    size, step = len(tables) // leaders, index.shape[3]
    for part in range(index.shape[0]):
        count = min(step, size - part * step)
        near = tables[part * step * leaders : (part * step + count) * leaders]
        for row in range(first, last):
            weight, total = scales[row], np.float32(0)
            for layer in range(index.shape[2]):
                total += weight * _looked_up(near, np.uint64(leaders), index[part, row, layer, :count])
                weight *= q
            out[row] += total


@numba.njit(cache=True, nogil=True)
@no_type_check
def _looked_up(tables, leaders, index):
    """Sum of an entry of each table, in four parts."""
    a, b, c, d = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
    place, i, size = np.uint64(0), np.uint64(0), np.uint64(len(index))
    one, two, three, four = np.uint64(1), np.uint64(2), np.uint64(3), np.uint64(4)
    while i + three < size:
        a += tables[place + index[i]]
        b += tables[place + leaders + index[i + one]]
        c += tables[place + two * leaders + index[i + two]]
        d += tables[place + three * leaders + index[i + three]]
        place += four * leaders
        i += four
    while i < size:
        a += tables[place + index[i]]
        place += leaders
        i += one
    return (a + b) + (c + d)
