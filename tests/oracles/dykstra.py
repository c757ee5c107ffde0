"""The nearest matrix that is dominant by rows and by columns, by Dykstra's alternation of bisected thresholds."""

import numpy as np


def rows_onto_cones(matrix: np.ndarray, ratio: float, *, keep: bool) -> np.ndarray:
    """The nearest rows with Σ|off| ≤ ratio · diagonal, diagonal ≥ 0, by bisection for the threshold of each.

    >>> rows_onto_cones(np.array([[1.0, 1.0], [0.0, 2.0]]), 0.5, keep=False).round(9)
    array([[1.2, 0.6],
           [0. , 2. ]])
    """
    diagonal = np.diag(matrix)
    off = matrix - np.diag(diagonal)
    low, high = np.zeros(len(matrix)), np.abs(matrix).sum(axis=1) / ratio + 1
    for _ in range(60):
        middle = (low + high) / 2
        sums = np.maximum(np.abs(off) - middle[:, None], 0).sum(axis=1)
        over = sums > ratio * (diagonal if keep else diagonal + ratio * middle)
        low, high = np.where(over, middle, low), np.where(over, high, middle)
    high = np.where(np.abs(off).sum(axis=1) <= ratio * diagonal, 0.0, high)
    left = np.sign(off) * np.maximum(np.abs(off) - high[:, None], 0)
    return left + np.diag(diagonal if keep else diagonal + ratio * high)


def dykstra(matrix: np.ndarray, ratio: float, *, keep: bool = False, rounds: int = 2000) -> np.ndarray:
    """Alternate, adding back before each projection what the last of its kind took away.

    >>> dykstra(np.array([[1.0, 1.0], [0.0, 2.0]]), 0.5).round(9)
    array([[1.2, 0.6],
           [0. , 2. ]])
    """
    x, taken = matrix.copy(), [np.zeros_like(matrix), np.zeros_like(matrix)]
    for _ in range(rounds):
        before = x
        for side in (0, 1):
            start = x + taken[side]
            onto = rows_onto_cones(start.T if side else start, ratio, keep=keep)
            x = onto.T if side else onto
            taken[side] = start - x
        if np.abs(x - before).max() < 1e-13:
            break
    return x
