"""Recipes: the parts each one names, and the gap that theory predicts for it, to the last byte of overhead."""

import dataclasses
import functools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

import lattq as lq
from lattq import quantizers, recipes, transforms
from lattq.coding import FixedLength, Pooled, TwoWay
from lattq.errors import InvalidInputError
from lattq.feedback import MMSE, Cholesky, OpenLoop
from lattq.linalg import ldl
from lattq.quantizers import AbsMax, MinMax, Uniform
from lattq.scheme import Scheme
from lattq.transforms import Diagonal, Equalize, Hadamard, chains, maps
from lattq.transforms.chains import Chain
from lattq.transforms.maps import Identity
from tests.schemes import NAMES, every_scheme
from tests.strategies import gaussian_layer, moment, seeds

CUBE = 0.2546  # ½ log2(2πe / 12)
ROWS, COLUMNS = 2048, 64
# Four standard errors: ½ log2 of the sample variance of the weights, (0.72 √(2 / N)), and of the squares of uniform
# errors, (0.72 √(0.8 / N)); then the grid of scales of the coder, 0.0009, and of the pivots, 0.0002.
LUCK = 4 * 0.72 * np.sqrt(2.8 / (ROWS * COLUMNS)) + 0.0011


@pytest.mark.parametrize(
    ("scheme", "parts"),
    [
        (recipes.rtn(), (None, OpenLoop(), AbsMax(16, 128, fit="error"), None)),
        (recipes.rtn(3, group=None, symmetric=False), (None, OpenLoop(), MinMax(3, None, fit="error"), None)),
        (recipes.gptq(), (None, Cholesky("reversed", 0.01), AbsMax(16, 128, fit="error"), None)),
        (
            recipes.gptq(8, group=32, symmetric=False, order="natural", damping=0.1),
            (None, Cholesky("natural", 0.1), MinMax(8, 32, fit="error"), None),
        ),
        (recipes.huffman_gptq(0.1), (None, Cholesky("reversed", 0.0), Uniform(0.1), TwoWay())),
        (
            recipes.watersic(0.6),
            (Equalize(), MMSE(0.03, 1.0, order="pivoted"), Uniform(0.6), None),
        ),
        (
            recipes.watersic(0.6, mmse=0.0, order="natural", quantizer=Uniform(dither=7), shrink=True),
            (Equalize(), Cholesky(), Uniform(0.6, shrink=True, dither=7), None),
        ),
        (
            recipes.watersic_published(0.1),
            (Equalize(merged=True), Cholesky("natural", 1e-4), Uniform(0.1, shrink=True), Pooled()),
        ),
    ],
    ids=["rtn", "ternary", "gptq", "gptq options", "huffman_gptq", "watersic", "watersic options", "published"],
)  # fmt: skip
def test_a_recipe_is_its_four_parts(scheme: Scheme, parts: tuple[Any, Any, Any, Any]):
    assert (scheme.equalize, scheme.quantizer, scheme.coder) == (parts[0], parts[2], parts[3])
    assert scheme.transform == Identity()
    assert type(scheme.feedback) is type(parts[1])
    assert scheme.feedback == parts[1]


def test_a_rotation_goes_before_the_equalizer():
    scheme = recipes.watersic(0.1, rotation=Hadamard(3), mmse=0.0)
    assert (scheme.transform, scheme.equalize) == (Hadamard(3), Equalize())
    found = lq.quantize(np.ones((2, 4)), np.eye(4) + 1, scheme)
    assert isinstance(found.transform, Chain)
    assert [type(part) for part in found.transform.parts] == [Hadamard, Diagonal]


@pytest.mark.parametrize("recipe", [recipes.watersic, recipes.huffman_gptq, recipes.watersic_published])
@pytest.mark.parametrize("step", [0.0, -1.0, np.inf, np.nan])
def test_steps_out_of_range_are_refused(recipe: Any, step: float):
    with pytest.raises(InvalidInputError):
        recipe(step)


@pytest.fixture(scope="module")
def layer() -> tuple[np.ndarray, np.ndarray]:
    """Gaussian weights of variance 1 and a moderate second moment (condition 30, in a random basis)."""
    return np.random.default_rng(0).standard_normal((ROWS, COLUMNS)), moment(np.geomspace(1, 30, COLUMNS), 0)


@pytest.fixture(scope="module")
def uneven(layer: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """A second moment whose pivots differ by four orders of magnitude."""
    scale = np.random.default_rng(1).permutation(np.geomspace(0.1, 10, COLUMNS))
    return scale[:, None] * layer[1] * scale


def true_gap(found: lq.Quantized, weight: np.ndarray, sigma: np.ndarray) -> float:
    """Gap to the bound of the source that the weights were drawn from."""
    return found.gap(weight, sigma, row_variance=1.0, column_variance=1.0)


def side_bits(found: lq.Quantized) -> float:
    """Bits per weight of everything but the entropy-coded words: header, scales, models."""
    data: Any = found.coder.encode(found.codes)
    return found.rate - 8 * sum(map(len, data[3])) / found.codes.size


def test_watersic_comes_within_a_cube_of_the_bound(layer: tuple[np.ndarray, np.ndarray]):
    """At 4 bits, 0.2546 and the overhead of 0.02 bit (some 300 bytes for 131072 weights), less what sweeps gain."""
    weight, sigma = layer
    found = lq.at_rate(4.0, recipes.watersic, weight, sigma)
    assert side_bits(found) <= 0.02
    assert 0.2 < true_gap(found, weight, sigma) <= 0.27


@pytest.mark.parametrize("spread", ["even", "uneven"])
def test_plain_watersic_loses_a_cube_whatever_sigma_is(
    layer: tuple[np.ndarray, np.ndarray], uneven: np.ndarray, spread: str
):
    weight, sigma = layer[0], (layer[1] if spread == "even" else uneven)
    found = lq.at_rate(6.0, functools.partial(recipes.watersic, mmse=0.0, sweeps=0), weight, sigma)
    assert true_gap(found, weight, sigma) - side_bits(found) == pytest.approx(CUBE, abs=LUCK)


@pytest.mark.parametrize("spread", ["even", "uneven"])
def test_huffman_gptq_pays_for_unequal_pivots(layer: tuple[np.ndarray, np.ndarray], uneven: np.ndarray, spread: str):
    """A cube and half the log of the arithmetic over the geometric mean of the pivots, in its own order."""
    weight, sigma = layer[0], (layer[1] if spread == "even" else uneven)
    pivots = ldl(sigma, order=np.arange(COLUMNS)[::-1].copy()).pivots
    predicted = lq.bounds.cancellation_loss(pivots)
    found = lq.at_rate(8.0, recipes.huffman_gptq, weight, sigma)
    assert true_gap(found, weight, sigma) - side_bits(found) == pytest.approx(predicted, abs=LUCK)
    if spread == "uneven":
        assert predicted > CUBE + 0.5


def test_sweeps_and_mmse_are_worth_their_time(layer: tuple[np.ndarray, np.ndarray]):
    """Each option lowers the gap where it is meant to: sweeps at any rate, MMSE feedback at low rates."""
    weight, sigma = layer
    at = functools.partial(lq.at_rate, weight=weight, sigma=sigma)
    plain = functools.partial(recipes.watersic, mmse=0.0, sweeps=0)
    swept = functools.partial(recipes.watersic, mmse=0.0, sweeps=2)
    assert true_gap(at(4.0, swept), weight, sigma) < true_gap(at(4.0, plain), weight, sigma) - 0.01
    assert true_gap(at(1.0, recipes.watersic), weight, sigma) < true_gap(at(1.0, swept), weight, sigma) - 0.01


def test_the_published_variant_runs(layer: tuple[np.ndarray, np.ndarray]):
    """It comes near, and a pooled histogram costs it what the two-way model saves on scaled weights."""
    weight, sigma = layer
    found = lq.at_rate(4.0, recipes.watersic_published, weight, sigma)
    assert isinstance(found.coder, Pooled)
    assert CUBE < true_gap(found, weight, sigma) < 0.45
    scaled = weight * np.geomspace(0.1, 10, ROWS)[:, None]
    gaps = [
        lq.at_rate(4.0, recipe, scaled, sigma).gap(scaled, sigma)
        for recipe in (recipes.watersic_published, recipes.watersic)
    ]
    assert gaps[0] > gaps[1] + 0.5


def test_feedback_beats_rounding_at_the_same_size(layer: tuple[np.ndarray, np.ndarray]):
    weight, sigma = layer[0], moment(np.geomspace(1, 1000, COLUMNS), 2)
    rtn, gptq, ordered = (
        lq.quantize(weight, sigma, scheme)
        for scheme in (
            recipes.rtn(16, group=None),
            recipes.gptq(16, group=None),
            recipes.gptq(16, group=None, order="sorted"),
        )
    )
    assert rtn.nbytes == gptq.nbytes == ordered.nbytes
    for found in (gptq, ordered):
        assert found.distortion(weight, sigma) < 0.5 * rtn.distortion(weight, sigma)


def test_integers_have_a_fixed_length(layer: tuple[np.ndarray, np.ndarray]):
    """Four bits a weight, a float16 for each group, and the header."""
    weight, sigma = layer
    found = lq.quantize(weight, sigma, recipes.gptq(16, group=32))
    assert found.coder == FixedLength(levels=16, low=-8)
    assert found.nbytes <= ROWS * COLUMNS // 2 + 2 * ROWS * COLUMNS // 32 + 250


@pytest.mark.parametrize("step", [0.05, 0.5, 2.0, 20.0])
@pytest.mark.parametrize("name", NAMES)
def test_nothing_beats_the_bound(name: str, step: float):
    """Gaussian weights of known row and column variances: every recipe stays above R(D) of its source.

    The bound holds on average over draws. A draw with less energy than its variances by k standard errors gains
    k · 0.72 √(2 / N) bits, 0.06 for k = 6 here, and the header takes 0.25.
    """
    rng = np.random.default_rng(int(100 * step))
    rows, columns = np.exp(rng.standard_normal(256)), np.exp(rng.standard_normal(16))
    weight = rng.standard_normal((256, 16)) * np.sqrt(np.outer(rows, columns))
    sigma = moment(np.geomspace(1, 100, 16), 3)
    found = lq.quantize(weight, sigma, every_scheme(16, step)[name])
    if name == "folded":  # the same layer in other coordinates
        scale = np.array(found.transform.forward(np.ones((1, 16))))[0]
        weight, sigma, columns = weight * scale, found.transform.congruence(sigma), columns * scale**2
        found = lq.Quantized.from_bytes(found.to_bytes())
    assert found.gap(weight, sigma, row_variance=rows, column_variance=columns) >= 0


def test_weights_that_are_not_gaussian_may_beat_the_reference():
    """Negative control: signs cost one bit, a Gaussian of their variance at this distortion 3.3."""
    weight = np.sign(np.random.default_rng(0).standard_normal((256, 64)))
    found = lq.quantize(weight, np.eye(64), Scheme(quantizer=Uniform(0.9), coder=Pooled()))
    assert found.distortion(weight, np.eye(64)) == pytest.approx(0.01)
    assert found.gap(weight, np.eye(64)) < -2


@pytest.mark.parametrize("index", ["coded", "raw"])
def test_nestquant_meets_its_published_rates(index: str):
    """log2 14 + 2/8 + 16/n bits with a raw index, at most the published 3.99 with a coded one; and a distortion."""
    weight = np.random.default_rng(8).standard_normal((256, 2048))
    for scales in (4, "weights"):
        layer = lq.quantize(weight, np.eye(2048), recipes.nestquant(scales=scales, index=index, feedback=False))
        raw = np.log2(14) + 2 / 8 + 16 / 2048
        header = 8 * 400 / weight.size
        coded = 3.995 + 16 / 2048 if scales == "weights" else raw - 0.03
        assert raw - 0.35 < layer.rate < (raw if index == "raw" else coded) + header
        assert layer.distortion(weight, np.eye(2048)) < (0.0060 if scales == 4 else 0.0071)


def test_feedback_for_noisy_inputs_wins_where_the_inputs_are_noisy():
    """E |Wx - Ŵ(x + z)|² is tr((W-Ŵ)Σ(W-Ŵ)ᵀ) + tr(ŴJŴᵀ); where they are not, feedback that knows of no noise wins."""
    rng = np.random.default_rng(9)
    sigma, weight = moment(np.geomspace(1.0, 1e-4, 64), 9), rng.standard_normal((128, 64))
    power = np.diag(sigma).mean()

    def cost(scheme: Scheme, noise: float) -> float:
        found = lq.quantize(weight, sigma, scheme).dequantize(np.float64)
        error = weight - found
        return float(np.sum((error @ sigma) * error) + noise * power * np.sum(found**2))

    aware, blind = recipes.nestquant(noise=1 / 155), recipes.nestquant(damping=0.0)
    best = weight @ sigma @ np.linalg.inv(sigma + power / 155 * np.eye(64))
    floor = np.sum(((weight - best) @ sigma) * (weight - best)) + power / 155 * np.sum(best**2)
    # 8192 errors that are alike: the costs are known to 2 %.
    assert floor < cost(aware, 1 / 155) < 0.9 * cost(blind, 1 / 155)
    assert cost(blind, 0.0) < 0.9 * cost(aware, 0.0)


def test_nestquant_by_rate():
    weight = np.random.default_rng(10).standard_normal((64, 256))
    found = lq.at_rate(3.6, functools.partial(recipes.nestquant, index="raw"), weight, np.eye(256))
    above = lq.quantize(weight, np.eye(256), recipes.nestquant(found.quantizer.code.code.q + 1, index="raw"))
    assert found.rate <= 3.6 < above.rate


def test_scales_that_nobody_published_are_refused():
    with pytest.raises(InvalidInputError, match="'gradients'"):
        recipes.nestquant(scales="gradients")


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"feedback": False, "noise": 0.5}, "`noise` is 0.5, which only feedback"),
        ({"noise": None}, "`noise` is None"),
        ({"noise": -0.5}, "`noise` is -0.5"),
        ({"scales": "weights", "levels": 13}, "`levels` is 13"),
        ({"scales": "keys", "levels": None}, "`levels` is None"),
    ],
)
def test_options_of_nestquant_that_contradict_each_other_are_refused(options: dict, message: str):
    """They used to be ignored."""
    with pytest.raises(InvalidInputError, match=message):
        recipes.nestquant(**options)
    assert recipes.nestquant(14, scales="weights", feedback=False, noise=0.0).feedback == OpenLoop(8)


@given(seed=seeds)
@settings(max_examples=10)
def test_a_published_column_is_charged_one_number_of_16_bits(seed: int):
    """Spacing and rescaler together take two bytes a column, and nothing else is charged for columns."""
    weight, sigma = gaussian_layer(24, 16)
    weight = weight * np.random.default_rng(seed).uniform(0.5, 2.0, weight.shape)
    layer = lq.quantize(weight, sigma, recipes.watersic_published(0.3))
    kind, state = chains.to_state(layer.transform)
    assert (kind, [len(part) for part in state]) == ("diagonal", [2 * 16])
    assert layer.column_gains is None
    again = lq.Quantized.from_bytes(layer.to_bytes())
    np.testing.assert_array_equal(again.dequantize(np.float64), layer.dequantize(np.float64))
    separate = dataclasses.replace(recipes.watersic_published(0.3), equalize=transforms.Equalize(exact=True))
    apart = lq.quantize(weight, sigma, separate)
    assert layer.nbytes <= apart.nbytes - 2 * 16
    before, after = apart.dequantize(np.float64), layer.dequantize(np.float64)
    assert (np.abs(after - before) <= 2.0**-8 * np.abs(before)).all()  # bfloat16 has eight digits


def test_order_and_groups_go_together():
    """Columns of large inputs are coded first, and groups are formed of columns so sorted; the order is charged."""
    rng = np.random.default_rng(0)
    weight, scale = rng.standard_normal((256, 64)), np.exp(rng.standard_normal(64))
    mixed = rng.standard_normal((64, 64)) / 8 + np.eye(64)
    sigma = (mixed @ mixed.T) * scale * scale[:, None]
    plain, ordered = (lq.quantize(weight, sigma, recipes.gptq(4, group=16, order=o)) for o in ("reversed", "sorted"))
    assert 0 <= ordered.nbytes - plain.nbytes < 2 * 64 + 32
    order = np.argsort(-np.diag(sigma))
    by_hand = lq.quantize(weight[:, order], sigma[np.ix_(order, order)], recipes.gptq(4, group=16))
    np.testing.assert_array_equal(ordered.dequantize()[:, order], by_hand.dequantize())
    assert recipes.gptq(4, group=None, order="sorted").transform == maps.Identity()  # costs nothing


def test_the_plain_rules_have_names():
    published = recipes.gptq_published(8, group=32)
    assert published == recipes.gptq(8, group=32, symmetric=False, fit="range")
    assert published.quantizer == quantizers.MinMax(8, 32)
    assert recipes.rtn(8, fit="range").quantizer == quantizers.AbsMax(8)
    assert recipes.block_format("nvfp4", fit="range").quantizer == quantizers.Format.named("nvfp4")
