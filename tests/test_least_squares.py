"""refit: gains and centroids only help, and are least-squares solutions on the true loss."""

import dataclasses
import functools
import inspect
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lattq as lq
from lattq.errors import InvalidInputError
from lattq.feedback import OpenLoop
from lattq.least_squares.alternate import GAINS
from lattq.quantizers import AbsMax, MinMax, Uniform
from lattq.scheme import Scheme
from tests.helpers import assert_same
from tests.schemes import NAMES, every_scheme
from tests.strategies import Layer, gaussian_layer, layers, moderate

EPS = float(np.finfo(np.float64).eps)
refit = inspect.unwrap(lq.refit)  # without the shape checks that only the tests have
plain = lq.recipes.watersic(0.3)
few = settings(max_examples=settings().max_examples // 3)  # one law for many schemes


@pytest.mark.parametrize("name", NAMES)
@few
@given(layer=layers(), step=st.sampled_from([2.0, 0.3, 0.01]))
def test_refit_never_raises_the_distortion(name: str, layer: Layer, step: float):
    weight, sigma = moderate(layer)
    rough = lq.quantize(weight, sigma, every_scheme(len(sigma), step)[name])
    better = lq.refit(rough, weight, sigma)
    before, after = (found.distortion(weight, sigma) for found in (rough, better))
    assert after <= before * (1 + 1e-9) + 4 * EPS * np.square(np.abs(weight) @ np.sqrt(np.diag(sigma))).sum()
    assert_same(better.codes, rough.codes)
    assert_same(lq.Quantized.from_bytes(better.to_bytes()).dequantize(), better.dequantize())
    assert better.stats["refits"] >= 0


def test_refit_helps_at_low_rate():
    """A codebook of absmax integers of three levels reaches too far; gains pull it in, in all columns at once."""
    weight, sigma = gaussian_layer(200, 24)
    rough = lq.quantize(weight, sigma, lq.recipes.rtn(3, group=None, fit="range"))
    better = lq.refit(rough, weight, sigma)
    assert better.stats["refits"] > 0
    assert better.distortion(weight, sigma) < 0.9 * rough.distortion(weight, sigma)


def test_refitted_gains_are_the_least_squares_solution():
    """Independent columns: each gain is <w, q> / <q, q> in 128ths; rows are all alike and stay."""
    weight = 1.2 * np.random.default_rng(0).standard_normal((4000, 3))
    rough = lq.quantize(weight, np.eye(3), Scheme(quantizer=Uniform(2.0)))
    better = lq.refit(rough, weight, np.eye(3), GAINS)
    q = rough.dequantize(np.float64)
    expected = np.rint(128 * np.sum(weight * q, axis=0) / np.sum(q * q, axis=0))
    assert better.column_gains is not None
    np.testing.assert_allclose(better.column_gains, expected, atol=1)
    assert better.row_gains is None


@pytest.mark.parametrize("design", [Uniform(1.5), AbsMax(4, None, shared=True), MinMax(5, None, shared=True)])
def test_centroids_are_conditional_means(design: Any):
    """With identity sigma and whole rows as groups, a code decodes to the mean of what was given that code."""
    weight = np.random.default_rng(0).standard_normal((3000, 4))  # more rows than the normal matrix is taken from
    rough = lq.quantize(weight, np.eye(4), Scheme(quantizer=design))
    better = lq.refit(rough, weight, np.eye(4), ("centroids",))
    assert better.centroids is not None
    size = len(better.centroids) // 2
    cells = rough.decoded(shift=1.0) - rough.decoded()
    for k in np.unique(rough.codes):
        here = rough.codes == k
        error, cell = (rough.transform.forward(weight) - rough.decoded())[here], cells[here]
        mean = np.sum(error * cell) / np.sum(cell * cell)
        scatter = np.sqrt(np.sum(error**2 * cell**2)) / np.sum(cell * cell)  # a third of the rows: < 4 s.e. apart
        assert abs(better.centroids[k + size] / 128 - mean) <= 1 / 256 + 4 * scatter, k
    assert better.distortion(weight, np.eye(4)) < rough.distortion(weight, np.eye(4))


def test_centroids_solve_the_quadratic_loss():
    """Correlated inputs: no shift of a single code by 1/128 lowers the distortion by more than rounding explains."""
    weight, sigma = gaussian_layer(200, 12)
    rough = lq.quantize(weight, sigma, Scheme(feedback=OpenLoop(), quantizer=Uniform(1.0)))
    better = lq.refit(rough, weight, sigma, ("centroids",))
    assert better.centroids is not None
    least = better.distortion(weight, sigma)
    for k in np.unique(rough.codes):
        for move in (-2, 2):
            moved = better.centroids.copy()
            moved[k + len(moved) // 2] += move
            assert dataclasses.replace(better, centroids=moved).distortion(weight, sigma) > least


@given(layer=layers(), step=st.sampled_from([2.0, 0.5]))
def test_what_is_kept_pays_for_its_bytes(layer: Layer, step: float):
    """In small layers a few bytes are worth a lot: the gap never rises, up to the framing of the container."""
    weight, sigma = moderate(layer)
    rough = lq.quantize(weight, sigma, lq.recipes.huffman_gptq(step))
    better = lq.refit(rough, weight, sigma)
    before, after = rough.distortion(weight, sigma), better.distortion(weight, sigma)
    if after > 0:
        bits = 8 * (len(better.payload) - len(rough.payload)) / weight.size
        assert after * 4.0**bits <= before * (1 + 1e-9)


def test_refits_add_up():
    weight, sigma = gaussian_layer(200, 24)
    once = lq.refit(lq.quantize(weight, sigma, lq.recipes.rtn(3, group=None, fit="range")), weight, sigma)
    assert lq.refit(once, weight, sigma).stats["refits"] >= once.stats["refits"] > 0


def test_parameters_are_known():
    with pytest.raises(InvalidInputError, match="'scales'"):
        lq.refit(lq.quantize(np.ones((2, 4)), np.eye(4), plain), np.ones((2, 4)), np.eye(4), ("scales",))


def test_row_gains_are_kept_where_they_pay():
    """Half of the rows carry a third of their codes' size; a row gain is worth far more than its byte."""
    rng = np.random.default_rng(1)
    weight = rng.standard_normal((40, 300))
    rough = lq.quantize(weight, np.eye(300), Scheme(quantizer=Uniform(0.5)))
    target = weight * np.where(np.arange(40) % 2, 1.0, 0.33)[:, None]
    better = lq.refit(rough, target, np.eye(300))
    assert better.row_gains is not None
    assert better.row_gains[::2].max() < better.row_gains[1::2].min()
    assert better.distortion(target, np.eye(300)) < 0.2 * rough.distortion(target, np.eye(300))


def test_refit_wants_the_same_shape():
    found = lq.quantize(np.ones((2, 4)), np.eye(4), plain)
    with pytest.raises(InvalidInputError, match=r"`weight` has shape \(3, 4\)"):
        refit(found, np.ones((3, 4)), np.eye(4))


METRICS = {
    "inputs": lambda sigma, outputs: lq.Metric(sigma),
    "diagonal": lambda sigma, outputs: lq.Metric(sigma, np.diag(outputs)),
    "whole": lambda sigma, outputs: lq.Metric(sigma, outputs),
    "groups of rows": lambda sigma, outputs: lq.Metric(sigma, guides=np.stack([sigma, np.diag(np.diag(sigma))])),
}


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("recipe", [lq.recipes.rtn, functools.partial(lq.recipes.rtn, symmetric=False)])
def test_refitted_steps_are_the_least_squares_solution(name: str, recipe: Any):
    """Beside a dense solve for all factors at once; float16 moves each step by 2^-11 of it at most."""
    rng = np.random.default_rng(0)
    rows, columns, group = 8, 12, 4
    sigma, outputs = (
        x.T @ x / 64 for x in (rng.normal(size=(64, n)) @ rng.normal(size=(n, n)) for n in (columns, rows))
    )
    metric, weight = METRICS[name](sigma, outputs), rng.normal(size=(rows, columns))
    rough = lq.quantize(weight, sigma, recipe(4, group=group, fit="range"))
    found = rough
    for _ in range(40):  # group after group: together they are reached in the limit
        found = lq.refit(found, weight, metric, ("steps",))
    z = rough.dequantize().astype(np.float64)
    parts = np.zeros((rows * columns // group, rows, columns))
    for number, part in enumerate(parts):
        row, own = number // (columns // group), number % (columns // group) * group
        part[row, own : own + group] = z[row, own : own + group]
    products = [[np.sum(metric.left(metric.right(a)) * b) for b in (*parts, weight)] for a in parts]
    normal, right = np.array(products)[:, :-1], np.array(products)[:, -1]
    factors = np.linalg.lstsq(normal, right, rcond=1e-12)[0]
    best = metric.squared_error(weight - np.einsum("p,prc->rc", factors, parts))
    rounding = metric.squared_error(2.0**-11 * z) * len(parts)  # errors of steps may all add up
    assert best * (1 - 1e-6) <= found.distortion(weight, metric) <= best * 1.01 + rounding
    assert found.distortion(weight, metric) < 0.95 * rough.distortion(weight, metric)
    assert len(found.payload) == len(rough.payload)
    assert np.array_equal(found.codes, rough.codes)


def test_a_step_of_all_rows_is_left():
    weight = np.random.default_rng(0).normal(size=(16, 4))
    rough = lq.quantize(weight, np.eye(4), lq.Scheme(quantizer=lq.quantizers.Uniform(2.0)))
    assert lq.refit(rough, weight, np.eye(4), ("steps",)).payload == rough.payload
