"""MMSE feedback: the loop minimises the stated functional, at any rate and for any second moment."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lattq.feedback import MMSE, Cholesky, successive_cancellation
from lattq.feedback.rules import column_scale
from lattq.linalg import ldl
from lattq.linalg.ldl import LDL
from lattq.quantizers import Uniform
from tests.helpers import assert_same
from tests.strategies import moment, rank_deficient_moments, second_moments, seeds, weights, well_conditioned_moments

EPS = float(np.finfo(np.float64).eps)


def diagonal(weight: np.ndarray, feedback: MMSE) -> np.ndarray:
    """J = ratio · noise · identity where all columns have the same mean square."""
    return feedback.ratio * feedback.noise / column_scale(weight) ** 2


def functional(weight: np.ndarray, found: np.ndarray, sigma: np.ndarray, j: np.ndarray) -> float:
    """tr((W - Ŵ) Σ (W - Ŵ)ᵀ) + tr(Ŵ J Ŵᵀ)."""
    error = weight - found
    return float(np.sum((error @ sigma) * error) + np.sum((found @ j) * found))


@pytest.mark.parametrize("sweeps", [0, 1])
@pytest.mark.parametrize("block", [1, 2])
@given(data=st.data(), ratio=st.floats(0.05, 2), noise=st.floats(1e-3, 2))
def test_mmse_targets_minimise_the_stated_functional(
    block: int, sweeps: int, data: st.DataObject, ratio: float, noise: float
):
    """With next to no rounding the reconstruction is W Σ (Σ + J)⁻¹."""
    sigma = data.draw(second_moments(2, 12).filter(lambda sigma: len(sigma) % 2 == 0))
    weight = data.draw(weights(columns=len(sigma)))
    feedback = MMSE(noise * max(np.diag(sigma).mean(), 1e-3), ratio, block=block)
    j = np.diag(diagonal(weight, feedback))
    step = 1e-7 * max(float(np.abs(weight).max()), 1e-3)
    factor = feedback.factor(weight, sigma)
    found = successive_cancellation(weight, factor, Uniform(step), sweeps=sweeps).reconstruction
    best = weight @ sigma @ np.linalg.inv(sigma + j)
    excess = np.sum(((best - found) @ (sigma + j)) * (best - found))  # (2.6), which is the functional less its least
    rounding = np.trace(sigma + j) * len(weight) * step**2
    assert excess <= rounding + (4 * EPS**0.5) ** 2 * functional(weight, 0 * weight, sigma, j)


@given(data=st.data(), seed=seeds, step=st.floats(0.1, 2))
def test_rounding_errors_are_the_functional_up_to_a_constant(data: st.DataObject, seed: int, step: float):
    """Theory (2.6b): Σ p_i ‖e_i‖² less the functional is the same whatever is rounded how, for any symmetric J."""
    sigma = data.draw(well_conditioned_moments(2, 8))
    rng, n = np.random.default_rng(seed), len(sigma)
    weight, root = rng.standard_normal((5, n)), rng.standard_normal((n, n))
    j = root @ root.T / n
    factor = dataclasses.replace(ldl(sigma + j, order="pivoted"), penalty=j)
    constants = []
    for side in (step, 1.7 * step, 1e-3):
        found = successive_cancellation(weight, factor, Uniform(side))
        squares = np.square(found.noise[:, factor.order]) @ factor.pivots
        constants.append(squares.sum() - functional(weight, found.reconstruction, sigma, j))
    np.testing.assert_allclose(constants, constants[-1], rtol=1e-9 * np.linalg.cond(sigma + j), atol=1e-9)


def test_a_diagonal_penalty_is_its_matrix():
    weight, sigma = np.random.default_rng(0).standard_normal((4, 6)), moment(np.linspace(1, 4, 6), 0)
    factor = MMSE(noise=0.5).factor(weight, sigma)
    assert factor.penalty is not None
    matrix = dataclasses.replace(factor, penalty=np.diag(factor.penalty))
    without = LDL(factor.unit, factor.pivots, factor.order)
    for sweeps in (0, 2):
        found = [
            successive_cancellation(weight, one, Uniform(0.01), sweeps=sweeps).codes
            for one in (factor, matrix, without)
        ]
        assert_same(found[0], found[1])
        assert (found[0] != found[2]).any()


@given(sigma=rank_deficient_moments(2, 12), seed=seeds, exponent=st.floats(-12, 0))
def test_mmse_of_a_singular_moment_at_any_rate(sigma: np.ndarray, seed: int, exponent: float):
    """Where J is only just above rounding the loop still gives up nothing that Σ can see."""
    weight = np.random.default_rng(seed).standard_normal((6, len(sigma)))
    feedback, step = MMSE(10.0**exponent, 0.5), 1e-8
    found = successive_cancellation(weight, feedback.factor(weight, sigma), Uniform(step)).reconstruction
    lost, j = weight - found, np.diag(diagonal(weight, feedback))
    rounding = weight.size * step**2 * np.trace(sigma + j)
    assert np.sum((lost @ sigma) * lost) <= np.sum((weight @ j) * weight) * (1 + 1e-3) + rounding + 1e-20


def test_mmse_without_a_penalty_is_cholesky():
    weight, sigma = np.random.default_rng(0).standard_normal((4, 6)), moment(np.linspace(1, 4, 6), 0)
    plain, none = Cholesky("pivoted").factor(weight, sigma), MMSE(noise=1.0, ratio=0.0).factor(weight, sigma)
    assert_same(none.unit, plain.unit)
    assert none.penalty is None
