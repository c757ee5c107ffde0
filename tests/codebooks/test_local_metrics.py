"""k-means in several metrics: brute force, stationary points, monotone costs, rates."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lattq.codebooks import kmeans
from lattq.codebooks.local_metrics import kmeans_blocks, nearest_in_blocks
from lattq.errors import InvalidInputError
from tests.strategies import seeds

EPS = np.finfo(np.float64).eps


def samples(seed: int, blocks: int, n: int, dimension: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    root = rng.standard_normal((blocks, dimension, dimension))
    metrics = root @ root.transpose(0, 2, 1) + 0.05 * np.eye(dimension)
    return rng.standard_normal((blocks, n, dimension)), metrics, rng.uniform(0.5, 2.0, (blocks, n))


def errors_of(x: np.ndarray, entries: np.ndarray, metrics: np.ndarray) -> np.ndarray:
    """Of every sample to every entry, the slow way."""
    offset = x[:, :, None] - entries[None, None]
    return np.einsum("bnki,bij,bnkj->bnk", offset, metrics, offset)


@given(seed=seeds, blocks=st.integers(1, 4), n=st.integers(1, 9), dimension=st.integers(1, 5), size=st.integers(1, 7))
def test_nearest_is_that_of_brute_force(seed: int, blocks: int, n: int, dimension: int, size: int):
    x, metrics, _ = samples(seed, blocks, n, dimension)
    rng = np.random.default_rng(seed + 1)
    entries, charges = rng.standard_normal((size, dimension)), rng.uniform(0, 1, size)
    for charge in (None, charges[None]):
        found = nearest_in_blocks(x, entries[None], metrics, charge)
        costs = errors_of(x, entries, metrics) + (0.0 if charge is None else charges)
        chosen = np.take_along_axis(costs, found[..., None], axis=2)[..., 0]
        slack = 32 * dimension * EPS * (np.abs(costs).max() + 1.0)
        assert (chosen <= costs.min(axis=2) + slack).all()


@pytest.mark.parametrize("size", [1e-150, 1e-9, 1e9, 1e150])
def test_units_and_means_do_not_matter(size: float):
    x, metrics, _ = samples(4, 2, 20, 2)
    entries, charges = np.random.default_rng(5).standard_normal((1, 4, 2)), np.full((1, 4), 0.1)
    plain, charged = (nearest_in_blocks(x, entries, metrics, charge) for charge in (None, charges))
    np.testing.assert_array_equal(nearest_in_blocks(size * x, size * entries, metrics), plain)
    np.testing.assert_array_equal(nearest_in_blocks(size * x, size * entries, metrics, charges * size * size), charged)
    np.testing.assert_array_equal(nearest_in_blocks(x, entries, size * metrics, size * charges), charged)
    np.testing.assert_array_equal(nearest_in_blocks(x + 2.0**20, entries + 2.0**20, metrics), plain)


def test_tables_may_differ_between_blocks():
    x, metrics, _ = samples(2, 3, 5, 2)
    tables = np.random.default_rng(3).standard_normal((3, 4, 2))
    together = nearest_in_blocks(x, tables, metrics)
    alone = [nearest_in_blocks(x[i : i + 1], tables[i : i + 1], metrics[i : i + 1])[0] for i in range(3)]
    np.testing.assert_array_equal(together, np.stack(alone))


@given(seed=seeds, blocks=st.integers(1, 4), dimension=st.integers(2, 4), size=st.integers(1, 6))
def test_entries_are_the_best_of_their_cells(seed: int, blocks: int, dimension: int, size: int):
    """After convergence the gradient Σ m M (x - c) of each cell vanishes, and no sample prefers another entry."""
    x, metrics, mass = samples(seed, blocks, 30, dimension)
    found = kmeans_blocks(x, metrics, size, mass, iterations=500, tolerance=0.0)
    pull = np.einsum("bn,bij,bnj->bni", mass, metrics, x - found.centroids[found.assignment])
    scale = np.einsum("bn,bij->", mass, np.abs(metrics)) * np.abs(x).max()
    for cell in range(size):
        gradient = pull[found.assignment == cell].sum(axis=0)
        assert (np.abs(gradient) <= 1e-7 * scale).all()  # the system is solved to 1e-12, times its condition
    assert found.distortion == pytest.approx(
        float(np.sum(mass * errors_of(x, found.centroids, metrics).min(axis=2)) / mass.sum() / dimension), rel=1e-9
    )


@given(seed=seeds, slope=st.sampled_from([0.0, 0.05, 0.5]))
def test_costs_fall(seed: int, slope: float):
    x, metrics, mass = samples(seed, 3, 40, 2)
    history = kmeans_blocks(x, metrics, 6, mass, slope=slope, tolerance=0.0).history
    assert all(b <= a * (1 + 1e-12) for a, b in itertools.pairwise(history))


@given(seed=seeds)
def test_numbers_are_solved_exactly(seed: int):
    """All ways to cut six sorted numbers in three."""
    x, metrics, mass = samples(seed, 2, 3, 1)
    flat, weight = x.ravel(), (mass * metrics[:, 0, 0, None]).ravel()
    order = np.argsort(flat)
    flat, weight = flat[order], weight[order]
    best = min(
        sum(
            float(weight[p] @ (flat[p] - weight[p] @ flat[p] / weight[p].sum()) ** 2)
            for p in (slice(0, i), slice(i, j), slice(j, 6))
        )
        for i in range(1, 5)
        for j in range(i + 1, 6)
    )
    found = kmeans_blocks(x, metrics, 3, mass)
    assert found.distortion * mass.sum() == pytest.approx(best, rel=1e-9, abs=1e-12)


def test_one_metric_for_all_is_worse():
    """Negative control: blocks that mind opposite directions want other cells than their mean metric."""
    x = np.random.default_rng(0).standard_normal((8, 400, 2))
    metrics = np.stack([np.diag([100.0, 1.0]), np.diag([1.0, 100.0])] * 4)
    own = kmeans_blocks(x, metrics, 16)
    mean = kmeans(x.reshape(-1, 2), 16).centroids
    error = errors_of(x, mean, metrics).min(axis=2).mean() / 2
    assert own.distortion < 0.97 * error


def test_a_charge_buys_rate():
    """Fewer bits for the same entries, and a lower sum of error and slope times bits."""
    x, metrics = np.random.default_rng(1).standard_normal((1, 4000, 2)), np.eye(2)[None]

    def cost(found, slope: float) -> tuple[float, float]:
        counts = np.bincount(found.assignment.ravel(), minlength=64)
        bits = counts[counts > 0] @ np.log2(counts.sum() / counts[counts > 0]) / counts.sum()
        return float(bits), 2 * found.distortion + slope * float(bits)

    slope = 0.05
    free, charged = (kmeans_blocks(x, metrics, 64, slope=s) for s in (0.0, slope))
    assert cost(charged, slope)[0] < cost(free, slope)[0]
    assert cost(charged, slope)[1] < cost(free, slope)[1]


def test_bad_input_is_named(unchecked):
    x, metrics, mass = samples(0, 2, 5, 2)
    for change, message in (
        ({"size": 11}, "1 to 10"),
        ({"x": np.full_like(x, np.nan)}, "nan"),
        ({"metrics": -metrics}, "eigenvalue"),
        ({"weights": 0 * mass}, "`weights` holds 0"),
        ({"slope": -1.0}, "`slope` is -1"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            kmeans_blocks(**{"x": x, "metrics": metrics, "size": 2, "weights": mass, **change})
