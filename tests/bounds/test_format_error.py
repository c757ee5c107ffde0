"""Errors of formats on Gaussians: simulation, adaptive quadrature, the floating-point law."""

import math

import numpy as np
import pytest
import scipy.integrate
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from lattq.bounds import format_distortion, format_loss, gaussian_rate, number_format
from lattq.bounds.format_error import (
    best_format_scale,
    floating_point_distortion,
    floating_point_loss,
    product_point_density,
)
from lattq.bounds.formats import E2M1FN, NumberFormat, int_format, nearest_value
from lattq.errors import InvalidInputError

FORMATS = ["e2m1fn", "e3m2fn", "e2m3fn", "e4m3fn", "e5m2", "int4", "int8-full", "nf4"]


def errors(number: NumberFormat, scale: float, deviation: float, count: int = 400_000) -> np.ndarray:
    x = deviation * np.random.default_rng(11).standard_normal(count)
    return (x - scale * nearest_value(x / scale, number)) ** 2


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("relative", [0.05, 0.3, 1.0, 4.0, 50.0])
def test_simulation(name: str, relative: float):
    """From a scale at which nearly all overflows to one at which integers underflow."""
    number = number_format(name)
    scale = relative * 1.7 / number.largest
    sample = errors(number, scale, deviation=1.7)
    expected = format_distortion(number, scale=scale, variance=1.7**2)
    assert sample.mean() == pytest.approx(expected, abs=4 * sample.std() / math.sqrt(sample.size), rel=0)


def test_simulation_tells_a_missing_subnormal_apart():
    # Negative control: without ±1/2 the four standard errors do not reach.
    poorer = NumberFormat("without", np.array([v for v in E2M1FN.values if abs(v) != 0.5]), 4)
    sample = errors(E2M1FN, 0.5, 1.0)
    assert abs(format_distortion(poorer, scale=0.5) - sample.mean()) > 8 * sample.std() / math.sqrt(sample.size)


@pytest.mark.parametrize(("name", "scale"), [("e2m1fn", 0.5), ("int4", 0.3), ("nf4", 3.0), ("e3m2fn", 0.02)])
def test_against_adaptive_quadrature(name: str, scale: float):
    number = number_format(name)
    edges = [-np.inf, *(scale * number.thresholds), np.inf]
    expected = sum(
        scipy.integrate.quad(lambda x, v=v: (x - v) ** 2 * scipy.stats.norm.pdf(x), low, high, epsabs=1e-14)[0]
        for low, high, v in zip(edges[:-1], edges[1:], scale * number.values, strict=True)
    )
    assert format_distortion(number, scale=scale) == pytest.approx(expected, rel=1e-9)


@given(st.sampled_from(FORMATS), st.floats(0.01, 100.0), st.floats(0.01, 10.0))
def test_only_the_ratio_of_scale_and_deviation_matters(name: str, scale: float, deviation: float):
    number = number_format(name)
    one = format_distortion(number, scale=scale)
    assert format_distortion(number, scale=scale * deviation, variance=deviation**2) == pytest.approx(
        deviation**2 * one, rel=1e-9
    )


@given(st.sampled_from(FORMATS), st.floats(1e-3, 1e3))
def test_no_format_beats_the_bound(name: str, scale: float):
    number = number_format(name)
    assert number.bits >= gaussian_rate(1.0, format_distortion(number, scale=scale))
    assert format_loss(number, scale=scale) >= 0


def test_a_source_without_variance():
    assert format_distortion(int_format(4), variance=0.0) == 0.0
    assert format_distortion(NumberFormat("signs", np.array([-1.0, 1.0]), 1), scale=2.0, variance=0.0) == 4.0


@pytest.mark.parametrize("name", FORMATS)
def test_no_other_scale_is_better(name: str):
    number = number_format(name)
    best = best_format_scale(number)
    least = format_distortion(number, scale=best)
    # Between the points of the search's grid, and beyond it.
    others = best * np.exp2(np.random.default_rng(0).uniform(-5, 5, 300))
    assert min(format_distortion(number, scale=float(other)) for other in others) >= least * (1 - 1e-9)
    assert best_format_scale(number, variance=9.0) == pytest.approx(3 * best, rel=1e-9)


def test_a_wide_format_takes_the_scale_of_its_inner_values():
    """The grid used to end where the outer values were still in reach."""
    number = NumberFormat("own", np.array([-1000.0, -2.0, -1.0, 0.0, 1.0, 2.0, 1000.0]), 3)
    inner = NumberFormat("inner", number.values[1:-1], 3)
    assert best_format_scale(number) == pytest.approx(best_format_scale(inner), rel=1e-6)


def test_best_integers_are_the_known_uniform_quantizers():
    """Max 1960: the step of 15 levels lies between those of 14 and 16, 0.3576 and 0.3352; 3 levels: 1.224."""
    assert 0.3352 < best_format_scale(int_format(4)) < 0.3576
    assert best_format_scale(int_format(2)) == pytest.approx(1.224, abs=5e-4)


def test_known_relative_errors():
    for mantissa, known in ((1, 0.0107234), (2, 0.0027805), (3, 0.00070205)):
        assert floating_point_distortion(mantissa) == pytest.approx(known, abs=5e-8 if mantissa < 3 else 5e-9)


@pytest.mark.parametrize("mantissa", range(8))
def test_relative_errors_in_closed_form(mantissa: int):
    """∫ (s - v)² / s³ ds = ln s + 2 v / s - v² / 2 s², cell by cell."""
    values = 1 + np.arange(2**mantissa + 1) / 2**mantissa
    edges = np.concatenate([[1.0], (values[:-1] + values[1:]) / 2, [2.0]])
    primitive = [np.log(edges[i:][: len(values)]) + 2 * values / edges[i:][: len(values)] for i in (0, 1)]
    squares = [values**2 / (2 * edges[i:][: len(values)] ** 2) for i in (0, 1)]
    expected = np.sum(primitive[1] - squares[1] - primitive[0] + squares[0]) / math.log(2)
    assert floating_point_distortion(mantissa) == pytest.approx(expected, abs=1e-14)


def test_the_law_of_many_mantissa_bits():
    for mantissa in range(6, 24):
        law = 0.75 / (24 * math.log(2)) * 4.0**-mantissa
        assert floating_point_distortion(mantissa) == pytest.approx(law, rel=4.0**-mantissa)
    assert [floating_point_loss(e, 10) for e in (2, 3, 4, 5)] == pytest.approx([0.764, 1.764, 2.764, 3.764], abs=5e-4)


@pytest.mark.parametrize(("name", "exponent", "mantissa"), [("e4m3fn", 4, 3), ("e5m2", 5, 2)])
def test_wide_formats_follow_the_law(name: str, exponent: int, mantissa: int):
    """Averaged over the scales of one octave, up to what lies below the smallest normal number."""
    number = number_format(name)
    octave = np.exp2((np.arange(16) + 0.5) / 16)
    mean = np.mean([format_distortion(number, scale=float(s)) for s in octave])
    assert mean == pytest.approx(floating_point_distortion(mantissa), rel=1e-3)
    losses = [format_loss(number, scale=float(s)) for s in octave]
    assert min(losses) < floating_point_loss(exponent, mantissa) + 1e-3 < max(losses) + 2e-3


def test_the_scale_is_charged():
    assert format_loss(E2M1FN, scale=0.5, scale_bits=0.25) - format_loss(E2M1FN, scale=0.5) == pytest.approx(0.25)


@pytest.mark.parametrize("rho", [0.0, 0.4, -0.9, 1.0])
def test_the_point_density_is_best(rho: float):
    """It integrates to 1, and the high-resolution error ∫ f w / λ² of any other density is larger."""
    x = np.linspace(-20, 20, 40001)
    density = product_point_density(x, rho)
    assert np.trapezoid(density, x) == pytest.approx(1.0, rel=1e-5)  # the trapezoids at |x|^(2/3) for ρ = 1
    weighted = scipy.stats.norm.pdf(x) * ((1 - rho**2) + rho**2 * x**2)
    inner = (np.abs(x) < 8) & (np.abs(x) > 1e-3)

    def error(levels: np.ndarray) -> float:
        return float(np.trapezoid(weighted[inner] / levels[inner] ** 2, x[inner]))

    for change in (0.1, -0.1):
        other = density * (1 + change * np.cos(x))
        assert error(other / np.trapezoid(other, x)) > error(density)
    peak = abs(x[np.argmax(density)])
    assert peak == pytest.approx(math.sqrt(max(0.0, 3 - 1 / rho**2)) if rho else 0.0, abs=2e-3)


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: format_distortion(E2M1FN, scale=0.0), "`scale` is 0.0"),
        (lambda: format_distortion(E2M1FN, variance=-1.0), "`variance` is -1.0"),
        (lambda: format_loss(E2M1FN, variance=0.0), "`variance` is 0.0"),
        (lambda: format_loss(E2M1FN, scale_bits=-1.0), "`scale_bits` is -1.0"),
        (lambda: best_format_scale(E2M1FN, variance=0.0), "`variance` is 0.0"),
        (lambda: best_format_scale(int_format(1)), "no value but 0"),
        (lambda: floating_point_distortion(-1), "`mantissa_bits` is -1"),
        (lambda: floating_point_loss(0, 1), "`exponent_bits` is 0"),
        (lambda: product_point_density(0.0, 1.5), "`correlation` is 1.5"),
    ],
)
def test_refusals_name_the_value(call, named: str):
    with pytest.raises(InvalidInputError, match=named):
        call()
