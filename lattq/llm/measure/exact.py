"""Sums of real numbers that do not depend on the order or grouping of what is added."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from lattq.errors import InvalidInputError
from lattq.kernels.limbs import BITS, add_integers, add_rows

__all__ = ["Exact", "ExactSum"]

CHUNK = 1 << 16  # numbers at a time, which stay in the cache


class Exact(NamedTuple):
    """A sum as it is kept: in floating point, and what is missing to the exact one, in units of 2^exponent."""

    sum: Float[np.ndarray, "*shape"]
    rest: Int[np.ndarray, "*shape"]


class ExactSum:
    """Sum of numbers, each rounded to a multiple of 2^exponent, then added without error.

    Integers add in any order to the same. Two limbs of 64 bits hold 115 bits of them.

    Parameters
    ----------
    shape : of what is added up
    exponent : of the unit
    allocate : makes the zeros of a shape and dtype in which the limbs lie

    Examples
    --------
    >>> found = ExactSum((1,), exponent=-64)
    >>> for value in (1e10, 2.0**-64, -1e10):
    ...     found.add(np.array([value]))
    >>> float(found.exact().sum[0]) * 2**64
    1.0
    """

    def __init__(self, shape: tuple[int, ...], exponent: int, allocate: Callable[..., Any] = np.zeros) -> None:
        self.shape, self.exponent = shape, exponent
        self._high, self._low = allocate(shape, np.int64), allocate(shape, np.int64)

    def add(self, values: Float[np.ndarray, "*shape"]) -> None:
        """Add numbers.

        Raises
        ------
        InvalidInputError : for one that is not finite, or a sum that leaves the range of the limbs
        """
        self._add(np.asarray(values, dtype=np.float64).reshape(1, -1), False, self._high, self._low)

    def add_triangle(self, group: int, values: Float[np.ndarray, "n n"]) -> None:
        """Add the lower triangle of a matrix, row by row, to one row of a sum of shape (groups, n (n + 1) / 2)."""
        self._add(values, True, self._high[group], self._low[group])

    def merge(self, other: Exact) -> None:
        """Add another sum of the same unit."""
        self.add(other.sum)
        add_integers(np.ascontiguousarray(other.rest).reshape(-1), self._high.reshape(-1), self._low.reshape(-1))

    def exact(self) -> Exact:
        """The sum as it is kept, which depends on its exact value alone."""
        high, low = self._high.reshape(-1), self._low.reshape(-1)
        total, rest = np.empty(len(high)), np.empty(len(high), dtype=np.int64)
        for start in range(0, len(high), CHUNK):
            part = slice(start, start + CHUNK)
            total[part] = np.ldexp(high[part].astype(np.float64), BITS) + low[part].astype(np.float64)
            above = np.rint(np.ldexp(total[part], -BITS))
            below = total[part] - np.ldexp(above, BITS)
            rest[part] = ((high[part] - above.astype(np.int64)) << BITS) + (low[part] - below.astype(np.int64))
        return Exact(np.ldexp(total, self.exponent).reshape(self.shape), rest.reshape(self.shape))

    def _add(self, values: np.ndarray, triangle: bool, high: np.ndarray, low: np.ndarray) -> None:
        place = add_rows(values, triangle, 2.0**-self.exponent, high.reshape(-1), low.reshape(-1))
        if place >= 0:
            largest = f"2^{self.exponent + BITS + 52}"
            msg = f"a sum over the tokens is not finite or beyond {largest}; give a model in scale, or fewer tokens"
            raise InvalidInputError(msg)
