"""LDL factors: reconstruction, orders, blocks, singular and indefinite second moments."""

from types import ModuleType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import block_diag

from lattq.linalg import ldl
from lattq.linalg.ldl import LDL
from tests.helpers import assert_same
from tests.oracles.rational_ldl import rational_pivots
from tests.strategies import rank_deficient_moments, second_moments, seeds, well_conditioned_moments

ORDERS = ["natural", "sorted", "pivoted"]


def tolerance(sigma: np.ndarray) -> float:
    """Return the size up to which a pivot counts as zero: the unit of every error here."""
    return max(len(sigma), 8) * float(np.finfo(np.float64).eps) * float(np.max(np.diag(sigma)))


def middle(factor: LDL) -> np.ndarray:
    """Return the block diagonal matrix of pivots."""
    pivots = factor.pivots if factor.pivots.ndim == 3 else factor.pivots[:, None, None]
    return np.asarray(block_diag(*pivots))


def product(factor: LDL) -> np.ndarray:
    """Multiply the factors."""
    return factor.unit @ middle(factor) @ factor.unit.T


def assert_factors(factor: LDL, sigma: np.ndarray, block: int = 1) -> None:
    """Assert reconstruction, the shape of `unit`, and what zero pivots promise."""
    n = len(sigma)
    assert np.array_equal(np.sort(factor.order), np.arange(n))
    error = np.abs(product(factor) - sigma[np.ix_(factor.order, factor.order)])
    deviation = np.sqrt(np.diag(sigma))[factor.order]
    size = np.outer(deviation, deviation)
    if block > 1:
        size += np.abs(factor.unit) @ np.abs(middle(factor)) @ np.abs(factor.unit).T
    assert np.all(error <= 8 * max(n, 8) * np.finfo(np.float64).eps * size)
    within = np.arange(n) // block
    assert np.array_equal(factor.unit * (within[:, None] <= within), np.eye(n))
    if block == 1:
        smallest = 0.5 * max(n, 8) * np.finfo(np.float64).eps * np.diag(sigma)[factor.order]
        assert np.all((factor.pivots == 0) | (factor.pivots > smallest))
        zero = factor.pivots == 0
        assert np.array_equal(factor.unit[:, zero], np.eye(n)[:, zero])


def greedy_pivots(sigma: np.ndarray) -> np.ndarray:
    """Return the largest remaining variance, again and again."""
    rest, pivots = sigma.copy(), []
    for _ in range(len(sigma)):
        best = int(np.argmax(np.diag(rest)))
        pivot = rest[best, best]
        pivots.append(max(pivot, 0.0))
        if pivot <= tolerance(sigma):
            break
        rest -= np.outer(rest[best], rest[best]) / pivot
    return np.array(pivots + [0.0] * (len(sigma) - len(pivots)))


@st.composite
def gram_matrices(draw: st.DrawFn) -> np.ndarray:
    """Integer Gram matrices of any rank, with repeated and dead columns."""
    n, samples = draw(st.integers(1, 6)), draw(st.integers(0, 7))
    inputs = np.random.default_rng(draw(seeds)).integers(-1, 2, size=(samples, n))
    return inputs.T @ inputs


@given(sigma=second_moments(), order=st.sampled_from(ORDERS))
def test_product_is_sigma_in_that_order(sigma: np.ndarray, order: str):
    assert_factors(ldl(sigma, order=order), sigma)


@given(sigma=second_moments(), seed=seeds)
def test_any_permutation_is_an_order(sigma: np.ndarray, seed: int):
    order = np.random.default_rng(seed).permutation(len(sigma))
    factor = ldl(sigma, order=order)
    assert np.array_equal(factor.order, order)
    assert_factors(factor, sigma)


@given(sigma=second_moments(min_n=2))
def test_a_wrong_order_does_not_reconstruct(sigma: np.ndarray):
    factor = ldl(sigma, order="natural")
    wrong = LDL(factor.unit, factor.pivots, np.roll(factor.order, 1))
    shifted = sigma[np.ix_(wrong.order, wrong.order)]
    if np.max(np.abs(shifted - sigma)) > 16 * tolerance(sigma):
        with pytest.raises(AssertionError):
            assert_factors(wrong, sigma)


@given(gram=gram_matrices())
def test_pivots_are_the_rational_ones(gram: np.ndarray):
    exact = rational_pivots(gram)
    assert exact is not None
    pivots = ldl(gram.astype(np.float64)).pivots
    assert np.array_equal(pivots == 0, [pivot == 0 for pivot in exact])
    # A pivot is a ratio of determinants at most 42^5 apart from an integer, so its error may be amplified by the
    # inverse of the smallest one before it.
    smallest = min((float(pivot) for pivot in exact if pivot > 0), default=1.0)
    np.testing.assert_allclose(pivots, [float(pivot) for pivot in exact], atol=64 * tolerance(gram + 0.0) / smallest)


@given(sigma=second_moments())
def test_pivoted_pivots_are_greedy_and_decrease(sigma: np.ndarray):
    pivots = ldl(sigma, order="pivoted").pivots
    assert np.all(np.diff(pivots) <= 1e-12 * pivots[:-1] + tolerance(sigma))
    assert np.all(pivots[1:][pivots[:-1] == 0] == 0)
    top = float(np.max(np.diag(sigma)))
    assert pivots[0] == pytest.approx(top)
    # Ties and near-ties may be broken the other way, which changes the pivots that follow: the next one is the test.
    np.testing.assert_allclose(pivots[:2], greedy_pivots(sigma)[:2], rtol=1e-6, atol=4 * tolerance(sigma))


@given(sigma=well_conditioned_moments())
def test_pivots_multiply_to_the_determinant(sigma: np.ndarray):
    _, log_determinant = np.linalg.slogdet(sigma)
    for order in ORDERS:
        assert np.sum(np.log(ldl(sigma, order=order).pivots)) == pytest.approx(log_determinant, abs=1e-9)


@given(sigma=well_conditioned_moments())
def test_sorted_order_has_decreasing_diagonal(sigma: np.ndarray):
    order = ldl(sigma, order="sorted").order
    assert np.all(np.diff(np.diag(sigma)[order]) <= 0)
    assert np.array_equal(ldl(np.eye(5), order="sorted").order, np.arange(5))


@given(sigma=rank_deficient_moments())
def test_pivoted_order_reveals_the_rank(sigma: np.ndarray):
    rank = np.linalg.matrix_rank(sigma, hermitian=True)
    assert np.count_nonzero(ldl(sigma, order="pivoted").pivots) == rank


@pytest.mark.parametrize("order", ORDERS)
def test_zero_and_one_by_one(order: str):
    factor = ldl(np.zeros((3, 3)), order=order)
    assert np.array_equal(factor.pivots, np.zeros(3))
    assert np.array_equal(factor.unit, np.eye(3))
    assert np.array_equal(ldl(np.array([[4.0]]), order=order).pivots, [4.0])
    assert np.array_equal(ldl(np.array([[0.0]]), order=order).pivots, [0.0])


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(("n", "samples"), [(200, 400), (200, 90), (97, 97)])
def test_sizes_beyond_one_panel(order: str, n: int, samples: int, rng: np.random.Generator):
    inputs = rng.standard_normal((samples, n)) * np.exp(rng.standard_normal(n))
    inputs[:, ::7] = 0.0
    inputs[:, 5] = 2 * inputs[:, 3] - inputs[:, 4]
    sigma = inputs.T @ inputs / samples
    factor = ldl(sigma, order=order)
    assert_factors(factor, sigma)
    assert np.count_nonzero(factor.pivots) == min(samples, n - 1 - len(range(0, n, 7)))


def test_singular_matrix_whose_leading_block_is_nearly_singular(rng: np.random.Generator):
    # Two columns that differ by 1e-6 come first: plain elimination amplifies its rounding by 1e12.
    inputs = rng.standard_normal((3, 8))
    inputs[:, 1] = inputs[:, 0] + 1e-6 * rng.standard_normal(3)
    sigma = inputs.T @ inputs
    rest = sigma.copy()
    for k in range(3):
        rest = rest - np.outer(rest[k], rest[k]) / rest[k, k]
    assert np.min(np.diag(rest)[3:]) < -100 * tolerance(sigma)
    factor = ldl(sigma)
    assert_factors(factor, sigma)
    assert np.array_equal(np.flatnonzero(factor.pivots), [0, 1, 2])


@given(sigma=second_moments(), seed=seeds)
def test_units_of_the_inputs_do_not_matter(sigma: np.ndarray, seed: int):
    # Powers of two, so that nothing is rounded: twelve decades between inputs are no reason to drop any.
    units = np.exp2(np.random.default_rng(seed).integers(-20, 21, size=len(sigma)))
    factor, moved = ldl(sigma), ldl(units[:, None] * sigma * units)
    assert_same(moved.pivots, factor.pivots * units**2)
    assert_same(moved.unit, units[:, None] * factor.unit / units)


@given(sigma=well_conditioned_moments(), order=st.sampled_from(ORDERS), places=st.lists(st.integers(0, 16), max_size=4))
def test_dead_inputs_change_nothing_else(sigma: np.ndarray, order: str, places: list[int]):
    wide = sigma
    for place in places:
        wide = np.insert(np.insert(wide, min(place, len(wide)), 0.0, axis=0), min(place, len(wide)), 0.0, axis=1)
    factor, wanted = ldl(wide, order=order), ldl(sigma, order=order)
    live = factor.pivots > 0
    assert_same(factor.pivots[live], wanted.pivots)
    assert_same(factor.unit[np.ix_(live, live)], wanted.unit)
    assert_same(factor.unit[~live], np.eye(len(wide))[~live])


@pytest.mark.parametrize("order", ORDERS)
def test_an_input_far_above_the_others_hides_none(order: str, rng: np.random.Generator):
    inputs = rng.standard_normal((60, 12)) * np.repeat([1e9, 1.0, 1e-3], 4)
    sigma = inputs.T @ inputs / 60
    assert np.min(np.diag(sigma)) < tolerance(sigma)
    factor = ldl(sigma, order=order)
    assert_factors(factor, sigma)
    assert np.all(factor.pivots > 0.1 * np.diag(sigma)[factor.order])


def test_a_positive_pivot_below_the_tolerance_is_dropped():
    sigma = np.array([[1.0, 1.0], [1.0, 1.0 + 4e-16]])
    for order in ORDERS:
        factor = ldl(sigma, order=order)
        assert np.count_nonzero(factor.pivots) == 1
        assert_factors(factor, sigma)


def test_rounding_of_a_transform_is_forgiven(rng: np.random.Generator):
    # A projection leaves no variance in some directions, and rounding of the large ones in their place.
    basis = np.linalg.qr(rng.standard_normal((8, 8)))[0]
    flat = basis[:, :3] @ basis[:, :3].T
    sigma = basis.T @ flat @ basis
    sigma = (sigma + sigma.T) / 2
    assert np.linalg.eigvalsh(sigma[3:, 3:])[0] < 0
    for order in ORDERS:
        factor = ldl(sigma, order=order)
        assert np.max(np.abs(product(factor) - sigma[np.ix_(factor.order, factor.order)])) <= 8 * tolerance(sigma)


@given(sigma=second_moments(max_n=12), block=st.integers(1, 4), order=st.sampled_from(ORDERS))
def test_block_pivots(sigma: np.ndarray, block: int, order: str):
    n = len(sigma) * block
    sigma = np.kron(np.eye(block), sigma) if n <= 24 else np.kron(sigma, np.eye(block))
    scalar, factor = ldl(sigma, order=order), ldl(sigma, order=order, block=block)
    assert np.array_equal(scalar.order, factor.order)
    assert_factors(factor, sigma, block)
    pivots = factor.pivots.reshape(n // block, block, block)
    assert np.array_equal(pivots, pivots.transpose(0, 2, 1))
    assert np.min(np.linalg.eigvalsh(pivots)) >= -8 * tolerance(sigma)
    for index, pivot in enumerate(pivots):  # the block holds the scalar pivots of its columns
        inside = ldl(pivot).pivots
        wanted = scalar.pivots[index * block : (index + 1) * block]
        np.testing.assert_allclose(inside, wanted, rtol=1e-6, atol=16 * tolerance(sigma))


@given(sigma=well_conditioned_moments(min_n=1, max_n=6), block=st.integers(2, 4))
def test_block_pivots_are_conditional_covariances(sigma: np.ndarray, block: int):
    big = np.kron(sigma, np.eye(block)) + np.kron(np.eye(len(sigma)), np.full((block, block), np.mean(np.diag(sigma))))
    pivots = ldl(big, block=block).pivots
    last = slice(len(big) - block, len(big))
    np.testing.assert_allclose(pivots[0], big[:block, :block], rtol=1e-12)
    np.testing.assert_allclose(pivots[-1], np.linalg.inv(np.linalg.inv(big)[last, last]), rtol=1e-8)


def test_damping_is_a_fraction_of_the_mean_diagonal():
    sigma = np.diag([1.0, 2.0, 0.0])
    np.testing.assert_allclose(ldl(sigma, damping=0.5).pivots, [1.5, 2.5, 0.5])
    indefinite = np.array([[1.0, 1.1], [1.1, 1.0]])
    np.testing.assert_allclose(product(ldl(indefinite, damping=0.2)), indefinite + 0.2 * np.eye(2))


def test_every_library_gives_the_same_factor(xp: ModuleType, rng: np.random.Generator):
    inputs = rng.standard_normal((20, 6)).astype(np.float32)
    sigma = inputs.T @ inputs
    factor, wanted = ldl(xp.asarray(sigma), order="pivoted"), ldl(sigma, order="pivoted")
    assert_same(factor.unit, wanted.unit)
    assert_same(factor.pivots, wanted.pivots)
