"""LDL factors of integer matrices in rational arithmetic: no rounding, so every pivot has a definite sign."""

from fractions import Fraction

import numpy as np


def rational_pivots(matrix: np.ndarray) -> list[Fraction] | None:
    """Pivots of a symmetric integer matrix in its own order, or None if it is not positive semidefinite.

    Examples
    --------
    >>> rational_pivots(np.array([[2, 1], [1, 1]]))
    [Fraction(2, 1), Fraction(1, 2)]
    >>> rational_pivots(np.array([[0, 1], [1, 1]])) is None
    True
    """
    rest = [[Fraction(int(entry)) for entry in row] for row in matrix]
    pivots = []
    for k in range(len(rest)):
        pivot, column = rest[k][k], [rest[i][k] for i in range(len(rest))]
        if pivot < 0 or (pivot == 0 and any(column[k + 1 :])):
            return None
        pivots.append(pivot)
        if pivot > 0:
            for i in range(k + 1, len(rest)):
                for j in range(k + 1, len(rest)):
                    rest[i][j] -= column[i] * column[j] / pivot
    return pivots


def first_indefinite(matrix: np.ndarray) -> int | None:
    """Index of the first column whose leading submatrix is not positive semidefinite, or None.

    Examples
    --------
    >>> first_indefinite(np.array([[0, 0, 1], [0, 1, 0], [1, 0, 1]]))
    2
    """
    sizes = range(1, len(matrix) + 1)
    return next((size - 1 for size in sizes if rational_pivots(matrix[:size, :size]) is None), None)
