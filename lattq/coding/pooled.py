"""The entropy coder of the literature: one histogram for the whole matrix, stored beside the codes."""

import dataclasses

import numpy as np

from lattq.coding.alphabets import Histogram
from lattq.coding.base import BaseCoder
from lattq.coding.damage import reading
from lattq.coding.interleaved import Reader, encode_parts
from lattq.coding.packing import pack, packed_size, unpack
from lattq.coding.schema import WORDS, Integer, Octets, Record, checked
from lattq.errors import CodeOverflowError, DamagedFileError
from lattq.parts import register

__all__ = ["Pooled"]

MOST_SYMBOLS = 1 << 16
WIDEST = 8  # bytes of a count
DATA = Record(
    low=Integer(-(1 << 31), (1 << 31) - 1),
    size=Integer(1, lambda at: min(MOST_SYMBOLS, (1 << 31) - at.low)),
    widths=Octets(lambda at: packed_size(at.size, WIDEST + 1)),
    counts=Octets(),
    words=WORDS,
)


@register("coder", "pooled")
@dataclasses.dataclass(frozen=True)
class Pooled(BaseCoder):
    """Coder with one static histogram of all codes: `encode(codes)` and `decode(data, shape)`.

    This is what the plug-in entropy of published rates stands for, in real bytes. It knows no scales, so it pays for
    every spread of rows and columns (theory 3.2). Use `TwoWay` unless you compare with such rates.

    Examples
    --------
    >>> codes = np.array([[0, 0, 1], [0, -1, 0]])
    >>> (Pooled().decode(Pooled().encode(codes), (2, 3)) == codes).all()
    np.True_
    """

    schema = Record()

    def encode(self, codes: np.ndarray, prior: object = None) -> list:
        """[lowest code, histogram, stream]; raises `CodeOverflowError` if the codes span more than 65536 values."""
        low = int(codes.min())
        if int(codes.max()) - low >= MOST_SYMBOLS:
            msg = f"codes span {low} ... {codes.max()}; a histogram holds {MOST_SYMBOLS} values: use a larger step"
            raise CodeOverflowError(msg)
        counts = np.bincount((codes - low).ravel())
        parts = Histogram.of(counts).parts((codes - low).ravel()) if len(counts) > 1 else []  # a lone symbol needs none
        widths = np.array([(int(count).bit_length() + 7) // 8 for count in counts])
        stored = b"".join(int(c).to_bytes(w, "little") for c, w in zip(counts, widths, strict=True))
        return [low, len(counts), pack(widths, WIDEST + 1), stored, encode_parts(parts)]

    @reading("entropy-coded data")
    def decode(self, data: list, shape: tuple[int, int], prior: object = None) -> np.ndarray:
        """Inverse of `encode`; raises `DamagedFileError`."""
        low, size, widths, stored, words = checked(DATA, data, "histogram")
        counts = _counts(unpack(widths, WIDEST + 1, size), stored, shape[0] * shape[1])
        reader = Reader(words)
        codes = np.zeros(shape, dtype=np.int32)
        if size > 1:
            codes = Histogram.of(counts).take(reader, codes.size).astype(np.int32).reshape(shape)
        reader.close()
        return codes + np.int32(low)

    def live(self, data: list, shape: tuple[int, int], prior: object = None) -> int:
        """How many codes `decode` has to find: none if all are the same."""
        return shape[0] * shape[1] if checked(DATA, data, "histogram")[1] > 1 else 0

    def to_state(self) -> list:
        """Nothing."""
        return []

    @staticmethod
    def from_state(state: list, shape: tuple[int, int]) -> "Pooled":
        """Itself."""
        return Pooled(*checked(Pooled.schema, state, "coder"))


def _counts(widths: np.ndarray, stored: bytes, total: int) -> np.ndarray:
    """The histogram of so many codes, whose first and last symbols occur; raises `DamagedFileError`."""
    ends = np.cumsum(widths)
    if len(stored) != ends[-1]:
        msg = f"counts in {len(stored)} bytes where {ends[-1]} belong; the file is damaged"
        raise DamagedFileError(msg)
    counts = [int.from_bytes(stored[a:b], "little") for a, b in zip([0, *ends[:-1]], ends, strict=True)]
    if sum(counts) != total or not (counts[0] and counts[-1]):
        msg = (
            f"the histogram counts {sum(counts)} codes, the matrix has {total}, or its ends are 0; the file is damaged"
        )
        raise DamagedFileError(msg)
    return np.array(counts)
