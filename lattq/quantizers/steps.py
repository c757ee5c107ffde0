"""What quantizers with steps have in common: where steps come from, how they are stored, how they spread."""

import dataclasses
from collections.abc import Iterable
from typing import Any

import numpy as np
from jaxtyping import Float

from lattq._array import Array, array_namespace, from_host, to_host
from lattq.errors import DamagedFileError, InvalidInputError
from lattq.quantizers.base import BaseQuantizer

__all__ = [
    "SMALLEST_STEP",
    "OneStep",
    "alike",
    "cast",
    "check_step",
    "check_stored",
    "half",
    "one_number",
    "spread",
    "step_like",
    "stored_shape",
    "stored_step",
]

SMALLEST_STEP = float(np.finfo(np.float16).smallest_subnormal)


@dataclasses.dataclass(frozen=True, eq=False)
class OneStep(BaseQuantizer):
    """A quantizer with one step for all weights, stored as it is, and codes without bounds.

    >>> OneStep(np.ones((1, 1), dtype=np.float32)).concatenate([OneStep(np.ones((1, 1), dtype=np.float32))], 8)
    OneStep(step=array([[1.]]))
    """

    step: Float[Array, "1 1"]

    ordered = True

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
        msg = f"`{name}` is {values!r}; pass an array of shape (1, 1)"
        raise InvalidInputError(msg)
    return float(values[0, 0])


def half(name: str, values: Array, *, zero: bool = False) -> Array:
    """Values as float16 holds them, in their own dtype; the same array where nothing changes.

    Raises `InvalidInputError` for what float16 does not hold: infinity, and what it rounds to 0 but is not (or is).

    >>> half("step", np.array([[0.5, 0.3]]))
    array([[0.5       , 0.30004883]])
    """
    host = to_host(values).astype(np.float64)
    with np.errstate(over="ignore"):
        rounded = host.astype(np.float16).astype(np.float64)
    good = np.isfinite(rounded) & ((rounded > 0) | (zero & (host == 0)))
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
    """Raise `InvalidInputError` unless the step is positive and finite.

    >>> check_step(0.5)
    """
    if not 0 < step < np.inf:
        msg = f"`step` is {step}; the side of a cell is positive and finite"
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


def check_stored(name: str, steps: np.ndarray, rows: int, *, zero: bool = False) -> None:
    """Raise `DamagedFileError` unless the steps of a file are positive (or 0) and finite, for one row or all of them.

    >>> check_stored("scales", np.zeros((4, 1)), 4, zero=True)
    """
    if len(steps) not in (1, rows) or not (((steps > 0) | (zero & (steps == 0))) & np.isfinite(steps)).all():
        wrong = "negative" if zero else "not positive"
        msg = f"{name} of {len(steps)} rows for {rows}, or {wrong} or infinite; the file is damaged"
        raise DamagedFileError(msg)


def stored_shape(rows: Any, group: Any, shape: tuple[int, int]) -> tuple[int, int]:
    """Shape of the steps of a file: one row or all, and one for each `group` of columns.

    Raises `DamagedFileError` for other numbers of rows, and for groups of no columns.

    >>> stored_shape(4, 3, (4, 8))
    (4, 3)
    """
    numbers = isinstance(rows, int) and isinstance(group, int)
    if not (numbers and rows in (1, shape[0]) and 1 <= group < 1 << 64):
        msg = f"steps for {rows} of {shape[0]} rows, in groups of {group} columns; the file is damaged"
        raise DamagedFileError(msg)
    return rows, -(-shape[1] // group)


def stored_step(step: Any) -> np.ndarray:
    """The only step of a file, shape (1, 1); raises `DamagedFileError` unless it is a positive and finite float.

    >>> stored_step(0.5)
    array([[0.5]])
    """
    if not (isinstance(step, float) and 0 < step < np.inf):
        msg = f"a step of {step}, not positive and finite; the file is damaged"
        raise DamagedFileError(msg)
    return np.full((1, 1), step)


def spread(values: Array, group: int, like: Array) -> Array:
    """`values`, one for each `group` of columns, with one column per column of `like`, or one for all.

    >>> spread(np.array([[1.0, 2.0]]), 2, np.zeros((5, 3)))
    array([[1., 1., 2.]])
    """
    if values.shape[1] in (1, like.shape[1]):
        return values
    return array_namespace(values).repeat(values, group, axis=1)[:, : like.shape[1]]
