"""Samples as k-means sees them: in a basis where the metric is Euclidean, in blocks for the compiled search."""

import dataclasses
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import numpy as np

from lattq._array import Array, host_reals, short_repr
from lattq.codebooks.clustering import finite_floats
from lattq.errors import InvalidInputError, shown

__all__ = ["Samples", "Start", "metric_root"]

Start = Literal["split", "plus_plus", "random"]

_LONGEST = 32  # numbers of a vector that the compiled search keeps in registers; BLAS takes longer ones
_CHUNK = 1 << 15  # rows whose sums are added first: the order of sums does not depend on threads
_CHUNKS = 64


def metric_root(metric: Array, dimension: int) -> np.ndarray:
    """A matrix B with B Bᵀ the metric, given in full or by its diagonal: eᵀ M e is the squared length of eᵀ B.

    >>> metric_root(np.array([4.0, 0.0]), 2)
    array([[2.],
           [0.]])
    """
    host = host_reals("metric", metric)
    full = np.diag(host) if host.ndim == 1 else host
    if full.shape != (dimension, dimension) or not np.allclose(full, full.T, rtol=1e-10, atol=0):
        msg = f"`metric` has shape {host.shape}; pass a symmetric matrix for vectors of {dimension}, or its diagonal"
        raise InvalidInputError(msg)
    values, basis = np.linalg.eigh(full) if host.ndim > 1 else (host, np.eye(dimension))
    rounding = 16 * dimension * np.finfo(float).eps * np.abs(values).max()
    if values.min() < -rounding or not values.max() > 0:
        low, high = values.min(), values.max()
        msg = f"`metric` has eigenvalues from {low:.6g} to {high:.6g}; none may be negative, and one must be positive"
        raise InvalidInputError(msg)
    kept = values > rounding
    return basis[:, kept] * np.sqrt(values[kept])


@short_repr
@dataclasses.dataclass(frozen=True, eq=False)
class Samples:
    """Samples in a basis where the metric is Euclidean, with mean zero and largest size about 1."""

    original_x: np.ndarray
    x: np.ndarray
    weights: np.ndarray
    root: np.ndarray | None
    mean: np.ndarray
    scale: float
    jobs: int
    blocks: list[np.ndarray]

    @staticmethod
    def of(x: np.ndarray, weights: np.ndarray, metric: Array | None, jobs: int) -> "Samples":
        kind = np.float64 if x.dtype == np.float64 else np.float32
        root = None if metric is None else metric_root(metric, x.shape[1])
        wide = x.astype(np.float64) if root is None else x.astype(np.float64) @ root
        mean = wide.mean(axis=0)
        wide -= mean
        largest = float(np.abs(wide).max())
        scale = math.ldexp(1.0, math.frexp(largest)[1]) if largest else 1.0
        wide /= scale
        samples = Samples(x, wide.astype(kind), weights, root, mean, scale, jobs, [])
        samples.blocks.extend(samples._each(samples._spread))
        return samples

    def turned(self, entries: np.ndarray) -> np.ndarray:
        """Entries of the caller in this basis."""
        wide = entries.astype(np.float64)
        return ((wide if self.root is None else wide @ self.root) - self.mean) / self.scale

    def original(self, entries: np.ndarray) -> np.ndarray:
        """Entries for the caller: where the metric is singular, those of least distance from the mean of samples."""
        back = entries * self.scale + self.mean
        if self.root is None:
            return back
        mean = self.original_x.mean(axis=0, dtype=np.float64)
        return mean + (back - mean @ self.root) @ np.linalg.pinv(self.root)

    def start(self, start: Start | Array, size: int, seed: int) -> np.ndarray:
        from lattq.kernels.seeds import draw, split

        rng = np.random.default_rng(seed)
        if not isinstance(start, str):
            entries = finite_floats("start", start)
            if entries.shape != (size, self.original_x.shape[1]):
                msg = f"`start` has shape {entries.shape}; {size} entries have {(size, self.original_x.shape[1])}"
                raise InvalidInputError(msg)
            return self.turned(entries)
        if start == "split":
            entries, count = split(self.x, self.weights, size)
        elif start == "plus_plus":
            rows, count = draw(self.x, self.weights, rng.random(size))
            entries = self.x[rows[:count]].astype(np.float64)
        elif start == "random":
            entries, count = self.x[rng.choice(len(self.x), size, replace=False)].astype(np.float64), size
        else:
            msg = f"`start` is {shown(start)}; pass 'split', 'plus_plus', 'random' or the first entries"
            raise InvalidInputError(msg)
        require_distinct(size, count)
        return entries

    def improved(self, entries: np.ndarray) -> tuple[np.ndarray, float, np.ndarray]:
        """Means of the cells of these entries, their error, and which cells have samples; other entries move."""
        found, mass, moment = self.cells(entries)
        used = mass > 0
        means = entries.copy()
        means[used] = moment[used] / mass[used, None]
        error = self.error(means, found)
        if not used.all():
            self._move(means, found, np.flatnonzero(~used))
        return means, error, used

    def _move(self, entries: np.ndarray, found: np.ndarray, unused: np.ndarray) -> None:
        from lattq.kernels.kmeans import squared_error

        errors = np.empty(len(self.x))
        squared_error(self.x, self.weights, found, entries, 0, len(self.x), errors)
        worst = np.argsort(-errors, kind="stable")[: len(unused)]
        if not errors[worst[0]] > 0:
            require_distinct(len(entries), len(entries) - len(unused))
        entries[unused] = self.x[worst]

    def error(self, entries: np.ndarray, found: np.ndarray) -> float:
        """Mean squared error per number, in the units of the caller."""
        from lattq.kernels.kmeans import squared_error

        errors = np.empty(len(self.x))
        parts = self._each(lambda a, b: squared_error(self.x, self.weights, found, entries, a, b, errors))
        mass = self.weights.sum() if len(self.weights) else len(self.x)
        return math.fsum(parts) * self.scale**2 / (mass * self.original_x.shape[1])

    def cells(self, entries: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The nearest entry of each sample; weights and weighted sums of each cell."""
        from lattq.kernels.kmeans import add_cells

        found = np.empty(len(self.x), dtype=np.int32)
        narrow = entries.astype(self.x.dtype)
        table = np.concatenate([narrow, -0.5 * np.square(narrow).sum(axis=1, keepdims=True)], axis=1)

        def run(low: int, high: int) -> tuple[np.ndarray, np.ndarray]:
            found[low:high] = self._nearest(table, low, high)
            mass, moment = np.zeros(len(entries)), np.zeros(entries.shape)
            add_cells(self.x, self.weights, found, low, high, mass, moment)
            return mass, moment

        masses, moments = zip(*self._each(run), strict=True)
        return found, np.sum(masses, axis=0), np.sum(moments, axis=0)

    def _chunk(self) -> int:
        return max(_CHUNK, -(-len(self.x) // (_CHUNKS * 32)) * 32)

    def _each(self, run: Callable) -> list:
        """`run` for each chunk of rows, on so many threads; results in order."""
        starts = range(0, len(self.x), self._chunk())
        ends = [min(low + self._chunk(), len(self.x)) for low in starts]
        if self.jobs == 1 or len(ends) == 1:
            return [run(low, high) for low, high in zip(starts, ends, strict=True)]
        with ThreadPoolExecutor(self.jobs) as pool:
            return list(pool.map(run, starts, ends))

    def _spread(self, low: int, high: int) -> np.ndarray:
        from lattq.kernels.kmeans import PAIR, spread_blocks

        if self.x.shape[1] > _LONGEST:
            return np.empty(0)
        blocks = np.empty((-(-(high - low) // PAIR) * 2, self.x.shape[1], PAIR // 2), self.x.dtype)
        spread_blocks(self.x, low, high, blocks)
        return blocks

    def _nearest(self, table: np.ndarray, low: int, high: int) -> np.ndarray:
        from lattq.kernels import kmeans as kernel

        if self.x.shape[1] > _LONGEST:
            parts = [self.x[a : min(a + 1024, high)] for a in range(low, high, 1024)]
            return np.concatenate([np.argmax(part @ table[:, :-1].T + table[:, -1], axis=1) for part in parts])
        blocks = self.blocks[low // self._chunk()]
        found = np.empty(len(blocks) * (kernel.PAIR // 2), dtype=np.int32)
        kernel.nearest(blocks, (0,) * self.x.shape[1], table, found)
        return found[: high - low]


def require_distinct(size: int, count: int) -> None:
    if count < size:
        msg = f"`size` is {size}, but the samples have {count} different values at most; ask for no more entries"
        raise InvalidInputError(msg)
