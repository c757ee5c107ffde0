"""The entropy-coded trellis as a quantizer: the contract, translations, overflow, segments, prices, stored state."""

import dataclasses
import functools
import math
from types import ModuleType
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import lattq as lq
from lattq import recipes
from lattq.coding.cosets import log_partition, scale
from lattq.coding.damage import reading
from lattq.errors import CodeOverflowError, DamagedFileError, InvalidInputError
from lattq.kernels.viterbi import resolution
from lattq.quantizers import Entries, Trellis
from lattq.quantizers.base import Design, Quantizer
from lattq.quantizers.trellis import WIDE, TrellisQuantizer, price_of_odd
from lattq.rate import at_rate
from lattq.scheme import Scheme
from lattq.trellis import EntropyCodedTrellis, TrellisCode
from lattq.trellis.codes import segments
from tests.contracts import QuantizerContract, law
from tests.damage import damaged_streams, refusal_allowed
from tests.helpers import assert_same
from tests.strategies import gaussian_layer, seeds


def design(kind: Any, targets: Any) -> TrellisQuantizer:
    """The quantizer that a design chooses for targets of any array library."""
    return kind(Entries(targets))


class Sequences(QuantizerContract):
    """Nearest sequences are not nearest codes, since one code alone cannot move."""

    nearest = False
    kind: Any

    def quantizer(self, xp: ModuleType) -> TrellisQuantizer:
        return design(self.kind, xp.zeros((1, self.columns), dtype=xp.float64))

    def beside(self) -> TrellisQuantizer:
        return design(dataclasses.replace(self.kind, step=0.8), np.zeros((1, self.columns)))

    @law
    @given(seed=seeds, rows=st.integers(1, 24))
    def test_codes_are_sequences(self, seed: int, rows: int) -> None:
        """Every segment of every column, in the code that the coder expects."""
        quantizer = design(self.kind, np.zeros((1, self.columns)))
        codes = quantizer.encode(self.inputs(seed, rows))
        for cut in segments(rows, quantizer.segment):
            column = codes[cut].T
            assert_same(quantizer.code.residues(quantizer.code.inputs(column)), (column & 3).astype(np.uint8))


class TestWide(Sequences):
    kind, columns = Trellis(states=8, step=0.75), 3


class TestSegments(Sequences):
    kind, columns = Trellis(states=64, step=1.5, segment=5), 2


class TestLowRate(Sequences):
    """Most columns have codes below the scale from which on odd and even ones cost the same."""

    kind, columns, spread = Trellis(states=16, step=4.0, segment=9), 14, 1.0


@pytest.mark.parametrize("states", [4, 256, 4096])
def test_the_protocols_hold(states: int):
    kind = Trellis(states)
    assert isinstance(kind, Design)
    quantizer = design(kind, np.ones((2, 1)))
    assert isinstance(quantizer, Quantizer)
    assert quantizer.coder == EntropyCodedTrellis(states)
    assert kind.group is None
    assert kind.second_moment == TrellisCode(states).second_moment
    assert quantizer.overload(np.ones((2, 1))) == 0
    assert isinstance(quantizer, TrellisQuantizer)
    assert quantizer.underflow() == 0


@given(seed=seeds, states=st.sampled_from([4, 64, 1024]), step=st.sampled_from([0.25, 1.0, 8.0]))
def test_translations_by_two_steps(seed: int, states: int, step: float):
    """Four codes: the labels stay. Exact on dyadic inputs, where no price depends on the scale."""
    rng = np.random.default_rng(seed)
    x = step / 16 * rng.integers(-512, 512, (21, 14))
    shift = rng.integers(-9, 10, x.shape)
    quantizer = TrellisQuantizer(np.array([[step]]), states, segment=8)
    codes = quantizer.encode(x)
    assert_same(quantizer.encode(x + 2 * step * shift), (codes + 4 * shift).astype(np.int32))
    assert np.abs(x - quantizer.decode(codes)).max() < 4 * step
    # Negative control: two codes more are other labels.
    assert np.any(quantizer.encode(x + step) != codes + 2)


@given(seed=seeds, power=st.integers(-20, 20))
def test_codes_follow_the_step(seed: int, power: int):
    x = np.random.default_rng(seed).standard_normal((19, 13))
    plain, scaled = (TrellisQuantizer(np.array([[0.5 * f]]), 32, 6) for f in (1.0, 2.0**power))
    assert_same(scaled.encode(x * 2.0**power), plain.encode(x))


@pytest.mark.parametrize("rows", [1, 4, 5, 9, 23])
@pytest.mark.parametrize("columns", [1, 13])
def test_segments_are_coded_alone(rows: int, columns: int):
    """Like matrices of their own, whether they are searched side by side or one at a time."""
    x = 9 * np.random.default_rng(rows).standard_normal((rows, columns))
    quantizer = TrellisQuantizer(np.ones((1, 1)), 16, segment=4)
    codes = quantizer.encode(x)
    assert len(segments(rows, 4)) == max(1, rows // 4)
    for cut in segments(rows, 4):
        assert_same(codes[cut], TrellisQuantizer(np.ones((1, 1)), 16, segment=100).encode(x[cut]))
    assert not np.any(codes[0] & 1)  # a start state knows only even codes
    assert_same(quantizer.coder.decode(quantizer.coder.encode(codes), codes.shape), codes)


def test_one_row_has_even_codes():
    """The free end leaves all even codes: rounding to the step."""
    x = np.linspace(-9, 9, 100)[None, :]
    quantizer = TrellisQuantizer(np.array([[0.5]]), 256)
    assert_same(quantizer.encode(x), (2 * np.rint(x / 0.5)).astype(np.int32))


def test_nan_and_overflow_are_refused_with_their_value():
    quantizer = TrellisQuantizer(np.array([[2.0]]), 8)
    x = np.zeros((5, 2))
    x[2, 1] = -(2.0**30)
    assert quantizer.encode(x)[2, 1] == -(2**30)
    x[2, 1] = 2.0**31
    with pytest.raises(CodeOverflowError, match=r"2\.15e\+09"):
        quantizer.encode(x)
    for value in (np.nan, np.inf):
        x[2, 1] = value
        with pytest.raises(InvalidInputError, match=f"size {value}"):
            quantizer.encode(x)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_codes_near_the_largest_are_exact(dtype: type):
    """Residues of float32 inputs beyond 2^24 are those of multiples of four; codes are still sequences."""
    x = (2.0**28 * np.random.default_rng(0).standard_normal((40, 3))).astype(dtype)
    quantizer = TrellisQuantizer(np.full((1, 1), 2.0, dtype=dtype), 16, 10)
    codes = quantizer.encode(x)
    assert_same(quantizer.coder.decode(quantizer.coder.encode(codes), codes.shape), codes)
    assert np.abs(x.astype(np.float64) - codes).max() <= 2 + 2 * np.abs(x).max() * np.finfo(dtype).eps


def expected_prices(x: np.ndarray, states: int) -> np.ndarray:
    """λ log2 (Z_odd / Z_even) with λ = 2 ln 2 D / (1 + D / s²), for columns in codes."""
    noise, found = 4 * TrellisCode(states).second_moment, []
    for column in x.T:
        power = float(np.mean(column**2)) + noise
        even, odd = (sum(math.exp(-(k * k) / (2 * power)) for k in range(z0 - 40, 41, 2)) for z0 in (0, 1))
        found.append(2 * noise / (1 + noise / power) * math.log(odd / even) if power < WIDE**2 else 0.0)
    return np.array(found)


@given(seed=seeds, states=st.sampled_from([4, 64, 256]), rows=st.integers(1, 60))
def test_prices_change_narrow_columns_only_and_pay_there(seed: int, states: int, rows: int):
    """Squared error plus price is never above that of the nearest sequence, up to the search's rounding."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, 14)) * np.exp2(np.linspace(-3, 3, 14))
    quantizer = TrellisQuantizer(np.array([[2.0]]), states, segment=20)  # one code is one unit
    found = quantizer.encode(x)
    nearest = np.concatenate([quantizer.code.nearest(x[cut].T).T for cut in segments(rows, 20)])
    price = expected_prices(x, states)
    assert np.all(price <= 0)  # odd supersets are cheaper: they have less to tell
    assert np.all(found[:, price == 0] == nearest[:, price == 0])

    def cost(codes: np.ndarray) -> np.ndarray:
        return np.sum((x - codes) ** 2 + price * (codes & 1), axis=0)

    assert np.all(cost(found) <= cost(nearest) + rows / resolution(quantizer.code.polynomials)[0] + 1e-4)


def test_prices_save_bits_where_there_is_less_than_a_bit():
    """Real bytes, best gain, distance to R(D): prices are worth 0.009 bit at 0.7 bits, nothing from 1 bit on."""
    x = np.random.default_rng(3).standard_normal((4096, 24))
    quantizer = TrellisQuantizer(np.array([[2.0]]), 64, 4096)

    def gap(codes: np.ndarray) -> float:
        rate = 8 * len(msgpack.packb(quantizer.coder.encode(codes)) or b"") / x.size
        gain = np.sum(x * codes) / np.sum(codes.astype(float) ** 2)
        return rate + 0.5 * math.log2(np.mean((x - gain * codes) ** 2) / np.mean(x**2))

    for deviation, low, high in ((0.6, 0.004, 0.015), (0.8, -0.001, 0.002), (3.0, 0.0, 0.0)):  # in codes
        nearest, priced = quantizer.code.nearest((deviation * x).T).T, quantizer.encode(deviation * x)
        assert low <= gap(nearest) - gap(priced) <= high
        assert 0.03 < gap(priced) < 0.06  # at all rates


def test_odd_codes_cost_the_same_from_wide_on():
    """What the cut at `WIDE` ignores is less than a ten-thousandth of a squared code, as Poisson says."""
    index = int(np.rint(8 * np.log2(WIDE))) + 25
    assert float(scale(index)) == pytest.approx(WIDE, rel=0.05)
    ignored = 0.5 * math.log(2) * abs(float((log_partition(1, 2) - log_partition(0, 2))[index]))
    assert ignored == pytest.approx(2 * math.exp(-((math.pi * scale(index)) ** 2) / 2), rel=1e-3)
    assert ignored < 1e-4


def test_prices_can_be_left_out():
    x = 0.5 * np.random.default_rng(0).standard_normal((600, 2))
    plain = TrellisQuantizer(np.array([[2.0]]), 64, 600, priced=False).encode(x)
    assert np.all(plain == TrellisCode(64).nearest(x.T).T)
    assert np.any(plain != TrellisQuantizer(np.array([[2.0]]), 64, 600).encode(x))


@pytest.mark.parametrize("states", [8, 256])
@pytest.mark.parametrize("rate", [0.3, 0.5, 0.7])
def test_low_rates_are_reached_and_worth_their_bits(states: int, rate: float):
    """White weights: a step gives each rate, and most of every bit below one buys distortion."""
    weight = np.random.default_rng(1).standard_normal((2048, 64))
    recipe = functools.partial(recipes.watersic, quantizer=Trellis(states))
    layer = at_rate(rate, recipe, weight, np.eye(64))
    assert layer.gap(weight, np.eye(64), row_variance=1.0, column_variance=1.0) < rate / 2


def test_zeros_stay_zero(xp: ModuleType):
    targets = xp.zeros((20, 3), dtype=xp.float32)
    quantizer = design(Trellis(states=16, segment=6), targets)
    codes = quantizer.encode(targets)
    assert codes.dtype == xp.int32
    assert_same(quantizer.decode(codes), targets)


def test_torch_weights_give_the_codes_of_numpy():
    torch = pytest.importorskip("torch")
    weight, sigma = gaussian_layer(50, 6, np.float32)
    scheme = Scheme(quantizer=Trellis(16, 0.5, segment=12))
    here = lq.quantize(torch.tensor(weight), torch.tensor(sigma), scheme)
    assert here.to_bytes() == lq.quantize(weight, sigma, scheme).to_bytes()


@given(seed=seeds, step=st.floats(1e-6, 1e6), states=st.sampled_from([4, 512]), segment=st.integers(1, 1000))
def test_states_come_back(seed: int, step: float, states: int, segment: int):
    quantizer = TrellisQuantizer(np.array([[step]]), states, segment)
    found = TrellisQuantizer.from_state(msgpack.unpackb(msgpack.packb(quantizer.to_state()) or b""), (9, 5))
    assert (found.states, found.segment) == (states, segment)
    assert_same(found.step, quantizer.step)
    assert found.coder == quantizer.coder
    joined = TrellisQuantizer.concatenate([TrellisQuantizer(np.full((1, 1), step, np.float32), states, segment)], 1)
    assert joined.to_state() == [float(np.float32(step)), states, segment]


@pytest.mark.parametrize("state", [[0.0, 8, 9], [-1.0, 8, 9], [np.nan, 8, 9], [np.inf, 8, 9], [1, 8, 9]])
def test_damaged_steps_are_refused(state: list):
    with pytest.raises(DamagedFileError, match="step"):
        TrellisQuantizer.from_state(state, (9, 5))


@pytest.mark.parametrize("state", [[1.0, 5, 9], [1.0, 2**40, 9], [1.0, 8, 0], [1.0, 8, -3]])
def test_states_of_no_code_are_refused(state: list):
    with pytest.raises(DamagedFileError, match=r"`(states|segment)`"), reading("a state"):
        TrellisQuantizer.from_state(state, (9, 5))


@given(data=st.data())
def test_forged_states_are_refused_or_decode(data: st.DataObject):
    forged = data.draw(damaged_streams([0.5, 8, 4]))
    with refusal_allowed(), reading("a state"):
        found = TrellisQuantizer.from_state(forged, (9, 5))
        assert found.decode(np.zeros((9, 5), dtype=np.int32)).shape == (9, 5)
        assert found.encode(np.zeros((9, 5))).shape == (9, 5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"states": 5}, "`states` is 5"),
        ({"states": 8192}, "`states` is 8192"),
        ({"step": 0.0}, "`step` is 0"),
        ({"step": -1.0}, "`step` is -1"),
        ({"step": math.nan}, "`step` is nan"),
        ({"step": math.inf}, "`step` is inf"),
        ({"segment": 0}, "`segment` is 0"),
    ],
)
def test_options_that_no_design_has(options: dict, message: str):
    with pytest.raises(InvalidInputError, match=message):
        Trellis(**options)


@pytest.mark.parametrize("states", [4, 64])
def test_the_error_is_the_second_moment(states: int):
    """Times step² at high rate, to four standard errors; long segments."""
    x = np.random.default_rng(states).uniform(-50, 50, (3000, 16))
    quantizer = TrellisQuantizer(np.array([[0.5]]), states, 3000)
    error = np.square(x - quantizer.decode(quantizer.encode(x)))[100:-100].mean(axis=0) / 0.25
    assert abs(error.mean() - quantizer.code.second_moment) < 4 * error.std(ddof=1) / 4


def test_files_hold_sequences_and_are_smaller_with_more_states():
    """One layer through the whole scheme: the gap falls with the states, and stays above zero."""
    weight, sigma = gaussian_layer(1024, 16)
    gaps = []
    for states in (4, 64):
        found = lq.quantize(weight, sigma, lq.recipes.watersic(0.4, quantizer=Trellis(states)))
        again = lq.Quantized.from_bytes(found.to_bytes())
        assert_same(again.codes, found.codes)
        assert_same(again.dequantize(np.float64), found.dequantize(np.float64))
        gaps.append(found.rate - lq.bounds.layer_rate(sigma, found.distortion(weight, sigma)))
    assert gaps[0] > gaps[1] > 0


@given(power=st.floats(0.02, WIDE**2), noise=st.floats(0.01, 0.3))
def test_the_price_of_odd_codes_is_its_formula(power: float, noise: float):
    """2 D' ln (Z_1 / Z_0), the sums written out."""
    terms = [math.exp(-(k**2) / (2 * power)) for k in range(-40, 41)]
    expected = 2 * noise / (1 + noise / power) * math.log(math.fsum(terms[1::2]) / math.fsum(terms[::2]))
    assert price_of_odd(np.array([power]), noise)[0] == pytest.approx(expected, rel=1e-9, abs=1e-12)
