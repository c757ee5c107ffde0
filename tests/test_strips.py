"""Strips of columns, coded in one go: the loop's definition, column by column, and what it says of its own errors."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lattq as lq
from lattq._array import from_host, to_host
from lattq.errors import CodeOverflowError
from lattq.feedback import MMSE, Cholesky, successive_cancellation
from lattq.feedback.descent import descent
from lattq.feedback.loop import STRIP
from lattq.feedback.turning import as_columns, as_lines
from lattq.linalg import ldl
from lattq.quantizers import AbsMax, Given, Trellis, Uniform, UniformQuantizer
from lattq.quantizers.trellis import TrellisQuantizer
from tests.oracles.cancellation import cancellation
from tests.strategies import moment, seeds


def layer(seed: int, rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((rows, columns)), moment(10.0 ** rng.uniform(-2, 0, columns), seed)


class ByColumns(UniformQuantizer):
    """The same cells, which no compiled code knows."""

    def encode(self, x: Any) -> Any:
        return super().encode(x)


class SequencesByColumns(TrellisQuantizer):
    """The same sequences, which no compiled code knows."""

    def encode(self, x: Any) -> Any:
        return super().encode(x)


DESIGNS = {
    "one step": (Uniform(0.4), ByColumns),
    "between the integers": (Uniform(0.4, offset=0.3), ByColumns),
    "with ends": (Uniform(0.4, levels=4), ByColumns),
    "steps of rows": (AbsMax(levels=7, group=None), ByColumns),
    "trellis": (Trellis(states=64, step=0.4, segment=16), SequencesByColumns),
    "priced trellis": (Trellis(states=8, step=2.5, segment=16), SequencesByColumns),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", DESIGNS)
@settings(max_examples=12)
@given(seed=seeds, columns=st.sampled_from([1, 2, STRIP, STRIP + 5]), sweeps=st.integers(0, 1))
def test_a_strip_is_its_columns_one_by_one(name: str, dtype: type, seed: int, columns: int, sweeps: int):
    """Where the two sum in another order, a target that lies on the edge of a cell may fall to either side."""
    design, slow = DESIGNS[name]
    weight, sigma = layer(seed, 37, columns)
    weight, factor = weight.astype(dtype), MMSE(0.01).factor(weight, sigma)
    found = successive_cancellation(weight, factor, design, sweeps=sweeps)
    quantizer: Any = found.quantizers[0]
    alone = slow(**{field.name: getattr(quantizer, field.name) for field in dataclasses.fields(quantizer)})
    expected = successive_cancellation(weight, factor, Given(alone), sweeps=sweeps)
    same = np.all(found.codes == expected.codes)
    assert same or (dtype is np.float32 and np.mean(found.codes != expected.codes) < 0.05)
    assert not same or found.overload == expected.overload
    size = 40 * columns * np.finfo(dtype).eps * (1 + np.abs(weight).max()) ** 2
    if same:
        np.testing.assert_allclose(found.reconstruction, expected.reconstruction, rtol=0, atol=size)


@settings(max_examples=12)
@given(seed=seeds, columns=st.sampled_from([3, STRIP + 1, 3 * STRIP]))
def test_strips_are_the_definition_of_the_loop(seed: int, columns: int):
    weight, sigma = layer(seed, 5, columns)
    factor = Cholesky("pivoted").factor(weight, sigma)
    found = successive_cancellation(weight, factor, Uniform(0.3))
    expected = cancellation(weight, factor.unit, factor.order, lambda x: np.round(x / 0.3) * 0.3)
    np.testing.assert_allclose(found.reconstruction, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("rows", [16, 5])
def test_columns_with_steps_of_their_own_keep_them(rows: int):
    """Also where there are as many columns as rows, whose steps a strip would take."""
    weight = np.random.default_rng(0).standard_normal((rows, 16))
    steps = np.linspace(0.1, 0.5, 16)[None]
    known = lq.quantizers.Given(lq.quantizers.UniformQuantizer(steps, group=1))
    found = lq.quantize(weight, np.eye(16), lq.Scheme(quantizer=known))
    np.testing.assert_array_equal(found.codes, np.rint(weight / found.quantizer.step))


def test_columns_that_cost_nothing_get_the_codes_of_zero():
    weight = np.random.default_rng(0).standard_normal((9, 4)) + 3.0
    sigma = np.diag([1.0, 0.0, 2.0, 0.0])
    codes = successive_cancellation(weight, ldl(sigma), Uniform(0.5)).codes
    assert not codes[:, [1, 3]].any()
    assert codes[:, [0, 2]].all()


@pytest.mark.parametrize("design", [Uniform(1e-12), Trellis(step=1e-12)], ids=["scalar", "trellis"])
@pytest.mark.parametrize("value", [1.0, np.nan, np.inf])
def test_codes_that_are_too_large_are_refused(design: Any, value: float):
    weight = np.zeros((3, 3))
    weight[1, 1] = value
    with pytest.raises(CodeOverflowError, match=r"a code of size (1e|5e|2e|nan|inf)"):
        successive_cancellation(weight, ldl(np.eye(3)), design)


@settings(max_examples=12)
@given(seed=seeds, rows=st.integers(1, 150), columns=st.integers(1, 70))
def test_columns_become_lines_and_columns_again(xp, seed: int, rows: int, columns: int):
    rng = np.random.default_rng(seed)
    x, order = rng.standard_normal((rows, columns)), rng.permutation(columns)
    lines = as_lines(xp.asarray(x), order)
    np.testing.assert_array_equal(to_host(lines), x.T[order])
    np.testing.assert_array_equal(to_host(as_columns(lines, order)), x)


@pytest.mark.parametrize("block", [1, 3])
@settings(max_examples=12)
@given(seed=seeds, blocks=st.integers(1, 30), scaled=st.booleans())
def test_the_matrix_of_sweeps_is_that_of_the_factors(block: int, seed: int, blocks: int, scaled: bool):
    """With a penalty, damped or not, after a change of scale."""
    weight, sigma = layer(seed, 4, block * blocks)
    factor = MMSE(0.1, order="natural", block=block).factor(weight, sigma)
    if scaled:
        factor = factor.rescaled(np.exp(np.random.default_rng(seed).standard_normal(block * blocks)))
    assert factor.matrix is not None
    forgetful = type(factor)(factor.unit, factor.pivots, factor.order, factor.penalty)
    lines = as_lines(weight, factor.order)
    for one, other in zip(descent(factor, lines), descent(forgetful, lines), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-9 * (np.abs(one).max() + np.abs(other).max()))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("design", [Uniform(0.4), Trellis(states=8, step=0.4, segment=16)], ids=["scalar", "trellis"])
@settings(max_examples=12)
@given(seed=seeds, columns=st.integers(1, 40), sweeps=st.integers(0, 3), noise=st.sampled_from([0.0, 0.1]))
def test_the_certificate_bounds_the_distortion(
    design: Any, dtype: type, seed: int, columns: int, sweeps: int, noise: float
):
    """And is no more than the penalty above it, which a bound of the whole objective has to be."""
    weight, sigma = layer(seed, 23, columns)
    weight = weight.astype(dtype)
    found = successive_cancellation(weight, MMSE(noise).factor(weight, sigma), design, sweeps=sweeps)
    error = weight.astype(np.float64) - found.reconstruction
    distortion = float(np.sum(error @ sigma * error))
    assert distortion <= found.bound * (1 + 1e-9)
    if not noise:
        slack = 1e-2 if dtype is np.float32 else 1e-9
        assert found.bound <= distortion * (1 + slack) + slack * float(np.trace(sigma))


def test_nothing_is_certain_where_the_loop_does_not_know():
    weight, sigma = layer(0, 8, 6)
    factor, start = ldl(sigma), np.zeros((8, 6))
    assert successive_cancellation(weight, factor, Uniform(0.4, shrink=True)).bound == np.inf
    assert successive_cancellation(weight, factor, Uniform(0.4), sweeps=1, start=start).bound == np.inf
    assert successive_cancellation(from_host(weight, like=weight), factor, Uniform(0.4)).bound < np.inf


def test_what_is_certain_is_not_measured(monkeypatch: pytest.MonkeyPatch):
    """The guard needs no product with the whole matrix; without the certificate it measures, and finds the same."""
    weight, sigma = layer(0, 128, 16)
    scheme = lq.recipes.watersic(0.1)
    plain = lq.quantize(weight, sigma, scheme)
    measured = []
    monkeypatch.setattr(lq.Quantized, "dequantize", lambda self, dtype: measured.append(self) or np.zeros(self.shape))
    assert lq.quantize(weight, sigma, scheme).to_bytes() == plain.to_bytes()
    assert not measured
