"""Asymmetric numeral systems (constriction) over frozen tables."""

import dataclasses
from collections.abc import Callable

import constriction
import numpy as np

from lattq.coding import cosets
from lattq.coding.damage import reading
from lattq.coding.schema import WORDS, Integer, Record, Series, checked
from lattq.coding.tables import CLASSES, CLASSES_PER_OCTAVE, gaussian_model, limit
from lattq.errors import DamagedFileError

__all__ = [
    "BIT",
    "COSETS",
    "LARGEST_CLASS",
    "ROUNDED",
    "Stream",
    "Tables",
    "coder_of",
    "decode_classes",
    "encode_classes",
    "require_codes",
    "words_of",
]

BIT = constriction.stream.model.Bernoulli(perfect=False)  # of a bit whose chance to be 1 is given with it

Stream = list  # [bytes of the coder, escaped symbols in coding order]

LARGEST_SHIFT = 24  # `constriction` codes up to 24 equiprobable bits at once
LARGEST_CLASS = CLASSES - 1 + CLASSES_PER_OCTAVE * LARGEST_SHIFT  # wider symbols, up to 2^32, have no other table
LARGEST_SYMBOL = 1 << 54  # that stands as it is where its table does not hold it: differences of exact floats


@dataclasses.dataclass(frozen=True)
class Tables:
    """A family of frozen tables: the model of an index over symbols moved by `limit`, with an escape at its end.

    `shift` low bits are coded as they are, and the rest with the table `shifted`.
    """

    model: Callable[[int], constriction.stream.model.Categorical]
    limit: Callable[[int], int]
    shift: Callable[[int], int]
    shifted: Callable[[int], int]
    largest: int


def _shift(index: int) -> int:
    """Low bits coded as they are, so that the rest falls in a class that has a table."""
    return max(0, -((CLASSES - 1 - index) // CLASSES_PER_OCTAVE))


def _shifted(index: int) -> int:
    return index - _shift(index) * CLASSES_PER_OCTAVE


ROUNDED = Tables(gaussian_model, limit, _shift, _shifted, LARGEST_CLASS)
COSETS = Tables(cosets.model, cosets.limit, cosets.shift, cosets.shifted, cosets.MOST_INDEX)


def words_of(coder: constriction.stream.stack.AnsCoder) -> bytes:
    """What the coder holds, in 32-bit words; the last of them is not 0, and bytes of 0 at its end are not stored.

    >>> words_of(coder_of(b"abcdef"))
    b'abcdef'
    """
    return coder.get_compressed().astype("<u4").tobytes().rstrip(b"\0")


def coder_of(words: bytes) -> constriction.stream.stack.AnsCoder:
    """A coder that holds what `words_of` returned; raises `DamagedFileError` for what it does not return."""
    if words.endswith(b"\0"):
        msg = f"{len(words)} bytes of a coder end in a zero; the file is damaged"
        raise DamagedFileError(msg)
    padded = words + bytes(-len(words) % 4)
    return constriction.stream.stack.AnsCoder(np.frombuffer(padded, dtype="<u4").astype(np.uint32))


def encode_classes(symbols: np.ndarray, classes: np.ndarray, tables: Tables = ROUNDED) -> Stream:
    """Code integers of known scale classes, both 1-D; symbols of one class are coded together.

    The coder is a stack, so groups go in from the last to the first.
    """
    coder = constriction.stream.stack.AnsCoder()
    escapes: list[np.ndarray] = []
    for index, members in reversed(_groups(classes)):
        shift = tables.shift(index)
        group = symbols[members]
        if shift:
            low = (group & ((1 << shift) - 1)).astype(np.int32)
            coder.encode_reverse(low, constriction.stream.model.Uniform(1 << shift))
        escapes.append(_encode_group(coder, group >> shift, tables.shifted(index), tables))
    return [words_of(coder), [int(x) for group in reversed(escapes) for x in group]]


STREAM = Record(words=WORDS, escapes=Series(Integer(-LARGEST_SYMBOL, LARGEST_SYMBOL), 0, lambda at: at.symbols))


@reading("entropy-coded block")
def decode_classes(stream: Stream, classes: np.ndarray, tables: Tables = ROUNDED) -> np.ndarray:
    """Inverse of `encode_classes`; raises `DamagedFileError` if the stream does not end where it should."""
    words, escapes = checked(STREAM, stream, "stream", symbols=classes.size)
    if classes.size and not 0 <= classes.min() <= classes.max() <= tables.largest:
        msg = f"scale classes {classes.min()} ... {classes.max()}, not 0 ... {tables.largest}; the file is damaged"
        raise DamagedFileError(msg)
    coder = coder_of(words)
    symbols = np.empty(classes.shape, dtype=np.int64)
    used = 0
    for index, members in _groups(classes):
        shift = tables.shift(index)
        group, used = _decode_group(coder, len(members), tables.shifted(index), escapes, used, tables)
        if shift:
            low = coder.decode(constriction.stream.model.Uniform(1 << shift), len(members))
            group = (group << shift) | low
        symbols[members] = group
    if not coder.is_empty() or used != len(escapes):
        msg = (
            f"entropy-coded block of {len(words)} bytes holds more than its {classes.size} symbols; the file is damaged"
        )
        raise DamagedFileError(msg)
    return symbols


def require_codes(symbols: np.ndarray) -> np.ndarray:
    """Decoded symbols as codes; raises `DamagedFileError` for what int32 does not hold.

    >>> require_codes(np.array([3, -4])).dtype
    dtype('int32')
    """
    if symbols.size and not -(1 << 31) <= symbols.min() <= symbols.max() < 1 << 31:
        msg = f"codes {symbols.min()} ... {symbols.max()} are beyond 32 bits; the file is damaged"
        raise DamagedFileError(msg)
    return symbols.astype(np.int32)


def _groups(classes: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """Positions of each class that occurs, in rising class."""
    order = np.argsort(classes.astype(np.int16), kind="stable")  # a radix sort for 16-bit keys
    counts = np.bincount(classes, minlength=1)
    ends = np.cumsum(counts)
    return [(int(i), order[ends[i] - counts[i] : ends[i]]) for i in np.flatnonzero(counts)]


def _encode_group(
    coder: constriction.stream.stack.AnsCoder, group: np.ndarray, index: int, tables: Tables
) -> np.ndarray:
    bound = tables.limit(index)
    outside = np.abs(group) > bound
    escaped = group[outside]
    shifted = np.where(outside, 2 * bound + 1, group + bound)
    coder.encode_reverse(shifted.astype(np.int32), tables.model(index))
    return escaped


def _decode_group(
    coder: constriction.stream.stack.AnsCoder, size: int, index: int, escapes: list[int], used: int, tables: Tables
) -> tuple[np.ndarray, int]:
    bound = tables.limit(index)
    group = coder.decode(tables.model(index), size).astype(np.int64) - bound
    outside = np.flatnonzero(group == bound + 1)
    values = escapes[used : used + len(outside)]
    if len(values) < len(outside):
        msg = f"{len(outside)} escaped symbols announced, {len(values)} present; the file is damaged"
        raise DamagedFileError(msg)
    group[outside] = values
    return group, used + len(outside)
