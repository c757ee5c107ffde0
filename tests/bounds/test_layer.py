"""A layer's R(D): against waterfilling of the materialised components, and the laws it must obey."""

import jaxtyping
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lattq.bounds import layer_distortion, layer_rate, rate_distortion, waterfill
from lattq.bounds.high_rate import high_rate_distortion
from lattq.bounds.layer import layer_spectrum
from lattq.errors import InvalidInputError, NotPositiveSemidefiniteError

EPS = float(np.finfo(np.float64).eps)
CONDITION = 1e4  # of the matrices below; an eigenvalue carries an error of n · eps · CONDITION relative at most


@st.composite
def moments(draw: st.DrawFn, n: int | None = None) -> np.ndarray:
    """Positive definite matrices of limited condition number."""
    size = n or draw(st.integers(1, 8))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    basis = np.linalg.qr(rng.standard_normal((size, size)))[0]
    sigma = (basis * CONDITION ** rng.uniform(-0.5, 0.5, size)) @ basis.T
    return (sigma + sigma.T) / 2.0


def positive_vector(rng: np.random.Generator, size: int) -> np.ndarray:
    return np.exp(rng.standard_normal(size))


def materialised_rate(sigma: np.ndarray, covariance: np.ndarray, rows: np.ndarray, distortion: float) -> float:
    """R(D) from the eigenvalues of the whole covariance of the weighted layer, rows · n square."""
    values, vectors = np.linalg.eigh(covariance)
    root = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    whole = np.kron(np.diag(rows), root @ sigma @ root)
    return rate_distortion(np.maximum(np.linalg.eigvalsh(whole), 0.0), distortion)


@given(moments(), st.integers(1, 6), st.floats(-4.0, 0.5))
def test_against_the_whole_covariance(sigma: np.ndarray, count: int, exponent: float):
    rng = np.random.default_rng(count)
    rows, columns = positive_vector(rng, count), positive_vector(rng, len(sigma))
    distortion = 10.0**exponent
    expected = materialised_rate(sigma, np.diag(columns), rows, distortion)
    actual = layer_rate(sigma, distortion, row_variance=rows, column_variance=columns)
    assert actual == pytest.approx(expected, abs=1e3 * CONDITION * EPS)


@given(moments(n=5), moments(n=5), st.floats(-4.0, 0.5))
def test_correlated_rows_against_the_whole_covariance(sigma: np.ndarray, covariance: np.ndarray, exponent: float):
    rows = np.array([0.5, 2.0, 0.0])
    expected = materialised_rate(sigma, covariance, rows, 10.0**exponent)
    actual = layer_rate(sigma, 10.0**exponent, row_variance=rows, covariance=covariance)
    assert actual == pytest.approx(expected, abs=1e3 * CONDITION**2 * EPS)


def test_the_row_scales_must_not_be_pooled():
    # Negative control of the comparison above: equal rows of the same mean variance need more bits.
    rows, sigma = np.array([0.1, 1.9]), np.eye(2)
    assert layer_rate(sigma, 0.01, row_variance=rows) < layer_rate(sigma, 0.01) - 0.1


@given(moments(), st.floats(0.0, 8.0))
def test_distortion_inverts_rate(sigma: np.ndarray, rate: float):
    rows = np.array([0.3, 1.0, 4.0])
    distortion = layer_distortion(sigma, rate, row_variance=rows)
    assert layer_rate(sigma, distortion, row_variance=rows) == pytest.approx(rate, abs=1e-10)


@given(moments(), st.floats(-4.0, 0.5), st.integers(0, 2**32 - 1))
def test_rotations_change_nothing(sigma: np.ndarray, exponent: float, seed: int):
    basis = np.linalg.qr(np.random.default_rng(seed).standard_normal(sigma.shape))[0]
    rotated = basis @ sigma @ basis.T
    expected = layer_rate(sigma, 10.0**exponent)
    assert layer_rate((rotated + rotated.T) / 2.0, 10.0**exponent) == pytest.approx(expected, abs=1e3 * CONDITION * EPS)


@given(moments(n=4), moments(n=4), st.integers(0, 2**32 - 1))
def test_a_change_of_coordinates_changes_nothing(sigma: np.ndarray, covariance: np.ndarray, seed: int):
    # Weights W T⁻¹ meet inputs T x for any invertible T; here T is diagonal.
    scale = positive_vector(np.random.default_rng(seed), 4)
    expected = layer_rate(sigma, 0.1, covariance=covariance)
    mapped = layer_rate(sigma * np.outer(scale, scale), 0.1, covariance=covariance / np.outer(scale, scale))
    assert mapped == pytest.approx(expected, abs=1e3 * CONDITION**2 * EPS)


@given(moments(), st.floats(-4.0, 0.5), st.integers(-20, 20))
def test_scaling(sigma: np.ndarray, exponent: float, power: int):
    distortion, scale = 10.0**exponent, 2.0**power
    expected = layer_rate(sigma, distortion)
    for rate in (
        layer_rate(sigma * scale, distortion * scale),
        layer_rate(sigma, distortion * scale, row_variance=scale),
        layer_rate(sigma, distortion * scale, column_variance=scale),
        layer_rate(sigma, distortion * scale, covariance=scale * np.eye(len(sigma))),
        layer_rate(sigma, distortion, row_variance=np.full(3, scale), column_variance=1.0 / scale),
    ):
        assert rate == pytest.approx(expected, abs=1e3 * CONDITION * EPS)


def test_a_diagonal_layer_is_waterfilling():
    variances = np.array([4.0, 1.0, 0.25, 0.0])
    assert layer_rate(np.diag(variances), 0.5) == pytest.approx(rate_distortion(variances, 0.5), rel=1e-14)


@pytest.mark.parametrize("dead", ["sigma", "column_variance", "covariance", "row_variance"])
def test_singular_parts_are_legal(dead: str):
    half = np.array([1.0, 1.0, 0.0, 0.0])
    matrix = np.diag(half)
    rng = np.random.default_rng(1)
    basis = np.linalg.qr(rng.standard_normal((4, 4)))[0]
    singular = basis @ matrix @ basis.T
    rate = {
        "sigma": lambda: layer_rate((singular + singular.T) / 2.0, 1e-20),
        "column_variance": lambda: layer_rate(np.eye(4), 1e-20, column_variance=half),
        "covariance": lambda: layer_rate(np.eye(4), 1e-20, covariance=(singular + singular.T) / 2.0),
        "row_variance": lambda: layer_rate(np.eye(4), 1e-20, row_variance=half),
    }[dead]()
    # Half of the components are there, each at twice the distortion per weight.
    assert rate == pytest.approx(0.25 * np.log2(0.5e20), rel=1e-12)


def test_no_layer_at_all():
    assert layer_rate(np.zeros((3, 3)), 1e-9) == 0.0
    assert layer_distortion(np.zeros((3, 3)), 2.0) == 0.0
    assert layer_rate(np.eye(3), 1e-9, row_variance=0.0) == 0.0


@given(moments())
def test_spectrum_needs_one_decomposition_for_a_curve(sigma: np.ndarray):
    spectrum = layer_spectrum(sigma, column_variance=2.0)
    assert (np.diff(spectrum) >= 0.0).all()
    for distortion in (0.01, 0.1, 1.0):
        expected = layer_rate(sigma, distortion, column_variance=2.0)
        assert waterfill(spectrum, distortion=distortion).rate == pytest.approx(expected, abs=1e-13)


def test_high_rate_form_is_reached_from_above():
    rng = np.random.default_rng(3)
    inputs = rng.standard_normal((64, 16)) * np.exp(rng.standard_normal(16))
    sigma = inputs.T @ inputs / 64
    for rate in (0.5, 2.0, 4.0, 8.0):
        exact, formula = layer_distortion(sigma, rate), high_rate_distortion(sigma, rate)
        if exact < np.linalg.eigvalsh(sigma)[0]:
            assert exact == pytest.approx(formula, rel=1e-11)
        else:
            assert exact > formula * (1.0 + 1e-6)


def test_many_rows_and_columns_are_quick_and_agree():
    rng = np.random.default_rng(5)
    spectrum, rows = np.exp(3.0 * rng.standard_normal(300)), positive_vector(rng, 2000)
    sigma = np.diag(spectrum)
    whole = waterfill(np.outer(rows, spectrum).ravel(), distortion=0.3)
    assert layer_rate(sigma, 0.3, row_variance=rows) == pytest.approx(whole.rate, abs=1e-11)


def test_single_precision_and_other_libraries():
    sigma = np.array([[2.0, 1.0], [1.0, 2.0]])
    expected = layer_rate(sigma, 0.5)
    assert layer_rate(torch.tensor(sigma, dtype=torch.float32), 0.5) == pytest.approx(expected, rel=1e-6)
    noisy = np.ones((64, 64), dtype=np.float32) + np.float32(1e-7) * np.eye(64, dtype=np.float32)[::-1]
    assert layer_rate(noisy, 1e-3) > 0.0  # eigenvalues below zero by single-precision rounding only


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: layer_rate(np.eye(2), 0.0), "`distortion` is 0.0"),
        (lambda: layer_rate(np.eye(2), np.nan), "`distortion` is nan"),
        (lambda: layer_distortion(np.eye(2), -1.0), "`rate` is -1.0"),
        (lambda: layer_rate(np.diag([1.0, np.nan]), 0.1), r"`sigma` holds nan at index \(1, 1\)"),
        (lambda: layer_rate(np.array([[1.0, 0.5], [0.4, 1.0]]), 0.1), r"`sigma` holds 0.5 at \(0, 1\) but 0.4"),
        (lambda: layer_rate(np.eye(2), 0.1, row_variance=-1.0), "`row_variance` is -1.0"),
        (
            lambda: layer_rate(np.eye(2), 0.1, row_variance=np.array([1.0, -3.0])),
            "`row_variance` holds -3.0 at index 1",
        ),
        (lambda: layer_rate(np.eye(2), 0.1, column_variance=np.ones(3)), "`column_variance` has 3 entries"),
        (lambda: layer_rate(np.eye(2), 0.1, column_variance=2.0, covariance=np.eye(2)), "got `column_variance` and"),
        (lambda: layer_rate(np.eye(2), 0.1, covariance=np.eye(3)), r"`covariance` has shape \(3, 3\)"),
    ],
)
def test_refusals_name_the_value(call, named: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # users have no shape checker in front
    with pytest.raises(InvalidInputError, match=named):
        call()


@pytest.mark.parametrize("name", ["sigma", "covariance"])
def test_a_negative_eigenvalue_is_refused(name: str):
    bad = np.diag([2.0, -0.5, 1.0])
    arguments = {"sigma": np.eye(3), "covariance": np.eye(3)} | {name: bad}
    with pytest.raises(NotPositiveSemidefiniteError, match=f"`{name}` has the eigenvalue -0.5") as caught:
        layer_rate(arguments["sigma"], 0.1, covariance=arguments["covariance"])
    assert (caught.value.index, caught.value.pivot) == (1, pytest.approx(-0.5))
