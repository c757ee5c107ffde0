"""Cancellation of errors along rows and columns, one entry after the other, straight from its definition."""

from collections.abc import Callable

import numpy as np

__all__ = ["layer_rate_by_bisection", "two_sided"]


def two_sided(
    weight: np.ndarray, unit: np.ndarray, rows_unit: np.ndarray, encode: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """Ŵ, entries from the last to the first, where `encode` rounds numbers: every sum of the identity written out."""
    rows, columns = weight.shape
    error, found = np.zeros_like(weight), np.zeros_like(weight)
    for i in range(rows - 1, -1, -1):
        for j in range(columns - 1, -1, -1):
            target = weight[i, j]
            for k in range(i, rows):
                for m in range(j, columns):
                    if (k, m) != (i, j):
                        target += rows_unit[k, i] * error[k, m] * unit[m, j]
            found[i, j] = encode(np.array([[target]]))[0, 0]
            error[i, j] = weight[i, j] - found[i, j]
    return found


def layer_rate_by_bisection(metric: np.ndarray, variance: np.ndarray, distortion: float) -> float:
    """Bits per weight at a mean distortion, from the whole matrix of the quadratic form, one water level for all."""
    root = np.sqrt(variance.reshape(-1))
    spectrum = np.maximum(np.linalg.eigvalsh(root[:, None] * metric * root), 0.0)
    low, high = 0.0, float(spectrum.max())
    for _ in range(200):
        level = (low + high) / 2
        low, high = (level, high) if np.minimum(spectrum, level).mean() < distortion else (low, level)
    live = spectrum[spectrum > low]
    return float(np.sum(0.5 * np.log2(live / low))) / len(spectrum)
