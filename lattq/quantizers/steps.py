"""What quantizers with steps have in common: where steps come from, how they are stored, how they spread."""

import dataclasses
from collections.abc import Iterable
from typing import Any

import numpy as np
from jaxtyping import Float

from lattq._array import Array, array_namespace, from_host, short_repr, to_host
from lattq.coding.schema import SCALE, Choice, Either, Integer, Octets
from lattq.errors import CodeOverflowError, DamagedFileError, InvalidInputError, shown
from lattq.quantizers.base import BaseQuantizer

__all__ = [
    "GROUP",
    "GROWN",
    "HALVES",
    "HEIGHT",
    "SMALLEST_STEP",
    "OneStep",
    "alike",
    "cast",
    "centered",
    "check_step",
    "groups_of",
    "half",
    "one_number",
    "spread",
    "step_like",
    "stored_halves",
    "too_large",
]

GROWN = "raise `damping`, for fed-back errors have grown, or divide the weights by a constant outside of a loop"
SMALLEST_STEP = float(np.finfo(np.float16).smallest_subnormal)
HEIGHT = Either(Choice(1), Integer(lambda at: at.rows, lambda at: at.rows))
"""Rows of the scales in a file: one, or all."""
GROUP = Integer(1, (1 << 63) - 1)
"""Columns that share a scale; more than there are is one group."""
HALVES = Octets(lambda at: 2 * at.height * groups_of(at))
"""Scales in float16, in a schema that has read `height` and `group`."""


@short_repr
@dataclasses.dataclass(frozen=True, eq=False)
class OneStep(BaseQuantizer):
    """A quantizer with one step for all weights, stored as it is, and codes without bounds.

    >>> OneStep(np.ones((1, 1), dtype=np.float32)).concatenate([OneStep(np.ones((1, 1), dtype=np.float32))], 8)
    OneStep(step=array([[1.]]))
    """

    step: Float[Array, "1 1"]

    ordered = True

    @property
    def steps(self) -> Any:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The one step."""
        return self.step

    def with_steps(self, steps: np.ndarray) -> Any:
        """With another step."""
        return dataclasses.replace(self, step=steps).stored()

    def in_front(self, rows: np.ndarray, columns: np.ndarray, variance: np.ndarray) -> Any:
        """Itself: all rows and columns are alike."""
        return self

    def stored(self) -> Any:
        """Itself; raises `InvalidInputError` unless there is one step, positive and finite."""
        check_step(one_number("step", self.step))
        return self

    @classmethod
    def concatenate(cls, parts: list, group: int) -> Any:
        """One quantizer for the whole matrix, on the host in float64, if all groups have the same."""
        if not alike(parts, [field.name for field in dataclasses.fields(cls)]):
            return None
        return dataclasses.replace(parts[0], step=to_host(parts[0].step).astype(np.float64))


def alike(parts: list, names: Iterable[str]) -> bool:
    """Whether these attributes are the same in all parts.

    >>> steps = [OneStep(np.full((1, 1), step)) for step in (0.5, 0.25)]
    >>> alike(steps[:1], ["step"]), alike(steps, ["step"])
    (True, False)
    """

    def same(one: Any, other: Any) -> bool:
        if one is other or (one is None) or (other is None):
            return one is other
        if hasattr(one, "shape") and hasattr(other, "shape"):
            return np.array_equal(to_host(one), to_host(other))
        return bool(one == other)

    return all(same(getattr(part, name), getattr(parts[0], name)) for name in names for part in parts[1:])


def one_number(name: str, values: Any) -> float:
    """The only number of an array of shape (1, 1); raises `InvalidInputError` for another shape.

    >>> one_number("step", np.ones((1, 1)))
    1.0
    """
    if tuple(getattr(values, "shape", ())) != (1, 1):
        msg = f"`{name}` is {shown(values)}; pass an array of shape (1, 1)"
        raise InvalidInputError(msg)
    return float(values[0, 0])


def half(name: str, values: Array, *, zero: bool = False, signed: bool = False) -> Array:
    """Values as float16 holds them, in their own dtype; the same array where nothing changes.

    Raises `InvalidInputError` for what float16 does not hold: infinity, and what it rounds to 0 but is not (or is).

    >>> half("step", np.array([[0.5, 0.3]]))
    array([[0.5       , 0.30004883]])
    """
    host = to_host(values).astype(np.float64)
    with np.errstate(over="ignore"):
        rounded = host.astype(np.float16).astype(np.float64)
    good = np.isfinite(rounded) & ((rounded > 0) | (zero & (host == 0)) | (signed & (rounded < 0)))
    if not good.all():
        msg = f"`{name}` holds {host[~good][0]:.3g}, but is stored as float16, which holds {SMALLEST_STEP:.1g} to 65504"
        raise InvalidInputError(msg + "; multiply the weights by a constant, or take one for all weights")
    return values if np.array_equal(rounded, host) else cast(rounded, values)


def cast(host: np.ndarray, like: Array) -> Array:
    """A host array in the library, device and dtype of another.

    >>> cast(np.ones(1), np.ones(1, dtype=np.float32)).dtype
    dtype('float32')
    """
    return array_namespace(like).astype(from_host(host, like=like), like.dtype)


def check_step(step: float) -> None:
    """Raise `InvalidInputError` unless the step is positive, and its square a number of float64.

    >>> check_step(0.5)
    """
    if not SCALE.low <= step <= SCALE.high:
        msg = f"`step` is {step}; the side of a cell is positive and finite, {SCALE.low:.0e} to {SCALE.high:.0e}"
        raise InvalidInputError(msg)


def step_like(step: float, targets: Array) -> Array:
    """The step as an array of shape (1, 1) of the library, device and dtype of `targets`.

    Raises `InvalidInputError` for a step that the dtype does not hold with its full precision.

    >>> step_like(0.5, np.zeros(2, dtype=np.float32))
    array([[0.5]], dtype=float32)
    """
    xp = array_namespace(targets)
    limits = xp.finfo(targets.dtype)
    low, high = float(limits.smallest_normal), float(limits.max)
    if not low <= step <= high:
        msg = (
            f"`step` is {step:.3g}, but steps in {targets.dtype} go from {low:.3g} to {high:.3g}; "
            "multiply `sigma` or the weights by a constant, or pass the weights as float64"
        )
        raise InvalidInputError(msg)
    return xp.astype(from_host(np.full((1, 1), step), like=targets), targets.dtype)


def stored_halves(data: bytes, at: tuple[int, int], *, zero: bool = False, signed: bool = False) -> np.ndarray:
    """Scales of a file from float16; raises `DamagedFileError` unless they are positive (or 0, or negative) and finite.

    >>> stored_halves(np.array([0.5, 2.0], dtype="<f2").tobytes(), (1, 2))
    array([[0.5, 2. ]])
    """
    found = np.frombuffer(data, dtype="<f2").astype(np.float64).reshape(at)
    if not (((found > 0) | (zero & (found == 0)) | (signed & (found < 0))) & np.isfinite(found)).all():
        msg = f"scales that are {'negative' if zero else 'not positive'} or infinite; the file is damaged"
        raise DamagedFileError(msg)
    return found


def groups_of(at: Any) -> int:
    """How many groups of columns a file has, for schemas.

    >>> from types import SimpleNamespace
    >>> groups_of(SimpleNamespace(columns=8, group=3))
    3
    """
    return -(-at.columns // at.group)


def spread(values: Array, group: int, like: Array) -> Array:
    """`values`, one for each `group` of columns, with one column per column of `like`, or one for all.

    >>> spread(np.array([[1.0, 2.0]]), 2, np.zeros((5, 3)))
    array([[1., 1., 2.]])
    """
    if values.shape[1] in (1, like.shape[1]):
        return values
    return array_namespace(values).repeat(values, group, axis=1)[:, : like.shape[1]]


def too_large(largest: float) -> CodeOverflowError:
    """The error for a code that is not below 2^30.

    >>> str(too_large(2.0**31))
    'a code of size 2.15e+09 (value / step) is not below 2^30; use a larger step or clean the input'
    """
    msg = f"a code of size {largest:.3g} (value / step) is not below 2^30; use a larger step or clean the input"
    return CodeOverflowError(msg)


def centered(levels: int) -> tuple[int, int]:
    """Smallest and largest of this many codes around 0; an even number has one more below.

    >>> centered(4), centered(5)
    ((-2, 1), (-2, 2))
    """
    low = -(levels // 2)
    return low, low + levels - 1
