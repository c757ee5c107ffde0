"""Gains of rows and columns, steps, and centroids of codes, by least squares in a metric; `w` are the weights."""

import dataclasses

import numpy as np
from scipy.linalg import solve

from lattq._metric import Metric
from lattq.errors import InvalidInputError
from lattq.feedback.loop import GAIN_GRID
from lattq.quantized import Quantized

__all__ = ["fit_centroids", "fit_columns", "fit_rows", "fit_steps"]

MOST_CENTROIDS = 15  # codes beyond ± this keep their place: they are rare where centroids matter
SAMPLE_ROWS = 1024  # that the normal matrix of at most 31 centroids is estimated from


def fit_columns(found: Quantized, w: np.ndarray, metric: Metric) -> Quantized:
    """argmin over gains g: (Σ ∘ ZᵀGZ) g = diag(Zᵀ G W Σ), Z the reconstruction without them, summed over guides."""
    z = dataclasses.replace(found, column_gains=None).decoded()
    gz, stack = metric.left(z), metric.inputs[None] if metric.guides is None else metric.guides
    groups = (x.reshape(len(stack), -1, x.shape[1]) for x in (z, gz))
    normal = np.sum([s * (a.T @ b) for s, a, b in zip(stack, *groups, strict=True)], axis=0)
    old = np.full(z.shape[1], GAIN_GRID) if found.column_gains is None else found.column_gains
    gains = _solve(normal, np.sum(gz * metric.right(w), axis=0), old / GAIN_GRID)
    return found.revalued(column_gains=_stored(gains, 2 * GAIN_GRID, GAIN_GRID))


def fit_rows(found: Quantized, w: np.ndarray, metric: Metric) -> Quantized:
    """argmin over gains t: (G ∘ Z Σ Zᵀ) t = diag(G W Σ Zᵀ), row by row where G is diagonal."""
    z = dataclasses.replace(found, row_gains=None).decoded()
    zs = metric.right(z)
    old = np.ones(len(z)) if found.row_gains is None else found.row_gains / GAIN_GRID
    gains = _row_factors(metric, z, zs, np.sum(metric.left(w) * zs, axis=1), old)
    return found.revalued(row_gains=_stored(gains, 2 * GAIN_GRID, GAIN_GRID))


def fit_steps(found: Quantized, w: np.ndarray, metric: Metric) -> Quantized:
    """The steps of rows, group by group of columns: argmin over t of the error of W - Ŵ - diag(t) Z, Z of the group."""
    steps = found.quantizer.steps
    if steps is None or len(steps) == 1:
        return found
    z, factors = found.decoded(), np.ones(steps.shape)
    error, group = w - z, found.quantizer.group if steps.shape[1] > 1 else w.shape[1]
    for number, low in enumerate(range(0, w.shape[1], group)):
        own = slice(low, low + group)
        right = np.sum(metric.left(metric.right(error, others=own)) * z[:, own], axis=1)
        more = _row_factors(metric, z[:, own], metric.right(z[:, own], own, own), right, np.zeros(len(z)))
        factors[:, number] += more
        error[:, own] -= more[:, None] * z[:, own]
    try:
        return found.revalued(quantizer=found.quantizer.with_steps(steps * factors))
    except InvalidInputError:  # beyond what the type of the file holds
        return found


def _row_factors(metric: Metric, z: np.ndarray, zs: np.ndarray, right: np.ndarray, old: np.ndarray) -> np.ndarray:
    """t with (G ∘ Z Σ Zᵀ) t = right, row by row where G is diagonal."""
    if metric.outputs is None:
        return _quotients(np.sum(zs * z, axis=1), right, old)
    if metric.height == 1:
        return _quotients(metric.outputs.reshape(-1) * np.sum(zs * z, axis=1), right, old)
    blocks = (x.reshape(-1, metric.height, *x.shape[1:]) for x in (z, zs, right, old))
    return np.concatenate([_solve(g * (a @ b.T), *own) for g, a, b, *own in zip(metric.outputs, *blocks, strict=True)])


def _quotients(normal: np.ndarray, right: np.ndarray, old: np.ndarray) -> np.ndarray:
    return np.where(normal > 0, right / np.where(normal > 0, normal, 1.0), old)


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

    alike = metric.outputs is None and metric.guides is None
    rows = slice(None, None, -(-len(w) // SAMPLE_ROWS)) if alike else slice(None)
    cell, code = cells[rows], index[rows]

    def image(x: np.ndarray) -> np.ndarray:
        return metric.left(metric.right(x))

    normal = [by_code(image(np.where(code == k, cell, 0.0)) * cell, code) for k in range(2 * largest + 1)]
    right = by_code(image(w - z) * cells, index)
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
