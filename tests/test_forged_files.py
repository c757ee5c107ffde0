"""Forged and damaged files: `LattqError`, or a value that comes back from bytes of its own, in bounded memory."""

import dataclasses
import itertools
import json
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings

import lattq as lq
from lattq._payload import FORMAT, MOST_LIVE, MOST_WEIGHTS, PER_BYTE
from lattq.errors import DamagedFileError, InvalidInputError, LattqError
from lattq.transforms import Diagonal, Hadamard
from lattq.transforms.chains import Chain
from lattq.transforms.gain import Gain
from lattq.transforms.maps import Identity
from tests.damage import memory_limit, replace
from tests.forgery import Case, cases, corpus, huge, packed
from tests.helpers import assert_same
from tests.schemes import NAMES, every_scheme
from tests.strategies import moment, weights

CASES = 3000


def state_of(name: str, shape: tuple[int, int]) -> list:
    payload = next(payload for scheme, at, payload in corpus() if (scheme, at) == (name, shape))
    return msgpack.unpackb(payload[:-8])


def check(case: Case) -> bool:
    """Read a case; whether it is a file like any other."""
    with memory_limit(1 << 29):
        try:
            found = (lq.Quantized.from_bytes if case.whole else lq.Quantized.from_payload)(case.blob, case.shape)
        except DamagedFileError:
            return False
        try:
            values = found.dequantize(np.float64)
        except DamagedFileError:  # codes that nobody has asked for yet
            return False
        except InvalidInputError:
            return True
        assert np.isfinite(values).all()
        again = lq.Quantized.from_payload(dataclasses.replace(found).payload, found.shape)
        assert_same(again.dequantize(np.float64), values)
    return True


@pytest.mark.parametrize("start", range(0, CASES, 500))
def test_forged_and_damaged_files_are_refused_or_are_files_like_any_other(start: int):
    """The first of those that `benchmarks/claims/forged_files.py` tries."""
    read = [check(case) for case in cases(corpus(), 0, start, start + 500)]
    assert 10 < sum(read) < 250  # most are damaged, and some changes are harmless


UNIFORM = ["gptq", "watersic", "watersic offset", "rtn min-max"]
ANYTHING = [None, True, 1, -1, 2**63, 1.0, 1e308, float("inf"), float("nan"), "x", b"x", [], [[]], [1.0]]


@pytest.mark.parametrize("name", UNIFORM)
@pytest.mark.parametrize("field", range(7))
def test_every_field_of_a_uniform_state_is_checked(name: str, field: int):
    state = state_of(name, (5, 12))
    kept = state[2][1][field]
    for value in ANYTHING:
        check(Case(0, "forged", name, packed(replace(state, (2, 1, field), value)), shape=(5, 12)))
    assert check(Case(0, "kept", name, packed(replace(state, (2, 1, field), kept)), shape=(5, 12)))


def leaves(state: Any, path: tuple = ()) -> list[tuple]:
    if isinstance(state, list) and state:
        return [place for index, item in enumerate(state) for place in leaves(item, (*path, index))]
    return [path]


@pytest.mark.parametrize("name", NAMES)
def test_no_part_takes_another_kind_of_value(name: str):
    """Floats that are no integers, flags that are numbers, None for what must be there: each place, each kind."""
    state = state_of(name, (5, 12))
    for place in leaves(state)[:60]:
        for value in (None, True, 1.5, "x", b"\x01", [[]], {}):
            check(Case(0, "forged", name, packed(replace(state, place, value)), shape=(5, 12)))


@pytest.mark.parametrize("step", [1e308, 1e-308, 2.0**600, -1.0, 0.0])
@pytest.mark.parametrize("name", ["watersic", "trellis", "lattice"])
def test_steps_whose_squares_are_no_numbers_are_refused(name: str, step: float):
    state = state_of(name, (5, 12))
    place = (2, 1, 2 if name == "watersic" else 0)
    with pytest.raises(DamagedFileError, match="`step"):
        lq.Quantized.from_payload(packed(replace(state, place, step)))
    if step != 1e308:
        return
    with pytest.raises(InvalidInputError, match="`step` is 1e"):
        lq.quantizers.Uniform(step)


def test_values_beyond_float64_are_reported():
    """Each part of such a file is fine by itself."""
    state = state_of("chained", (5, 12))
    state[2][1][2] = 2.0**511
    state[3] = ["chain", [["gain", [np.float32(1e-38).tobytes()]]] * 12]
    found = lq.Quantized.from_payload(packed(state))
    with pytest.raises(InvalidInputError, match="values up to inf do not fit `dtype` = float64"):
        found.dequantize(np.float64)


@pytest.mark.parametrize(
    ("name", "place", "value", "message"),
    [
        ("rtn min-max", (2, 1, 2), 1.0, "one step for 5 rows"),
        ("gptq", (2, 1, 5), None, "codes from -4 to None"),
        ("watersic", (2, 1, 3), b"\x01", "zeros of their own"),
        ("watersic dithered", (2, 1, 3), 0.5, "zeros of their own"),
        ("palette", (2, 1, 1, 1), bytes(6), "scales that are not positive"),
        ("watersic pooled", (6,), ["indices", [2, 1, False, True]], "into 2 entries"),
        ("watersic", (6, 1, 0), 0, "`block` is 0"),
        ("watersic", (7, 0), float("inf"), "`noise` is inf"),
        ("watersic", (7, 1, 1), 266, "`index` is 266"),
        ("watersic", (7, 2, 0), 1 << 62, "`centre` is"),
        ("watersic published", (7, 0), (1 << 31) - 1, "`size` is"),
        ("lattice", (2, 1, 1), "D(33)", "n up to 32"),
        ("trellis", (6, 1, 1), 4097, "`segment` is 4097"),
    ],
)
def test_states_that_no_quantizer_has(name: str, place: tuple, value: Any, message: str):
    """They used to be read, and then to decode to something else than what would be stored, or not at all."""
    with memory_limit(), pytest.raises(DamagedFileError, match=message):
        lq.Quantized.from_payload(packed(replace(state_of(name, (5, 12)), place, value)))


@pytest.mark.parametrize("depth", [1, 2, 400])
def test_chains_hold_no_chains(depth: int):
    state = state_of("chained", (5, 12))
    for _ in range(depth):
        state[3] = ["chain", [state[3]]]
    with pytest.raises(DamagedFileError, match=r"a chain in a chain|are no message"):
        lq.Quantized.from_payload(packed(state))


def test_a_chain_in_a_chain_is_stored_as_its_parts():
    inner = Chain((Hadamard(1), Diagonal(np.arange(1.0, 13.0))))
    weight = np.random.default_rng(0).standard_normal((5, 12))
    fixed = lq.transforms.Fixed(Chain((inner, Gain(2.0), inner)))
    found = lq.quantize(weight, np.eye(12), lq.Scheme(transform=fixed, quantizer=lq.quantizers.Uniform(0.1)))
    assert [type(part).__name__ for part in found.transform.parts] == [
        "Hadamard",
        "Diagonal",
        "Gain",
        "Hadamard",
        "Diagonal",
    ]
    assert_same(lq.Quantized.from_bytes(found.to_bytes()).dequantize(), found.dequantize())
    with pytest.raises(InvalidInputError, match="a chain of 20 transforms"):
        Chain((Gain(2.0),) * 20)


def test_short_files_of_large_shapes_are_refused_or_cheap():
    """Weights that a file may hold without a shape: what it takes to decode them is bounded before it begins."""
    read = 0
    for case in huge():
        rows, columns = msgpack.unpackb(case.blob[:-8])[1]
        with memory_limit(1 << 30):
            try:
                found = lq.Quantized.from_payload(case.blob)
            except DamagedFileError:
                continue
        assert rows * columns <= max(MOST_WEIGHTS, PER_BYTE * len(case.blob))
        live = found.coder.live(found.coded, found.shape, 0)
        assert live <= max(MOST_LIVE, PER_BYTE * len(case.blob))
        read += 1
    assert read >= 10


@pytest.mark.parametrize("name", ["watersic", "watersic published", "trellis", "lattice", "huffman_gptq"])
def test_zeros_of_4096_squared_are_read_without_a_shape(name: str):
    state = state_of(name, (5, 12))
    small = lq.Quantized.from_payload(packed(state))
    zeros = np.zeros((4096, 4096), dtype=np.int32)
    quantizer = small.quantizer
    if name == "lattice":
        quantizer = dataclasses.replace(quantizer, row_classes=None)
    payload = lq.Quantized(zeros, quantizer, Identity(), small.coder).payload
    assert len(payload) < 600
    assert not lq.Quantized.from_payload(payload).codes.any()


def test_more_weights_than_a_file_may_hold_want_a_shape():
    codes = np.zeros((1024, 1024), dtype=np.int32)
    codes[0] = 1
    found = lq.Quantized(codes, lq.quantizers.UniformQuantizer(np.ones((1, 1))), Identity(), lq.coding.TwoWay())
    blob = found.to_bytes()
    live = codes.size > max(MOST_LIVE, PER_BYTE * len(found.payload))
    if live:
        with pytest.raises(DamagedFileError, match="or pass the shape"):
            lq.Quantized.from_bytes(blob)
    assert_same(lq.Quantized.from_bytes(blob, codes.shape).codes, codes)
    with pytest.raises(DamagedFileError, match="1024 x 1024 weights where 1024 x 1 belong"):
        lq.Quantized.from_bytes(blob, (1024, 1))


KINDS = ["gaussian", "zeros", "one", "heavy", "huge", "tiny"]
SHAPES = [(1, 1), (1, 384), (4, 384), (2048, 1), (3, 5)]


@pytest.mark.parametrize(
    ("shape", "kind"), [*itertools.product(SHAPES, KINDS), ((1, 1024), "gaussian"), ((4, 1024), "heavy")]
)
def test_every_recipe_loads_what_it_writes(shape: tuple[int, int], kind: str):
    """Narrow and flat shapes, and weights that are hard on scales."""
    rng = np.random.default_rng(shape[0])
    weight = rng.standard_normal(shape)
    weight = {
        "gaussian": weight,
        "zeros": 0.0 * weight,
        "one": np.eye(*shape),
        "heavy": rng.standard_t(1, shape),
        "huge": 1e100 * weight,
        "tiny": 1e-100 * weight,
    }[kind]
    sigma = np.diag(np.geomspace(1, 30, shape[1]))
    for name in (
        "watersic",
        "huffman_gptq",
        "watersic published",
        "trellis",
        "lattice",
        "rtn",
        "gptq",
        "palette",
        "bitshift",
    ):
        scale = {"huge": 1e100, "tiny": 1e-100}.get(kind, 1.0)
        scheme = every_scheme(shape[1], 0.3 * scale)[name]
        try:
            found = lq.quantize(weight, sigma, scheme)
        except LattqError:
            continue  # scales beyond float16 say so
        again = lq.Quantized.from_bytes(found.to_bytes(), shape)
        assert_same(again.dequantize(np.float64), found.dequantize(np.float64))


@settings(max_examples=max(settings().max_examples // 3, 1))
@pytest.mark.parametrize("name", NAMES)
@given(weight=weights())
def test_every_scheme_loads_what_it_writes_with_and_without_a_shape(name: str, weight: np.ndarray):
    sigma = moment(np.geomspace(1, 30, weight.shape[1]), 0)
    payload = lq.quantize(weight, sigma, every_scheme(weight.shape[1])[name]).payload
    one, two = lq.Quantized.from_payload(payload), lq.Quantized.from_payload(payload, weight.shape)
    assert_same(one.dequantize(np.float64), two.dequantize(np.float64))


@pytest.mark.parametrize(
    "header",
    [
        {"payload": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}},
        {"payload": {"dtype": "BF16", "shape": [0], "data_offsets": [0, 0]}, "__metadata__": {"lattq": "[1]"}},
        {"other": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}, "__metadata__": {"lattq": "[1]"}},
        {"__metadata__": {"lattq": '[1,"uniform","identity","fixed"]', "more": "x"}},
        {"__metadata__": {"lattq": "[" * 10000}},
        {},
    ],
)
def test_files_with_another_header_are_refused(header: dict):
    payload = next(payload for name, _, payload in corpus() if name == "rtn")
    text = json.dumps(header).encode()
    for body in (payload, b""):
        for size in (len(text), len(text) + 1, 2**40, 2**63):
            with pytest.raises(DamagedFileError):
                lq.Quantized.from_bytes(size.to_bytes(8, "little") + text + body)


def test_more_tensors_beside_the_payload_are_refused():
    payload = next(payload for name, _, payload in corpus() if name == "rtn")
    import safetensors.numpy

    tensors = {"payload": np.frombuffer(payload, dtype=np.uint8)}
    good = safetensors.numpy.save(
        tensors, {"lattq": json.dumps([FORMAT, "uniform", "identity", "fixed"], separators=(",", ":"))}
    )
    assert lq.Quantized.from_bytes(good).to_bytes() == good
    for dtype in (np.uint8, np.float16, np.int64):
        more = safetensors.numpy.save({**tensors, "z": np.zeros(3, dtype=dtype)}, {"lattq": "[1]"})
        with pytest.raises(DamagedFileError):
            lq.Quantized.from_bytes(more)
