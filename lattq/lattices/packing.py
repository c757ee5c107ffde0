"""Codes of nested lattices in bytes: words for random access, or a stream at log2 q bits a digit."""

import dataclasses
import functools
from typing import Any

import numpy as np
from jaxtyping import Int

from lattq._array import require_integers
from lattq._options import among, as_integer, normalize
from lattq.coding import BaseCoder
from lattq.coding.alphabets import distributions, equals
from lattq.coding.damage import reading
from lattq.coding.interleaved import Part, Reader, encode_parts
from lattq.coding.schema import WORDS, Choice, Integer, Octets, Record, Series, checked
from lattq.coding.slots import SlotTables
from lattq.errors import DamagedFileError, InvalidInputError, shown
from lattq.lattices.voronoi import LARGEST
from lattq.lattices.words import LARGEST_DIMENSION
from lattq.parts import register

__all__ = ["NestedCoder"]

GRID = 1 << 12  # frequencies of indices are multiples of 1 / GRID

STREAM = Record(words=WORDS, frequencies=Series(Integer(1, GRID), 0, 256))


@register("coder", "nested")
@dataclasses.dataclass(frozen=True)
class NestedCoder(BaseCoder):
    """Coder of digits in base q whose vectors hold the index of a scale in their first code: digit + q · index.

    Columns are taken `block` at a time; of each block n after n columns are a vector, and those left over one more.

    Parameters
    ----------
    dimension : n, columns of a vector
    q : digits, 2 to 256
    scales : number of scales, 1 to 256
    block : columns of a block
    index : "packed" gives each vector a word of whole bytes, with the number of its digits in the low bits and the
        index above: for q = 13, n = 8 and up to 4 scales a uint32. "raw" and "coded" are one stream of digits at log2 q
        bits and indices, at log2 of their number or at their entropy; "coded" stores their frequencies too.

    Examples
    --------
    >>> coder = NestedCoder(dimension=8, q=13, scales=4, block=8, index="packed")
    >>> codes = np.array([[12, 0, 1, 2, 3, 4, 5, 6], [13, 0, 0, 0, 0, 0, 0, 0]])
    >>> len(coder.encode(codes)), bool((coder.decode(coder.encode(codes), (2, 8)) == codes).all())
    (8, True)
    """

    dimension: int
    q: int
    scales: int
    block: int
    index: str = "coded"

    schema = Record(
        dimension=Integer(1, LARGEST_DIMENSION),
        q=Integer(2, LARGEST),
        scales=Integer(1, 256),
        block=Integer(1, lambda at: at.columns),
        index=Choice("packed", "raw", "coded"),
    )

    def __post_init__(self) -> None:
        normalize(self, as_integer, "dimension", "q", "scales", "block")
        if not (self.dimension >= 1 and 2 <= self.q <= LARGEST and 1 <= self.scales <= 256 and self.block >= 1):
            msg = f"{self}: q is 2 to {LARGEST}, there are 1 to 256 scales, and the rest is at least 1"
            raise InvalidInputError(msg)
        if not among(self.index, ("packed", "raw", "coded")):
            msg = f'`index` is {shown(self.index)}; choose "packed", "raw" or "coded"'
            raise InvalidInputError(msg)
        if self.index == "packed" and self._bits(min(self.dimension, self.block, 65)) > 64:
            msg = f"{self.dimension} digits of base {self.q} and an index of {self.scales} do not fit a word of 64 bits"
            raise InvalidInputError(msg)

    def encode(self, codes: Int[np.ndarray, "rows columns"], prior: object = None) -> Any:
        """Bytes, or [words, frequencies]; raises `InvalidInputError` for codes out of range."""
        require_integers("codes", codes)
        index, digits = np.divmod(codes.astype(np.int64), self.q)
        first = self.first_columns(codes.shape[1])
        if codes.size and (index.min() < 0 or index[:, ~first].any() or index.max() >= self.scales):
            msg = f"codes {codes.min()} ... {codes.max()} are not digits below {self.q} with {self.scales} scales"
            raise InvalidInputError(msg)
        if self.index == "packed":
            return b"".join(self._words(digits[:, part], index[:, part]) for part, _ in self._parts(codes.shape[1]))
        return self._stream(digits.ravel().astype(np.int32), index[:, first].ravel().astype(np.int32))

    @reading("digits")
    def decode(self, data: Any, shape: tuple[int, int], prior: object = None) -> Int[np.ndarray, "rows columns"]:
        """Inverse of `encode`; raises `DamagedFileError`."""
        if self.index == "packed":
            return self._from_words(data, shape)
        words, frequencies = checked(STREAM, data, "stream")
        first = self.first_columns(shape[1])
        vectors = shape[0] * int(first.sum())
        reader = Reader(words, "stream")
        codes = reader.take(*self._digits(shape[0] * shape[1])).astype(np.int32).reshape(shape)
        if self.scales > 1:
            index = reader.take(*self._indices(frequencies, vectors))
            codes[:, first] += self.q * index.astype(np.int32).reshape(shape[0], -1)
        elif frequencies:
            msg = f"{len(frequencies)} frequencies of one scale; the file is damaged"
            raise DamagedFileError(msg)
        reader.close()
        return codes

    def _stream(self, digits: np.ndarray, index: np.ndarray) -> list:
        """Digits, and then indices."""
        frequencies = _frequencies(index, self.scales) if self.index == "coded" and self.scales > 1 else []
        parts: list[Part] = [(digits, *self._digits(len(digits)))]
        if self.scales > 1:
            parts.append((index, *self._indices(frequencies, len(index))))
        return [encode_parts(parts), frequencies]

    def _digits(self, number: int) -> tuple[np.ndarray, SlotTables]:
        """Kinds of digits, and their table."""
        tables, kinds = equals((self.q,))
        return np.full(number, kinds[0]), tables

    def _indices(self, frequencies: list[int], number: int) -> tuple[np.ndarray, SlotTables]:
        """Kinds of indices, and their table; raises `DamagedFileError` for frequencies that are none."""
        if (self.index == "raw") != (frequencies == []) or (frequencies and len(frequencies) != self.scales):
            msg = f"{len(frequencies)} frequencies of {self.scales} indices; the file is damaged"
            raise DamagedFileError(msg)
        if self.index == "raw":
            tables, kinds = equals((self.scales,))
            return np.full(number, kinds[0]), tables
        counts = np.array([frequencies], dtype=np.int64)
        if counts.sum() != GRID:
            msg = f"frequencies {frequencies} of {self.scales} indices; the file is damaged"
            raise DamagedFileError(msg)
        return np.zeros(number, dtype=np.uint32), distributions(counts)

    def _words(self, digits: np.ndarray, index: np.ndarray) -> bytes:
        """One word for each vector, row by row, the least significant byte first."""
        size, width = digits.shape[-1], self._width(digits.shape[-1])
        found = np.zeros(digits.shape[:-1], dtype=np.uint64)
        for column in range(size - 1, -1, -1):
            found = found * np.uint64(self.q) + digits[..., column].astype(np.uint64)
        if self.scales > 1:
            found |= index[..., 0].astype(np.uint64) << np.uint64(_length(self.q**size))
        return found.reshape(-1).astype("<u8").view(np.uint8).reshape(-1, 8)[:, :width].tobytes()

    def _from_words(self, data: bytes, shape: tuple[int, int]) -> np.ndarray:
        parts = self._parts(shape[1])
        checked(Octets(sum(shape[0] * len(part) * self._width(size) for part, size in parts)), data, "words")
        codes, start = np.empty(shape, dtype=np.int32), 0
        for part, size in parts:
            count, width = shape[0] * len(part), self._width(size)
            octets = np.zeros((count, 8), dtype=np.uint8)
            taken = np.frombuffer(data[start : start + count * width], dtype=np.uint8)
            octets[:, :width] = taken.reshape(count, width)
            start += count * width
            codes[:, part] = self._unpacked(octets.reshape(-1).view("<u8").astype(np.uint64), size).reshape(
                shape[0], len(part), size
            )
        return codes

    def live(self, data: Any, shape: tuple[int, int], prior: object = None) -> int:
        """How many codes `decode` has to find."""
        return shape[0] * shape[1]

    def to_state(self) -> list:
        """Dimension, q, number of scales, block and index, for the container."""
        return [self.dimension, self.q, self.scales, self.block, self.index]

    @staticmethod
    def from_state(state: list, shape: tuple[int, int]) -> "NestedCoder":
        """Inverse of `to_state` for a matrix of this shape."""
        return NestedCoder(*checked(NestedCoder.schema, state, "coder", columns=shape[1]))

    def _unpacked(self, words: np.ndarray, size: int) -> np.ndarray:
        """Codes of words; raises `DamagedFileError` for numbers too large."""
        length = _length(self.q**size)
        index = words >> np.uint64(length) if length < 64 else words * np.uint64(0)
        left = words - (index << np.uint64(length)) if length < 64 else words
        codes = np.empty((len(words), size), dtype=np.int32)
        for column in range(size):
            left, codes[:, column] = np.divmod(left, np.uint64(self.q))
        if left.any() or (index >= self.scales).any():
            msg = f"a word of {size} digits and {self.scales} scales is too large; the file is damaged"
            raise DamagedFileError(msg)
        codes[:, 0] += self.q * index.astype(np.int32)
        return codes

    def _parts(self, columns: int) -> list[tuple[np.ndarray, int]]:
        """Columns of whole vectors, (vectors, n), and of those left over, (blocks, rest).

        Raises `InvalidInputError` for columns that are not whole blocks.
        """
        if columns % self.block:
            msg = f"{columns} columns are not whole blocks of {self.block}; pass a multiple"
            raise InvalidInputError(msg)
        starts = np.arange(0, columns, self.block)
        whole, left = divmod(self.block, self.dimension)
        inside = self.dimension * np.arange(whole)
        parts = []
        if whole:
            parts.append(((starts[:, None] + inside).reshape(-1, 1) + np.arange(self.dimension), self.dimension))
        if left:
            parts.append(((starts + self.dimension * whole)[:, None] + np.arange(left), left))
        return parts

    def first_columns(self, columns: int) -> np.ndarray:
        """Whether a column is the first of a vector."""
        found = np.zeros(columns, dtype=bool)
        for part, _ in self._parts(columns):
            found[part[:, 0]] = True
        return found

    def _bits(self, size: int) -> int:
        return _length(self.q**size) + _length(self.scales)

    def _width(self, size: int) -> int:
        return -(-self._bits(size) // 8)


@functools.cache
def _length(values: int) -> int:
    """Bits of a number below `values`.

    >>> _length(13**8), _length(4), _length(1)
    (30, 2, 0)
    """
    return (values - 1).bit_length()


def _frequencies(index: np.ndarray, scales: int) -> list[int]:
    """Integers that sum to GRID, none of them 0, close to how often each index occurs.

    The largest remainders are rounded up. What rare indices get too much, the most frequent ones give.

    >>> _frequencies(np.array([0, 0, 1]), 3)
    [2730, 1365, 1]
    """
    counts = np.bincount(index, minlength=scales) if index.size else np.ones(scales)
    ideal = counts / counts.sum() * GRID
    found = np.maximum(np.floor(ideal).astype(np.int64), 1)
    found[np.argsort(found - ideal)[: max(0, GRID - found.sum())]] += 1
    for _ in range(found.sum() - GRID):
        found[found.argmax()] -= 1
    return found.tolist()
