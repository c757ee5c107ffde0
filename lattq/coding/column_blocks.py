"""Blocks of columns that are streams of their own, so that each decodes alone."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from lattq.coding.schema import Integer
from lattq.errors import DamagedFileError, InvalidInputError

__all__ = ["BLOCK", "LARGEST_BLOCK", "check_block", "column_blocks", "wanted_blocks"]

LARGEST_BLOCK = 1 << 24
BLOCK = Integer(1, LARGEST_BLOCK)


def check_block(block: int) -> None:
    """Raise `InvalidInputError` unless a stream of so many codes is one that a decoder should allocate.

    >>> check_block(1024)
    """
    if not 1 <= block <= LARGEST_BLOCK:
        msg = f"`block` is {block}; a stream holds 1 to {LARGEST_BLOCK} codes, which bounds a decoder's memory"
        raise InvalidInputError(msg)


def column_blocks(shape: tuple[int, int], block: int) -> list[slice]:
    """Column ranges of the independent streams.

    >>> column_blocks((100, 5), 200)
    [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    step = _block_width(shape, block)
    return [slice(start, min(start + step, shape[1])) for start in range(0, shape[1], step)]


def _block_width(shape: tuple[int, int], block: int) -> int:
    """Columns of a stream."""
    return max(1, -(-block // shape[0]))


def wanted_blocks(
    streams: list, shape: tuple[int, int], block: int, columns: slice | None
) -> Iterator[tuple[slice, Any, np.ndarray, np.ndarray]]:
    """Blocks that hold any of `columns`: their range, stream, places among the wanted columns, and places inside."""
    step = _block_width(shape, block)
    if len(streams) != -(-shape[1] // step):
        msg = f"{len(streams)} streams for {-(-shape[1] // step)} blocks of columns; the file is damaged"
        raise DamagedFileError(msg)
    wanted = np.arange(shape[1])[columns or slice(None)]
    index = wanted // step
    order = np.argsort(index, kind="stable")
    for places in np.split(order, np.flatnonzero(np.diff(index[order])) + 1):
        if places.size:
            start = int(index[places[0]]) * step
            one = slice(start, min(start + step, shape[1]))
            yield one, streams[start // step], places, wanted[places] - start
