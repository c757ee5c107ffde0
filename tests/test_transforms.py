"""Transforms: the contract for every kind, equal pivots, stored state, and what folding leaves behind."""

from types import ModuleType
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lattq.errors import DamagedFileError, InvalidInputError
from lattq.feedback import MMSE, Cholesky
from lattq.linalg import ldl
from lattq.linalg.ldl import LDL
from lattq.transforms import Diagonal, Equalize, Fixed, Hadamard, Normalize, chains, then
from lattq.transforms.base import Transform
from lattq.transforms.chains import Chain, Folded
from lattq.transforms.designs import Sort, TransformDesign
from lattq.transforms.gain import Gain
from lattq.transforms.grid import grid_scale
from lattq.transforms.maps import Identity, Permutation
from tests.contracts import TransformContract
from tests.helpers import assert_same
from tests.strategies import layers, moment, seeds, well_conditioned_moments

HADAMARD_SIZES = {1, 2, 4, 8, 12}


def random_diagonal(n: int, seed: int) -> Diagonal:
    return Diagonal(np.random.default_rng(seed).uniform(0.1, 10.0, n))


def random_permutation(n: int, seed: int) -> Permutation:
    return Permutation(np.random.default_rng(seed).permutation(n))


class TestIdentity(TransformContract):
    def transform(self, sigma: np.ndarray, seed: int) -> Transform:
        return Identity()(np.ones((1, len(sigma))), sigma)


class TestDiagonal(TransformContract):
    def transform(self, sigma: np.ndarray, seed: int) -> Transform:
        return random_diagonal(len(sigma), seed)


class TestGain(TransformContract):
    def transform(self, sigma: np.ndarray, seed: int) -> Transform:
        return Normalize(2688.0)(np.random.default_rng(seed).standard_normal((3, len(sigma))), sigma)


class TestPermutation(TransformContract):
    def transform(self, sigma: np.ndarray, seed: int) -> Transform:
        return random_permutation(len(sigma), seed)


class TestHadamard(TransformContract):
    columns = sorted(HADAMARD_SIZES)

    def transform(self, sigma: np.ndarray, seed: int) -> Transform:
        return Hadamard(seed)


class TestEqualize(TransformContract):
    def transform(self, sigma: np.ndarray, seed: int) -> Transform:
        weight = np.random.default_rng(seed).standard_normal((3, len(sigma)))
        return Equalize()(MMSE(noise=0.01).factor(weight, sigma))


class TestChain(TransformContract):
    columns = sorted(HADAMARD_SIZES)

    def transform(self, sigma: np.ndarray, seed: int) -> Transform:
        n, weight = len(sigma), np.random.default_rng(seed).standard_normal((3, len(sigma)))
        first = Chain((random_diagonal(n, seed), random_permutation(n, seed)))
        return then(Fixed(first), Hadamard(seed), Sort())(weight, sigma)


class TestNoTransforms(TransformContract):
    def transform(self, sigma: np.ndarray, seed: int) -> Transform:
        return Chain(())


@given(seed=seeds, n=st.sampled_from(sorted(HADAMARD_SIZES)))
def test_transforms_are_the_matrices_they_stand_for(seed: int, n: int):
    """forward is W T⁻¹, inverse is W T, congruence is T Σ Tᵀ, with T read off from inverse(I)."""
    sigma = moment(np.linspace(1, 2, n), seed)
    chain = Chain((random_diagonal(n, seed), Hadamard(seed), random_permutation(n, seed)))
    for transform in (*chain.parts, chain):
        matrix = transform.inverse(np.eye(n))
        np.testing.assert_allclose(transform.forward(np.eye(n)), np.linalg.inv(matrix), atol=1e-12)
        np.testing.assert_allclose(transform.congruence(sigma), matrix @ sigma @ matrix.T, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize(
    "transform", [random_diagonal(4, 1), random_permutation(4, 1), Hadamard(1), Identity(), Gain(3.0)]
)
def test_dtype_and_library_stay(xp: ModuleType, transform: Any):
    weight = xp.ones((3, 4), dtype=xp.float32)
    for moved in (transform.forward(weight), transform.inverse(weight)):
        assert moved.dtype == xp.float32
        assert type(moved) is type(weight)


@given(layer=layers(), folded=st.booleans())
def test_every_part_is_a_transform(layer: tuple[np.ndarray, np.ndarray], folded: bool):
    weight, sigma = layer
    designs = [Fixed(Permutation(np.arange(len(sigma))), folded), Identity(), Sort()]
    for design in (*designs, then(*designs)):
        assert isinstance(design, TransformDesign)
        assert isinstance(design(weight, sigma), Transform)
    assert isinstance(Equalize()(Cholesky().factor(weight, sigma)), Transform)


def product(factor: LDL) -> np.ndarray:
    """The factored matrix, columns in their own order."""
    back = np.argsort(factor.order)
    return ((factor.unit * factor.pivots) @ factor.unit.T)[np.ix_(back, back)]


def pivots_after(diagonal: Diagonal, factor: LDL, h: np.ndarray) -> np.ndarray:
    """Pivots of the equalized matrix, eliminated anew in the order of the factor."""
    return ldl(diagonal.congruence(h), order=factor.order).pivots


FEEDBACKS = [
    Cholesky(), Cholesky("reversed"), Cholesky("pivoted"), MMSE(1e-3), MMSE(1.0), MMSE(0.1, order="natural"),
]  # fmt: skip


@pytest.mark.parametrize("feedback", FEEDBACKS, ids=str)
@given(sigma=well_conditioned_moments(min_n=2), seed=seeds)
def test_equalized_pivots_are_alike_within_the_grid(feedback: Any, sigma: np.ndarray, seed: int):
    """On the grid of 1/16 octave a pivot is off by at most 1/16 octave, which costs at most (ln 2) / (4 · 16²) bits by
    Hoeffding's lemma; a coarser grid is chosen where it costs less, bytes included. Exact scales are float32.
    """
    weight = np.random.default_rng(seed).standard_normal((30, len(sigma)))
    factor = feedback.factor(weight, sigma / np.diag(sigma).mean())
    h = product(factor)
    pivots = pivots_after(Equalize()(factor), factor, h)
    assert 0.5 * (np.log2(pivots.mean()) - np.log2(pivots).mean()) <= np.log(2) / 4 / 16**2 + 16 / (1 << 20)
    exact = Equalize(exact=True)(factor)
    np.testing.assert_allclose(pivots_after(exact, factor, h), 1.0, rtol=4 * float(np.finfo(np.float32).eps))
    np.testing.assert_allclose(product(factor.rescaled(1 / exact.scale)), exact.congruence(h), rtol=1e-9, atol=1e-9)


def test_other_pivots_are_not_equalized():
    """Negative control: the scales are those of one order, not of another."""
    sigma = moment(np.logspace(0, 3, 12), 0)
    pivots = pivots_after(Equalize()(ldl(sigma)), ldl(sigma, order=np.arange(12)[::-1]), sigma)
    assert np.abs(np.log2(pivots)).max() > 1


def test_columns_without_a_pivot_get_a_moderate_scale():
    sigma = np.diag([0.0, 4.0, 16.0, 0.0])
    np.testing.assert_array_equal(Equalize()(ldl(sigma)).scale, grid_scale(np.array([24, 16, 32, 24])))
    np.testing.assert_array_equal(Equalize()(ldl(np.zeros((4, 4)))).scale, np.ones(4))


@given(seed=seeds, n=st.integers(1, 40), spread=st.floats(0, 200))
def test_grid_scales_are_stored_as_exponents(seed: int, n: int, spread: float):
    exponents = np.rint(spread * np.random.default_rng(seed).standard_normal(n)).astype(np.int64)
    diagonal = Diagonal(grid_scale(exponents))
    assert_same(diagonal.exponents, exponents)
    assert_same(Chain((random_diagonal(n, 0), diagonal)).exponents, exponents)
    np.testing.assert_allclose(diagonal.scale, 2.0 ** (exponents / 16), rtol=1e-14)
    assert_same(stored(diagonal, n).scale, diagonal.scale)


def test_other_scales_have_no_exponents():
    assert Diagonal(np.array([1.0, 1.01])).exponents is None
    assert Hadamard().exponents is None
    assert Chain(()).exponents is None


def stored(transform: Any, n: int) -> Any:
    """The transform after a trip through the container's bytes."""
    packed = msgpack.packb(chains.to_state(transform))
    return chains.from_state(msgpack.unpackb(packed or b""), n)


@given(seed=seeds, n=st.sampled_from(sorted(HADAMARD_SIZES)))
def test_stored_state_restores_the_same_bits(seed: int, n: int):
    """Every kind, nested; scales that lie on no grid are rounded to float32 when the transform is made."""
    rng = np.random.default_rng(seed)
    single = random_diagonal(n, seed)
    assert_same(single.scale.astype(np.float32).astype(np.float64), single.scale)
    grid = Diagonal(grid_scale(rng.integers(-100, 100, n)))
    parts = (Identity(), single, random_permutation(n, seed), Chain((Hadamard(seed), grid)), Chain(()))
    weight = rng.standard_normal((3, n))
    for transform in (*parts, Chain(parts)):
        again = stored(transform, n)
        assert type(again) is type(transform)
        assert_same(again.inverse(weight), transform.inverse(weight))
        assert_same(again.forward(weight), transform.forward(weight))


def test_long_permutations_take_wide_indices():
    n = (1 << 16) + 1
    order = np.random.default_rng(0).permutation(n)
    assert_same(stored(Permutation(order), n).order, order)
    assert_same(stored(Permutation(order[:2].argsort()), 2).order, order[:2].argsort())


def test_sort_puts_large_moments_first():
    sigma = np.diag([1.0, 9.0, 4.0, 9.0])
    assert_same(Sort()(np.ones((1, 4)), sigma).order, np.array([1, 3, 2, 0]))


def test_chained_designs_see_what_came_before():
    """The second sort finds nothing left to do."""
    sigma = moment(np.logspace(0, 3, 8), 1)
    weight = np.random.default_rng(0).standard_normal((20, 8))
    chain: Any = then(Sort(), Sort())(weight, sigma)
    assert (chain.parts[0].order != np.arange(8)).any()
    np.testing.assert_array_equal(chain.parts[1].order, np.arange(8))


def test_folded_weights_stay_transformed():
    inner = random_diagonal(4, 3)
    folded, weight, sigma = Fixed(inner, folded=True)(np.ones((1, 4)), np.eye(4)), np.ones((2, 4)), np.eye(4)
    assert_same(folded.forward(weight), inner.forward(weight))
    assert_same(folded.congruence(sigma), inner.congruence(sigma))
    assert_same(folded.inverse(weight), weight)
    assert chains.to_state(folded) == ["folded", []]


def test_a_folded_transform_is_gone_after_a_round_trip():
    again = stored(Folded(random_diagonal(4, 3)), 4)
    assert_same(again.inverse(np.ones((2, 4))), np.ones((2, 4)))
    for use in (lambda: again.forward(np.ones((2, 4))), lambda: again.congruence(np.eye(4))):
        with pytest.raises(InvalidInputError, match="not part of the bytes"):
            use()


def test_only_the_first_of_a_chain_may_be_folded():
    """What is quantized lives behind the folded part; a stored part before it could not be undone."""
    inner, stored_part = Folded(random_diagonal(4, 1)), random_diagonal(4, 2)
    chain = Chain((Chain((inner, stored_part)), stored_part))
    assert chains.folded(chain) is inner
    assert chains.folded(stored_part) is None
    weight = np.ones((2, 4))
    np.testing.assert_allclose(chain.inverse(chain.forward(weight)), inner.forward(weight))
    for parts in ((stored_part, inner), (inner, inner), (stored_part, Chain((inner,)))):
        with pytest.raises(InvalidInputError, match="not the first of its chain"):
            Chain(parts)


@pytest.mark.parametrize(
    "transform", [random_diagonal(3, 1), random_permutation(3, 1), Chain((random_diagonal(3, 1),))]
)
def test_other_sizes_are_refused(transform: Any):
    for use in (transform.forward, transform.inverse, transform.congruence):
        with pytest.raises(InvalidInputError, match="3 columns does not fit"):
            use(np.eye(4))


@pytest.mark.parametrize("order", [[0, 0, 1], [1, 2, 3], [0, -1, 1]])
def test_an_order_must_be_a_permutation(order: list[int]):
    with pytest.raises(InvalidInputError, match="not a permutation"):
        Permutation(np.array(order))


@given(sigma=well_conditioned_moments(min_n=6, max_n=6), block=st.sampled_from([2, 3, 6]))
def test_blocks_are_equalized_by_their_determinants(sigma: np.ndarray, block: int):
    """Their columns share one scale, and the product of the eigenvalues of each pivot becomes 1."""
    factor = Cholesky(block=block).factor(np.ones((1, 6)), sigma)
    exact = Equalize(exact=True)(factor)
    assert (exact.scale.reshape(-1, block) == exact.scale[::block, None]).all()
    determinants = np.linalg.det(factor.rescaled(1 / exact.scale).pivots)
    np.testing.assert_allclose(determinants, 1.0, rtol=2 * block * 2.0**-23)  # scales are float32


@pytest.mark.parametrize("wrong", [0.0, -1.0, np.inf, np.nan])
def test_scales_must_be_positive_and_finite(wrong: float):
    with pytest.raises(InvalidInputError, match="`scale` holds"):
        Diagonal(np.array([1.0, wrong]))


def test_sizes_without_a_hadamard_matrix_are_refused():
    with pytest.raises(InvalidInputError, match="size 6"):
        Hadamard().forward(np.ones((1, 6)))


def test_rotation_makes_columns_alike():
    """A single loud input is heard everywhere, and a sum of squares stays."""
    sigma = np.diag([64.0, *np.zeros(63)])
    np.testing.assert_allclose(np.diag(Hadamard(2).congruence(sigma)), 1.0, rtol=1e-12)


def test_normalize_takes_the_largest_magnitude_to_its_place(xp: ModuleType):
    weight = np.array([[0.5, -0.3], [0.1, -1.7]])
    gain = Normalize(448.0)(xp.asarray(weight), np.eye(2))
    assert gain == Gain(448.0 / 1.7)
    assert float(np.float32(gain.scale)) == gain.scale
    assert np.abs(gain.forward(weight)).max() == pytest.approx(448.0, rel=2.0**-24)
    assert Normalize()(xp.zeros((2, 2)), np.eye(2)) == Gain(1.0)
    state = chains.to_state(gain)
    assert chains.from_state(state, 2) == gain
    with pytest.raises(DamagedFileError, match="3 bytes"):
        chains.from_state(["gain", [b"abc"]], 2)


@pytest.mark.parametrize("scale", [0.0, -1.0, 1e39, 1e-50, np.nan])
def test_gains_out_of_range_are_refused(scale: float):
    with pytest.raises(InvalidInputError, match="within float32"):
        Gain(scale)
    with pytest.raises(InvalidInputError, match="`largest`"):
        Normalize(-1.0)


@pytest.mark.parametrize("size", [1e-36, 1e50])
def test_a_gain_beyond_float32_names_the_weights(size: float):
    with pytest.raises(InvalidInputError, match=r"largest magnitude of `weight` is 2e.*multiply the weights"):
        Normalize()(np.array([[size, -2 * size]]), np.eye(2))
