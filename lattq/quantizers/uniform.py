"""The uniform scalar quantizer, and its design with one given step."""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Num

from lattq._array import Array, array_namespace, from_host, short_repr, to_host
from lattq._options import as_flag, as_float, as_integer, check_levels, normalize
from lattq.coding import FixedLength, TwoWay
from lattq.coding.packing import pack, unpack
from lattq.coding.scaling import Scaling
from lattq.coding.schema import MOST_EXPONENT, Either, Integer, Octets, Real, Record, checked
from lattq.errors import DamagedFileError, InvalidInputError
from lattq.parts import register
from lattq.parts.forms import NumberForm
from lattq.quantizers.base import BaseDesign, BaseQuantizer
from lattq.quantizers.dither import dither_offsets
from lattq.quantizers.entries import Entries
from lattq.quantizers.scalars import number_form, table_shift
from lattq.quantizers.steps import (
    GROUP,
    HALVES,
    HEIGHT,
    SMALLEST_STEP,
    alike,
    cast,
    centered,
    check_step,
    half,
    spread,
    step_like,
    stored_halves,
    too_large,
)
from lattq.quantizers.strips import Strip

__all__ = ["Uniform", "UniformQuantizer"]

LARGEST_CODE = 2**30
LARGEST_ZERO = 2.0**53
MOST_VALUES = 1 << 16  # of a table


@register("quantizer", "uniform")
@short_repr
@dataclasses.dataclass(frozen=True, eq=False)
class UniformQuantizer(BaseQuantizer):
    """The quantizer ``step * (round(x / step + zero) - zero)``, with codes cut to `low` ... `high` if these are given.

    Attributes
    ----------
    step : size of the cells, one per row (or one for all) and group of columns; shape (rows or 1, groups). A negative
        one turns the range of the codes over
    zero : the code whose reconstruction is 0, like `step`, or one per entry; need not be an integer
    low, high : smallest and largest code; None for unbounded codes
    group : columns per entry of `step` where there are several
    dither : seed that `zero` was drawn from, for subtractive dither; None without

    Examples
    --------
    >>> quantizer = UniformQuantizer(np.array([[0.5]]))
    >>> quantizer.encode(np.array([[0.2, 0.9]])), quantizer.decode(np.array([[0, 2]]))
    (array([[0, 2]], dtype=int32), array([[0., 1.]]))
    """

    step: Float[Array, "rows groups"]
    zero: Any = 0.0
    low: int | None = None
    high: int | None = None
    group: int = 1
    dither: int | None = None

    schema = Record(
        group=GROUP,
        height=HEIGHT,
        steps=Either(Real(-(2.0**MOST_EXPONENT), 2.0**MOST_EXPONENT), HALVES),
        zeros=Either(Real(-LARGEST_ZERO, LARGEST_ZERO), Octets()),
        low=Either(None, Integer(-LARGEST_CODE, LARGEST_CODE)),
        high=Either(None, Integer(-LARGEST_CODE, LARGEST_CODE)),
        dither=Either(None, Integer(0, (1 << 64) - 1)),
    )
    ordered = True

    @property
    def coder(self) -> FixedLength | TwoWay:
        """Fixed length where codes are cut, a two-way entropy coder where they are not."""
        if self.low is None or self.high is None:
            return TwoWay()
        return FixedLength(self.high - self.low + 1, self.low)

    def encode(self, x: Float[Array, "rows block"]) -> Int[Array, "rows block"]:
        """Codes of the nearest reconstructions; raises `CodeOverflowError` for NaN or a code beyond 2^30."""
        xp = array_namespace(x)
        scaled = self._scaled(x)
        if self.low is not None:
            scaled = xp.clip(scaled, self.low, self.high)
        largest = float(xp.max(xp.abs(scaled))) if x.shape[0] and x.shape[1] else 0.0
        if not largest <= LARGEST_CODE:
            raise too_large(largest)
        return xp.astype(xp.round(scaled), xp.int32)

    def decode(self, codes: Num[Array, "rows block"]) -> Float[Array, "rows block"]:
        """Reconstructions, in the dtype of `step`; of points between the codes too."""
        xp = array_namespace(codes)
        step = self._spread(self.step, codes)
        return (xp.astype(codes, step.dtype) - self._spread(self.zero, codes)) * step

    def in_block(self, start: int, metric: np.ndarray) -> "UniformQuantizer":
        """Itself, or with the steps of these columns, where not all columns share them."""
        if self.step.shape[1] == 1 or self.dither is not None:
            return self
        columns = (start + np.arange(len(metric))) // self.group
        own = {"step": self.step[:, columns]}
        if not isinstance(self.zero, float):
            own["zero"] = self.zero[:, columns]
        return dataclasses.replace(self, **own)

    def strip(self, strip: Strip) -> int | None:
        """Compiled, unless a class has its own way to encode, or columns have steps of their own."""
        if type(self).encode is not UniformQuantizer.encode or type(self).decode is not UniformQuantizer.decode:
            return None
        if any(np.ndim(x) == 2 and np.shape(x)[1] != 1 for x in (self.step, self.zero)):
            return None
        from lattq.kernels import feedback  # numba takes long to import, and few need it

        dtype = np.result_type(strip.target.dtype, self.step.dtype)
        step, zero = (np.broadcast_to(np.asarray(x, dtype).ravel(), strip.rows).copy() for x in (self.step, self.zero))
        low = -np.inf if self.low is None else self.low
        high = np.inf if self.high is None else self.high
        limits = np.array([low, high, 0.5, LARGEST_CODE], dtype=dtype)
        rounded: Any = feedback.round_columns
        overload, largest = rounded(
            strip.target, strip.weight, strip.unit, strip.idle, step, zero, limits, strip.codes, strip.error
        )
        if not largest == 0.0:
            raise too_large(largest)
        return overload

    @property
    def scaling(self) -> Scaling | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Of codes without bounds that share a step and a zero."""
        if self.low is not None or self.step.size != 1 or not isinstance(self.zero, float):
            return None
        return Scaling(float(self.step[0, 0]), self.zero)

    @property
    def steps(self) -> Any:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The steps."""
        return self.step

    def with_steps(self, steps: np.ndarray) -> "UniformQuantizer":
        """With other steps, as a file holds them."""
        return dataclasses.replace(self, step=steps).stored()

    def in_front(self, rows: np.ndarray, columns: np.ndarray, variance: np.ndarray) -> "UniformQuantizer":
        """With steps and zeros of these rows, if a group of columns has them row by row."""
        if self.dither is not None or self.step.shape[1] > 1:
            return super().in_front(rows, columns, variance)
        own = {
            name: value[rows]
            for name, value in (("step", self.step), ("zero", self.zero))
            if getattr(value, "shape", (1,))[0] > 1
        }
        return dataclasses.replace(self, **own) if own else self

    def overload(self, x: Float[Array, "rows block"]) -> int:
        """Entries more than half a step outside the outermost reconstructions."""
        if self.low is None:
            return 0
        xp = array_namespace(x)
        scaled = self._scaled(x)
        outside = xp.abs(scaled - xp.clip(scaled, self.low, self.high)) > 0.5
        return int(xp.sum(xp.astype(outside, xp.int32)))

    def underflow(self) -> int:
        """Stored steps that float16 holds only as its smallest number: what they scale is decoded too coarsely."""
        return 0 if self.low is None else int(np.sum(np.abs(to_host(self.step)) <= SMALLEST_STEP))

    def stored(self) -> "UniformQuantizer":
        """One step stays as it is; several become float16, and zeros of their own integers from 0 to high - low."""
        step, zero = self.step, self.zero
        if not hasattr(zero, "shape") or self.dither is not None:
            zero = zero if self.dither is not None else as_float("zero", zero)
        else:
            step, zero = self._zeros(step, zero)
        if self.dither is None and not np.isfinite(zero if isinstance(zero, float) else 0.0):
            msg = f"`zero` is {zero}; pass a finite number of cells"
            raise InvalidInputError(msg)
        if to_host(step).size == 1:
            check_step(abs(float(step[0, 0])))
        else:
            step = half("step", step, signed=True)
        return self if step is self.step and zero is self.zero else dataclasses.replace(self, step=step, zero=zero)

    def _zeros(self, step: Array, zero: Array) -> tuple[Array, Array]:
        """Steps and zeros of one shape, the zeros integers."""
        host = to_host(zero).astype(np.float64)
        most = 0 if self.low is None or self.high is None else self.high - self.low
        if not ((np.rint(host) >= 0) & (np.rint(host) <= most)).all():
            msg = (
                f"`zero` holds {host.min():.3g} ... {host.max():.3g}, but zeros of rows and groups are stored as "
                f"integers from 0 to high - low = {most}; pass one number for all, or other codes"
            )
            raise InvalidInputError(msg)
        if not np.array_equal(np.rint(host), host):
            host, zero = np.rint(host), cast(np.rint(host), zero)
        if step.shape != zero.shape:
            shape = np.broadcast_shapes(tuple(step.shape), tuple(zero.shape))
            step, zero = (cast(np.broadcast_to(to_host(x), shape).copy(), x) for x in (step, zero))
        return step, zero

    def packed_form(self, codes: np.ndarray, shifts: np.ndarray | None = None) -> NumberForm:
        """Tables of the codes that occur, in cells; raises `InvalidInputError` with a dither, which has no tables."""
        if self.dither is not None:
            msg = f"a dither of seed {self.dither} moves every weight; packed products need codes without dither"
            raise InvalidInputError(msg)
        low, high = int(codes.min()), int(codes.max())
        if high - low >= MOST_VALUES:
            msg = f"codes {low} ... {high} are {high - low + 1} values, too many for a table; use a larger step"
            raise InvalidInputError(msg)
        values = np.arange(low, high + 1)
        values = values + (0.0 if shifts is None else table_shift(values, shifts))
        zeros = np.atleast_2d(to_host(np.asarray(self.zero))).astype(np.float64)
        return number_form(codes - np.int32(low), values, zeros, to_host(self.step).astype(np.float64), self.group)

    def _scaled(self, x: Array) -> Array:
        return x / self._spread(self.step, x) + self._spread(self.zero, x)

    def _spread(self, values: Any, like: Array) -> Any:
        """`values` with one column per column of `like`, or one for all."""
        return values if isinstance(values, float) else spread(values, self.group, like)

    def to_state(self) -> list:
        """Steps as float16 (or the one step as it is) and zeros as integers, for the container."""
        step = to_host(self.step)
        steps = float(step[0, 0]) if step.size == 1 else step.astype("<f2").tobytes()
        if self.dither is not None or isinstance(self.zero, float):
            zeros = 0.0 if self.dither is not None else self.zero
        else:
            zeros = pack(to_host(self.zero).ravel().astype(np.int64), (self.high or 0) - (self.low or 0) + 1)
        return [self.group, step.shape[0], steps, zeros, self.low, self.high, self.dither]

    @staticmethod
    def from_state(state: list, shape: tuple[int, int]) -> "UniformQuantizer":
        """Inverse of `to_state` for a matrix of this shape, on the host in float64."""
        found = checked(UniformQuantizer.schema, state, "uniform quantizer", rows=shape[0], columns=shape[1])
        group, height, steps, zeros, low, high, dither = found
        if isinstance(steps, float) and height != 1:
            msg = f"one step for {height} rows of steps; the file is damaged"
            raise DamagedFileError(msg)
        size = 1.0 if isinstance(steps, bytes) else steps if low is None else abs(steps)
        if not size >= 2.0**-MOST_EXPONENT:  # codes without ends have no better side
            msg = f"`step` is {steps}; the file is damaged"
            raise DamagedFileError(msg)
        if (low is None) != (high is None) or (low is not None and not 0 <= high - low <= 255):
            msg = f"codes from {low} to {high}; the file is damaged"
            raise DamagedFileError(msg)
        if (isinstance(zeros, bytes) and low is None) or (dither is not None and zeros != 0.0):
            msg = "zeros of their own beside dither, or for codes without ends; the file is damaged"
            raise DamagedFileError(msg)
        places = height, -(-shape[1] // group)
        step = np.full((1, 1), steps) if isinstance(steps, float) else stored_halves(steps, places, signed=True)
        if isinstance(zeros, bytes):
            zeros = unpack(zeros, high - low + 1, places[0] * places[1]).astype(np.float64).reshape(places)
        if dither is not None:
            zeros = dither_offsets(dither, shape[0], np.arange(shape[1]))
        return UniformQuantizer(step, zeros, low, high, group, dither)

    @classmethod
    def stacked(cls, parts: "list[UniformQuantizer]", height: int) -> "UniformQuantizer | None":
        """With the steps and zeros of all rows; None where codes differ, or cells that are not rows' own."""
        first = parts[0]
        shared = first.step.shape[0] == 1 and getattr(first.zero, "shape", (1,))[0] == 1
        if shared and height > 1 and alike(parts, [field.name for field in dataclasses.fields(cls)]):
            return first
        if not alike(parts, ("low", "high", "group")) or any(part.dither is not None for part in parts):
            return None
        xp, found = array_namespace(first.step), {}
        for name in ("step", "zero"):
            values = [getattr(part, name) for part in parts]
            if hasattr(first.zero, "shape") or name == "step":
                rows = [xp.broadcast_to(one, (height, one.shape[1])) for one in values]
                found[name] = xp.concat(rows, axis=0)
            elif not alike(parts, (name,)):
                return None
        return dataclasses.replace(first, **found)

    @classmethod
    def concatenate(cls, parts: "list[UniformQuantizer]", group: int) -> "UniformQuantizer | None":
        """One quantizer for the whole matrix from those of its groups, in column order, on the host in float64.

        None where their codes differ, or steps of their own that float16 does not hold.
        """
        if not alike(parts, ("low", "high", "dither")):
            return None
        steps = [to_host(part.step).astype(np.float64) for part in parts]
        first = parts[0]
        same = all(step.size == 1 and step[0, 0] == steps[0][0, 0] for step in steps)
        step = steps[0] if same else np.concatenate(np.broadcast_arrays(*steps), axis=1)
        zero = first.zero
        if not same and not np.array_equal(step.astype(np.float16), step):
            return None
        if first.dither is None and any(hasattr(part.zero, "shape") != hasattr(zero, "shape") for part in parts):
            return None
        if isinstance(zero, float) and not alike(parts, ("zero",)):
            return None
        if first.dither is not None:  # as a decoder draws it, not rounded to the dtype of the loop
            zero = dither_offsets(first.dither, first.zero.shape[0], np.arange(len(parts)))
        elif not isinstance(zero, float):
            zero = np.concatenate([to_host(part.zero).astype(np.float64) for part in parts], axis=1)
        return UniformQuantizer(step, zero, first.low, first.high, group, first.dither)


@dataclasses.dataclass(frozen=True)
class Uniform(BaseDesign):
    """Design with one fixed step; for entropy coding, or with `levels` for a fixed rate.

    Parameters
    ----------
    step : size of the cell, in the units of the (transformed) weights
    offset : reconstructions lie at ``step * (code + offset)``
    shrink : scale each column by its LMMSE gain, inside the loop
    dither : seed of a subtractive dither, uniform in the cell; it makes the error independent of the weights
    levels : codes are cut to this many around 0, 2 to 256; None leaves them unbounded

    Examples
    --------
    >>> Uniform(0.5)(Entries(np.zeros((2, 1)))).step
    array([[0.5]])
    """

    step: float = 1.0
    offset: float = 0.0
    shrink: bool = False
    dither: int | None = None
    levels: int | None = None

    array_generic, scale_free, sweeps = True, False, 2  # `step` is in the unit of the weights

    def __post_init__(self) -> None:
        normalize(self, as_float, "step", "offset")
        normalize(self, as_flag, "shrink")
        normalize(self, as_integer, optional=("dither", "levels"))
        if self.levels is not None:
            check_levels(self.levels)
        check_step(self.step)
        if not -np.inf < self.offset < np.inf:
            msg = f"`offset` is {self.offset}; give a finite number, in cells"
            raise InvalidInputError(msg)
        if self.dither is not None and not 0 <= self.dither < 2**64:
            msg = f"`dither` is {self.dither}; a seed is an integer of at least 0 and below 2^64"
            raise InvalidInputError(msg)
        if self.offset and self.dither is not None:
            msg = f"`offset` is {self.offset} and `dither` {self.dither}; dither moves the cells already"
            raise InvalidInputError(msg)

    @property
    def second_moment(self) -> float:
        """Squared error of a cell of side 1."""
        return 1 / 12

    @property
    def group(self) -> int | None:
        """All columns share the step; only dither differs from column to column."""
        return None if self.dither is None else 1

    def __call__(self, entries: Entries) -> UniformQuantizer:
        """The quantizer; it depends on the data only through dtype and device."""
        targets = entries.values
        step = step_like(self.step, targets)
        low, high = (None, None) if self.levels is None else centered(self.levels)
        if self.dither is None:
            return UniformQuantizer(step, -self.offset, low, high)
        zero = from_host(dither_offsets(self.dither, targets.shape[0], entries.columns), like=targets)
        return UniformQuantizer(
            step, array_namespace(targets).astype(zero, targets.dtype), low, high, dither=self.dither
        )
