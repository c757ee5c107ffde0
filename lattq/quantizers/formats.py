"""Number formats with a scale for each block: FP4 to FP8, integers and NF4."""

import dataclasses

import numpy as np
from jaxtyping import Float, Int, Num

from lattq._array import Array, array_namespace, from_host, require_finite, short_repr, to_host
from lattq._options import among, as_flag, as_integer, normalize
from lattq.bounds import BLOCK_FORMATS, number_format
from lattq.bounds.block_formats import (
    LARGEST_SCALE,
    SCALE_BITS,
    SMALLEST_SCALE,
    block_scales,
    check_number,
    check_scale,
)
from lattq.bounds.formats import E2M1FN, NumberFormat, tie_thresholds
from lattq.codebooks.scales import best_scales
from lattq.coding import FixedLength
from lattq.coding.damage import reading
from lattq.coding.schema import SCALE, Choice, Either, Integer, Octets, Record, Text, checked
from lattq.errors import DamagedFileError, InvalidInputError
from lattq.parts import register
from lattq.parts.forms import NumberForm
from lattq.quantizers.base import BaseDesign, BaseQuantizer
from lattq.quantizers.entries import Entries
from lattq.quantizers.format_scales import byte_values, packed_scales, positive_scales, unpacked_scales
from lattq.quantizers.integers import check_fit, check_group
from lattq.quantizers.scalars import number_form
from lattq.quantizers.steps import GROUP, HEIGHT, alike, cast, groups_of, half, spread

__all__ = ["Format", "FormatQuantizer"]

NAME = Text(r".{0,64}")


@register("quantizer", "format")
@short_repr
@dataclasses.dataclass(frozen=True, eq=False)
class FormatQuantizer(BaseQuantizer):
    """The nearest value of a number format, times a scale.

    Ties go to the even code, which is rounding to nearest even as in IEEE 754; what is beyond the largest value becomes
    the largest value (saturation), where a cast to E4M3 or E5M2 may give NaN or infinity. Codes count the values from 0
    on: for a floating-point format the magnitude of a code is the bit pattern of the number's magnitude, and -0
    is stored as 0.

    Attributes
    ----------
    scale : one per row and group of columns, (rows, groups)
    number : the format
    kind : format that holds the scales: "float16", "e4m3" or "e8m0"
    group : columns per entry of `scale` where there are several

    Examples
    --------
    >>> quantizer = FormatQuantizer(np.array([[0.5]]), E2M1FN)
    >>> codes = quantizer.encode(np.array([[0.7, -1.2, 9.0]]))
    >>> codes, quantizer.decode(codes)
    (array([[ 3, -4,  7]], dtype=int32), array([[ 0.75, -1.  ,  3.  ]]))
    """

    scale: Float[Array, "rows groups"]
    number: NumberFormat
    kind: str = "float16"
    group: int = 1

    schema = Record(
        kind=Choice(*SCALE_BITS),
        group=GROUP,
        height=HEIGHT,
        data=Octets(lambda at: SCALE_BITS[at.kind] // 8 * at.height * groups_of(at)),
        number=Either(
            Record(name=NAME),
            Record(name=NAME, bits=Integer(1, 8), values=Octets(unit=8)),
        ),
    )

    @property
    def coder(self) -> FixedLength:
        """All patterns of the format, used or not, in its own number of bits."""
        return FixedLength(2**self.number.bits, self.number.low)

    def encode(self, x: Float[Array, "rows block"]) -> Int[Array, "rows block"]:
        """Codes of the nearest values; raises `InvalidInputError` for NaN and infinity."""
        require_finite("x", x)
        xp, scaled = array_namespace(x), self._scaled(x)
        thresholds = from_host(tie_thresholds(self.number), like=x)
        index = xp.searchsorted(thresholds, xp.reshape(scaled, (-1,)))
        return xp.astype(xp.reshape(index, x.shape) + self.number.low, xp.int32)

    def decode(self, codes: Num[Array, "rows block"]) -> Float[Array, "rows block"]:
        """Reconstructions, in the dtype of `scale`; raises `InvalidInputError` for points that are no codes."""
        xp, number = array_namespace(codes), self.number
        if not xp.isdtype(codes.dtype, "integral"):
            msg = f"codes of {codes.dtype} are between the numbers of a format; pass integers"
            raise InvalidInputError(msg)
        index = xp.reshape(xp.astype(codes, xp.int64), (-1,)) - number.low
        if index.shape[0] and not 0 <= int(xp.min(index)) <= int(xp.max(index)) < number.values.size:
            msg = f"codes reach from {int(xp.min(codes))} to {int(xp.max(codes))}; {number!r} has "
            raise InvalidInputError(msg + f"{number.low} to {number.low + number.values.size - 1}")
        values = xp.reshape(xp.take(from_host(number.values.copy(), like=codes), index), codes.shape)
        return xp.astype(values, self.scale.dtype) * spread(self.scale, self.group, codes)

    def overload(self, x: Float[Array, "rows block"]) -> int:
        """Entries beyond the outermost values by more than half of the last step."""
        xp, scaled, values = array_namespace(x), self._scaled(x), self.number.values
        if values.size == 1:
            return 0
        low, high = (3 * values[0] - values[1]) / 2, (3 * values[-1] - values[-2]) / 2
        return int(xp.sum(xp.astype((scaled < float(low)) | (scaled > float(high)), xp.int32)))

    def underflow(self) -> int:
        """Stored scales that are the smallest of their format: what they scale is decoded too coarsely."""
        return int(np.sum(to_host(self.scale) <= SMALLEST_SCALE[self.kind]))

    def stored(self) -> "FormatQuantizer":
        """The nearest scales of their format; raises `InvalidInputError` for what is beyond it."""
        if self.kind == "float16":
            scale = half("scale", self.scale)
        else:
            host, values = to_host(self.scale).astype(np.float64), byte_values(self.kind)
            places = np.searchsorted((values[1:] + values[:-1]) / 2, host)
            rounded = values[places]
            if not ((rounded > 0) & (host <= values[-1])).all():
                msg = f"`scale` holds {host.min():.3g} ... {host.max():.3g}, of which {self.kind} does not hold all"
                raise InvalidInputError(msg + "; multiply the weights by a constant first")
            scale = self.scale if np.array_equal(rounded, host) else cast(rounded, self.scale)
        return self if scale is self.scale else dataclasses.replace(self, scale=scale)

    def check_codes(self, codes: np.ndarray) -> None:
        """Raise `InvalidInputError` unless all codes are numbers of the format."""
        low, high = self.number.low, self.number.low + self.number.values.size - 1
        if not low <= codes.min() <= codes.max() <= high:
            msg = f"codes {codes.min()} ... {codes.max()} where {self.number!r} has {low} ... {high}"
            raise InvalidInputError(msg)

    def packed_form(self, codes: np.ndarray, shifts: np.ndarray | None = None) -> NumberForm:
        """The numbers of the format as a table."""
        index, scale = codes - np.int32(self.number.low), to_host(self.scale).astype(np.float64)
        return number_form(index, self.number.values, np.zeros((1, 1)), scale, self.group)

    def _scaled(self, x: Array) -> Array:
        """In float64, so that ties are those of the numbers themselves."""
        xp = array_namespace(x)
        return xp.astype(x, xp.float64) / xp.astype(spread(self.scale, self.group, x), xp.float64)

    def to_state(self) -> list:
        """Scales in their own format, and the name of that of the numbers, with its values where no name gives them."""
        scale = to_host(self.scale).astype(np.float64)
        number = [self.number.name] if _is_named(self.number) else [*_described(self.number)]
        return [self.kind, self.group, scale.shape[0], packed_scales(scale, self.kind), number]

    @staticmethod
    def from_state(state: list, shape: tuple[int, int]) -> "FormatQuantizer":
        """Inverse of `to_state` for a matrix of this shape, on the host in float64."""
        found = checked(FormatQuantizer.schema, state, "format quantizer", rows=shape[0], columns=shape[1])
        kind, group, height, data, (name, *own) = found
        scale = unpacked_scales(data, kind, (height, -(-shape[1] // group)))
        values = np.frombuffer(own[1] if own else b"", dtype="<f8")
        if not np.abs(values).max(initial=0.0) <= SCALE.high:
            msg = f"a number format that reaches to {np.abs(values).max():.3g}; the file is damaged"
            raise DamagedFileError(msg)
        with reading("a number format"):
            known = NumberFormat(name, values, own[0]) if own else number_format(name)
        return FormatQuantizer(scale, known, kind, group)

    @classmethod
    def concatenate(cls, parts: "list[FormatQuantizer]", group: int) -> "FormatQuantizer | None":
        """One quantizer for the whole matrix from those of its groups, in column order, on the host in float64."""
        if not alike(parts, ("number", "kind")):
            return None
        scale = np.concatenate([to_host(part.scale).astype(np.float64) for part in parts], axis=1)
        return dataclasses.replace(parts[0], scale=scale, group=group)


@dataclasses.dataclass(frozen=True)
class Format(BaseDesign):
    """Design of a number format with a scale for each row and group of columns.

    Parameters
    ----------
    number : the format, see `lattq.bounds.number_format`
    group : columns that share a scale; None for whole rows
    scale : format of the scales, which are charged: "float16" or "e4m3" put the largest magnitude on the largest value,
        "e8m0" takes the power of two that the MX formats prescribe, and may cut the largest magnitudes. E4M3 reaches
        from 0.002 to 448 only: normalize the weights first, with `lattq.transforms.Normalize`
    shrink : scale each column by its LMMSE gain, inside the loop
    fit : "range" takes the scale from the largest magnitude, as said above; "error" takes the scale of that format with
        the least squared error, weighted by the pivots (theory 10.3)

    Examples
    --------
    >>> Format.named("mxfp4")
    Format(number=NumberFormat('e2m1fn'), group=32, scale='e8m0', shrink=False, fit='range')
    >>> Format.named("mxfp4")(Entries(np.array([[0.5, -5.0]]))).scale
    array([[1.]])
    """

    number: NumberFormat = E2M1FN
    group: int | None = 32
    scale: str = "float16"
    shrink: bool = False
    fit: str = "range"

    array_generic = True

    @property
    def scale_free(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Scales in float16 take any unit; E8M0 has the range of float32, and E4M3 wants weights normalized already."""
        return self.scale == "float16"

    def __post_init__(self) -> None:
        normalize(self, as_integer, optional=("group",))
        normalize(self, as_flag, "shrink")
        check_fit(self.fit)
        check_number(self.number)
        check_group(self.group)
        check_scale(self.scale)

    @staticmethod
    def named(name: str, *, fit: str = "range") -> "Format":
        """The design of a block format of `lattq.bounds.BLOCK_FORMATS`; raises `InvalidInputError` for another name."""
        if not among(name, BLOCK_FORMATS):
            msg = f"there is no block format {name!r}; choose {', '.join(BLOCK_FORMATS)}"
            raise InvalidInputError(msg)
        block = BLOCK_FORMATS[name]
        return Format(block.number, block.size, block.scale, fit=fit)

    def __call__(self, entries: Entries) -> FormatQuantizer:
        """Scales of the entries."""
        targets, xp = entries.values, array_namespace(entries.values)
        largest = to_host(xp.max(xp.abs(targets), axis=1, keepdims=True)).astype(np.float64)
        scale = block_scales(largest, self.number, self.scale)
        if self.fit == "error":
            found = self._least_error(entries)
            scale = np.where(found > 0.0, found, scale)
        return FormatQuantizer(xp.astype(from_host(scale, like=targets), targets.dtype), self.number, self.scale)

    def _least_error(self, entries: Entries) -> np.ndarray:
        """The best scale of each row that its format can hold; 0 where all are as good."""
        x = to_host(entries.values).astype(np.float64)
        if self.scale == "float16":
            found = best_scales(x, self.number.values, entries.power).scale[:, None]
            limits = SMALLEST_SCALE[self.scale], LARGEST_SCALE[self.scale]
            return np.where(found > 0.0, np.clip(found, *limits).astype(np.float16).astype(np.float64), 0.0)
        allowed = positive_scales(self.scale)
        found = best_scales(x, self.number.values, entries.power, candidates=allowed).scale[:, None]
        live = ((x != 0.0) & (entries.power > 0.0)).any(axis=1, keepdims=True)
        return np.where(live, found, 0.0)


def _is_named(number: NumberFormat) -> bool:
    try:
        return number_format(number.name) == number
    except InvalidInputError:
        return False


def _described(number: NumberFormat) -> tuple[str, int, bytes]:
    return number.name, number.bits, number.values.astype("<f8").tobytes()
