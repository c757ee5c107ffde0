"""Entropy-coded rounding of a Gaussian: 50 digits, the published low-rate table, simulation."""

import math
from typing import Any, cast

import jaxtyping
import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lattq.bounds import CUBIC_GAP, entropy_coded_scalar, gaussian_rate
from lattq.bounds.scalar import Reconstruction
from lattq.errors import InvalidInputError

RECONSTRUCTIONS: list[Reconstruction] = ["shrunk", "centroid", "midpoint"]


def oracle(step: float) -> dict[str, Any]:
    """Sums over the cells of N(0, 1) with 50 digits, as in the textbook."""
    with mpmath.workdps(50):
        side = mpmath.mpf(step)
        root = mpmath.sqrt(2)

        def tail(x: Any) -> Any:
            return mpmath.erfc(x / root) / 2

        def density(x: Any) -> Any:
            return mpmath.exp(-x * x / 2) / mpmath.sqrt(2 * mpmath.pi)

        central = 1 - 2 * tail(side / 2)
        entropy = -central * mpmath.log(central, 2)
        cross = power = centroid = mpmath.mpf(0)
        following = (tail(side / 2), density(side / 2))
        for k in range(1, math.ceil(18 / step) + 2):
            edge = (k + mpmath.mpf(0.5)) * side
            current, following = following, (tail(edge), density(edge))
            probability, moment = (a - b for a, b in zip(current, following, strict=True))
            entropy -= 2 * probability * mpmath.log(probability, 2)
            cross += 2 * k * side * moment
            power += 2 * (k * side) ** 2 * probability
            centroid += 2 * moment**2 / probability
        return {
            "rate": entropy,
            "gain": cross / power,
            "shrunk": 1 - cross**2 / power,
            "centroid": 1 - centroid,
            "midpoint": 1 - 2 * cross + power,
        }


# Either side of each change of formula (0.01 and 1), the ends of the range, and the steps of 1 and 2 bits.
@pytest.mark.parametrize("step", [0.00999, 0.01, 0.05, 0.3, 0.9999, 1.0, 1.082, 1.5, 2.422, 4.232, 7.0, 12.0])
def test_every_number_against_fifty_digits(step: float):
    expected = oracle(step)
    for reconstruction in RECONSTRUCTIONS:
        point = entropy_coded_scalar(step=step, reconstruction=reconstruction)
        assert point.rate == pytest.approx(float(expected["rate"]), rel=1e-14)
        assert point.gain == pytest.approx(float(expected["gain"]), rel=1e-14)
        assert point.distortion == pytest.approx(float(expected[reconstruction]), rel=1e-14)


def test_the_finest_step_against_fifty_digits():
    expected = oracle(0.001)
    point = entropy_coded_scalar(step=0.001)
    assert point.rate == pytest.approx(float(expected["rate"]), rel=1e-14)
    assert point.distortion == pytest.approx(float(expected["shrunk"]), rel=1e-14)


# rate, gap shrunk, gap midpoint, gain, step: each to the digits given.
TABLE = [
    (0.25, 0.0795, 0.1702, 0.585, 4.232),
    (0.5, 0.1521, 0.3058, 0.618, 3.456),
    (1.0, 0.2394, 0.4526, 0.700, 2.422),
    (1.5, 0.2544, 0.3942, 0.823, 1.610),
    (2.0, 0.2546, 0.3218, 0.911, 1.082),
    (2.5, 0.2546, 0.2874, 0.956, 0.747),
    (3.0, 0.2546, 0.2708, 0.978, 0.522),
    (4.0, 0.2546, 0.2586, 0.994, 0.259),
]


@pytest.mark.parametrize(("rate", "shrunk", "midpoint", "gain", "step"), TABLE)
def test_low_rate_table(rate: float, shrunk: float, midpoint: float, gain: float, step: float):
    point = entropy_coded_scalar(rate)
    assert point.gap == pytest.approx(shrunk, abs=5.1e-5)
    assert point.gain == pytest.approx(gain, abs=5.1e-4)
    assert point.step == pytest.approx(step, abs=5.1e-4)
    assert entropy_coded_scalar(rate, reconstruction="midpoint").gap == pytest.approx(midpoint, abs=5.1e-5)


@given(st.floats(1e-6, 450.0), st.sampled_from(RECONSTRUCTIONS), st.floats(1e-6, 1e6))
def test_the_wanted_rate_is_met(rate: float, reconstruction: Reconstruction, variance: float):
    point = entropy_coded_scalar(rate, variance=variance, reconstruction=reconstruction)
    assert point.rate == pytest.approx(rate, rel=1e-12)
    again = entropy_coded_scalar(step=point.step, variance=variance, reconstruction=reconstruction)
    assert again.distortion == pytest.approx(point.distortion, rel=1e-11)
    assert point.gap == pytest.approx(point.rate - gaussian_rate(variance, point.distortion), abs=1e-12)


@given(st.floats(1e-4, 60.0))
def test_no_reconstruction_beats_the_bound_and_better_ones_are_better(step: float):
    shrunk, centroid, midpoint = (entropy_coded_scalar(step=step, reconstruction=r) for r in RECONSTRUCTIONS)
    assert 0.0 <= centroid.gap <= shrunk.gap + 1e-14
    assert shrunk.gap <= midpoint.gap + 1e-14
    assert centroid.distortion <= shrunk.distortion * (1 + 1e-14) <= midpoint.distortion * (1 + 2e-14)


@given(st.floats(1e-4, 40.0), st.floats(1.001, 1.5))
def test_coarser_steps_cost_fewer_bits_and_more_error(step: float, factor: float):
    fine, coarse = entropy_coded_scalar(step=step), entropy_coded_scalar(step=step * factor)
    assert coarse.rate < fine.rate
    assert coarse.distortion >= fine.distortion


@given(st.floats(0.01, 10.0), st.integers(-20, 20))
def test_scale(step: float, exponent: int):
    unit = entropy_coded_scalar(step=step)
    scaled = entropy_coded_scalar(step=step * 2.0**exponent, variance=4.0**exponent)
    assert (scaled.rate, scaled.gain) == (unit.rate, unit.gain)
    assert scaled.distortion == unit.distortion * 4.0**exponent


def test_the_high_rate_limit_is_the_cube():
    for rate in (4.0, 8.0, 16.0, 100.0):
        point = entropy_coded_scalar(rate)
        # The next term of the gap is of order step^8.
        assert point.gap == pytest.approx(CUBIC_GAP, abs=max(1e-13, point.step**8))
    assert entropy_coded_scalar(step=1e-3).distortion == pytest.approx(1e-6 / 12.0, rel=1e-6)


def test_another_gain_is_worse():
    # Negative control of "gain": the error is a parabola in it, with its least value at the gain.
    step, expected = 2.0, oracle(2.0)
    point = entropy_coded_scalar(step=step)
    power = float(expected["midpoint"] - 1) / (1.0 - 2.0 * point.gain)  # midpoint = 1 - 2 gain power + power
    for gain in (point.gain - 0.01, point.gain + 0.01):
        error = 1.0 - 2.0 * gain * point.gain * power + gain**2 * power
        assert error > point.distortion + 0.9e-4 * power


@pytest.mark.parametrize("step", [0.3, 1.5, 3.0])
def test_simulation(step: float):
    count = 400_000
    x = np.random.default_rng(13).standard_normal(count)
    codes = np.rint(x / step).astype(int)
    values, inverse, counts = np.unique(codes, return_inverse=True, return_counts=True)
    information = -np.log2(counts / count)[inverse]
    rate = information.mean() + (len(values) - 1) / (2 * count * math.log(2.0))  # Miller–Madow
    point = entropy_coded_scalar(step=step)
    centroids = (np.bincount(inverse, weights=x) / counts)[inverse]
    outputs = {"shrunk": point.gain * step * codes, "centroid": centroids, "midpoint": step * codes}
    assert rate == pytest.approx(point.rate, abs=4.0 * information.std() / math.sqrt(count))
    for reconstruction in RECONSTRUCTIONS:
        errors = (x - outputs[reconstruction]) ** 2
        expected = entropy_coded_scalar(step=step, reconstruction=reconstruction).distortion
        fitted = len(values) / count if reconstruction == "centroid" else 0.0  # centroids fitted to the same draws
        tolerance = 4.0 * errors.std() / math.sqrt(count) + fitted * expected
        assert errors.mean() == pytest.approx(expected, abs=tolerance)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({}, "got neither; pass exactly one of `rate` or `step`"),
        ({"rate": 1.0, "step": 1.0}, "got `rate` and `step`"),
        ({"rate": 0.0}, "`rate` is 0.0"),
        ({"rate": 501.0}, "`rate` is 501"),
        ({"rate": math.nan}, "`rate` is nan"),
        ({"step": -1.0}, "`step` is -1.0"),
        ({"step": 71.0}, "`step` is 71 standard deviations"),
        ({"step": 1.0, "variance": 0.0}, "`variance` is 0.0"),
    ],
)
def test_refusals_name_the_value(arguments: dict[str, float], named: str):
    with pytest.raises(InvalidInputError, match=named):
        entropy_coded_scalar(**arguments)  # pyright: ignore[reportArgumentType]


def test_an_unknown_reconstruction_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # users have no type checker in front
    with pytest.raises(InvalidInputError, match="`reconstruction` is 'mean'"):
        entropy_coded_scalar(1.0, reconstruction=cast(Reconstruction, "mean"))
