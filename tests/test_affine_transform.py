"""Invertible matrices as transforms: the contract, stored numbers, designs, and every recipe of the loop after them."""

import dataclasses
from types import ModuleType
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import lattq as lq
from lattq.affine import gain
from lattq.affine.decoders import least_squares_decoder
from lattq.errors import DamagedFileError, InvalidInputError
from lattq.testing import check_transform
from lattq.transforms import WUSH, Balanced, Diagonal, Fixed, Hadamard, chains, then
from lattq.transforms.affine import Affine
from lattq.transforms.base import Transform
from lattq.transforms.chains import Chain
from lattq.transforms.maps import Identity
from tests.contracts import TransformContract
from tests.helpers import assert_same
from tests.strategies import gaussian_layer, layers, seeds


def random_affine(count: int, size: int, seed: int, dtype: str = "float16") -> Affine:
    blocks = np.random.default_rng(seed).standard_normal((count, size, size))
    return Affine(blocks + 3.0 * np.sqrt(size) * np.eye(size), dtype)


class TestDense(TransformContract):
    def transform(self, sigma: np.ndarray, seed: int) -> Transform:
        return random_affine(1, len(sigma), seed)


class TestBlocks(TransformContract):
    columns = (2, 4, 6, 12)

    def transform(self, sigma: np.ndarray, seed: int) -> Transform:
        return random_affine(len(sigma) // 2, 2, seed, "float32")


class TestBalanced(TransformContract):
    def transform(self, sigma: np.ndarray, seed: int) -> Transform:
        return Balanced()(np.random.default_rng(seed).standard_normal((3, len(sigma))), sigma)


class TestWUSH(TransformContract):
    columns = (4, 8, 12)

    def transform(self, sigma: np.ndarray, seed: int) -> Transform:
        return WUSH(block=4, seed=1)(np.random.default_rng(seed).standard_normal((3, len(sigma))), sigma)


def test_the_suite_for_packages_passes():
    check_transform(WUSH(block=2), columns=(2, 4))
    check_transform(then(Balanced(), Hadamard(1)), columns=(1, 2, 4, 12))


@given(
    seed=seeds, count=st.integers(1, 4), size=st.integers(1, 5), dtype=st.sampled_from(["int8", "float16", "float32"])
)
def test_a_transform_is_the_matrix_it_stores(seed: int, count: int, size: int, dtype: str):
    """T from `on_inputs`, its inverse from `forward`, both of the rounded numbers."""
    wanted = np.random.default_rng(seed).standard_normal((count, size, size)) + 3.0 * np.sqrt(size) * np.eye(size)
    transform, n = Affine(wanted, dtype), count * size
    matrix = transform.on_inputs(np.eye(n)).T
    assert_same(transform.inverse(np.eye(n)), matrix)
    np.testing.assert_allclose(transform.forward(np.eye(n)) @ matrix, np.eye(n), atol=1e-12)
    bits = {"int8": 6, "float16": 11, "float32": 24}[dtype]
    for block, run in enumerate(range(0, n, size)):
        part = slice(run, run + size)
        np.testing.assert_allclose(matrix[part, part], wanted[block], atol=2.0**-bits * np.abs(wanted).max())
    assert np.count_nonzero(matrix) <= count * size * size
    again = chains.from_state(msgpack.unpackb(msgpack.packb(chains.to_state(transform)) or b""), n)
    assert isinstance(again, Affine)
    assert_same(again.blocks, transform.blocks)
    assert again.dtype == dtype
    assert_same(Affine(transform.blocks, dtype).blocks, transform.blocks)


@given(seed=seeds, power=st.integers(-300, 300), dtype=st.sampled_from(["int8", "float16"]))
def test_rounded_numbers_stay_where_they_are_in_any_unit(seed: int, power: int, dtype: str):
    """Also where rounding takes the largest to the next power of two, and where small ones lose their last bits."""
    values = np.exp(6.0 * np.random.default_rng(seed).standard_normal((3, 3)))
    values[0, 0] = (2.0 - 2.0**-12) * 2.0 ** np.ceil(np.log2(values.max()))
    one, other = Affine(values, dtype), Affine(np.ldexp(values, power), dtype)
    assert_same(other.blocks, np.ldexp(one.blocks, power))
    assert_same(Affine(one.blocks, dtype).blocks, one.blocks)
    assert_same(Affine.from_state(other.to_state(), 3).blocks, other.blocks)


def test_what_a_column_is_charged():
    """`block` numbers of 16 or 32 bits, and a few bytes for all."""
    for block, dtype, width in ((8, "int8", 1), (8, "float16", 2), (4, "float16", 2), (4, "float32", 4)):
        state = msgpack.packb(chains.to_state(random_affine(64 // block, block, 0, dtype))) or b""
        assert 0 < len(state) - 64 * block * width < 24


def test_dtype_and_library_stay(xp: ModuleType):
    transform, weight = random_affine(2, 2, 1), xp.ones((3, 4), dtype=xp.float32)
    for moved in (transform.forward(weight), transform.inverse(weight), transform.on_inputs(weight)):
        assert moved.dtype == xp.float32
        assert type(moved) is type(weight)


@given(layer=layers(max_n=8), dtype=st.sampled_from(["float16", "float32"]))
def test_every_layer_has_a_balanced_map(layer: tuple[np.ndarray, np.ndarray], dtype: str):
    """Singular second moments, dead inputs, weights of zeros, one column: legal, and never NaN."""
    weight, sigma = layer
    transform = Balanced(dtype=dtype)(weight, sigma)
    moved = transform.forward(weight)
    assert np.isfinite(moved).all()
    np.testing.assert_allclose(transform.inverse(moved), weight, atol=1e-8 * np.abs(weight).max())


@pytest.mark.parametrize("powers", [(3, 0), (0, 5), (-7, 8)])
def test_other_units_give_the_same_map_bit_for_bit(powers: tuple[int, int]):
    weight, sigma = gaussian_layer(20, 8)
    for design in (Balanced(), Balanced(block=4), WUSH(block=8)):
        there = design(np.ldexp(weight, powers[0]), np.ldexp(sigma, powers[1]))
        assert_same(there.blocks, design(weight, sigma).blocks)


def test_the_map_of_the_design_is_the_closed_form():
    """Up to one factor for all, and to 11 bits."""
    weight, sigma = gaussian_layer(40, 16)
    found = WUSH(block=4, dtype="float32")(weight, sigma).forward(np.eye(16)).T
    wanted = lq.affine.wush(weight, sigma, block=4)
    scale = np.linalg.norm(wanted) / np.linalg.norm(found)
    np.testing.assert_allclose(scale * found, wanted, atol=1e-5 * np.abs(wanted).max())


RECIPES = {
    "rtn": lq.recipes.rtn(8, group=8),
    "gptq": lq.recipes.gptq(8, group=8),
    "gptvq": lq.recipes.gptvq(2, dimension=2, overhead=1.0),
    "nestquant": lq.recipes.nestquant(14),
    "bitshift": lq.recipes.bitshift(2, memory=6),
    "trellis": lq.recipes.UNBIASED(0.3, quantizer=lq.quantizers.Trellis(8)),
    "watersic": lq.recipes.watersic(0.3),
    "block format": lq.recipes.block_format("mxfp4"),
}
DESIGNS: dict[str, Any] = {
    "wush": WUSH(block=8, dtype="int8"),
    "balanced": then(Balanced(dtype="float32"), Hadamard(2)),
    "scaled": then(Fixed(Diagonal(np.linspace(1.0, 2.0, 16))), WUSH(block=16)),
}


def after(design: Any, recipe: str) -> lq.Scheme:
    scheme = RECIPES[recipe]
    plain = isinstance(scheme.transform, Identity)
    return dataclasses.replace(scheme, transform=design if plain else then(design, scheme.transform))


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("design", DESIGNS)
def test_every_recipe_of_the_loop_follows_a_map(design: str, name: str):
    """The file gives back every bit; the error is below that of zeros; folded, it is the same without the charge."""
    weight, sigma = gaussian_layer(48, 16)
    scheme = after(DESIGNS[design], name)
    layer = lq.quantize(weight, sigma, scheme)
    assert layer.distortion(weight, sigma) < 0.2 * np.einsum("ri,ij,rj->", weight, sigma, weight) / weight.size
    again = lq.Quantized.from_bytes(layer.to_bytes(), weight.shape)
    assert_same(again.dequantize(np.float64), layer.dequantize(np.float64))
    if isinstance(scheme.transform, WUSH):
        folded = Fixed(scheme.transform(weight, sigma), folded=True)
        there = lq.quantize(weight, sigma, dataclasses.replace(scheme, transform=folded))
        assert there.distortion(weight, sigma) == pytest.approx(layer.distortion(weight, sigma), rel=1e-6)
        assert there.nbytes < layer.nbytes - 8 * 16


def test_a_rate_is_reached_with_the_map_charged():
    weight, sigma = gaussian_layer(256, 16)
    layer = lq.at_rate(4.0, lambda s: lq.recipes.watersic(s, rotation=WUSH(block=4)), weight, sigma)
    assert 3.98 < layer.rate <= 4.0

    def recipe(levels: int) -> lq.Scheme:
        return dataclasses.replace(lq.recipes.gptq(levels), transform=WUSH(block=4))

    assert 3.0 < lq.at_rate(4.0, recipe, weight, sigma).rate <= 4.0


def test_eight_bits_hold_a_map():
    """Rounding T makes it another map, exactly inverted: the error of the layer hardly changes, the charge halves."""
    weight, sigma = gaussian_layer(64, 32)
    scheme = lq.recipes.rtn(8, group=None)
    wide, narrow = (
        lq.quantize(weight, sigma, dataclasses.replace(scheme, transform=WUSH(dtype=dtype)))
        for dtype in ("float32", "int8")
    )
    assert narrow.distortion(weight, sigma) < 1.05 * wide.distortion(weight, sigma)
    assert wide.nbytes - narrow.nbytes == pytest.approx(3 * 32 * 32, abs=16)


def test_packed_products_go_through_the_map():
    weight, sigma = gaussian_layer(48, 16, np.float32)
    layer = lq.quantize(weight, sigma, after(WUSH(block=8), "gptq"))
    packed = lq.packed.PackedMatrix.from_quantized(layer)
    x = np.random.default_rng(0).standard_normal(16).astype(np.float32)
    np.testing.assert_allclose(packed.matvec(x), layer.dequantize() @ x, atol=1e-4)


def test_maps_help_round_to_nearest_as_far_as_they_say():
    """Powers say what is gained over a rotation, which makes crest factors alike; largest magnitudes, over nothing."""
    rng = np.random.default_rng(3)
    mix = rng.standard_normal((32, 32)) * np.exp(rng.standard_normal(32))
    weight, sigma = rng.standard_normal((512, 32)) * np.exp(rng.standard_normal(32)), mix @ mix.T
    designs = {"plain": Identity(), "rotated": Hadamard(1), "wush": WUSH(block=32)}
    schemes = {
        name: dataclasses.replace(lq.recipes.rtn(16, group=None, fit="range"), transform=design)
        for name, design in designs.items()
    }
    error = {name: lq.quantize(weight, sigma, scheme).distortion(weight, sigma) for name, scheme in schemes.items()}
    assert 10 * np.log10(error["rotated"] / error["wush"]) == pytest.approx(gain(weight, sigma), abs=0.5)
    predicted = gain(weight, sigma, lq.affine.wush(weight, sigma), group=32)
    assert 10 * np.log10(error["plain"] / error["wush"]) == pytest.approx(predicted, abs=0.8)
    assert predicted > gain(weight, sigma) + 3.0


def test_the_least_squares_decoder_stands_in_for_the_inverse():
    """Never worse, and as a part of the file with its own rounding still better at two bits."""
    weight, sigma = gaussian_layer(256, 16)
    layer = lq.quantize(weight, sigma, after(WUSH(block=16), "rtn"))
    coarse = lq.quantize(weight, sigma, dataclasses.replace(lq.recipes.rtn(4), transform=WUSH(block=16)))
    for one in (layer, coarse):
        decoder = Affine(least_squares_decoder(weight, one.decoded()))
        again = lq.Quantized.from_bytes(one.revalued(transform=decoder).to_bytes())
        assert again.distortion(weight, sigma) < one.distortion(weight, sigma)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Affine(np.full((2, 2), np.nan)), "`blocks` holds nan"),
        (lambda: Affine(np.ones((2, 3))), r"`blocks` has shape \(2, 3\)"),
        (lambda: Affine(np.eye(2), "float8"), "`dtype` is 'float8'; a stored"),
        (lambda: Affine(np.ldexp(np.eye(2), 500)), "multiply T by a constant"),
        (lambda: Affine(np.ones((2, 2))).forward(np.ones((1, 2))), "condition inf as it is stored"),
        (lambda: Affine(np.diag([1.0, 1e-9])).forward(np.ones((1, 2))), "store float32 numbers"),
        (lambda: Affine(np.eye(3)).inverse(np.ones((1, 2))), "3 columns does not fit"),
        (lambda: Affine.of(np.ones((2, 2))), "`matrix` has condition"),
        (lambda: Affine.of(np.ones((2, 3))), r"`matrix` has shape \(2, 3\)"),
        (lambda: Affine.of(np.eye(4), 3), "does not divide the 4 columns"),
        (lambda: Affine.of(np.eye(4)[::-1], 2), "outside of its diagonal blocks"),
        (lambda: WUSH(block=0)(np.ones((1, 4)), np.eye(4)), "`block` is 0"),
        (lambda: WUSH(block=8)(np.ones((1, 12)), np.eye(12)), "`block` is 8, which does not divide the 12"),
        (lambda: WUSH(block=None)(np.ones((1, 6)), np.eye(6)), "no Hadamard matrix of the 6 columns.*`block=`"),
        (lambda: Balanced(damping=-1.0)(np.ones((1, 2)), np.eye(2)), "`damping` is -1"),
        (lambda: Balanced(damping=0.0)(np.ones((1, 2)), np.eye(2)), "pass `damping` above 0"),
        (lambda: Balanced(dtype="int4"), "`dtype` is 'int4'"),
        (lambda: WUSH(seed=-1), "`seed` is -1"),
    ],
)
def test_what_is_no_map_is_refused(make: Any, message: str):
    with pytest.raises(InvalidInputError, match=message):
        make()


STATE = random_affine(2, 2, 1).to_state()


@pytest.mark.parametrize(
    "state",
    [
        [],
        [2, 0],
        [3, *STATE[1:]],
        [0, *STATE[1:]],
        [5, *STATE[1:]],
        [True, *STATE[1:]],
        [STATE[0], 401, STATE[2]],
        [STATE[0], 400, b"\xff\x7b" * 8],
        [*STATE[:2], STATE[2][:-1]],
        [*STATE[:2], STATE[2] * 2 + b"\0"],
        [*STATE[:2], b""],
        [*STATE[:2], b"\x00\x7c" * 8],
        [*STATE[:2], b"\x00\x7e" * 8],
        [3, 0, b"\0" * 24],
    ],
)
def test_damaged_maps_are_refused(state: list):
    with pytest.raises(DamagedFileError):
        chains.from_state(["affine", state], 4)


def test_a_chain_of_maps_is_their_product():
    first, second = random_affine(1, 4, 1), random_affine(2, 2, 2)
    chain = Chain((first, second))
    np.testing.assert_allclose(
        chain.on_inputs(np.eye(4)).T, second.on_inputs(np.eye(4)).T @ first.on_inputs(np.eye(4)).T, rtol=1e-12
    )
