"""The value: bytes that restore every bit, damage that is always noticed, a rate that counts every byte."""

import dataclasses
import hashlib
import inspect
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lattq as lq
from lattq.coding.integers import encode_integers
from lattq.errors import DamagedFileError, InvalidInputError
from lattq.quantized import FORMAT
from lattq.quantizers import Bitshift
from tests.damage import damaged_bytes, damaged_streams, memory_limit, refusal_allowed, replace
from tests.helpers import assert_same, assert_same_bits
from tests.schemes import NAMES, every_scheme
from tests.strategies import moment, weights

few = settings(max_examples=settings().max_examples // 3)  # one law for many schemes
many = settings(max_examples=20 * settings().max_examples)  # a try takes a millisecond
SHAPES = [(1, 1), (1, 8), (8, 1), (5, 12), (33, 16)]


def layer(rows: int, columns: int, dtype: Any = np.float64) -> tuple[np.ndarray, np.ndarray]:
    weight = np.random.default_rng(rows + columns).standard_normal((rows, columns)).astype(dtype)
    return weight, moment(np.geomspace(1, 30, columns), columns)


def quantized(name: str, shape: tuple[int, int], dtype: Any = np.float64) -> lq.Quantized:
    return lq.quantize(*layer(*shape, dtype), every_scheme(shape[1])[name])


def check_round_trip(found: lq.Quantized):
    """Bytes restore codes, every bit of the reconstruction, and bytes; encoding again changes nothing."""
    blob = found.to_bytes()
    again = lq.Quantized.from_bytes(blob)
    assert_same(again.codes, found.codes)
    assert_same_bits(again.dequantize(), found.dequantize())
    assert_same_bits(again.dequantize(np.float64), found.dequantize(np.float64))
    assert again.to_bytes() == blob
    assert dataclasses.replace(again).payload == found.payload
    assert lq.Quantized.from_payload(found.payload).payload == found.payload


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", NAMES)
def test_bytes_restore_every_bit(name: str, shape: tuple[int, int], dtype: Any):
    check_round_trip(quantized(name, shape, dtype))


@pytest.mark.parametrize("name", NAMES)
@few
@given(weight=weights())
def test_bytes_restore_any_weights(name: str, weight: np.ndarray):
    columns = weight.shape[1]
    check_round_trip(lq.quantize(weight, moment(np.geomspace(1, 30, columns), 0), every_scheme(columns)[name]))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", NAMES)
def test_the_rate_counts_every_byte(name: str, shape: tuple[int, int], tmp_path: Path):
    found = quantized(name, shape)
    lq.save(tmp_path / "layer", found)
    size = (tmp_path / "layer").stat().st_size
    assert found.nbytes == size == len(found.to_bytes())
    assert found.rate == 8 * size / (shape[0] * shape[1])


@pytest.fixture(scope="module")
def blob() -> bytes:
    return quantized("watersic", (12, 6)).to_bytes()


def test_every_altered_byte_is_noticed(blob: bytes):
    """Each bit of each byte, and each byte replaced by a few that mean something in JSON or msgpack."""
    for position in range(len(blob)):
        changes = {blob[position] ^ (1 << bit) for bit in range(8)} | {*b'\x00\x7f\x80\xff {}[]":,019'}
        for value in changes - {blob[position]}:
            with pytest.raises(DamagedFileError):
                lq.Quantized.from_bytes(blob[:position] + bytes([value]) + blob[position + 1 :])


def test_every_truncation_is_noticed(blob: bytes):
    for size in range(len(blob)):
        with pytest.raises(DamagedFileError):
            lq.Quantized.from_bytes(blob[:size])


@many
@given(data=st.data(), times=st.integers(1, 3))
def test_any_damage_is_noticed(blob: bytes, data: st.DataObject, times: int):
    damaged = blob
    for _ in range(times):
        damaged = data.draw(damaged_bytes(damaged))
    if damaged != blob:
        with memory_limit(), pytest.raises(DamagedFileError):
            lq.Quantized.from_bytes(damaged)


@given(noise=st.binary(max_size=300))
def test_noise_is_not_a_file(noise: bytes):
    for read in (lq.Quantized.from_bytes, lq.Quantized.from_payload):
        with memory_limit(), pytest.raises(DamagedFileError):
            read(noise)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("value", [None, {}, 3.0, np.zeros(40, dtype=np.uint8)], ids=repr)
def test_what_is_no_bytes_or_path_is_named(value: Any):
    for read in (lq.Quantized.from_bytes, lq.Quantized.from_payload):
        with pytest.raises(InvalidInputError, match="no bytes"):
            read(value)
    with pytest.raises(InvalidInputError, match="no path"):
        lq.load(value)
    with pytest.raises(InvalidInputError, match="`quantized` is"):
        lq.save("never written", value)


def test_payloads_are_checked_too(blob: bytes):
    payload = lq.Quantized.from_bytes(blob).payload
    for position in range(len(payload)):
        altered = payload[:position] + bytes([payload[position] ^ 1]) + payload[position + 1 :]
        for damaged in (altered, payload[:position]):
            with pytest.raises(DamagedFileError, match="hash"):
                lq.Quantized.from_payload(damaged)


def sealed(state: list) -> bytes:
    """A payload with the right hash, as a program of another version, or of another mind, might write it."""
    body = bytes(msgpack.packb(state) or b"")
    return body + hashlib.blake2b(body, digest_size=8).digest()


def test_another_format_version_is_named(blob: bytes):
    state = msgpack.unpackb(lq.Quantized.from_bytes(blob).payload[:-8])
    with pytest.raises(
        DamagedFileError, match=f"version {FORMAT + 1}; this lattq reads versions 1 and {FORMAT}: a later"
    ):
        lq.Quantized.from_payload(sealed([FORMAT + 1, *state[1:]]))


FORGED = [
    "watersic",
    "watersic published",
    "gptq",
    "chained",
    "bitshift",
    "trellis",
    "lattice",
    "nested words",
    "mxfp4",
]


@pytest.mark.parametrize("name", FORGED)
@given(data=st.data())
def test_forged_payloads_are_refused_in_bounded_memory(name: str, data: st.DataObject):
    """With the hash made to fit, what is read is a matrix that decodes, or a `DamagedFileError` says why not.

    The shape alone may ask for much memory: a matrix of zeros of any size is a short message.
    """
    state = msgpack.unpackb(quantized(name, (6, 5)).payload[:-8])
    forged = sealed(state[:2] + (data.draw(damaged_streams(state[2:])) or []))
    found = None
    with refusal_allowed(), np.errstate(all="ignore"):
        found = lq.Quantized.from_payload(forged)
    if found is not None:
        with refusal_allowed(), np.errstate(all="ignore"):  # codes are decoded when somebody asks
            assert found.decoded().shape == (6, 5)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ((6, 1), [4, -1], "codes from -1 to 2 are no symbols"),
        ((6, 1), [4, 1], "codes from 1 to 4 are no symbols"),
        ((2, 1, 0), 1, "codes from 0 to 3 are no symbols of 1 bits"),
        ((), [3, encode_integers(np.array([1, 0, -1]))], "centroids for a BitshiftQuantizer"),
    ],
)
def test_symbols_that_the_code_of_a_file_does_not_know(place: tuple, value: Any, message: str):
    """They used to be found when the matrix was decoded, long after it was read."""
    scheme = lq.Scheme(quantizer=Bitshift(2, memory=2))
    weight = np.random.default_rng(0).standard_normal((40, 5))
    state = msgpack.unpackb(lq.quantize(weight, np.eye(5), scheme).payload[:-8])
    forged = replace(state, place, value) if place else state + value
    with pytest.raises(DamagedFileError, match=message):
        lq.Quantized.from_payload(sealed(forged))


@pytest.mark.parametrize(
    ("name", "place", "value", "message"),
    [
        ("nested words", (6, 1, 3), 1 << 31, "`block` is"),
        ("nested words", (6, 1, 3), 1 << 62, "`block` is"),
        ("nested words", (6, 1, 0), 1 << 31, "`dimension` is"),
        ("nested words", (2, 1, 1), 2, "are not digits below 2 with 2 scales"),
        ("nested words", (2, 1, 3), [0.5], "are not digits below 8 with 1 scales"),
        ("mxfp4", (6, 1), [16, 7], "where NumberFormat"),
        ("mxfp4", (7,), b"\xff" * 24, "codes 8 ... 8 where NumberFormat"),
    ],
)
def test_coders_that_do_not_fit_the_quantizer_of_a_file(name: str, place: tuple, value: Any, message: str):
    """They used to take all memory, or to be found when the matrix was decoded."""
    columns = 8
    state = msgpack.unpackb(quantized(name, (6, columns)).payload[:-8])
    with memory_limit(), pytest.raises(DamagedFileError, match=message):
        lq.Quantized.from_payload(sealed(replace(state, place, value)))


def test_the_hash_is_part_of_the_payload():
    found = quantized("rtn", (4, 4))
    assert found.payload[-8:] == hashlib.blake2b(found.payload[:-8], digest_size=8).digest()
    assert found.payload in found.to_bytes()


def test_pinned_bytes():
    """The same bytes on every machine."""
    weight = np.array([[0.3, -1.2, 0.7], [2.1, 0.2, -0.4]])
    pinned = bytes.fromhex(
        "980492020392a7756e69666f726d970301cb3fe0000000000000cb8000000000000000c0c0c092a8646961676f6e616c94010800"
        "c400c0c092a774776f2d77617991ce0010000094d1fc18930000c400932100c40091c40500bff5924829fdf33ae541e839"
    )
    found = lq.quantize(weight, np.diag([1.0, 2.0, 4.0]), lq.recipes.watersic(0.5, shrink=False))
    assert found.payload == pinned
    again = lq.Quantized.from_payload(pinned)
    assert_same(again.codes, np.array([[1, -3, 2], [6, 1, -1]], dtype=np.int32))


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "layer.lattq"
    old, new = quantized("rtn", (4, 4)), quantized("watersic", (4, 4))
    lq.save(path, old)
    write = Path.write_bytes

    def full_disk(self: Path, data: bytes) -> int:
        write(self, data[: len(data) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full_disk)
    with pytest.raises(OSError, match="No space left"):
        lq.save(path, new)
    assert [entry.name for entry in tmp_path.iterdir()] == ["layer.lattq"]
    assert lq.load(path).to_bytes() == old.to_bytes()
    with pytest.raises(OSError, match="No space left"):
        lq.save(tmp_path / "other", new)
    assert len(list(tmp_path.iterdir())) == 1


def test_save_replaces_and_load_reads(tmp_path: Path):
    for name in ("rtn", "watersic"):
        found = quantized(name, (4, 4))
        lq.save(str(tmp_path / "layer"), found)
        assert_same(lq.load(str(tmp_path / "layer")).dequantize(), found.dequantize())
    assert len(list(tmp_path.iterdir())) == 1


def test_a_damaged_file_is_not_loaded(tmp_path: Path, blob: bytes):
    (tmp_path / "layer").write_bytes(blob[:-1])
    with pytest.raises(DamagedFileError, match="bytes does not match"):
        lq.load(tmp_path / "layer")


def test_repr_names_shape_rate_and_parts():
    found = quantized("watersic", (33, 16))
    assert repr(found) == f"<Quantized 33 x 16, {found.rate:.3f} bit per weight, Diagonal → UniformQuantizer → TwoWay>"
    found = dataclasses.replace(found, stats={"<note>": "a & b"})
    page = found._repr_html_()
    assert "<th>&lt;note&gt;</th><td>a &amp; b</td>" in page
    assert f"{found.rate:.4f} bit per weight" in page


@pytest.mark.parametrize("name", NAMES)
def test_distortion_is_the_definition(name: str):
    weight, sigma = layer(7, 6)
    found = quantized(name, (7, 6))
    w, s = (weight, sigma) if name != "folded" else (found.transform.forward(weight), found.transform.congruence(sigma))
    error = w - found.dequantize(np.float64)
    expected = np.mean([np.trace(np.outer(row, row) @ s) for row in error]) / 6
    assert found.distortion(weight, sigma) == pytest.approx(expected, rel=1e-9)


def test_distortion_wants_the_same_shapes():
    found = quantized("rtn", (4, 4))
    distortion = inspect.unwrap(lq.Quantized.distortion)  # the tests' own shape checks would come first
    with pytest.raises(InvalidInputError, match=r"`weight` has shape \(4, 3\)"):
        distortion(found, np.ones((4, 3)), np.eye(3))
    with pytest.raises(InvalidInputError, match="weight has 4 columns"):
        distortion(found, np.ones((4, 4)), np.eye(3))


def test_the_gap_is_measured_from_the_bound():
    weight, sigma = layer(33, 16)
    found = quantized("watersic", (33, 16))
    for row, column in ((None, None), (2.0, 3.0), (np.arange(1.0, 34.0), np.arange(1.0, 17.0))):
        rows, columns = lq.bounds.two_way_variances(weight) if row is None else (row, column)
        bound = lq.bounds.layer_rate(sigma, found.distortion(weight, sigma), rows, columns)
        assert found.gap(weight, sigma, row_variance=row, column_variance=column) == pytest.approx(found.rate - bound)


def test_gaps_without_distortion():
    """Nothing to code costs the whole rate; what is exact, no Gaussian can match at any rate."""
    zero, one = np.zeros((4, 4)), np.eye(4)
    for weight, sigma in ((zero, one), (one, zero)):
        found = lq.quantize(weight, sigma, lq.recipes.rtn(3))
        assert found.gap(weight, sigma) == found.rate
    exact = np.array([[1.0, -1.0], [-1.0, -1.0]])
    found = lq.quantize(exact, np.eye(2), lq.recipes.rtn(3))
    assert found.distortion(exact, np.eye(2)) == 0.0
    assert found.gap(exact, np.eye(2)) == -np.inf


def test_given_variances_are_not_estimated():
    """A matrix of mostly zeros has no two-way variances of its own."""
    weight = np.tril(np.ones((6, 6)))
    with pytest.raises(InvalidInputError, match="no two-way variances"):
        lq.bounds.two_way_variances(weight)
    found = lq.quantize(weight, np.eye(6), lq.recipes.watersic(0.3))
    assert np.isfinite(found.gap(weight, np.eye(6), row_variance=1.0, column_variance=1.0))
