"""One door for second moments: judged by the rounding of their dtype, the same for every recipe and order."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import lattq as lq
from lattq import recipes
from lattq.errors import NotPositiveSemidefiniteError
from lattq.linalg.checks import require_root, require_semidefinite
from lattq.linalg.roots import square_root
from tests.strategies import rank_deficient_moments, seeds

ORDERS = ["natural", "sorted", "pivoted"]
RECIPES = [
    recipes.rtn(4),
    recipes.gptq(4),
    recipes.gptq(4, damping=0.0),
    recipes.gptq(4, damping=0.0, order="sorted", group=None),
    recipes.watersic(0.3),
    recipes.UNBIASED(0.3),
    recipes.watersic_published(0.3),
    recipes.huffman_gptq(0.3),
    recipes.palettize(2),
    recipes.squeezellm(2),
    recipes.gptvq(2, dimension=2),
    recipes.ecvq(0.3, size=16),
    recipes.nestquant(),
    recipes.block_format("nf4"),
]


def gram(samples: int, n: int, seed: int, dtype: Any = np.float32) -> np.ndarray:
    """A Gram matrix of few samples, with the rounding of its dtype, in a unit of each input."""
    rng = np.random.default_rng(seed)
    inputs = (rng.standard_normal((samples, n)) * np.exp(rng.standard_normal(n))).astype(dtype)
    found = inputs.T @ inputs / dtype(samples)
    return (found + found.T) / 2


@given(samples=st.integers(1, 15), seed=seeds)
def test_gram_matrices_in_single_precision_are_accepted_by_all(samples: int, seed: int):
    sigma = gram(samples, 16, seed)
    weight = np.random.default_rng(seed).standard_normal((8, 16)).astype(np.float32)
    for scheme in RECIPES:
        found = lq.quantize(weight, sigma, scheme)
        assert found.distortion(weight, sigma) >= 0.0
    for order in ORDERS:
        factor = lq.linalg.ldl(sigma, order=order)
        made = (factor.unit * factor.pivots) @ factor.unit.T
        deviation = np.sqrt(np.diag(sigma).astype(np.float64))[factor.order]
        off = np.abs(made - sigma[np.ix_(factor.order, factor.order)]) / np.outer(deviation, deviation)
        assert off.max() <= 64 * 16 * 2.0**-23


@given(seed=seeds, n=st.integers(2, 12), excess=st.floats(1e-3, 10))
def test_indefinite_matrices_are_refused_by_all(seed: int, n: int, excess: float):
    """With an eigenvalue of -excess in units of the variances: the column and its pivot are named, damped or not."""
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.standard_normal((n, n)))[0]
    sigma = (basis * np.append(np.ones(n - 1), -excess)) @ basis.T
    sigma = (sigma + sigma.T) / 2
    weight = rng.standard_normal((4, n))
    for scheme in (recipes.rtn(4), recipes.gptq(4), recipes.watersic(0.3), recipes.palettize(2)):
        with pytest.raises(NotPositiveSemidefiniteError, match=r"column \d+ has pivot -") as caught:
            lq.quantize(weight, sigma, scheme)
        assert caught.value.pivot < 0
        with pytest.raises(NotPositiveSemidefiniteError):
            lq.quantize(weight.astype(np.float32), sigma.astype(np.float32), scheme)
    for order in ORDERS:
        with pytest.raises(NotPositiveSemidefiniteError):
            lq.linalg.ldl(sigma.astype(np.float32), order=order)


def test_what_rounding_of_float32_explains_is_none_in_float64():
    sigma = gram(63, 64, 0)
    smallest = np.linalg.eigvalsh(sigma.astype(np.float64))[0]
    if smallest > -1e-9:
        sigma[np.diag_indices(64)] -= np.float32(1e-6)
    require_semidefinite(sigma)
    with pytest.raises(NotPositiveSemidefiniteError):
        require_semidefinite(sigma.astype(np.float64))


@given(sigma=rank_deficient_moments(2, 16))
def test_what_is_semidefinite_is_not_touched(sigma: np.ndarray):
    assert require_semidefinite(sigma) is not None
    np.testing.assert_array_equal(require_semidefinite(sigma), (sigma + sigma.T) / 2)


@given(samples=st.integers(1, 15), seed=seeds)
def test_what_is_lifted_moves_no_more_than_rounding(samples: int, seed: int):
    sigma = gram(samples, 16, seed)
    found = require_semidefinite(sigma)
    moved = found - sigma.astype(np.float64)
    variance = np.diag(sigma).astype(np.float64)
    assert np.count_nonzero(moved - np.diag(np.diag(moved))) == 0
    assert (np.diag(moved) >= 0).all()
    assert (np.diag(moved) <= 2 * 16 * 16 * 2.0**-23 * variance).all()
    assert np.linalg.eigvalsh(found)[0] >= -16 * 2.0**-50 * variance.max()


@given(sigma=rank_deficient_moments(1, 16))
def test_the_root_is_one(sigma: np.ndarray):
    root = square_root(sigma)
    assert root is not None
    deviation = np.sqrt(np.diag(sigma))
    assert (np.abs(root @ root.T - sigma) <= 1e-12 * np.outer(deviation, deviation) + 1e-300).all()
    assert root.shape[1] <= len(sigma)
    assert square_root(sigma - 2 * np.eye(len(sigma)) * max(np.trace(sigma), 1.0)) is None


def test_a_transform_may_round_more():
    """Within what float32 explains; beyond it the column is named."""
    sigma = np.ones((8, 8))
    sigma[0, 1] = sigma[1, 0] = 1.0 + 1e-9
    assert square_root(sigma) is None
    root = require_root(sigma)
    assert np.abs(root @ root.T - sigma).max() < 1e-6
    sigma[0, 1] = sigma[1, 0] = 1.1
    with pytest.raises(NotPositiveSemidefiniteError, match="column 1"):
        require_root(sigma)


def test_half_precision_is_judged_by_its_own_rounding():
    inputs = torch.tensor(np.random.default_rng(0).standard_normal((3, 16)), dtype=torch.bfloat16)
    sigma = inputs.T @ inputs
    weight = np.random.default_rng(1).standard_normal((4, 16))
    assert lq.quantize(torch.tensor(weight), sigma, recipes.gptq(4)).distortion(weight, sigma) >= 0.0
