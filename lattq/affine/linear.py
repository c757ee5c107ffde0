"""Invertible matrices: what stands for I + N, and for the reference T0, in an affine map.

All answer the same questions (`LinearMap`), about rows x of NumPy's float64, and need `values` stored numbers and
`operations` multiplications for a row. `lattq.affine.structures` has those with blocks, bands and factors.
"""

import dataclasses
import functools
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int

from lattq._array import short_repr
from lattq._options import as_integer
from lattq.affine.checks import host_square
from lattq.affine.dominance import require_invertible
from lattq.affine.gaps import InverseBounds, gaps, inverse_bounds
from lattq.affine.inverses import Factors, factor
from lattq.errors import InvalidInputError

__all__ = ["Dense", "Identity", "LinearMap", "Orthogonal", "Permutation"]


@runtime_checkable
class LinearMap(Protocol):
    """An invertible matrix, known by what it does to rows."""

    @property
    def size(self) -> int:
        """Rows."""
        ...

    @property
    def values(self) -> int:
        """Numbers that must be stored."""
        ...

    @property
    def operations(self) -> int:
        """Multiplications for one row."""
        ...

    def matrix(self) -> np.ndarray:
        """The matrix M itself."""
        ...

    def apply(self, x: np.ndarray, *, transposed: bool = False) -> np.ndarray:
        """X M, or X Mᵀ, for rows X."""
        ...

    def solve(self, x: np.ndarray, *, transposed: bool = False) -> np.ndarray:
        """X M⁻¹, or X M⁻ᵀ, for rows X."""
        ...

    def logabsdet(self) -> float:
        """log|det M|."""
        ...

    def inverse_bounds(self) -> InverseBounds:
        """Bounds on the norms of M⁻¹ that the structure gives."""
        ...


@dataclasses.dataclass(frozen=True)
class Identity:
    """I: N = 0, or no reference.

    >>> Identity(2).matrix()
    array([[1., 0.],
           [0., 1.]])
    """

    size: int
    values = 0
    operations = 0

    def __post_init__(self) -> None:
        if as_integer("size", self.size) < 1:
            msg = f"`size` is {self.size}; a map has at least one row"
            raise InvalidInputError(msg)

    def matrix(self) -> np.ndarray:
        """I."""
        return np.eye(self.size)

    def apply(self, x: np.ndarray, *, transposed: bool = False) -> np.ndarray:
        """X."""
        return x

    def solve(self, x: np.ndarray, *, transposed: bool = False) -> np.ndarray:
        """X."""
        return x

    def logabsdet(self) -> float:
        """0."""
        return 0.0

    def inverse_bounds(self) -> InverseBounds:
        """1, exactly."""
        return InverseBounds(1.0, 1.0, 1.0)


@short_repr
@dataclasses.dataclass(frozen=True, eq=False)
class Permutation:
    """X M = X[:, order]: channels in another order, as RPTQ takes them.

    >>> Permutation(np.array([1, 0])).apply(np.array([[3.0, 4.0]]))
    array([[4., 3.]])
    """

    order: Int[np.ndarray, " n"]

    def __post_init__(self) -> None:
        if len(self.order) == 0 or not np.array_equal(np.sort(self.order), np.arange(len(self.order))):
            msg = f"`order` is not a permutation of 0 ... {len(self.order) - 1}; each channel must appear exactly once"
            raise InvalidInputError(msg)

    @property
    def size(self) -> int:
        """Channels."""
        return len(self.order)

    @property
    def values(self) -> int:
        """One index for each channel."""
        return self.size

    operations = 0

    def matrix(self) -> np.ndarray:
        """Column i is unit vector `order[i]`."""
        return np.eye(self.size)[:, self.order]

    def apply(self, x: np.ndarray, *, transposed: bool = False) -> np.ndarray:
        """Channels in the new order, or back."""
        return x[..., np.argsort(self.order) if transposed else self.order]

    def solve(self, x: np.ndarray, *, transposed: bool = False) -> np.ndarray:
        """The inverse is the transpose."""
        return self.apply(x, transposed=not transposed)

    def logabsdet(self) -> float:
        """0."""
        return 0.0

    def inverse_bounds(self) -> InverseBounds:
        """1, exactly."""
        return InverseBounds(1.0, 1.0, 1.0)


class _Array:
    """What a map has from its matrix alone, kept as an array."""

    @property
    def size(self) -> int:
        """Rows."""
        return len(self.matrix())

    @property
    def operations(self) -> int:
        """n²."""
        return self.size**2

    def matrix(self) -> np.ndarray:
        """The array."""
        raise NotImplementedError

    def apply(self, x: np.ndarray, *, transposed: bool = False) -> np.ndarray:
        """A product."""
        return x @ (self.matrix().T if transposed else self.matrix())


@short_repr
@dataclasses.dataclass(frozen=True, eq=False)
class Dense(_Array):
    """Any invertible matrix; raises `InvalidInputError` for one that is singular, with its reciprocal condition number.

    >>> Dense(np.array([[2.0, 1.0], [0.0, 4.0]])).solve(np.array([[2.0, 1.0]]))
    array([[1., 0.]])
    """

    whole: Float[np.ndarray, "n n"]

    def __post_init__(self) -> None:
        object.__setattr__(self, "whole", host_square("whole", self.whole))
        require_invertible("whole", self.whole)

    @functools.cached_property
    def _factors(self) -> Factors:
        return factor(self.whole)

    @property
    def values(self) -> int:
        """Entries that are not those of I."""
        return int(np.count_nonzero(self.whole - np.eye(self.size)))

    def matrix(self) -> np.ndarray:
        """The matrix."""
        return self.whole

    def solve(self, x: np.ndarray, *, transposed: bool = False) -> np.ndarray:
        """Two triangular solves; the inverse is not formed."""
        return self._factors.solve_transposed(x) if transposed else self._factors.solve_rows(x)

    def logabsdet(self) -> float:
        """From the factors."""
        return self._factors.logabsdet()

    def inverse_bounds(self) -> InverseBounds:
        """From dominance; infinite where there is none."""
        return inverse_bounds(gaps(self.whole))


@short_repr
@dataclasses.dataclass(frozen=True, eq=False)
class Orthogonal(_Array):
    """A rotation or reflection R; raises `InvalidInputError` unless R Rᵀ = I within 4 √eps.

    >>> Orthogonal(np.array([[0.0, 1.0], [-1.0, 0.0]])).solve(np.array([[1.0, 0.0]]))
    array([[ 0., -1.]])
    """

    rotation: Float[np.ndarray, "n n"]

    def __post_init__(self) -> None:
        object.__setattr__(self, "rotation", host_square("rotation", self.rotation))
        away = float(np.abs(self.rotation @ self.rotation.T - np.eye(self.size)).max())
        if away > 4 * float(np.sqrt(np.finfo(np.float64).eps)):
            msg = f"`rotation` is not orthogonal: R Rᵀ is {away:.2g} away from I; pass it in float64, or as `Dense`"
            raise InvalidInputError(msg)

    @property
    def values(self) -> int:
        """All entries."""
        return self.size**2

    def matrix(self) -> np.ndarray:
        """R."""
        return self.rotation

    def solve(self, x: np.ndarray, *, transposed: bool = False) -> np.ndarray:
        """The inverse is the transpose."""
        return self.apply(x, transposed=not transposed)

    def logabsdet(self) -> float:
        """0."""
        return 0.0

    def inverse_bounds(self) -> InverseBounds:
        """1 in the 2-norm; the others measured."""
        magnitudes = np.abs(self.rotation)
        return InverseBounds(float(magnitudes.sum(axis=0).max()), float(magnitudes.sum(axis=1).max()), 1.0)
