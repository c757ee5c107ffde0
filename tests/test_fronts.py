"""The loop where rows hear each other: its definition, its distortion, and the files it leads to."""

import dataclasses
import functools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lattq as lq
from lattq.coding.fronts import Fronts
from lattq.errors import InvalidInputError
from lattq.feedback import MMSE, Cholesky, OpenLoop, fronts, successive_cancellation
from lattq.feedback.fronts import Wave
from lattq.feedback.rules import beside
from lattq.lattices import E8
from lattq.linalg.stacked import StackedLDL
from lattq.quantizers import Bitshift, Codebook, Lattice, Trellis, Uniform
from lattq.transforms.rows import RowScales
from tests.oracles.two_sided import two_sided
from tests.strategies import moment, seeds

EPS = float(np.finfo(np.float64).eps)


def problem(seed: int, groups: int, height: int, columns: int, octaves: float = 1.0) -> tuple[np.ndarray, lq.Metric]:
    """Gaussian weights, and a metric with blocks of outputs whose spectra span so many factors of ten."""
    rng = np.random.default_rng(seed)
    sigma = moment(10.0 ** rng.uniform(0, octaves, columns), seed)
    g = np.stack([moment(10.0 ** rng.uniform(0, octaves, height), seed + k) for k in range(groups)])
    return rng.standard_normal((groups * height, columns)), lq.Metric(sigma, g)


def rows_of(metric: lq.Metric) -> StackedLDL:
    """The factors of its outputs."""
    assert metric.output_factor is not None
    return metric.output_factor


shapes = {"seed": seeds, "groups": st.integers(1, 3), "height": st.integers(2, 6), "columns": st.integers(1, 7)}


@given(**shapes, step=st.floats(0.1, 2), chunk=st.integers(1, 9), strip=st.integers(1, 5))
def test_the_loop_over_fronts_is_its_definition(
    seed: int, groups: int, height: int, columns: int, step: float, chunk: int, strip: int
):
    """Chunks, strips and matrix products give what one entry after the other gives, whatever their sizes."""
    weight, metric = problem(seed, groups, height, columns)
    factor, outputs = Cholesky("pivoted").factor(weight, metric.inputs), rows_of(metric)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fronts, "CHUNK", chunk)
        patch.setattr(fronts, "STRIP", strip)
        found = successive_cancellation(weight, factor, Uniform(step), outputs=outputs)
    if (np.abs(np.abs(found.noise) / step - 0.5) < 1e-5).any():  # a tie, which two correct programs may break otherwise
        return
    quantizer = lq.quantizers.UniformQuantizer(np.full((1, 1), step))
    for k in range(groups):
        rows = slice(k * height, (k + 1) * height)
        expected = two_sided(
            weight[rows][:, factor.order],
            factor.unit,
            outputs.unit[k],
            lambda target: quantizer.decode(quantizer.encode(target)),
        )
        np.testing.assert_allclose(found.reconstruction[rows][:, factor.order], expected, rtol=0, atol=1e4 * EPS)


@pytest.mark.parametrize(
    "cell", [Uniform(0.3), Trellis(8, 0.3), Lattice(E8, 0.3)], ids=["uniform", "trellis", "lattice"]
)
@given(**shapes)
def test_the_distortion_is_that_of_plain_rounding_errors(cell: Any, seed: int, groups: int, height: int, columns: int):
    """D = Σ c_i d_j N_ij² with N the targets less their reconstructions; and N within half a cell of cubes."""
    weight, metric = problem(seed, groups, height, columns)
    factor, outputs = Cholesky().factor(weight, metric.inputs), rows_of(metric)
    found = successive_cancellation(weight, factor, cell, outputs=outputs)
    price = np.outer(outputs.pivots.reshape(-1), factor.pivots)
    direct = metric.squared_error(weight - found.reconstruction) * weight.size
    assert direct == pytest.approx(float(np.sum(price * found.noise**2)), rel=1e-9)
    if isinstance(cell, Uniform):
        assert np.abs(found.noise).max() <= 0.15 * (1 + 1e-9)


def test_without_feedback_between_rows_there_is_more_error():
    """A negative control: then rows cost the diagonal of G, where feedback leaves its pivots."""
    weight, metric = problem(0, 1, 24, 24, octaves=2.0)
    factor, outputs = Cholesky().factor(weight, metric.inputs), rows_of(metric)
    plain = StackedLDL(np.eye(24)[None], outputs.pivots)
    two, one = (successive_cancellation(weight, factor, Uniform(0.05), outputs=x) for x in (outputs, plain))
    exact = 0.05**2 / 12 * float(np.sum(np.outer(outputs.pivots, factor.pivots))) / weight.size
    assert metric.squared_error(weight - two.reconstruction) == pytest.approx(exact, rel=0.2)
    without = exact * float(np.trace(metric.outputs[0]) / outputs.pivots.sum())
    assert without > 1.3 * exact
    assert metric.squared_error(weight - one.reconstruction) == pytest.approx(without, rel=0.2)


@given(seed=seeds, height=st.integers(2, 5), columns=st.integers(1, 6))
def test_a_penalty_moves_targets_as_in_columns(seed: int, height: int, columns: int):
    """tr(G ((W-Ŵ) Σ (W-Ŵ)ᵀ + Ŵ J Ŵᵀ)): with tiny cells the loop finds its minimum, W Σ (Σ + J)⁻¹."""
    weight, metric = problem(seed, 1, height, columns)
    factor = MMSE(noise=0.5, ratio=1.0).factor(weight, metric.inputs)
    found = successive_cancellation(weight, factor, Uniform(1e-6), outputs=rows_of(metric)).reconstruction
    best = weight @ metric.inputs @ np.linalg.inv(metric.inputs + np.diag(np.asarray(factor.penalty)))
    np.testing.assert_allclose(found, best, atol=1e-4)


@given(**shapes, step=st.floats(0.3, 2), penalty=st.sampled_from([0.0, 0.2]))
def test_sweeps_never_raise_the_distortion(
    seed: int, groups: int, height: int, columns: int, step: float, penalty: float
):
    weight, metric = problem(seed, groups, height, columns)
    factor = MMSE(noise=penalty, ratio=1.0).factor(weight, metric.inputs)

    def cost(sweeps: int) -> float:
        found = successive_cancellation(weight, factor, Uniform(step), sweeps=sweeps, outputs=rows_of(metric))
        left = metric.squared_error(weight - found.reconstruction)
        j = np.zeros(columns) if factor.penalty is None else factor.penalty
        return left + float(np.sum(metric.left(found.reconstruction) * found.reconstruction * j)) / weight.size

    first = cost(0)
    assert cost(1) <= first * (1 + 1e-9)
    assert cost(2) <= first * (1 + 1e-9)


@pytest.mark.parametrize("group", [None, 2])
def test_groups_of_columns_have_scales_of_their_rows(group: int | None):
    """The quantizer of a group codes each entry of a front with the step of its row."""
    weight, metric = problem(0, 2, 3, 6)
    weight[1] *= 100.0
    found = lq.quantize(weight, metric, lq.recipes.yaqa(64, group=group, fit="range"))
    steps = found.quantizer.step
    assert steps[1].min() > 10 * np.delete(steps, 1, axis=0).max()
    assert (np.abs(found.codes).max(axis=1) > 8).all()  # every row makes use of its own range
    one = lq.quantize(weight, metric.inputs, lq.recipes.gptq(64, group=group, fit="range"))
    assert found.distortion(weight, metric) < one.distortion(weight, metric)


def test_sweeps_spare_errors_of_integers_for_no_byte():
    rng = np.random.default_rng(0)
    inputs, scores = (rng.standard_normal((1024, n)) @ rng.standard_normal((n, n)) for n in (128, 64))
    metric = lq.Metric(inputs.T @ inputs / 1024, scores.T @ scores / 1024).damped()
    weight = rng.standard_normal((64, 128))
    plain, swept = (lq.quantize(weight, metric, lq.recipes.yaqa(8, sweeps=n)) for n in (0, 4))
    assert swept.distortion(weight, metric) < 0.95 * plain.distortion(weight, metric)
    assert len(swept.payload) == len(plain.payload)


@pytest.mark.parametrize("rate", [2.0, 3.0])
def test_two_sides_are_better_in_their_own_metric(rate: float):
    """At low rate too, and for outputs that hardly count: a penalty on both sides keeps them from costing more."""
    rng = np.random.default_rng(0)
    mixed = rng.standard_normal((1024, 96)) @ rng.standard_normal((96, 96)) / 10
    metric, weight = lq.Metric(np.eye(128), mixed.T @ mixed / 1024), rng.standard_normal((96, 128))
    recipe = functools.partial(lq.recipes.two_sided, mmse=0.6)  # best for one layer
    one, two = (lq.at_rate(rate, recipe, weight, x) for x in (metric.inputs, metric))
    assert two.distortion(weight, metric) < 0.6 * one.distortion(weight, metric)
    assert 0 < two.gap(weight, metric) < 0.45
    plain = lq.quantize(weight, metric, lq.recipes.two_sided(0.67, mmse=0.0))  # 3 bits, and no step has just that
    assert plain.gap(weight, metric) > 1.0  # a negative control


def test_a_penalty_on_both_sides_is_minimized(rng: np.random.Generator):
    """tr((G + J) (W-Ŵ) Σ' (W-Ŵ)ᵀ) with the weights that `beside` aims for is the charged form up to a constant."""
    weight, metric = problem(0, 2, 3, 5)
    rule = MMSE(noise=0.3, ratio=1.0)
    found = beside(rule, weight, metric.outputs, metric.inputs)
    penalty = found.outputs - metric.outputs
    other = rng.standard_normal(weight.shape)

    def charged(guess: np.ndarray) -> float:
        own = metric.squared_error(weight - guess) * weight.size
        blocks = guess.reshape(2, 3, 5)
        return own + float(np.einsum("gab,gbj,jk,gak->", penalty, blocks, metric.inputs, blocks))

    def aimed(guess: np.ndarray) -> float:
        return lq.Metric(metric.inputs, found.outputs).squared_error(found.weight - guess) * weight.size

    assert charged(other) - charged(weight) == pytest.approx(aimed(other) - aimed(weight), rel=1e-9)
    assert np.linalg.eigvalsh(penalty).min() > 0
    assert found.rule.noise > 0
    assert beside(OpenLoop(), weight, metric.outputs, metric.inputs).outputs.shape == (6, 1, 1)


@pytest.mark.parametrize("height", [2, 8, 48])
@pytest.mark.parametrize("cell", [Uniform(), Trellis(8), Trellis(256, segment=16), Lattice(E8)], ids=repr)
def test_files_restore_what_was_coded_along_fronts(cell: Any, height: int):
    weight, metric = problem(1, 48 // height, height, 20)
    layer = lq.quantize(weight, metric, lq.recipes.watersic(1.0, quantizer=cell))
    again = lq.Quantized.from_bytes(layer.to_bytes())
    np.testing.assert_array_equal(again.codes, layer.codes)
    np.testing.assert_array_equal(again.dequantize(), layer.dequantize())
    assert again.to_bytes() == layer.to_bytes()
    assert again.distortion(weight, metric) == layer.distortion(weight, metric)


def test_the_gap_of_two_sides_is_that_of_one(rng: np.random.Generator):
    """4 bits, whitened by both sides: the cell's loss and side information, as for Σ alone; and the bound is kept."""
    weight, metric = problem(2, 1, 96, 96)
    best = lambda step: lq.recipes.watersic(step, mmse=0.0, sweeps=0)  # noqa: E731
    two = lq.at_rate(4.0, best, weight, metric).gap(weight, metric)
    one = lq.at_rate(4.0, best, weight, metric.inputs).gap(weight, metric.inputs)
    rows = lq.at_rate(4.0, best, weight, metric).sizes()["transform"] * 8 / weight.size
    assert 0.2 < two < one + rows + 0.05


def test_a_diagonal_scales_rows_and_leaves_columns_as_fronts(rng: np.random.Generator):
    """Rows that count 16 times as much have cells of a quarter; pivoted orders and all libraries stay."""
    weight, g = rng.standard_normal((64, 16)), np.repeat([1.0, 16.0], 32)
    layer = lq.quantize(weight, lq.Metric(np.eye(16), g), lq.recipes.watersic(0.2, mmse=0.0, sweeps=0))
    error = np.square(weight - layer.dequantize(np.float64)).mean(axis=1)
    assert error[:32].mean() / error[32:].mean() == pytest.approx(16.0, rel=0.2)


def test_scales_of_rows_are_a_transform(rng: np.random.Generator):
    scales = RowScales(np.array([0, 16, -5]))
    weight, g = rng.standard_normal((3, 4)), moment(np.array([1.0, 2.0, 3.0]), 0)[None]
    np.testing.assert_allclose(scales.inverse(scales.forward(weight)), weight, rtol=1e-15)
    moved = scales.forward(weight)
    assert np.trace(moved.T @ scales.output_congruence(g)[0] @ moved) == pytest.approx(
        np.trace(weight.T @ g[0] @ weight)
    )
    assert RowScales.from_state(scales.to_state(), 4).steps.tolist() == [0, 16, -5]
    with pytest.raises(InvalidInputError, match="3 scales of rows do not fit a matrix of 4 rows"):
        scales.forward(np.ones((4, 2)))
    with pytest.raises(InvalidInputError, match="`steps` go from"):
        RowScales(np.array([1 << 30]))


@pytest.mark.parametrize(
    ("scheme", "message"),
    [
        (lq.recipes.watersic(0.1, shrink=True), "`shrink` is True, but gains of columns are not known"),
        (
            lq.Scheme(quantizer=Codebook(size=2, dimension=1), outputs=True),
            "CodebookQuantizer does not say how to code entries",
        ),
        (
            lq.Scheme(quantizer=Bitshift(2, memory=6, block=4), outputs=True),
            "BitshiftQuantizer does not say how to code entries",
        ),
    ],
)
def test_what_knows_no_fronts_says_so(scheme: lq.Scheme, message: str):
    weight, metric = problem(0, 1, 4, 4)
    with pytest.raises(InvalidInputError, match=message):
        lq.quantize(weight, metric, scheme)
    lq.quantize(weight, dataclasses.replace(metric, outputs=np.ones(4)), scheme)
    lq.quantize(weight, metric, dataclasses.replace(scheme, outputs=False))


def test_free_columns_and_rows_cost_next_to_nothing():
    """Inputs that are never there, and outputs that nobody hears: scalar codes of 0."""
    weight, metric = problem(0, 1, 8, 8)
    sigma, g = metric.inputs.copy(), metric.outputs[0].copy()
    sigma[3] = sigma[:, 3] = g[2] = g[:, 2] = 0.0
    layer = lq.quantize(weight, lq.Metric(sigma, g), lq.recipes.watersic(0.1, mmse=0.0, sweeps=0))
    assert not layer.codes[2].any()
    assert not layer.codes[:, 3].any()
    assert layer.distortion(weight, lq.Metric(sigma, g)) < 0.01


@given(rows=st.integers(1, 6), columns=st.integers(1, 6), height=st.integers(1, 6))
def test_fronts_hold_every_entry_once_and_none_hears_another(rows: int, columns: int, height: int):
    rows *= height
    fronts_ = Fronts(rows, columns, height)
    places = fronts_.places(0, fronts_.number)
    assert sorted(places.tolist()) == list(range(rows * columns))
    assert sum(fronts_.size(k) for k in range(fronts_.number)) == rows * columns
    for k in range(fronts_.number):
        r, c = fronts_.entries(k)
        same = (r[:, None] // height == r // height) & (r[:, None] >= r) & (c[:, None] >= c)
        assert same.sum() == len(r)  # itself alone


@settings(max_examples=20)
@given(seed=seeds, block=st.sampled_from([1, 2]), height=st.integers(1, 4))
def test_a_wave_of_blocks_is_the_loop_of_blocks(seed: int, block: int, height: int):
    """Blocks of columns are units of a front: the errors of a block are fed back together."""
    rng = np.random.default_rng(seed)
    weight, n = rng.standard_normal((height, 4)), 4 // block
    unit = np.tril(rng.standard_normal((4, 4)), -1)
    for k in range(n):
        unit[k * block : (k + 1) * block, k * block : (k + 1) * block] = 0.0
    rows_unit = np.eye(height) + np.tril(rng.standard_normal((height, height)), -1)
    turned, into = weight.T.copy(), [np.empty((4, height)) for _ in range(3)]
    wave = Wave(turned, turned, unit.T.copy(), rows_unit[None], block, into[0], into[1].astype(np.int32), into[2])
    wave.run(lambda front, target: (np.round(target).astype(np.int32), np.round(target)))
    expected = two_sided(weight, unit + np.eye(4), rows_unit, np.round)
    np.testing.assert_allclose(weight - wave.error.T, expected, atol=1e-9)
