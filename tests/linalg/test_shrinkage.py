"""Shrunk second moments: safe from one sample on, exact in the limit, of least squared error in between."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lattq.errors import InvalidInputError
from lattq.linalg import SecondMoment, ldl, shrink
from lattq.linalg.shrinkage import intensity
from tests.helpers import assert_same
from tests.strategies import seeds


def filled(x: np.ndarray, y: np.ndarray | None = None, **options: np.ndarray) -> SecondMoment:
    """Return an accumulator that has seen the samples."""
    moment = SecondMoment(x.shape[1], None if y is None else y.shape[1])
    moment.update(x, y, **options)
    return moment


def samples(seed: int, count: int, n: int) -> np.ndarray:
    """Correlated columns of different scales."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal((count, n)) @ rng.standard_normal((n, n)) * np.exp(rng.standard_normal(n))


@given(seed=seeds, count=st.integers(1, 40), n=st.integers(1, 12))
def test_a_shrunk_moment_is_well_conditioned_from_one_sample_on(seed: int, count: int, n: int):
    x = samples(seed, count, n)
    found = filled(x).shrunk()
    assert np.array_equal(found.matrix, found.matrix.T)
    assert 0 <= found.variances <= 1
    assert 0 <= found.correlations <= 1
    assert np.trace(found.matrix) == pytest.approx(np.mean(np.sum(x**2, axis=1)))
    scale = np.sqrt(np.diag(found.matrix))
    smallest = np.linalg.eigvalsh(found.matrix / scale / scale[:, None])[0]
    assert smallest >= found.correlations - 1e-9
    if count < n:  # where the plain mean is singular
        assert ldl(found.matrix).pivots.min() > 0
        assert np.linalg.matrix_rank(filled(x).matrix) < n


@given(seed=seeds, n=st.integers(1, 12))
def test_one_sample_says_nothing_but_a_scale(seed: int, n: int):
    x = samples(seed, 1, n)
    np.testing.assert_allclose(filled(x).shrunk().matrix, np.mean(x**2) * np.eye(n), rtol=1e-12)


def test_many_samples_are_left_alone():
    x = samples(3, 200_000, 8)
    moment = filled(x)
    variances, found = np.diag(moment.matrix), moment.shrunk()
    assert max(found.correlations, found.variances) < 1e-3
    bound = found.correlations + found.variances * variances.mean() / variances.min()
    assert np.abs((found.matrix - moment.matrix) / np.sqrt(np.outer(variances, variances))).max() <= bound


@given(seed=seeds, shift=st.integers(-40, 40))
def test_scales_do_not_matter(seed: int, shift: int):
    x = samples(seed, 5, 6)
    found, moved = filled(x).shrunk(), filled(x * 2.0**shift).shrunk()
    assert_same(moved.matrix, found.matrix * 4.0**shift)
    assert (moved.variances, moved.correlations) == (found.variances, found.correlations)


def test_no_other_intensity_has_a_smaller_expected_error(rng: np.random.Generator):
    n, count, draws = 12, 20, 400
    true = 0.6 ** np.abs(np.subtract.outer(np.arange(n), np.arange(n)))
    root, outside = np.linalg.cholesky(true), ~np.eye(n, dtype=bool)
    tried = np.stack([filled(rng.standard_normal((count, n)) @ root.T).matrix for _ in range(draws)])[:, outside]
    error = lambda pull: np.mean(np.sum(((1 - pull) * tried - true[outside]) ** 2, axis=1))  # noqa: E731
    power = float(np.mean(np.sum(tried**2, axis=1)))
    best = intensity(power, float(outside.sum()), float(count))
    # The error is quadratic in the pull: a tenth aside costs power / 100, k standard errors of which are far less.
    assert error(best) < min(error(best - 0.1), error(best + 0.1))
    assert error(best) < 0.8 * error(0.0)  # the plain mean


def test_heavy_tails_pull_variances_further(rng: np.random.Generator):
    scale = np.exp(np.linspace(-1, 1, 16))
    normal = rng.standard_normal((400, 16)) * scale
    heavy = normal * np.where(rng.random((400, 16)) < 0.01, 10.0, 0.0)
    assert filled(normal).shrunk().variances < 0.02
    assert filled(heavy).shrunk().variances > 0.1


def test_repeated_samples_count_once():
    x = samples(5, 6, 4)
    once, heavy = filled(x), filled(x, weights=np.full(6, 7.0))
    assert once.effective_count == pytest.approx(6)
    assert heavy.effective_count == pytest.approx(6)
    np.testing.assert_allclose(heavy.shrunk().matrix, once.shrunk().matrix, rtol=1e-12)
    assert filled(x, weights=np.array([1.0, 0, 0, 0, 0, 0])).effective_count == 1


@given(seed=seeds, count=st.integers(2, 30))
def test_merged_and_saved_accumulators_shrink_alike(seed: int, count: int):
    x, y = samples(seed, count, 5), samples(seed + 1, count, 3)
    for pair in ((x,), (x, y)):
        whole, half = filled(*pair), filled(*(one[: count // 2] for one in pair))
        half = SecondMoment.from_arrays(half.to_arrays())
        half.merge(filled(*(one[count // 2 :] for one in pair)))
        np.testing.assert_allclose(half.shrunk().matrix, whole.shrunk().matrix, rtol=1e-9, atol=1e-12)


def test_cross_moments_go_to_zero_unless_samples_agree(rng: np.random.Generator):
    x, noise = rng.standard_normal((2, 4000, 6))
    alone = filled(x, noise).shrunk()
    assert alone.correlations > 0.5
    assert filled(x, x + noise).shrunk().correlations < 0.01
    assert filled(x[:1], noise[:1]).shrunk().correlations == 1.0  # one sample: chance explains it
    np.testing.assert_allclose(alone.matrix, (1 - alone.correlations) * filled(x, noise).matrix)


def test_constants_and_dead_columns(rng: np.random.Generator):
    assert_same(filled(np.zeros((3, 2))).shrunk().matrix, np.zeros((2, 2)))
    x = rng.standard_normal((4, 3)) * np.array([1.0, 0.0, 2.0])
    assert filled(x).shrunk().matrix[1, 1] > 0  # four tokens without it do not make a column free
    assert filled(np.zeros((3, 2)), np.zeros((3, 2))).shrunk().matrix.any() == 0


def test_torch_batches_shrink_like_arrays(rng: np.random.Generator):
    x, moment = rng.standard_normal((5, 4)), SecondMoment(4)
    moment.update(torch.from_numpy(x))
    np.testing.assert_allclose(moment.shrunk().matrix, filled(x).shrunk().matrix, rtol=1e-12)


def test_wrong_counts_and_powers_are_named():
    with pytest.raises(InvalidInputError, match="`count` is 0"):
        shrink(np.eye(2), 0)
    with pytest.raises(InvalidInputError, match=r"`fourth` has shape \(3,\) for 2 columns"):
        shrink(np.eye(2), 4, np.ones(3))
    with pytest.raises(InvalidInputError, match="no mean of 0 samples"):
        SecondMoment(2).shrunk()
