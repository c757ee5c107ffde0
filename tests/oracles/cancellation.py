"""Successive cancellation, WaterSIC and coordinate descent, one column at a time as their definitions say."""

from collections.abc import Callable

import numpy as np

Rounding = Callable[[np.ndarray], np.ndarray]
"""From one column of targets, shape (rows,), to its reconstruction."""


def cancellation(weight: np.ndarray, unit: np.ndarray, order: np.ndarray, rounding: Rounding) -> np.ndarray:
    """Reconstruction of ``target_i = w_i + sum_{j>i} (w_j - v_j) U_ji``, i from the last to the first of `order`.

    Examples
    --------
    >>> cancellation(np.array([[0.6, 0.6]]), np.array([[1.0, 0.0], [0.9, 1.0]]), np.arange(2), np.round)
    array([[0., 1.]])
    """
    found = np.zeros_like(weight)
    for i in range(len(order) - 1, -1, -1):
        target = weight[:, order[i]].copy()
        for j in range(i + 1, len(order)):
            target += (weight[:, order[j]] - found[:, order[j]]) * unit[j, i]
        found[:, order[i]] = rounding(target)
    return found


def watersic(
    weight: np.ndarray, sigma: np.ndarray, side: float, gain: Callable[[np.ndarray, np.ndarray], float] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Codes and reconstruction of ZSIC with spacings ``side / l_ii`` (Lifar et al. 2026), for definite `sigma`.

    `gain` maps a column of the whitened target and its code to the factor of the reconstruction; None is 1.

    Examples
    --------
    >>> watersic(np.array([[0.6, 0.9]]), np.diag([1.0, 4.0]), 1.0)[1]
    array([[1., 1.]])
    """
    lower = np.linalg.cholesky(sigma)
    whitened = weight @ lower
    codes, found = np.zeros(weight.shape, dtype=np.int32), np.zeros_like(weight)
    for i in range(len(sigma) - 1, -1, -1):
        alpha = side / lower[i, i]
        codes[:, i] = np.round(whitened[:, i] / side)
        factor = 1.0 if gain is None else gain(whitened[:, i], side * codes[:, i])
        found[:, i] = factor * alpha * codes[:, i]
        whitened -= np.outer(found[:, i], lower[i])
    return codes, found


def descent(
    weight: np.ndarray, hessian: np.ndarray, start: np.ndarray, order: np.ndarray, rounding: Rounding
) -> np.ndarray:
    """One sweep: every column rounded to its best value given all others, from the last to the first of `order`.

    Examples
    --------
    >>> descent(np.array([[0.6, 0.6]]), np.array([[1.0, 0.9], [0.9, 1.0]]), np.ones((1, 2)), np.arange(2), np.round)
    array([[1., 0.]])
    """
    found = start.copy()
    for i in order[::-1]:
        others = np.delete(np.arange(len(order)), i)
        pull = (weight[:, others] - found[:, others]) @ hessian[others, i] / hessian[i, i]
        found[:, i] = rounding(weight[:, i] + pull)
    return found
