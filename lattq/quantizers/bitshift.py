"""The bitshift trellis down the rows of each column: fixed rate, without an entropy coder."""

import dataclasses
from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Int, Num

from lattq._array import Array, array_namespace, from_host, require_finite, short_repr, to_host
from lattq._options import as_flag, as_integer, normalize
from lattq.coding import FixedLength
from lattq.coding.schema import Choice, Integer, Record, checked
from lattq.errors import InvalidInputError
from lattq.parts import register
from lattq.quantizers.base import BaseDesign, BaseQuantizer
from lattq.quantizers.entries import Entries
from lattq.quantizers.integers import check_group, half_precision
from lattq.quantizers.steps import GROUP, HALVES, HEIGHT, SMALLEST_STEP, alike, half, spread, stored_halves
from lattq.trellis.bitshift import CODES, LONGEST, MOST_BITS, MOST_MEMORY, BitshiftCode

__all__ = ["Bitshift", "BitshiftQuantizer"]


@register("quantizer", "bitshift")
@short_repr
@dataclasses.dataclass(frozen=True, eq=False)
class BitshiftQuantizer(BaseQuantizer):
    """Sequences of a `BitshiftCode` down the rows of each column, times a scale.

    A column of more than `block` rows is cut into tiles of equal length, give or take one, that decode alone.

    Attributes
    ----------
    scale : standard deviation that the code is stretched to, (rows or 1, groups); 0 decodes to zeros
    code : of the tiles that are long enough for it, see `BitshiftCode.fitting`
    block : rows of the longest tile
    group : columns per entry of `scale` where there are several

    Examples
    --------
    >>> quantizer = BitshiftQuantizer(np.array([[2.0]]), BitshiftCode(bits=2, memory=4))
    >>> codes = quantizer.encode(np.array([[0.4], [-1.8], [2.4], [0.2], [-0.8]]))
    >>> codes.T, quantizer.decode(codes).T.round(1)
    (array([[2, 0, 3, 2, 1]], dtype=int32), array([[ 0.6, -2.3,  2.3,  0.6, -0.6]]))
    """

    scale: Float[Array, "rows groups"]
    code: BitshiftCode
    block: int = 256
    group: int = 1

    schema = Record(
        bits=Integer(1, MOST_BITS),
        memory=Integer(lambda at: at.bits, MOST_MEMORY),
        code=Choice(*CODES),
        block=Integer(1, LONGEST),
        group=GROUP,
        height=HEIGHT,
        scales=HALVES,
    )

    @property
    def coder(self) -> FixedLength:
        """The symbols as they are."""
        return FixedLength(1 << self.code.bits)

    def encode(self, x: Float[Array, "rows block"]) -> Int[Array, "rows block"]:
        """Symbols of paths close to the columns; raises `InvalidInputError` for NaN."""
        require_finite("x", x)
        xp, scale = array_namespace(x), self._spread(x)
        scaled = to_host(x / xp.where(scale > 0, scale, xp.ones_like(scale))).astype(np.float64).T
        codes = np.empty(scaled.shape, dtype=np.int32)
        for tile in _tiles(x.shape[0], self.block):
            part = scaled[:, tile]
            codes[:, tile] = self.code.fitting(part.shape[1]).encode(part)
        return from_host(np.ascontiguousarray(codes.T), like=x)

    def decode(self, codes: Num[Array, "rows block"]) -> Float[Array, "rows block"]:
        """Reconstructions, in the dtype of `scale`; raises `InvalidInputError` for points that are no codes."""
        symbols = np.ascontiguousarray(to_host(codes).T)
        if not np.issubdtype(symbols.dtype, np.integer):
            msg = f"codes of {symbols.dtype} name no path through a trellis; pass integers"
            raise InvalidInputError(msg)
        values = np.empty(symbols.shape)
        for tile in _tiles(symbols.shape[1], self.block):
            part = symbols[:, tile]
            values[:, tile] = self.code.fitting(part.shape[1]).decode(part)
        found = from_host(np.ascontiguousarray(values.T), like=codes)
        return array_namespace(codes).astype(found, self.scale.dtype) * self._spread(codes)

    def check_codes(self, codes: Num[Array, "rows columns"]) -> None:
        """Raise `InvalidInputError` unless all codes are symbols; other quantizers decode any integer."""
        host = to_host(codes)
        if host.size and (host.min() < 0 or host.max() >> self.code.bits):
            msg = (
                f"codes from {host.min()} to {host.max()} are no symbols of {self.code.bits} bits, "
                f"which run from 0 to {(1 << self.code.bits) - 1}"
            )
            raise InvalidInputError(msg)

    def overload(self, x: Float[Array, "rows block"]) -> int:
        """Entries beyond the outermost value of the code."""
        xp, farthest = array_namespace(x), np.empty((x.shape[0], 1))
        for tile in _tiles(x.shape[0], self.block):
            farthest[tile] = np.abs(self.code.fitting(tile.stop - tile.start).values).max()
        limit = xp.astype(from_host(farthest, like=x), self.scale.dtype) * self._spread(x)
        return int(xp.sum(xp.astype(xp.abs(x) > limit, xp.int32)))

    def underflow(self) -> int:
        """Stored scales that float16 holds only as its smallest number."""
        scale = to_host(self.scale)
        return int(np.sum((scale > 0) & (scale <= SMALLEST_STEP)))

    def stored(self) -> "BitshiftQuantizer":
        """Scales in float16; raises `InvalidInputError` for what is beyond it."""
        scale = half("scale", self.scale, zero=True)
        return self if scale is self.scale else dataclasses.replace(self, scale=scale)

    def _spread(self, like: Array) -> Array:
        """Scales with one column per column of `like`, or one for all."""
        return spread(self.scale, self.group, like)

    def to_state(self) -> list:
        """Code, tile, group and scales as float16, for the container."""
        scale = to_host(self.scale)
        code = list(dataclasses.astuple(self.code))
        return [*code, self.block, self.group, scale.shape[0], scale.astype("<f2").tobytes()]

    @staticmethod
    def from_state(state: list, shape: tuple[int, int]) -> "BitshiftQuantizer":
        """Inverse of `to_state` for a matrix of this shape, on the host in float64."""
        found = checked(BitshiftQuantizer.schema, state, "bitshift quantizer", rows=shape[0], columns=shape[1])
        bits, memory, code, block, group, height, scales = found
        scale = stored_halves(scales, (height, -(-shape[1] // group)), zero=True)
        return BitshiftQuantizer(scale, BitshiftCode(bits, memory, code), block, group)

    @classmethod
    def concatenate(cls, parts: "list[BitshiftQuantizer]", group: int) -> "BitshiftQuantizer | None":
        """One quantizer for the whole matrix from those of its groups, in column order, on the host in float64."""
        if not alike(parts, ("code", "block")):
            return None
        scale = np.concatenate([to_host(part.scale).astype(np.float64) for part in parts], axis=1)
        return dataclasses.replace(parts[0], scale=scale, group=group)


@dataclasses.dataclass(frozen=True)
class Bitshift(BaseDesign):
    """Design of a fixed-rate trellis (QTIP) whose scales are the standard deviations of the targets.

    Scales are rounded to float16 and charged: with one for each column, 16 bits over all rows. The code is made for
    Gaussian numbers of one variance, so rotate weights whose rows differ much, or give rows scales of their own.

    Parameters
    ----------
    bits : per weight, 1 to 4
    memory : bits of the register, to 16; time grows as 2^memory, the squared error at 2 bits falls from 0.077 of the
        variance at 8 to 0.070 at 12 and 0.067 at 16
    code : "latin", "lut", "1mad" or "3inst", see `lattq.trellis.bitshift.BitshiftCode`
    block : rows of the longest tile, to 2048
    group : columns that share a scale; None for all
    shrink : scale each column by its LMMSE gain, inside the loop
    shared : one scale for all rows of a group; otherwise each row has its own

    Examples
    --------
    >>> Bitshift(bits=2)(Entries(np.array([[1.0], [-3.0]]))).scale.round(2)
    array([[2.24]])
    """

    bits: int = 2
    memory: int = 12
    code: str = "latin"
    block: int = 256
    group: int | None = 1
    shrink: bool = False
    shared: bool = True

    array_generic = True

    def __post_init__(self) -> None:
        normalize(self, as_integer, "bits", "memory", "block", optional=("group",))
        normalize(self, as_flag, "shrink", "shared")
        BitshiftCode(self.bits, self.memory, self.code)
        check_block(self.block)
        check_group(self.group)

    def __call__(self, entries: Entries) -> BitshiftQuantizer:
        """Scales from the second moments of the entries."""
        targets, xp = entries.values, array_namespace(entries.values)
        deviation = xp.sqrt(xp.mean(targets * targets, axis=(0, 1) if self.shared else 1, keepdims=True))
        scale = half_precision(deviation) * xp.astype(deviation > 0, deviation.dtype)
        return BitshiftQuantizer(scale, BitshiftCode(self.bits, self.memory, self.code), self.block)


def check_block(block: int) -> None:
    """Raise `InvalidInputError` unless `block` is the length of a tile."""
    if not 1 <= block <= LONGEST:
        msg = f"`block` is {block}; a tile has 1 to {LONGEST} rows"
        raise InvalidInputError(msg)


def _tiles(rows: int, block: int) -> Iterator[slice]:
    """Rows of each tile: as few tiles as `block` allows, of lengths that differ by one at most.

    >>> list(_tiles(7, 3))
    [slice(0, 2, None), slice(2, 4, None), slice(4, 7, None)]
    """
    count = -(-rows // block)
    for index in range(count):
        yield slice(rows * index // count, rows * (index + 1) // count)
