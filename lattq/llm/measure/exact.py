"""Sums of real numbers that do not depend on the order or grouping of what is added."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from lattq.errors import InvalidInputError

__all__ = ["Exact", "ExactSum"]

LIMB = 62  # bits of the lower limb, sign included
LARGEST = 2.0**52  # of the upper limb: what is beyond a float of the sum then fits an integer of 64 bits
CHUNK = 1 << 15  # numbers at a time, which stay in the cache


class Exact(NamedTuple):
    """A sum as it is kept: in floating point, and what is missing to the exact one, in units of 2^exponent."""

    sum: Float[np.ndarray, "*shape"]
    rest: Int[np.ndarray, "*shape"]


class ExactSum:
    """Sum of arrays of float64, each rounded to multiples of 2^exponent, then added without error.

    Integers add in any order to the same: two limbs of 64 bits hold 115 bits.

    Parameters
    ----------
    shape : of the arrays
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
        self._high = allocate(shape, np.int64)
        self._low = allocate(shape, np.int64)

    def add(self, values: Float[np.ndarray, "*shape"]) -> None:
        """Add an array.

        Raises
        ------
        InvalidInputError : for a number that is not finite, or a sum that leaves the range of the limbs
        """
        given = np.asarray(values, dtype=np.float64).reshape(-1)
        for part, high, low in self._chunks():
            self._carry(high, low, *_limbs(given[part], self.exponent))

    def merge(self, other: Exact) -> None:
        """Add what another sum of the same unit has."""
        self.add(other.sum)
        rest = np.asarray(other.rest).reshape(-1)
        for part, high, low in self._chunks():
            self._carry(high, low, np.zeros_like(high), rest[part])

    def exact(self) -> Exact:
        """The sum as it is kept, which depends on its exact value alone."""
        total, rest = np.empty(self.shape), np.empty(self.shape, dtype=np.int64)
        for part, high, low in self._chunks():
            found = np.ldexp(high.astype(np.float64), LIMB) + low.astype(np.float64)
            above, below = _limbs(found, 0)
            total.reshape(-1)[part] = np.ldexp(found, self.exponent)
            rest.reshape(-1)[part] = ((high - above) << LIMB) + (low - below)
        return Exact(total, rest)

    def _chunks(self) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
        high, low = self._high.reshape(-1), self._low.reshape(-1)
        for start in range(0, len(high), CHUNK):
            part = slice(start, start + CHUNK)
            yield part, high[part], low[part]

    def _carry(self, high: np.ndarray, low: np.ndarray, more: np.ndarray, rest: np.ndarray) -> None:
        over = (rest + (1 << (LIMB - 1))) >> LIMB
        low += rest - (over << LIMB)
        high += more + over
        over = (low + (1 << (LIMB - 1))) >> LIMB
        low -= over << LIMB
        high += over
        if np.abs(high).max(initial=0) >= LARGEST:
            msg = f"a sum leaves the range of 2^{self.exponent + LIMB + 52}; measure fewer tokens, or a model in scale"
            raise InvalidInputError(msg)


def _limbs(values: np.ndarray, exponent: int) -> tuple[np.ndarray, np.ndarray]:
    """Upper and lower limb of numbers in units of 2^exponent, rounded."""
    scaled = np.ldexp(values, -exponent)
    high = np.rint(np.ldexp(scaled, -LIMB))
    if not (np.abs(high) < LARGEST).all():  # of NaN, too
        msg = f"a sum holds {values[~(np.abs(high) < LARGEST)][0]}; the model must give finite numbers in scale"
        raise InvalidInputError(msg)
    low = np.rint(scaled - np.ldexp(high, LIMB))
    return high.astype(np.int64), low.astype(np.int64)
