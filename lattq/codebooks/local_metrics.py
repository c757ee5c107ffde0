"""k-means of samples that measure errors in different metrics: vectors of columns whose pivots differ.

Samples of block B cost the codebook eᵀ M_B e. A change of basis, one for each block, makes the search Euclidean, and
the best entry of a cell solves a small linear system, (Σ m M_B) c = Σ m M_B x with the weights m of its samples
(theory 9.4).
"""

import dataclasses
import math

import numpy as np
from jaxtyping import Float, Int
from threadpoolctl import threadpool_limits

from lattq.codebooks.clustering import Clustering, at_least_one, check_size, check_weights, finite_floats
from lattq.codebooks.kmeans import kmeans
from lattq.codebooks.kmeans_1d import kmeans_1d
from lattq.errors import InvalidInputError

__all__ = ["charges_of", "kmeans_blocks", "nearest_in_blocks"]

STARTING_ITERATIONS = 8  # in the mean metric: the rest is done in the true ones


def nearest_in_blocks(
    x: Float[np.ndarray, "blocks n dimension"],
    tables: Float[np.ndarray, "tables size dimension"],
    metrics: Float[np.ndarray, "metrics dimension dimension"],
    charges: Float[np.ndarray, "charges size"] | None = None,
) -> Int[np.ndarray, "blocks n"]:
    """Entry c with the least (x - c)ᵀ M (x - c), plus what it is charged; the first of equal ones.

    Parameters
    ----------
    x : samples of each block
    tables, metrics, charges : for each block, or one for all

    Examples
    --------
    >>> x, table = np.array([[[0.4, 0.0]]]), np.array([[[0.0, 0.5], [1.0, 0.0]]])
    >>> nearest_in_blocks(x, table, np.eye(2)[None]), nearest_in_blocks(x, table, np.diag([1.0, 9.0])[None])
    (array([[1]], dtype=int32), array([[1]], dtype=int32))
    >>> nearest_in_blocks(x, table, np.diag([9.0, 1.0])[None])
    array([[0]], dtype=int32)
    """
    unit = float(np.abs(metrics).max()) or 1.0
    return _nearest(x, tables, _square_roots(metrics / unit), None if charges is None else charges / unit)


def _nearest(x: np.ndarray, tables: np.ndarray, roots: np.ndarray, charges: np.ndarray | None = None) -> np.ndarray:
    """`nearest_in_blocks` in metrics whose square roots are known."""
    from lattq.kernels.groups import nearest_in_groups

    middle = tables.mean(axis=(0, 1))  # differences would drown in a large mean
    scale = float(np.abs(tables - middle).max()) or float(np.abs(x - middle).max()) or 1.0
    entries, turned = (tables - middle) / scale @ roots, (x - middle) / scale @ roots
    bias = -0.5 * np.square(entries).sum(axis=2)
    if charges is not None:
        bias = bias - 0.5 * charges / scale / scale
    found = np.empty(x.shape[:2], dtype=np.int32)
    size = tables.shape[1]
    transposed = np.ascontiguousarray(np.broadcast_to(entries, (len(x), *entries.shape[1:])).transpose(0, 2, 1))
    bias = np.ascontiguousarray(np.broadcast_to(bias, (len(x), size)))
    nearest_in_groups(np.ascontiguousarray(turned), transposed, bias, found)
    return found


def kmeans_blocks(
    x: Float[np.ndarray, "blocks n dimension"],
    metrics: Float[np.ndarray, "blocks dimension dimension"],
    size: int,
    weights: Float[np.ndarray, "blocks n"] | None = None,
    *,
    slope: float = 0.0,
    iterations: int = 25,
    tolerance: float = 1e-4,
) -> Clustering:
    """One codebook for the samples of all blocks, each block with its own metric.

    Numbers are solved exactly where nothing is charged; vectors by Lloyd's algorithm, from the solution in the mean
    metric. An entry that no sample takes moves to a sample with large error.

    Parameters
    ----------
    x : samples of each block
    metrics : symmetric positive semidefinite matrices
    size : entries
    weights : of samples, above zero; 1 if not given
    slope : squared error that a bit is worth: samples then take the entry with the least squared error plus `slope`
        times -log2 of the entry's share (Chou, Lookabaugh and Gray 1989)
    iterations : at most so many
    tolerance : stop once an iteration lowers the cost by less than this fraction

    Returns
    -------
    Entries, indices of shape (blocks, n), the weighted squared error per number, and the cost after each iteration.

    Raises
    ------
    InvalidInputError : if a number is not finite, a weight not positive, a metric not positive semidefinite, or `size`
        above the number of samples

    Examples
    --------
    >>> x = np.array([[[0.0, 0.0], [0.0, 1.0]], [[4.0, 4.0], [4.0, 6.0]]])
    >>> kmeans_blocks(x, np.stack([np.eye(2), 3 * np.eye(2)]), 2).centroids
    array([[0. , 0.5],
           [4. , 5. ]])
    """
    host = finite_floats("x", x).astype(np.float64)
    size = check_size("size", size, host.shape[0] * host.shape[1], "samples")
    iterations = at_least_one("iterations", iterations)
    if not 0.0 <= slope < math.inf:
        msg = f"`slope` is {slope}; pass the squared error that a bit is worth, zero or above"
        raise InvalidInputError(msg)
    mass = np.ones(host.shape[:2]) if weights is None else check_weights(weights, host.shape[:2])
    unit = float(np.abs(metrics).max())
    metrics, slope = (metrics / unit, slope / unit) if unit > 0 else (metrics, slope)
    with threadpool_limits(1):
        entries = _start(host, metrics, mass, size, iterations)
        exact = host.shape[2] == 1 and slope == 0.0
        found = _lloyd(host, metrics, mass, entries, slope, 0 if exact else iterations, tolerance)
    history = tuple(unit * cost for cost in found.history)
    return dataclasses.replace(found, distortion=unit * found.distortion, history=history)


def _start(x: np.ndarray, metrics: np.ndarray, mass: np.ndarray, size: int, iterations: int) -> np.ndarray:
    """Entries in one metric for all: that of numbers is exact, that of vectors has the mean shape."""
    traces = np.trace(metrics, axis1=1, axis2=2)
    if not traces.max() > 0:
        metrics, traces = np.broadcast_to(np.eye(x.shape[2]), metrics.shape), np.ones(len(metrics))
    live = np.maximum(traces, 1e-12 * traces.max())  # samples that cost nothing may go anywhere
    weights = (mass * live[:, None] / live.max()).reshape(-1)
    flat = x.reshape(-1, x.shape[2])
    if x.shape[2] == 1:
        return kmeans_1d(flat[:, 0], size, weights).centroids[:, None]
    mean = np.einsum("bn,bij->ij", mass, metrics)
    return kmeans(
        flat, size, weights, metric=mean / np.trace(mean), iterations=min(STARTING_ITERATIONS, iterations)
    ).centroids


def _lloyd(
    x: np.ndarray,
    metrics: np.ndarray,
    mass: np.ndarray,
    entries: np.ndarray,
    slope: float,
    iterations: int,
    tolerance: float,
) -> Clustering:
    """Cells, then entries, until the cost no longer falls; the best pair met."""
    charges, history = np.zeros(len(entries)), []
    roots = _square_roots(metrics)
    best, cells = entries, _nearest(x, entries[None], roots)
    for _ in range(iterations):
        moved = _means(x, metrics, mass, cells, entries)
        charges = charges_of(cells, len(entries), slope)
        entries = moved
        cells = _nearest(x, entries[None], roots, charges[None])
        cost = _cost(x, metrics, mass, entries, cells) + float(np.sum(mass * charges[cells])) / (
            mass.sum() * x.shape[2]
        )
        if history and not cost < history[-1]:
            break
        best, gain = entries, (history[-1] - cost) if history else math.inf
        history.append(cost)
        if gain <= tolerance * cost:
            break
    cells = _nearest(x, best[None], roots, charges[None] if slope else None)
    return Clustering(best, cells, _cost(x, metrics, mass, best, cells), tuple(history))


def _means(x: np.ndarray, metrics: np.ndarray, mass: np.ndarray, cells: np.ndarray, entries: np.ndarray) -> np.ndarray:
    """The best entry of each cell; where the metrics are singular, the nearest such to the old one."""
    size, dimension = entries.shape
    place = (np.arange(len(x))[:, None] * size + cells).reshape(-1)
    total = np.bincount(place, mass.reshape(-1), len(x) * size).reshape(len(x), size)
    offset = x - entries[cells]
    sums = [np.bincount(place, (mass * offset[..., i]).reshape(-1), len(x) * size) for i in range(dimension)]
    moments = np.stack(sums, axis=1).reshape(len(x), size, dimension)
    normal = np.einsum("bm,bij->mij", total, metrics)
    right = np.einsum("bij,bmj->mi", metrics, moments)
    found = entries + np.einsum("mij,mj->mi", np.linalg.pinv(normal, rcond=1e-12, hermitian=True), right)
    unused = np.flatnonzero(total.sum(axis=0) == 0)
    if len(unused):
        errors = mass * np.einsum("bni,bij,bnj->bn", offset, metrics, offset, optimize=True)
        worst = np.argsort(-errors.reshape(-1), kind="stable")[: len(unused)]
        found[unused] = x.reshape(-1, dimension)[worst]
    return found


def charges_of(cells: Int[np.ndarray, "..."], size: int, slope: float) -> Float[np.ndarray, " size"]:
    """`slope` times the bits of each entry; an unused one counts as half a sample.

    >>> charges_of(np.array([0, 0, 1, 2]), 3, 1.0)
    array([1., 2., 2.])
    """
    counts = np.maximum(np.bincount(cells.reshape(-1), minlength=size), 0.5)
    return slope * np.log2(counts.sum() / counts)


def _cost(x: np.ndarray, metrics: np.ndarray, mass: np.ndarray, entries: np.ndarray, cells: np.ndarray) -> float:
    """Weighted squared error per number."""
    offset = x - entries[cells]
    turned = offset @ metrics
    return float(np.sum(mass[..., None] * offset * turned)) / (mass.sum() * x.shape[2])


def _square_roots(metrics: np.ndarray) -> np.ndarray:
    """B with B Bᵀ each metric; raises `InvalidInputError` for one that is not positive semidefinite."""
    values, basis = np.linalg.eigh(metrics)
    if not (values >= -16 * values.shape[1] * np.finfo(float).eps * np.abs(values).max(axis=1, keepdims=True)).all():
        msg = f"a metric has the eigenvalue {np.nanmin(values):.6g}; none may be negative"
        raise InvalidInputError(msg)
    return basis * np.sqrt(np.maximum(values, 0.0))[:, None, :]
