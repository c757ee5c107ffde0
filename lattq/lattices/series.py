"""Theta series in integer coordinates: how many lattice points have each squared norm, exactly."""

import math
from dataclasses import dataclass

import numpy as np

__all__ = ["CodeSeries", "Factor", "Series", "SumZeroSeries"]

Factor = tuple[int, bool, int]  # residue, whether signs alternate, power


@dataclass(frozen=True)
class CodeSeries:
    """Theta series of a lattice made of codes: a sum of products of one-dimensional series.

    With modulus M the factor (r, False, a) is the sum of q^h² over h = r + M k, to the power a; in (r, True, a) the
    terms have the signs (-1)^k: half the sum of a product and its alternating twin counts the points of even sum k.

    Attributes
    ----------
    modulus : M
    terms : an integer coefficient and the factors of each product
    denominator : of all coefficients
    """

    modulus: int
    terms: tuple[tuple[int, tuple[Factor, ...]], ...]
    denominator: int = 1

    def shells(self, limit: int) -> list[int]:
        """Number of points with squared norm 0, 1, ..., limit - 1 in integer coordinates."""
        total = np.zeros(limit, dtype=object)
        for coefficient, factors in self.terms:
            product = _unit(limit)
            for residue, alternating, power in factors:
                line = _line(residue, self.modulus, alternating, limit)
                product = _multiply(product, _power(line, power))
            total = total + coefficient * product
        return [int(count) // self.denominator for count in total]


@dataclass(frozen=True)
class SumZeroSeries:
    """Theta series of the vectors of `length` integers with sum 0 that are all equal modulo `modulus`."""

    length: int
    modulus: int

    def shells(self, limit: int) -> list[int]:
        """Number of points with squared norm 0, 1, ..., limit - 1 in integer coordinates."""
        return [sum(counts) for counts in zip(*(self._class(r, limit) for r in range(self.modulus)), strict=True)]

    def _class(self, residue: int, limit: int) -> list[int]:
        """Points whose coordinates leave one residue: coordinate by coordinate, by squared norm and sum."""
        counts = {(0, 0): 1}
        largest = math.isqrt(limit - 1)
        steps = [h for h in range(-largest, largest + 1) if h % self.modulus == residue]
        for left in reversed(range(self.length)):
            following: dict[tuple[int, int], int] = {}
            for (norm, total), count in counts.items():
                for h in steps:
                    # What is left to bring the sum back to 0 costs at least its square over the number of coordinates.
                    key = (norm + h * h, total + h)
                    if key[0] + (key[1] ** 2 / left if left else limit * abs(key[1])) < limit:
                        following[key] = following.get(key, 0) + count
            counts = following
        return [counts.get((norm, 0), 0) for norm in range(limit)]


Series = CodeSeries | SumZeroSeries


def _unit(limit: int) -> np.ndarray:
    """The series 1."""
    return np.array([1] + [0] * (limit - 1), dtype=object)


def _multiply(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.convolve(one, other)[: len(one)]


def _line(residue: int, modulus: int, alternating: bool, limit: int) -> np.ndarray:
    """One-dimensional series."""
    counts, reach = _unit(limit) * 0, math.isqrt(limit - 1) // modulus + 1
    for k in range(-reach - 1, reach + 1):
        norm = (residue + modulus * k) ** 2
        if norm < limit:
            counts[norm] += -1 if alternating and k % 2 else 1
    return counts


def _power(series: np.ndarray, exponent: int) -> np.ndarray:
    """Repeated squaring."""
    result, square = _unit(len(series)), series
    while exponent:
        if exponent & 1:
            result = _multiply(result, square)
        square, exponent = _multiply(square, square), exponent >> 1
    return result
