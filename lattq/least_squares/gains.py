"""Gains of rows and columns, and centroids of codes, by least squares in a metric; `w` are the weights."""

import dataclasses

import numpy as np
from scipy.linalg import solve

from lattq._metric import Metric
from lattq.feedback.loop import GAIN_GRID
from lattq.quantized import Quantized

__all__ = ["fit_centroids", "fit_columns", "fit_rows"]

MOST_CENTROIDS = 15  # codes beyond ± this keep their place: they are rare where centroids matter
SAMPLE_ROWS = 1024  # that the normal matrix of at most 31 centroids is estimated from


def fit_columns(found: Quantized, w: np.ndarray, metric: Metric) -> Quantized:
    """argmin over gains g: (Σ ∘ ZᵀGZ) g = diag(Zᵀ G W Σ), Z the reconstruction without them."""
    z = dataclasses.replace(found, column_gains=None).decoded()
    s, gz = metric.inputs, metric.left(z)
    old = np.full(len(s), GAIN_GRID) if found.column_gains is None else found.column_gains
    gains = _solve(s * (z.T @ gz), np.sum(gz * (w @ s), axis=0), old / GAIN_GRID)
    return found.revalued(column_gains=_stored(gains, 2 * GAIN_GRID, GAIN_GRID))


def fit_rows(found: Quantized, w: np.ndarray, metric: Metric) -> Quantized:
    """argmin over gains t: (G ∘ Z Σ Zᵀ) t = diag(G W Σ Zᵀ), row by row where G is diagonal."""
    z = dataclasses.replace(found, row_gains=None).decoded()
    zs = metric.right(z)
    old = np.ones(len(z)) if found.row_gains is None else found.row_gains / GAIN_GRID
    if metric.height == 1:
        normal, right = np.sum(zs * z, axis=1), np.sum(w * zs, axis=1)
        gains = np.where(normal > 0, right / np.where(normal > 0, normal, 1.0), old)
    else:
        blocks = zip(
            metric.outputs, *(x.reshape(-1, metric.height, *x.shape[1:]) for x in (z, zs, w, old)), strict=True
        )
        gains = np.concatenate(
            [_solve(g * (a @ b.T), np.sum((g @ x) * b, axis=1), before) for g, a, b, x, before in blocks]
        )
    return found.revalued(row_gains=_stored(gains, 2 * GAIN_GRID, GAIN_GRID))


def fit_centroids(found: Quantized, w: np.ndarray, metric: Metric) -> Quantized:
    """argmin over shifts c_k of Ŵ = Z + Σ_k c_k B_k, B_k the cells of the entries with code k and 0 elsewhere.

    The normal matrix <B_k, B_l> comes from rows at equal distances, the right side <W - Z, B_k> from all. Where rows
    hear each other, all count.
    """
    if not found.quantizer.ordered:
        return found
    largest = int(min(np.abs(found.codes).max(), MOST_CENTROIDS))
    plain = dataclasses.replace(found, centroids=None)
    z = plain.decoded()
    cells = plain.decoded(shift=1.0) - z
    index = np.where(np.abs(found.codes) <= largest, found.codes + largest, 2 * largest + 1)

    def by_code(values: np.ndarray, index: np.ndarray) -> np.ndarray:
        return np.bincount(index.ravel(), values.ravel(), 2 * largest + 2)[:-1]

    rows = slice(None, None, -(-len(w) // SAMPLE_ROWS)) if metric.outputs is None else slice(None)
    cell, code, s = cells[rows], index[rows], metric.inputs
    normal = [by_code(metric.left(np.where(code == k, cell, 0.0) @ s) * cell, code) for k in range(2 * largest + 1)]
    right = by_code(metric.left((w - z) @ s) * cells, index)
    shifts = _solve(np.array(normal) * len(w) / len(cell), right, np.zeros(2 * largest + 1))
    return found.revalued(centroids=_stored(shifts + 1.0, 2 * GAIN_GRID, 0, -GAIN_GRID))


def _solve(normal: np.ndarray, right: np.ndarray, old: np.ndarray) -> np.ndarray:
    """Solution of the normal equations; old values where a parameter has no effect.

    Two columns may carry the same codes, hence the ridge.
    """
    live, found = np.diag(normal) > 0, old.copy()
    if live.any():
        matrix = normal[np.ix_(live, live)]
        matrix[np.diag_indices_from(matrix)] += 1e-9 * np.mean(np.diag(matrix))
        found[live] = solve(matrix, right[live], assume_a="pos")
    return found


def _stored(values: np.ndarray, largest: int, neutral: int, start: int = 0) -> np.ndarray | None:
    """Values in 128ths, cut to 0 ... largest and moved to `start`; None if all are neutral."""
    integers = np.clip(np.rint(values * GAIN_GRID), 0, largest).astype(np.int64) + start
    return None if (integers == neutral).all() else integers
