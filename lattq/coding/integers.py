"""Side information: short arrays of integers (exponents, gains, classes), coded as one discretised Gaussian."""

import numpy as np

from lattq.coding.ans import LARGEST_CLASS, decode_classes, encode_classes
from lattq.coding.damage import reading
from lattq.coding.schema import Inner, Integer, Record, checked
from lattq.coding.tables import CLASSES, code_lengths, limit, scale_class
from lattq.errors import DamagedFileError

__all__ = ["EXACT", "decode_integers", "encode_integers"]

EXACT = 1 << 53  # larger integers are no exact floats
STATE = Record(
    centre=Integer(-EXACT, EXACT), index=Integer(0, LARGEST_CLASS), words=Inner(), escapes=Inner()
)  # the stream, which `decode_classes` reads


def encode_integers(values: np.ndarray) -> list:
    """Code a 1-D integer array as [centre, class, words, escapes]; its length is not stored.

    The two parameters of the model cost two to four bytes; a constant array costs nothing more.

    >>> encode_integers(np.array([7, 7, 7]))
    [7, 0, b'', []]
    """
    values = np.asarray(values, dtype=np.int64)
    centre = int(np.median(values)) if values.size else 0
    index = best_class(values - centre)
    words, escapes = encode_classes(values - centre, np.full(values.shape, index))
    return [centre, index, words, escapes]


@reading("side information")
def decode_integers(stream: list, size: int, low: int = -EXACT, high: int = EXACT) -> np.ndarray:
    """Inverse of `encode_integers` for `size` entries from `low` to `high`; raises `DamagedFileError` for others.

    >>> decode_integers(encode_integers(np.array([3, -1, 4])), 3)
    array([ 3, -1,  4])
    """
    centre, index, words, escapes = checked(STATE, stream, "side information")
    found = decode_classes([words, escapes], np.full(size, index)) + centre
    if size and not low <= found.min() <= found.max() <= high:
        msg = f"side information of {found.min()} ... {found.max()}, not {low} ... {high}; the file is damaged"
        raise DamagedFileError(msg)
    return found


def best_class(symbols: np.ndarray) -> int:
    """Class that codes these symbols in the fewest bits."""
    magnitudes = np.abs(symbols)
    cap = limit(CLASSES - 1) + 1
    if symbols.size and magnitudes.max() >= cap:  # beyond the tables' scales: by moments
        wide = scale_class(np.sqrt(np.mean(np.square(magnitudes, dtype=np.float64), keepdims=True)))
        return min(int(wide[0]), LARGEST_CLASS)
    counts = np.bincount(magnitudes, minlength=cap + 1)
    return int(np.argmin(code_lengths(cap) @ counts))
