"""Weights that are written as they are decoded: the same bits as by codes, in no more memory, from any thread."""

import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import lattq as lq
from lattq._reconstruction import scaling_of
from lattq.coding import TwoWay
from lattq.coding.scaling import Scaling
from lattq.errors import InvalidInputError
from lattq.quantizers.trellis import TrellisQuantizer
from lattq.quantizers.uniform import UniformQuantizer
from lattq.transforms import Diagonal, Hadamard
from lattq.transforms.chains import Chain, Folded
from lattq.transforms.maps import Identity
from lattq.transforms.rows import RowScales
from tests.helpers import assert_same, assert_same_bits
from tests.strategies import seeds

UNIFORM = UniformQuantizer(np.array([[0.37]]), 0.25)


def drawn(seed: int, shape: tuple[int, int], *, trellis: bool = False) -> lq.Quantized:
    """A result with gains of rows and columns, centroids, a zero, columns of zeros and scales of columns."""
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal(shape) * np.exp(rng.standard_normal(shape[1])) * (rng.random(shape[1]) < 0.8)
    quantizer = TrellisQuantizer(np.array([[0.37]]), 16, 9) if trellis else UNIFORM
    columns, rows = (rng.integers(100, 140, n) if rng.random() < 0.7 else None for n in reversed(shape))
    diagonal, of_rows = Diagonal(np.exp(rng.standard_normal(shape[1]))), RowScales(rng.integers(-9, 9, shape[0]))
    return lq.Quantized(
        quantizer.encode(weight),
        quantizer,
        [Identity(), Folded(), diagonal, of_rows, Chain((of_rows, diagonal))][rng.integers(5)],
        quantizer.coder,
        rows,
        columns,
        rng.integers(-20, 20, 7) if rng.random() < 0.7 else None,
    )


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64])
@given(seed=seeds, rows=st.integers(1, 40) | st.integers(64, 150), columns=st.integers(1, 80), trellis=st.booleans())
def test_weights_have_the_bits_that_codes_give(dtype: type, seed: int, rows: int, columns: int, trellis: bool):
    found = drawn(seed, (rows, columns), trellis=trellis)
    read = lq.Quantized.from_payload(found.payload, found.shape)
    assert scaling_of(read) is not None
    weights = read.dequantize(dtype)
    assert "codes" not in vars(read)
    assert_same_bits(weights, found.dequantize(dtype))
    assert_same(read.codes, found.codes)
    assert_same_bits(read.dequantize(dtype), weights)
    if np.dtype(dtype).itemsize == 2:
        assert_same_bits(weights, found.dequantize(np.float32).astype(dtype))


def test_the_order_of_operations_matters():
    """Negative control: gains multiplied beforehand give other bits in float64."""
    codes, gains = np.arange(-500, 500)[None], np.linspace(0.7, 1.3, 1000)
    scaling = Scaling(0.37, 0.1, columns=gains, rows=np.array([1.1]), divisors=gains[::-1].copy())
    assert not np.array_equal(scaling.apply(codes), (codes - 0.1) * (0.37 * gains * 1.1 / gains[::-1]))


@given(seed=seeds)
def test_no_value_is_beyond_the_bound(seed: int):
    found = drawn(seed, (5, 9))
    scaling = scaling_of(found)
    assert scaling is not None
    assert np.abs(scaling.apply(found.codes)).max() <= scaling.bound(int(found.codes.min()), int(found.codes.max()))


@pytest.mark.parametrize("trellis", [False, True])
def test_nothing_as_large_as_the_matrix_is_made_on_the_way(trellis: bool):
    """Neither codes nor float64: what there is beside the weights are the bytes, twice, and tables."""
    found = drawn(1, (1024, 1024), trellis=trellis)
    payload = found.payload
    lq.Quantized.from_payload(payload, found.shape).dequantize()  # tables are made once
    tracemalloc.start()
    try:
        weights = lq.Quantized.from_payload(payload, found.shape).dequantize()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < weights.nbytes + 4 * len(payload) + (1 << 18)


@pytest.mark.parametrize("trellis", [False, True])
@pytest.mark.parametrize("threads", [1, 2, 4])
def test_threads_decode_side_by_side(threads: int, trellis: bool):
    found = drawn(2, (200, 130), trellis=trellis)
    with ThreadPoolExecutor(threads) as pool:
        read = list(pool.map(lambda _: lq.Quantized.from_payload(found.payload).dequantize(), range(8)))
        written = list(pool.map(lambda _: found.coder.encode(found.codes), range(8)))
    for weights in read:
        assert_same_bits(weights, found.dequantize())
    assert all(one == written[0] for one in written)


def test_what_is_written_for_models_takes_no_codes():
    """Both sides of a metric, trellises along fronts: scales of rows and columns, one after the other."""
    rng = np.random.default_rng(0)
    metric = lq.Metric(*(x.T @ x / len(x) for x in (rng.normal(size=(96, 48)), rng.normal(size=(96, 32)))))
    found = lq.quantize(rng.normal(size=(32, 48)), metric, lq.recipes.two_sided(0.2))
    read = lq.Quantized.from_payload(found.payload)
    assert_same_bits(read.dequantize(), found.dequantize())
    assert "codes" not in vars(read)


ROWS, COLUMNS = RowScales(np.array([3, -5, 0, 1])), Diagonal(np.linspace(0.7, 1.9, 8))


@pytest.mark.parametrize(
    "transform", [Hadamard(0), Chain((COLUMNS, ROWS)), Chain((COLUMNS, COLUMNS)), Chain((ROWS, ROWS))], ids=repr
)
def test_transforms_that_do_more_take_the_codes(transform: Any):
    """Rows before columns, or columns twice, would round otherwise."""
    weight = np.random.default_rng(0).standard_normal((4, 8))
    found = lq.Quantized(UNIFORM.encode(weight), UNIFORM, transform, TwoWay())
    read = lq.Quantized.from_payload(found.payload)
    assert scaling_of(read) is None
    assert_same_bits(read.dequantize(np.float64), found.dequantize(np.float64))


def test_weights_beyond_a_dtype_are_refused_without_codes_too():
    found = lq.Quantized(np.array([[1 << 20, 1]], dtype=np.int32), UNIFORM, Identity(), TwoWay())
    read = lq.Quantized.from_payload(found.payload)
    with pytest.raises(InvalidInputError, match="do not fit `dtype` = float16"):
        read.dequantize(np.float16)


@given(
    codes=st.lists(st.integers(-(2**31), 2**31 - 1) | st.integers(-9, 9), min_size=1, max_size=40),
    exponent=st.integers(-140, 80),
    dtype=st.sampled_from([np.float16, ml_dtypes.bfloat16]),
)
def test_escapes_and_small_numbers_are_rounded_from_float32(codes: list[int], exponent: int, dtype: type):
    """Codes of many bits, numbers below the normal ones and numbers near the largest, which are refused beyond it."""
    quantizer = UniformQuantizer(np.array([[2.0**exponent]]), 0.0)
    found = lq.Quantized(np.array([codes], dtype=np.int32), quantizer, Identity(), TwoWay())
    exact = np.array([codes]) * 2.0**exponent
    fits = np.abs(exact).max() <= float(ml_dtypes.finfo(dtype).max)
    for one in (found, lq.Quantized.from_payload(found.payload)):
        if not fits:
            with pytest.raises(InvalidInputError, match="do not fit `dtype`"):
                one.dequantize(dtype)
        else:
            assert_same_bits(one.dequantize(dtype), exact.astype(np.float32).astype(dtype))


@pytest.mark.parametrize("code", [65280, 65281])
def test_the_largest_number_of_bfloat16_is_the_last(code: int):
    """(2 - 2^-7) 2^127 is 65280 · 2^112; float32 reaches further."""
    quantizer = UniformQuantizer(np.array([[2.0**112]]), 0.0)
    found = lq.Quantized(np.array([[code]], dtype=np.int32), quantizer, Identity(), TwoWay())
    assert found.dequantize()[0, 0] == np.float32(code * 2.0**112)
    if code == 65280:
        assert found.dequantize(ml_dtypes.bfloat16)[0, 0] == ml_dtypes.finfo(ml_dtypes.bfloat16).max
    else:
        with pytest.raises(InvalidInputError, match="do not fit `dtype` = bfloat16"):
            found.dequantize(ml_dtypes.bfloat16)


@pytest.mark.parametrize("plain", [True, False])
def test_weights_are_written_to_an_array_that_is_given(plain: bool):
    found = drawn(3, (20, 30))
    found = found if plain else lq.Quantized.from_payload(found.payload)
    for dtype in (np.float16, np.float32, np.float64, ml_dtypes.bfloat16):
        out = np.zeros(found.shape, dtype=dtype)
        assert found.dequantize(dtype, out=out) is out
        assert_same_bits(out, found.dequantize(dtype))
    bits = found.dequantize("bfloat16", out=np.zeros(found.shape, dtype=np.uint16))
    assert_same_bits(bits.view(ml_dtypes.bfloat16), found.dequantize(ml_dtypes.bfloat16))


@pytest.mark.parametrize(
    ("dtype", "out", "message"),
    [
        (np.int32, None, "`dtype` is .*int32.*pass one of float16, float32, float64, bfloat16"),
        (">f4", None, "`dtype` is '>f4'"),
        ("nothing", None, "`dtype` is 'nothing'"),
        (np.float32, np.zeros((4, 8)), "`out` is a ndarray of shape .*pass an array of float32"),
        (np.float32, np.zeros((8, 4), dtype=np.float32), r"of shape \(4, 8\)"),
        (np.float32, np.zeros((8, 4), dtype=np.float32).T, "contiguous by rows"),
        (np.float16, np.zeros((4, 8), dtype=np.uint16), "pass an array of float16"),
        ("bfloat16", np.zeros((4, 8), dtype=np.float16), "or its bits in uint16"),
    ],
)
def test_other_types_and_arrays_are_refused(dtype: Any, out: Any, message: str):
    with pytest.raises(InvalidInputError, match=message):
        drawn(1, (4, 8)).dequantize(dtype, out=out)
