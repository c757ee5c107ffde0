"""Soft k-means: its fixed point, and gradients against finite differences."""

from types import ModuleType

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from lattq.codebooks import kmeans_1d
from lattq.codebooks.differentiable import soft_kmeans
from lattq.errors import InvalidInputError
from tests.strategies import seeds


def plain_fixed_point(x: np.ndarray, weights: np.ndarray, c: np.ndarray, temperature: float) -> np.ndarray:
    """Iterate the definition."""
    for _ in range(20_000):
        share = np.exp(-((x[:, None] - c) ** 2) / temperature)
        share /= share.sum(axis=1, keepdims=True)
        new = (weights[:, None] * share * x[:, None]).sum(axis=0) / (weights @ share)
        if np.abs(new - c).max() < 1e-15:
            break
        c = new
    return c


@given(seeds, st.integers(1, 5), st.sampled_from([0.02, 0.1, 0.3]), st.booleans())
def test_gradients_are_finite_differences(seed: int, size: int, softness: float, rounded: bool):
    rng = np.random.default_rng(seed)
    x, weights, upper = rng.standard_normal(24), rng.uniform(0.5, 2, 24), rng.standard_normal(24)
    if rounded:
        x = np.round(2 * x) / 2 + 0.0
    assume(len(np.unique(x)) >= size)
    by_entry = rng.standard_normal(size)
    found = soft_kmeans(x, size, weights, softness=softness, tolerance=1e-14)
    assert found.residual < 1e-12

    def loss(y: np.ndarray) -> float:
        moved = soft_kmeans(y, size, weights, temperature=found.temperature, start=found.centroids, tolerance=1e-14)
        return float(upper @ np.asarray(moved.output()) + by_entry @ moved.centroids)

    gradient, step = found.gradient(upper, by_entry), 1e-5
    unit = step * np.eye(24)
    measured = np.array([(loss(x + e) - loss(x - e)) / (2 * step) for e in unit])
    assert np.allclose(gradient, measured, rtol=1e-4, atol=1e-5 * (1 + np.abs(measured).max()))


@given(seeds, st.integers(1, 6))
def test_fixed_point_is_that_of_plain_iterations(seed: int, size: int):
    rng = np.random.default_rng(seed)
    x, weights = rng.standard_normal(200), rng.uniform(0.5, 2, 200)
    found = soft_kmeans(x, size, weights)
    assert found.residual < 1e-11
    again = plain_fixed_point(x, weights, found.centroids, found.temperature)
    assert np.allclose(again, found.centroids, atol=1e-8)
    from_start = plain_fixed_point(x, weights, kmeans_1d(x, size, weights).centroids, found.temperature)
    assert np.mean(np.abs(from_start - found.centroids)) < 0.5  # next to the best codebook, not elsewhere


@given(seeds, st.integers(2, 8), st.sampled_from([0.02, 0.05, 0.2, 0.6]))
def test_entries_come_to_rest_from_any_start(seed: int, size: int, softness: float):
    rng = np.random.default_rng(seed)
    x = np.concatenate([rng.standard_normal(150), 0.05 * rng.standard_normal(50) + rng.uniform(-2, 2)])
    found = soft_kmeans(x, size, softness=softness, start=np.sort(rng.uniform(-2, 2, size)))
    # A saddle can hold it: there the energy, of 1e-14 relative accuracy, shows moves of its square root at most.
    assert found.residual <= 1e-7 * np.ptp(x)


def test_a_cold_one_is_hard(rng: np.random.Generator):
    x = rng.standard_normal(500).astype(np.float16).astype(np.float64)
    best = kmeans_1d(x, 8)
    found = soft_kmeans(x, 8, softness=1e-7)
    assert np.allclose(found.centroids, best.centroids, atol=1e-9)
    assert np.array_equal(found.assignment(), best.assignment)
    assert np.allclose(found.output(), best.decode(), atol=1e-9)
    gradient = found.gradient(np.ones(500))  # every number moves its own mean by 1 / n
    assert abs(np.sort(gradient)[250] - 1) < 1e-6


def test_softness_has_no_units(rng: np.random.Generator):
    x = rng.standard_normal(300)
    one, two = soft_kmeans(x, 4), soft_kmeans(1e-3 * x, 4)
    assert np.allclose(two.centroids, 1e-3 * one.centroids, rtol=1e-9, atol=1e-12)
    assert np.allclose(one.gradient(x), two.gradient(x), rtol=1e-6)


def test_tables_have_a_row_for_each_value_only(rng: np.random.Generator):
    x = rng.standard_normal(200_000).astype(np.float16)
    found = soft_kmeans(x, 4)
    assert len(found._values.values) == len(np.unique(x))
    few = x[:3000].astype(np.float64)
    assert np.allclose(soft_kmeans(few.astype(np.float16), 4).gradient(few), soft_kmeans(few, 4).gradient(few))


def test_runs_on_every_backend(xp: ModuleType, rng: np.random.Generator):
    x = rng.standard_normal(50)
    found = soft_kmeans(xp.asarray(x), 3)
    assert type(found.gradient(xp.asarray(x))) is type(xp.asarray(x))
    assert np.allclose(np.asarray(found.output()), soft_kmeans(x, 3).output())


def test_bad_input_is_named():
    x = np.array([1.0, 2.0, 2.0])
    with pytest.raises(InvalidInputError, match="1 to 2"):
        soft_kmeans(x, 3)
    with pytest.raises(InvalidInputError, match="`softness`"):
        soft_kmeans(x, 2, softness=0.0)
    with pytest.raises(InvalidInputError, match="`temperature` nan"):
        soft_kmeans(x, 2, temperature=np.nan)
    with pytest.raises(InvalidInputError, match="`start`"):
        soft_kmeans(x, 2, start=np.zeros(3))
    with pytest.raises(InvalidInputError, match="shape"):
        soft_kmeans(x, 2).gradient(np.ones(2))
