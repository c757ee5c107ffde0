"""Block formats: simulated with the casts of another library, adaptive quadrature, scale rules."""

import itertools
import math
from typing import Any, cast

import ml_dtypes
import numpy as np
import pytest
import scipy.integrate
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from lattq.bounds import BLOCK_FORMATS, BlockFormat, absmax_distortion, block_distortion, gaussian_rate, number_format
from lattq.bounds.block_formats import block_loss, block_scales
from lattq.bounds.formats import E2M1FN, E8M0, NF4, int_format, nearest_value
from lattq.errors import InvalidInputError

TYPES = {
    "e2m1fn": ml_dtypes.float4_e2m1fn,
    "e3m2fn": ml_dtypes.float6_e3m2fn,
    "e2m3fn": ml_dtypes.float6_e2m3fn,
    "e4m3fn": ml_dtypes.float8_e4m3fn,
    "e5m2": ml_dtypes.float8_e5m2,
}
NVFP4 = 2688.0 / 5.0  # the deviation of weights whose largest, normalised to 448 · 6, is five deviations


def rounded(x: np.ndarray, name: str) -> np.ndarray:
    """The cast of ml_dtypes where it has the format, after a cut to its range; else the nearest value by search."""
    number = number_format(name)
    if name in TYPES:
        return np.clip(x, -number.largest, number.largest).astype(TYPES[name]).astype(np.float64)
    return number.values[np.argmin(np.abs(x[..., None] - number.values), axis=-1)]


def quantized(x: np.ndarray, block: BlockFormat) -> np.ndarray:
    """Each format as its documents write it; blocks are rows."""
    largest = np.abs(x).max(axis=1, keepdims=True)
    if block.scale == "e8m0":
        scale = np.exp2(np.floor(np.log2(largest)) - np.floor(np.log2(block.number.largest)))
    elif block.scale == "e4m3":
        scale = (largest / block.number.largest).astype(ml_dtypes.float8_e4m3fn).astype(np.float64)
        scale = np.maximum(scale, 2.0**-9)
    else:
        scale = (largest / block.number.largest).astype(np.float16).astype(np.float64)
    return scale * rounded(x / scale, block.number.name)


few = settings(max_examples=20)  # one prediction takes a tenth of a second


def errors(block: BlockFormat, deviation: float, entries: int = 250_000) -> np.ndarray:
    size = block.size or 48
    x = deviation * np.random.default_rng(23).standard_normal((entries // size, size))
    return np.mean((x - quantized(x, block)) ** 2, axis=1) / deviation**2


CASES = [
    *((name, 1.0) for name in BLOCK_FORMATS if name != "nvfp4"),
    *(("mxfp4", 1.3), ("mxfp4", 0.02), ("mxfp6-e2m3", 1.7), ("nvfp4", NVFP4), ("nvfp4", 0.1), ("nf4", 0.7)),
]


@pytest.mark.parametrize(("name", "deviation"), CASES)
def test_simulation(name: str, deviation: float):
    block = BLOCK_FORMATS[name]
    sample = errors(block, deviation)
    expected = block_distortion(block, variance=deviation**2) / deviation**2
    slack = 1e-6 if block.scale == "float16" else 0.0
    assert expected == pytest.approx(sample.mean(), abs=4 * sample.std() / math.sqrt(sample.size) + slack, rel=0)


@pytest.mark.parametrize("scale", ["float16", "e4m3", "e8m0"])
@pytest.mark.parametrize("number", [int_format(3, symmetric=False), int_format(2), NF4, number_format("e3m0fn")])
@pytest.mark.parametrize("size", [1, 2, 48])
def test_simulation_of_other_blocks(number, scale: str, size: int):
    block = BlockFormat(number, size, scale)
    sample = errors(block, 2.5, entries=120_000)
    expected = block_distortion(block, variance=6.25) / 6.25
    assert expected == pytest.approx(sample.mean(), abs=4 * sample.std() / math.sqrt(sample.size) + 1e-6, rel=0)


def test_simulation_tells_the_rules_apart():
    # Negative control: the exact scale in place of the power of two, and E2M1 with the wrong scale rule.
    for name, other in (("mxfp4", "float16"), ("nvfp4", "e8m0")):
        block = BLOCK_FORMATS[name]
        sample = errors(block, NVFP4)
        wrong = block_distortion(BlockFormat(block.number, block.size, other), variance=NVFP4**2) / NVFP4**2
        assert abs(wrong - sample.mean()) > 8 * sample.std() / math.sqrt(sample.size)


@pytest.mark.parametrize(("scale", "size"), [("e8m0", 3), ("e4m3", 2), ("float16", 5)])
def test_against_adaptive_quadrature(scale: str, size: int):
    """The same expectation, integrated over the largest entry and one other by a library."""
    number, normal = E2M1FN, scipy.stats.norm

    def given_largest(m: float) -> float:
        s = m / 6.0 if scale == "float16" else float(block_scales(np.array([m]), number, scale)[0])
        breaks = [t for t in s * number.thresholds if 0.0 < t < m]

        def error(x: float) -> float:
            return float(np.min(np.abs(x - s * number.values)) ** 2)

        inside = scipy.integrate.quad(lambda x: error(x) * normal.pdf(x), 0.0, m, points=breaks or None, epsabs=1e-12)
        mass = 2.0 * normal.cdf(m) - 1.0
        whole = (size - 1) * 2.0 * inside[0] / mass + error(m)
        return whole * mass ** (size - 1) * 2.0 * normal.pdf(m)

    # Pieces end where scales jump and, under powers of two, where the largest entry changes its code.
    octaves = np.exp2(np.arange(-11, 4))
    jumps = {
        "float16": np.linspace(0.0, 9.0, 40),
        "e4m3": 6 * number_format("e4m3fn").thresholds,
        "e8m0": np.outer(octaves, [*number.thresholds, 4.0]).ravel(),
    }[scale]
    edges = np.union1d([1e-3, 9.0], jumps)
    edges = edges[(edges >= 1e-3) & (edges <= 9.0)]
    rule = np.vectorize(given_largest)
    pieces = [scipy.integrate.fixed_quad(rule, a, b, n=4)[0] for a, b in itertools.pairwise(edges)]
    # Kinks of second order inside the narrow pieces of E4M3 are left.
    assert block_distortion(BlockFormat(number, size, scale)) == pytest.approx(
        sum(pieces), rel=2e-4 if scale == "e4m3" else 1e-6
    )


@pytest.mark.parametrize("bits", [3, 4, 8])
@pytest.mark.parametrize("size", [1, 16, 128])
def test_symmetric_integers_are_those_of_absmax(bits: int, size: int):
    narrow = absmax_distortion(2**bits, size, grid="narrow")
    assert block_distortion(BlockFormat(int_format(bits), size)) == pytest.approx(narrow, rel=1e-9, abs=1e-15)


def test_the_error_under_powers_of_two_repeats_with_the_octave():
    block = BLOCK_FORMATS["mxfp4"]
    one = block_distortion(block, variance=1.0)
    assert block_distortion(block, variance=64.0) == pytest.approx(64 * one, rel=1e-12)
    assert block_distortion(block, variance=2.0) != pytest.approx(2 * one, rel=1e-3)


@few
@given(st.sampled_from(sorted(BLOCK_FORMATS)), st.floats(0.05, 200.0))
def test_no_block_format_beats_the_bound(name: str, deviation: float):
    block = BLOCK_FORMATS[name]
    distortion = block_distortion(block, variance=deviation**2)
    assert block.rate >= gaussian_rate(deviation**2, distortion)
    assert block_loss(block, variance=deviation**2) == pytest.approx(
        block.rate - gaussian_rate(deviation**2, distortion), abs=1e-9
    )


@given(st.floats(1e-30, 1e30), st.sampled_from([block.number for block in BLOCK_FORMATS.values()]))
def test_the_power_of_two_puts_the_largest_into_the_last_octave(largest: float, number):
    scale = float(block_scales(np.array([largest]), number, "e8m0")[0])
    assert math.frexp(scale)[0] == 0.5
    top = 2.0 ** math.floor(math.log2(number.largest))
    assert top <= largest / scale < 2 * top


@given(st.floats(2.0**-6, 400.0))
def test_e4m3_scales_are_nearest(wanted: float):
    found = block_scales(np.array([wanted]) * 6.0, E2M1FN, "e4m3")
    # By way of float32, as scales are computed elsewhere and as ml_dtypes casts.
    single = (np.array([wanted]) * 6.0 / 6.0).astype(np.float32)
    assert (
        abs(float(found[0]) - wanted) <= abs(float(single.astype(ml_dtypes.float8_e4m3fn)[0]) - wanted) + 1e-6 * wanted
    )
    np.testing.assert_array_equal(nearest_value(found, number_format("e4m3fn")), found)


def test_scales_out_of_reach():
    largest = np.array([0.0, 1e-30, 1e30])
    np.testing.assert_array_equal(block_scales(largest, E2M1FN, "e4m3"), [1.0, 2.0**-9, 448.0])
    np.testing.assert_array_equal(block_scales(largest[:2], E2M1FN, "float16"), [1.0, 2.0**-24])
    np.testing.assert_array_equal(
        block_scales(np.array([0.0, 1e-300, 1e300]), E2M1FN, "e8m0"), [1.0, 2.0**-127, 2.0**127]
    )
    with pytest.raises(InvalidInputError, match="beyond float16"):
        block_scales(largest, E2M1FN, "float16")


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: BlockFormat(E2M1FN, 0), "`size` is 0"),
        (lambda: BlockFormat(E2M1FN, 16, "e5m2"), "`scale` is 'e5m2'"),
        (lambda: block_distortion(BlockFormat(E2M1FN, None)), "pass `size`"),
        (lambda: block_distortion(BlockFormat(E2M1FN, None), size=-1), "`size` is -1"),
        (lambda: block_distortion(BLOCK_FORMATS["mxfp4"], variance=0.0), "`variance` is 0.0"),
        (lambda: block_scales(np.ones(1), E2M1FN, "float32"), "`scale` is 'float32'"),
        (lambda: block_scales(np.array([1.0, np.nan]), E2M1FN, "e8m0"), "`largest` holds nan"),
        (lambda: block_scales(np.array([np.inf]), E2M1FN, "e4m3"), "`largest` holds inf"),
        (lambda: block_scales(np.array([-2.0, 1.0]), E2M1FN, "float16"), "`largest` holds -2.0"),
        (lambda: block_scales(np.ones(1), int_format(1), "e4m3"), "values of both signs"),
        (lambda: BlockFormat(cast("Any", "e2m1fn"), 32), "`number` is 'e2m1fn'"),
        (lambda: BlockFormat(int_format(1), 32), "values of both signs"),
        (lambda: BlockFormat(E8M0, 32), "values of both signs"),
        (lambda: BlockFormat(E2M1FN, cast("Any", "32")), "`size` is '32'"),
        (lambda: block_distortion(BLOCK_FORMATS["mxfp4"], size=16), "`size` is 16, but the format has blocks of 32"),
        (lambda: block_loss(BLOCK_FORMATS["mxfp4"], size=16), "`size` is 16"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_refusals_name_the_value(call, named: str):
    with pytest.raises(InvalidInputError, match=named):
        call()
