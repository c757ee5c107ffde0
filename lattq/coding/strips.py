"""Blocks of columns as interleaved streams: 64 columns side by side, row after row, in cuts of rows."""

from typing import Any

import numpy as np

from lattq.coding.interleaved import WIDTH, beginning, packed_words, read_words, require_end
from lattq.coding.scaling import AS_THEY_ARE, Scaling
from lattq.coding.schema import WORDS, checked
from lattq.coding.slots import SlotTables
from lattq.errors import DamagedFileError

__all__ = ["NO_LABELS", "decode_fronts", "decode_strips", "encode_fronts", "encode_strips"]

NO_LABELS = np.zeros(1, dtype=np.uint8)
LARGEST = (1 << 31) - 1


def encode_strips(
    codes: np.ndarray,
    cuts: np.ndarray,
    groups: np.ndarray,
    grid: np.ndarray,
    tables: SlotTables,
    columns: np.ndarray,
    *,
    parity: bool = False,
) -> bytes:
    """The stream of the columns of a block that hold anything.

    Parameters
    ----------
    codes : (rows, columns)
    cuts : where sequences down the rows begin and end
    groups, grid : row r and column j of `columns` have the table and low bits ``grid[groups[r], j]``
    parity : whether codes 2 m and 2 m + 1 have the integer m, the odd ones in the table that follows
    """
    if not len(columns):
        return b""
    from lattq.kernels import rans_encode  # numba takes long to import, and few need it

    run: Any = rans_encode.encode_columns
    where = (cuts, WIDTH, groups, grid, int(parity), tables.arrays, tables.starts, columns)
    return packed_words(*run(codes, *where, *beginning(len(groups) * len(columns))))


def encode_fronts(
    codes: np.ndarray, fronts: range, size: int, height: int, groups: np.ndarray, grid: np.ndarray, tables: SlotTables
) -> bytes:
    """As `encode_strips`, of neighbouring fronts of groups of `height` rows with `size` codes, which have parities."""
    from lattq.kernels import rans_encode  # numba takes long to import, and few need it

    run: Any = rans_encode.encode_fronts
    where = (size, height, (fronts.start, fronts.stop), WIDTH, groups, grid, tables.arrays, tables.starts)
    return packed_words(*run(codes, *where, *beginning(size)))


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
    from lattq.kernels import rans  # numba takes long to import, and few need it

    where = (cuts, WIDTH, groups, grid, labels)
    return _decoded(rans.decode_columns, stream, where, tables, (columns,), scaling, out, len(groups) * len(columns))


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
    from lattq.kernels import rans_fronts  # numba takes long to import, and few need it

    fronts, size, height, fresh = where
    places = (height, (fronts.start, fronts.stop), WIDTH, fresh, groups, grid, labels)
    return _decoded(rans_fronts.decode_fronts, stream, places, tables, (), scaling, out, size)


def _decoded(
    run: Any,
    stream: bytes,
    where: tuple,
    tables: SlotTables,
    places: tuple,
    scaling: Scaling | None,
    out: np.ndarray,
    size: int,
) -> tuple[int, int]:
    """Run a kernel and check where it ends."""
    states, words = read_words(checked(WORDS, stream, "stream"))
    arguments: Any = AS_THEY_ARE if scaling is None else scaling.arguments
    used, least, most = run(words, states, *where, tables.arrays, *places, arguments, out)
    require_end(states, words, used, size)
    if not -LARGEST - 1 <= least <= most <= LARGEST:
        msg = f"codes {least} ... {most} are beyond 32 bits; the file is damaged"
        raise DamagedFileError(msg)
    return least, most
