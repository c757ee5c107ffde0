"""The unit of the weights and of the inputs changes no code: everything stored follows it by a power of two."""

from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lattq as lq
from lattq import recipes
from lattq.errors import DamagedFileError, InvalidInputError
from lattq.feedback import Cholesky
from lattq.scheme import Scheme
from lattq.transforms import Diagonal, Fixed, Hadamard, then
from lattq.transforms.chains import Chain, from_state, split_unit, to_state
from lattq.transforms.gain import Gain
from lattq.transforms.maps import Identity
from tests.helpers import assert_same
from tests.schemes import FIXED_RATE, for_columns
from tests.strategies import moment, seeds

few = settings(max_examples=settings().max_examples // 5)  # one law for many schemes
N = 16
ABSOLUTE = {"seven levels"}  # a step in the unit of the weights
ADAM = {"codebook published"}  # whose update of tables has a fixed rate, as published; its codes follow
EVERY = {**FIXED_RATE, **{name: one for name, one in for_columns(N).items() if name not in ("folded", "chained")}}
NAMES = sorted(set(EVERY) - ABSOLUTE)


def layer(seed: int, dtype: Any = np.float32) -> tuple[np.ndarray, np.ndarray]:
    """Weights that are whole multiples of 2^-12 below 8, so that a power of two loses nothing."""
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal((24, N)) * np.exp(rng.standard_normal((24, 1)))
    return np.clip(np.round(weight * 4096) / 4096, -8, 8).astype(dtype), moment(np.geomspace(1, 30, N), seed)


@pytest.mark.parametrize("name", NAMES)
@few
@given(seed=seeds, power=st.integers(-100, 100))
def test_weights_in_another_unit_have_the_same_codes(name: str, seed: int, power: int):
    weight, sigma = layer(seed)
    here, there = (lq.quantize(w, sigma, EVERY[name]) for w in (weight, np.ldexp(weight, power)))
    assert_same(there.codes, here.codes)
    assert abs(len(there.payload) - len(here.payload)) <= 2
    if name not in ADAM:
        assert_same(there.dequantize(np.float64), np.ldexp(here.dequantize(np.float64), power))
    again = lq.Quantized.from_bytes(there.to_bytes())
    assert_same(again.dequantize(np.float64), there.dequantize(np.float64))


@pytest.mark.parametrize("name", NAMES)
@few
@given(seed=seeds, power=st.integers(-50, 50))
def test_inputs_in_another_unit_have_the_same_bytes(name: str, seed: int, power: int):
    weight, sigma = layer(seed)
    assert lq.quantize(weight, sigma * 4.0**power, EVERY[name]).to_bytes() == (
        lq.quantize(weight, sigma, EVERY[name]).to_bytes()
    )


@pytest.mark.parametrize("power", [-300, 300])
@pytest.mark.parametrize("name", ["gptq", "palette", "bitshift", "nested", "squeezellm", "nf4 in threes"])
def test_float64_reaches_further(name: str, power: int):
    weight, sigma = layer(0, np.float64)
    here, there = (lq.quantize(w, sigma, EVERY[name]) for w in (weight, np.ldexp(weight, power)))
    assert_same(there.dequantize(np.float64), np.ldexp(here.dequantize(np.float64), power))


def test_weights_beyond_squares_are_refused():
    for size in (1e-200, 1e200):
        with pytest.raises(InvalidInputError, match="multiply the weights by a constant"):
            lq.quantize(np.full((4, 4), size), np.eye(4), recipes.rtn())


@pytest.mark.parametrize(
    ("recipe", "unit"),
    [
        (recipes.huffman_gptq, 1.0),
        (recipes.watersic, 1.0),
        (recipes.UNBIASED, 1.0),
        (recipes.watersic_published, 1.0),
        (lambda step: recipes.ecvq(step, size=16), 1.0),
        (lambda step: recipes.watersic(step, quantizer=lq.quantizers.Trellis(8)), 1.0),
        (lambda step: recipes.watersic(step, quantizer=lq.quantizers.Lattice(lq.lattices.E8)), 1.0),
    ],
)
@pytest.mark.parametrize("power", [-100, -20, 20, 100])
def test_recipes_with_a_step_follow_it(recipe: Any, unit: float, power: int):
    """In the unit of the weights, and where pivots are equalized in that of the outputs."""
    weight, sigma = layer(1, np.float64)
    here = lq.quantize(weight, sigma, recipe(0.25))
    there = lq.quantize(np.ldexp(weight, power), sigma, recipe(0.25 * 2.0**power))
    assert_same(there.codes, here.codes)
    assert_same(there.dequantize(np.float64), np.ldexp(here.dequantize(np.float64), power))
    if recipe is not recipes.huffman_gptq:
        there = lq.quantize(weight, sigma * 4.0**power, recipe(0.25 * 2.0**power))
        assert_same(there.codes, here.codes)


@pytest.mark.parametrize("size", [1e-10, 1e-7, 1e-3, 1e4])
@pytest.mark.parametrize(
    "scheme",
    [
        recipes.bitshift(memory=6),
        recipes.rtn(),
        recipes.palettize(4),
        recipes.gptvq(2),
        recipes.pq(2),
        recipes.nestquant(),
        recipes.squeezellm(3),
        recipes.block_format("nf4"),
        recipes.block_format("nvfp4"),
        recipes.block_format("mxfp4"),
    ],
    ids=lambda scheme: type(scheme.quantizer).__name__,
)
def test_small_and_large_weights_lose_no_more_than_others(scheme: Scheme, size: float):
    """Sizes that are no powers of two: other roundings of scales, and other optima of k-means, within half."""
    weight = np.random.default_rng(0).standard_normal((64, 32))
    plain = lq.quantize(weight, np.eye(32), scheme).dequantize(np.float64) - weight
    found = lq.quantize(weight * size, np.eye(32), scheme)
    error = weight - found.dequantize(np.float64) / size
    assert np.mean(error**2) <= 1.5 * np.mean(plain**2)
    assert found.stats["underflow"] == 0


def test_the_power_of_two_costs_a_byte_or_two():
    for exponent, cost in ((0, 0), (5, 1), (-30, 1), (-100, 2)):
        chain = Chain((Hadamard(3), Gain(2.0**exponent)))
        state = to_state(chain) if exponent else to_state(Hadamard(3))
        assert len(state) - 2 == bool(exponent)
        sizes = [len(msgpack.packb(one) or b"") for one in (state, to_state(Hadamard(3)))]
        assert sizes[0] - sizes[1] == cost
        assert split_unit(from_state(state, 4)) == (Hadamard(3), exponent)
    assert to_state(Gain(0.25)) == ["identity", [], -2]
    assert from_state(["identity", [], -2], 4) == Gain(0.25)
    assert split_unit(Gain(3.0)) == (Gain(3.0), 0)
    twice = from_state(to_state(Chain((Gain(4.0), Gain(2.0)))), 4)
    assert_same(twice.forward(np.ones((1, 4))), np.full((1, 4), 8.0))
    with pytest.raises((InvalidInputError, DamagedFileError)):
        from_state(["identity", [], 5000], 4)


def test_a_power_of_two_is_exact_beyond_float32():
    weight = np.full((1, 2), 2.0**-140, dtype=np.float32)
    assert_same(Gain(2.0**140).forward(weight), np.ones((1, 2), dtype=np.float32))
    assert_same(Gain(2.0**140).inverse(np.ones((1, 2), dtype=np.float32)), weight)


def test_designs_that_follow_no_unit_get_weights_as_they_are():
    """A step given by the user is in the unit of the weights; so is what a design of one's own may hold."""
    weight, sigma = layer(2)
    diagonal = Fixed(Diagonal(np.full(N, 3.0)))
    for scheme in (Scheme(feedback=Cholesky()), recipes.block_format("nvfp4"), Scheme(transform=then(diagonal))):
        assert split_unit(lq.quantize(weight, sigma, scheme).transform)[1] == 0
    assert isinstance(lq.quantize(weight, sigma, Scheme()).transform, Identity)
