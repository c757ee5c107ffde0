"""The effective weight is the regression on drifted inputs."""

from types import ModuleType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lattq.errors import InvalidInputError
from lattq.linalg import ldl
from lattq.linalg.effective import effective_weight
from tests.helpers import assert_same
from tests.strategies import seeds

ROWS = 3


class Drift:
    """Samples of inputs before and after the layers in front were quantized, and their moments."""

    def __init__(self, seed: int, columns: int, samples: int, dead: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.weight = rng.standard_normal((ROWS, columns))
        self.x = rng.standard_normal((columns, samples))
        self.x_hat = self.x + 0.3 * rng.standard_normal((columns, samples))
        self.x_hat[:dead] = 0.0
        self.r = 0.2 * rng.standard_normal((ROWS, samples)) + rng.standard_normal((ROWS, columns)) @ self.x
        self.cross = self.x @ self.x_hat.T / samples
        self.sigma_hat = self.x_hat @ self.x_hat.T / samples
        self.residual = self.r @ self.x_hat.T / samples

    def effective(self) -> np.ndarray:
        """Return the weight under test."""
        return effective_weight(self.weight, self.cross, self.sigma_hat, self.residual)

    def error(self, weight: np.ndarray) -> float:
        """Return the mean squared error of `weight` on the drifted inputs."""
        return float(np.mean(np.sum((self.weight @ self.x + self.r - weight @ self.x_hat) ** 2, axis=0)))


drifts = st.builds(Drift, seeds, st.integers(1, 8), st.integers(1, 24), st.integers(0, 2))


@given(drift=drifts)
def test_it_is_the_least_squares_solution(drift: Drift):
    target = drift.weight @ drift.x + drift.r
    oracle = np.linalg.lstsq(drift.x_hat.T, target.T, rcond=1e-10)[0].T
    best = drift.effective()
    # Minimum-norm solutions agree up to rounding times the squared condition number of the samples.
    values = np.linalg.svd(drift.x_hat, compute_uv=False)
    live = values[values > 1e-10 * max(values[0], 1e-300)]
    condition = (live[0] / live[-1]) ** 2 if len(live) else 1.0
    np.testing.assert_allclose(best, oracle, atol=1e-12 * condition * (1 + np.max(np.abs(oracle))))
    assert drift.error(best) <= drift.error(oracle) + 1e-12 * condition * (1 + drift.error(np.zeros_like(best)))


@given(drift=drifts, seed=seeds)
def test_error_splits_into_a_quantization_part_and_a_constant(drift: Drift, seed: int):
    best = drift.effective()
    other = best + np.random.default_rng(seed).standard_normal(best.shape)
    factor = ldl(drift.sigma_hat, order="pivoted")
    root = (factor.unit * np.sqrt(factor.pivots))[np.argsort(factor.order)]
    split = np.sum(((best - other) @ root) ** 2) + drift.error(best)
    assert drift.error(other) == pytest.approx(split, rel=1e-7, abs=1e-9)
    # Any other starting point leaves a cross term.
    wrong = best + 0.5
    if drift.sigma_hat.sum() > 1e-3:
        cross_term = np.sum(((wrong - other) @ root) ** 2) + drift.error(wrong) - drift.error(other)
        direct = 2 * np.sum(((wrong - best) @ root) * ((wrong - other) @ root))
        assert cross_term == pytest.approx(direct, rel=1e-6, abs=1e-8)


@given(drift=drifts)
def test_dead_inputs_get_no_weight(drift: Drift):
    dead = np.flatnonzero(np.diag(drift.sigma_hat) == 0)
    assert np.all(drift.effective()[:, dead] == 0)


def test_without_drift_it_is_the_weight():
    drift = Drift(seed=1, columns=6, samples=40)
    same = effective_weight(drift.weight, drift.sigma_hat, drift.sigma_hat)
    np.testing.assert_allclose(same, drift.weight, rtol=1e-12)


def test_damping_minimises_the_damped_error():
    drift = Drift(seed=2, columns=4, samples=30)
    damped = effective_weight(drift.weight, drift.cross, drift.sigma_hat, drift.residual, damping=0.3)
    ridge = 0.3 * np.mean(np.diag(drift.sigma_hat))

    def damped_error(weight: np.ndarray) -> float:
        return drift.error(weight) + float(ridge * np.sum((weight - drift.weight) ** 2))

    best = damped_error(damped)
    rng = np.random.default_rng(3)
    for _ in range(20):
        step = 1e-3 * rng.standard_normal(damped.shape)
        assert damped_error(damped + step) > best
    assert damped_error(drift.effective()) > best


def test_every_library(xp: ModuleType):
    drift = Drift(seed=4, columns=5, samples=20)
    moved = effective_weight(*(xp.asarray(a) for a in (drift.weight, drift.cross, drift.sigma_hat, drift.residual)))
    assert_same(moved, drift.effective())


def test_nan_is_named():
    with pytest.raises(InvalidInputError, match="`residual` holds nan"):
        effective_weight(np.ones((1, 2)), np.eye(2), np.eye(2), np.array([[0.0, np.nan]]))
