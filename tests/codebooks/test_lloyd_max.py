"""Scalar quantizers for densities, against published tables, other methods and their own conditions."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats

from lattq.bounds import entropy_coded_scalar
from lattq.codebooks import GAUSSIAN, LAPLACIAN, UNIFORM, lloyd_max
from lattq.codebooks.kmeans_1d import curve
from lattq.codebooks.lloyd_max import Density, panter_dite
from lattq.errors import InvalidInputError

# Max 1960 has four digits; these are two independent recomputations.
ERRORS = {
    2: 0.36338023,
    3: 0.190174,
    4: 0.11748185,
    5: 0.0799411,
    8: 0.03454776,
    12: 0.0163397,
    16: 0.00950101,
    24: 0.00437249,
    32: 0.00250467,
    64: 6.442397e-4,
    128: 1.634782e-4,
    256: 4.118508e-5,
}
ENTROPIES = {4: 1.9111, 8: 2.8249, 16: 3.7653, 256: 7.6941}


@pytest.mark.parametrize("size", ERRORS)
def test_gaussian_table(size: int):
    found = lloyd_max(size)
    digits = len(f"{ERRORS[size]:.10e}".split("e")[0].rstrip("0")) - 2
    assert abs(found.distortion / ERRORS[size] - 1) < 10.0**-digits
    assert abs(found.entropy - ENTROPIES.get(size, found.entropy)) < 6e-5
    assert found.distortion > 4.0**-found.entropy  # Shannon


@pytest.mark.parametrize("size", [3, 4, 7, 16])
def test_cells_are_those_of_scipy(size: int):
    found = lloyd_max(size)
    edges = [-np.inf, *found.thresholds, np.inf]
    total = 0.0
    for low, high, level in zip(edges, edges[1:], found.levels, strict=False):
        mass = stats.norm.cdf(high) - stats.norm.cdf(low)
        mean = (stats.norm.pdf(low) - stats.norm.pdf(high)) / mass
        assert abs(mean - level) < 1e-12
        total += integrate.quad(lambda x, level=level: (x - level) ** 2 * stats.norm.pdf(x), low, high)[0]
    assert abs(total - found.distortion) < 1e-9
    assert np.array_equal(found.thresholds, (found.levels[1:] + found.levels[:-1]) / 2)


def test_laplacian_and_uniform_have_closed_forms():
    assert abs(lloyd_max(2, LAPLACIAN).distortion - 0.5) < 1e-12  # levels ±1/√2, the mean of an exponential
    t = -math.log(1 / 3)  # N = 3: an exponential's threshold t and level t + 1 (in units of its mean), t + 1 = 2 t
    assert abs(lloyd_max(3, LAPLACIAN).thresholds[1] * math.sqrt(2) - 1) < 1e-12 < t
    for size in (1, 2, 5, 64):
        found = lloyd_max(size, UNIFORM)
        assert abs(found.distortion * size**2 - 1) < 1e-12
        assert abs(found.entropy - math.log2(size)) < 1e-12


@pytest.mark.parametrize(
    ("density", "constant"), [(GAUSSIAN, math.sqrt(3) * math.pi / 2), (LAPLACIAN, 4.5), (UNIFORM, 1)]
)
def test_high_rate(density: Density, constant: float):
    assert abs(panter_dite(density) / constant - 1) < 1e-12
    losses = [abs(lloyd_max(size, density).distortion * size**2 / constant - 1) for size in (64, 128, 256)]
    assert losses[2] < 0.016
    assert losses[2] < 1e-11 or 1.8 < losses[0] / losses[1] < 2.1  # the rest falls like 1 / size


@given(st.floats(0.2, 5), st.floats(-3, 3), st.integers(1, 20))
def test_densities_scale_and_move(width: float, center: float, size: int):
    density = Density(lambda x: 7 * np.exp(-(((x - center) / width) ** 2) / 2), scale=width, center=center)
    found, plain = lloyd_max(size, density), lloyd_max(size)
    assert np.allclose(found.levels, center + width * plain.levels, rtol=0, atol=1e-9 * width)
    assert math.isclose(found.distortion, width**2 * plain.distortion, rel_tol=1e-9)


def test_it_is_what_exact_codebooks_of_a_fine_grid_tend_to():
    density = Density(lambda x: stats.beta.pdf(x, 2, 5), 0.0, 1.0)
    x = (np.arange(20_000) + 0.5) / 20_000
    found = curve(x, 8, stats.beta.pdf(x, 2, 5))
    for size in (1, 2, 5, 8):
        assert abs(lloyd_max(size, density).distortion / found[size - 1] - 1) < 1e-6
    assert abs(density.variance - 10 / 49 / 8) < 1e-10


def test_entropy_coding_beats_every_size():
    for size in (4, 16, 256):
        found = lloyd_max(size)
        assert entropy_coded_scalar(rate=found.entropy, reconstruction="centroid").distortion < 0.95 * found.distortion


def test_codes(rng: np.random.Generator):
    found, x = lloyd_max(16), rng.standard_normal(100_000)
    codes = found.encode(x)
    assert np.array_equal(codes[:1000], np.abs(x[:1000, None] - found.levels).argmin(axis=1))
    error = (x - found.decode(codes)) ** 2
    assert abs(error.mean() - found.distortion) < 4 * error.std() / math.sqrt(len(x))


@pytest.mark.parametrize(
    ("run", "words"),
    [
        (lambda: lloyd_max(0), "`size` is 0"),
        (lambda: Density(np.cos, 1.0, -1.0), "interval"),
        (lambda: Density(np.cos, 0.0, 4.0), "negative"),
        (lambda: Density(np.zeros_like, 0.0, 1.0), "mass"),
        (lambda: Density(np.ones_like, 0.0, 1.0, scale=0.0), "width"),
    ],
)
def test_bad_input_is_named(run, words: str):
    with pytest.raises(InvalidInputError, match=words):
        run()
