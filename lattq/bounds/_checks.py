"""Checks of arguments shared by the bounds: each returns host float64, or raises and names the value."""

import math

import numpy as np

from lattq._array import Array, host_reals
from lattq._options import as_float
from lattq.errors import InvalidInputError

# beartype does not take an int for a float, and np.float32 is not a float.
Number = float | int | np.floating | np.integer


def positive(name: str, value: Number) -> float:
    """Return `value` as a float if it is positive and finite."""
    number = as_float(name, value)
    if not 0.0 < number < math.inf:  # also false for NaN
        msg = f"`{name}` is {number}; pass a finite number above zero"
        raise InvalidInputError(msg)
    return number


def non_negative(name: str, value: Number) -> float:
    """Return `value` as a float if it is finite and not negative."""
    number = as_float(name, value)
    if not 0.0 <= number < math.inf:
        msg = f"`{name}` is {number}; pass a finite number, zero or above"
        raise InvalidInputError(msg)
    return number


def integer_at_least(name: str, value: int, least: int) -> int:
    """Return `value` if it is a whole number of at least `least`."""
    if not least <= as_float(name, value) < math.inf or value != int(value):
        msg = f"`{name}` is {value}; pass a whole number of at least {least}"
        raise InvalidInputError(msg)
    return int(value)


def exactly_one(**arguments: Number | None) -> None:
    """Raise unless one of the arguments, and only one, is given."""
    given = [name for name, value in arguments.items() if value is not None]
    if len(given) != 1:
        wanted = " or ".join(f"`{name}`" for name in arguments)
        msg = f"got {' and '.join(f'`{name}`' for name in given) or 'neither'}; pass exactly one of {wanted}"
        raise InvalidInputError(msg)


def variance_vector(name: str, values: Array) -> np.ndarray:
    """Return `values` as a 1-D float64 array of finite numbers, none negative."""
    host = host_reals(name, values)
    if host.ndim != 1 or host.size == 0:
        msg = f"`{name}` has shape {host.shape}; pass a vector with at least one entry"
        raise InvalidInputError(msg)
    if host.min() < 0.0:
        index = int(host.argmin())
        msg = f"`{name}` holds {host[index]} at index {index}; a variance is not negative"
        raise InvalidInputError(msg)
    return host


def scalar_or_vector(name: str, values: Array | Number) -> np.ndarray:
    """Return a variance, or a vector of them, as a vector (of one entry for a scalar)."""
    if np.ndim(values) == 0:
        return np.array([non_negative(name, values)])
    return variance_vector(name, values)
