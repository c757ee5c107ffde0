"""Blocks of columns as interleaved streams: 64 columns side by side, row after row, in cuts of rows."""

import itertools
from typing import Any

import numpy as np

from lattq.coding.interleaved import WIDTH, encode_symbols, read_words, require_end
from lattq.coding.scaling import AS_THEY_ARE, Scaling
from lattq.coding.schema import WORDS, checked
from lattq.coding.slots import SlotTables
from lattq.errors import DamagedFileError

__all__ = ["NO_LABELS", "decode_fronts", "decode_strips", "encode_strips", "in_strips"]

NO_LABELS = np.zeros(1, dtype=np.uint8)
LARGEST = (1 << 31) - 1


def in_strips(matrix: np.ndarray, cuts: np.ndarray) -> np.ndarray:
    """Entries in the order of decoding.

    >>> in_strips(np.arange(6).reshape(3, 2), np.array([0, 3]))
    array([0, 1, 2, 3, 4, 5])
    """
    pairs = list(itertools.pairwise(cuts.tolist()))
    starts = range(0, matrix.shape[1], WIDTH)
    parts = [matrix[low:high, left : left + WIDTH].reshape(-1) for low, high in pairs for left in starts]
    return np.concatenate(parts) if parts else matrix.reshape(-1)[:0]


def encode_strips(symbols: np.ndarray, kinds: np.ndarray, tables: SlotTables, cuts: np.ndarray) -> bytes:
    """The stream of a block of columns that hold anything.

    Parameters
    ----------
    symbols, kinds : integers, and their tables and low bits, as in `encode_symbols`; (rows, columns)
    cuts : where sequences down the rows begin and end
    """
    if not symbols.size:
        return b""
    widths = np.minimum(WIDTH, symbols.shape[1] - np.arange(0, symbols.shape[1], WIDTH))
    steps = np.concatenate([np.repeat(widths, rows) for rows in np.diff(cuts)])
    ordered = in_strips(symbols, cuts).astype(np.int64), in_strips(kinds, cuts)
    return encode_symbols(*ordered, tables, steps)


def decode_strips(
    stream: bytes,
    groups: np.ndarray,
    grid: np.ndarray,
    tables: SlotTables,
    cuts: np.ndarray,
    columns: np.ndarray,
    out: np.ndarray,
    scaling: Scaling | None = None,
    *,
    labels: np.ndarray = NO_LABELS,
) -> tuple[int, int]:
    """Write a block into columns of `out`: codes, or what they decode to. Returns the least and the largest code.

    Parameters
    ----------
    groups, grid : row r and column j have the table and low bits ``grid[groups[r], j]``
    columns : of `out`
    labels : of a trellis, see `lattq.kernels.rans`

    Raises
    ------
    DamagedFileError : if the stream does not end where it should, or a code is beyond 32 bits
    """
    if not len(columns):
        if stream != b"":
            msg = "a stream for columns that hold nothing; the file is damaged"
            raise DamagedFileError(msg)
        return 0, 0
    where = (cuts, WIDTH, groups, grid, labels)
    return _decoded("decode_columns", stream, where, tables, (columns,), scaling, out, len(groups) * len(columns))


def decode_fronts(
    stream: bytes,
    where: tuple[range, int, int, tuple[np.ndarray, ...]],
    groups: np.ndarray,
    grid: np.ndarray,
    tables: SlotTables,
    out: np.ndarray,
    labels: np.ndarray,
    scaling: Scaling | None = None,
) -> tuple[int, int]:
    """As `decode_strips`, for neighbouring fronts of a matrix.

    `where` are the fronts, how many codes they have, rows of a group, and rows and places in strips where trellises
    begin anew, see `lattq.kernels.rans_fronts`.
    """
    fronts, size, height, fresh = where
    places = (height, (fronts.start, fronts.stop), WIDTH, fresh, groups, grid, labels)
    return _decoded("decode_fronts", stream, places, tables, (), scaling, out, size)


def _decoded(
    kernel: str,
    stream: bytes,
    where: tuple,
    tables: SlotTables,
    places: tuple,
    scaling: Scaling | None,
    out: np.ndarray,
    size: int,
) -> tuple[int, int]:
    """Run a kernel and check where it ends."""
    from lattq.kernels import rans, rans_fronts  # numba takes long to import, and few need it

    states, words = read_words(checked(WORDS, stream, "stream"))
    arguments: Any = AS_THEY_ARE if scaling is None else scaling.arguments
    run: Any = getattr(rans if kernel == "decode_columns" else rans_fronts, kernel)
    used, least, most = run(words, states, *where, tables.arrays, *places, arguments, out)
    require_end(states, words, used, size)
    if not -LARGEST - 1 <= least <= most <= LARGEST:
        msg = f"codes {least} ... {most} are beyond 32 bits; the file is damaged"
        raise DamagedFileError(msg)
    return least, most
