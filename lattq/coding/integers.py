"""Side information: short arrays of integers (exponents, gains, classes), coded as one discretised Gaussian."""

import numpy as np

from lattq.coding.ans import decode_classes, encode_classes
from lattq.coding.damage import reading
from lattq.coding.tables import CLASSES, code_lengths, limit, scale_class

__all__ = ["decode_integers", "encode_integers"]


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
def decode_integers(stream: list, size: int) -> np.ndarray:
    """Inverse of `encode_integers` for an array of `size` entries; raises `DamagedFileError`.

    >>> decode_integers(encode_integers(np.array([3, -1, 4])), 3)
    array([ 3, -1,  4])
    """
    centre, index, words, escapes = stream
    return decode_classes([words, escapes], np.full(size, index)) + centre


def best_class(symbols: np.ndarray) -> int:
    """Class that codes these symbols in the fewest bits."""
    magnitudes = np.abs(symbols)
    cap = limit(CLASSES - 1) + 1
    if symbols.size and magnitudes.max() >= cap:  # beyond the tables' scales: by moments
        return int(scale_class(np.sqrt(np.mean(np.square(magnitudes, dtype=np.float64), keepdims=True)))[0])
    counts = np.bincount(magnitudes, minlength=cap + 1)
    return int(np.argmin(code_lengths(cap) @ counts))
