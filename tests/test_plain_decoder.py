"""The decoder of the documentation reads what is written, in every family of interleaved streams."""

import ast
import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lattq as lq
from docs import plain_decoder
from lattq._payload import class_prior
from lattq.coding import Pooled, interleaved
from lattq.coding.fronts import Fronts
from lattq.lattices.fronts import FrontLattice
from lattq.quantizers import Trellis, Uniform
from lattq.quantizers.entries import Entries
from lattq.quantizers.trellis import TrellisQuantizer
from lattq.transforms.maps import Identity
from lattq.trellis.codes import segments
from lattq.trellis.fronts import FrontTrellis
from tests.helpers import assert_same
from tests.lattices.test_fronts import members
from tests.schemes import NAMES, every_scheme
from tests.strategies import gaussian_layer, moment, seeds

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


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("columns", [9, 16])
def test_files_of_every_family(name: str, columns: int):
    """All coders that lattq has: lattices, histograms, indices, digits, groups and fixed lengths too."""
    weight, sigma = gaussian_layer(27, columns)
    weight[3, 5] = 60.0  # an escape
    layer = lq.quantize(weight, sigma, every_scheme(columns)[name])
    assert_same(plain_decoder.codes_of(layer.payload), layer.codes)


@given(name=st.sampled_from(["E8", "D(4)", "D_dual(3)", "Leech24"]), height=st.sampled_from([1, 9, 27]), seed=seeds)
def test_files_of_lattices_along_fronts(name: str, height: int, seed: int):
    coder, rng = FrontLattice(name, height, block=300), np.random.default_rng(seed)
    rows, columns = rng.integers(-4, 5, 54), rng.integers(20, 40, 12)
    codes = members(coder, seed, (54, 12), 1.0, rows, columns)
    data = coder.encode(codes, 0, rows, columns)
    options = coder.to_state()
    found = plain_decoder.codes_of_coder("lattice-fronts", options, data, codes.shape, np.zeros(12, dtype=np.int64))
    assert_same(found, codes)


def test_many_symbols_of_a_histogram():
    """More than 2048 have low bits; a symbol rarer than a slot stands in a table of its own."""
    codes = np.append(np.arange(3000), np.zeros(30_000, dtype=np.int64)).astype(np.int32).reshape(10, -1)
    data = Pooled().encode(codes)
    assert_same(plain_decoder.codes_of_coder("pooled", [], data, codes.shape, np.zeros(3300)), codes)


def test_the_decoder_is_short():
    """Two hundred lines of code beside imports and docstrings."""
    tree = ast.parse(Path(plain_decoder.__file__).read_text())
    code = [node for node in tree.body if not isinstance(node, ast.Import | ast.ImportFrom)]
    lines = ast.unparse(ast.Module(code, [])).splitlines()
    text = {line for line in lines if line.strip().startswith(('"""', "'"))}
    assert sum(bool(line.strip()) and line not in text for line in lines) <= 200


def test_damage_is_noticed_by_the_plain_decoder_too():
    """Negative control: a stream that has lost a word ends elsewhere."""
    found = lq.quantize(np.random.default_rng(0).standard_normal((30, 20)), np.eye(20), scheme("trellis", 0.3, 1 << 20))
    *scales, [stream] = found.coded
    with pytest.raises(ValueError, match="other than its symbols"):
        plain_decoder.codes_of_coder(
            "trellis", found.coder.to_state(), [*scales, [stream[:-2]]], found.shape, class_prior(found.transform)
        )
