"""The errors lattq raises, and its warnings. Every message names the offending value and what to do about it."""

from typing import Any

__all__ = [
    "CodeOverflowError",
    "DamagedFileError",
    "FewTokensWarning",
    "InvalidInputError",
    "LattqError",
    "MissingPartError",
    "NotPositiveSemidefiniteError",
    "RateNotReachedError",
]


LONGEST = 400  # characters of a message


def shown(value: Any) -> str:
    """How a message shows a value: of collections and arrays the type, and the shape if there is one.

    >>> shown(-1.5), shown([1, 2, 3])
    ('-1.5', 'a list')
    """
    if isinstance(value, list | tuple | dict | set):
        return f"a {type(value).__name__}"
    if getattr(value, "shape", ()) != ():
        return f"a {type(value).__name__} of shape {tuple(value.shape)}"
    return repr(value)


class LattqError(Exception):
    """Base class of everything lattq raises on purpose; a message that prints a large value loses its middle."""

    def __init__(self, message: str = "") -> None:
        cut = len(message) > LONGEST
        super().__init__(f"{message[: LONGEST // 2]} … {message[-LONGEST // 2 :]}" if cut else message)


class InvalidInputError(LattqError, ValueError):
    """An argument that no computation can use: NaN, a wrong shape, a rate out of range."""


class CodeOverflowError(InvalidInputError):
    """Codes beyond what a coder can hold: the step is too small for these weights."""


class NotPositiveSemidefiniteError(LattqError, ValueError):
    """A second moment with a negative pivot.

    Attributes
    ----------
    index : column whose pivot is negative
    pivot : its value
    """

    def __init__(self, message: str, *, index: int, pivot: float) -> None:
        super().__init__(message)
        self.index = index
        self.pivot = pivot


class RateNotReachedError(LattqError):
    """No step of the recipe gives the wanted rate.

    Attributes
    ----------
    rate : wanted rate, bits per weight
    best : the result whose rate came closest, or None
    """

    def __init__(self, message: str, *, rate: float, best: object = None) -> None:
        super().__init__(message)
        self.rate = rate
        self.best = best


class DamagedFileError(LattqError, ValueError):
    """Bytes that are not what lattq wrote: truncated, altered, or of another format version."""


class FewTokensWarning(UserWarning):
    """Second moments were measured on so few tokens that they cost bits: fewer than eight for each column."""


class MissingPartError(LattqError):
    """A file that needs a part of a package that is not installed, or does not load.

    Attributes
    ----------
    role : transform, quantizer or coder
    kind : its name in the file, "package/word"
    """

    def __init__(self, message: str, *, role: str, kind: str) -> None:
        super().__init__(message)
        self.role = role
        self.kind = kind
