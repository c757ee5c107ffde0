"""No result is worse than zeros, whatever the second moment, and what that took is counted."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lattq as lq
from lattq import _guard, recipes
from lattq.errors import InvalidInputError
from lattq.feedback import Cholesky
from lattq.feedback.loop import GAIN_GRID
from lattq.scheme import Scheme, _encoded
from tests.helpers import assert_same
from tests.schemes import NAMES, every_scheme
from tests.strategies import Layer, gaussian_layer, moment, seeds

few = settings(max_examples=settings().max_examples // 5)  # one law for many schemes
N = 12
ROUNDING = 1 + 1e-9  # of sums of squares of at most N² terms in float64


def zeros(weight: np.ndarray, sigma: np.ndarray) -> float:
    """tr(W Σ Wᵀ) / (rows columns), by the eigenvalues: never below zero."""
    values, vectors = np.linalg.eigh(sigma)
    return float(np.sum(np.square(weight @ vectors) * np.maximum(values, 0.0))) / weight.size


@st.composite
def hard_layers(draw: st.DrawFn, n: int = N) -> Layer:
    """Singular, rank one, ill conditioned, zero and equal inputs; weights at random, or such that errors cancel."""
    rng = np.random.default_rng(draw(seeds))
    sigmas = {
        "few samples": (x := rng.standard_normal((n - 1, n))).T @ x / n,
        "one sample": np.outer(y := rng.standard_normal(n), y),
        "equal": np.ones((n, n)),
        "ill": moment(np.geomspace(1, 1e-12, n), draw(seeds)),
        "cliff": moment(np.where(np.arange(n) < n // 2, 1.0, 1e-12), draw(seeds)),
        "zero": np.zeros((n, n)),
    }
    sigma = sigmas[draw(st.sampled_from(sorted(sigmas)))]
    weight = rng.standard_normal((draw(st.sampled_from([1, 5, 24])), n))
    if draw(st.booleans()):
        weight -= weight.mean(axis=1, keepdims=True)
    return weight, sigma


@pytest.mark.parametrize("name", NAMES)
@few
@given(layer=hard_layers(), step=st.sampled_from([0.03, 0.3, 3.0]))
def test_no_scheme_is_worse_than_zeros(name: str, layer: Layer, step: float):
    """Or it says that it cannot: exact outliers without the weights that cancel their errors."""
    weight, sigma = layer
    scheme = every_scheme(N, step)[name]
    try:
        found = lq.quantize(weight, sigma, scheme)
    except InvalidInputError:
        assert name == "squeezellm", "only outliers keep weights exactly"
        return
    if name == "folded":
        weight, sigma = found.transform.forward(weight), found.transform.congruence(sigma)
        found = lq.Quantized.from_bytes(found.to_bytes())
    rounding = 1e-13 * float(np.sum(np.square(weight)) * np.trace(sigma)) / weight.size
    assert found.distortion(weight, sigma) <= zeros(weight, sigma) * ROUNDING + rounding


FEW = np.random.default_rng(0).standard_normal((63, 64))
RUNAWAY = {
    "ecvq": (recipes.ecvq(0.1), moment(np.geomspace(1, 1e-12, 64), 3)),
    "gptq": (recipes.gptq(2, damping=0.0, fit="range"), FEW.T @ FEW / 63),
    "bitshift": (recipes.bitshift(1, memory=6, damping=0.0), FEW[:32].T @ FEW[:32] / 32),
    "nested": (recipes.nestquant(3, damping=0.0), moment(np.geomspace(1, 1e-12, 64), 3)),
    "coarse": (recipes.huffman_gptq(10.0), FEW.T @ FEW / 63),
}


@pytest.mark.parametrize("name", RUNAWAY)
def test_runaway_feedback_is_damped_and_counted(name: str):
    """The negative control is the same loop without retries: it ends worse than zeros."""
    scheme, sigma = RUNAWAY[name]
    weight = np.random.default_rng(1).standard_normal((128, 64)).astype(np.float32)
    alone = _encoded(weight, lq.Metric(sigma), scheme, 0.0).found
    if name != "nested":
        assert alone.distortion(weight, sigma) > zeros(weight, sigma)
    found = lq.quantize(weight, sigma, scheme)
    assert found.distortion(weight, sigma) <= zeros(weight, sigma) * ROUNDING
    if name != "nested":
        assert found.stats["retries"] == len(_guard.DAMPINGS)
        assert found.stats["damping"] in _guard.DAMPINGS
    again = lq.Quantized.from_bytes(found.to_bytes())
    assert_same(again.dequantize(), found.dequantize())


@pytest.mark.parametrize("name", NAMES)
def test_nothing_changes_where_all_is_well(name: str):
    weight, sigma = gaussian_layer(24, N)
    scheme = every_scheme(N)[name]
    found = lq.quantize(weight, sigma, scheme)
    assert not {"retries", "damping", "shrunk_rows"} & set(found.stats)
    assert found.to_bytes() == _encoded(weight, lq.Metric(sigma), scheme, 0.0)[0].to_bytes()


@given(seed=seeds, rank=st.integers(1, 4))
def test_gains_leave_no_row_worse_than_zero(seed: int, rank: int):
    """Where rounding itself is worse than zeros: weights that the inputs hardly see."""
    rng = np.random.default_rng(seed)
    seen = rng.standard_normal((rank, N))
    sigma = seen.T @ seen
    weight = rng.standard_normal((9, N))
    weight -= weight @ np.linalg.pinv(seen) @ seen * rng.choice([1.0, 0.9], (9, 1))
    found = lq.quantize(weight, sigma, recipes.rtn(3))
    error = np.einsum("ri,ij,rj->r", e := weight - found.dequantize(np.float64), sigma, e)
    own = np.einsum("ri,ij,rj->r", weight, sigma, weight)
    rounding = 1e-13 * np.square(weight).sum() * np.trace(sigma)
    if "shrunk_rows" in found.stats:
        assert found.stats["retries"] == 0  # nothing is fed back
        assert found.stats["shrunk_rows"] == np.sum(found.row_gains != GAIN_GRID)
        assert (error <= own * ROUNDING + rounding).all()
    assert error.sum() <= own.sum() * ROUNDING + rounding


def test_a_transform_that_helps_nobody_is_named():
    weight = np.random.default_rng(0).standard_normal((8, 8))
    weight -= weight.mean(axis=1, keepdims=True)
    with pytest.raises(InvalidInputError, match=r"that of zeros .*Sparse.*keeps some weights exactly"):
        lq.quantize(weight, np.ones((8, 8)), recipes.squeezellm(1, outliers=0.3))


def test_the_best_damping_weighs_bits_too():
    """Of entropy-coded results the least D · 4^R: damping that is too strong buys its distortion with bits."""
    scheme, sigma = RUNAWAY["ecvq"]
    weight = np.random.default_rng(1).standard_normal((128, 64)).astype(np.float32)
    found = lq.quantize(weight, sigma, scheme)
    tried = [_encoded(weight, lq.Metric(sigma), scheme, damping)[0] for damping in _guard.DAMPINGS]
    limit = zeros(weight, sigma)
    prices = [one.distortion(weight, sigma) * 4.0**one.rate for one in tried if one.distortion(weight, sigma) <= limit]
    assert found.distortion(weight, sigma) * 4.0**found.rate == pytest.approx(min(prices), rel=1e-6)


def test_damping_is_that_of_the_feedback():
    """A retry with a fraction is the same scheme with that damping."""
    weight, sigma = gaussian_layer(24, N)
    for damping in (1e-3, 1.0):
        ours, feeds_back, _ = _encoded(weight, lq.Metric(sigma), recipes.gptq(4, damping=0.0), damping)
        assert feeds_back()
        assert ours.to_bytes() == lq.quantize(weight, sigma, recipes.gptq(4, damping=damping)).to_bytes()
    assert not _encoded(weight, lq.Metric(sigma), recipes.rtn(4), 0.0).feeds_back()
    assert not _encoded(weight, lq.Metric(np.eye(N)), Scheme(feedback=Cholesky()), 0.0).feeds_back()


def test_rates_of_a_few_weights_are_no_overflow():
    """Two weights carry hundreds of bytes: factors of 4 for each bit would be no numbers."""
    weight, sigma = np.array([[0.9, -0.9]]), np.ones((2, 2))
    for scheme in (
        recipes.rtn(2, fit="range"),
        recipes.gptq(2, damping=0.0),
        recipes.gptvq(1, dimension=1, damping=0.0),
    ):
        found = lq.quantize(weight, sigma, scheme)
        assert found.distortion(weight, sigma) <= 1e-12
