"""The bitshift design: the contract on every array library, tiles, scales, real bytes, damage."""

from types import ModuleType
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import ndtri

import lattq as lq
from lattq._array import to_host
from lattq.coding import FixedLength
from lattq.coding.damage import reading
from lattq.errors import DamagedFileError, InvalidInputError
from lattq.feedback import Cholesky, OpenLoop
from lattq.least_squares.alternate import GAINS
from lattq.quantizers import Bitshift, Entries
from lattq.quantizers.base import Design, Quantizer
from lattq.quantizers.bitshift import BitshiftQuantizer
from lattq.scheme import Scheme
from lattq.trellis.bitshift import BitshiftCode
from tests.contracts import QuantizerContract
from tests.damage import damaged_streams, refusal_allowed
from tests.helpers import assert_same
from tests.strategies import gaussian_layer, moment, seeds


def design(kind: Any, targets: Any) -> BitshiftQuantizer:
    """The quantizer that a design chooses for targets of any array library."""
    return kind(Entries(targets))


class Sequences(QuantizerContract):
    """Paths that a code finds, near but not always nearest; one scale for all inputs."""

    nearest = False
    kind: Any

    def quantizer(self, xp: ModuleType) -> BitshiftQuantizer:
        targets = np.full((1, self.columns), self.spread)
        return design(self.kind, xp.asarray(targets))

    def beside(self) -> BitshiftQuantizer:
        return design(self.kind, np.full((1, self.columns), 1.5 * self.spread))


class TestColumn(Sequences):
    kind, code_range = Bitshift(bits=2, memory=6), (0, 3)


class TestTiles(Sequences):
    kind, code_range, columns = Bitshift(bits=1, memory=5, code="lut", block=7), (0, 1), 3


class TestGroups(Sequences):
    kind, code_range, columns = Bitshift(bits=4, memory=9, block=8, group=2), (0, 15), 5


@pytest.mark.parametrize("code", ["latin", "lut", "1mad", "3inst"])
def test_the_protocols_hold(code: str):
    kind = Bitshift(code=code)
    assert isinstance(kind, Design)
    assert isinstance(design(kind, np.ones((2, 1))), Quantizer)


@given(seed=seeds, power=st.integers(-12, 12), shared=st.booleans())
def test_scales_are_deviations_in_float16(seed: int, power: int, shared: bool):
    targets = np.random.default_rng(seed).standard_normal((6, 4)) * 2.0**power
    scale = design(Bitshift(shared=shared), targets).scale
    assert_same(scale.astype(np.float16).astype(np.float64), scale)
    deviation = np.sqrt(np.mean(targets**2, axis=(0, 1) if shared else 1, keepdims=True))
    np.testing.assert_allclose(scale, deviation, rtol=2.0**-11)


@given(seed=seeds, power=st.integers(-8, 8), shared=st.booleans())
def test_codes_follow_the_scale(seed: int, power: int, shared: bool):
    """Powers of two are exact in float16."""
    targets = np.random.default_rng(seed).standard_normal((9, 2))
    kind = Bitshift(memory=4, shared=shared)
    plain, moved = design(kind, targets), design(kind, targets * 2.0**power)
    codes = plain.encode(targets)
    assert_same(moved.encode(targets * 2.0**power), codes)
    assert_same(moved.decode(codes), plain.decode(codes) * 2.0**power)


@pytest.mark.parametrize("shared", [True, False])
def test_zeros_stay_zero(xp: ModuleType, shared: bool):
    targets = xp.zeros((20, 3), dtype=xp.float32)
    quantizer = design(Bitshift(shared=shared), targets)
    assert_same(quantizer.decode(quantizer.encode(targets)), targets)
    assert quantizer.underflow() == 0


def test_scales_below_float16_are_counted():
    quantizer = design(Bitshift(shared=False), np.array([[1e-9, -1e-9], [0.0, 0.0], [1.0, -1.0]]))
    assert quantizer.underflow() == 1
    assert quantizer.scale[1, 0] == 0
    with pytest.raises(InvalidInputError, match="beyond float16"):
        design(Bitshift(), np.full((2, 1), 1e6))


@pytest.mark.parametrize(
    ("rows", "block", "lengths"), [(24, 8, [8] * 3), (25, 8, [6, 6, 6, 7]), (5, 8, [5]), (1, 1, [1])]
)
def test_tiles_decode_alone(rows: int, block: int, lengths: list[int]):
    """Of lengths that differ by one at most; each like a matrix of its own."""
    x = np.random.default_rng(rows).standard_normal((rows, 3))
    quantizer = BitshiftQuantizer(np.ones((1, 1)), BitshiftCode(2, 4), block)
    codes, start = quantizer.encode(x), 0
    for length in lengths:
        tile = slice(start, start + length)
        assert_same(codes[tile], quantizer.encode(x[tile]))
        assert_same(quantizer.decode(codes)[tile], quantizer.decode(codes[tile]))
        start += length
    assert start == rows


def test_overload_counts_what_lies_beyond_the_outermost_value():
    quantizer = BitshiftQuantizer(np.array([[2.0]]), BitshiftCode(2, 6))
    farthest = 2 * quantizer.code.values.max()
    x = np.full((40, 1), farthest)
    x[3], x[5] = 1.001 * farthest, -1.001 * farthest
    assert quantizer.overload(x) == 2


@pytest.mark.parametrize("rows", [1, 6, 8, 23])
def test_short_tiles_have_outermost_values_of_their_own(rows: int):
    """Less memory is another table; what it decodes to is not overloaded."""
    quantizer = BitshiftQuantizer(np.array([[2.0]]), BitshiftCode(2, 12, "1mad"), block=7)
    x = 4 * np.random.default_rng(rows).standard_normal((rows, 2))
    assert quantizer.overload(quantizer.decode(quantizer.encode(x))) == 0


def test_columns_of_different_groups_have_their_scales():
    quantizer = BitshiftQuantizer(np.array([[1.0, 4.0]]), BitshiftCode(2, 4), group=2)
    x = np.random.default_rng(0).standard_normal((30, 3))
    codes = quantizer.encode(x * np.array([1, 1, 4]))
    assert_same(codes, BitshiftQuantizer(np.ones((1, 1)), BitshiftCode(2, 4)).encode(x))
    np.testing.assert_allclose(quantizer.decode(codes)[:, 2], 4 * quantizer.code.decode(codes[:, 2]))


@pytest.mark.parametrize("bits", [1, 2, 3, 4])
def test_files_hold_the_bits_and_a_scale_for_each_column(bits: int):
    """And a header."""
    weight, sigma = gaussian_layer(600, 24)
    found = lq.quantize(weight, sigma, Scheme(feedback=Cholesky(), quantizer=Bitshift(bits, memory=8)))
    assert found.coder == FixedLength(1 << bits)
    payload = weight.size * bits / 8 + 2 * 24
    assert payload < len(found.payload) < payload + 100
    again = lq.Quantized.from_bytes(found.to_bytes())
    assert_same(again.codes, found.codes)
    assert_same(again.dequantize(np.float64), found.dequantize(np.float64))
    assert again.payload == found.payload


def test_the_loop_feeds_back_what_is_decoded():
    """Without feedback the distortion is tr(Σ) / n times the error of the code, to four standard errors of the rows'.

    With feedback it is the mean pivot instead, times the error for targets whose variance the feedback has raised.
    """
    weight = np.random.default_rng(1).standard_normal((512, 64))
    sigma = moment(np.geomspace(0.2, 5, 64), 2)
    scheme = Scheme(feedback=OpenLoop(), quantizer=Bitshift(2, memory=9))
    opened = lq.quantize(weight, sigma, scheme)
    error = weight - opened.dequantize(np.float64)
    rows = np.sum((error @ sigma) * error, axis=1) / 64
    expected = np.mean(error**2) * np.trace(sigma) / 64
    assert abs(opened.distortion(weight, sigma) - expected) < 4 * rows.std() / np.sqrt(512)
    closed = lq.quantize(weight, sigma, Scheme(feedback=Cholesky("natural"), quantizer=scheme.quantizer))
    saved = 64 * lq.linalg.ldl(sigma).pivots.mean() / np.trace(sigma)
    assert saved < closed.distortion(weight, sigma) / opened.distortion(weight, sigma) < 1


def test_memory_of_one_symbol_is_a_scalar_quantizer():
    """The nearest of four values: its error on a grid of quantiles, to four standard errors. More memory is better."""
    weight = np.random.default_rng(2).standard_normal((1024, 16))

    def squares(memory: int) -> np.ndarray:
        found = lq.quantize(weight, np.eye(16), Scheme(quantizer=Bitshift(2, memory)))
        return (weight - found.dequantize(np.float64)) ** 2

    grid = ndtri((np.arange(20_000) + 0.5) / 20_000)
    expected = np.min((grid[:, None] - BitshiftCode(2, 2).values) ** 2, axis=1).mean()
    losses = [squares(memory) for memory in (2, 6, 10)]
    assert abs(losses[0].mean() - expected) < 4 * losses[0].std() / 128
    assert expected > losses[1].mean() > losses[2].mean() > 0.0625


def test_gains_are_refitted_but_not_centroids():
    weight, sigma = gaussian_layer(64, 8)
    scheme = Scheme(quantizer=Bitshift(2, memory=6))
    found = lq.quantize(weight, sigma, scheme)
    better = lq.refit(found, weight, sigma, GAINS)
    assert better.distortion(weight, sigma) <= found.distortion(weight, sigma)
    assert lq.refit(found, weight, sigma, ("centroids",)).payload == found.payload
    with pytest.raises(InvalidInputError, match="float64 name no path"):
        found.quantizer.decode(found.codes + 0.5)


@given(data=st.data())
def test_forged_states_are_refused(data: st.DataObject):
    weight, sigma = gaussian_layer(9, 5)
    state = lq.quantize(weight, sigma, Scheme(quantizer=Bitshift(2, 6, shared=False))).quantizer.to_state()
    forged = data.draw(damaged_streams(msgpack.unpackb(msgpack.packb(state) or b"")))
    with refusal_allowed(), reading("a state"):
        found = BitshiftQuantizer.from_state(forged, weight.shape)
        assert found.decode(np.zeros((9, 5), dtype=np.int32)).shape == (9, 5)


@pytest.mark.parametrize("scale", [-1.0, np.nan, np.inf])
def test_damaged_scales_are_refused(scale: float):
    state = BitshiftQuantizer(np.array([[1.0, scale]]), BitshiftCode(2, 4)).to_state()
    with pytest.raises(DamagedFileError, match="scales"):
        BitshiftQuantizer.from_state(state, (6, 2))


def test_scales_of_other_rows_are_refused():
    state = BitshiftQuantizer(np.ones((3, 1)), BitshiftCode(2, 4)).to_state()
    with pytest.raises(DamagedFileError, match="`height` is 3"):
        BitshiftQuantizer.from_state(state, (6, 1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bits": 0}, "`bits` is 0"),
        ({"bits": 5}, "`bits` is 5"),
        ({"memory": 17}, "`memory` is 17"),
        ({"code": "none"}, "`code` is 'none'"),
        ({"block": 0}, "`block` is 0"),
        ({"block": 4096}, "`block` is 4096"),
        ({"group": 0}, "`group` is 0"),
    ],
)
def test_options_that_no_design_has(options: dict, message: str):
    with pytest.raises(InvalidInputError, match=message):
        Bitshift(**options)


def test_float32_weights_of_torch_give_the_codes_of_numpy():
    torch = pytest.importorskip("torch")
    weight, sigma = gaussian_layer(50, 6, np.float32)
    scheme = Scheme(quantizer=Bitshift(3, memory=6))
    here = lq.quantize(torch.tensor(weight), torch.tensor(sigma), scheme)
    assert here.to_bytes() == lq.quantize(weight, sigma, scheme).to_bytes()
    assert to_host(here.codes).max() <= 7
