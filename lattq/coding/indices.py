"""Indices into codebooks: one for each vector of weights, of fixed length or entropy coded."""

import dataclasses
from typing import Any

import numpy as np

from lattq._options import as_flag, as_integer, normalize
from lattq.coding.base import BaseCoder
from lattq.coding.pooled import Pooled
from lattq.coding.schema import Flag, Integer, Octets, Record, checked
from lattq.errors import DamagedFileError, InvalidInputError
from lattq.parts import register

__all__ = ["Indices"]

MOST_ENTRIES = 1 << 16
MOST_DIMENSION = 1 << 20


@register("coder", "indices")
@dataclasses.dataclass(frozen=True)
class Indices(BaseCoder):
    """Coder of codes that all weights of a vector share: `encode(codes)` and `decode(data, shape)`.

    Indices of b = ⌈log2 size⌉ bits lie one after the other, row by row, least significant bit first, without gaps.

    Parameters
    ----------
    size : entries of the codebook, 2 to 65536
    dimension : weights of a vector
    down : whether vectors lie down the rows, or side by side in a row
    coded : entropy coded with one histogram, or of fixed length

    Examples
    --------
    >>> coder = Indices(size=4, dimension=2)
    >>> coder.encode(np.array([[3, 3, 1, 1], [0, 0, 2, 2]]))
    b'\\x87'
    >>> coder.decode(b"\\x87", (2, 4))
    array([[3, 3, 1, 1],
           [0, 0, 2, 2]], dtype=int32)
    """

    size: int
    dimension: int = 1
    down: bool = False
    coded: bool = False

    schema = Record(size=Integer(2, MOST_ENTRIES), dimension=Integer(1, MOST_DIMENSION), down=Flag(), coded=Flag())

    def __post_init__(self) -> None:
        normalize(self, as_integer, "size", "dimension")
        normalize(self, as_flag, "down", "coded")
        if not (2 <= self.size <= MOST_ENTRIES and 1 <= self.dimension <= MOST_DIMENSION):
            msg = (
                f"`size` is {self.size} and `dimension` {self.dimension}; a codebook has 2 to {MOST_ENTRIES} entries "
                f"of 1 to {MOST_DIMENSION} numbers"
            )
            raise InvalidInputError(msg)

    def encode(self, codes: np.ndarray, prior: object = None) -> bytes | list:
        """Bytes, or the histogram and words of `Pooled`; raises `InvalidInputError` for what are no indices."""
        indices = self.shared(codes)
        if not 0 <= indices.min() <= indices.max() < self.size:
            msg = f"indices reach from {indices.min()} to {indices.max()}; the codebook has {self.size} entries"
            raise InvalidInputError(msg)
        return Pooled().encode(indices) if self.coded else self._packed(indices.ravel())

    def decode(self, data: Any, shape: tuple[int, int], prior: object = None) -> np.ndarray:
        """Inverse of `encode`; raises `DamagedFileError`."""
        rows, columns = self.places(shape)
        if self.coded:
            indices = self._checked(Pooled().decode(data, (rows, columns)))
        else:
            indices = self._unpacked(data, rows * columns).reshape(rows, columns)
        return np.repeat(indices.astype(np.int32), self.dimension, axis=0 if self.down else 1)

    def live(self, data: Any, shape: tuple[int, int], prior: object = None) -> int:
        """How many codes `decode` has to find."""
        return Pooled().live(data, shape) if self.coded else shape[0] * shape[1]

    def to_state(self) -> list:
        """Size, dimension and the two flags, for the container."""
        return [self.size, self.dimension, self.down, self.coded]

    @staticmethod
    def from_state(state: list, shape: tuple[int, int]) -> "Indices":
        """Inverse of `to_state`."""
        return Indices(*checked(Indices.schema, state, "coder"))

    def shared(self, codes: np.ndarray) -> np.ndarray:
        """One index for each vector.

        >>> Indices(8, 2, down=True).shared(np.array([[5, 6], [5, 6]]))
        array([[5, 6]])
        """
        self.places(codes.shape)
        indices = codes[:: self.dimension] if self.down else codes[:, :: self.dimension]
        if not np.array_equal(np.repeat(indices, self.dimension, axis=0 if self.down else 1), codes):
            msg = f"weights of one vector have different indices; all {self.dimension} share one"
            raise InvalidInputError(msg)
        return indices

    def places(self, shape: tuple[int, int]) -> tuple[int, int]:
        """How many vectors there are, down and across; raises `InvalidInputError` if they do not divide the matrix.

        >>> Indices(4, dimension=2).places((3, 8))
        (3, 4)
        """
        across, name = (shape[0], "rows") if self.down else (shape[1], "columns")
        if across % self.dimension:
            msg = f"vectors of {self.dimension} weights do not divide the {across} {name}; choose another `dimension`"
            raise InvalidInputError(msg)
        parts = across // self.dimension
        return (parts, shape[1]) if self.down else (shape[0], parts)

    @property
    def bits(self) -> int:
        """Of an index.

        >>> [Indices(size).bits for size in (2, 5, 256)]
        [1, 3, 8]
        """
        return (self.size - 1).bit_length()

    def _packed(self, indices: np.ndarray) -> bytes:
        ones = indices[:, None] >> np.arange(self.bits) & 1
        return np.packbits(ones.astype(np.uint8).reshape(-1), bitorder="little").tobytes()

    def _unpacked(self, data: bytes, count: int) -> np.ndarray:
        checked(Octets(-(-self.bits * count // 8)), data, f"{count} indices of {self.bits} bits")
        ones = np.unpackbits(np.frombuffer(data, dtype=np.uint8), count=self.bits * count, bitorder="little")
        indices = ones.reshape(count, self.bits).astype(np.int32) @ (1 << np.arange(self.bits, dtype=np.int32))
        return self._checked(indices)

    def _checked(self, indices: np.ndarray) -> np.ndarray:
        if indices.size and not 0 <= indices.min() <= indices.max() < self.size:
            msg = f"indices {indices.min()} ... {indices.max()} into {self.size} entries; the file is damaged"
            raise DamagedFileError(msg)
        return indices
