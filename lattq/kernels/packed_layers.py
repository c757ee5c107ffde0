"""Products of hierarchical codes with a vector: one look-up in a table of the query for each layer."""

from typing import no_type_check  # functions wrapped for run-time checks would not compile

import numba
import numpy as np

__all__ = ["product"]

TABLE_BYTES = 1 << 14  # of tables that are used for many rows before the next ones: they stay in the nearest cache


def product(
    index: np.ndarray, q: np.float32, tables: np.ndarray, scales: np.ndarray, out: np.ndarray, rows: range
) -> None:
    """Write rows of the product into `out`, (right-hand sides, rows), float32.

    Parameters
    ----------
    index : of leaders, (rows, layers, vectors), uint8; layers count by powers of q
    tables : inner products of leaders and parts of the right-hand sides, (sides, vectors, leaders), float32
    scales : of the rows
    """
    out[:, rows.start : rows.stop] = 0
    step = max(1, TABLE_BYTES // (4 * tables.shape[2]))
    _rows(index, q, tables, scales, out, rows.start, rows.stop, step)


@numba.njit(cache=True, nogil=True)
@no_type_check
def _rows(index, q, tables, scales, out, first, last, step):
    """Some tables at a time, for all rows."""
    for side in range(tables.shape[0]):
        for start in range(0, index.shape[2], step):
            stop = min(start + step, index.shape[2])
            for row in range(first, last):
                weight, total = scales[row], np.float32(0)
                for layer in range(index.shape[1]):
                    found, other = np.float32(0), np.float32(0)
                    for i in range(start, stop - 1, 2):
                        found += tables[side, i, index[row, layer, i]]
                        other += tables[side, i + 1, index[row, layer, i + 1]]
                    if (stop - start) % 2:
                        found += tables[side, stop - 1, index[row, layer, stop - 1]]
                    total += weight * (found + other)
                    weight *= q
                out[side, row] += total
