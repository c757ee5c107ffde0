"""Number formats of a few bits: the values that they can hold.

A format of E exponent and M mantissa bits holds ±2^(e - bias) (1 + k / 2^M), and below the smallest exponent the
multiples of the last step (subnormal numbers). Of the formats of the Open Compute Project E5M2 follows IEEE 754, E4M3
has one NaN of each sign and no infinity, and those of 6 and 4 bits have neither.
"""

import dataclasses
import math
import re

import numpy as np
from jaxtyping import Float
from scipy.special import ndtri

from lattq._array import require_finite
from lattq._options import among, as_integer
from lattq.bounds._checks import integer_at_least
from lattq.errors import InvalidInputError, shown

__all__ = [
    "E2M1FN",
    "E2M3FN",
    "E3M2FN",
    "E4M3",
    "E4M3FN",
    "E5M2",
    "E8M0",
    "NF4",
    "NumberFormat",
    "float_format",
    "int_format",
    "normal_float",
    "number_format",
]


@dataclasses.dataclass(frozen=True, eq=False)
class NumberFormat:
    """The finite values of a number format, in increasing order; equal to another with the same bits and values.

    Attributes
    ----------
    name : known to `number_format`, or one of your own
    values : float64, strictly increasing; at most 2^bits of them
    bits : per stored number, 1 to 8

    Examples
    --------
    >>> signs = NumberFormat("signs", np.array([-1.0, 1.0]), bits=1)
    >>> signs, signs.largest, signs == int_format(1)
    (NumberFormat('signs'), 1.0, False)
    """

    name: str
    values: Float[np.ndarray, " count"]
    bits: int

    def __post_init__(self) -> None:
        values = np.array(self.values, dtype=np.float64)
        require_finite("values", values)
        if values.ndim != 1 or not 1 <= values.size <= 2 ** integer_at_least("bits", self.bits, 1) <= 256:
            msg = f"{values.size} values in {self.bits} bits; a format has a vector of 1 to 2^bits values, bits up to 8"
            raise InvalidInputError(msg)
        if (np.diff(values) <= 0.0).any():
            index = int(np.argmax(np.diff(values) <= 0.0)) + 1
            msg = f"`values` holds {values[index]} at index {index}, not above the one before; sort them, none twice"
            raise InvalidInputError(msg)
        values.flags.writeable = False
        object.__setattr__(self, "values", values)

    @property
    def largest(self) -> float:
        """The largest magnitude that both signs hold, or the largest value where there is but one sign."""
        low, high = float(self.values[0]), float(self.values[-1])
        return min(-low, high) if low < 0.0 < high else max(abs(low), abs(high))

    @property
    def low(self) -> int:
        """The code of the smallest value: codes count values from 0 on, so 0, where it is a value, has the code 0."""
        return -int(np.searchsorted(self.values, 0.0))

    @property
    def thresholds(self) -> Float[np.ndarray, " cells"]:
        """Midpoints between neighbours, where the nearest value changes."""
        return (self.values[:-1] + self.values[1:]) / 2.0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, NumberFormat) and self.bits == other.bits and np.array_equal(self.values, other.values)

    def __hash__(self) -> int:
        return hash((self.bits, self.values.tobytes()))

    def __repr__(self) -> str:
        return f"NumberFormat({self.name!r})"


def float_format(
    exponent_bits: int, mantissa_bits: int, *, specials: str = "ieee", bias: int | None = None
) -> NumberFormat:
    """Return the format of one sign, E exponent and M mantissa bits, with subnormal numbers.

    Parameters
    ----------
    exponent_bits, mantissa_bits : E of at least 1 and M of at least 0, together at most 7.
    specials : "ieee" gives the largest exponent to infinities and NaN, "nan" only the all-ones pattern to NaN, "none"
        gives every pattern to a number.
    bias : of the exponent, -255 to 255; 2^(E-1) - 1 unless given.

    Returns
    -------
    NumberFormat : its codes are the bit patterns of the magnitudes, with the sign in front.

    Raises
    ------
    InvalidInputError : if there are no such numbers of at most 8 bits.

    References
    ----------
    IEEE 754-2019; Open Compute Project 2023, "OCP Microscaling Formats (MX) Specification".

    Examples
    --------
    >>> float_format(2, 1, specials="none").values[7:]
    array([0. , 0.5, 1. , 1.5, 2. , 3. , 4. , 6. ])
    """
    exponent_bits = integer_at_least("exponent_bits", exponent_bits, 1)
    mantissa_bits = integer_at_least("mantissa_bits", mantissa_bits, 0)
    bits = 1 + exponent_bits + mantissa_bits
    kept = {"ieee": 2**mantissa_bits, "nan": 1, "none": 0}
    if not among(specials, kept):
        msg = f"`specials` is {shown(specials)}; pass 'ieee', 'nan' or 'none'"
        raise InvalidInputError(msg)
    if bits > 8:
        msg = f"a sign, {exponent_bits} and {mantissa_bits} bits are {bits}; formats here have at most 8"
        raise InvalidInputError(msg)
    usual = 2 ** (exponent_bits - 1) - 1
    shift = usual if bias is None else as_integer("bias", bias)
    if not -255 <= shift <= 255:
        msg = f"`bias` is {shift}; pass an integer from -255 to 255"
        raise InvalidInputError(msg)
    patterns = np.arange(2 ** (bits - 1) - kept[specials])
    exponents, mantissas = patterns >> mantissa_bits, patterns & (2**mantissa_bits - 1)
    significands = mantissas + np.where(exponents > 0, 2**mantissa_bits, 0)
    positive = np.ldexp(significands.astype(np.float64), np.maximum(exponents, 1) - shift - mantissa_bits)
    if positive.size < 2:
        msg = f"{bits} bits with `specials` = {specials!r} leave no number but 0; use other specials"
        raise InvalidInputError(msg)
    name = f"e{exponent_bits}m{mantissa_bits}{_suffix(specials, bits)}" + ("" if shift == usual else f"b{shift}")
    return NumberFormat(name, np.concatenate([-positive[:0:-1], positive]), bits)


def int_format(bits: int, *, symmetric: bool = True) -> NumberFormat:
    """Return the integers of so many bits: -(2^(bits-1) - 1) ... 2^(bits-1) - 1, and one more below if not symmetric.

    Raises
    ------
    InvalidInputError : if `bits` is not 1 to 8.

    Examples
    --------
    >>> int_format(3).values
    array([-3., -2., -1.,  0.,  1.,  2.,  3.])
    """
    bits = integer_at_least("bits", bits, 1)
    if bits > 8:
        msg = f"`bits` is {bits}; formats here have at most 8"
        raise InvalidInputError(msg)
    half = 2 ** (bits - 1)
    name = f"int{bits}" if symmetric else f"int{bits}-full"
    return NumberFormat(name, np.arange(-half + symmetric, half).astype(np.float64), bits)


def normal_float(bits: int) -> NumberFormat:
    """Return the NormalFloat format: quantiles of a Gaussian on both sides of 0, over the largest, as published.

    The ends are the quantile at δ = ½ ((1 - 1/32) + (1 - 1/30)), for 4 bits; one more value above 0 than below it.

    Raises
    ------
    InvalidInputError : if `bits` is not 2 to 8.

    References
    ----------
    Dettmers, Pagnoni, Holtzman and Zettlemoyer 2023 (QLoRA), appendix E.

    Examples
    --------
    >>> normal_float(4).values[7:].round(4)
    array([0.    , 0.0796, 0.1609, 0.2461, 0.3379, 0.4407, 0.5626, 0.723 , 1.    ])
    """
    bits = integer_at_least("bits", bits, 2)
    if bits > 8:
        msg = f"`bits` is {bits}; NormalFloat has 2 to 8"
        raise InvalidInputError(msg)
    half = 2 ** (bits - 1)
    end = 1.0 - 0.5 * (1.0 / (4 * half) + 1.0 / (4 * half - 2))
    above = ndtri(np.linspace(0.5, end, half + 1))
    below = ndtri(np.linspace(0.5, end, half))[:0:-1]
    values = np.concatenate([-below, [0.0], above[1:]]) / above[-1]
    return NumberFormat(f"nf{bits}", values, bits)


def number_format(name: str) -> NumberFormat:
    """Return the format called "e4m3fn", "e5m2", "int4", "int4-full", "nf4", ...: what `NumberFormat.name` says.

    As in ml_dtypes "fn" means finite numbers only, with one NaN of each sign in formats of 8 bits. "-nan" and "-none"
    say it the other way round, and "b11" at the end gives a bias.

    Raises
    ------
    InvalidInputError : for another name.

    Examples
    --------
    >>> number_format("e4m3fn").largest, number_format("e5m2").largest, number_format("e2m1fn").largest
    (448.0, 57344.0, 6.0)
    """
    if not isinstance(name, str):
        msg = f"`name` is {shown(name)}; names of number formats are like 'e4m3fn' and 'int4'"
        raise InvalidInputError(msg)
    if name == E8M0.name:
        return E8M0
    if found := re.fullmatch(r"e(\d)m(\d)(fn|-nan|-none|)(?:b(-?\d{1,3}))?", name):
        exponent, mantissa, suffix, bias = found.groups()
        bits = 1 + int(exponent) + int(mantissa)
        names = {"": "ieee", "-nan": "nan", "-none": "none", "fn": "nan" if bits >= 8 else "none"}
        return float_format(int(exponent), int(mantissa), specials=names[suffix], bias=int(bias) if bias else None)
    if found := re.fullmatch(r"int(\d)(-full)?", name):
        return int_format(int(found[1]), symmetric=not found[2])
    if found := re.fullmatch(r"nf(\d)", name):
        return normal_float(int(found[1]))
    msg = f"there is no number format {name!r}; names are like e4m3fn, e5m2, e2m1fn, int4 and nf4"
    raise InvalidInputError(msg)


def nearest_value(values: Float[np.ndarray, "*shape"], number: NumberFormat) -> Float[np.ndarray, "*shape"]:
    """Return the nearest value of a format, ties to even codes; beyond the ends the outermost one.

    >>> nearest_value(np.array([0.74, 0.75, 2.5, 99.0]), E2M1FN)
    array([0.5, 1. , 2. , 6. ])
    """
    return number.values[np.searchsorted(tie_thresholds(number), values)]


def tie_thresholds(number: NumberFormat) -> Float[np.ndarray, " cells"]:
    """Return the largest float64 numbers that go to the lower neighbour: a midpoint goes to the even code.

    >>> tie_thresholds(E2M1FN)[7:10] == E2M1FN.thresholds[7:10]
    array([ True, False,  True])
    """
    middle = number.thresholds
    lower_is_even = (number.low + np.arange(middle.size)) % 2 == 0
    return np.where(lower_is_even, middle, np.nextafter(middle, -math.inf))


def _suffix(specials: str, bits: int) -> str:
    if specials == "ieee":
        return ""
    return "fn" if (specials == "nan") == (bits >= 8) else f"-{specials}"


E2M1FN = float_format(2, 1, specials="none")
"""FP4: 0, ½, 1, 1½, 2, 3, 4, 6 and their negatives."""
E3M2FN = float_format(3, 2, specials="none")
"""FP6 with three exponent bits: up to 28."""
E2M3FN = float_format(2, 3, specials="none")
"""FP6 with two exponent bits: up to 7.5."""
E4M3FN = float_format(4, 3, specials="nan")
"""FP8 for weights: up to 448."""
E4M3 = float_format(4, 3)
"""FP8 with the infinities of IEEE 754: up to 240."""
E5M2 = float_format(5, 2)
"""FP8 for gradients: up to 57344."""
E8M0 = NumberFormat("e8m0fnu", np.ldexp(1.0, np.arange(-127, 128)), 8)
"""Scales of the MX formats: 2^-127 ... 2^127."""
NF4 = normal_float(4)
"""Sixteen quantiles of a Gaussian between -1 and 1."""
