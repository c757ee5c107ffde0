"""Side information: short arrays of integers (exponents, gains, classes), coded as one discretised Gaussian."""

from typing import Any

import numpy as np

from lattq.coding.damage import reading
from lattq.coding.interleaved import decode_symbols, encode_symbols
from lattq.coding.schema import WORDS, Integer, Record, checked
from lattq.coding.slots import LARGEST_CLASS, gaussians, kinds_of_codes
from lattq.coding.tables import CLASSES, code_lengths, limit, scale_class
from lattq.errors import DamagedFileError

__all__ = ["EXACT", "cheapest", "decode_integers", "encode_integers", "stored_bits"]

CAP = limit(CLASSES - 1) + 1
SPREADS = (0, 1, 9, 17, 25, 33)  # classes of differences: none, and 1/8 to 2 in octaves
EXACT = 1 << 53  # larger integers are no exact floats
STATE = Record(centre=Integer(-EXACT, EXACT), index=Integer(0, LARGEST_CLASS), stream=WORDS)


def encode_integers(values: np.ndarray) -> list:
    """Code a 1-D integer array as [centre, class, stream]; its length is not stored.

    The two parameters of the model cost two to four bytes; a constant array, of class 0, has no stream.

    >>> encode_integers(np.array([7, 7, 7]))
    [7, 0, b'']
    """
    values = np.asarray(values, dtype=np.int64)
    centre = int(np.median(values)) if values.size else 0
    index = best_class(values - centre)
    kinds = np.full(values.shape, kinds_of_codes()[index])
    return [centre, index, encode_symbols(values - centre, kinds, gaussians()) if index else b""]


@reading("side information")
def decode_integers(stream: list, size: int, low: int = -EXACT, high: int = EXACT) -> np.ndarray:
    """Inverse of `encode_integers` for `size` entries from `low` to `high`; raises `DamagedFileError` for others.

    >>> decode_integers(encode_integers(np.array([3, -1, 4])), 3)
    array([ 3, -1,  4])
    """
    centre, index, words = checked(STATE, stream, "side information")
    number = size if index else 0  # of class 0 all are the centre
    found = decode_symbols(words, np.full(number, kinds_of_codes()[index]), gaussians()) + centre
    found = found if index else np.full(size, centre)
    if size and not low <= found.min() <= found.max() <= high:
        msg = f"side information of {found.min()} ... {found.max()}, not {low} ... {high}; the file is damaged"
        raise DamagedFileError(msg)
    return found


def best_class(symbols: np.ndarray) -> int:
    """Class that codes these symbols in the fewest bits; 0 where all are 0, and only there."""
    magnitudes = np.abs(symbols)
    if not magnitudes.any():
        return 0
    if symbols.size and magnitudes.max() >= CAP:  # beyond the tables' scales: by moments
        wide = scale_class(np.sqrt(np.mean(np.square(magnitudes, dtype=np.float64), keepdims=True)))
        return min(int(wide[0]), LARGEST_CLASS)
    counts = np.bincount(magnitudes, minlength=CAP + 1)
    return 1 + int(np.argmin(code_lengths(CAP)[1:] @ counts))


def cheapest(bits: np.ndarray, values: np.ndarray, prior: np.ndarray | int) -> tuple[np.ndarray, float]:
    """One of some integers for each column, stored as its difference from a prior: choices of the fewest bits in all.

    Where choices of one's own save less than their differences take, columns share one. Differences of a spread cost
    what a Gaussian of that scale gives them, so for each spread every column has its best choice; the best spread wins.

    Parameters
    ----------
    bits : what each choice costs a column, (columns, choices)
    values : the integers, (columns, choices)
    prior : what the decoder expects, up to a constant

    Returns
    -------
    places of the choices, and the bits of columns and differences

    >>> bits = np.array([[0.0, 1.0], [1.0, 0.0], [0.0, 9.0]])
    >>> cheapest(bits, np.array([[4, 5]] * 3), 0)[0], cheapest(100 * bits, np.array([[4, 5]] * 3), 0)[0]
    (array([0, 0, 0]), array([0, 1, 0]))
    """
    from lattq.kernels import counts  # numba takes long to import, and few need it

    choose: Any = counts.cheapest
    columns, lengths = np.arange(len(bits)), code_lengths(CAP)
    differences = values - np.broadcast_to(prior, len(bits))[:, None]
    own = bits.argmin(axis=1)
    tried = [own]
    for index in SPREADS:
        centre = _common(bits, differences) if index == 0 else int(np.median(differences[columns, tried[-1]]))
        tried.append(np.empty(len(bits), dtype=np.int64))
        choose(np.ascontiguousarray(bits), differences, centre, lengths[index], CAP, tried[-1])
    totals = [float(bits[columns, one].sum()) + stored_bits(differences[columns, one]) for one in tried]
    best = int(np.argmin(totals))
    return tried[best], totals[best]


def _common(bits: np.ndarray, differences: np.ndarray) -> int:
    """The difference that costs the fewest bits if all columns have it."""
    low = int(differences.min())
    known = np.full((len(bits), int(differences.max()) - low + 1), np.inf)
    np.put_along_axis(known, differences - low, bits, axis=1)
    return low + int(known.sum(axis=0).argmin())


def stored_bits(differences: np.ndarray) -> float:
    """Bits of integers, without those of the parameters."""
    away = differences - int(np.median(differences))
    return float(code_lengths(CAP)[best_class(away)][np.minimum(np.abs(away), CAP)].sum())
