"""High-rate forms: determinants, pivots, cells."""

import math

import jaxtyping
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lattq.bounds import CUBIC_GAP, cancellation_loss, layer_distortion, layer_rate, space_filling_gap
from lattq.bounds.high_rate import high_rate_distortion, high_rate_rate
from lattq.errors import InvalidInputError, NotPositiveSemidefiniteError

positives = st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=20).map(np.array)


def random_moment(seed: int, n: int = 12) -> np.ndarray:
    inputs = np.random.default_rng(seed).standard_normal((3 * n, n))
    return inputs.T @ inputs / len(inputs)


@given(st.integers(0, 2**32 - 1), st.floats(0.0, 10.0), st.floats(0.1, 10.0))
def test_distortion_against_the_determinant(seed: int, rate: float, variance: float):
    sigma = random_moment(seed)
    expected = variance * math.exp(np.linalg.slogdet(sigma)[1] / len(sigma)) * 4.0**-rate
    assert high_rate_distortion(sigma, rate, variance) == pytest.approx(expected, rel=1e-12)
    assert high_rate_rate(sigma, expected, variance) == pytest.approx(rate, abs=1e-12)


@given(st.integers(0, 2**32 - 1), st.floats(0.0, 10.0))
def test_never_above_waterfilling(seed: int, rate: float):
    sigma = random_moment(seed)
    assert high_rate_distortion(sigma, rate) <= layer_distortion(sigma, rate) * (1.0 + 1e-11)
    assert high_rate_rate(sigma, 4.0**-rate) <= layer_rate(sigma, 4.0**-rate) + 1e-11


def test_large_matrices_do_not_overflow():
    assert high_rate_distortion(1e3 * np.eye(400), 1.0) == pytest.approx(250.0, rel=1e-12)  # det = 10^1200


def test_a_singular_moment_has_distortion_zero_and_no_rate():
    sigma = np.ones((3, 3))
    assert high_rate_distortion(sigma, 1.0) == 0.0
    with pytest.raises(InvalidInputError, match="`sigma` is singular"):
        high_rate_rate(sigma, 0.1)


def test_an_even_number_of_negative_eigenvalues_is_found():
    with pytest.raises(NotPositiveSemidefiniteError, match="`sigma` has the eigenvalue -2"):
        high_rate_distortion(np.diag([-1.0, -2.0, 1.0]), 1.0)  # its determinant is positive


@pytest.mark.parametrize(
    ("second_moment", "gap"),
    [
        (1 / 12, 0.2546),
        (5 / (36 * math.sqrt(3.0)), 0.2269),  # A2, the hexagon
        (13 / (120 * math.sqrt(2.0)), 0.1939),  # D4
        (929 / 12960, 0.1460),  # E8
        (0.0657523, 0.0837),  # Leech
        (1 / (2 * math.pi * math.e), 0.0),
    ],
)
def test_known_cells(second_moment: float, gap: float):
    assert space_filling_gap(second_moment) == pytest.approx(gap, abs=6e-5)


def test_the_cube():
    assert round(CUBIC_GAP, 6) == 0.254614
    assert space_filling_gap(1 / 12) == pytest.approx(CUBIC_GAP, rel=1e-14)
    assert pytest.approx(1.42329, abs=1e-5) == 4.0**CUBIC_GAP


@given(positives)
def test_equalising_steps_leave_the_cube(pivots: np.ndarray):
    assert cancellation_loss(pivots, 0.3 / np.sqrt(pivots)) == pytest.approx(CUBIC_GAP, abs=1e-13)


@given(positives, st.floats(1e-3, 1e3))
def test_loss_is_the_ratio_of_means(pivots: np.ndarray, step: float):
    ratio = pivots.mean() / math.exp(np.log(pivots).mean())
    expected = CUBIC_GAP + 0.5 * math.log2(ratio)
    assert cancellation_loss(pivots) == pytest.approx(expected, abs=1e-13)
    assert cancellation_loss(pivots, np.full(len(pivots), step)) == pytest.approx(expected, abs=1e-13)
    assert cancellation_loss(pivots) >= CUBIC_GAP


def test_loss_of_enormous_pivots():
    assert cancellation_loss(np.array([1e300, 1e-300]), np.array([1e100, 1e-100])) == pytest.approx(
        CUBIC_GAP + 0.5 * (500 * math.log2(10.0) - 1.0), rel=1e-13
    )


def test_loss_is_what_cancellation_loses():
    """Successive cancellation of Gaussian rows with one fine step, and the entropy of each column's integers."""
    rng = np.random.default_rng(11)
    sigma = random_moment(4, n=5)
    lower = np.linalg.cholesky(sigma)  # sigma = lower lowerᵀ; unit = lower / diagonal
    pivots, step, rows = np.diagonal(lower) ** 2, 0.15, 40_000
    weight = rng.standard_normal((rows, 5))
    error, bits = np.zeros_like(weight), 0.0
    for i in range(4, -1, -1):
        target = weight[:, i] + error[:, i + 1 :] @ (lower[i + 1 :, i] / lower[i, i])
        codes = np.rint(target / step)
        error[:, i] = weight[:, i] - codes * step
        counts = np.unique(codes, return_counts=True)[1]
        bits += float(-(counts / rows) @ np.log2(counts / rows) + (len(counts) - 1) / (2 * rows * math.log(2.0)))
    distortion = float(((error @ lower) ** 2).mean())
    # Entropy of 40 000 draws: standard error √(½) / ln 2 / √rows per column; distortion: relative √(0.8 / draws).
    tolerance = 4.0 * (1.02 / math.sqrt(5 * rows) + 0.65 / math.sqrt(rows))
    assert bits / 5 - high_rate_rate(sigma, distortion) == pytest.approx(cancellation_loss(pivots), abs=tolerance)


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: high_rate_distortion(np.eye(2), -1.0), "`rate` is -1.0"),
        (lambda: high_rate_distortion(np.eye(2), 1.0, -1.0), "`weight_variance` is -1.0"),
        (lambda: high_rate_rate(np.eye(2), 0.0), "`distortion` is 0.0"),
        (lambda: high_rate_rate(np.eye(2), 1.0, 0.0), "`weight_variance` is 0.0"),
        (lambda: space_filling_gap(0.05), "`second_moment` is 0.05"),
        (lambda: space_filling_gap(math.nan), "`second_moment` is nan"),
        (lambda: cancellation_loss(np.array([1.0, 0.0])), "`pivots` holds 0 at index 1"),
        (lambda: cancellation_loss(np.array([1.0, -1.0])), "`pivots` holds -1.0 at index 1"),
        (lambda: cancellation_loss(np.ones(2), np.zeros(2)), "`steps` holds 0 at index 0"),
        (lambda: cancellation_loss(np.ones(2), np.ones(3)), "`steps` has 3 entries"),
    ],
)
def test_refusals_name_the_value(call, named: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # users have no shape checker in front
    with pytest.raises(InvalidInputError, match=named):
        call()
