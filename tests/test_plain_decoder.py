"""The decoder of the documentation reads what is written, in every family of interleaved streams."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lattq as lq
from docs import plain_decoder
from lattq.coding import interleaved
from lattq.coding.fronts import Fronts
from lattq.quantizers import Trellis, Uniform
from lattq.quantizers.entries import Entries
from lattq.quantizers.trellis import TrellisQuantizer
from lattq.transforms.maps import Identity
from lattq.trellis.codes import POLYNOMIALS, segments
from lattq.trellis.fronts import FrontTrellis
from tests.helpers import assert_same
from tests.strategies import moment, seeds

few = settings(max_examples=max(settings().max_examples // 4, 1))


def scheme(kind: str, step: float, block: int) -> lq.Scheme:
    """The recipe of a family, with streams of so many codes."""
    quantizer = Trellis(16, segment=11) if kind == "trellis" else Uniform()
    found = lq.recipes.watersic(step, quantizer=quantizer)
    coder = quantizer(Entries(np.zeros((1, 1)))).coder
    return dataclasses.replace(found, coder=dataclasses.replace(coder, block=block))


@pytest.mark.parametrize("kind", ["uniform", "trellis"])
@few
@given(
    seed=seeds,
    shape=st.tuples(st.integers(1, 40), st.integers(1, 90)) | st.sampled_from([(1, 200), (200, 1), (70, 70)]),
    step=st.sampled_from([0.01, 0.3, 2.0, 30.0]),
    block=st.sampled_from([50, 1 << 20]),
    lane=st.sampled_from([1 << 16, 64]),
)
def test_files_of_columns(kind: str, seed: int, shape: tuple[int, int], step: float, block: int, lane: int):
    """All rates, zero columns, rows of other scales, 1 x n and n x 1, one lane and many."""
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal(shape) * np.exp(rng.standard_normal((shape[0], 1))) * (rng.random(shape[1]) < 0.9)
    weight[rng.integers(shape[0]), rng.integers(shape[1])] = 1e5
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(interleaved, "LANE", lane)
        found = lq.quantize(weight, moment(np.geomspace(1, 30, shape[1]), 0), scheme(kind, step, block))
        payload = found.payload
        read = lq.Quantized.from_payload(payload, shape)
        assert_same(read.dequantize(np.float64), found.dequantize(np.float64))  # no codes have been asked for
        for dtype in (np.float16, np.float32):
            if np.abs(found.dequantize(np.float64)).max() < 6e4:
                assert_same(lq.Quantized.from_payload(payload, shape).dequantize(dtype), found.dequantize(dtype))
        assert_same(read.codes, found.codes)
    assert_same(plain_decoder.codes_of(payload), found.codes)


@few
@given(
    seed=seeds,
    groups=st.integers(1, 3),
    height=st.integers(1, 20),
    columns=st.integers(1, 90),
    segment=st.integers(1, 17),
    block=st.sampled_from([30, 1 << 20]),
    lane=st.sampled_from([1 << 16, 64]),
)
def test_files_of_fronts(seed: int, groups: int, height: int, columns: int, segment: int, block: int, lane: int):
    rng, shape = np.random.default_rng(seed), (groups * height, columns)
    coder = FrontTrellis(64, segment, height, block)
    x = rng.standard_normal(shape) * np.exp2(rng.uniform(-2, 5, columns)) * (rng.random(columns) < 0.9)
    fronts, codes = Fronts(*shape, height), np.zeros(shape[0] * columns, dtype=np.int32)
    for k in range(fronts.number):
        places = fronts.places(k, k + 1)
        for part in segments(len(places), segment):
            codes[places[part]] = coder.code.nearest(x.reshape(-1)[places[part]])
    quantizer = TrellisQuantizer(np.array([[0.3]]), 64, segment)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(interleaved, "LANE", lane)
        found = lq.Quantized(codes.reshape(shape), quantizer, Identity(), coder, row_gains=np.arange(len(x)) + 120)
        payload = found.payload
        read = lq.Quantized.from_payload(payload, shape)
        assert_same(read.dequantize(np.float64), found.dequantize(np.float64))
        assert_same(read.codes, found.codes)
    assert_same(plain_decoder.codes_of(payload), found.codes)


def test_the_decoder_is_short():
    assert len(Path(plain_decoder.__file__).read_text().splitlines()) <= 200


def test_damage_is_noticed_by_the_plain_decoder_too():
    """Negative control: a stream that has lost a word ends elsewhere."""
    found = lq.quantize(np.random.default_rng(0).standard_normal((30, 20)), np.eye(20), scheme("trellis", 0.3, 1 << 20))
    *scales, [stream] = found.coded
    classes = plain_decoder.classes_of(scales, found.shape, 0)
    steps = next(plain_decoder.steps_of_columns(found.shape, classes.any(axis=0), 11, 1 << 20))
    with pytest.raises(ValueError, match="other than its symbols"):
        plain_decoder.decode_stream(stream[:-2], steps, classes, POLYNOMIALS[16], np.zeros(found.shape, dtype=np.int32))
