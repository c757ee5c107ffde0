"""MMSE feedback: its target minimises the stated functional, at any rate and for any second moment."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lattq.feedback import MMSE, Cholesky, column_scale
from tests.helpers import assert_same
from tests.strategies import moment, rank_deficient_moments, second_moments, seeds, weights

EPS = float(np.finfo(np.float64).eps)


def penalty(weight: np.ndarray, feedback: MMSE) -> np.ndarray:
    """J = ratio · noise · identity where all columns have the same mean square."""
    return np.diag(feedback.ratio * feedback.noise / column_scale(weight) ** 2)


@pytest.mark.parametrize("block", [1, 2])
@given(data=st.data(), ratio=st.floats(0.05, 2), noise=st.floats(1e-3, 2), seed=seeds)
def test_mmse_targets_minimise_the_stated_functional(
    block: int, data: st.DataObject, ratio: float, noise: float, seed: int
):
    """tr(E Σ Eᵀ) + tr(Ŵ J Ŵᵀ) - tr((T - Ŵ) H (T - Ŵ)ᵀ) is the same for every Ŵ."""
    sigma = data.draw(second_moments(2, 12).filter(lambda sigma: len(sigma) % 2 == 0))
    weight = data.draw(weights(columns=len(sigma)))
    feedback = MMSE(noise * max(np.diag(sigma).mean(), 1e-3), ratio, block=block)
    target = feedback.target(weight, sigma, feedback.factor(weight, sigma))
    j = penalty(weight, feedback)
    candidates = [np.zeros_like(weight), weight, np.random.default_rng(seed).standard_normal(weight.shape)]
    parts = []
    for found in candidates:
        error, rest = weight - found, target - found
        terms = [np.sum((error @ sigma) * error), np.sum((found @ j) * found), np.sum((rest @ (sigma + j)) * rest)]
        parts.append([terms[0] + terms[1] - terms[2], *terms])
    np.testing.assert_allclose([p[0] for p in parts], parts[0][0], rtol=0, atol=4 * EPS**0.5 * np.max(parts))


@given(sigma=rank_deficient_moments(2, 12), seed=seeds, exponent=st.floats(-12, 0))
def test_mmse_of_a_singular_moment_at_any_rate(sigma: np.ndarray, seed: int, exponent: float):
    """Where J is only just above rounding the target still gives up nothing that Σ can see."""
    weight = np.random.default_rng(seed).standard_normal((6, len(sigma)))
    feedback = MMSE(10.0**exponent, 0.5)
    target = feedback.target(weight, sigma, feedback.factor(weight, sigma))
    lost = weight - target
    j = penalty(weight, feedback)
    assert np.sum((lost @ sigma) * lost) <= np.sum((weight @ j) * weight) * (1 + 1e-3) + 1e-20


def test_mmse_without_a_penalty_is_cholesky():
    weight, sigma = np.random.default_rng(0).standard_normal((4, 6)), moment(np.linspace(1, 4, 6), 0)
    plain, none = Cholesky("pivoted"), MMSE(noise=1.0, ratio=0.0)
    assert_same(none.factor(weight, sigma).unit, plain.factor(weight, sigma).unit)
    assert_same(none.target(weight, sigma, none.factor(weight, sigma)), weight)
