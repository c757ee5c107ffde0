"""Reverse waterfilling: optimality conditions, a 50-digit oracle, inverses and limits."""

import math
from typing import Any

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from lattq.bounds import gaussian_rate, rate_distortion, waterfill
from lattq.bounds.waterfilling import Waterfilling, distortion_rate, waterfill_product
from lattq.errors import InvalidInputError

EPS = float(np.finfo(np.float64).eps)

# Zeros, ties and nine decades on either side of 1.
variances = st.lists(st.one_of(st.floats(1e-9, 1e9), st.sampled_from([0.0, 1.0, 2.0])), min_size=1, max_size=40).map(
    np.array
)
live_variances = variances.filter(lambda v: v.max() > 0.0)
fractions = st.floats(1e-9, 0.999)  # of the mean variance


def assert_optimal(values: np.ndarray, filled: Waterfilling) -> None:
    """The Karush–Kuhn–Tucker conditions: one level for all that is described, the variance for all that is not."""
    described = filled.rates > 0.0
    np.testing.assert_array_equal(filled.distortions[described], filled.level)
    # The level found from a rate is the exponential of a logarithm of size up to 60.
    np.testing.assert_allclose(filled.distortions[~described], values[~described], rtol=64.0 * EPS)
    assert (values[~described] <= filled.level * (1.0 + 64.0 * EPS)).all()
    bits = 0.5 * np.log2(np.maximum(values / filled.level, 1.0))
    np.testing.assert_allclose(filled.rates, bits, rtol=0.0, atol=64.0 * EPS)  # logarithms up to 60 in size


def oracle_level(values: np.ndarray, *, distortion: float | None = None, rate: float | None = None) -> Any:
    """Try every number of described components, largest first, with 50 digits."""
    with mpmath.workdps(50):
        descending = sorted((mpmath.mpf(float(v)) for v in values), reverse=True)
        for count in range(1, len(descending) + 1):
            if distortion is not None:
                level = (len(descending) * mpmath.mpf(distortion) - sum(descending[count:])) / count
            else:
                nats = sum(mpmath.log(v) for v in descending[:count]) - 2 * mpmath.log(2) * len(descending) * rate
                level = mpmath.exp(nats / count)
            following = descending[count] if count < len(descending) else mpmath.mpf(0)
            if following <= level <= descending[count - 1]:
                return level
    msg = "no level fits"
    raise AssertionError(msg)


def oracle_rate(values: np.ndarray, level: Any) -> Any:
    with mpmath.workdps(50):
        above = [mpmath.mpf(float(v)) for v in values if v > level]
        return sum((mpmath.log(v / level, 2) for v in above), mpmath.mpf(0)) / (2 * len(values))


@given(live_variances, fractions)
@example(np.array([1.0, 1.0, 1.0]), 0.999)
@example(np.array([0.0, 5e-9, 1e9]), 1e-9)
def test_a_distortion_is_met_optimally(values: np.ndarray, fraction: float):
    wanted = fraction * float(values.mean())
    filled = waterfill(values, distortion=wanted)
    assert_optimal(values, filled)
    assert filled.distortion == pytest.approx(wanted, rel=4.0 * values.size * EPS)


@given(live_variances, st.floats(0.0, 30.0))
@example(np.array([1.0, 1.0]), 0.0)
def test_a_rate_is_spent_optimally(values: np.ndarray, rate: float):
    filled = waterfill(values, rate=rate)
    assert_optimal(values, filled)
    assert filled.rate == pytest.approx(rate, abs=1e-13)


def test_a_wrong_level_is_not_optimal():
    values = np.array([4.0, 2.0, 1.0, 0.1])
    good = waterfill(values, distortion=0.5)
    level = good.level * (1.0 + 1e-9)
    wrong = Waterfilling(level, good.rates, np.minimum(values, level))
    assert_optimal(values, good)
    with pytest.raises(AssertionError):
        assert_optimal(values, wrong)
    uneven = Waterfilling(good.level, good.rates, good.distortions * np.array([1.1, 0.9, 1.0, 1.0]))
    with pytest.raises(AssertionError):
        assert_optimal(values, uneven)


@given(live_variances, fractions)
def test_level_and_rate_against_fifty_digits(values: np.ndarray, fraction: float):
    wanted = fraction * float(values.mean())
    filled = waterfill(values, distortion=wanted)
    level = oracle_level(values, distortion=wanted)
    # n D is rounded once and the sum of the inactive ones once; subtracting them costs n at most.
    tolerance = 4.0 * values.size * EPS
    assert filled.level == pytest.approx(float(level), rel=tolerance)
    assert filled.rate == pytest.approx(float(oracle_rate(values, level)), abs=tolerance + 64.0 * EPS)


@given(live_variances, st.floats(1e-6, 30.0))
def test_level_at_a_rate_against_fifty_digits(values: np.ndarray, rate: float):
    positive = np.count_nonzero(values)
    level = oracle_level(values, rate=rate) if positive == values.size else None
    if level is None:  # components without variance share the rate but not the bits
        level = oracle_level(values[values > 0.0], rate=rate * values.size / positive)
    # An error of the logarithm: its size, up to 2 ln 2 · 30 n / positive, times rounding.
    assert waterfill(values, rate=rate).level == pytest.approx(float(level), rel=64.0 * values.size * EPS)


@given(live_variances, fractions)
def test_distortion_rate_inverts_rate_distortion(values: np.ndarray, fraction: float):
    wanted = fraction * float(values.mean())
    rate = rate_distortion(values, wanted)
    # dD = -2 ln 2 θ dR and θ <= n D.
    assert distortion_rate(values, rate) == pytest.approx(wanted, rel=512.0 * values.size * EPS)


@given(live_variances, fractions, fractions)
def test_rate_falls_with_distortion(values: np.ndarray, one: float, other: float):
    low, high = sorted((one * float(values.mean()), other * float(values.mean())))
    assert rate_distortion(values, low) >= rate_distortion(values, high) - 64.0 * EPS


@given(live_variances, fractions, fractions)
def test_rate_is_convex_in_distortion(values: np.ndarray, one: float, other: float):
    a, b = one * float(values.mean()), other * float(values.mean())
    chord = 0.5 * (rate_distortion(values, a) + rate_distortion(values, b))
    assert rate_distortion(values, 0.5 * (a + b)) <= chord + 256.0 * EPS


@given(live_variances, fractions, st.integers(-30, 30))
def test_scale_changes_nothing(values: np.ndarray, fraction: float, exponent: int):
    scale = 2.0**exponent
    wanted = fraction * float(values.mean())
    reference, scaled = waterfill(values, distortion=wanted), waterfill(values * scale, distortion=wanted * scale)
    assert scaled.level == reference.level * scale  # a power of two is exact
    np.testing.assert_allclose(scaled.rates, reference.rates, rtol=0.0, atol=64.0 * EPS)


@given(variances, st.floats(1.0, 1e6))
def test_no_bits_from_the_mean_variance_on(values: np.ndarray, factor: float):
    filled = waterfill(values, distortion=factor * float(values.mean()) + 1e-300)
    np.testing.assert_allclose(filled.rates, 0.0, atol=1e-12)  # the mean itself is rounded
    np.testing.assert_allclose(filled.distortions, values, rtol=1e-12)


@given(live_variances, fractions)
def test_order_is_kept(values: np.ndarray, fraction: float):
    order = np.random.default_rng(0).permutation(values.size)
    wanted = fraction * float(values.mean())
    filled, shuffled = waterfill(values, distortion=wanted), waterfill(values[order], distortion=wanted)
    np.testing.assert_array_equal(shuffled.rates, filled.rates[order])


def test_equal_variances_are_one_gaussian():
    assert rate_distortion(np.full(7, 3.0), 0.3) == pytest.approx(gaussian_rate(3.0, 0.3), rel=1e-14)


def test_nothing_to_describe_costs_nothing():
    for filled in (waterfill(np.zeros(3), distortion=0.1), waterfill(np.zeros(3), rate=2.0)):
        assert (filled.level, filled.rate, filled.distortion) == (0.0, 0.0, 0.0)
    assert waterfill_product(0.0, np.ones(2), rate=1.0).rate == 0.0


def test_huge_rates_do_not_underflow():
    filled = waterfill(np.array([1.0, 1e-200]), rate=600.0)
    assert filled.rate == pytest.approx(600.0, rel=1e-14)
    assert waterfill(np.array([1.0, 1.0]), rate=5000.0).rates.tolist() == [5000.0, 5000.0]


@given(variances, variances, fractions)
def test_products_are_the_outer_product_filled(rows: np.ndarray, columns: np.ndarray, fraction: float):
    products = np.outer(rows, columns).ravel()
    wanted = fraction * float(products.mean()) + 1e-300
    whole, product = waterfill(products, distortion=wanted), waterfill_product(rows, columns, distortion=wanted)
    tolerance = 8.0 * products.size * EPS
    assert product.level == pytest.approx(whole.level, rel=tolerance)
    assert product.rate == pytest.approx(whole.rate, abs=tolerance + 256.0 * EPS)
    assert product.distortion == pytest.approx(whole.distortion, rel=tolerance)


@given(variances, variances, st.floats(0.0, 30.0))
def test_products_at_a_rate(rows: np.ndarray, columns: np.ndarray, rate: float):
    products = np.outer(rows, columns).ravel()
    whole, product = waterfill(products, rate=rate), waterfill_product(rows, columns, rate=rate)
    assert product.level == pytest.approx(whole.level, rel=256.0 * products.size * EPS)
    assert product.rate == pytest.approx(whole.rate, abs=1e-12)
    assert product.distortion == pytest.approx(whole.distortion, rel=256.0 * products.size * EPS)


def test_many_decades_take_few_steps():
    # Geometric spectra are where an active-set method could crawl; the oracle is the closed form of one more component.
    values = 16.0 ** -np.arange(200.0)
    for count in (1, 7, 199):
        level = 3.0 * values[count]
        wanted = (count * level + math.fsum(values[count:])) / values.size
        assert waterfill(values, distortion=wanted).level == pytest.approx(level, rel=200.0 * EPS)


def test_arrays_of_other_libraries_and_types():
    values = torch.tensor([4.0, 1.0], dtype=torch.float32, requires_grad=True)
    assert waterfill(values, distortion=0.5).level == 0.5


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: waterfill(np.ones(2)), "got neither; pass exactly one of `distortion` or `rate`"),
        (lambda: waterfill(np.ones(2), distortion=1.0, rate=1.0), "got `distortion` and `rate`"),
        (lambda: waterfill(np.ones(2), distortion=0.0), "`distortion` is 0.0"),
        (lambda: waterfill(np.ones(2), distortion=math.nan), "`distortion` is nan"),
        (lambda: waterfill(np.ones(2), rate=-1.0), "`rate` is -1.0"),
        (lambda: waterfill(np.ones(2), rate=math.inf), "`rate` is inf"),
        (lambda: waterfill(np.array([1.0, -2.0]), rate=1.0), "`variances` holds -2.0 at index 1"),
        (lambda: waterfill(np.array([1.0, math.nan]), rate=1.0), "`variances` holds nan at index"),
        (lambda: waterfill(np.ones(0), rate=1.0), r"`variances` has shape \(0,\)"),
        (lambda: waterfill(np.full(4, 1e308), distortion=1.0), "the variances sum to inf"),
        (lambda: waterfill_product(-1.0, np.ones(2), rate=1.0), "`row_variances` is -1.0"),
        (lambda: waterfill_product(np.array([-1.0]), np.ones(2), rate=1.0), "`row_variances` holds -1.0 at index 0"),
    ],
)
def test_refusals_name_the_value(call, named: str):
    with pytest.raises(InvalidInputError, match=named):
        call()
