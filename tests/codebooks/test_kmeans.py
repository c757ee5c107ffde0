"""Codebooks of vectors, against plain NumPy."""

from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lattq.codebooks import kmeans, kmeans_1d, nearest
from lattq.errors import InvalidInputError
from tests.strategies import seeds

EPS = np.finfo(np.float64).eps


def distances(x: np.ndarray, entries: np.ndarray, metric: np.ndarray) -> np.ndarray:
    """Squared distances of all pairs."""
    offsets = x[:, None] - entries
    return np.einsum("nki,ij,nkj->nk", offsets, metric, offsets)


@st.composite
def problems(draw: st.DrawFn) -> dict[str, Any]:
    """Samples that are clustered or not, weights, and a metric that may be singular."""
    rng = np.random.default_rng(draw(seeds))
    n, d = draw(st.integers(12, 90)), draw(st.integers(1, 6))
    basis = rng.standard_normal((d, draw(st.integers(1, d + 2))))
    x = rng.standard_normal((n, d)) * draw(st.sampled_from([1.0, 1e-5, 1e5])) + draw(st.sampled_from([0.0, 5.0]))
    return {
        "x": x,
        "size": draw(st.integers(1, 10)),
        "weights": draw(st.sampled_from([None, 10 ** rng.uniform(-1, 1, n)])),
        "metric": draw(st.sampled_from([None, basis @ basis.T, np.abs(basis[:, 0])])),
        "start": draw(st.sampled_from(["split", "plus_plus", "random"])),
    }


@given(problems())
def test_entries_are_means_and_samples_take_the_nearest(problem: dict[str, Any]):
    x, weights, metric = problem["x"], problem["weights"], problem["metric"]
    full = np.eye(x.shape[1]) if metric is None else np.diag(metric) if metric.ndim == 1 else metric
    mass = np.ones(len(x)) if weights is None else weights
    found = kmeans(**problem, iterations=1000, tolerance=0.0)
    table = distances(x, found.centroids, full)
    chosen, size = table[np.arange(len(x)), found.assignment], np.abs(table).max()
    assert np.all(chosen <= table.min(axis=1) + 1e-11 * size)
    assert abs(found.distortion - mass @ chosen / mass.sum() / x.shape[1]) <= 1e-11 * size
    assert np.all(np.diff(found.history) <= 0)
    assert found.distortion <= found.history[-1] * (1 + 1e-9) + 1e-14 * size
    root = np.linalg.svd(full)[1].max() ** 0.5
    for cell in np.unique(found.assignment):  # tolerance 0: a fixed point
        inside = found.assignment == cell
        offset = full @ (mass[inside] @ x[inside] / mass[inside].sum() - found.centroids[cell])
        assert np.all(np.abs(offset) <= 1e-10 * root * np.abs(full).max() ** 0.5 * np.abs(x).max())


@given(seeds, st.sampled_from([1, 2, 3, 8, 32, 33, 40]), st.sampled_from([np.float32, np.float64]))
def test_search_finds_the_nearest_at_every_length(seed: int, dimension: int, kind: Any):
    rng = np.random.default_rng(seed)
    n, size = int(rng.integers(1, 200)), int(rng.integers(1, 40))
    x, entries = rng.standard_normal((n, dimension)).astype(kind), rng.standard_normal((size, dimension)).astype(kind)
    found = nearest(x, entries)
    table = distances(x.astype(float), entries.astype(float), np.eye(dimension))
    rounding = 8 * (dimension + 4) * np.finfo(kind).eps * max(np.abs(x).max(), np.abs(entries).max()) ** 2 * dimension
    assert np.all(table[np.arange(n), found] <= table.min(axis=1) + rounding)


@pytest.mark.parametrize("dimension", [3, 40])
def test_the_first_of_equal_entries_wins(dimension: int):
    entries = np.repeat(np.eye(dimension)[:2], 3, axis=0)
    assert np.array_equal(nearest(np.eye(dimension)[:2], entries), [0, 3])


@pytest.mark.parametrize("start", ["split", "plus_plus", "random"])
@pytest.mark.parametrize("dimension", [2, 40])
def test_any_number_of_threads_gives_the_same_bits(start: Any, dimension: int, rng: np.random.Generator):
    x = rng.standard_normal((70_000 if dimension == 2 else 34_000, dimension)).astype(np.float32)
    one, three = (kmeans(x, 20, start=start, iterations=3, seed=5, jobs=jobs) for jobs in (1, 3))
    assert np.array_equal(one.centroids, three.centroids)
    assert np.array_equal(one.assignment, three.assignment)
    assert one.history == three.history
    assert one.distortion == three.distortion


def test_seeds_matter_where_they_should(rng: np.random.Generator):
    x = rng.standard_normal((500, 2))
    for start, same in (("split", True), ("plus_plus", False), ("random", False)):
        one, two = (kmeans(x, 20, start=start, seed=seed, iterations=1).centroids for seed in (0, 1))
        assert np.array_equal(one, two) == same


def test_draws_follow_squared_distances():
    x = np.array([[0.0], [1.0], [3.0]])
    counts = np.zeros(3)
    for seed in range(400):
        first = kmeans(x, 2, np.array([1e9, 1.0, 1.0]), start="plus_plus", seed=seed, iterations=1)
        counts[first.assignment == first.assignment[2]] += 1
    share = counts[1] / 400  # drawing 3 leaves 1 with 0; drawing 1, with probability 1/10, takes 3 along
    assert abs(share - 0.1) < 4 * np.sqrt(0.1 * 0.9 / 400)


def test_unused_entries_move_to_the_worst_samples():
    x = np.concatenate([np.zeros((50, 2)), np.ones((50, 2)), [[9.0, 9.0]]])
    start = np.array([[0.0, 0.0], [100.0, 100.0], [200.0, 200.0]])
    found = kmeans(x, 3, start=start)
    assert found.distortion < 1e-28
    assert len(np.unique(found.assignment)) == 3


def test_one_dimension_comes_close_to_the_optimum(rng: np.random.Generator):
    x = rng.standard_normal(2000)
    found, best = kmeans(x[:, None], 8, tolerance=0.0, iterations=500).distortion, kmeans_1d(x, 8).distortion
    assert best * (1 - 1e-12) <= found < 1.02 * best


def test_splits_start_better_than_draws(rng: np.random.Generator):
    x = rng.standard_normal((20_000, 2))
    found = {start: kmeans(x, 64, start=start, iterations=8).distortion for start in ("split", "plus_plus", "random")}
    assert found["split"] < found["plus_plus"] < found["random"]


def test_a_metric_is_a_change_of_basis(rng: np.random.Generator):
    x, basis = rng.standard_normal((400, 3)), rng.standard_normal((3, 3))
    full, plain = basis @ basis.T, kmeans(x @ basis, 8, tolerance=0.0, iterations=500)
    back = np.linalg.solve(basis.T, plain.centroids.T).T
    turned = kmeans(x, 8, metric=full, start=back, iterations=1)  # from a fixed point nothing moves
    assert np.array_equal(turned.assignment, plain.assignment)
    assert abs(turned.distortion - plain.distortion) < 1e-12 * plain.distortion
    assert abs(np.mean(((x - turned.decode()) @ basis) ** 2) - plain.distortion) < 1e-12 * plain.distortion
    assert kmeans(x, 8, metric=np.ones(3)).distortion == kmeans(x, 8).distortion


def test_runs_on_every_backend(xp: ModuleType, rng: np.random.Generator):
    x = rng.standard_normal((100, 3))
    found = kmeans(xp.asarray(x), 5)
    assert type(found.decode()) is type(xp.asarray(x))
    assert np.array_equal(np.asarray(found.assignment), kmeans(x, 5).assignment)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"size": 7}, "1 to 6"),
        ({"size": 5}, "4 different values"),
        ({"size": 5, "start": "plus_plus"}, "4 different values"),
        ({"size": 5, "start": "random"}, "4 different values"),
        ({"weights": np.array([1.0, 1, 0, 1, 1, 1])}, "holds 0.0"),
        ({"weights": np.ones(5)}, "shape"),
        ({"metric": np.ones(3)}, "symmetric"),
        ({"metric": np.array([[1.0, 2.0], [0.0, 1.0]])}, "symmetric"),
        ({"metric": np.array([1.0, -1.0])}, "eigenvalues"),
        ({"metric": np.zeros(2)}, "eigenvalues"),
        ({"start": "best"}, "`start`"),
        ({"start": np.zeros((3, 2))}, "`start`"),
        ({"iterations": 0}, "`iterations`"),
        ({"jobs": 0}, "`jobs`"),
        ({"x": np.array([[np.inf, 0.0]])}, "index"),
        ({"x": np.zeros(4)}, "per row"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_bad_input_is_named(change: dict[str, Any], words: str):
    x = np.array([[0.0, 0.0], [0.0, 0.0], [1.0, 2.0], [3.0, 4.0], [3.0, 4.0], [9.0, 9.0]])
    with pytest.raises(InvalidInputError, match=words):
        kmeans(**({"x": x, "size": 2} | change))
