"""Streams of format 1: the library `constriction`, a stack of 32-bit words, symbols of one class after the other."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from lattq.coding import cosets
from lattq.coding.schema import WORDS, Inner, Integer, Record, Series, checked
from lattq.coding.tables import CLASSES, CLASSES_PER_OCTAVE, TOTAL, gaussian_counts, limit
from lattq.errors import DamagedFileError, MissingPartError

__all__ = ["coder_of", "coset", "integers", "model_of", "require_end", "stack", "symbols"]

STREAM = Record(words=WORDS, escapes=Series(Integer(-(1 << 54), 1 << 54), 0, lambda at: at.symbols))
INTEGERS = Record(centre=Integer(-(1 << 53), 1 << 53), index=Integer(0, 1 << 10), words=Inner(), escapes=Inner())
MOST_LOW = 24

Tables = Callable[[int], tuple[np.ndarray, int, int]]  # counts, largest magnitude and low bits of a class


@functools.cache
def stack() -> Any:
    """The module of `constriction`, which is not needed for other files."""
    try:
        import constriction
    except ImportError as error:
        msg = "files of format 1 hold streams of another library; install it with `pip install lattq[format-1]`"
        raise MissingPartError(msg, role="coder", kind="constriction") from error
    return constriction.stream


def coder_of(words: bytes) -> Any:
    if words.endswith(bytes(4)):
        msg = f"{len(words)} bytes of a coder end in zeros; the file is damaged"
        raise DamagedFileError(msg)
    return stack().stack.AnsCoder(np.frombuffer(words, dtype="<u4").astype(np.uint32))


def require_end(coder: Any, what: str) -> None:
    if not coder.is_empty():
        msg = f"{what} hold more than their symbols; the file is damaged"
        raise DamagedFileError(msg)


def model_of(counts: np.ndarray, total: int) -> Any:
    return stack().model.Categorical(np.ascontiguousarray(counts / total), perfect=False, lazy=False)


def _rounded(index: int) -> tuple[np.ndarray, int, int]:
    """Table of a class of rounded Gaussians."""
    low = min(max(0, -((CLASSES - 1 - index) // CLASSES_PER_OCTAVE)), MOST_LOW)
    rest = index - low * CLASSES_PER_OCTAVE
    return gaussian_counts(rest), limit(rest), low


def coset(index: int) -> tuple[np.ndarray, int, int]:
    rest = cosets.shifted(index)
    return cosets.counts(rest), cosets.limit(rest), cosets.shift(index)


def symbols(stream: Any, classes: np.ndarray, tables: Tables = _rounded) -> np.ndarray:
    """Integers of known classes, one class after the other."""
    words, escapes = checked(STREAM, stream, "stream", symbols=classes.size)
    if classes.size and not 0 <= classes.min() <= classes.max() <= cosets.MOST_INDEX:
        msg = f"scale classes {classes.min()} ... {classes.max()}; the file is damaged"
        raise DamagedFileError(msg)
    coder, found, used = coder_of(words), np.empty(classes.size, dtype=np.int64), 0
    for index in np.unique(classes).tolist():
        members = np.flatnonzero(classes == index)
        counts, bound, low = tables(index)
        group = coder.decode(model_of(counts, TOTAL), len(members)).astype(np.int64) - bound
        outside = np.flatnonzero(group == bound + 1)
        if used + len(outside) > len(escapes):
            msg = f"more escaped symbols than {len(escapes)}; the file is damaged"
            raise DamagedFileError(msg)
        group[outside] = escapes[used : used + len(outside)]
        used += len(outside)
        if low:
            group = group << low | coder.decode(stack().model.Uniform(1 << low), len(members))
        found[members] = group
    require_end(coder, f"{len(words)} bytes")
    if used != len(escapes):
        msg = f"{len(escapes)} escaped symbols where {used} belong; the file is damaged"
        raise DamagedFileError(msg)
    return found


def integers(stream: Any, size: int, least: int = -(1 << 53)) -> np.ndarray:
    """Side information."""
    centre, index, *coded = checked(INTEGERS, stream, "side information")
    found = symbols(coded, np.full(size, index)) + centre
    if size and not least <= found.min() <= found.max() <= 1 << 53:
        msg = f"side information of {found.min()} ... {found.max()}; the file is damaged"
        raise DamagedFileError(msg)
    return found
