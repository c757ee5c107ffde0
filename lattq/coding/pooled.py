"""The entropy coder of the literature: one histogram for the whole matrix, stored beside the codes."""

import dataclasses

import constriction
import numpy as np

from lattq.coding.base import BaseCoder
from lattq.coding.damage import reading
from lattq.coding.packing import pack, unpack
from lattq.errors import CodeOverflowError, DamagedFileError
from lattq.parts import register

__all__ = ["Pooled"]

MOST_SYMBOLS = 1 << 16


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

    def encode(self, codes: np.ndarray, prior: object = None) -> list:
        """[lowest code, histogram, words]; raises `CodeOverflowError` if the codes span more than 65536 values."""
        low = int(codes.min())
        if int(codes.max()) - low >= MOST_SYMBOLS:
            msg = f"codes span {low} ... {codes.max()}; a histogram holds {MOST_SYMBOLS} values: use a larger step"
            raise CodeOverflowError(msg)
        counts = np.bincount((codes - low).ravel())
        coder = constriction.stream.stack.AnsCoder()
        coder.encode_reverse((codes - low).ravel().astype(np.int32), _model(counts))
        widths = [int(count).bit_length() for count in counts]
        stored = b"".join(int(c).to_bytes((w + 7) // 8, "little") for c, w in zip(counts, widths, strict=True))
        sizes = pack(np.array([(w + 7) // 8 for w in widths]), 9)
        return [low, len(counts), sizes, stored, coder.get_compressed().astype("<u4").tobytes()]

    @reading("entropy-coded data")
    def decode(self, data: list, shape: tuple[int, int], prior: object = None) -> np.ndarray:
        """Inverse of `encode`; raises `DamagedFileError`."""
        low, size, sizes, stored, words = data
        ends = np.cumsum(unpack(sizes, 9, size))
        counts = np.array([int.from_bytes(stored[a:b], "little") for a, b in zip([0, *ends[:-1]], ends, strict=True)])
        if counts.sum() != shape[0] * shape[1]:
            msg = (
                f"the histogram counts {counts.sum()} codes, the matrix has {shape[0] * shape[1]}; the file is damaged"
            )
            raise DamagedFileError(msg)
        coder = constriction.stream.stack.AnsCoder(np.frombuffer(words, dtype="<u4").astype(np.uint32))
        codes = coder.decode(_model(counts), shape[0] * shape[1])
        if not coder.is_empty():
            msg = f"{len(words)} bytes hold more than {codes.size} codes; the file is damaged"
            raise DamagedFileError(msg)
        return (codes + low).reshape(shape)


def _model(counts: np.ndarray) -> constriction.stream.model.Categorical:
    """Table of a histogram; a lone symbol gets a neighbour that never occurs, since a model needs two."""
    if len(counts) == 1:
        counts = np.append(counts, 0)
    return constriction.stream.model.Categorical(counts / counts.sum(), perfect=False, lazy=False)
