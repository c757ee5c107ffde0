"""Indices into codebooks: one for each vector of weights, of fixed length or entropy coded."""

import dataclasses

import numpy as np

from lattq._options import as_flag, as_integer, normalize
from lattq.coding.base import BaseCoder
from lattq.coding.pooled import Pooled
from lattq.errors import DamagedFileError, InvalidInputError
from lattq.parts import register

__all__ = ["Indices"]

MOST_ENTRIES = 1 << 16


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

    def __post_init__(self) -> None:
        normalize(self, as_integer, "size", "dimension")
        normalize(self, as_flag, "down", "coded")
        if not 2 <= self.size <= MOST_ENTRIES or self.dimension < 1:
            msg = (
                f"`size` is {self.size} and `dimension` {self.dimension}; a codebook has 2 to {MOST_ENTRIES} entries "
                "of at least one number"
            )
            raise InvalidInputError(msg)

    def encode(self, codes: np.ndarray, prior: object = None) -> bytes | list:
        """Bytes, or the histogram and words of `Pooled`; raises `InvalidInputError` for what are no indices."""
        indices = self.shared(codes)
        if not 0 <= indices.min() <= indices.max() < self.size:
            msg = f"indices reach from {indices.min()} to {indices.max()}; the codebook has {self.size} entries"
            raise InvalidInputError(msg)
        return Pooled().encode(indices) if self.coded else self._packed(indices.ravel())

    def decode(self, data: bytes | list, shape: tuple[int, int], prior: object = None) -> np.ndarray:
        """Inverse of `encode`; raises `DamagedFileError`."""
        rows, columns = self.places(shape)
        if isinstance(data, list) != self.coded:
            msg = f"indices of the type {type(data).__name__}; the file is damaged"
            raise DamagedFileError(msg)
        if isinstance(data, list):
            indices = Pooled().decode(data, (rows, columns))
        else:
            indices = self._unpacked(data, rows * columns).reshape(rows, columns)
        return np.repeat(indices.astype(np.int32), self.dimension, axis=0 if self.down else 1)

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
        if len(data) != -(-self.bits * count // 8):
            msg = f"{count} indices of {self.bits} bits in {len(data)} bytes; the file is damaged"
            raise DamagedFileError(msg)
        ones = np.unpackbits(np.frombuffer(data, dtype=np.uint8), count=self.bits * count, bitorder="little")
        indices = ones.reshape(count, self.bits).astype(np.int32) @ (1 << np.arange(self.bits, dtype=np.int32))
        if indices.size and indices.max() >= self.size:
            msg = f"the index {indices.max()} into {self.size} entries; the file is damaged"
            raise DamagedFileError(msg)
        return indices
