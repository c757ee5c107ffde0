"""The lattice design: the contract on every array library, cells, rows of many scales, real bytes, damage."""

import dataclasses
import functools
from types import ModuleType
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import lattq as lq
from lattq.coding import TwoWay
from lattq.coding.damage import reading
from lattq.coding.integers import encode_integers
from lattq.errors import CodeOverflowError, DamagedFileError, InvalidInputError
from lattq.feedback import OpenLoop
from lattq.lattices import BW16, E8, A, A_dual, D, D_dual, Leech24, Z
from lattq.lattices.coder import EntropyCodedLattice
from lattq.lattices.layout import Layout
from lattq.lattices.words import cell_side, tail_step
from lattq.quantizers import Lattice, Uniform
from lattq.quantizers.base import Design, Quantizer
from lattq.quantizers.lattice import LatticeQuantizer
from lattq.scheme import Scheme
from tests.contracts import QuantizerContract, stream_bits
from tests.damage import damaged_streams, refusal_allowed
from tests.helpers import assert_same
from tests.strategies import gaussian_layer, moment, seeds

ALL = [Z(1), D(4), D_dual(3), E8, BW16, Leech24]


def named(lattice: Any) -> str:
    return lattice.name


class Points(QuantizerContract):
    """Codes one off are no points, except in Z."""

    nearest = False
    lattice: Any

    def quantizer(self, xp: ModuleType) -> LatticeQuantizer:
        return LatticeQuantizer(xp.asarray([[0.5]], dtype=xp.float64), self.lattice)

    def beside(self) -> LatticeQuantizer:
        return LatticeQuantizer(np.array([[0.75]]), self.lattice)


class TestZ(Points):
    lattice, nearest = Z(2), True


class TestD4(Points):
    lattice, columns = D(4), 3


class TestE8(Points):
    lattice, columns = E8, 2


class TestBW16(Points):
    lattice = BW16


class TestLeech(Points):
    lattice = Leech24


def test_the_protocols_hold():
    assert isinstance(Lattice(E8), Design)
    assert isinstance(LatticeQuantizer(np.ones((1, 1)), E8), Quantizer)


@pytest.mark.parametrize("lattice", ALL, ids=named)
def test_cells_have_the_volume_and_the_second_moment_of_the_step(lattice: Any):
    """The squared error of uniform numbers, to four standard errors of the points' errors."""
    n, step = lattice.dimension, 0.7
    x = np.random.default_rng(n).uniform(-20, 20, (n * 500, 4))
    quantizer = LatticeQuantizer(np.array([[step]]), lattice)
    error = (x - quantizer.decode(quantizer.encode(x))).reshape(500, n, 4)
    squares = np.mean(error**2, axis=1)
    expected = Lattice(lattice).second_moment * step**2
    slack = 1e-4 * (lattice is Leech24 or lattice is BW16)  # constants known to four digits
    assert abs(squares.mean() - expected) < 4 * squares.std() / np.sqrt(squares.size) + slack * step**2


@given(seed=seeds, lattice=st.sampled_from(ALL), rows=st.integers(1, 60), wide=st.booleans())
def test_points_are_those_of_the_lattice_in_the_order_of_the_rows(seed: int, lattice: Any, rows: int, wide: bool):
    rng = np.random.default_rng(seed)
    classes = rng.integers(-9, 9, rows) if wide else None
    x = rng.standard_normal((rows, 3)) * 5
    codes = LatticeQuantizer(np.array([[0.5]]), lattice, classes).encode(x)
    layout = Layout(np.zeros(rows, dtype=np.int64) if classes is None else classes, lattice.dimension)
    scaled, tail = x[layout.order] * cell_side(lattice) / 0.5, tail_step(lattice)
    for start in range(0, layout.whole, lattice.dimension):
        part = slice(start, start + lattice.dimension)
        assert_same(codes[layout.order[part]].T, lattice.nearest_integer(scaled[part].T))
    alone = codes[layout.order[layout.whole :]]
    assert not (alone % tail).any()
    assert np.all(np.abs(alone - scaled[layout.whole :]) <= tail / 2 + 1e-9)


@given(seed=seeds)
def test_no_point_of_e8_around_the_chosen_one_is_nearer(seed: int):
    x = np.random.default_rng(seed).standard_normal((8, 1))
    quantizer = LatticeQuantizer(np.array([[0.5]]), E8)
    codes = quantizer.encode(x)
    box = np.stack(np.meshgrid(*[[-1, 0, 1]] * 8), axis=-1).reshape(-1, 8)  # half of the least vectors, and others
    steps = box[((box - box[:, :1]) % 2 == 0).all(axis=1) & (box.sum(axis=1) % 4 == 0)]
    assert len(steps) == 128 + 1
    distance = np.sum((x - quantizer.decode(codes)) ** 2)
    rivals = np.sum((x.T - quantizer.decode(codes.T + steps)) ** 2, axis=1)
    assert np.all(distance <= rivals + 1e-12)


def test_equal_rows_have_no_classes():
    weight, sigma = gaussian_layer(500, 40)
    assert lq.quantize(weight, sigma, lq.recipes.watersic(0.3, quantizer=Lattice(E8))).quantizer.row_classes is None


def layer_of_rows(rows: int = 400, columns: int = 64) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights whose rows have scales over three octaves, a second moment, and those scales."""
    rng = np.random.default_rng(11)
    scales = np.exp2(rng.uniform(-1.5, 1.5, (rows, 1)))
    return scales * rng.standard_normal((rows, columns)), moment(np.geomspace(0.5, 2, columns), 3), scales


@pytest.mark.parametrize("lattice", [E8, Leech24], ids=named)
def test_classes_of_rows_follow_their_scales_and_are_charged_once(lattice: Any):
    weight, sigma, scales = layer_of_rows()
    found = lq.quantize(weight, sigma, lq.recipes.watersic(0.2, quantizer=Lattice(lattice)))
    classes = found.quantizer.row_classes
    expected = 8 * np.log2(scales[:, 0])
    # Five standard errors of a scale from 64 columns are 0.63 octaves; rounding and shrinkage have the rest.
    assert np.abs(classes - expected - np.median(classes - expected)).max() < 8 * 0.8
    side = len(bytes(msgpack.packb(encode_integers(classes)) or b""))
    *_, streams = found.coded
    assert len(found.payload) - sum(map(len, streams)) - side < 64 * 3 + 60
    again = lq.Quantized.from_bytes(found.to_bytes())
    assert_same(again.codes, found.codes)
    assert_same(again.quantizer.row_classes, classes)
    assert_same(again.quantizer.encode(weight), found.quantizer.encode(weight))
    assert_same(again.dequantize(np.float64), found.dequantize(np.float64))
    assert again.payload == found.payload


def test_row_classes_pay():
    """Against the same lattice without them, whose points mix rows of all scales."""
    weight, sigma, _ = layer_of_rows()
    scheme = lq.recipes.watersic(0.2, quantizer=Lattice(E8))
    found = lq.quantize(weight, sigma, scheme)
    plain = dataclasses.replace(found.quantizer, row_classes=None)
    codes = plain.encode(lq.quantize(weight, sigma, scheme).decoded())
    without = stream_bits(EntropyCodedLattice("E8").encode(codes)) / codes.size
    assert found.rate < without - 0.3


@pytest.mark.parametrize("lattice", ALL, ids=named)
def test_gaussian_weights_cost_the_space_filling_gap(lattice: Any):
    """At 3 bits, with the grid of scales (0.003), classes of columns (0.002), a file of some 300 bytes (0.02), and
    rows in no point: at most n - 1 of 2048, each 0.3 bit dearer."""
    weight, sigma = np.random.default_rng(4).standard_normal((2048, 64)), np.eye(64)
    found = lq.at_rate(3.0, functools.partial(lq.recipes.watersic, quantizer=Lattice(lattice)), weight, sigma)
    gap = found.gap(weight, sigma, row_variance=1, column_variance=np.mean(weight**2))
    assert -0.002 < gap - lattice.space_filling_gap < 0.03


def test_restored_layers_are_never_coded_again(monkeypatch: pytest.MonkeyPatch):
    weight, sigma, _ = layer_of_rows(600, 8)
    found = lq.quantize(weight, sigma, lq.recipes.watersic(2.0, quantizer=Lattice(E8, shrink=True)))
    blob, gains = found.to_bytes(), found.column_gains
    monkeypatch.setattr(EntropyCodedLattice, "encode", None)
    again = lq.Quantized.from_bytes(blob)
    assert gains is not None
    assert_same(again.column_gains, gains)
    moved = again.revalued(column_gains=gains + 1)
    assert lq.Quantized.from_bytes(moved.to_bytes()).rate == moved.rate


def test_other_coders_take_the_codes_as_they_are():
    weight, sigma, _ = layer_of_rows(60, 8)
    found = lq.quantize(weight, sigma, Scheme(quantizer=Lattice(D(4), 0.2), coder=TwoWay(), feedback=OpenLoop()))
    again = lq.Quantized.from_bytes(found.to_bytes())
    assert_same(again.dequantize(), found.dequantize())
    other = Scheme(quantizer=Lattice(E8, 0.2), coder=EntropyCodedLattice("Leech24"))
    with pytest.raises(InvalidInputError, match="is not a point"):
        _ = lq.quantize(weight, sigma, other).payload


@given(data=st.data())
def test_forged_states_are_refused(data: st.DataObject):
    state = LatticeQuantizer(np.array([[0.25]]), E8).to_state()
    forged = data.draw(damaged_streams(state) | st.sampled_from([[0.5, name] for name in ("A(2)", "E7", 3, None, [])]))
    with refusal_allowed(), reading("a state"):
        found = LatticeQuantizer.from_state(forged, (8, 1))
        assert found.decode(np.zeros((8, 1), dtype=np.int32)).shape == (8, 1)


@pytest.mark.parametrize("step", [0.0, -1.0, np.inf, np.nan])
def test_steps_that_scale_nothing(step: float):
    with pytest.raises(InvalidInputError, match="`step` is"):
        Lattice(E8, step)
    with pytest.raises(DamagedFileError, match="`step` is"):
        LatticeQuantizer.from_state([step, "E8"], (8, 1))


@pytest.mark.parametrize("lattice", [A(2), A_dual(3)], ids=named)
def test_lattices_with_more_coordinates_than_dimensions_are_refused(lattice: Any):
    with pytest.raises(InvalidInputError, match="n integers in n dimensions"):
        Lattice(lattice)


def test_rows_of_another_matrix_are_refused():
    quantizer = LatticeQuantizer(np.ones((1, 1)), E8, np.zeros(8, dtype=np.int64))
    with pytest.raises(InvalidInputError, match="has 9 rows, the quantizer classes of 8"):
        quantizer.encode(np.zeros((9, 1)))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_codes_that_floats_do_not_resolve_are_refused(dtype: type):
    quantizer = LatticeQuantizer(np.array([[1e-9]]), E8)
    with pytest.raises(CodeOverflowError, match="use a larger step") as caught:
        quantizer.encode(np.ones((8, 1), dtype=dtype))
    assert ("pass the weights as float64" in str(caught.value)) == (dtype is np.float32)


def test_codes_beyond_float32_are_coded_in_float64():
    """What the error says to do; the covering radius of E8 is one step."""
    quantizer, x = LatticeQuantizer(np.array([[1e-6]]), E8), np.ones((8, 1))
    with pytest.raises(CodeOverflowError, match="pass the weights as float64, good to 536870912"):
        quantizer.encode(x.astype(np.float32))
    np.testing.assert_allclose(quantizer.decode(quantizer.encode(x)), x, rtol=0, atol=1e-6)


def test_z_is_the_uniform_quantizer():
    weight, sigma = gaussian_layer(50, 6)
    here = lq.quantize(weight, sigma, Scheme(quantizer=Lattice(Z(1), 0.3)))
    assert_same(here.codes, lq.quantize(weight, sigma, Scheme(quantizer=Uniform(0.3))).codes)


def test_float32_weights_of_torch_give_the_codes_of_numpy():
    torch = pytest.importorskip("torch")
    weight, sigma = gaussian_layer(50, 6, np.float32)
    scheme = lq.recipes.watersic(0.2, quantizer=Lattice(Leech24))
    here = lq.quantize(torch.tensor(weight), torch.tensor(sigma), scheme)
    assert here.to_bytes() == lq.quantize(weight, sigma, scheme).to_bytes()
