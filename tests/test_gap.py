"""Bits above the Gaussian reference: a bound for independent Gaussian weights, and for others with their covariance."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import lattq as lq
from lattq import bounds, recipes
from lattq.errors import InvalidInputError
from lattq.transforms.maps import Identity
from tests.strategies import gaussian_layer, rank_deficient_moments, seeds


@given(sigma=rank_deficient_moments(2, 16), seed=seeds, levels=st.sampled_from([2, 16, 256]))
def test_singular_moments_have_a_distortion_and_a_gap(sigma: np.ndarray, seed: int, levels: int):
    """The error lies partly, or all of it, where no input goes: rounding must not make it negative, or a reference."""
    weight = np.random.default_rng(seed).standard_normal((20, len(sigma)))
    for scheme in (recipes.rtn(levels), recipes.gptq(levels, damping=0.0), recipes.watersic(0.1)):
        found = lq.quantize(weight, sigma, scheme)
        assert found.distortion(weight, sigma) >= 0.0
        gap = found.gap(weight, sigma)
        assert gap > -0.1 or gap == -math.inf


def test_errors_that_no_input_sees_are_lossless():
    weight = np.array([[0.3, 0.7], [0.1, -0.4]])
    sigma = np.outer([1.0, 1.0], [1.0, 1.0])
    codes = np.array([[0, 1], [0, 0]], dtype=np.int32)
    quantizer = lq.quantizers.UniformQuantizer(np.array([[1.0]]))
    seen = lq.Quantized(codes, quantizer, Identity(), quantizer.coder)
    assert seen.gap(np.array([[0.3, 0.7], [0.1, -0.1]]), sigma) == -math.inf
    assert math.isfinite(seen.gap(weight, sigma))
    nothing = lq.Quantized(codes * 0, quantizer, Identity(), quantizer.coder)
    assert nothing.gap(np.array([[0.3, -0.3], [0.1, -0.1]]), sigma) == nothing.rate


def test_correlated_weights_need_their_covariance():
    """AR(0.95) rows with the inverse for Σ: white for the layer, so that R(D) is ½ log2 1/D."""
    n = 64
    covariance = 0.95 ** np.abs(np.subtract.outer(np.arange(n), np.arange(n)))
    sigma = np.linalg.inv(covariance)
    sigma = (sigma + sigma.T) / 2
    weight = np.random.default_rng(0).standard_normal((512, n)) @ np.linalg.cholesky(covariance).T
    for scheme in (recipes.rtn(2), recipes.gptq(4), recipes.watersic(1.0)):
        found = lq.quantize(weight, sigma, scheme)
        known = found.gap(weight, sigma, covariance=covariance)
        truth = found.rate - max(0.5 * math.log2(1 / found.distortion(weight, sigma)), 0.0)
        assert known == pytest.approx(truth, abs=1e-6)
        assert known > 0.0
    assert found.gap(weight, sigma) < known - 1.0  # a reference, and no bound
    doubled = found.gap(weight, sigma, covariance=covariance, row_variance=np.full(512, 2.0))
    assert doubled == pytest.approx(known - 0.5, abs=0.01)
    with pytest.raises(InvalidInputError, match="column_variance"):
        found.gap(weight, sigma, covariance=covariance, column_variance=2.0)


@pytest.mark.parametrize("shape", [(16, 16), (48, 24), (128, 8)])
def test_fitted_variances_make_the_reference_too_low(shape: tuple[int, int]):
    """By (1 / rows + 1 / columns - 1 / weights) / (2 ln 2) bits; what follows in the expansion is a square of that.

    The mean of digammas, ln(k / 2) - ψ(k / 2) = 1 / k + 1 / (3 k²) ..., bounds the next order by a third of 1 / k².
    """
    rows, columns = shape
    rng = np.random.default_rng(0)
    variance = np.outer(np.exp(rng.standard_normal(rows)), np.exp(rng.standard_normal(columns)))
    draws = 400
    off = np.empty(draws)
    for i in range(draws):
        fitted = np.outer(*bounds.two_way_variances(rng.standard_normal(shape) * np.sqrt(variance)))
        off[i] = 0.5 * np.mean(np.log2(fitted / variance))
    bias = (1 / rows + 1 / columns - 1 / (rows * columns)) / (2 * math.log(2))
    second_order = (1 / rows + 1 / columns) ** 2 / (2 * math.log(2))
    assert abs(off.mean() + bias) <= 4 * off.std() / math.sqrt(draws) + second_order
    assert off.mean() < -bias / 2


def test_the_bias_is_that_of_the_gap():
    """At high rate and with independent Gaussian weights; measured against the known variances."""
    weight, sigma = gaussian_layer(32, 16)
    rng, differences = np.random.default_rng(0), []
    for _ in range(60):
        weight = rng.standard_normal((32, 16))
        found = lq.quantize(weight, sigma, recipes.huffman_gptq(0.02))
        known = found.gap(weight, sigma, row_variance=1.0, column_variance=1.0)
        assert known > 0.25  # the bound, and the loss of a cube
        differences.append(found.gap(weight, sigma) - known)
    bias = (1 / 32 + 1 / 16 - 1 / 512) / (2 * math.log(2))
    error = np.std(differences) / math.sqrt(len(differences))
    assert abs(np.mean(differences) - bias) <= 4 * error + (1 / 32 + 1 / 16) ** 2 / (2 * math.log(2))
