"""Special cases as arrays: what each formula says, what it is never worse than, and columns without a range."""

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit, logit

from lattq.affine import gain
from lattq.affine.scales import awq_scales, clip_factors, clipped, midpoint_shift, range_order, smoothquant_scales
from lattq.errors import InvalidInputError
from tests.strategies import layers, seeds, weights


@given(weight=weights(), other=st.booleans(), strength=st.sampled_from([0.0, 0.3, 0.5, 1.0]), seed=seeds)
def test_smoothquant_moves_the_difficulty(weight: np.ndarray, other: bool, strength: float, seed: int):
    """Peaks of inputs become max|x|^(1-α) max|w|^(1-α), of weights the same with α: equal at one half."""
    peaks = np.exp(np.random.default_rng(seed).standard_normal(weight.shape[1]))
    several = [weight, 2.0 * weight[:1]]
    consumers = several if other else weight
    largest = np.abs(np.vstack(several) if other else weight).max(axis=0)
    scales = smoothquant_scales(peaks, consumers, strength=strength)
    live = largest > 0
    np.testing.assert_allclose((peaks / scales)[live], (peaks[live] * largest[live]) ** (1 - strength), rtol=1e-9)
    np.testing.assert_allclose((largest * scales)[live], (peaks[live] * largest[live]) ** strength, rtol=1e-9)
    assert (scales > 0).all()
    assert np.isfinite(scales).all()


def test_columns_without_range_get_a_moderate_scale():
    scales = smoothquant_scales(np.array([4.0, 0.0, 9.0, 1.0]), np.array([[1.0, 1.0, 1.0, 0.0]]))
    np.testing.assert_allclose(scales, [2.0, np.sqrt(6.0), 3.0, np.sqrt(6.0)])
    np.testing.assert_array_equal(smoothquant_scales(np.zeros(2), np.zeros((1, 2))), np.ones(2))


def test_the_sign_of_weights_does_not_matter_to_smoothquant():
    """Negative control of the signed maximum that a published code takes."""
    weight, peaks = np.array([[-8.0, 1.0], [0.5, -1.0]]), np.ones(2)
    np.testing.assert_allclose(smoothquant_scales(peaks, weight), smoothquant_scales(peaks, -weight))
    assert smoothquant_scales(peaks, weight)[0] == pytest.approx(8.0**-0.5)


@given(layer=layers(max_n=6), step=st.sampled_from([0.25, 1.0]))
def test_awq_is_the_best_of_its_grid(layer: tuple[np.ndarray, np.ndarray], step: float):
    """Oracle: the error of the output of each of the 20 exponents, by definition."""
    weight, sigma = layer

    def rounding(w: np.ndarray) -> np.ndarray:
        return step * np.rint(w / step)

    def error(scales: np.ndarray) -> float:
        left = rounding(weight * scales) / scales - weight
        return float(np.einsum("ri,ij,rj->", left, sigma, left))

    sizes = np.exp(np.arange(len(sigma)) % 4.0)
    found = awq_scales(weight, sigma, rounding, sizes=sizes)
    tried = [sizes ** (k / 20) for k in range(20)]
    tried = [one / np.sqrt(one.max() * one.min()) for one in tried]
    slack = 1e-9 * float(np.trace(sigma) * (np.sum(weight**2) + step**2))
    assert error(found) <= min(map(error, tried)) + slack
    assert error(awq_scales(weight, sigma, rounding)) <= error(np.ones(len(sigma))) + slack
    assert found.max() * found.min() == pytest.approx(1.0)


def test_awq_protects_loud_inputs():
    weight = np.random.default_rng(0).standard_normal((64, 16))
    sigma = np.diag([400.0, *np.ones(15)])
    scales = awq_scales(weight, sigma, lambda w: np.rint(w / np.abs(w).max() * 3) * np.abs(w).max() / 3)
    assert scales[0] > scales[1]
    assert gain(weight, sigma, np.diag(scales), group=16) > 3.0


@given(x=weights(), levels=st.sampled_from([2, 4, 16]))
def test_clipped_ranges_are_never_worse_than_whole_ones(x: np.ndarray, levels: int):
    factors = clip_factors(x, levels, points=6)
    whole = clipped(x, levels, np.ones((len(x), 2)))
    best = clipped(x, levels, factors)
    assert (np.sum((best - x) ** 2, axis=1) <= np.sum((whole - x) ** 2, axis=1) * (1 + 1e-12)).all()
    assert ((factors > 0) & (factors <= 1)).all()
    np.testing.assert_allclose(expit(logit(factors)), factors)  # what is learned elsewhere starts from here


def test_clip_factors_are_the_best_of_all_pairs():
    x, mass = np.random.default_rng(0).standard_t(3, (4, 30)), np.linspace(1, 3, 30)
    factors = clip_factors(x, 4, mass, points=5)
    for row, pair in zip(x, factors, strict=True):
        errors = {
            one: float(mass @ (clipped(row[None], 4, np.array([one]))[0] - row) ** 2)
            for one in itertools.product(np.arange(1, 6) / 5, repeat=2)
        }
        assert errors[tuple(pair)] == min(errors.values())


@given(x=weights(), levels=st.sampled_from([2, 4, 16]), factor=st.floats(0.05, 1.0))
def test_clipped_numbers_take_at_most_so_many_values(x: np.ndarray, levels: int, factor: float):
    """And ranges without a width, as of one column, come back as they are."""
    for row, before in zip(clipped(x, levels, np.full((len(x), 2), factor)), x, strict=True):
        assert len(np.unique(row)) <= levels or (row == before).all()
    assert np.isfinite(clipped(x[:, :1], levels, np.ones((len(x), 2)))).all()


@given(seed=seeds, n=st.integers(1, 40), clusters=st.integers(1, 5))
def test_columns_of_like_range_become_neighbours(seed: int, n: int, clusters: int):
    """Well separated clusters stand together, in the order of their ranges, each in its own order."""
    rng = np.random.default_rng(seed)
    kinds = rng.integers(0, clusters, n)
    high = 10.0**kinds * (1 + 0.01 * rng.random(n))
    order = range_order(-high, high, clusters=len(np.unique(kinds)), restarts=20, seed=seed)
    np.testing.assert_array_equal(np.sort(order), np.arange(n))
    assert (np.diff(kinds[order]) >= 0).all() or len(np.unique(kinds)) > 2  # k-means may miss the best of many


def test_constant_ranges_keep_their_order():
    np.testing.assert_array_equal(range_order(np.zeros(5), np.zeros(5)), np.arange(5))
    np.testing.assert_array_equal(range_order(np.zeros(1), np.ones(1)), [0])


@given(layer=layers(), seed=seeds)
def test_a_shift_and_its_bias_leave_the_output(layer: tuple[np.ndarray, np.ndarray], seed: int):
    weight, rng = layer[0], np.random.default_rng(seed)
    x, bias = 3.0 + rng.standard_normal((20, weight.shape[1])), rng.standard_normal(len(weight))
    shift, corrected = midpoint_shift(x.min(axis=0), x.max(axis=0), weight, bias)
    np.testing.assert_allclose(
        (x - shift) @ weight.T + corrected, x @ weight.T + bias, atol=1e-9 * np.abs(weight).max()
    )
    np.testing.assert_allclose((x - shift).max(axis=0), -(x - shift).min(axis=0), atol=1e-12)
    assert (np.abs(x - shift).max(axis=0) <= np.abs(x).max(axis=0)).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: smoothquant_scales(np.array([-1.0]), np.ones((1, 1))), "`peaks`.*least entry -1"),
        (lambda: smoothquant_scales(np.ones(2), np.ones((1, 1))), r"`peaks` has shape \(2,\)"),
        (lambda: smoothquant_scales(np.array([np.nan]), np.ones((1, 1))), "`peaks` holds nan"),
        (lambda: smoothquant_scales(np.ones(1), np.ones((1, 1)), strength=2.0), "`strength` is 2"),
        (lambda: awq_scales(np.ones((2, 2)), np.eye(2), lambda w: w[:1]), "`rounding` returns shape"),
        (lambda: awq_scales(np.ones((2, 2)), np.eye(2), lambda w: w * np.nan), "`rounding.weight.` holds nan"),
        (lambda: awq_scales(np.ones((2, 2)), np.eye(2), np.rint, points=0), "`points` is 0"),
        (lambda: clip_factors(np.ones((2, 2)), 1), "`levels` is 1"),
        (lambda: clip_factors(np.ones((2, 2)), 4, points=0), "`points` is 0"),
        (lambda: clip_factors(np.ones((2, 2)), 4, -np.ones(2)), "`weights`.*least entry -1"),
        (lambda: range_order(np.ones(2), np.zeros(2)), "`low` has shape"),
        (lambda: range_order(np.zeros(2), np.ones(2), clusters=0), "`clusters` is 0"),
        (lambda: midpoint_shift(np.zeros(2), np.ones(2), np.ones((1, 2)), None), "without bias has no place"),
        (lambda: midpoint_shift(np.zeros(2), np.ones(2), np.ones((2, 2)), np.ones(1)), "`weight` has shape"),
    ],
)
def test_bad_input_is_refused_by_name(make: Any, message: str):
    with pytest.raises(InvalidInputError, match=message):
        make()
