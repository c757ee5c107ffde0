"""Vectors in the loop: exact block feedback, the published recursion, descent, refitted tables."""

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import lattq as lq
from lattq import recipes
from lattq.bounds import CUBIC_GAP
from lattq.errors import InvalidInputError
from lattq.feedback import Cholesky, successive_cancellation
from lattq.feedback.elementwise import ElementwiseCholesky
from lattq.feedback.rules import Feedback
from lattq.least_squares.tables import fit_tables
from lattq.quantizers import Codebook, Given, Uniform
from lattq.scheme import Scheme
from tests.strategies import seeds


def correlated(seed: int, rows: int, columns: int, rho: float = 0.9) -> tuple[np.ndarray, np.ndarray]:
    """Gaussian weights, and neighbours that are alike."""
    distance = np.abs(np.subtract.outer(np.arange(columns), np.arange(columns)))
    return np.random.default_rng(seed).standard_normal((rows, columns)), rho**distance


@given(seed=seeds, blocks=st.integers(1, 4), block=st.integers(1, 4), order=st.sampled_from(["natural", "reversed"]))
def test_the_distortion_is_that_of_the_rounding_errors(seed: int, blocks: int, block: int, order: str):
    """tr(E Σ Eᵀ) = Σ e_B D_B e_Bᵀ, e = E U the errors of the vectors as they were rounded."""
    weight, sigma = correlated(seed, 6, blocks * block)
    factor = Cholesky(order, block=block).factor(weight, sigma)
    found = successive_cancellation(weight, factor, Codebook(5, block, group=None))
    error = weight - found.reconstruction
    noise = found.noise[:, factor.order].reshape(6, blocks, block)
    tiles = factor.pivots.reshape(blocks, block, block)
    expected = np.einsum("rbi,bij,rbj->", noise, tiles, noise)
    assert np.einsum("ri,ij,rj->", error, sigma, error) == pytest.approx(expected, rel=1e-10)


@given(seed=seeds, blocks=st.integers(1, 4), block=st.integers(1, 4))
def test_the_published_recursion_is_that_of_its_code(seed: int, blocks: int, block: int):
    """Running weights, errors divided by the diagonal of the factor of the inverse, lazy updates left out."""
    weight, sigma = correlated(seed, 5, blocks * block, 0.7)
    upper = np.linalg.cholesky(np.linalg.inv(sigma)).T
    running, rounded = 3 * weight, np.empty_like(weight)
    for start in range(0, blocks * block, block):
        own = slice(start, start + block)
        rounded[:, own] = np.rint(running[:, own])
        errors = (running[:, own] - rounded[:, own]) / np.diag(upper)[own]
        running[:, start + block :] -= errors @ upper[own, start + block :]
    factor = ElementwiseCholesky(block, damping=0.0).factor(weight, sigma)
    found = successive_cancellation(3 * weight, factor, Uniform(1.0))
    np.testing.assert_array_equal(found.codes, rounded)
    pivots = np.diagonal(factor.pivots.reshape(blocks, block, block), axis1=1, axis2=2)
    np.testing.assert_allclose(pivots[::-1].ravel(), 1 / np.diag(upper), rtol=1e-9)


def test_exact_feedback_beats_the_published_where_neighbours_are_alike():
    """Negative control for both: at one column a vector they agree, at two they do not."""
    weight, sigma = correlated(0, 256, 64)

    def distortion(rule: Feedback, width: int) -> float:
        scheme = Scheme(feedback=rule, quantizer=Codebook(4**width, width, group=None))
        return lq.quantize(weight, sigma, scheme).distortion(weight, sigma)

    assert distortion(ElementwiseCholesky(1, 0.0), 1) == pytest.approx(distortion(Cholesky("reversed"), 1), rel=0.02)
    exact = distortion(Cholesky("reversed", block=2), 2)
    assert exact < 0.9 * distortion(Cholesky("reversed"), 1)
    assert exact < 0.7 * distortion(ElementwiseCholesky(2, 0.0), 2)


def test_no_round_raises_the_distortion_of_dependent_inputs():
    """Fewer calibration tokens than columns: pivots of zero, where costs in a sweep are none."""
    rng = np.random.default_rng(0)
    weight, inputs = rng.standard_normal((64, 32)), rng.standard_normal((12, 32))
    sigma = inputs.T @ inputs / 12
    for dimension in (1, 2):
        found = [
            lq.quantize(weight, sigma, recipes.gptvq(2, dimension=dimension, rounds=rounds)).distortion(weight, sigma)
            for rounds in range(3)
        ]
        assert found == sorted(found, reverse=True)
    assert lq.quantize(weight, sigma, recipes.ecvq(0.5, dimension=1)).distortion(weight, sigma) < 0.5**2 / 12


@pytest.mark.parametrize("kind", [Codebook(8), Codebook(16, 2, rows=16), Codebook(16, 2, down=True, entry_bits=None)])
def test_no_round_raises_the_distortion(kind: Codebook):
    weight, sigma = correlated(1, 32, 24, 0.8)
    block = 1 if kind.down else kind.dimension
    scheme = Scheme(feedback=Cholesky("reversed", block=block), quantizer=kind, sweeps=0, refit=())
    plain = lq.quantize(weight, sigma, scheme)
    before = plain.distortion(weight, sigma)
    changed = plain.transform.forward(weight)  # in the unit of the tables
    factor = Cholesky(block=block).factor(changed, plain.transform.congruence(sigma))
    start, found = plain.decoded(), []
    for sweeps in (1, 2, 3):
        result = successive_cancellation(changed, factor, Given(plain.quantizer), sweeps=sweeps, start=start)
        found.append(dataclasses.replace(plain, codes=result.codes).distortion(weight, sigma))
    rounds = [
        lq.quantize(weight, sigma, dataclasses.replace(scheme, sweeps=2, refit=("tables",), rounds=rounds))
        for rounds in (0, 1, 2, 3)
    ]
    for values in ([before, *found], [one.distortion(weight, sigma) for one in rounds]):
        assert all(b <= a * (1 + 1e-12) for a, b in itertools.pairwise(values))
    assert found[-1] < 0.95 * before


@given(seed=seeds, dimension=st.integers(1, 3), down=st.booleans(), scaled=st.booleans())
def test_tables_are_the_least_squares_solution(seed: int, dimension: int, down: bool, scaled: bool):
    """Against a dense solver on the whole system, entries in float16."""
    rows, columns = 4 * dimension, 3 * dimension
    weight, sigma = correlated(seed, rows, columns, 0.8)
    scale = dimension if scaled and not down else None
    kind = Codebook(3, dimension, None, 2 * dimension, entry_bits=None, down=down, scale=scale)
    rule = Cholesky("reversed", block=1 if down else dimension)
    found = lq.quantize(weight, sigma, Scheme(feedback=rule, quantizer=kind))
    weight, sigma = found.transform.forward(weight), found.transform.congruence(sigma)  # in the unit of the tables
    root = np.linalg.cholesky(sigma)
    tables = found.quantizer.tables
    basis = []
    for index in range(tables.size):
        unit = np.zeros(tables.size)
        unit[index] = 1.0
        probe = dataclasses.replace(found.quantizer, tables=unit.reshape(tables.shape))
        basis.append((dataclasses.replace(found, quantizer=probe).decoded() @ root).ravel())
    solution = np.linalg.lstsq(np.array(basis).T, (weight @ root).ravel())[0]
    best = float(np.sum(((weight @ root).ravel() - solution @ np.array(basis)) ** 2)) / weight.size
    error = (weight - fit_tables(found, weight, lq.Metric(sigma)).decoded()) @ root
    fitted = float(np.sum(error**2)) / weight.size
    # conjugate gradients stop at 1e-4 in the residual, or in as many steps as there are unknowns; entries then lose
    # 2^-11 of themselves, which weighs at most the largest eigenvalue of sigma
    rounding = float(np.linalg.eigvalsh(sigma).max()) * (2.0**-11 * np.abs(solution).max() * 4) ** 2
    assert best * (1 - 1e-9) <= fitted <= best * (1 + 1e-2) + 10 * rounding


def test_published_update_falls_and_depends_on_the_unit():
    """Least squares falls by as much in any unit that is a power of two."""
    weight, sigma = correlated(3, 64, 32, 0.8)
    plain = dataclasses.replace(recipes.gptvq_published(2, dimension=2), refit=())
    falls: dict[str, list[float]] = {"tables": [], "tables by Adam": []}
    for unit in (1 / 64, 1.0):
        before = lq.quantize(unit * weight, sigma, plain)
        for name, found in falls.items():
            after = lq.refit(before, unit * weight, sigma, (name,)).distortion(unit * weight, sigma)
            found.append(1 - after / before.distortion(unit * weight, sigma))
    assert min(map(min, falls.values())) >= 0.0
    assert falls["tables"][0] == pytest.approx(falls["tables"][1], abs=1e-3)
    assert abs(falls["tables by Adam"][0] - falls["tables by Adam"][1]) > 0.01


def test_better_than_published_at_the_same_bytes():
    weight, sigma = correlated(4, 256, 64, 0.6)
    for dimension in (1, 2, 4):
        ours, published = (
            lq.quantize(weight, sigma, recipe(2, dimension=dimension))
            for recipe in (recipes.gptvq, recipes.gptvq_published)
        )
        assert ours.nbytes == published.nbytes
        assert ours.distortion(weight, sigma) < published.distortion(weight, sigma)


def test_entropy_coding_reports_a_gap():
    """In real bytes above the bound; the indices alone, without table and histogram, below the loss of a cube."""
    weight = np.random.default_rng(5).standard_normal((512, 64))
    found = lq.quantize(weight, np.eye(64), recipes.ecvq(0.6))
    gap = found.gap(weight, np.eye(64), row_variance=1.0, column_variance=1.0)
    indices = 8 * len(found.coded[-1]) / weight.size
    assert gap > 0.0
    assert indices - (found.rate - gap) < CUBIC_GAP


def test_singular_moments_and_odd_blocks_are_named():
    with pytest.raises(InvalidInputError, match="more `damping`"):
        ElementwiseCholesky(1, 0.0).factor(np.ones((1, 2)), np.ones((2, 2)))
    with pytest.raises(InvalidInputError, match="`block` is 2"):
        ElementwiseCholesky(2).factor(np.ones((1, 3)), np.eye(3))
    with pytest.raises(InvalidInputError, match="1 after a start"):
        successive_cancellation(np.eye(2), Cholesky().factor(np.eye(2), np.eye(2)), Uniform(1.0), start=np.eye(2))
