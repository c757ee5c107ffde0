"""The gaps between a diagonal and its off-diagonals, and the bounds on inverse and determinant that they give."""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

__all__ = ["Gaps", "InverseBounds", "determinant_interval", "dominance_ratio", "gaps", "inverse_bounds"]


class Gaps(NamedTuple):
    """Absolute diagonal and sums of absolute off-diagonals of rows and columns; the sums are rounded up."""

    diagonal: Float[np.ndarray, " n"]
    rows: Float[np.ndarray, " n"]
    columns: Float[np.ndarray, " n"]


class InverseBounds(NamedTuple):
    """Bounds on the norms of the inverse, infinite where there is none."""

    inf: float
    one: float
    two: float

    def over(self, least: float) -> "InverseBounds":
        """The bounds on (D M)⁻¹ where no entry of D is below `least`."""
        return InverseBounds(*(bound / least for bound in self))

    def times(self, other: "InverseBounds") -> "InverseBounds":
        """The bounds for a product, plain or of Kronecker: norms of these three kinds multiply."""
        return InverseBounds(*(a * b for a, b in zip(self, other, strict=True)))

    def least(self, other: "InverseBounds") -> "InverseBounds":
        """The better bound of each."""
        return InverseBounds(*map(min, self, other))


def gaps(matrix: Float[np.ndarray, "n n"]) -> Gaps:
    """Diagonal, row sums and column sums of a float64 host matrix.

    >>> gaps(np.array([[4.0, 1.0], [-1.0, 2.0]])).diagonal
    array([4., 2.])
    """
    outside = np.abs(matrix)
    diagonal = np.diag(outside).copy()
    np.fill_diagonal(outside, 0.0)
    up = 1 + max(len(matrix) - 2, 0) * np.finfo(np.float64).eps  # a sum of n - 1 numbers loses less than this
    with np.errstate(over="ignore"):
        return Gaps(diagonal, outside.sum(axis=1) * up, outside.sum(axis=0) * up)


def inverse_bounds(found: Gaps) -> InverseBounds:
    """Bounds on the inverse from the gaps: Varah's for rows and columns, and the best that is known in the 2-norm.

    σ_min ≥ √(least row gap · least column gap) if both are positive, ≥ the least mean of a row and a column gap
    (Johnson), and ‖·‖₂ ≤ √n times either of the other two.

    >>> inverse_bounds(gaps(np.array([[4.0, 1.0], [-1.0, 2.0]])))
    InverseBounds(inf=1.0, one=1.0, two=1.0)
    """
    inf, one = (_inverse(float(np.min(found.diagonal - sums))) for sums in (found.rows, found.columns))
    johnson = _inverse(float(np.min(found.diagonal - (found.rows + found.columns) / 2)))
    root = math.sqrt(len(found.diagonal))
    return InverseBounds(inf, one, min(johnson, math.sqrt(inf) * math.sqrt(one), root * inf, root * one))


def determinant_interval(matrix: Float[np.ndarray, "n n"], found: Gaps) -> tuple[float, float]:
    """Ostrowski's lower bound and Hadamard's upper bound on log|det|, the better of rows and columns.

    >>> determinant_interval(np.eye(2), gaps(np.eye(2)))
    (0.0, 0.0)
    """
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        rows = [np.linalg.norm(matrix, axis=axis) for axis in (1, 0)]
        low = [np.sum(np.log(np.maximum(found.diagonal - sums, 0.0))) for sums in (found.rows, found.columns)]
        return float(np.max(low)), float(min(np.sum(np.log(norms)) for norms in rows))


def dominance_ratio(sums: Float[np.ndarray, " n"], diagonal: Float[np.ndarray, " n"]) -> float:
    """Largest ratio of a sum to its diagonal; infinite for a zero diagonal, even of a row of zeros.

    >>> dominance_ratio(np.array([1.0, 0.0]), np.array([2.0, 0.0]))
    inf
    """
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return float(np.max(np.where(diagonal > 0, sums / diagonal, np.inf)))


def _inverse(gap: float) -> float:
    return 1 / gap if gap > 0 else math.inf
