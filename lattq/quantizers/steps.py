"""What quantizers with steps have in common: where steps come from, how they are stored, how they spread."""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Float

from lattq._array import Array, array_namespace, from_host, short_repr, to_host
from lattq.errors import DamagedFileError, InvalidInputError

__all__ = [
    "SMALLEST_STEP",
    "OneStep",
    "check_step",
    "check_stored",
    "spread",
    "step_like",
    "stored_shape",
    "stored_step",
]

SMALLEST_STEP = float(np.finfo(np.float16).smallest_subnormal)


@short_repr
@dataclasses.dataclass(frozen=True, eq=False)
class OneStep:
    """A quantizer with one step for all weights, stored as it is, and codes without bounds.

    >>> OneStep(np.ones((1, 1), dtype=np.float32)).concatenate([OneStep(np.ones((1, 1), dtype=np.float32))], 8)
    OneStep(step=array([[1.]]))
    """

    step: Float[Array, "1 1"]

    def overload(self, x: Float[Array, "rows block"]) -> int:
        """0: the codes are not bounded."""
        return 0

    def underflow(self) -> int:
        """0: the step is stored as it is."""
        return 0

    @staticmethod
    def concatenate(parts: list, group: int) -> Any:
        """One quantizer for the whole matrix, on the host in float64: that of its only group."""
        return dataclasses.replace(parts[0], step=to_host(parts[0].step).astype(np.float64))


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
