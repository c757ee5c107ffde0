"""Absmax integers on Gaussian groups: simulation, adaptive quadrature, asymptotes."""

import math
from typing import cast

import jaxtyping
import numpy as np
import pytest
import scipy.integrate
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from lattq.bounds import CUBIC_GAP, absmax_distortion, absmax_loss, gaussian_rate
from lattq.bounds.absmax import Grid, absmax_asymptotic_loss, expected_squared_maximum
from lattq.errors import InvalidInputError

GRIDS: list[Grid] = ["full", "narrow", "cells"]


def quantize(x: np.ndarray, levels: int, grid: Grid) -> np.ndarray:
    """Each quantizer as its users write it, groups along the last axis."""
    largest = np.abs(x).max(axis=-1, keepdims=True)
    if grid == "full":  # GPTQ: scale = (max - min) / maxq, zero = (maxq + 1) / 2, codes clamped to 0 ... maxq
        scale, zero = 2.0 * largest / (levels - 1), levels // 2
        return scale * (np.clip(np.rint(x / scale) + zero, 0, levels - 1) - zero)
    if grid == "narrow":
        top = (levels - 1) // 2
        return largest / top * np.clip(np.rint(x / (largest / top)), -top, top)
    scale = 2.0 * largest / levels
    cell = np.clip(np.floor((x + largest) / scale), 0, levels - 1)
    return scale * (cell + 0.5) - largest


def errors(levels: int, size: int, grid: Grid, groups: int, seed: int = 17) -> np.ndarray:
    x = np.random.default_rng(seed).standard_normal((groups, size))
    return np.square(x - quantize(x, levels, grid)).mean(axis=1)


CASES = [(levels, size) for levels in (4, 16, 256) for size in (2, 16, 128)] + [(3, 5), (7, 32), (16, 1)]


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize(("levels", "size"), CASES)
def test_simulation(levels: int, size: int, grid: Grid):
    sample = errors(levels, size, grid, groups=400_000 // size)
    standard_error = sample.std() / math.sqrt(len(sample))
    assert absmax_distortion(levels, size, grid=grid) == pytest.approx(
        sample.mean(), abs=4.0 * standard_error + 1e-15, rel=0.0
    )


def test_simulation_tells_the_grids_apart():
    # Negative control: at these sizes four standard errors are less than the difference between any two grids.
    sample = errors(16, 128, "full", groups=4000)
    standard_error = sample.std() / math.sqrt(len(sample))
    for grid in GRIDS[1:]:
        assert abs(absmax_distortion(16, 128, grid=grid) - sample.mean()) > 8.0 * standard_error


@pytest.mark.parametrize(
    ("levels", "size", "grid"), [(4, 3, "cells"), (5, 3, "cells"), (5, 8, "full"), (4, 20, "full"), (7, 2, "narrow")]
)
def test_against_adaptive_quadrature(levels: int, size: int, grid: Grid):
    """The same expectation, integrated over the largest entry and one other by a library."""
    span = {"full": (levels - 1) / 2, "narrow": (levels - 1) // 2, "cells": levels / 2}[grid]
    normal = scipy.stats.norm

    def error(x: float, largest: float) -> float:
        return float((x - quantize(np.array([x, -largest]), levels, grid)[0]) ** 2)

    def given_largest(m: float) -> float:
        breaks = [k * m / span / 2 for k in range(1, levels) if k * m / span / 2 < m]
        inside = scipy.integrate.quad(lambda x: error(x, m) * normal.pdf(x), 0.0, m, points=breaks, epsabs=1e-13)[0]
        mass = 2.0 * normal.cdf(m) - 1.0
        whole = (size - 1) * 2.0 * inside / mass + error(m, m)
        return whole / size * size * mass ** (size - 1) * 2.0 * normal.pdf(m)

    expected = scipy.integrate.quad(given_largest, 1e-6, 9.0, epsabs=1e-12, limit=200)[0]
    # The quadrature leaves out maxima below 1e-6 and asks for 1e-12; its nested tolerance is the limit here.
    assert absmax_distortion(levels, size, grid=grid) == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize("size", [1, 2, 10, 1000])
def test_squared_maximum_against_adaptive_quadrature(size: int):
    # E m² = ∫ 2 m P(max > m) dm.
    def integrand(m: float) -> float:
        return 2.0 * m * -math.expm1(size * math.log1p(-2.0 * scipy.stats.norm.sf(m))) if m > 0.0 else 0.0

    expected = scipy.integrate.quad(integrand, 0.0, 12.0, epsabs=1e-12, limit=200)[0]
    assert expected_squared_maximum(size) == pytest.approx(expected, rel=1e-9)


def test_squared_maximum_of_two_is_known():
    assert expected_squared_maximum(1) == pytest.approx(1.0, rel=1e-13)
    assert expected_squared_maximum(2) == pytest.approx(1.0 + 2.0 / math.pi, rel=1e-13)


@given(st.integers(3, 300), st.integers(1, 10_000), st.sampled_from(GRIDS))
def test_no_grid_beats_the_bound(levels: int, size: int, grid: Grid):
    # The scale is exact and uncharged here; two bytes a group are more than it is worth.
    distortion = absmax_distortion(levels, size, grid=grid)
    if distortion > 0.0:
        assert math.log2(levels) + 16.0 / size >= gaussian_rate(1.0, distortion)


@given(st.integers(3, 300), st.integers(2, 10_000), st.sampled_from(GRIDS), st.floats(0.1, 10.0))
def test_variance_scales_the_error(levels: int, size: int, grid: Grid, variance: float):
    unit = absmax_distortion(levels, size, grid=grid)
    assert absmax_distortion(levels, size, grid=grid, variance=variance) == pytest.approx(variance * unit, rel=1e-14)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("size", [128, 1024, 4096, 14336])
def test_many_levels_reach_the_high_resolution_form(grid: Grid, size: int):
    """½ log2(E max² / 3), dither-like error step²/12; the largest entry and the unused levels vanish as 1/levels."""
    expected = 0.5 * math.log2(expected_squared_maximum(size) / 3.0)
    assert absmax_loss(2**14, size, grid=grid) == pytest.approx(expected, abs=3e-4 + 2.0 / size)


@pytest.mark.parametrize(
    ("size", "asymptotic", "exact"), [(128, 0.85, 0.72), (1024, 1.10, 1.00), (4096, 1.24, 1.14), (14336, 1.34, 1.25)]
)
def test_known_losses(size: int, asymptotic: float, exact: float):
    assert absmax_asymptotic_loss(size) == pytest.approx(asymptotic, abs=6e-3)
    assert 0.5 * math.log2(expected_squared_maximum(size) / 3.0) == pytest.approx(exact, abs=6e-3)


def test_the_asymptote_is_approached():
    sizes = [10**3, 10**6, 10**12]
    gaps = [absmax_asymptotic_loss(n) - 0.5 * math.log2(expected_squared_maximum(n) / 3.0) for n in sizes]
    assert gaps[0] > gaps[1] > gaps[2] > 0.0
    assert gaps[2] < 0.05


def test_the_scale_is_charged():
    free, charged = absmax_loss(16, 128), absmax_loss(16, 128, scale_bits=16)
    assert charged - free == pytest.approx(0.125, rel=1e-12)
    # With it there is a best group size, and a large group loses far more than entropy-coded rounding.
    losses = [absmax_loss(16, size, scale_bits=16) for size in (8, 64, 128, 4096)]
    assert min(losses) == min(losses[1:3])
    assert min(losses) > 3.0 * CUBIC_GAP


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: absmax_distortion(1, 8), "`levels` is 1"),
        (lambda: absmax_distortion(2, 8, grid="narrow"), "`levels` is 2; pass a whole number of at least 3"),
        (lambda: absmax_distortion(16, 0), "`size` is 0"),
        (lambda: absmax_distortion(16, 8, variance=-1.0), "`variance` is -1.0"),
        (lambda: absmax_distortion(16, 8, grid=cast(Grid, "odd")), "`grid` is 'odd'"),
        (lambda: absmax_loss(16, 8, scale_bits=-1.0), "`scale_bits` is -1.0"),
        (lambda: absmax_loss(16, 0), "`size` is 0"),
        (lambda: absmax_asymptotic_loss(1), "`size` is 1"),
        (lambda: absmax_asymptotic_loss(math.nan), "`size` is nan"),
        (lambda: expected_squared_maximum(0), "`size` is 0"),
    ],
)
def test_refusals_name_the_value(call, named: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # users have no type checker in front
    with pytest.raises(InvalidInputError, match=named):
        call()
