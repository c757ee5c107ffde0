"""The test kit tested: assertions that can fail, strategies that keep their word, oracles that agree."""

import array_api_strict
import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from tests import strategies
from tests.helpers import assert_close, assert_same
from tests.oracles.brute_force import closest_point, quadratic_error
from tests.oracles.textbook_gptq import textbook_gptq

ONE = np.ones(3)


@pytest.mark.parametrize(
    ("actual", "desired"),
    [
        (ONE, ONE * (1 + 1e-6)),
        (ONE, ONE.astype(np.float32)),
        (ONE, np.ones((3, 1))),
        (ONE, np.ones(4)),
        (ONE, array_api_strict.ones(3)),
        (ONE, torch.ones(3, dtype=torch.float64)),
        (np.arange(3), np.arange(1, 4)),
        (ONE, [1.0, 1.0, 1.0]),
        (1.0, 1.1),
        (np.array([1.0, np.nan]), np.ones(2)),
    ],
)
def test_assert_close_fails_on_every_kind_of_difference(actual, desired):
    with pytest.raises(AssertionError):
        assert_close(actual, desired)


def test_assert_close_accepts_what_is_close(xp):
    assert_close(xp.asarray([1.0, 2.0]), xp.asarray([1.0, 2.0]) * (1 + 1e-8))
    assert_close(1.0, 1.0 + 1e-9)
    assert_close(np.float64(1.0), 1.0)


def test_assert_same_is_exact():
    assert_same(ONE, ONE.copy())
    with pytest.raises(AssertionError):
        assert_same(ONE, np.nextafter(ONE, 2))


@given(sigma=strategies.second_moments())
def test_second_moments_are_symmetric_and_positive_semidefinite(sigma):
    assert sigma.dtype == np.float64
    assert_same(sigma, sigma.T.copy())
    eigenvalues = np.linalg.eigvalsh(sigma)
    assert eigenvalues[0] >= -len(sigma) * np.finfo(np.float64).eps * max(eigenvalues[-1], 0.0)


@given(sigma=strategies.rank_deficient_moments())
def test_rank_deficient_moments_are_singular(sigma):
    eigenvalues = np.linalg.eigvalsh(sigma)
    assert eigenvalues[0] <= len(sigma) * np.finfo(np.float64).eps * max(eigenvalues[-1], 1.0)


@given(sigma=strategies.dead_input_moments())
def test_dead_inputs_have_zero_rows_and_columns(sigma):
    assert np.any(~sigma.any(axis=0) & ~sigma.any(axis=1))


@given(layer=strategies.layers())
def test_layers_fit_together(layer):
    weight, sigma = layer
    assert weight.shape[1] == sigma.shape[0] == sigma.shape[1]
    assert np.isfinite(weight).all()


def round_to(step):
    """A GPTQ design that ignores the targets and rounds to multiples of `step`."""
    return lambda targets: lambda column: step * np.round(column / step)


@given(n=st.integers(1, 3), seed=strategies.seeds, data=st.data())
def test_greedy_is_never_better_than_the_closest_point(n, seed, data):
    sigma = data.draw(strategies.well_conditioned_moments(n, n))
    weight = 3 * np.random.default_rng(seed).standard_normal((1, n))
    greedy = textbook_gptq(weight, sigma, round_to(0.5))
    # The box reaches at least as far as the greedy point.
    radius = int(np.abs(greedy[0] / 0.5 - np.round(weight[0] / 0.5)).max()) + 1
    assume((2 * radius + 1) ** n <= 10_000)
    best = 0.5 * closest_point(weight[0], sigma, step=0.5, radius=radius)
    cost, floor = quadratic_error(weight - greedy, sigma)[0], quadratic_error(weight - best, sigma)[0]
    assert cost >= floor * (1 - 1e-9)


def test_feedback_beats_rounding_on_average(rng):
    """Both against the exact optimum, on strongly correlated inputs."""
    sigma = 0.9 * np.ones((4, 4)) + 0.1 * np.eye(4)
    weight = 3 * rng.standard_normal((200, 4))
    fed_back = quadratic_error(weight - textbook_gptq(weight, sigma, round_to(1.0)), sigma).mean()
    rounded = quadratic_error(weight - np.round(weight), sigma).mean()
    optimal = np.mean([quadratic_error((row - closest_point(row, sigma, radius=2))[None], sigma)[0] for row in weight])
    assert optimal <= fed_back <= rounded


@given(seed=strategies.seeds, data=st.data())
def test_textbook_gptq_leaves_the_plain_rounding_errors(seed, data):
    """(W − Ŵ) Uᵀ⁻¹ with Σ = U diag(d) Uᵀ in the paper's order holds errors of at most half a step."""
    sigma = data.draw(strategies.well_conditioned_moments())
    weight = np.random.default_rng(seed).standard_normal((5, len(sigma)))
    error = weight - textbook_gptq(weight, sigma, round_to(0.25))
    lower = np.linalg.cholesky(sigma[::-1, ::-1])[::-1, ::-1]  # upper triangular: sigma = lower lowerᵀ
    unit = lower / np.diag(lower)
    assert np.abs(error @ unit).max() <= 0.125 * (1 + 1e-9)


def test_textbook_gptq_designs_each_group_on_updated_targets():
    """The second group's targets have moved by the first group's errors."""
    seen = []

    def design(targets):
        seen.append(targets)
        return np.round

    sigma = np.array([[1.0, 0.5], [0.5, 1.0]])
    textbook_gptq(np.array([[0.4, 0.0]]), sigma, design, group=1)
    assert_close(seen[0], np.array([[0.4]]))
    assert_close(seen[1], np.array([[0.2]]))  # 0.4 · Σ₀₁ / Σ₁₁


def test_the_oracle_of_the_closest_point_sees_past_rounding():
    sigma = np.array([[1.0, 0.9], [0.9, 1.0]])
    row = np.array([0.6, 0.6])
    best = closest_point(row, sigma)
    cost = [quadratic_error((row - z)[None], sigma)[0] for z in (best, np.round(row))]
    assert cost[0] < cost[1]
