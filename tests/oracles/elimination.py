"""Inverses and determinants in rational arithmetic, and elimination without exchanges as textbooks write it."""

from fractions import Fraction

import numpy as np


def rational_inverse(matrix: np.ndarray) -> tuple[list[list[Fraction]], Fraction]:
    """Inverse and determinant of the numbers as they are stored, without rounding, by Gauss and Jordan.

    >>> inverse, determinant = rational_inverse(np.array([[2.0, 1.0], [0.0, 1.0]]))
    >>> inverse[0], determinant
    ([Fraction(1, 2), Fraction(-1, 2)], Fraction(2, 1))
    """
    n, determinant = len(matrix), Fraction(1)
    rows = [
        [Fraction(float(x)) for x in row] + [Fraction(int(i == j)) for j in range(n)] for i, row in enumerate(matrix)
    ]
    for k in range(n):
        pivot = next(i for i in range(k, n) if rows[i][k])
        if pivot != k:
            rows[k], rows[pivot], determinant = rows[pivot], rows[k], -determinant
        determinant *= rows[k][k]
        rows[k] = [x / rows[k][k] for x in rows[k]]
        for i in range(n):
            if i != k and rows[i][k]:
                factor = rows[i][k]
                rows[i] = [x - factor * y for x, y in zip(rows[i], rows[k], strict=True)]
    return [row[n:] for row in rows], determinant


def eliminate(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray, float, list[np.ndarray]]:
    """L unit lower and U upper triangular, the largest entry met over that of the matrix, and all Schur complements.

    >>> lower, upper, growth, _ = eliminate(np.array([[2.0, 1.0], [1.0, 2.0]]))
    >>> lower, upper, growth
    (array([[1. , 0. ],
           [0.5, 1. ]]), array([[2. , 1. ],
           [0. , 1.5]]), 1.0)
    """
    rest, lower, met = matrix.astype(np.float64), np.eye(len(matrix)), []
    for k in range(len(matrix)):
        met.append(rest[k:, k:].copy())
        lower[k + 1 :, k] = rest[k + 1 :, k] / rest[k, k]
        rest[k + 1 :] -= np.outer(lower[k + 1 :, k], rest[k])
    largest = max(float(np.abs(one).max()) for one in met)
    return lower, np.triu(rest), largest / float(np.abs(matrix).max()), met
