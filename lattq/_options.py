"""Options that become part of a file: integers and floats of Python, whatever number type they came as."""

import decimal
import math
import operator
from collections.abc import Callable, Collection
from typing import Any

import numpy as np

from lattq.errors import InvalidInputError, shown

__all__ = [
    "among",
    "as_count",
    "as_flag",
    "as_float",
    "as_integer",
    "as_names",
    "as_seed",
    "check_levels",
    "normalize",
    "power_of_two",
]


def as_integer(name: str, value: Any) -> int:
    """The integer `value` as a Python one; raises `InvalidInputError`.

    >>> import numpy as np
    >>> as_integer("levels", np.int64(8))
    8
    """
    try:
        return operator.index(value)
    except TypeError:
        msg = f"`{name}` is {shown(value)}; pass an integer"
        raise InvalidInputError(msg) from None


def as_count(name: str, value: Any, least: int = 1) -> int:
    """An integer of at least so many as a Python one; raises `InvalidInputError`.

    >>> as_count("samples", 3)
    3
    """
    found = as_integer(name, value)
    if found < least:
        msg = f"`{name}` is {found}; use at least {least}"
        raise InvalidInputError(msg)
    return found


def as_float(name: str, value: Any) -> float:
    """The number `value` as a Python float; raises `InvalidInputError`.

    >>> as_float("step", 1)
    1.0
    """
    try:
        if not isinstance(value, str | bytes):
            return float(value)
    except (TypeError, ValueError, OverflowError):
        pass
    msg = f"`{name}` is {shown(value)}; pass a number"
    raise InvalidInputError(msg)


def as_flag(name: str, value: Any) -> bool:
    """True or False as Python's own; raises `InvalidInputError` for what only counts as one, such as "no".

    >>> import numpy as np
    >>> as_flag("shrink", np.bool_(True))
    True
    """
    if not isinstance(value, bool | np.bool_):
        msg = f"`{name}` is {shown(value)}; pass True or False"
        raise InvalidInputError(msg)
    return bool(value)


def normalize(design: Any, kind: Callable[[str, Any], Any], *names: str, optional: tuple[str, ...] = ()) -> None:
    """Turn options of a frozen value into Python numbers; those in `optional` may be None, which stays.

    Raises `InvalidInputError` for what is no number.

    >>> import numpy as np
    >>> from lattq.quantizers import Uniform
    >>> Uniform(step=np.float64(0.5))
    Uniform(step=0.5, offset=0.0, shrink=False, dither=None, levels=None)
    """
    for name in (*names, *optional):
        value = getattr(design, name)
        if value is not None or name in names:
            object.__setattr__(design, name, kind(name, value))


def among(value: Any, names: Collection[str]) -> bool:
    """Whether a value is one of these names; also for what has no hash, or compares element by element.

    >>> among("best", ("best", "first")), among([], ("best", "first"))
    (True, False)
    """
    return isinstance(value, str) and value in names


def as_names(name: str, value: Any) -> tuple[str, ...]:
    """Names, or patterns of them, as a tuple; raises `InvalidInputError` for a single text, none, and other entries.

    >>> as_names("places", ["*.values"])
    ('*.values',)
    """
    if not isinstance(value, list | tuple):
        msg = f"`{name}` is {shown(value)}; pass a tuple of names"
        raise InvalidInputError(msg)
    if not value:
        msg = f"`{name}` is {value}; pass a tuple of at least one name"
        raise InvalidInputError(msg)
    for one in value:
        if not isinstance(one, str):
            msg = f"`{name}` holds {shown(one)}; pass a tuple of names"
            raise InvalidInputError(msg)
    return tuple(value)


def as_seed(seed: Any, *, bits: int | None = None) -> int:
    """A seed as a Python integer; raises `InvalidInputError` for what is none, a negative one, or one of more bits.

    >>> as_seed(3)
    3
    """
    found = as_integer("seed", seed)
    if found < 0:
        msg = f"`seed` is {found}; a seed is an integer of at least 0"
        raise InvalidInputError(msg)
    if bits is not None and found.bit_length() > bits:
        msg = f"`seed` is {found}; pass one below 2^{bits}"
        raise InvalidInputError(msg)
    return found


def power_of_two(parts: int, of_octave: int) -> float:
    """The float64 nearest to 2^(parts / of_octave): the same on every platform, which a library's exp2 is not.

    >>> power_of_two(-16, 16), power_of_two(1, 2) == math.sqrt(2)
    (0.5, True)
    """
    whole, rest = divmod(parts, of_octave)
    digits = decimal.Context(prec=40)
    root = digits.power(decimal.Decimal(2), digits.divide(decimal.Decimal(rest), decimal.Decimal(of_octave)))
    return math.ldexp(float(root), whole)


def check_levels(levels: int) -> None:
    """Raise `InvalidInputError` unless 2 <= levels <= 256.

    >>> check_levels(256)
    """
    if not 2 <= levels <= 256:
        msg = f"`levels` is {levels}; integer formats here have 2 to 256 levels"
        raise InvalidInputError(msg)
