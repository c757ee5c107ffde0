"""What quantizers with steps have in common: where steps come from, how they are stored, how they spread."""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Float

from lattq._array import Array, array_namespace, from_host, short_repr, to_host
from lattq.coding.schema import SCALE, Choice, Either, Integer, Octets
from lattq.errors import DamagedFileError, InvalidInputError

__all__ = [
    "GROUP",
    "HALVES",
    "HEIGHT",
    "SMALLEST_STEP",
    "OneStep",
    "check_step",
    "groups_of",
    "spread",
    "step_like",
    "stored_halves",
]

SMALLEST_STEP = float(np.finfo(np.float16).smallest_subnormal)
HEIGHT = Either(Choice(1), Integer(lambda at: at.rows, lambda at: at.rows))
"""Rows of the scales in a file: one, or all."""
GROUP = Integer(1, (1 << 63) - 1)
"""Columns that share a scale; more than there are is one group."""
HALVES = Octets(lambda at: 2 * at.height * groups_of(at))
"""Scales in float16, in a schema that has read `height` and `group`."""


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
