"""The best codebooks for numbers, against all partitions."""

import sys
from itertools import combinations
from types import ModuleType

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from lattq.codebooks import kmeans_1d
from lattq.codebooks.kmeans_1d import _Sums, curve, distinct
from lattq.errors import InvalidInputError
from tests.strategies import seeds

EPS = np.finfo(np.float64).eps


def exhaustive(x: np.ndarray, weights: np.ndarray, size: int) -> float:
    """Least weighted mean squared error over all ways to cut the sorted numbers."""
    order = np.argsort(x)
    x, weights = x[order], weights[order]

    def error(low: int, high: int) -> float:
        part, mass = x[low:high], weights[low:high]
        return float(mass @ (part - mass @ part / mass.sum()) ** 2)

    ways = [(0, *cuts, len(x)) for cuts in combinations(range(1, len(x)), size - 1)]
    return min(sum(map(error, way, way[1:])) for way in ways) / weights.sum()


@st.composite
def problems(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, int]:
    """Up to ten numbers, many of them equal at times; weights over two decades; a size that fits."""
    rng = np.random.default_rng(draw(seeds))
    n = draw(st.integers(1, 10))
    x = draw(st.sampled_from([1.0, 1e-4, 1e6])) * rng.standard_normal(n) + draw(st.sampled_from([0.0, 30.0]))
    if draw(st.booleans()):
        x = np.round(x)
    return x, 10.0 ** rng.uniform(-1, 1, n), draw(st.integers(1, len(np.unique(x))))


@given(problems())
def test_no_partition_is_better(problem: tuple[np.ndarray, np.ndarray, int]):
    x, weights, size = problem
    found, least = kmeans_1d(x, size, weights), exhaustive(x, weights, size)
    rounding = 64 * EPS * x.var() + 16 * (EPS * np.abs(x).max()) ** 2
    assert abs(found.distortion - least) <= rounding
    assert np.all(np.diff(found.centroids) > 0)
    errors = weights @ (x - found.decode()) ** 2 / weights.sum()
    assert abs(errors - found.distortion) <= rounding + 8 * EPS * np.abs(x).max() * x.std()
    assert np.array_equal(np.abs(x[:, None] - found.centroids).argmin(axis=1), found.assignment)


@given(problems())
def test_curve_is_the_error_of_every_size_and_convex(problem: tuple[np.ndarray, np.ndarray, int]):
    x, weights, size = problem
    found = curve(x, size, weights)
    single = [kmeans_1d(x, k, weights).distortion for k in range(1, size + 1)]
    assert np.allclose(found, single, rtol=0, atol=64 * size * EPS * x.var())
    assert np.all(np.diff(found, 2) >= -256 * size * EPS * x.var())


@pytest.mark.parametrize("kind", ["float16", "bfloat16", "float32"])
def test_sixteen_bits_give_what_sorting_gives(kind: str, rng: np.random.Generator):
    x = torch.asarray(rng.standard_normal(20_000)).to(getattr(torch, kind))
    wide = x.to(torch.float64).numpy()
    weights = rng.uniform(0.5, 2.0, x.shape[0])
    assert (distinct(x.float().numpy()).patterns is None) == (kind == "float32")
    for mass in (None, weights):
        table, ordered = kmeans_1d(x, 16, mass), kmeans_1d(wide + 1e-30 * np.arange(len(wide)), 16, mass)
        assert np.allclose(table.centroids.numpy(), ordered.centroids, rtol=1e-12)
        assert np.array_equal(table.assignment.numpy(), ordered.assignment)


def test_rows_have_their_own_codebooks(rng: np.random.Generator):
    x, weights = rng.standard_normal((5, 60)), rng.uniform(0.1, 1.0, 60)
    found, curves = kmeans_1d(x, 4, weights), curve(x, 4, weights)
    for row in range(5):
        alone = kmeans_1d(x[row], 4, weights)
        assert np.array_equal(found.centroids[row], alone.centroids)
        assert np.array_equal(found.assignment[row], alone.assignment)
        assert abs(curves[row, -1] - alone.distortion) < 1e-14
    assert np.allclose(weights @ ((x - found.decode()) ** 2).T / weights.sum(), found.distortion)


@given(seeds, st.integers(2, 40))
def test_halving_finds_cells_as_good_as_the_table(seed: int, size: int):
    values = np.sort(np.random.default_rng(seed).standard_t(3, 200))
    sums = _Sums.of(values, np.ones(200))
    halved = _starts_without_table(sums, size)
    for starts in (halved, sums.starts(size)):
        parts = np.split(values, starts[1:])
        assert all(len(part) for part in parts)
    errors = [
        sum(((part - part.mean()) ** 2).sum() for part in np.split(values, starts[1:]))
        for starts in (halved, sums.starts(size))
    ]
    assert abs(errors[0] - errors[1]) <= 1e-12 * values.var() * 200


def _starts_without_table(sums: _Sums, size: int) -> np.ndarray:
    """`sums.starts` as for a table that would be too large."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules[_Sums.__module__], "_TABLE_BYTES", 0)
        return sums.starts(size)


@given(seeds, st.integers(2, 12), st.integers(3, 400))
def test_bins_keep_their_promise(seed: int, size: int, bins: int):
    x = np.random.default_rng(seed).standard_t(4, 500)
    assume(len(np.unique(np.floor((x - x.min()) * bins / np.ptp(x)))) > size)
    best, found = kmeans_1d(x, size), kmeans_1d(x, size, bins=bins)
    assert best.distortion <= found.distortion * (1 + 1e-12)
    assert found.distortion - found.excess <= best.distortion * (1 + 1e-12)


def test_exact_beats_lloyd_from_quantiles(rng: np.random.Generator):
    x = rng.standard_normal(1024)
    entries = np.quantile(x, (np.arange(16) + 0.5) / 16)
    for _ in range(100):
        cells = np.abs(x[:, None] - entries).argmin(axis=1)
        entries = np.array([x[cells == j].mean() for j in range(16)])
    lloyd = np.mean((x - entries[np.abs(x[:, None] - entries).argmin(axis=1)]) ** 2)
    assert kmeans_1d(x, 16).distortion < 0.99 * lloyd


def test_equal_numbers_are_integer_weights_and_scale_and_place_do_not_matter(rng: np.random.Generator):
    x, counts = rng.standard_normal(50), rng.integers(1, 5, 50)
    once, often = kmeans_1d(x, 5, counts.astype(float)), kmeans_1d(np.repeat(x, counts), 5)
    assert np.allclose(once.centroids, often.centroids, rtol=1e-12)
    moved = kmeans_1d(1e-6 * x - 3.0, 5, counts * 1e9)
    assert np.allclose((moved.centroids + 3.0) / 1e-6, once.centroids, rtol=1e-8)
    assert np.array_equal(moved.assignment, once.assignment)


def test_weights_below_the_rounding_of_their_sum_do_no_harm():
    x, weights = np.arange(6.0), np.array([1e-30, 1.0, 1e-30, 1e-30, 1.0, 1e-30])
    found = kmeans_1d(x, 3, weights)
    assert found.distortion < 1e-28
    assert np.all(np.isfinite(found.centroids))
    assert np.all(curve(x, 6, weights)[1:] < 150 * 2.0**-50)  # six weights of at least 2^-50, distances of at most 5


def test_runs_on_every_backend(xp: ModuleType, rng: np.random.Generator):
    x = rng.standard_normal(100)
    found = kmeans_1d(xp.asarray(x), 3)
    assert type(found.centroids) is type(xp.asarray(x))
    assert np.array_equal(np.asarray(found.assignment), kmeans_1d(x, 3).assignment)


@pytest.mark.parametrize(
    ("x", "size", "weights", "words"),
    [
        (np.array([1.0, 1.0, 2.0]), 3, None, "1 to 2"),
        (np.array([0.0, -0.0] * 2000, dtype=np.float16), 2, None, "1 to 1"),
        (np.array([[1.0, 2.0], [3.0, 3.0]]), 2, None, "row 1"),
        (np.array([1.0, np.nan]), 1, None, "index"),
        (np.array([1.0, 2.0]), 0, None, "`size` is 0"),
        (np.array([1.0, 2.0]), 1, np.array([1.0, 0.0]), "holds 0.0 at index"),
        (np.array([1.0, 2.0]), 1, np.array([1.0, -2.0]), "holds -2.0"),
        (np.array([1.0, 2.0]), 1, np.array([1.0]), "shape"),
        (np.zeros(0), 1, None, "nothing to fit"),
        (np.zeros((2, 2, 2)), 1, None, "rows of them"),
    ],
)
def test_bad_input_is_named(x: np.ndarray, size: int, weights: np.ndarray | None, words: str):
    with pytest.raises(InvalidInputError, match=words):
        kmeans_1d(x, size, weights)
    with pytest.raises(InvalidInputError, match="`bins` is 1"):
        kmeans_1d(np.arange(3.0), 1, bins=1)
