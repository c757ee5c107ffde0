"""Groups of rows with second moments of their own: the form, the loop, the bound, files, and what is refused."""

import dataclasses
import functools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import lattq as lq
from lattq.errors import InvalidInputError, NotPositiveSemidefiniteError
from lattq.feedback import Cholesky, successive_cancellation
from lattq.feedback.by_rows import cancel_groups
from lattq.linalg.stacked import StackedLDL
from lattq.quantizers import AbsMax, Codebook, Lattice, MinMax, Trellis, Uniform
from lattq.transforms import Hadamard
from lattq.transforms.rows import RowScales
from tests.helpers import assert_same
from tests.oracles.two_sided import layer_rate_by_bisection
from tests.strategies import moment, seeds

EPS = float(np.finfo(np.float64).eps)
shapes = {"seed": seeds, "groups": st.integers(1, 4), "height": st.integers(1, 5), "columns": st.integers(1, 9)}


def problem(seed: int, groups: int, height: int, columns: int, octaves: float = 1.5) -> tuple[np.ndarray, lq.Metric]:
    """Gaussian weights, a second moment for each group of rows, and factors of the rows."""
    rng = np.random.default_rng(seed)
    guides = np.stack([moment(10.0 ** rng.uniform(0, octaves, columns), seed + k) for k in range(groups)])
    outputs = 10.0 ** rng.uniform(-1, 1, groups * height)
    return rng.standard_normal((groups * height, columns)), lq.Metric(guides.mean(axis=0), outputs, guides=guides)


def each(metric: lq.Metric) -> list[lq.Metric]:
    """The metric of each group of rows by itself."""
    assert metric.outputs is not None
    split = np.split(metric.outputs.reshape(-1), len(metric.guides))
    return [lq.Metric(guide, own) for guide, own in zip(metric.guides, split, strict=True)]


@given(**shapes)
def test_the_form_is_the_sum_over_groups(seed: int, groups: int, height: int, columns: int):
    weight, metric = problem(seed, groups, height, columns)
    parts = np.split(weight, groups)
    expected = sum(one.squared_error(own) * own.size for one, own in zip(each(metric), parts, strict=True))
    assert metric.squared_error(weight) * weight.size == pytest.approx(expected, rel=1e3 * EPS)
    assert np.sum(metric.left(metric.right(weight)) * weight) == pytest.approx(expected, rel=1e4 * EPS)
    single = np.zeros_like(weight)
    single[-1, 0] = 1.0
    assert metric.diagonal(len(weight))[-1, 0] == pytest.approx(metric.squared_error(single) * weight.size, rel=1e-9)
    again = lq.Metric.from_arrays(metric.to_arrays())
    assert again.squared_error(weight) == metric.squared_error(weight)


def test_damping_draws_groups_to_their_mean():
    """Each keeps its size, and all of a share that goes to infinity are Σ."""
    _, metric = problem(0, 3, 2, 5)
    damped, alike = metric.damped(0.5), metric.damped(1e12)
    sizes = np.trace(metric.guides, axis1=1, axis2=2)
    np.testing.assert_allclose(np.trace(damped.guides, axis1=1, axis2=2), sizes)
    share = sizes[:, None, None] / np.trace(metric.inputs) * metric.inputs
    np.testing.assert_allclose(damped.guides, (metric.guides + 0.5 * share) / 1.5)
    np.testing.assert_allclose(alike.guides, share, atol=1e-9)


@given(**{**shapes, "columns": st.sampled_from([1, 2, 4, 12])})
def test_the_form_is_the_same_in_other_coordinates(seed: int, groups: int, height: int, columns: int):
    weight, metric = problem(seed, groups, height, columns)
    for transform in (Hadamard(1)(weight, metric.inputs), RowScales(np.arange(len(weight)) - 2)):
        moved = metric.moved(transform).squared_error(transform.forward(weight))
        assert moved == pytest.approx(metric.squared_error(weight), rel=1e-9)


@given(**shapes, step=st.floats(0.05, 2), sweeps=st.integers(0, 2))
def test_each_group_is_the_loop_of_its_own_rows(
    seed: int, groups: int, height: int, columns: int, step: float, sweeps: int
):
    """Codes, reconstructions and noise; so distortion is that of plain rounding errors, group by group."""
    weight, metric = problem(seed, groups, height, columns)
    factors = [Cholesky("pivoted").factor(weight, guide) for guide in metric.guides]
    outputs = StackedLDL.of(metric.outputs)
    found = cancel_groups(weight, factors, Uniform(step), sweeps=sweeps, outputs=outputs)
    for k, factor in enumerate(factors):
        rows = slice(k * height, (k + 1) * height)
        alone = successive_cancellation(weight[rows], factor, Uniform(step), sweeps=sweeps)
        assert_same(found.codes[rows], alone.codes)
        assert_same(found.reconstruction[rows], alone.reconstruction)
        assert_same(found.noise[rows], alone.noise)


@pytest.mark.parametrize(
    "design",
    [AbsMax(8, 3, fit="error"), MinMax(5, 4, fit="error"), AbsMax(4, None), MinMax(16, 2, shared=True)],
    ids=repr,
)
@pytest.mark.parametrize("groups", [1, 2, 3])
def test_a_layer_is_its_groups_quantized_alone(design: Any, groups: int):
    """Codes and steps of each group are those of its rows in its own metric; the file restores them."""
    weight, metric = problem(7, groups, 4, 10)
    scheme = lq.Scheme(feedback=Cholesky("reversed", 0.01), quantizer=design, guides=3)
    found = lq.quantize(weight, metric, scheme)
    values = found.dequantize(np.float64)
    again = lq.Quantized.from_bytes(found.to_bytes())
    assert_same(again.dequantize(np.float64), values)
    assert again.to_bytes() == found.to_bytes()
    # Weights come to a design in a power of two that is one for all groups here, and each has its own alone.
    for one, own, mine in zip(each(metric), np.split(weight, groups), np.split(values, groups), strict=True):
        alone = lq.quantize(own, one, dataclasses.replace(scheme, guides=0)).dequantize(np.float64)
        np.testing.assert_allclose(mine, alone, rtol=2**-10, atol=1e-12)


def test_one_group_is_no_group():
    weight, metric = problem(1, 1, 12, 8)
    metric = lq.Metric(metric.inputs, guides=metric.guides)
    guided, plain = lq.recipes.guided(8, group=4), lq.recipes.gptq(8, group=4)
    assert lq.quantize(weight, metric, guided).to_bytes() == lq.quantize(weight, metric.inputs, plain).to_bytes()
    assert lq.quantize(weight, metric.inputs, guided).to_bytes() == lq.quantize(weight, metric, plain).to_bytes()


def test_groups_are_better_in_their_own_metric():
    """Against one Σ for all, and, as a negative control, against the groups' own in another order."""
    weight, metric = problem(2, 4, 16, 64, octaves=2.0)
    wrong = dataclasses.replace(metric, guides=metric.guides[[1, 2, 3, 0]])
    recipe = lq.recipes.guided(8, group=32)
    own, mixed, other = (
        lq.quantize(weight, one, scheme).distortion(weight, metric)
        for one, scheme in ((metric, recipe), (metric, lq.recipes.gptq(8, group=32)), (wrong, recipe))
    )
    assert own < 0.8 * mixed
    assert other > mixed


@given(seed=seeds, groups=st.integers(1, 3), height=st.integers(1, 2), share=st.floats(0.05, 0.9))
def test_the_rate_is_waterfilling_over_all_groups(seed: int, groups: int, height: int, share: float):
    """Against the spectrum of the whole quadratic form and a bisection for the water level."""
    rng = np.random.default_rng(seed)
    _, metric = problem(seed, groups, height, 3)
    rows, columns = 10.0 ** rng.uniform(-1, 1, groups * height), 10.0 ** rng.uniform(-1, 1, 3)
    whole = np.zeros((groups * height * 3,) * 2)
    for i in range(groups * height):
        whole[3 * i : 3 * i + 3, 3 * i : 3 * i + 3] = metric.outputs[i, 0, 0] * metric.guides[i // height]
    variance = np.outer(rows, columns)
    distortion = share * float(np.mean(np.diag(whole) * variance.reshape(-1)))
    found = lq.bounds.layer_rate(metric, distortion, rows, columns)
    assert found == pytest.approx(layer_rate_by_bisection(whole, variance, distortion), abs=1e-9)
    assert lq.bounds.layer_distortion(metric, found, rows, columns) == pytest.approx(distortion, rel=1e-9)


@pytest.mark.parametrize("mmse", [0.0, 0.3])
def test_entropy_coding_knows_groups_too(mmse: float):
    """One transform and one step for all; better than one Σ, and above the bound."""
    weight, metric = problem(3, 4, 24, 64, octaves=2.0)
    plain = functools.partial(lq.recipes.watersic, mmse=mmse, sweeps=0, outputs=False)
    one = lq.at_rate(4.0, plain, weight, metric)
    own = lq.at_rate(4.0, lambda step: dataclasses.replace(plain(step), guides=4), weight, metric)
    assert own.distortion(weight, metric) < 0.8 * one.distortion(weight, metric)
    assert own.rate > lq.bounds.layer_rate(metric, own.distortion(weight, metric), 1.0, 1.0)
    assert_same(lq.Quantized.from_bytes(own.to_bytes()).dequantize(), own.dequantize())


def test_rows_are_never_worse_than_zeros():
    """Gains of rows, if feedback does not help, are those of each group's own Σ."""
    guides = np.stack([np.ones((2, 2)), np.eye(2)])
    weight, metric = np.array([[0.9, -0.9], [0.9, -0.9]]), lq.Metric(np.eye(2), guides=guides)
    scheme = dataclasses.replace(lq.recipes.rtn(levels=2, fit="range"), guides=2)
    found = lq.quantize(weight, metric, scheme)
    assert found.distortion(weight, metric) <= metric.squared_error(weight)


@pytest.mark.parametrize("xp", ["numpy", "torch"])
def test_any_array_library_runs(xp: str):
    module = pytest.importorskip(xp)
    weight, metric = problem(4, 2, 6, 8)
    found = lq.quantize(module.asarray(weight.astype(np.float32)), metric, lq.recipes.guided(8, group=4))
    expected = lq.quantize(weight.astype(np.float32), metric, lq.recipes.guided(8, group=4))
    assert found.to_bytes() == expected.to_bytes()


@pytest.mark.parametrize(
    ("scheme", "message"),
    [
        ({"quantizer": Trellis(8), "guides": 2}, "but the sequences of Trellis.* are for the rows of all groups"),
        ({"quantizer": Lattice(step=0.1), "guides": 2}, "but the sequences of Lattice"),
        ({"quantizer": Uniform(0.1, shrink=True), "guides": 2}, "but `shrink` of Uniform"),
        ({"quantizer": Uniform(0.1), "refit": ("rows",), "guides": 2}, "but `refit` is for the rows of all groups"),
        ({"quantizer": Codebook(4), "rounds": 1, "guides": 2}, "but `rounds` is for the rows of all groups"),
        ({"guides": -1}, "`guides` is -1; pass how many, 0 or more"),
    ],
)
def test_what_is_for_all_rows_knows_no_groups(scheme: dict[str, Any], message: str):
    with pytest.raises(InvalidInputError, match=message):
        lq.Scheme(**scheme)


def test_what_is_no_metric_of_groups_is_refused():
    weight, metric = problem(5, 2, 3, 4)
    with pytest.raises(InvalidInputError, match=r"`guides` has shape \(2, 3, 3\); pass a second moment of 4 columns"):
        lq.Metric(np.eye(4), guides=np.stack([np.eye(3)] * 2))
    with pytest.raises(InvalidInputError, match="`outputs` has blocks of 3 rows beside `guides`"):
        lq.Metric(np.eye(4), np.eye(3), guides=np.eye(4)[None])
    with pytest.raises(NotPositiveSemidefiniteError, match="`guides`"):
        lq.Metric(np.eye(2), guides=-np.eye(2)[None])
    with pytest.raises(InvalidInputError, match="`guides` of 2 groups, which do not divide 5 rows"):
        lq.quantize(weight[:5], lq.Metric(np.eye(4), guides=metric.guides), lq.recipes.guided(4))
    with pytest.raises(InvalidInputError, match="CodebookQuantizer does not say how rows of several stand"):
        lq.quantize(weight, metric, lq.Scheme(quantizer=Codebook(4, dimension=1), guides=2))


def test_other_schemes_see_the_mean_alone():
    weight, metric = problem(6, 2, 4, 6)
    scheme = lq.recipes.gptq(8, group=3)
    assert lq.quantize(weight, metric, scheme).to_bytes() == lq.quantize(weight, metric.inputs, scheme).to_bytes()
    plain = lq.Metric(metric.inputs, metric.outputs)
    sided = lq.recipes.yaqa(8, group=3)
    assert lq.quantize(weight, metric, sided).to_bytes() == lq.quantize(weight, plain, sided).to_bytes()


def test_groups_of_rows_with_equal_steps_stand_below_each_other():
    """A dead layer, or heads that repeat: equal quantizers of rows are still of their rows alone."""
    rng = np.random.default_rng(0)
    moments = np.stack([x.T @ x / 64 for x in rng.normal(size=(2, 64, 16))])
    half = rng.normal(size=(6, 16))
    for weight in (np.zeros((12, 16)), np.vstack([half, half])):
        metric = lq.Metric(moments[0], guides=np.stack([moments[0]] * 2))
        for recipe in (lq.recipes.guided(4, group=8), lq.recipes.guided(4, group=8, symmetric=False)):
            found = lq.quantize(weight, metric, recipe)
            assert np.array_equal(found.dequantize()[:6], found.dequantize()[6:])
            assert_same(lq.Quantized.from_bytes(found.to_bytes()).dequantize(), found.dequantize())


@pytest.mark.parametrize("parameter", ["columns", "centroids"])
def test_refits_are_least_squares_with_guides_too(parameter: str):
    """The reported distortion falls to that of the best of a fine grid of one common factor, or below."""
    rng = np.random.default_rng(0)
    guides = np.stack([np.diag([4.0, 0.1, 1.0, 1.0]), np.diag([0.1, 4.0, 1.0, 1.0])])
    metric, weight = lq.Metric(guides.mean(axis=0), guides=guides), rng.normal(size=(2048, 4))
    rough = lq.quantize(weight, metric.inputs, lq.recipes.rtn(5, group=None, fit="range"))
    found = lq.refit(rough, weight, metric, (parameter,))
    z = rough.dequantize().astype(np.float64)
    best = min(metric.squared_error(weight - g * z) for g in np.linspace(0.4, 1.1, 71))
    assert found.distortion(weight, metric) <= 1.02 * best
