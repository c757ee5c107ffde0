"""Number formats as quantizers: the contract on every array library, bit-exact casts, real bytes, dither, damage."""

from types import ModuleType
from typing import Any, cast

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import lattq as lq
from lattq._array import to_host
from lattq.bounds import BLOCK_FORMATS, block_distortion, number_format
from lattq.bounds.format_error import floating_point_distortion
from lattq.bounds.formats import E2M1FN, E4M3FN, E8M0, NF4, NumberFormat, int_format
from lattq.coding import FixedLength
from lattq.errors import DamagedFileError, InvalidInputError
from lattq.feedback import Cholesky
from lattq.quantizers import Entries, Format
from lattq.quantizers.base import Design, Quantizer
from lattq.quantizers.formats import FormatQuantizer
from lattq.quantizers.multiplicative import multiplicative_dither
from lattq.scheme import Scheme
from tests.contracts import QuantizerContract, stored_parts
from tests.helpers import assert_same
from tests.strategies import gaussian_layer, seeds

TYPES = {
    "e2m1fn": ml_dtypes.float4_e2m1fn,
    "e3m2fn": ml_dtypes.float6_e3m2fn,
    "e2m3fn": ml_dtypes.float6_e2m3fn,
    "e4m3fn": ml_dtypes.float8_e4m3fn,
    "e5m2": ml_dtypes.float8_e5m2,
    "e4m3": ml_dtypes.float8_e4m3,
}
ROWS = 24


def design(kind: Any, targets: Any) -> FormatQuantizer:
    """The quantizer that a design chooses for targets of any array library."""
    return kind(Entries(targets))


def unit(name: str, dtype: Any = np.float64) -> FormatQuantizer:
    return FormatQuantizer(np.ones((1, 1), dtype=dtype), number_format(name))


class Blocks(QuantizerContract):
    """A scale for each row: always the same number of rows."""

    kind: Any

    def inputs(self, seed: int, rows: int) -> np.ndarray:
        return super().inputs(seed, ROWS)

    def quantizer(self, xp: ModuleType) -> FormatQuantizer:
        return design(self.kind, xp.asarray(8 * super().inputs(7, ROWS)))

    def beside(self) -> FormatQuantizer:
        return design(self.kind, 3 * super().inputs(8, ROWS))


class TestMxfp4(Blocks):
    kind, columns, code_range = Format.named("mxfp4"), 8, (-7, 7)


class TestMxfp8(Blocks):
    kind, columns, code_range = Format.named("mxfp8-e5m2"), 3, (-123, 123)


class TestNvfp4(Blocks):
    kind, columns, code_range = Format.named("nvfp4"), 8, (-7, 7)


class TestNf4(Blocks):
    kind, columns, code_range = Format.named("nf4"), 8, (-7, 8)


class TestIntegers(Blocks):
    kind, columns, code_range = Format(int_format(3, symmetric=False), None), 5, (-4, 3)


class TestOneNumber(QuantizerContract):
    code_range = (0, 0)
    test_a_joined_quantizer_is_its_groups_side_by_side = None  # pyright: ignore[reportAssignmentType]  # all are 0

    def quantizer(self, xp: ModuleType) -> FormatQuantizer:
        return FormatQuantizer(xp.ones((1, 1), dtype=xp.float64), NumberFormat("zero", np.zeros(1), 1))


def test_the_protocols_hold():
    assert isinstance(Format(), Design)
    assert isinstance(design(Format(), np.ones((2, 1))), Quantizer)


def probes(name: str, dtype: Any) -> np.ndarray:
    """Values, midpoints and their neighbours of every magnitude, subnormal numbers among them, and random numbers."""
    number = number_format(name)
    exact = np.concatenate([number.values, number.thresholds]).astype(dtype)
    beside = [np.nextafter(exact, dtype(end)) for end in (-np.inf, np.inf)]
    rng = np.random.default_rng(0)
    spread = np.ldexp(rng.standard_normal(20000), rng.integers(-20, 17, 20000)).astype(dtype)
    return np.concatenate([exact, *beside, spread, -spread])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", TYPES)
def test_rounding_is_the_cast_of_ml_dtypes(name: str, dtype: Any):
    """Bit by bit within the range. Casts from float64 go through float32 there, so only those inputs are compared."""
    x = probes(name, dtype)
    x = x[np.abs(x) <= number_format(name).largest].astype(np.float32).astype(dtype)[None, :]
    quantizer = unit(name, dtype)
    codes, cast = quantizer.encode(x), x.astype(TYPES[name])
    np.testing.assert_array_equal(quantizer.decode(codes), cast.astype(dtype))
    patterns = cast.view(np.uint8)
    sign = 1 << (quantizer.number.bits - 1)
    np.testing.assert_array_equal(np.abs(codes), patterns & (sign - 1))
    assert ((codes < 0) <= (patterns & sign > 0)).all()  # -0 is stored as 0


@pytest.mark.parametrize("name", TYPES)
def test_beyond_the_range_values_saturate(name: str):
    number = number_format(name)
    last = number.values[-1] - number.values[-2]
    x = np.array([[1.0, 1.0 + 0.4 * last / number.largest, 1.0 + 0.6 * last / number.largest, 1e6]]) * number.largest
    for sign in (-1.0, 1.0):
        found = unit(name).decode(unit(name).encode(sign * x))
        np.testing.assert_array_equal(found, np.full_like(x, sign * number.largest))
        assert unit(name).overload(sign * x) == 2


def test_casts_of_torch_agree():
    torch = pytest.importorskip("torch")
    for name, dtype in (("e4m3fn", torch.float8_e4m3fn), ("e5m2", torch.float8_e5m2)):
        x = probes(name, np.float32)
        x = torch.tensor(x[np.abs(x) <= number_format(name).largest])[None, :]
        quantizer = FormatQuantizer(torch.ones((1, 1)), number_format(name))
        assert torch.equal(quantizer.decode(quantizer.encode(x)), x.to(dtype).to(torch.float32))


@pytest.mark.parametrize("name", BLOCK_FORMATS)
def test_a_layer_in_a_named_format(name: str):
    """Blocks along the rows, quantized one at a time with casts of another library; bytes and error as predicted."""
    weight = np.random.default_rng(2).standard_normal((512, 128))
    found = lq.quantize(weight, np.eye(128), lq.recipes.block_format(name, fit="range"))
    block = BLOCK_FORMATS[name]
    assert block.size is not None
    gain = float(found.transform.forward(np.ones((1, 128)))[0, 0])
    blocks = (weight * gain).reshape(-1, block.size)
    largest = np.abs(blocks).max(axis=1, keepdims=True)
    if block.scale == "e8m0":
        scale = np.exp2(np.floor(np.log2(largest)) - np.floor(np.log2(block.number.largest)))
    else:
        kind = np.float16 if block.scale == "float16" else ml_dtypes.float8_e4m3fn
        scale = (largest / block.number.largest).astype(kind).astype(np.float64)
    distance = np.abs((blocks / scale)[..., None] - block.number.values)
    expected = (scale * block.number.values[np.argmin(distance, axis=-1)]).reshape(weight.shape) / gain
    np.testing.assert_allclose(found.dequantize(np.float64), expected, rtol=1e-14)

    each = np.mean((weight - expected).reshape(-1, block.size) ** 2, axis=1)
    predicted = block_distortion(block, variance=gain**2) / gain**2
    assert np.mean(each) == pytest.approx(predicted, abs=4 * np.std(each) / np.sqrt(len(each)) + 1e-6, rel=0)
    assert block.rate <= found.rate <= block.rate + 8 * 250 / weight.size
    assert found.coder == FixedLength(2**block.number.bits, block.number.low)
    assert_same(lq.Quantized.from_bytes(found.to_bytes()).dequantize(), found.dequantize())


def test_feedback_helps_a_format():
    weight, sigma = gaussian_layer(256, 64)
    plain = lq.quantize(weight, sigma, lq.recipes.block_format("mxfp4"))
    gptq = lq.quantize(weight, sigma, lq.recipes.block_format("mxfp4", feedback=Cholesky("reversed", 0.01)))
    assert gptq.nbytes == plain.nbytes
    assert gptq.distortion(weight, sigma) < plain.distortion(weight, sigma)


def test_zero_and_tiny_rows():
    """Zeros stay zeros with scale 1; what is too small for E4M3 is counted."""
    targets = np.array([[0.0, 0.0], [1e-9, -1e-9], [1.0, -3.0]])
    quantizer = design(Format(E2M1FN, None, "e4m3"), targets)
    np.testing.assert_array_equal(quantizer.scale[:, 0], [1.0, 2.0**-9, 0.5])
    assert quantizer.underflow() == 1
    np.testing.assert_array_equal(quantizer.decode(quantizer.encode(targets))[0], [0.0, 0.0])


DESIGNS = [
    *(Format(E2M1FN, 2, "e8m0"), Format(E2M1FN, 3, "e4m3"), Format(NF4, None), Format(E4M3FN, 4)),
    Format(NumberFormat("own", np.array([-1.0, 0.0, 0.25, 1.0]), 2), 2),
    Format(NumberFormat("nf4", np.arange(-8.0, 8.0), 4), 2),  # a name that says something else
]


@given(
    seed=seeds, rows=st.integers(1, 5), columns=st.integers(1, 9), kind=st.sampled_from(DESIGNS), single=st.booleans()
)
def test_stored_state_is_exact(seed: int, rows: int, columns: int, kind: Format, single: bool):
    """Groups joined, stored and restored decode to the same bits as each group alone."""
    dtype = np.float32 if single else np.float64
    targets = np.random.default_rng(seed).standard_normal((rows, columns)).astype(dtype)
    codes, whole, restored, parts = stored_parts(kind, targets)
    assert isinstance(restored, FormatQuantizer)
    assert restored.number == kind.number
    each = np.concatenate(parts, axis=1)
    assert_same(restored.decode(codes).astype(dtype), each) if not single else np.testing.assert_allclose(
        restored.decode(codes), each, rtol=2e-7
    )
    assert len(whole.to_state()[3]) == rows * len(parts) * (2 if kind.scale == "float16" else 1)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda state: [*state[:2], 3, *state[3:]], "`height` is 3"),
        (lambda state: [*state[:3], b"\xff" * len(state[3]), state[4]], "not all scales of"),
        (lambda state: [*state[:3], b"\x00" * len(state[3]), state[4]], "not all scales of"),
        (lambda state: [*state[:3], state[3][:-1], state[4]], "`data` is 1 bytes, not 2"),
        (lambda state: ["e9m9", *state[1:]], "`kind` is 'e9m9'"),
        (lambda state: [*state[:4], ["fp3"]], "no number format"),
        (lambda state: [*state[:4], ["own", 1, np.array([-1e308, 1e308]).tobytes()]], r"reaches to 1e\+308"),
        (lambda state: [state[0], 0, *state[2:]], "`group` is 0"),
    ],
)
def test_damaged_state_is_refused(change, error: str):
    part = design(Format(E2M1FN, None, "e4m3"), np.ones((2, 3)))
    whole: Any = FormatQuantizer.concatenate([part], 3)
    state = whole.to_state()
    with pytest.raises(DamagedFileError, match=error):
        FormatQuantizer.from_state(change(state), (2, 3))


def test_points_that_are_no_codes_are_refused(xp: ModuleType):
    quantizer = FormatQuantizer(xp.ones((1, 1), dtype=xp.float64), E2M1FN)
    with pytest.raises(InvalidInputError, match="pass integers"):
        quantizer.decode(xp.asarray([[0.5]]))
    for code in (-8, 8):
        with pytest.raises(InvalidInputError, match="has -7 to 7"):
            quantizer.decode(xp.asarray([[code]]))


@pytest.mark.parametrize("x", [1.0, 1.4142135623, 1.99, 3.1, 100.0])
def test_multiplicative_dither_forgets_where_in_its_octave_a_number_lies(x: float):
    """The relative error is the average over an octave for every x; without dither it is not."""
    number, rows = number_format("e4m3fn"), 40_000
    values = np.full((rows, 1), x)
    relative = ((multiplicative_dither(values, number, seed=9) - values) / x) ** 2
    expected = floating_point_distortion(3)
    assert relative.mean() == pytest.approx(expected, abs=4 * relative.std() / np.sqrt(rows), rel=0)
    plain = unit("e4m3fn").decode(unit("e4m3fn").encode(values[:1]))[0, 0]
    assert abs((plain / x - 1) ** 2 - expected) > 8 * relative.std() / np.sqrt(rows)


def test_multiplicative_dither_belongs_to_seed_and_column(xp: ModuleType):
    x = np.random.default_rng(1).standard_normal((6, 4))
    found = multiplicative_dither(xp.asarray(x), NF4, 5, scale=3.0)
    np.testing.assert_allclose(to_host(found), multiplicative_dither(x, NF4, 5, scale=3.0), rtol=1e-14)
    np.testing.assert_array_equal(multiplicative_dither(x[:, :2], NF4, 5), multiplicative_dither(x, NF4, 5)[:, :2])
    assert (multiplicative_dither(x, NF4, 6) != multiplicative_dither(x, NF4, 5)).any()
    for seed, scale, named in ((-1, 1.0, "`seed` is -1"), (1, 0.0, "`scale` is 0.0")):
        with pytest.raises(InvalidInputError, match=named):
            multiplicative_dither(x, NF4, seed, scale=scale)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Format(group=0), "`group` is 0"),
        (lambda: Format(scale="float8"), "`scale` is 'float8'"),
        (lambda: Format.named("mxfp5"), "no block format 'mxfp5'"),
        (lambda: lq.recipes.block_format("fp4"), "no block format 'fp4'"),
        (lambda: Format.named(cast("Any", [])), r"no block format \[\]"),
        (lambda: Format(cast("Any", "e2m1fn")), "`number` is 'e2m1fn'"),
        (lambda: Format(int_format(1)), "values of both signs"),
        (lambda: Format(E8M0), "values of both signs"),
        (lambda: Format(shrink=cast("Any", "no")), "`shrink` is 'no'"),
        (lambda: lq.recipes.block_format("mxfp4", feedback=cast("Any", 3)), "`feedback` is 3, no `Feedback`"),
        (lambda: multiplicative_dither(np.ones(3), NF4, 1), r"`x` has shape \(3,\)"),
        (lambda: multiplicative_dither(np.ones((1, 1)), NF4, 1, scale=cast("Any", None)), "`scale` is None"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_options_that_no_design_has(call, message: str):
    with pytest.raises(InvalidInputError, match=message):
        call()


def test_float32_weights_of_torch_give_the_codes_of_numpy():
    torch = pytest.importorskip("torch")
    weight, sigma = gaussian_layer(50, 6, np.float32)
    scheme = Scheme(quantizer=Format(E4M3FN, 3, "e8m0"))
    here = lq.quantize(torch.tensor(weight), torch.tensor(sigma), scheme)
    assert here.to_bytes() == lq.quantize(weight, sigma, scheme).to_bytes()
