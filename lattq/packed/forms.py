"""Forms of packed codes: indices into tables, nested E8, and layers of a hierarchical code."""

import dataclasses
import itertools
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from jaxtyping import Float, Shaped

from lattq._array import short_repr
from lattq.errors import InvalidInputError
from lattq.lattices import HierarchicalCode

__all__ = ["VALUES", "VECTORS", "Layers", "Nested8", "Tables", "aligned", "in_threads"]

VALUES, BLOCK, VECTORS = 16, 128, 64  # of a table; columns of a block of words; vectors of eight columns in a block
LINE = 64  # bytes of a line of the cache
CHUNK = 512  # rows that are packed together
PARTS = 4  # of the rows for each thread, so that none waits long for the slowest


@short_repr
@dataclasses.dataclass(frozen=True, eq=False)
class Tables:
    """Indices 0 ... 15 into tables, times a scale of each row and group."""

    words: Shaped[np.ndarray, "rows words"]
    tables: Float[np.ndarray, "tables 16"]
    which: Shaped[np.ndarray, "rows groups"]
    scales: Float[np.ndarray, "rows groups"]
    places: range | np.ndarray  # of the columns
    width: int

    @staticmethod
    def packed(index: np.ndarray, tables: np.ndarray, which: np.ndarray, scales: np.ndarray, group: int) -> "Tables":
        """Columns of each group are padded to 16, 32, 64 or a multiple of 128, and rows to a multiple of 128."""
        from lattq.kernels import packed as native  # numba takes most of a second to import

        rows, columns = index.shape
        if index.size and not 0 <= int(index.min()) <= int(index.max()) < tables.shape[1]:
            msg = f"indices {index.min()} ... {index.max()} are beyond tables of {tables.shape[1]} numbers"
            raise InvalidInputError(msg)
        if group < 8 and scales.shape[1] > 1:
            msg = f"groups of {group} columns leave most of a register empty; packed products need groups of 8 or more"
            raise InvalidInputError(msg)
        wide = next((size for size in (16, 32, 64) if group <= size), -(-group // BLOCK) * BLOCK)
        width = -(-scales.shape[1] * wide // BLOCK) * BLOCK
        places = np.arange(columns) // group * wide + np.arange(columns) % group
        words = aligned((rows, width // 8), np.uint32)
        for start in range(0, rows, CHUNK):
            part = index[start : start + CHUNK]
            padded = np.zeros((len(part), width), dtype=np.uint8)
            padded[:, places] = part
            words[start : start + len(part)] = native.pack(padded)
        extra = ((0, 0), (0, width // wide - scales.shape[1]))
        kind = next(kind for kind in (np.uint8, np.uint16, np.uint32) if len(tables) - 1 <= np.iinfo(kind).max)
        return Tables(
            words,
            # compiled code reads rows one after the other, however the arrays of a form lie in memory
            np.ascontiguousarray(np.pad(tables, ((0, 0), (0, VALUES - tables.shape[1]))), dtype=np.float32),
            np.ascontiguousarray(np.pad(which, extra), dtype=kind),
            np.ascontiguousarray(np.pad(scales, extra), dtype=np.float32),
            range(columns) if width == columns else places,
            width,
        )

    def product(self, x: np.ndarray, out: np.ndarray) -> Callable[[range], None]:
        """What writes rows of the product with (sides, columns) into `out`, (sides, rows)."""
        from lattq.kernels import packed as native  # numba takes most of a second to import

        padded = aligned((len(x), self.width), np.float32)
        if isinstance(self.places, range):
            padded[:] = x
        else:
            padded[:] = 0
            padded[:, self.places] = x
        return lambda rows: native.product(self.words, self.tables, self.which, self.scales, padded, out, rows)


@short_repr
@dataclasses.dataclass(frozen=True, eq=False)
class Nested8:
    """Nested E8 codes of odd q, two bytes for each half of a vector; rows are padded to 64 vectors."""

    words: Shaped[np.ndarray, "rows blocks 2 64"]
    q: int
    factors: Float[np.ndarray, " 4"]
    scales: Float[np.ndarray, "rows groups"]

    def product(self, x: np.ndarray, out: np.ndarray) -> Callable[[range], None]:
        """As in `Tables`."""
        from lattq.kernels import packed_e8 as native  # numba takes most of a second to import

        blocks = self.words.shape[1]
        padded = np.zeros((len(x), blocks * VECTORS * 8), dtype=np.float32)
        padded[:, : x.shape[1]] = x
        turned = np.ascontiguousarray(padded.reshape(len(x), blocks, VECTORS, 8).swapaxes(2, 3))
        return lambda rows: native.product(self.words, self.q, self.factors, self.scales, turned, out, rows)


@short_repr
@dataclasses.dataclass(frozen=True, eq=False)
class Layers:
    """Indices of the leaders of a hierarchical code, 64 vectors after 64, and a scale of each row."""

    index: Shaped[np.ndarray, "parts rows layers 64"]
    scales: Float[np.ndarray, " rows"]
    code: HierarchicalCode

    def product(self, x: np.ndarray, out: np.ndarray) -> Callable[[range], None]:
        """As in `Tables`; the tables of the query are made first."""
        from lattq.kernels import packed_layers as native  # numba takes most of a second to import

        code = self.code.code
        leaders = code.decode(code.from_index(np.arange(code.q**code.dimension))).astype(np.float32)
        tables = x.reshape(len(x), -1, code.dimension) @ leaders.T
        return lambda rows: native.product(self.index, np.float32(code.q), tables, self.scales, out, rows)


def aligned(shape: tuple[int, ...], kind: type) -> np.ndarray:
    """An array that begins at a line of the cache, so that no vector lies across two; its entries are not set.

    >>> aligned((3, 5), np.float32).ctypes.data % 64
    0
    """
    size = math.prod(shape) * np.dtype(kind).itemsize
    memory = np.empty(size + LINE, dtype=np.uint8)
    start = -memory.ctypes.data % LINE
    return memory[start : start + size].view(kind).reshape(shape)


def in_threads(write: Callable[[range], None], rows: int, threads: int) -> None:
    """Write all rows, in parts that threads take one after the other.

    >>> found = np.zeros(5)
    >>> in_threads(lambda rows: found.__setitem__(slice(rows.start, rows.stop), 1), 5, 2)
    >>> found
    array([1., 1., 1., 1., 1.])
    """
    if threads == 1:
        write(range(rows))
        return
    edges = np.linspace(0, rows, threads * PARTS + 1).astype(int).tolist()
    parts = [range(*pair) for pair in itertools.pairwise(edges) if pair[0] < pair[1]]
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(write, parts))
