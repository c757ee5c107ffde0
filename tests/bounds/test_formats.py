"""Number formats: every value that another library decodes, names, codes, refusals."""

from typing import Any, cast

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lattq.bounds import number_format
from lattq.bounds.formats import (
    E8M0,
    NF4,
    NumberFormat,
    float_format,
    int_format,
    nearest_value,
    normal_float,
    tie_thresholds,
)
from lattq.errors import InvalidInputError

OTHERS = {
    "e2m1fn": ml_dtypes.float4_e2m1fn,
    "e3m2fn": ml_dtypes.float6_e3m2fn,
    "e2m3fn": ml_dtypes.float6_e2m3fn,
    "e4m3fn": ml_dtypes.float8_e4m3fn,
    "e5m2": ml_dtypes.float8_e5m2,
    "e4m3": ml_dtypes.float8_e4m3,
    "e3m4": ml_dtypes.float8_e3m4,
}
NAMES = [
    *OTHERS,
    "e4m3-none",
    "e2m1-nan",
    "e1m2fn",
    "e5m0fn",
    "e4m3fnb11",
    "int1-full",
    "int4",
    "int8-full",
    "nf4",
    "nf3",
]

# Table of the QLoRA paper, appendix E.
PUBLISHED_NF4 = [
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635),
    *(-0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725),
    *(0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
]


@pytest.mark.parametrize("name", OTHERS)
def test_values_are_those_of_all_bit_patterns(name: str):
    number = number_format(name)
    patterns = np.arange(2**number.bits, dtype=np.uint8)
    decoded = patterns.view(OTHERS[name]).astype(np.float64)
    np.testing.assert_array_equal(number.values, np.unique(decoded[np.isfinite(decoded)]))
    for code in range(-number.low + 1):  # the magnitude of a code is the pattern of the magnitude
        assert number.values[code - number.low] == decoded[code]
        assert number.values[-code - number.low] == -decoded[code]


def test_scales_of_microscaling_are_powers_of_two():
    decoded = np.arange(255, dtype=np.uint8).view(ml_dtypes.float8_e8m0fnu).astype(np.float64)
    np.testing.assert_array_equal(E8M0.values, decoded)
    assert number_format(E8M0.name) == E8M0


def test_normal_float_is_the_published_table():
    # The table was made in single precision: 2^-22, a few of its roundings.
    np.testing.assert_allclose(NF4.values, PUBLISHED_NF4, atol=2.0**-22, rtol=0)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_normal_floats_have_zero_and_both_ends(bits: int):
    values = normal_float(bits).values
    assert values.size == 2**bits
    assert {-1.0, 0.0, 1.0} <= set(values)
    assert int(np.sum(values > 0)) == int(np.sum(values < 0)) + 1


@pytest.mark.parametrize("name", NAMES)
def test_names_are_read_back(name: str):
    number = number_format(name)
    assert number.name == name
    assert number_format(number.name) == number
    assert hash(number_format(name)) == hash(number)
    assert number.low == -int(np.sum(number.values < 0))
    assert number.values.size <= 2**number.bits


def test_formats_that_differ_are_not_equal():
    formats = [number_format(name) for name in NAMES]
    assert len(set(formats)) == len(formats)
    assert int_format(4) != "int4"


@given(st.integers(1, 5), st.integers(0, 4), st.sampled_from(["ieee", "nan", "none"]), st.integers(-10, 20))
def test_a_bias_scales_all_values(exponent: int, mantissa: int, specials: str, bias: int):
    if (
        1 + exponent + mantissa > 8
        or (1 << (exponent + mantissa)) - {"ieee": 1 << mantissa, "nan": 1, "none": 0}[specials] < 2
    ):
        return
    number = float_format(exponent, mantissa, specials=specials, bias=bias)
    usual = float_format(exponent, mantissa, specials=specials)
    np.testing.assert_array_equal(number.values, usual.values * 2.0 ** (2 ** (exponent - 1) - 1 - bias))
    assert number_format(number.name) == number


@given(st.integers(0, 2**32 - 1), st.sampled_from(NAMES))
def test_the_nearest_value_is_nearest(seed: int, name: str):
    number = number_format(name)
    x = np.random.default_rng(seed).standard_normal(200) * number.largest * 0.7
    distance = np.abs(x[:, None] - number.values)
    np.testing.assert_array_equal(np.abs(x - nearest_value(x, number)), distance.min(axis=1))


@pytest.mark.parametrize("name", ["e2m1fn", "e4m3fn", "int4-full", "nf4"])
def test_midpoints_go_to_even_codes_and_their_neighbours_do_not(name: str):
    number = number_format(name)
    found = np.searchsorted(number.values, nearest_value(number.thresholds, number)) + number.low
    assert (found % 2 == 0).all()
    for direction, step in ((-np.inf, 0), (np.inf, 1)):
        beside = np.nextafter(number.thresholds, direction)
        np.testing.assert_array_equal(
            nearest_value(beside, number), number.values[step : number.values.size - 1 + step]
        )
    assert (tie_thresholds(number) <= number.thresholds).all()


def test_values_are_read_only():
    with pytest.raises(ValueError, match="read-only"):
        NF4.values[0] = 0.0


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: float_format(0, 3), "`exponent_bits` is 0"),
        (lambda: float_format(4, -1), "`mantissa_bits` is -1"),
        (lambda: float_format(5, 3), "are 9"),
        (lambda: float_format(4, 3, specials="inf"), "`specials` is 'inf'"),
        (lambda: float_format(1, 0), "leave no number"),
        (lambda: int_format(0), "`bits` is 0"),
        (lambda: int_format(9), "`bits` is 9"),
        (lambda: normal_float(1), "`bits` is 1"),
        (lambda: normal_float(9), "`bits` is 9"),
        (lambda: number_format("fp4"), "no number format 'fp4'"),
        (lambda: NumberFormat("own", np.array([1.0, 0.0]), 2), "0.0 at index 1"),
        (lambda: NumberFormat("own", np.arange(5.0), 2), "5 values in 2 bits"),
        (lambda: NumberFormat("own", np.array([0.0, np.inf]), 2), "`values` holds inf"),
        (lambda: NumberFormat("own", np.arange(5.0), 9), "5 values in 9 bits"),
        (lambda: int_format(cast("Any", None)), "`bits` is None"),
        (lambda: int_format(10**400), "`bits` is 1000"),
        (lambda: normal_float(cast("Any", None)), "`bits` is None"),
        (lambda: number_format(cast("Any", None)), "`name` is None"),
        (lambda: float_format(4, 3, bias=cast("Any", 1.5)), "`bias` is 1.5"),
        (lambda: float_format(4, 3, bias=cast("Any", "1")), "`bias` is '1'"),
        (lambda: float_format(4, 3, bias=10**30), "`bias` is 1000"),
        (lambda: float_format(4, 3, specials=cast("Any", [])), r"`specials` is a list"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_refusals_name_the_value(call, named: str):
    with pytest.raises(InvalidInputError, match=named):
        call()
