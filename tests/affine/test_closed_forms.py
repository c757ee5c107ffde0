"""Closed forms of maps: what they attain, what no map exceeds, and layers that have less than full rank."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import block_diag
from scipy.optimize import minimize

from lattq.affine import balanced, gain, wush
from lattq.affine.closed_forms import whitening
from lattq.affine.gains import entropy_coded_loss
from lattq.errors import InvalidInputError, NotPositiveSemidefiniteError
from lattq.linalg.hadamard import randomized_hadamard
from tests.strategies import gaussian_layer, layers, moment, seeds, weights, well_conditioned_moments


def moments_after(weight: np.ndarray, sigma: np.ndarray, matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(W Aᵀ)ᵀ W Aᵀ and A⁻ᵀ Σ A⁻¹, by their definitions."""
    inverse = np.linalg.inv(matrix)
    return matrix @ weight.T @ weight @ matrix.T, inverse.T @ sigma @ inverse


def product(weight: np.ndarray, sigma: np.ndarray, matrix: np.ndarray) -> float:
    """‖Σ^(1/2) A⁻¹‖² ‖W Aᵀ‖²."""
    of_weights, of_inputs = moments_after(weight, sigma, matrix)
    return float(np.trace(of_weights) * np.trace(of_inputs))


def nuclear_norm(weight: np.ndarray, sigma: np.ndarray) -> float:
    """Oracle: the sum of roots of the eigenvalues of FᵀWᵀW F with F Fᵀ = Σ, by another way than the code's."""
    values, vectors = np.linalg.eigh(sigma)
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    return float(np.sqrt(np.maximum(np.linalg.eigvalsh(root.T @ weight.T @ weight @ root), 0.0)).sum())


@st.composite
def full_layers(draw: st.DrawFn, max_n: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Gaussian weights of more rows than columns, Σ well conditioned."""
    sigma = draw(well_conditioned_moments(1, max_n))
    rows = len(sigma) + draw(st.integers(1, 8))
    return np.random.default_rng(draw(seeds)).standard_normal((rows, len(sigma))), sigma


@given(layer=full_layers())
def test_balanced_moments_are_equal_and_diagonal(layer: tuple[np.ndarray, np.ndarray]):
    """Rounding grows with the condition of A, at most that of the layer, below 1e6 here."""
    of_weights, of_inputs = moments_after(*layer, balanced(*layer, damping=0.0))
    scale = np.diag(of_weights).max()
    np.testing.assert_allclose(of_weights, of_inputs, atol=1e-9 * scale)
    np.testing.assert_allclose(of_weights, np.diag(np.diag(of_weights)), atol=1e-9 * scale)


@given(layer=full_layers(), share=st.sampled_from([0.0, 0.25, 0.75, 1.0]))
def test_shares_move_the_spread_from_inputs_to_weights(layer: tuple[np.ndarray, np.ndarray], share: float):
    """Second moments are S^(2-2p) and S^2p: white inputs at p = 0, white weights at p = 1."""
    even = moments_after(*layer, balanced(*layer, damping=0.0))[0]
    of_weights, of_inputs = moments_after(*layer, balanced(*layer, damping=0.0, share=share))
    sizes = np.diag(even)
    for found, wanted in ((of_weights, sizes ** (2 - 2 * share)), (of_inputs, sizes ** (2 * share))):
        np.testing.assert_allclose(found, np.diag(wanted), atol=1e-8 * wanted.max())
    assert gain(*layer, balanced(*layer, damping=0.0, share=share)) <= gain(*layer) + 1e-9


@given(layer=full_layers())
def test_balanced_attains_the_nuclear_norm(layer: tuple[np.ndarray, np.ndarray]):
    weight, sigma = layer
    assert product(weight, sigma, balanced(*layer, damping=0.0)) == pytest.approx(nuclear_norm(*layer) ** 2, rel=1e-8)
    best = 10 * math.log10(np.trace(sigma) * np.sum(weight**2) / nuclear_norm(*layer) ** 2)
    assert gain(weight, sigma) == pytest.approx(best, abs=1e-7)
    assert gain(weight, sigma, balanced(*layer, damping=0.0)) == pytest.approx(best, abs=1e-6)


@given(layer=full_layers(), seed=seeds)
def test_no_map_gains_more(layer: tuple[np.ndarray, np.ndarray], seed: int):
    n = layer[0].shape[1]
    matrix = np.random.default_rng(seed).standard_normal((n, n)) + 2.0 * np.sqrt(n) * np.eye(n)
    assert gain(*layer, matrix) <= gain(*layer) + 1e-9
    assert gain(*layer, whitening(layer[1])) <= gain(*layer) + 1e-9
    assert gain(*layer) >= -1e-9


def test_a_descent_from_anywhere_comes_to_the_same_product():
    """Oracle: a general minimizer over all entries of A."""
    weight, sigma = gaussian_layer(6, 3)
    for seed in range(3):
        start = np.eye(3) + 0.3 * np.random.default_rng(seed).standard_normal((3, 3))
        found = minimize(lambda a: math.log(product(weight, sigma, a.reshape(3, 3))), start.ravel(), method="BFGS")
        assert found.fun == pytest.approx(2 * math.log(nuclear_norm(weight, sigma)), abs=1e-6)


def test_transposed_maps_do_not_balance():
    """Negative control: the convention matters."""
    weight, sigma = gaussian_layer(20, 8)
    of_weights, of_inputs = moments_after(weight, sigma, balanced(weight, sigma, damping=0.0).T)
    assert np.abs(of_weights - of_inputs).max() > 0.1 * np.abs(of_weights).max()
    assert gain(weight, sigma, balanced(weight, sigma).T) < gain(weight, sigma) - 0.1


@given(seed=seeds, size=st.sampled_from([1, 2, 4, 12]))
def test_wush_makes_the_columns_of_a_block_alike(seed: int, size: int):
    weight = np.random.default_rng(seed).standard_normal((size + 3, size))
    sigma = moment(np.geomspace(1.0, 30.0, size), seed)
    for found in moments_after(weight, sigma, wush(weight, sigma, block=None, damping=0.0, seed=seed)):
        np.testing.assert_allclose(np.diag(found), np.diag(found).mean(), rtol=1e-9)
    assert gain(weight, sigma, wush(weight, sigma, block=None, damping=0.0)) == pytest.approx(gain(weight, sigma))


def test_wush_is_balanced_then_rotated():
    weight, sigma = gaussian_layer(20, 8)
    found, plain = wush(weight, sigma, block=None, seed=3), balanced(weight, sigma)
    np.testing.assert_allclose(weight @ found.T, randomized_hadamard(weight @ plain.T, 3), atol=1e-12)
    np.testing.assert_allclose(np.linalg.inv(found).T, randomized_hadamard(np.linalg.inv(plain).copy(), 3).T, atol=1e-9)


@given(layer=full_layers(), data=st.data())
def test_blocks_are_the_closed_forms_of_their_columns(layer: tuple[np.ndarray, np.ndarray], data: st.DataObject):
    """And attain the most that block-diagonal maps gain; one block gains no less than several."""
    weight, sigma = layer
    n = len(sigma)
    size = data.draw(st.sampled_from([d for d in range(1, n + 1) if n % d == 0]))
    runs = [slice(k, k + size) for k in range(0, n, size)]
    wanted = block_diag(*(balanced(weight[:, run], sigma[run, run], damping=0.0) for run in runs))
    found = balanced(weight, sigma, block=size, damping=0.0)
    np.testing.assert_allclose(found, np.asarray(wanted), rtol=1e-12)
    assert gain(weight, sigma, found) == pytest.approx(gain(weight, sigma, block=size), abs=1e-6)
    assert gain(weight, sigma, block=size) <= gain(weight, sigma) + 1e-9
    assert gain(weight, sigma, block=1) <= gain(weight, sigma, block=size) + 1e-9


@given(layer=full_layers(), seed=seeds)
def test_no_scales_gain_more_than_blocks_of_one(layer: tuple[np.ndarray, np.ndarray], seed: int):
    scales = np.exp(np.random.default_rng(seed).standard_normal(len(layer[1])))
    assert gain(*layer, np.diag(scales)) <= gain(*layer, block=1) + 1e-9


@given(layer=layers(), damping=st.sampled_from([0.01, 0.1]))
def test_damped_maps_exist_for_every_layer(layer: tuple[np.ndarray, np.ndarray], damping: float):
    """Singular Σ, dead inputs, no weights, fewer rows than columns: condition at most that of both dampings together.

    κ(A)² ≤ κ(S + damping) κ(Σ + damping), and a matrix damped by δ of its mean has a condition of at most n / δ + 1.
    """
    for found in (balanced(*layer, damping=damping), whitening(layer[1], damping=damping)):
        assert np.linalg.cond(found) <= (found.shape[0] / damping + 1) * (1 + 1e-6)


@given(layer=layers(), damping=st.sampled_from([0.001, 0.01, 0.1]))
def test_damping_costs_no_more_than_it_adds(layer: tuple[np.ndarray, np.ndarray], damping: float):
    """‖·‖² ‖·‖² ≤ (1 + δ) (‖W Σ^(1/2)‖_* + √(δ mean Σ) ‖W‖_*)²: both sides are below those of the damped layer."""
    weight, sigma = layer
    added = np.sqrt(damping * np.diag(sigma).mean()) * np.linalg.svd(weight, compute_uv=False).sum()
    most = (1 + damping) * (nuclear_norm(weight, sigma) + added) ** 2
    found = product(weight, sigma, balanced(weight, sigma, damping=damping))
    assert found <= most * (1 + 1e-6) + 1e-12 * np.sum(weight**2) * np.trace(sigma)


def test_stacked_weights_are_one_weight():
    (one, sigma), (other, _) = gaussian_layer(20, 8), gaussian_layer(7, 8)
    both = np.vstack([one, other])
    np.testing.assert_allclose(balanced([one, other], sigma), balanced(both, sigma))
    np.testing.assert_allclose(wush((one, other), sigma, block=4), wush(both, sigma, block=4))
    assert gain([one, other], sigma) == gain(both, sigma)
    triangle = np.linalg.qr(both, mode="r")
    assert gain(triangle, sigma, balanced(triangle, sigma)) == pytest.approx(gain(both, sigma, balanced(both, sigma)))


def test_layers_without_output_keep_their_coordinates():
    weight, sigma = gaussian_layer(20, 4)
    for found in (balanced(0 * weight, sigma), balanced(weight, 0 * sigma), whitening(0 * sigma)):
        np.testing.assert_array_equal(found, np.eye(4))
    assert gain(0 * weight, sigma) == gain(weight, 0 * sigma) == 0.0
    left, right = np.diag([1.0, 0.0]), np.diag([0.0, 1.0])
    assert gain(left, right) == math.inf  # weights and inputs that never meet


@given(sigma=well_conditioned_moments(1, 10), seed=seeds)
def test_whitening_loses_nothing_with_an_entropy_coder(sigma: np.ndarray, seed: int):
    n = len(sigma)
    rotation = np.linalg.qr(np.random.default_rng(seed).standard_normal((n, n)))[0]
    root = whitening(sigma, damping=0.0)
    np.testing.assert_allclose(root @ root, sigma, atol=1e-9 * np.abs(sigma).max())
    for matrix in (root, rotation @ root, 3.0 * root):
        assert entropy_coded_loss(sigma, matrix) == pytest.approx(0.0, abs=1e-7)
    assert entropy_coded_loss(sigma, np.eye(n) + 0.1 * rotation) >= -1e-9


def test_the_entropy_coded_loss_is_geodesically_convex():
    """In P = AᵀA along P(t) = P0^(1/2) M^t P0^(1/2)."""
    sigma = moment(np.geomspace(1, 100, 5), 3)
    for seed in range(20):
        direction = np.random.default_rng(seed).standard_normal((5, 5))
        values, vectors = np.linalg.eigh(direction + direction.T)
        losses = [entropy_coded_loss(sigma, (vectors * np.exp(t * values / 2)) @ vectors.T) for t in (-1.0, 0.0, 1.0)]
        assert losses[1] <= (losses[0] + losses[2]) / 2 + 1e-9


def test_a_singular_moment_has_no_high_rate():
    assert entropy_coded_loss(np.diag([1.0, 0.0])) == math.inf


@given(weight=weights(), seed=seeds)
def test_largest_magnitudes_predict_rounding_in_groups(weight: np.ndarray, seed: int):
    """By its definition: the sum over rows and groups of the squared peak times the power of the group's inputs."""
    n = weight.shape[1]
    sigma, group = moment(np.linspace(1, 2, n), seed), 3
    matrix = np.diag(np.exp(np.random.default_rng(seed).standard_normal(n)))

    def error(w: np.ndarray, second: np.ndarray) -> float:
        runs = [slice(k, min(k + group, n)) for k in range(0, n, group)]
        return sum(float(np.abs(row[run]).max() ** 2 * np.trace(second[run, run])) for row in w for run in runs)

    before, after = error(weight, sigma), error(weight @ matrix.T, moments_after(weight, sigma, matrix)[1])
    wanted = 10 * math.log10(before / after) if before > 0 else 0.0
    assert gain(weight, sigma, matrix, group=group) == pytest.approx(wanted, abs=1e-9)


NAN = np.array([[1.0, np.nan]])
SINGULAR = np.ones((2, 2))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: balanced(NAN, np.eye(2)), "`weight` holds nan"),
        (lambda: balanced(np.ones((1, 2)), np.array([[np.nan, 0.0], [0.0, 1.0]])), "`sigma` holds nan"),
        (lambda: balanced(np.eye(2), SINGULAR, damping=0.0), "`sigma` is singular.*pass `damping`"),
        (lambda: balanced(np.ones((1, 2)), np.eye(2), damping=0.0), "rank below its 2 columns; pass `damping`"),
        (lambda: balanced(np.eye(2), np.eye(2), damping=np.nan), "`damping` is nan"),
        (lambda: balanced(np.eye(2), np.eye(2), share=1.5), "`share` is 1.5"),
        (lambda: balanced([], np.eye(2)), "`weight` has shapes"),
        (lambda: balanced(np.eye(2), np.eye(2), block=3), "`block` is 3"),
        (lambda: whitening(SINGULAR, damping=0.0), "`sigma` is singular"),
        (lambda: wush(np.ones((1, 22)), np.eye(22), block=None), "no Hadamard matrix of the 22 columns.*`block=`"),
        (lambda: gain(np.eye(2), np.eye(2), SINGULAR), "`matrix` has condition"),
        (lambda: gain(np.eye(2), np.eye(2), np.eye(3)), r"`matrix` has shape \(3, 3\)"),
        (lambda: gain(np.eye(2), np.eye(2), np.full((2, 2), np.nan)), "`matrix` holds nan"),
        (lambda: gain(np.eye(2), np.eye(2), group=2), "`group` is 2"),
        (lambda: entropy_coded_loss(np.eye(2), SINGULAR), "`matrix` has condition"),
    ],
)
def test_bad_input_is_refused_by_name(make: Any, message: str):
    with pytest.raises(InvalidInputError, match=message):
        make()


def test_a_negative_second_moment_is_refused():
    with pytest.raises(NotPositiveSemidefiniteError):
        balanced(np.eye(2), -np.eye(2))
