"""Exact distances to the nearest lattice point: by enumeration from a basis, over a box, over all cosets of a code."""

import itertools
from collections.abc import Callable

import numpy as np


def nearest_by_enumeration(x: np.ndarray, generator: np.ndarray, radius: float) -> float:
    """Least squared distance of the vector x to a point ``z @ generator`` within the radius, over all integer z.

    The basis becomes triangular by a rotation. Then the last coefficient is chosen from all that keep the last
    coordinate within the radius, and so on to the first.

    >>> round(nearest_by_enumeration(np.array([0.9, 0.4]), np.array([[1.0, 0.0], [0.5, 1.0]]), 2.0), 6)
    0.17
    """
    rotation, triangle = np.linalg.qr(generator.T)
    basis = triangle.T
    left, cost = (x @ rotation)[None, :], np.zeros(1)
    for i in reversed(range(len(basis))):
        reach = int(radius / abs(basis[i, i])) + 1
        z = np.rint(left[:, i] / basis[i, i])[:, None] + np.arange(-reach, reach + 1)
        left = (left[:, None, :] - z[:, :, None] * basis[i]).reshape(-1, len(basis))
        cost = np.repeat(cost, 2 * reach + 1) + left[:, i] ** 2
        inside = cost <= radius**2 + 1e-9
        left, cost = left[inside], cost[inside]
    return float(cost.min())


def nearest_in_box(x: np.ndarray, member: Callable[[np.ndarray], np.ndarray], reach: int) -> np.ndarray:
    """Least squared distance of each row to the integer vectors that are members, at most `reach` off its floor.

    >>> nearest_in_box(np.array([[0.9, 0.2]]), lambda points: points.sum(axis=-1) % 2 == 0, 1)
    array([0.65])
    """
    floors, best = np.floor(x), np.full(len(x), np.inf)
    for offset in itertools.product(range(-reach, reach + 2), repeat=x.shape[1]):
        point = floors + offset
        best = np.minimum(best, np.where(member(point), np.sum((x - point) ** 2, axis=1), np.inf))
    return best


def nearest_in_cosets(x: np.ndarray, words: np.ndarray, modulus: int, odd: bool) -> np.ndarray:
    """Least squared distance of each row to word + modulus k, over all words and integers k with an odd or even sum.

    >>> nearest_in_cosets(np.array([[0.9, 0.2]]), np.array([[0, 0], [1, 1]]), 2, False)
    array([0.65])
    """
    zeros, ones = (_coordinate(x, start, modulus) for start in (int(words.min()), int(words.max())))
    chosen = (words != words.min()).astype(np.float64).T
    cost, parity = (a @ (1 - chosen) + b @ chosen for a, b in zip(zeros[:2], ones[:2], strict=True))
    turning = np.full(cost.shape, np.inf)
    for i, pattern in enumerate(chosen):
        np.minimum(turning, np.where(pattern == 0, zeros[2][:, i, None], ones[2][:, i, None]), out=turning)
    return (cost + np.where(np.rint(parity) % 2 == odd, 0.0, turning)).min(axis=1)


def _coordinate(x: np.ndarray, start: int, modulus: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of the nearest start + modulus k: squared error, parity of k, and what the next nearest costs more."""
    k = np.rint((x - start) / modulus)
    error = np.abs(x - start - modulus * k)
    return error**2, k % 2, (modulus - error) ** 2 - error**2
