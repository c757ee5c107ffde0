"""What a part of a file may hold: a description that is checked before anything is decoded or allocated.

A schema says of which kind a value is (an integer is no flag, a float no integer), between which ends it lies, and how
long it is. Lengths and ends may depend on the matrix and on fields read before: they are functions of a namespace that
has `rows`, `columns` and those fields.
"""

import dataclasses
import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, Protocol, runtime_checkable

from lattq.errors import DamagedFileError

__all__ = [
    "KIND",
    "MOST_EXPONENT",
    "SCALE",
    "WORDS",
    "Choice",
    "Either",
    "Flag",
    "Inner",
    "Integer",
    "Octets",
    "Real",
    "Record",
    "Schema",
    "Series",
    "Text",
    "checked",
]

Number = int | Callable[[SimpleNamespace], int]

MOST_EXPONENT = 511  # of positive numbers in files: the squares of 2^-511 ... 2^511 are normal numbers of float64


@runtime_checkable
class Schema(Protocol):
    """A description of a value."""

    def read(self, value: Any, at: SimpleNamespace, name: str) -> Any:
        """The value if it fits; raises `DamagedFileError` that names it."""
        ...


@dataclasses.dataclass(frozen=True)
class Integer:
    """An integer between two ends, both included.

    >>> checked(Integer(1, lambda at: at.columns), 3, columns=4)
    3
    """

    low: Number
    high: Number

    def read(self, value: Any, at: SimpleNamespace, name: str) -> int:
        """The integer."""
        low, high = _number(self.low, at), _number(self.high, at)
        if type(value) is not int or not low <= value <= high:
            raise _refusal(name, value, f"an integer from {low} to {high}")
        return value


@dataclasses.dataclass(frozen=True)
class Real:
    """A float between two ends, both included; so neither NaN nor infinite.

    >>> checked(Real(-1.0, 1.0), float("nan"), "offset")
    Traceback (most recent call last):
    lattq.errors.DamagedFileError: `offset` is nan, not a float from -1 to 1; the file is damaged
    """

    low: float
    high: float

    def read(self, value: Any, at: SimpleNamespace, name: str) -> float:
        """The float."""
        if type(value) is not float or not self.low <= value <= self.high:
            raise _refusal(name, value, f"a float from {self.low:.3g} to {self.high:.3g}")
        return value


@dataclasses.dataclass(frozen=True)
class Flag:
    """True or False.

    >>> checked(Flag(), True)
    True
    """

    def read(self, value: Any, at: SimpleNamespace, name: str) -> bool:
        """The flag."""
        if type(value) is not bool:
            raise _refusal(name, value, "true or false")
        return value


@dataclasses.dataclass(frozen=True)
class Text:
    """A string that a regular expression matches as a whole.

    >>> checked(Text(r"[a-z]{1,8}"), "nested")
    'nested'
    """

    pattern: str

    def read(self, value: Any, at: SimpleNamespace, name: str) -> str:
        """The string."""
        if type(value) is not str or not re.fullmatch(self.pattern, value, re.ASCII):
            raise _refusal(name, value, f"a name like {self.pattern}")
        return value


class Choice:
    """One of a few values, of the same type.

    >>> checked(Choice(None, 4, 8), 4)
    4
    """

    def __init__(self, *values: Any) -> None:
        self.values = values

    def read(self, value: Any, at: SimpleNamespace, name: str) -> Any:
        """The value."""
        if not any(type(value) is type(one) and value == one for one in self.values):
            raise _refusal(name, value, f"one of {', '.join(map(repr, self.values))}")
        return value


@dataclasses.dataclass(frozen=True)
class Octets:
    """Bytes of one length, or of any length that is a multiple of `unit`.

    >>> checked(Octets(lambda at: 2 * at.columns), b"abcd", columns=2)
    b'abcd'
    """

    size: Number | None = None
    unit: int = 1

    def read(self, value: Any, at: SimpleNamespace, name: str) -> bytes:
        """The bytes."""
        if type(value) is not bytes or len(value) % self.unit:
            raise _refusal(name, value, f"bytes in words of {self.unit}")
        if self.size is not None and len(value) != _number(self.size, at):
            raise _refusal(name, value, f"{_number(self.size, at)} bytes")
        return value


class Either:
    """Any of some schemas; None stands for nothing at all.

    >>> checked(Either(None, Integer(-8, 0)), -3)
    -3
    """

    def __init__(self, *schemas: Schema | None) -> None:
        self.schemas = schemas

    def read(self, value: Any, at: SimpleNamespace, name: str) -> Any:
        """What the first schema that fits makes of the value."""
        found: list[str] = []
        for schema in self.schemas:
            if schema is None:
                if value is None:
                    return None
                continue
            try:
                return schema.read(value, at, name)
            except DamagedFileError as error:
                found.append(str(error))
        raise DamagedFileError(found[-1])


@dataclasses.dataclass(frozen=True)
class Series:
    """A list of `least` to `most` values of one schema.

    >>> checked(Series(Real(0.0, 1.0), 1, 256), [0.25, 0.5])
    [0.25, 0.5]
    """

    item: Schema
    least: Number
    most: Number

    def read(self, value: Any, at: SimpleNamespace, name: str) -> list:
        """The list."""
        least, most = _number(self.least, at), _number(self.most, at)
        if type(value) is not list or not least <= len(value) <= most:
            raise _refusal(name, value, f"a list of {least}" if least == most else f"a list of {least} to {most}")
        return [self.item.read(one, at, name) for one in value]


class Inner:
    """Anything: the state of another part, whose own schema reads it.

    >>> checked(Inner(), ["fixed", [4, 0]])
    ['fixed', [4, 0]]
    """

    def read(self, value: Any, at: SimpleNamespace, name: str) -> Any:
        """The value, unseen."""
        return value


class Record:
    """A list of fields with names, each seen by the schemas of those after it.

    >>> checked(Record(count=Integer(0, 9), words=Octets(lambda at: 4 * at.count)), [1, b"1234"])
    [1, b'1234']
    """

    def __init__(self, **fields: Schema) -> None:
        self.fields = fields

    def read(self, value: Any, at: SimpleNamespace, name: str) -> list:
        """The list of fields."""
        if type(value) is not list or len(value) != len(self.fields):
            raise _refusal(name, value, f"a list of {len(self.fields)} ({', '.join(self.fields)})")
        inside = SimpleNamespace(**vars(at))
        found = []
        for (field, schema), one in zip(self.fields.items(), value, strict=True):
            found.append(schema.read(one, inside, field))
            setattr(inside, field, found[-1])
        return found


SCALE = Real(2.0**-MOST_EXPONENT, 2.0**MOST_EXPONENT)
"""Steps and scales that are stored as they are."""
KIND = Text(r"[\w./-]{1,200}")
"""Name of a kind of part."""
WORDS = Octets()
"""What an entropy coder leaves; `coding.interleaved` reads it."""


def checked(schema: Schema, value: Any, name: str = "state", **sizes: int) -> Any:
    """The value if the schema fits; `sizes` are what it may depend on. Raises `DamagedFileError`.

    >>> checked(Octets(lambda at: 2 * at.columns), b"abc", "order", columns=2)
    Traceback (most recent call last):
    lattq.errors.DamagedFileError: `order` is 3 bytes, not 4 bytes; the file is damaged
    """
    return schema.read(value, SimpleNamespace(**sizes), name)


def _number(number: Number, at: SimpleNamespace) -> int:
    return number if isinstance(number, int) else number(at)


def _refusal(name: str, value: Any, wanted: str) -> DamagedFileError:
    return DamagedFileError(f"`{name}` is {_described(value)}, not {wanted}; the file is damaged")


def _described(value: Any) -> str:
    """A few words, however large the value is.

    >>> _described([1, 2]), _described(b"abc"), _described(2.5)
    ('a list of 2', '3 bytes', '2.5')
    """
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if isinstance(value, int | float | str | None):
        return repr(value)[:40]
    return f"a {type(value).__name__}"
