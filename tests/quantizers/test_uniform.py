"""Uniform quantizers: the contract on every array library, the ends of the range, dither, exact stored state."""

from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from lattq.errors import InvalidInputError
from lattq.quantizers import AbsMax, Entries, MinMax, Uniform, UniformQuantizer
from lattq.quantizers.base import Design, Quantizer
from lattq.quantizers.dither import dither_offsets
from tests.contracts import QuantizerContract, stored_parts
from tests.helpers import assert_same
from tests.strategies import seeds

ROWS = 24


def design(kind: Any, targets: Any) -> UniformQuantizer:
    """The quantizer that a design chooses for targets of any array library."""
    return kind(Entries(targets))


class TestUniform(QuantizerContract):
    columns = 3

    def quantizer(self, xp: ModuleType) -> UniformQuantizer:
        return design(Uniform(0.75), xp.zeros((1, 3), dtype=xp.float64))

    def beside(self) -> UniformQuantizer:
        return design(Uniform(1.25), np.zeros((1, 3)))


class TestOffset(QuantizerContract):
    columns = 2

    def quantizer(self, xp: ModuleType) -> UniformQuantizer:
        return design(Uniform(0.75, offset=0.3), xp.zeros((1, 2), dtype=xp.float64))

    def beside(self) -> UniformQuantizer:
        return design(Uniform(1.25, offset=0.3), np.zeros((1, 2)))


class OwnTargets(QuantizerContract):
    """Quantizers that have a parameter for each row: always the same number of rows."""

    kind: Any

    def inputs(self, seed: int, rows: int) -> np.ndarray:
        return super().inputs(seed, ROWS)

    def quantizer(self, xp: ModuleType) -> UniformQuantizer:
        return design(self.kind, xp.asarray(8 * super().inputs(7, ROWS)))  # wide enough for all other inputs

    def beside(self) -> UniformQuantizer:
        return self.kind(Entries(5 * super().inputs(8, ROWS), np.arange(self.columns, 2 * self.columns)))


class TestDither(OwnTargets):
    kind = Uniform(0.75, dither=11)


class TestAbsMaxOdd(OwnTargets):
    kind, columns, code_range = AbsMax(levels=7), 8, (-3, 3)


class TestAbsMaxEven(OwnTargets):
    kind, columns, code_range = AbsMax(levels=16), 8, (-8, 7)


class TestMinMaxOdd(OwnTargets):
    kind, columns, code_range = MinMax(levels=5), 8, (0, 4)


class TestMinMaxEven(OwnTargets):
    kind, columns, code_range = MinMax(levels=256), 8, (0, 255)


@pytest.mark.parametrize("kind", [Uniform(0.5), Uniform(0.5, dither=1), AbsMax(), MinMax()])
def test_the_protocols_hold(kind: Any):
    assert isinstance(kind, Design)
    assert isinstance(design(kind, np.ones((2, 1))), Quantizer)


@given(seed=seeds, offset=st.floats(-0.5, 0.5), step=st.floats(1e-3, 1e3))
def test_offset_reconstructions_lie_at_code_plus_offset(seed: int, offset: float, step: float):
    quantizer = design(Uniform(step, offset=offset), np.zeros((1, 4)))
    x = step * np.random.default_rng(seed).standard_normal((6, 4)) * 5
    codes = quantizer.encode(x)
    np.testing.assert_allclose(quantizer.decode(codes), step * (codes + offset), rtol=1e-12, atol=1e-12 * step)
    assert np.abs(x - quantizer.decode(codes)).max() <= step * (0.5 + 1e-12)


@pytest.mark.parametrize("levels", [2, 3, 4, 15, 16, 255, 256])
@given(seed=seeds, scale=st.floats(0.1, 1e3))
def test_absmax_spans_its_targets(levels: int, seed: int, scale: float):
    """The largest magnitude is (levels - 1) / 2 steps, up to the rounding of the step to float16."""
    targets = scale * np.random.default_rng(seed).standard_normal((6, 9))
    quantizer = design(AbsMax(levels), targets)
    largest = np.abs(targets).max(axis=1, keepdims=True)
    np.testing.assert_allclose(quantizer.step * (levels - 1) / 2, largest, rtol=2.0**-11)
    assert (quantizer.low, quantizer.high) == (-(levels // 2), (levels - 1) // 2)
    error = np.abs(targets - quantizer.decode(quantizer.encode(targets)))
    assert (error <= quantizer.step * (0.5 + (levels - 1) * 2.0**-12 + 1e-9)).all()


@pytest.mark.parametrize("levels", [2, 3, 16, 255, 256])
@given(seed=seeds, shift=st.floats(-20, 20))
def test_minmax_spans_its_targets_and_zero(levels: int, seed: int, shift: float):
    """Half a step of rounding, half a step by which the zero point moves the range, and the rounding of the step."""
    targets = np.random.default_rng(seed).standard_normal((6, 9)) + shift
    quantizer = design(MinMax(levels), targets)
    width = np.maximum(targets.max(axis=1), 0) - np.minimum(targets.min(axis=1), 0)
    np.testing.assert_allclose(quantizer.step[:, 0] * (levels - 1), width, rtol=2.0**-11)
    zeros = np.zeros((6, 1))
    assert_same(quantizer.decode(quantizer.encode(zeros)), zeros)
    assert_same(quantizer.zero, np.rint(quantizer.zero))
    error = np.abs(targets - quantizer.decode(quantizer.encode(targets)))
    assert (error <= quantizer.step * (1 + (levels - 1) * 2.0**-11 + 1e-9)).all()


@given(seed=seeds, levels=st.integers(2, 256), kind=st.sampled_from([AbsMax, MinMax]), power=st.integers(-12, 12))
def test_steps_are_float16(seed: int, levels: int, kind: Any, power: int):
    targets = np.random.default_rng(seed).standard_normal((5, 4)) * 2.0**power
    step = design(kind(levels), targets).step
    assert_same(step.astype(np.float16).astype(np.float64), step)
    assert (step > 0).all()


@pytest.mark.parametrize("kind", [AbsMax(4), AbsMax(5), MinMax(4), MinMax(5)])
def test_zero_rows_stay_zero(kind: Any):
    targets = np.zeros((2, 3), dtype=np.float32)
    quantizer = design(kind, targets)
    assert_same(quantizer.decode(quantizer.encode(targets)), targets)


@given(seed=seeds, levels=st.integers(2, 9), step=st.floats(0.1, 1))
def test_a_given_step_can_have_few_levels(seed: int, levels: int, step: float):
    """The nearest of the levels, like the unbounded quantizer's where that stays inside."""
    x = np.random.default_rng(seed).standard_normal((6, 5))
    quantizer, unbounded = design(Uniform(step, levels=levels), x), design(Uniform(step), x)
    low = -(levels // 2)
    assert_same(quantizer.encode(x), np.clip(unbounded.encode(x), low, low + levels - 1).astype(np.int32))
    with pytest.raises(InvalidInputError, match="levels"):
        Uniform(step, levels=1)


@pytest.mark.parametrize("kind", [AbsMax, MinMax])
def test_rows_can_share_a_step(kind: Any):
    """One step for all rows is that of the widest row."""
    targets = np.array([[0.5, -0.25], [3.0, -4.0]])
    shared, own = design(kind(5, shared=True), targets), design(kind(5), targets)
    assert shared.step.shape == (1, 1)
    assert shared.step[0, 0] == own.step[1, 0]


@pytest.mark.parametrize("kind", [AbsMax(4), MinMax(4)])
def test_steps_below_float16_are_counted(kind: Any):
    """Row 0 is too small for float16, row 1 is zero and needs no step, row 2 is fine."""
    quantizer = design(kind, np.array([[1e-9, -1e-9], [0.0, 0.0], [1.0, -1.0]]))
    assert quantizer.underflow() == 1
    assert_same(quantizer.step[1], np.ones(1))


@pytest.mark.parametrize("kind", [AbsMax(), MinMax()])
def test_a_step_beyond_float16_is_refused(xp: ModuleType, kind: Any):
    with pytest.raises(InvalidInputError, match="beyond float16"):
        design(kind, xp.asarray([[1e7, -1e7]]))


@given(seed=seeds, low=st.integers(-9, 0), size=st.integers(1, 9), zero=st.integers(-3, 3))
def test_overload_counts_what_lies_beyond_the_outer_cells(seed: int, low: int, size: int, zero: int):
    quantizer = UniformQuantizer(np.array([[0.5]]), np.array([[float(zero)]]), low, low + size)
    x = 4 * np.random.default_rng(seed).standard_normal((7, 5))
    outside = (x > 0.5 * (low + size - zero + 0.5)) | (x < 0.5 * (low - zero - 0.5))
    assert quantizer.overload(x) == outside.sum()
    assert design(Uniform(1e-3), x).overload(x) == 0


def test_dithered_errors_are_uniform_and_independent():
    """Schuchman 1964. Without dither a constant has one error, and small weights are their own error."""
    n = 20_000
    rng = np.random.default_rng(0)
    constant, small = np.full((n, 1), 0.3), 0.2 * rng.standard_normal((n, 1))
    plain, dithered = (design(Uniform(1.0, dither=seed), constant) for seed in (None, 5))

    def errors(quantizer: UniformQuantizer, x: np.ndarray) -> np.ndarray:
        return (x - quantizer.decode(quantizer.encode(x)))[:, 0]

    for x in (constant, small):
        assert stats.kstest(errors(dithered, x), stats.uniform(-0.5, 1.0).cdf).pvalue > 1e-3
        assert stats.kstest(errors(plain, x), stats.uniform(-0.5, 1.0).cdf).pvalue < 1e-12
    moments = [np.corrcoef(np.abs(small[:, 0]) ** k, errors(dithered, small) ** k)[0, 1] for k in (1, 2)]
    assert np.abs(moments).max() < 5 / np.sqrt(n)
    assert np.corrcoef(small[:, 0], errors(plain, small))[0, 1] > 0.8


def test_dither_differs_between_columns_and_seeds():
    offsets = [dither_offsets(1, 5000, np.arange(6)), dither_offsets(2, 5000, np.arange(6))]
    flat = np.concatenate(offsets, axis=1)
    assert np.abs(np.corrcoef(flat.T) - np.eye(12)).max() < 5 / np.sqrt(5000)
    assert -0.5 <= flat.min() <= flat.max() < 0.5
    np.testing.assert_array_equal(dither_offsets(1, 10, np.array([4, 2])), offsets[0][:10, [4, 2]])


def test_dither_is_pinned():
    """Files store the seed only, so its offsets are part of the format."""
    pinned = [[0.36285614886105866, 0.18539602140110212], [-0.13181048434833054, 0.4417295207080817]]
    assert dither_offsets(1, 2, np.array([0, 7])).tolist() == pinned


def test_dither_is_uniform_and_knows_nothing_of_its_place():
    """Moments, and correlations with neighbours, with another seed and with the place, within five standard errors."""
    size = 400
    one, two = (dither_offsets(seed, size, np.arange(size)) for seed in (3, 4))
    error = 5 / size  # of a mean of products of numbers of unit variance
    unit = np.sqrt(12)
    ramp = (np.arange(size) - (size - 1) / 2) / (size / unit)
    products = [one * unit, one[1:] * one[:-1] * 12, one[:, 1:] * one[:, :-1] * 12, one * two * 12, one * unit * ramp]
    for product in products:
        assert abs(product.mean()) < error * 1.01
    assert abs(12 * one.var() - 1) < np.sqrt(0.8) * error
    counts = np.histogram(one, 64, (-0.5, 0.5))[0]
    assert np.sum((counts - counts.mean()) ** 2 / counts.mean()) < 63 + 5 * np.sqrt(126)


@pytest.mark.parametrize("value", [2.0**30 * 1.01, -(2.0**30) * 1.01, 1e300, np.inf, np.nan])
def test_codes_that_overflow_are_refused(xp: ModuleType, value: float):
    quantizer = design(Uniform(1.0), xp.zeros((1, 1), dtype=xp.float64))
    with pytest.raises(InvalidInputError, match="code of size"):
        quantizer.encode(xp.asarray([[0.0], [value]], dtype=xp.float64))


def test_the_largest_code_survives(xp: ModuleType):
    quantizer = design(Uniform(1.0), xp.zeros((1, 1), dtype=xp.float64))
    x = xp.asarray([[2.0**30], [-(2.0**30)]], dtype=xp.float64)
    assert_same(quantizer.decode(quantizer.encode(x)), x)


@pytest.mark.parametrize("step", [0.0, -1.0, np.inf, np.nan])
def test_steps_out_of_range_are_refused(step: float):
    with pytest.raises(InvalidInputError, match="`step` is"):
        Uniform(step)


def test_dither_and_offset_exclude_each_other():
    with pytest.raises(InvalidInputError, match="dither"):
        Uniform(1.0, offset=0.5, dither=3)


@pytest.mark.parametrize("levels", [1, 0, 257])
@pytest.mark.parametrize("kind", [AbsMax, MinMax])
def test_levels_out_of_range_are_refused(kind: Any, levels: int):
    with pytest.raises(InvalidInputError, match=f"`levels` is {levels}"):
        kind(levels)


DESIGNS = [
    *(Uniform(0.1), Uniform(0.3, offset=0.25), Uniform(0.3, dither=4)),
    *(AbsMax(3, 2), AbsMax(16, 5), AbsMax(8, None), MinMax(2, 2), MinMax(11, 3), MinMax(256, None)),
]


@given(
    seed=seeds, rows=st.integers(1, 5), columns=st.integers(1, 9), kind=st.sampled_from(DESIGNS), single=st.booleans()
)
def test_stored_state_is_exact(seed: int, rows: int, columns: int, kind: Any, single: bool):
    """Groups joined, stored and restored decode to the same bits as each group alone."""
    dtype = np.float32 if single else np.float64
    targets = np.random.default_rng(seed).standard_normal((rows, columns)).astype(dtype)
    codes, _, restored, each = stored_parts(kind, targets)
    assert isinstance(restored, UniformQuantizer)
    moved = isinstance(kind, Uniform)  # offsets and the step itself are rounded in single precision
    tolerance = 0.0 if not moved else float(np.finfo(dtype).eps)
    np.testing.assert_allclose(restored.decode(codes), np.concatenate(each, axis=1), rtol=tolerance, atol=tolerance)
