"""Up to which size a pivot is rounding."""

import numpy as np
from jaxtyping import Float

__all__ = ["column_scale", "pivot_tolerance", "relative_tolerance"]


def relative_tolerance(n: int, eps: float = float(np.finfo(np.float64).eps)) -> float:
    """Return the size, relative to a variance, up to which a pivot of an n by n matrix is rounding.

    `eps` is that of the dtype in which the matrix was made.

    >>> relative_tolerance(16) * 2**48
    1.0
    """
    return max(n, 8) * eps


def pivot_tolerance(matrix: Float[np.ndarray, "n n"], eps: float = float(np.finfo(np.float64).eps)) -> float:
    """Return the size up to which a pivot is rounding of the largest variance.

    >>> pivot_tolerance(2 * np.eye(16)) * 2**48
    2.0
    """
    return relative_tolerance(len(matrix), eps) * float(np.max(np.abs(np.diag(matrix))))


def column_scale(sigma: Float[np.ndarray, "n n"]) -> Float[np.ndarray, " n"]:
    """Return the power of two nearest to the standard deviation of each column; the largest for those without any.

    >>> column_scale(np.diag([17.0, 0.0, 0.06]))
    array([4.  , 4.  , 0.25])
    """
    variance = np.diag(sigma)
    top = np.max(variance)
    if top <= 0:
        return np.ones(len(variance))
    return np.exp2(np.rint(0.5 * np.log2(np.where(variance > 0, variance, top))))
