"""Expected rates: against the mean over all entries, against what quantizers take, and as functions of the step."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import lattq as lq
from lattq._rate_curve import LEAST, PARTS, RateCurve
from lattq.testing.strategies import moment, seeds


def curve_of(seed: int, rows: int, columns: int, equalize: bool) -> tuple[RateCurve, np.ndarray]:
    """A curve, and by definition the variance of each weight in the coordinates of the cells."""
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal((rows, columns)) * np.exp(rng.standard_normal((rows, 1)))
    weight *= rng.integers(0, 4, columns) > 0
    outputs, sigma = (moment(np.exp(rng.standard_normal(n)), seed) for n in (rows, columns))
    squares = weight**2
    variance = squares.mean(axis=1)[:, None] * squares.mean(axis=0) / (squares.mean() or 1.0)
    if equalize:
        of_rows, of_columns = (np.diag(np.linalg.cholesky(one)) ** 2 for one in (outputs, sigma))
        variance = variance * of_rows[:, None] * of_columns
    scheme = lq.recipes.watersic(1.0) if equalize else lq.recipes.huffman_gptq(1.0)
    return RateCurve.of(weight, lq.Metric(sigma, outputs), scheme), variance


@given(seed=seeds, rows=st.integers(1, 9), columns=st.integers(1, 9), equalize=st.booleans(), log=st.floats(-8, 4))
def test_the_expected_rate_is_the_mean_over_all_weights(seed: int, rows: int, columns: int, equalize: bool, log: float):
    curve, variance = curve_of(seed, rows, columns, equalize)
    expected = float(np.log2(1 + 2 * np.pi * np.e * variance / 4.0**log).mean()) / 2
    # Bins of w octaves move a variance by w at most, w / 2 for each side, and a rate by half as much.
    if expected > LEAST:
        assert curve.rate(2.0**log) == pytest.approx(expected, abs=0.5 / PARTS)
    else:
        assert curve.rate(2.0**log) <= LEAST + 0.5 / PARTS


@given(seed=seeds, rows=st.integers(1, 9), columns=st.integers(1, 9), equalize=st.booleans(), rate=st.floats(-4, 12))
def test_the_step_of_a_rate_is_the_inverse(seed: int, rows: int, columns: int, equalize: bool, rate: float):
    """Also below 0, where searches that overshoot must find back."""
    curve, variance = curve_of(seed, rows, columns, equalize)
    if variance.any():
        assert curve.rate(curve.step(rate)) == pytest.approx(rate, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("recipe", [lq.recipes.watersic, lq.recipes.two_sided, lq.recipes.huffman_gptq])
@pytest.mark.parametrize("rate", [3.0, 4.0, 6.0])
def test_the_step_of_the_curve_gives_about_the_rate(recipe: Any, rate: float):
    """Within a tenth of a bit from 3 bits on: the cell, feedback and what stands beside the codes."""
    rng = np.random.default_rng(1)
    weight, sigma = rng.standard_normal((256, 128)), moment(np.geomspace(1, 30, 128), 0)
    step = RateCurve.of(weight, lq.Metric(sigma), recipe(1.0)).step(rate)
    assert lq.quantize(weight, sigma, recipe(step)).rate == pytest.approx(rate, abs=0.1)


def test_nothing_that_varies_has_any_step():
    curve = RateCurve.of(np.zeros((2, 3)), lq.Metric(np.eye(3)), lq.recipes.watersic(1.0))
    assert curve.step(LEAST) == 1.0
    assert curve.rate(2.0) < LEAST


@pytest.mark.parametrize("live", [1, 8, 64, 512])
@pytest.mark.parametrize("rate", [0.05, 3.0, 20.0])
def test_few_weights_that_vary_have_a_step_too(live: int, rate: float):
    """The rate is that of all weights, so that these few may be asked for more bits than any number holds."""
    weight = np.zeros((4, 512))
    weight[:, :live] = np.random.default_rng(0).standard_normal((4, live))
    curve = RateCurve.of(weight, lq.Metric(np.eye(512)), lq.recipes.watersic(1.0))
    step = curve.step(rate)
    assert 0.0 < step < np.inf
    if rate * 512 / live < 900:
        assert curve.rate(step) == pytest.approx(rate, rel=1e-9)


def test_a_rate_that_few_weights_cannot_take_is_not_reached():
    weight = np.zeros((64, 32))
    weight[:, 3] = np.random.default_rng(0).standard_normal(64)
    with pytest.raises(lq.errors.RateNotReachedError):
        lq.at_rate(20.0, lq.recipes.watersic, weight, np.eye(32))
