"""Matrices I + N with fewer numbers: blocks for heads, a band, a Kronecker product. They are `LinearMap`s."""

import dataclasses
import functools

import numpy as np
from jaxtyping import Float
from scipy.linalg import solve_banded

from lattq._array import host_reals, short_repr
from lattq.affine.checks import require_square
from lattq.affine.dominance import require_invertible
from lattq.affine.gaps import InverseBounds, gaps, inverse_bounds
from lattq.affine.inverses import factor
from lattq.affine.linear import Dense
from lattq.errors import InvalidInputError

__all__ = ["Band", "Blocks", "Kronecker"]


@short_repr
@dataclasses.dataclass(frozen=True, eq=False)
class Blocks:
    """Blocks on the diagonal, one for each head.

    >>> Blocks(np.array([[[2.0]], [[4.0]]])).solve(np.array([[2.0, 2.0]]))
    array([[1. , 0.5]])
    """

    blocks: Float[np.ndarray, "heads n n"]

    def __post_init__(self) -> None:
        object.__setattr__(self, "blocks", host_reals("blocks", self.blocks))
        require_square("blocks", self.blocks)
        if self.blocks.ndim != 3:
            msg = f"`blocks` has shape {self.blocks.shape}; pass heads x n x n"
            raise InvalidInputError(msg)
        self._parts  # noqa: B018  (raises for a singular block)

    @functools.cached_property
    def _parts(self) -> list[Dense]:
        return [Dense(block) for block in self.blocks]

    @property
    def size(self) -> int:
        """Rows of all blocks."""
        return self.blocks.shape[0] * self.blocks.shape[1]

    @property
    def values(self) -> int:
        """Those of the blocks."""
        return sum(part.values for part in self._parts)

    @property
    def operations(self) -> int:
        """Entries of the blocks."""
        return self.blocks.size

    def matrix(self) -> np.ndarray:
        """The blocks, and zeros."""
        heads, n, _ = self.blocks.shape
        return (np.eye(heads)[:, None, :, None] * self.blocks[:, :, None, :]).reshape(heads * n, heads * n)

    def apply(self, x: np.ndarray, *, transposed: bool = False) -> np.ndarray:
        """Each part of a row by its block."""
        return np.concatenate([p.apply(part, transposed=transposed) for p, part in self._pairs(x)], axis=-1)

    def solve(self, x: np.ndarray, *, transposed: bool = False) -> np.ndarray:
        """Each part of a row by its block."""
        return np.concatenate([p.solve(part, transposed=transposed) for p, part in self._pairs(x)], axis=-1)

    def logabsdet(self) -> float:
        """The sum."""
        return sum(part.logabsdet() for part in self._parts)

    def inverse_bounds(self) -> InverseBounds:
        """The largest of the blocks."""
        bounds = [part.inverse_bounds() for part in self._parts]
        return InverseBounds(*(max(values) for values in zip(*bounds, strict=True)))

    def _pairs(self, x: np.ndarray) -> zip:
        return zip(self._parts, np.split(x, len(self._parts), axis=-1), strict=True)


@short_repr
@dataclasses.dataclass(frozen=True, eq=False)
class Band:
    """Entries no farther than `width` from the diagonal: solves take n · width² operations.

    Parameters
    ----------
    diagonals : 2 `width` + 1 rows; entry (i, j) of the matrix is ``diagonals[width + i - j, j]``, as in
        `scipy.linalg.solve_banded`. Corners that lie outside the matrix are 0.

    Examples
    --------
    >>> Band(np.array([[0.0, 0.5], [1.0, 1.0], [-0.5, 0.0]])).matrix()
    array([[ 1. ,  0.5],
           [-0.5,  1. ]])
    """

    diagonals: Float[np.ndarray, "width n"]

    def __post_init__(self) -> None:
        object.__setattr__(self, "diagonals", host_reals("diagonals", self.diagonals))
        if self.diagonals.shape[0] % 2 == 0 or 0 in self.diagonals.shape:
            msg = f"`diagonals` has shape {self.diagonals.shape}; give an odd number of rows, the diagonal amid them"
            raise InvalidInputError(msg)
        if self.diagonals[~self._inside].any():
            msg = "`diagonals` has entries in the corners that lie outside the matrix; set them to 0"
            raise InvalidInputError(msg)
        require_invertible("diagonals", self.matrix())

    @property
    def width(self) -> int:
        """Diagonals on each side."""
        return self.diagonals.shape[0] // 2

    @property
    def size(self) -> int:
        """Rows."""
        return self.diagonals.shape[1]

    @property
    def values(self) -> int:
        """Entries of the band that are not those of I."""
        return int(np.count_nonzero(self.diagonals) - np.count_nonzero(self.diagonals[self.width] == 1))

    @property
    def operations(self) -> int:
        """Entries of the band."""
        return int(self._inside.sum())

    def matrix(self) -> np.ndarray:
        """The band, and zeros."""
        found = np.zeros((self.size, self.size))
        row, column = np.nonzero(self._inside)
        found[column + row - self.width, column] = self.diagonals[row, column]
        return found

    def apply(self, x: np.ndarray, *, transposed: bool = False) -> np.ndarray:
        """A sum over diagonals."""
        diagonals = self._turned if transposed else self.diagonals
        found = np.zeros(np.broadcast_shapes(x.shape, (self.size,)))
        for row, diagonal in enumerate(diagonals):
            shift = row - self.width  # entry (j + shift, j)
            low, high = max(0, -shift), min(self.size, self.size - shift)
            if low < high:
                found[..., low:high] += x[..., low + shift : high + shift] * diagonal[low:high]
        return found

    def solve(self, x: np.ndarray, *, transposed: bool = False) -> np.ndarray:
        """Banded factors: rows times the inverse are solves with the transpose."""
        diagonals = self.diagonals if transposed else self._turned
        right = x.reshape(-1, self.size).T
        return np.ascontiguousarray(solve_banded((self.width, self.width), diagonals, right).T).reshape(x.shape)

    def logabsdet(self) -> float:
        """From the factors of the whole."""
        return factor(self.matrix()).logabsdet()

    def inverse_bounds(self) -> InverseBounds:
        """From dominance; infinite where there is none."""
        return inverse_bounds(gaps(self.matrix()))

    @functools.cached_property
    def _inside(self) -> np.ndarray:
        row = np.arange(self.size) + np.arange(len(self.diagonals))[:, None] - self.width
        return (row >= 0) & (row < self.size)

    @functools.cached_property
    def _turned(self) -> np.ndarray:
        """The diagonals of the transpose."""
        found = np.zeros_like(self.diagonals)
        row, column = np.nonzero(self._inside)
        found[2 * self.width - row, column + row - self.width] = self.diagonals[row, column]
        return found


@short_repr
@dataclasses.dataclass(frozen=True, eq=False)
class Kronecker:
    """left ⊗ right, as FlatQuant has it: n (n₁ + n₂) operations for rows of n = n₁ n₂.

    Bounds on inverses multiply, so that it is certified if both factors are, even where the product is not dominant:
    its ratio is (1 + ρ₁)(1 + ρ₂) − 1.

    >>> Kronecker(np.eye(1), np.array([[2.0]])).solve(np.array([[1.0]]))
    array([[0.5]])
    """

    left: Float[np.ndarray, "a a"]
    right: Float[np.ndarray, "b b"]

    def __post_init__(self) -> None:
        self._parts  # noqa: B018  (raises for a singular factor)

    @functools.cached_property
    def _parts(self) -> tuple[Dense, Dense]:
        return Dense(self.left), Dense(self.right)

    @property
    def size(self) -> int:
        """n₁ n₂."""
        return len(self.left) * len(self.right)

    @property
    def values(self) -> int:
        """Those of the factors."""
        return sum(part.values for part in self._parts)

    @property
    def operations(self) -> int:
        """n (n₁ + n₂)."""
        return self.size * (len(self.left) + len(self.right))

    def matrix(self) -> np.ndarray:
        """The product."""
        return np.kron(self.left, self.right)

    def apply(self, x: np.ndarray, *, transposed: bool = False) -> np.ndarray:
        """Rows as matrices, times a factor on each side."""
        left, right = self._parts
        half = right.apply(self._folded(x), transposed=transposed).swapaxes(-1, -2)
        return left.apply(half, transposed=transposed).swapaxes(-1, -2).reshape(x.shape)

    def solve(self, x: np.ndarray, *, transposed: bool = False) -> np.ndarray:
        """A solve on each side."""
        left, right = self._parts
        half = np.ascontiguousarray(right.solve(self._folded(x), transposed=transposed).swapaxes(-1, -2))
        return left.solve(half, transposed=transposed).swapaxes(-1, -2).reshape(x.shape)

    def logabsdet(self) -> float:
        """n₂ log|det left| + n₁ log|det right|."""
        left, right = self._parts
        return right.size * left.logabsdet() + left.size * right.logabsdet()

    def inverse_bounds(self) -> InverseBounds:
        """The products of those of the factors."""
        left, right = self._parts
        return left.inverse_bounds().times(right.inverse_bounds())

    def _folded(self, x: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(x).reshape(*x.shape[:-1], len(self.left), len(self.right))
