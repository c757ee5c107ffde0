"""Fixed-length codes: digits of any base packed into words of one to eight bytes."""

import dataclasses
import functools
import math

import numpy as np

from lattq._options import as_integer, normalize
from lattq.coding.base import BaseCoder
from lattq.coding.schema import Integer, Octets, Record, checked
from lattq.errors import DamagedFileError, InvalidInputError
from lattq.parts import register

__all__ = ["FixedLength", "pack", "packed_size", "unpack"]

LARGEST_CODE = 1 << 30


@register("coder", "fixed")
@dataclasses.dataclass(frozen=True)
class FixedLength(BaseCoder):
    """Coder of integers `low` ... `low + levels - 1`, all of the same length: `encode(codes)`, `decode(data, shape)`.

    Parameters
    ----------
    levels : how many values a code can take, 1 to 256. Powers of two take exactly log2(levels) bits; other numbers take
        as many digits as fit a word of at most eight bytes (three levels: 40 digits in 8 bytes, 1.6 bits each).
    low : the smallest code

    Examples
    --------
    >>> coder = FixedLength(levels=5, low=-2)
    >>> codes = np.array([[-2, 0], [1, 2]])
    >>> coder.decode(coder.encode(codes), (2, 2))
    array([[-2,  0],
           [ 1,  2]], dtype=int32)
    """

    levels: int
    low: int = 0

    schema = Record(levels=Integer(1, 256), low=Integer(-LARGEST_CODE, LARGEST_CODE))

    def __post_init__(self) -> None:
        normalize(self, as_integer, "levels", "low")
        if not (1 <= self.levels <= 256 and abs(self.low) <= LARGEST_CODE):
            msg = f"`levels` is {self.levels} and `low` {self.low}; a fixed-length code has 1 to 256, within ± 2^30"
            raise InvalidInputError(msg)

    def encode(self, codes: np.ndarray, prior: object = None) -> bytes:
        """Pack the codes row by row; raises `InvalidInputError` for a code out of range."""
        digits = codes.ravel().astype(np.int64) - self.low
        if digits.size and (digits.min() < 0 or digits.max() >= self.levels):
            wrong = digits[(digits < 0) | (digits >= self.levels)][0] + self.low
            msg = f"code {wrong} is outside {self.low} ... {self.low + self.levels - 1}"
            raise InvalidInputError(msg)
        return pack(digits, self.levels)

    def decode(self, data: bytes, shape: tuple[int, int], prior: object = None) -> np.ndarray:
        """Inverse of `encode`; raises `DamagedFileError` if `data` does not have the length that `shape` needs."""
        return (unpack(data, self.levels, shape[0] * shape[1]) + self.low).astype(np.int32).reshape(shape)

    def live(self, data: bytes, shape: tuple[int, int], prior: object = None) -> int:
        """How many codes `decode` has to find."""
        return shape[0] * shape[1] if self.levels > 1 else 0

    def to_state(self) -> list:
        """Levels and the smallest code, for the container."""
        return [self.levels, self.low]

    @staticmethod
    def from_state(state: list, shape: tuple[int, int]) -> "FixedLength":
        """Inverse of `to_state`."""
        return FixedLength(*checked(FixedLength.schema, state, "coder"))


def pack(digits: np.ndarray, base: int) -> bytes:
    """Pack digits 0 ... base - 1, the first digit lowest; the last word is cut to the bytes it needs.

    >>> pack(np.array([1, 2, 3, 0]), 4)
    b'9'
    """
    count, width = _word(base)
    words = np.zeros(-(-digits.size // count), dtype=np.uint64)
    padded = np.zeros(words.size * count, dtype=np.uint64)
    padded[: digits.size] = digits
    for column in padded.reshape(-1, count).T[::-1]:
        words = words * np.uint64(base) + column
    octets = words.astype("<u8").view(np.uint8).reshape(-1, 8)[:, :width]
    return octets.tobytes()[: packed_size(digits.size, base)]


def unpack(data: bytes, base: int, size: int) -> np.ndarray:
    """Inverse of `pack` for `size` digits.

    >>> unpack(b'9', 4, 4)
    array([1, 2, 3, 0])
    """
    checked(Octets(packed_size(size, base)), data, f"{size} digits of base {base}")
    if base == 1:
        return np.zeros(size, dtype=np.int64)
    count, width = _word(base)
    octets = np.zeros((-(-size // count), 8), dtype=np.uint8)
    flat = np.zeros(octets.shape[0] * width, dtype=np.uint8)
    flat[: len(data)] = np.frombuffer(data, dtype=np.uint8)
    octets[:, :width] = flat.reshape(-1, width)
    words = octets.reshape(-1).view("<u8").astype(np.uint64)
    digits = np.empty((words.size, count), dtype=np.int64)
    for column in range(count):
        words, digits[:, column] = np.divmod(words, np.uint64(base))
    digits = digits.reshape(-1)[:size]
    if digits.size and digits.max() >= base:
        msg = f"digit {digits.max()} in base {base}; the file is damaged"
        raise DamagedFileError(msg)
    return digits


def packed_size(size: int, base: int) -> int:
    """Bytes of `size` digits of this base.

    >>> packed_size(5, 3), packed_size(8, 16)
    (1, 4)
    """
    count, width = _word(base)
    full, rest = divmod(size, count)
    return full * width + math.ceil(math.log2(base) * rest / 8 - 1e-12)


@functools.cache
def _word(base: int) -> tuple[int, int]:
    """Digits per word and bytes per word with the fewest bits per digit."""
    if base == 1:
        return 64, 0
    sizes = [(math.floor(8 * width / math.log2(base) + 1e-12), width) for width in range(1, 9)]
    return min(((count, width) for count, width in sizes if count), key=lambda word: word[1] / word[0])
