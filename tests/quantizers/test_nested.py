"""The nested design: the contract, vectors along the rows, columns left over, real bytes, refusals."""

import dataclasses
from types import ModuleType
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import lattq as lq
from lattq._array import to_host
from lattq.coding.damage import reading
from lattq.errors import DamagedFileError, InvalidInputError
from lattq.feedback import MMSE, Cholesky, OpenLoop
from lattq.lattices import E8, A, D, NestedCode, VoronoiCode, Z
from lattq.lattices.nested import NESTQUANT_SCALES
from lattq.quantizers import Entries, Nested
from lattq.quantizers.base import Design, Quantizer
from lattq.quantizers.nested import NestedQuantizer
from lattq.scheme import Scheme
from lattq.transforms import Hadamard
from tests.contracts import QuantizerContract
from tests.damage import damaged_streams, refusal_allowed
from tests.helpers import assert_same
from tests.strategies import gaussian_layer


def design(kind: Nested, targets: Any, block: int) -> NestedQuantizer:
    """The quantizer that a design chooses for targets of any array library."""
    columns = targets.shape[1]
    return kind(Entries(targets, pivots=np.ones((columns // block, block, block))))


class Vectors(QuantizerContract):
    """Not always the nearest code by one digit: neighbours of digits are far away."""

    nearest = False
    kind: Nested

    def quantizer(self, xp: ModuleType) -> NestedQuantizer:
        return design(self.kind, xp.asarray(np.full((1, self.columns), self.spread)), self.columns)

    def beside(self) -> NestedQuantizer:
        return design(self.kind, np.full((1, self.columns), 1.5 * self.spread), self.columns)


class TestE8(Vectors):
    kind, columns, code_range = Nested(E8, 14, (0.25, 0.5)), 8, (0, 27)


class TestLeftOver(Vectors):
    kind, columns, code_range = Nested(D(4), 8, (0.25, 0.4, 0.8), index="packed"), 11, (0, 23)


class TestHexagonal(Vectors):
    kind, columns, code_range = Nested(A(2), 13, (0.25, 0.5), shaping="simplified"), 4, (0, 25)


def test_the_protocols_hold():
    assert isinstance(Nested(), Design)
    assert isinstance(design(Nested(D(4), 5, 2), np.ones((2, 4)), 4), Quantizer)


def test_vectors_lie_along_the_rows():
    """Each is that of the nested code, times the row's root mean square in float16; what is left over is cubic."""
    x = np.random.default_rng(0).standard_normal((6, 22)) * np.geomspace(0.1, 10, 6)[:, None]
    quantizer = dataclasses.replace(design(Nested(D(4), 14, (0.3, 0.6)), x, 22), block=11)
    scale = np.sqrt(np.mean(x**2, axis=1, keepdims=True)).astype(np.float16).astype(np.float64)
    assert_same(quantizer.scale, scale)
    found, codes = quantizer.decode(quantizer.encode(x)), quantizer.encode(x)
    for start in (0, 4, 11, 15):
        digits, index = quantizer.code.encode(x[:, start : start + 4] / scale)
        assert_same(found[:, start : start + 4], quantizer.code.decode(digits, index) * scale)
        assert_same(codes[:, start], digits[:, 0] + 14 * index)
    rest = NestedCode(VoronoiCode(Z(3), 14), tuple(s * 2**0.25 for s in (0.3, 0.6)))
    for start in (8, 19):
        expected = rest.decode(*rest.encode(x[:, start : start + 3] / scale)) * scale
        np.testing.assert_allclose(found[:, start : start + 3], expected, rtol=1e-12)


def test_hexagonal_points_have_the_second_moment_of_the_lattice():
    """An isometry: many digits and one fine scale leave the error of the cell, to four standard errors."""
    x = np.random.default_rng(1).standard_normal((4000, 2))
    quantizer = NestedQuantizer(np.ones((1, 1)), NestedCode(VoronoiCode(A(2), 256), (0.05,)), 2)
    squares = np.sum((x - quantizer.decode(quantizer.encode(x))) ** 2, axis=1) / 2
    expected = 5 / (36 * 3**0.5) * A(2).volume * 0.05**2
    assert abs(squares.mean() - expected) < 4 * squares.std() / np.sqrt(4000)


def test_coordinates_that_are_zero_decode_to_zero():
    """Rounding of the frame would be a column of 1e-17 with an LMMSE gain of 1e17."""
    quantizer = NestedQuantizer(np.ones((1, 1)), NestedCode(VoronoiCode(A(2), 5), (0.4, 0.8)), 2)
    codes = np.array([[i + 5 * k, j] for i in range(5) for j in range(5) for k in range(2)], dtype=np.int32)
    found = np.abs(quantizer.decode(codes))
    assert found[found > 0].min() > 0.1
    assert (found == 0).any(axis=0).all()


def test_overload_counts_entries_of_vectors_that_fit_nowhere():
    quantizer = NestedQuantizer(np.ones((1, 1)), NestedCode(VoronoiCode(E8, 14), (0.1,)), 8)
    x = np.zeros((5, 16))
    x[1, 3], x[4, 9] = 50.0, 0.4
    assert quantizer.overload(x) == 8
    assert not quantizer.decode(quantizer.encode(x))[0].any()


def test_zero_rows_stay_zero_and_tiny_ones_are_counted():
    x = np.array([[0.0] * 8, [1e-9] * 8, [1.0] * 8])
    quantizer = design(Nested(E8, 5, (0.5,)), x, 8)
    assert not quantizer.decode(quantizer.encode(x))[0].any()
    assert quantizer.underflow() == 1


@pytest.mark.parametrize("size", [1e-19, 1e-23, 1e-30, 1e-44])
def test_rows_whose_squares_underflow_are_counted(size: float):
    """Squares below the range of float32 are no reason to call a row zero."""
    weight = np.random.default_rng(5).standard_normal((6, 16)).astype(np.float32)
    weight[:4] = (weight[:4].astype(np.float64) * size).astype(np.float32)
    weight[3] = 0.0
    found = lq.quantize(weight, np.eye(16), Scheme(feedback=OpenLoop(8), quantizer=Nested(E8, 14, (0.25, 0.5))))
    assert (to_host(found.quantizer.scale)[:, 0] > 0).tolist() == [True, True, True, False, True, True]
    assert found.stats["underflow"] == 3


def test_scales_are_root_mean_squares_in_either_dtype():
    """Also where squares overflow float32."""
    x = np.random.default_rng(6).standard_normal((5, 8)) * np.array([[1e-3], [1.0], [50.0], [3.0], [2e3]])
    for dtype in (np.float32, np.float64):
        expected = np.sqrt(np.mean(x.astype(dtype).astype(np.float64) ** 2, axis=1, keepdims=True))
        found = to_host(design(Nested(E8, 14, (0.5,)), x.astype(dtype), 8).scale)
        assert found.dtype == dtype
        np.testing.assert_allclose(found, expected, rtol=2.0**-11 + 1e-7)
    with pytest.raises(InvalidInputError, match="beyond float16"):
        design(Nested(E8, 14, (0.5,)), np.full((1, 8), 1e25, dtype=np.float32), 8)


@pytest.mark.parametrize(
    "feedback", [Cholesky("reversed", block=8), OpenLoop(block=8), MMSE(0.005, order="natural", block=16)]
)
@pytest.mark.parametrize("index", ["packed", "raw", "coded"])
def test_files_restore_every_bit(feedback: Any, index: str):
    weight, sigma = gaussian_layer(40, 48)
    kind = Nested(E8, 13, (0.25, 0.35, 0.6), index=index, group=16, shrink=index == "raw")
    found = lq.quantize(weight, sigma, Scheme(transform=Hadamard(), feedback=feedback, quantizer=kind))
    again = lq.Quantized.from_bytes(found.to_bytes())
    assert_same(again.codes, found.codes)
    assert_same(again.dequantize(np.float64), found.dequantize(np.float64))
    assert again.payload == found.payload
    if index == "packed":
        assert len(found.coded) == weight.size // 2


def test_a_gaussian_layer_has_the_gap_of_the_code():
    """Rate 4 in words of q = 13; with a coded index q = 14 takes the same bits and has less error."""
    weight = np.random.default_rng(3).standard_normal((256, 512))
    sigma = np.eye(512)
    packed, coded = (
        lq.quantize(weight, sigma, Scheme(feedback=Cholesky(block=8), quantizer=kind))
        for kind in (Nested(E8, 13, 4, index="packed"), Nested(E8, 14, 4))
    )
    assert len(packed.coded) == weight.size // 2
    assert packed.distortion(weight, sigma) < 0.0070
    assert coded.distortion(weight, sigma) < 0.0060
    assert 8 * sum(len(part) for part in coded.coded[:1]) / weight.size < 4.01
    published = Nested(E8, 14, tuple(s / 14 for s in NESTQUANT_SCALES["weights"]))
    worse = lq.quantize(weight, sigma, Scheme(feedback=OpenLoop(8), quantizer=published))
    assert worse.distortion(weight, sigma) > 1.1 * coded.distortion(weight, sigma)


def test_feedback_pays():
    weight, sigma = gaussian_layer(64, 32)
    kind = Nested(E8, 14, (0.25, 0.35, 0.6))
    opened, closed = (
        lq.quantize(weight, sigma, Scheme(feedback=feedback, quantizer=kind)).distortion(weight, sigma)
        for feedback in (OpenLoop(8), Cholesky(block=8))
    )
    assert closed < opened


@pytest.mark.parametrize(
    "feedback", [OpenLoop(), Cholesky(), Cholesky(block=4), Cholesky("sorted", block=8), OpenLoop(4)]
)
def test_vectors_that_the_order_tears_apart_are_refused(feedback: Any):
    weight, sigma = gaussian_layer(5, 16)
    with pytest.raises(InvalidInputError, match="vectors of 8 adjacent columns"):
        lq.quantize(weight, sigma, Scheme(feedback=feedback, quantizer=Nested(E8, 4, (0.5,))))


@pytest.mark.parametrize(("lattice", "size"), [(E8, 4), (E8, 12), (A(4), 2)])
def test_groups_of_one_block_that_tear_vectors_apart_are_refused(lattice: Any, size: int):
    """They used to be quantized in cubes, into files that no one could read."""
    weight, sigma = gaussian_layer(5, 24)
    kind = Nested(lattice, 14, (0.2, 0.3, 0.5), group=size)
    with pytest.raises(InvalidInputError, match=f"vectors of {lattice.dimension} adjacent columns"):
        lq.quantize(weight, sigma, Scheme(feedback=Cholesky("natural", block=size), quantizer=kind))


@pytest.mark.parametrize(
    ("columns", "block", "group"), [(4, 4, None), (4, 4, 8), (12, 12, None), (24, 8, 16), (8, 8, 8)]
)
def test_whatever_is_quantized_is_read_back(columns: int, block: int, group: int | None):
    """A row may be narrower than a vector, and the last group narrower than the others."""
    weight, sigma = gaussian_layer(5, columns)
    scheme = Scheme(feedback=OpenLoop(block), quantizer=Nested(E8, 14, (0.2, 0.3, 0.5), group=group))
    found = lq.quantize(weight, sigma, scheme)
    assert_same(lq.Quantized.from_bytes(found.to_bytes()).dequantize(), found.dequantize())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"q": 1}, "`q` is 1"),
        ({"scales": 0}, "`scales` is 0"),
        ({"scales": (1.0, 0.5)}, "rising"),
        ({"rule": "last"}, "`rule` is 'last'"),
        ({"index": "zip"}, "`index` is 'zip'"),
        ({"q": 256, "index": "packed"}, "64 bits"),
        ({"shaping": "cube"}, "`shaping` is 'cube'"),
        ({"group": 0}, "`group` is 0"),
    ],
)
def test_options_that_no_design_has(options: dict, message: str):
    with pytest.raises(InvalidInputError, match=message):
        Nested(**options)


def test_points_between_codes_and_nan_are_refused():
    quantizer = design(Nested(E8, 5, (0.5,)), np.ones((2, 8)), 8)
    with pytest.raises(InvalidInputError, match="name no digits"):
        quantizer.decode(np.full((2, 8), 0.5))
    with pytest.raises(InvalidInputError, match="nan at index"):
        quantizer.encode(np.full((2, 8), np.nan))


@given(data=st.data())
def test_forged_states_are_refused(data: st.DataObject):
    weight, sigma = gaussian_layer(9, 8)
    scheme = Scheme(quantizer=Nested(D(4), 5, (0.4, 0.8), group=4), feedback=Cholesky(block=4))
    state = lq.quantize(weight, sigma, scheme).quantizer.to_state()
    forged = data.draw(damaged_streams(msgpack.unpackb(msgpack.packb(state) or b"")))
    with refusal_allowed(), reading("a state"):
        found = NestedQuantizer.from_state(forged, weight.shape)
        assert found.decode(np.zeros((9, 8), dtype=np.int32)).shape == (9, 8)


@pytest.mark.parametrize(
    ("place", "value"),
    [(5, 0), (5, 3), (5, 16), (6, 0), (6, -24), (6, 10**30), (6, 6), (7, None), (8, -1), (8, 0), (8, None)],
)
def test_sizes_that_no_file_has_are_refused(place: int, value: Any):
    """Blocks, groups, index of scales, rows."""
    weight, sigma = gaussian_layer(9, 8)
    scheme = Scheme(quantizer=Nested(D(4), 5, (0.4, 0.8)), feedback=Cholesky(block=4))
    state = lq.quantize(weight, sigma, scheme).quantizer.to_state()
    assert NestedQuantizer.from_state(state, weight.shape).to_state() == state
    with pytest.raises(DamagedFileError), reading("a state"):
        NestedQuantizer.from_state([*state[:place], value, *state[place + 1 :]], weight.shape)


def test_scales_of_other_rows_are_refused():
    quantizer = design(Nested(E8, 5, (0.5,)), np.ones((3, 8)), 8)
    state = dataclasses.replace(quantizer, group=8).to_state()
    with pytest.raises(DamagedFileError, match="`height` is 3"):
        NestedQuantizer.from_state(state, (6, 8))
