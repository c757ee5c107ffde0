"""Whatever a decoder trips over in bytes that nobody wrote is one error."""

import contextlib
from collections.abc import Iterator

from lattq.errors import DamagedFileError

__all__ = ["reading"]


@contextlib.contextmanager
def reading(what: str) -> Iterator[None]:
    """Turn the errors of parsing malformed data into `DamagedFileError`, naming `what` is read.

    >>> with reading("the header"):
    ...     int("x")
    Traceback (most recent call last):
    lattq.errors.DamagedFileError: the header cannot be read (invalid literal for int() with base 10: 'x'); ...
    """
    try:
        yield
    except DamagedFileError:
        raise
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, ArithmeticError) as error:
        msg = f"{what} cannot be read ({error}); the file is damaged"
        raise DamagedFileError(msg) from error
