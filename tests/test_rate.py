"""at_rate: the wanted rate in real bytes, or an error that carries the nearest result."""

import functools
import math
import types
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

import lattq as lq
from lattq._step_search import Octaves, search_step
from lattq.errors import InvalidInputError, RateNotReachedError
from lattq.rate import largest_levels, searched
from tests.strategies import moment

TOLERANCE = 0.005


def layer(rows: int, columns: int, spread: float = 30.0) -> tuple[np.ndarray, np.ndarray]:
    weight = np.random.default_rng(columns).standard_normal((rows, columns))
    return weight, moment(np.geomspace(1, spread, columns), 2)


@pytest.mark.parametrize("recipe", [lq.recipes.watersic, lq.recipes.huffman_gptq])
@pytest.mark.parametrize("rate", [0.5, 1.5, 3.0, 4.5, 9.0])
def test_the_rate_is_met_in_real_bytes(recipe: Any, rate: float):
    weight, sigma = layer(512, 64)
    found = lq.at_rate(rate, recipe, weight, sigma)
    assert abs(8 * len(found.to_bytes()) / weight.size - rate) <= TOLERANCE
    assert found.distortion(weight, sigma) >= lq.bounds.layer_distortion(sigma, rate + TOLERANCE)


def test_a_sample_of_rows_finds_the_step_of_the_whole():
    """With more rows than the sample; float32 and scaled rows and columns, as in real layers."""
    rng = np.random.default_rng(0)
    scales = np.exp(0.5 * rng.standard_normal((1500, 1))) * np.exp(0.5 * rng.standard_normal(24))
    weight = (0.02 * rng.standard_normal((1500, 24)) * scales).astype(np.float32)
    sigma = 1e3 * moment(np.geomspace(1, 100, 24), 0)
    found = lq.at_rate(2.5, lq.recipes.watersic, weight, sigma)
    assert abs(found.rate - 2.5) <= TOLERANCE


@pytest.mark.parametrize("recipe", [lq.recipes.rtn, lq.recipes.gptq, functools.partial(lq.recipes.gptq, group=16)])
@pytest.mark.parametrize("rate", [2.6, 3.3, 4.25])
def test_integers_take_the_most_levels_that_fit(recipe: Any, rate: float):
    weight, sigma = layer(64, 64)
    found = lq.at_rate(rate, recipe, weight, sigma)
    levels = found.coder.levels
    assert found.rate <= rate
    assert lq.quantize(weight, sigma, recipe(levels + 1)).rate > rate


def test_what_no_step_reaches_ends_in_the_nearest():
    """A row alone pays for the scales of all columns, however large the step."""
    rng = np.random.default_rng(3)
    inputs = rng.standard_normal((512, 128)) * np.geomspace(1, 0.1, 128)
    with pytest.raises(RateNotReachedError, match="no step of the recipe") as caught:
        lq.at_rate(3.0, lq.recipes.watersic_published, rng.standard_normal((1, 128)), inputs.T @ inputs / 512)
    best: Any = caught.value.best
    assert best.rate > 3.0


def test_the_most_levels_are_256():
    weight, sigma = layer(64, 16)
    assert lq.at_rate(20.0, lq.recipes.rtn, weight, sigma).coder.levels == 256


def test_two_levels_may_be_too_many():
    weight, sigma = layer(64, 16)
    with pytest.raises(RateNotReachedError, match=r"two levels already take .* bits") as caught:
        lq.at_rate(0.7, lq.recipes.rtn, weight, sigma)
    assert caught.value.rate == 0.7
    best: Any = caught.value.best
    assert best.coder.levels == 2


def code_bits(recipe: Any, rate: float, weight: np.ndarray, sigma: np.ndarray) -> int:
    return lq.at_rate(rate, recipe, weight, sigma).quantizer.code.bits


@pytest.mark.parametrize(
    "recipe",
    [
        functools.partial(lq.recipes.bitshift, memory=8),
        lambda bits: lq.Scheme(quantizer=lq.quantizers.Bitshift(bits, memory=8)),
    ],
    ids=["recipe", "own"],
)
def test_a_trellis_of_fixed_rate_takes_the_most_bits_that_fit(recipe: Any):
    """Files hold 16 bits a column more, and a header of at most 300 bytes."""
    weight, sigma = layer(128, 32)
    rates = [lq.quantize(weight, sigma, recipe(bits)).rate for bits in (1, 2, 3, 4)]
    for bits, rate in enumerate(rates, 1):
        assert 16 / 128 < rate - bits < 16 / 128 + 8 * 300 / weight.size
        assert code_bits(recipe, rate, weight, sigma) == bits
        assert code_bits(recipe, rate + 0.99, weight, sigma) == bits
    with pytest.raises(RateNotReachedError, match=r"one bit already takes 1\.") as caught:
        lq.at_rate(1.0, recipe, weight, sigma)
    best: Any = caught.value.best
    assert best.rate == rates[0]


def test_a_small_header_leaves_two_bits_at_a_rate_above_two():
    weight, sigma = layer(2048, 32)
    found = lq.at_rate(2.1, functools.partial(lq.recipes.bitshift, memory=4), weight, sigma)
    assert found.quantizer.code.bits == 2
    assert 2 < found.rate <= 2.1


@pytest.mark.parametrize(
    "recipe",
    [
        functools.partial(lq.recipes.gptq, levels=4),
        functools.partial(lq.recipes.gptq, 4),
        functools.partial(lq.recipes.watersic, step=0.4),
        functools.partial(functools.partial(lq.recipes.bitshift, memory=4), bits=2),
        lambda: lq.recipes.rtn(),
        lq.recipes.block_format,
    ],
    ids=["levels", "levels by place", "step", "bits", "no option", "a name"],
)
def test_recipes_that_leave_nothing_to_search(recipe: Any):
    with pytest.raises(InvalidInputError, match="leaves nothing to search; call `quantize`"):
        lq.at_rate(3.0, recipe, *layer(16, 8))


@pytest.mark.parametrize(
    ("recipe", "name", "value", "made"),
    [
        (lq.recipes.gptq, "levels", 3, lq.recipes.gptq(3)),
        (functools.partial(lq.recipes.rtn, group=4), "levels", 3, lq.recipes.rtn(3, group=4)),
        (lambda side: lq.recipes.huffman_gptq(side), "step", 0.5, lq.recipes.huffman_gptq(0.5)),
        (lambda *, step: lq.recipes.huffman_gptq(step), "step", 0.5, lq.recipes.huffman_gptq(0.5)),
        (functools.partial(lambda memory, bits: lq.recipes.bitshift(bits, memory=memory), memory=5), "bits", 3, None),
    ],
    ids=["levels", "options", "first", "by name", "after an option"],
)
def test_what_is_searched_is_named_or_comes_first(recipe: Any, name: str, value: Any, made: lq.Scheme | None):
    found, scheme = searched(recipe)
    assert found == name
    assert scheme(value) == made if made else scheme(value).quantizer == lq.quantizers.Bitshift(value, 5)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("recipe", [lq.recipes.watersic(0.1), None, "watersic"], ids=["scheme", "none", "name"])
def test_what_is_no_recipe_is_named(recipe: Any):
    with pytest.raises(InvalidInputError, match=r"`recipe` is .*; pass a function"):
        lq.at_rate(3.0, recipe, *layer(16, 8))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("rate", [None, "3"])
def test_rates_that_are_no_numbers_are_named(rate: Any):
    with pytest.raises(InvalidInputError, match=f"`rate` is {rate!r}; pass a number"):
        lq.at_rate(rate, lq.recipes.watersic, *layer(16, 8))


@pytest.mark.parametrize("rate", [0.0, -1.0, 40.0, 24.001, math.nan, math.inf])
@pytest.mark.parametrize("recipe", [lq.recipes.watersic, lq.recipes.rtn])
def test_rates_out_of_range_are_refused(recipe: Any, rate: float):
    with pytest.raises(InvalidInputError, match="`rate` is"):
        lq.at_rate(rate, recipe, *layer(8, 4))


@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (1, 12)])
def test_tiny_matrices_cannot_reach_a_low_rate(shape: tuple[int, int]):
    """The header alone takes more; the error says what came nearest and carries it."""
    weight, sigma = layer(*shape)
    with pytest.raises(
        RateNotReachedError, match=r"no step of the recipe gives 0.5 bits .* nearest found is"
    ) as caught:
        lq.at_rate(0.5, lq.recipes.watersic, weight, sigma)
    best: Any = caught.value.best
    assert best.rate > 0.5
    assert best.rate <= 8 * 400 / weight.size
    assert f"{best.nbytes} bytes" in str(caught.value)


SPARSE = np.random.default_rng(0).standard_normal((64, 32)) * (np.random.default_rng(1).random((64, 32)) < 0.03)


@pytest.mark.parametrize(
    "weight", [np.zeros((64, 32)), np.ones((64, 32)), np.eye(64)[:, :32].copy(), SPARSE], ids=["0", "1", "I", "sparse"]
)
def test_weights_without_information_end_in_an_error_or_a_result(weight: np.ndarray):
    """Zeros, constants and mostly zeros: there may be no step for the rate, but never another kind of failure."""
    try:
        found = lq.at_rate(2.0, lq.recipes.watersic, weight, np.eye(32))
    except RateNotReachedError as error:
        best: Any = error.best
        assert best is not None
        found = best
    assert found.codes.shape == weight.shape


@pytest.mark.parametrize("sigma", [np.zeros((8, 8)), np.diag([1.0, *np.zeros(7)]), np.ones((8, 8))])
def test_singular_moments_end_in_an_error_or_a_result(sigma: np.ndarray):
    weight = np.random.default_rng(0).standard_normal((400, 8))
    for recipe in (lq.recipes.watersic, lq.recipes.huffman_gptq):
        try:
            found = lq.at_rate(0.4, recipe, weight, sigma)
        except RateNotReachedError as error:
            found: Any = error.best
        assert np.isfinite(found.dequantize()).all()


def test_bad_layers_are_refused_before_the_search():
    weight, sigma = layer(8, 4)
    weight[2, 1] = np.nan
    for recipe in (lq.recipes.watersic, lq.recipes.gptq):
        with pytest.raises(InvalidInputError, match=r"`weight` holds nan at index \(2, 1\)"):
            lq.at_rate(3.0, recipe, weight, sigma)


def test_the_same_bytes_every_time_and_another_sample_for_another_seed():
    weight, sigma = layer(700, 16)
    runs = [lq.at_rate(2.0, lq.recipes.watersic, weight, sigma, seed=seed) for seed in (0, 0, 1)]
    assert runs[0].to_bytes() == runs[1].to_bytes()
    assert abs(runs[2].rate - 2.0) <= TOLERANCE


def test_the_same_bytes_for_any_number_of_threads():
    weight, sigma = layer(256, 256)
    blobs = set()
    for threads in (1, 2):
        with threadpool_limits(threads):
            blobs.add(lq.at_rate(2.0, lq.recipes.huffman_gptq, weight, sigma).to_bytes())
    assert len(blobs) == 1


def rated(rate: float, **more: Any) -> Any:
    return types.SimpleNamespace(rate=rate, **more)


@given(offset=st.floats(-3, 3), slope=st.floats(0.3, 1.5), bend=st.floats(0, 0.5), target=st.floats(0.5, 8))
def test_the_search_converges_on_smooth_curves(offset: float, slope: float, bend: float, target: float):
    """Decreasing, convex, of about the slope that rates have, down to half of it at large steps."""

    def rate(step: float) -> float:
        x = math.log2(step)
        return offset - slope * (x - bend * math.log1p(math.exp(x)))

    step, found = search_step(target, 1.0, lambda step: rated(rate(step), step=step), Octaves(), encodes=12)
    assert abs(found.rate - target) <= TOLERANCE / 5
    assert found.step == step


def test_the_search_keeps_the_nearest_and_counts_its_encodes():
    calls = []

    def encode(step: float) -> Any:
        calls.append(step)
        return rated(5.0 if step < 1 else 1.0, step=step)

    step, found = search_step(2.5, 1.0, encode, Octaves(), encodes=5)
    assert len(calls) == 5
    assert found.rate == 1.0
    assert step in calls
    calls.clear()
    search_step(5.0, 0.5, encode, Octaves(), encodes=5)
    assert len(calls) == 1


@given(target=st.floats(1.0, 9.0), overhead=st.floats(0, 0.5))
def test_the_levels_found_are_the_largest(target: float, overhead: float):
    def encode(levels: int) -> Any:
        return rated(overhead + math.log2(levels), levels=levels)

    fits = [levels for levels in range(2, 257) if encode(levels).rate <= target]
    if fits:
        assert largest_levels(target, encode).levels == max(fits)
    else:
        with pytest.raises(RateNotReachedError):
            largest_levels(target, encode)
