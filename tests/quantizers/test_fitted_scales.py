"""Scales of least error in the designs: never above the plain rule or 200 scales, weighted, in every stored form."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import lattq as lq
from lattq.bounds import BLOCK_FORMATS, absmax_distortion
from lattq.bounds.formats import nearest_value
from lattq.errors import InvalidInputError
from lattq.packed import PackedMatrix
from lattq.quantizers import AbsMax, Entries, Format, MinMax
from lattq.quantizers.format_scales import positive_scales
from tests.contracts import stored_parts
from tests.helpers import assert_same
from tests.oracles.textbook_gptq import Rounding, textbook_gptq
from tests.strategies import gaussian_layer, seeds


def cost(kind: Any, entries: Entries) -> np.ndarray:
    """Weighted squared errors of the rows."""
    quantizer = kind(entries)
    error = entries.values - quantizer.decode(quantizer.encode(entries.values))
    return np.sum(entries.power * error**2, axis=1)


def integers(levels: int, step: np.ndarray, zero: Any, x: np.ndarray) -> np.ndarray:
    """Integers as GPTQ has them, written out."""
    return step * (np.clip(np.round(x / step) + zero, 0, levels - 1) - zero)


@given(seed=seeds, levels=st.sampled_from([3, 4, 8, 16]), shift=st.floats(-1, 1))
def test_no_more_error_than_the_best_of_200_scales(seed: int, levels: int, shift: float):
    """Of the group's range and of parts of it, with the zero point that belongs to it; 1.001 for float16."""
    rng = np.random.default_rng(seed)
    x, pivots = rng.standard_normal((4, 32)) + shift, np.exp(rng.standard_normal(32))
    entries = Entries(x, pivots=pivots)
    for kind in (AbsMax(levels, fit="error"), MinMax(levels, fit="error")):
        if isinstance(kind, AbsMax):
            full, zero = 2 * np.abs(x).max(axis=1, keepdims=True) / (levels - 1), levels // 2
        else:
            low, high = np.minimum(x.min(axis=1, keepdims=True), 0), np.maximum(x.max(axis=1, keepdims=True), 0)
            full = (high - low) / (levels - 1)
            zero = np.clip(np.round(-low / full), 0, levels - 1)
        tried = [x - integers(levels, full * part, zero, x) for part in np.linspace(0.1, 1.2, 200)]
        best = np.min([np.sum(pivots * error**2, axis=1) for error in tried], axis=0)
        assert (cost(kind, entries) <= 1.001 * best).all()


@pytest.mark.parametrize("levels", [4, 8, 16])
def test_zero_points_downhill_lose_little_to_all_of_them(levels: int):
    """With 200 scales for every zero point: single groups may stop in a minimum of their own, all together do not."""
    rng = np.random.default_rng(levels)
    x, pivots = rng.standard_normal((200, 32)), np.exp(2 * rng.standard_normal(32))
    full = (x.max(axis=1, keepdims=True) - x.min(axis=1, keepdims=True)) / (levels - 1)
    best = np.full(len(x), np.inf)
    for zero in range(levels):
        for part in np.linspace(0.1, 1.2, 200):
            error = x - integers(levels, full * part, zero, x)
            best = np.minimum(best, np.sum(pivots * error**2, axis=1))
    assert cost(MinMax(levels, fit="error"), Entries(x, pivots=pivots)).sum() <= 1.02 * best.sum()


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("levels", [4, 8, 16])
def test_recipes_are_at_the_best_of_200_scales_per_group(levels: int, symmetric: bool):
    """Textbook GPTQ with brute force in each group, and rounding to nearest: at most 1.02 of their output error."""
    weight, sigma = gaussian_layer(64, 64)

    def searched(targets: np.ndarray, pivots: np.ndarray) -> Rounding:
        low, high = np.minimum(targets.min(axis=1), 0), np.maximum(targets.max(axis=1), 0)
        full = 2 * np.abs(targets).max(axis=1) / (levels - 1) if symmetric else (high - low) / (levels - 1)
        zero = np.full(len(full), levels // 2) if symmetric else np.clip(np.round(-low / full), 0, levels - 1)
        parts = np.linspace(0.1, 1.2, 200)
        errors = [
            np.sum(pivots * (targets - integers(levels, (p * full)[:, None], zero[:, None], targets)) ** 2, axis=1)
            for p in parts
        ]
        step = full * parts[np.argmin(errors, axis=0)]
        return lambda column: integers(levels, step, zero, column)

    lower = np.linalg.cholesky(np.linalg.inv(sigma)).T  # GPTQ's triangle: pivots are 1 / diagonal²
    pivots = 1 / np.diag(lower) ** 2
    start = iter(range(0, 64, 16))
    brute = textbook_gptq(weight, sigma, lambda t: searched(t, pivots[(i := next(start)) : i + 16]), 16)
    ours = lq.quantize(weight, sigma, lq.recipes.gptq(levels, group=16, symmetric=symmetric, damping=0.0))
    error = weight - brute
    assert ours.distortion(weight, sigma) <= 1.02 * np.sum((error @ sigma) * error) / error.size
    power = np.diag(sigma)
    blocks = [weight[:, i : i + 16] for i in range(0, 64, 16)]
    rounded = [
        np.stack([searched(b, power[16 * k : 16 * k + 16])(column) for column in b.T], axis=1)
        for k, b in enumerate(blocks)
    ]
    error = weight - np.concatenate(rounded, axis=1)
    ours = lq.quantize(weight, np.diag(power), lq.recipes.rtn(levels, group=16, symmetric=symmetric))
    assert ours.distortion(weight, np.diag(power)) <= 1.001 * np.sum(error**2 * power) / error.size


@pytest.mark.parametrize("name", BLOCK_FORMATS)
@given(seed=seeds, spread=st.floats(0, 3), loud=st.sampled_from([1.0, 30.0, 1000.0]), light=st.floats(0, 20))
def test_block_formats_take_the_best_scale_they_can_store(
    name: str, seed: int, spread: float, loud: float, light: float
):
    """Of all that there are, also where the largest entries weigh next to nothing; float16, of a fine sweep: 1.001."""
    rng = np.random.default_rng(seed)
    values, pivots = rng.standard_normal((3, 24)), np.exp(spread * rng.standard_normal(24))
    values[:, 0] *= loud
    pivots[0] *= np.exp(-light)
    entries, best = Entries(values, pivots=pivots), Format.named(name, fit="error")
    if best.scale == "float16":
        largest = np.abs(values).max() / np.abs(best.number.values).max()
        scales, slack = np.geomspace(largest / (4 * loud), 2 * largest, 200), 1.001
    else:
        scales, slack = positive_scales(best.scale), 1 + 1e-12
        scales = scales[(scales > 1e-9) & (scales < 1e9)]
    near = nearest_value(values[..., None] / scales, best.number) * scales - values[..., None]
    assert (cost(best, entries) <= slack * np.einsum("rcs,c->rs", near**2, pivots).min(axis=1)).all()


def test_gaussian_entries_reach_what_a_search_should():
    """.00911, .01326 and .01064 from the largest magnitude; a search comes to .00663, .01247 and .00814."""
    weight, white = np.random.default_rng(1).standard_normal((512, 512)), np.eye(512)
    schemes = {
        0.00663: lq.recipes.block_format("nvfp4"),
        0.01247: lq.recipes.block_format("mxfp4"),
        0.00814: lq.recipes.rtn(16, group=64),
    }
    for expected, scheme in schemes.items():
        found = lq.quantize(weight, white, scheme).distortion(weight, white)
        assert found <= 1.01 * expected, expected  # four standard errors of 262 144 entries
    plain = lq.quantize(weight, white, lq.recipes.rtn(16, group=64, fit="range"))
    assert abs(plain.distortion(weight, white) / absmax_distortion(16, 64) - 1) < 0.02


@pytest.mark.parametrize("levels", [2, 4, 16])
@given(seed=seeds)
def test_the_additional_code_lies_on_the_better_side(levels: int, seed: int):
    """Turned weights have turned reconstructions: steps change their sign; the plain rule prefers one side."""
    x = np.random.default_rng(seed).standard_normal((5, 16)) ** 3
    both = [AbsMax(levels, fit="error")(Entries(values)) for values in (x, -x)]
    assert_same(both[0].decode(both[0].encode(x)), -both[1].decode(both[1].encode(-x)))
    loud = np.array([[1.0, 0.1]])  # a control: the plain rule knows one side only
    plain = [AbsMax(levels)(Entries(values)) for values in (loud, -loud)]
    if levels > 2:  # of two levels 0 is nearest to all of these
        assert (plain[0].decode(plain[0].encode(loud)) != -plain[1].decode(plain[1].encode(-loud))).any()


@pytest.mark.parametrize(
    "kind", [AbsMax(4, 3, fit="error"), AbsMax(16, None, fit="error"), MinMax(4, 2, fit="error"), Format(fit="error")]
)
@given(seed=seeds, rows=st.integers(1, 5), single=st.booleans())
def test_fitted_steps_are_stored_exactly(kind: Any, seed: int, rows: int, single: bool):
    targets = np.random.default_rng(seed).standard_normal((rows, 9)).astype(np.float32 if single else np.float64)
    codes, _, restored, each = stored_parts(kind, targets)
    assert_same(restored.decode(codes), np.concatenate(each, axis=1).astype(np.float64))


def test_negative_steps_pass_through_files_and_packed_products():
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((32, 64)) ** 3
    layer = lq.quantize(weight, np.eye(64), lq.recipes.rtn(4, group=32))
    assert (layer.quantizer.step < 0).any()
    assert (layer.quantizer.step > 0).any()
    assert layer.stats["underflow"] == 0
    again = lq.Quantized.from_bytes(layer.to_bytes())
    assert_same(again.dequantize(), layer.dequantize())
    x = rng.standard_normal(64).astype(np.float32)
    expected = layer.dequantize(np.float64) @ x
    np.testing.assert_allclose(
        PackedMatrix.from_quantized(layer).matvec(x), expected, atol=1e-5 * np.abs(expected).max()
    )


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("kind", [AbsMax, MinMax])
def test_zeros_and_free_columns_keep_the_plain_step(kind: Any, shared: bool):
    for entries in (Entries(np.zeros((2, 3))), Entries(np.eye(2), pivots=np.zeros(2))):
        plain, fitted = (kind(8, shared=shared, fit=fit)(entries) for fit in ("range", "error"))
        assert_same(plain.step, fitted.step)
    for fit in ("error", "range"):
        scheme = lq.Scheme(quantizer=Format(fit=fit))
        assert_same(lq.quantize(np.zeros((2, 4)), np.eye(4), scheme).dequantize(), np.zeros((2, 4), np.float32))
    with pytest.raises(InvalidInputError, match="`fit` is 'best'"):
        kind(fit="best")


def test_shared_steps_are_best_for_all_rows():
    rng = np.random.default_rng(3)
    entries = Entries(rng.standard_normal((4, 8)), pivots=np.exp(rng.standard_normal(8)))
    shared = AbsMax(8, shared=True, fit="error")(entries)
    assert shared.step.shape == (1, 1)
    flat = Entries(entries.values.reshape(1, -1), pivots=np.tile(entries.pivots, 4))
    assert_same(shared.step, AbsMax(8, fit="error")(flat).step)
