"""Γ(R) of matrix products: the tangent, its inverse, convexity, simulated products, refusals."""

import math
from typing import Any, cast

import jaxtyping
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lattq.bounds import (
    gaussian_distortion,
    one_sided_product_distortion,
    product_distortion,
    product_rate,
    unbiased_product_distortion,
)
from lattq.bounds.product import (
    PRODUCT_CRITICAL_RATE,
    high_rate_product_distortion,
    product_bits,
    two_rate_product_distortion,
    universal_product_error,
)
from lattq.errors import InvalidInputError

EPS = np.finfo(np.float64).eps
rates = st.floats(1e-3, 20.0)


def curve(rate: float) -> float:
    """φ(4^-R), every coordinate kept."""
    return 1.0 - (1.0 - 4.0**-rate) ** 2


def test_published_values():
    assert pytest.approx(0.906324, abs=5e-7) == PRODUCT_CRITICAL_RATE
    assert product_distortion(PRODUCT_CRITICAL_RATE) == pytest.approx(0.4883, abs=5e-6)
    known = {0.25: 0.8589, 0.5: 0.7177, 0.75: 0.5766, 1.0: 0.4375, 1.5: 0.234375, 2.0: 0.121094, 4.0: 0.007797}
    found = product_distortion(np.array(list(known)))
    np.testing.assert_allclose(found, list(known.values()), atol=5e-5)
    np.testing.assert_allclose(unbiased_product_distortion(np.array([0.5, 1.0, 2.0])), [3.0, 0.7778, 0.1378], atol=5e-5)


def test_the_critical_rate_is_where_the_tangent_from_no_bits_touches():
    rate, step = PRODUCT_CRITICAL_RATE, 1e-5
    chord = (1.0 - curve(rate)) / rate
    slope = -(curve(rate + step) - curve(rate - step)) / (2.0 * step)
    assert slope == pytest.approx(chord, abs=1e-9)  # central difference: step² and 1e-16 / step
    assert chord == pytest.approx(0.564588, abs=5e-7)


@given(rates, rates, st.floats(0.0, 1.0))
def test_the_curve_is_convex_and_time_sharing_gains_nothing(a: float, b: float, share: float):
    mixed = product_distortion(share * a + (1.0 - share) * b)
    assert mixed <= share * product_distortion(a) + (1.0 - share) * product_distortion(b) + 4 * EPS


@given(rates)
def test_it_is_the_lower_hull_of_keeping_a_fraction(rate: float):
    """No fraction κ of the coordinates at rate R / κ does better, and some fraction reaches it."""
    fractions = [1.0, *np.minimum(rate / np.linspace(0.3, 3.0, 4001), 1.0)]
    reached = np.array([1.0 - k * (1.0 - curve(rate / k)) for k in fractions])
    gamma = product_distortion(rate)
    assert gamma <= reached.min() + 8 * EPS
    assert reached.min() <= gamma + 1e-6  # the grid: the second derivative is of order 1, half a step 3e-4


@given(rates)
def test_the_inverse(rate: float):
    # Γ near 1 says little about a small rate: the error of 1 - Γ is that of 1.
    assert product_rate(product_distortion(rate)) == pytest.approx(rate, rel=1e-9, abs=1e-12)


@given(rates)
def test_the_relatives_are_ordered(rate: float):
    gamma, one = product_distortion(rate), one_sided_product_distortion(rate)
    assert one == gaussian_distortion(1.0, rate)
    assert one <= gamma <= min(1.0, high_rate_product_distortion(rate), unbiased_product_distortion(rate)) + 4 * EPS


def test_they_agree_at_high_rate():
    for function in (product_distortion, unbiased_product_distortion):
        assert function(12.0) / high_rate_product_distortion(12.0) == pytest.approx(1.0, rel=2.0 * 4.0**-12)


@given(rates, rates)
def test_two_rates(a: float, b: float):
    both = two_rate_product_distortion(a, b)
    assert both == two_rate_product_distortion(b, a)
    assert both <= 1.0 - (1.0 - 4.0**-a) * (1.0 - 4.0**-b) + 4 * EPS
    low, high = sorted((a, b))
    assert product_distortion(high) - 4 * EPS <= both <= product_distortion(low) + 4 * EPS
    fractions = np.linspace(1e-3, 1.0, 2001)
    reached = 1.0 - fractions * (1.0 - 4.0 ** (-a / fractions)) * (1.0 - 4.0 ** (-b / fractions))
    assert both <= reached.min() + 8 * EPS


@given(rates)
def test_two_equal_rates_are_one_and_an_infinite_one_is_none(rate: float):
    assert two_rate_product_distortion(rate, rate) == pytest.approx(product_distortion(rate), rel=1e-12)
    assert two_rate_product_distortion(rate, 60.0) == pytest.approx(one_sided_product_distortion(rate), rel=1e-12)
    assert two_rate_product_distortion(rate, 0.0) == 1.0


@pytest.mark.parametrize("rate", [0.5, 1.0, 2.0])
def test_the_gaussian_test_channel_has_this_error(rate: float):
    """Factors replaced by the outputs of their test channels: Γ if scaled, the other formula if unbiased.

    The scatter of ‖Ĉ - AᵀB‖² over draws gives the standard error.
    """
    rng, n, width, kept = np.random.default_rng(3), 4096, 8, max(rate, PRODUCT_CRITICAL_RATE)
    power, found = 4.0**-kept, {True: [], False: []}
    for _ in range(40):
        x = rng.standard_normal((2, n, width))
        chosen = np.arange(n) < round(n * rate / kept)
        shrunk = (1 - power) * x + math.sqrt(power * (1 - power)) * rng.standard_normal(x.shape)
        for scaled in found:
            y = shrunk * chosen[:, None] if scaled else shrunk / (1.0 - power)
            found[scaled].append(np.sum((y[0].T @ y[1] - x[0].T @ x[1]) ** 2) / (n * width * width))
    expected = {True: product_distortion(rate), False: unbiased_product_distortion(kept)}
    for scaled, sample in found.items():
        assert np.mean(sample) == pytest.approx(
            expected[scaled], abs=4 * float(np.std(sample, ddof=1)) / math.sqrt(40) + 1e-4
        )


@given(rates, st.floats(0.1, 10.0), st.floats(0.1, 10.0), st.integers(1, 100))
def test_bits_of_a_measured_product(rate: float, a: float, b: float, size: int):
    error = product_distortion(rate) * (a * b) ** 2 / size
    assert product_bits(error, a, b, size) == pytest.approx(rate, rel=1e-9, abs=1e-12)


@given(rates, st.floats(0.1, 10.0), st.floats(0.1, 10.0), st.integers(1, 100))
def test_the_universal_bound(rate: float, a: float, b: float, size: int):
    """Γ for products as large as those of Gaussian factors; all of AᵀB without bits; never less for larger ones."""
    mean = a * b / math.sqrt(size)
    gamma = product_distortion(rate)
    assert universal_product_error(a, b, mean, size, rate) == pytest.approx(gamma * mean**2, rel=1e-12)
    assert universal_product_error(a, b, mean, size, 0.0) == pytest.approx(mean**2, rel=1e-12)
    assert universal_product_error(a, b, a * b, size, rate) >= universal_product_error(a, b, 0.0, size, rate)


def test_a_scaled_lattice_channel_meets_the_universal_bound():
    """Fixed factors, noise independent of them in a rotated basis: the two terms are the bias and the variance.

    At rates above the critical one; the relative terms left out are of order 1 / n.
    """
    rng, n, rate = np.random.default_rng(5), 512, 1.5
    a = np.cos(np.arange(n))[:, None] * 2.0
    b = a + 0.5 * rng.standard_normal((n, 1))
    a, b = a - a.mean(), b - b.mean()
    power, product, sample = 4.0**-rate, float((a.T @ b)[0, 0]), []
    for _ in range(20000):
        noisy = [
            (1 - power) * x[:, 0] + math.sqrt(power * (1 - power) * np.mean(x**2)) * rng.standard_normal(n)
            for x in (a, b)
        ]
        sample.append((float(noisy[0] @ noisy[1]) - product) ** 2)
    norms = float(np.linalg.norm(a)), float(np.linalg.norm(b))
    bound = universal_product_error(*norms, abs(product), n, rate)
    assert np.mean(sample) == pytest.approx(bound, abs=4 * float(np.std(sample)) / math.sqrt(len(sample)), rel=2 / n)


def test_the_ends_of_float64():
    """2 · 4^-537 is the smallest number of float64; where nothing is left to tell apart, nothing is lost either."""
    assert product_rate(5e-324) == pytest.approx(537.5, rel=1e-15)
    assert unbiased_product_distortion(1e-100) == pytest.approx((1 / (2 * math.log(2) * 1e-100)) ** 2, rel=1e-12)
    assert unbiased_product_distortion(600.0) == 0.0
    assert two_rate_product_distortion(5e-324, 1.0) == 1.0


def test_numbers_give_numbers_and_arrays_arrays():
    assert isinstance(product_distortion(1), float)
    assert product_distortion(np.ones((2, 3))).shape == (2, 3)
    assert isinstance(product_rate(0.5), float)


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: product_distortion(-1.0), "`rate` holds -1.0"),
        (lambda: product_distortion(np.array([1.0, np.nan])), "`rate` holds nan"),
        (lambda: product_rate(0.0), "`distortion` holds 0.0"),
        (lambda: one_sided_product_distortion(np.inf), "`rate` holds inf"),
        (lambda: unbiased_product_distortion(0.0), "`rate` holds 0"),
        (lambda: two_rate_product_distortion(1.0, -1.0), "`rate_b` is -1.0"),
        (lambda: product_bits(0.0, 1.0, 1.0, 1), "`error` is 0.0"),
        (lambda: product_bits(1.0, 1.0, 1.0, 0), "`size` is 0"),
        (lambda: universal_product_error(1.0, 1.0, 2.0, 4, 1.0), "`norm_product` is 2.0, above"),
        (lambda: universal_product_error(1.0, -1.0, 0.0, 4, 1.0), "`norm_b` is -1.0"),
        (lambda: universal_product_error(1e100, 1e100, 0.0, 4, 1.0), r"`norm_a` is 1e\+100"),
        (lambda: product_bits(1.0, 1e-200, 1e-200, 4), "`error` is 1.0 for norms of 1e-200"),
        (lambda: product_bits(1.0, 1e200, 1e200, 4), r"`error` is 1.0 for norms of 1e\+200"),
        (lambda: product_bits(cast("Any", None), 1.0, 1.0, 4), "`error` is None"),
        (lambda: product_bits(1.0, 1.0, 1.0, cast("Any", "4")), "`size` is '4'"),
        (lambda: unbiased_product_distortion(1e-310), "`rate` holds 1e-310"),
    ],
)
def test_refusals_name_the_value(call, named: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(InvalidInputError, match=named):
        call()
