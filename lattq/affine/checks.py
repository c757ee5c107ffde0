"""What the arguments of this room must satisfy."""

import math
from typing import Any

import numpy as np

from lattq._array import Array, as_floats, host_reals
from lattq._options import as_float, as_integer
from lattq.errors import InvalidInputError

__all__ = [
    "as_damping",
    "as_fraction",
    "at_least",
    "check_ratio",
    "check_stability",
    "host_square",
    "require_square",
    "square",
]


def at_least(name: str, value: int, least: int) -> int:
    """The integer as a Python one; raises `InvalidInputError` below `least`.

    >>> at_least("steps", 2, 1)
    2
    """
    found = as_integer(name, value)
    if found < least:
        msg = f"`{name}` is {found}; it is at least {least}"
        raise InvalidInputError(msg)
    return found


def as_fraction(name: str, value: Any) -> float:
    """The number as a Python float; raises `InvalidInputError` unless it is from 0 to 1.

    >>> as_fraction("share", 1)
    1.0
    """
    found = as_float(name, value)
    if not 0 <= found <= 1:
        msg = f"`{name}` is {found}; pass a number from 0 to 1"
        raise InvalidInputError(msg)
    return found


def as_damping(name: str, value: Any) -> float:
    """The number as a Python float; raises `InvalidInputError` unless it is finite and at least 0.

    >>> as_damping("damping", 0)
    0.0
    """
    found = as_float(name, value)
    if not 0 <= found < math.inf:
        msg = f"`{name}` is {found}; pass a fraction of the mean diagonal, 0 or more"
        raise InvalidInputError(msg)
    return found


def check_stability(stability: Any) -> float:
    """The factor of a mask as a Python float; raises `InvalidInputError` unless it is above 0 and at most 1.

    >>> check_stability(0.1)
    0.1
    """
    found = as_float("stability", stability)
    if not 0 < found <= 1:
        msg = f"`stability` is {found}; the factor of the mask is above 0 and at most 1"
        raise InvalidInputError(msg)
    return found


def check_ratio(ratio: float, name: str = "ratio") -> float:
    """The dominance ratio as a Python float; raises `InvalidInputError` unless 0 < ratio < 1.

    >>> check_ratio(0.9)
    0.9
    """
    found = as_float(name, ratio)
    if not 0 < found < 1:
        msg = f"`{name}` is {found}; rows are strictly dominant for ratios above 0 and below 1, such as 0.9"
        raise InvalidInputError(msg)
    return found


def square(name: str, x: Array) -> Array:
    """Finite square matrices, in their library, float32 or float64; raises `InvalidInputError`.

    >>> square("matrix", np.eye(2, dtype=np.float32)).dtype
    dtype('float32')
    """
    found = as_floats(name, x)
    require_square(name, found)
    return found


def host_square(name: str, x: Array) -> np.ndarray:
    """One finite square matrix on the host in float64; raises `InvalidInputError`.

    >>> host_square("matrix", np.eye(1, dtype=np.float32))
    array([[1.]])
    """
    found = host_reals(name, x)
    require_square(name, found)
    if found.ndim != 2:
        msg = f"`{name}` has shape {found.shape}; pass one matrix at a time"
        raise InvalidInputError(msg)
    return found


def require_square(name: str, x: Array) -> None:
    """Raise `InvalidInputError` unless the last two axes of `x` are equal and nothing is empty.

    >>> require_square("matrix", np.ones((3, 2, 2)))
    """
    shape = tuple(x.shape)
    if len(shape) < 2 or shape[-1] != shape[-2] or 0 in shape:
        msg = f"`{name}` has shape {shape}; pass a square matrix with at least one row"
        raise InvalidInputError(msg)
