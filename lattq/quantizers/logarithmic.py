"""Scales of four bits on a logarithmic grid, for short runs of columns."""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from lattq._array import short_repr
from lattq.coding.packing import pack, packed_size, unpack
from lattq.coding.schema import Integer, Octets, Record, checked
from lattq.errors import DamagedFileError, InvalidInputError
from lattq.parts.forms import RunScales

__all__ = ["LogScales"]

GRID = 16
MOST_LOG = 1000  # times entries in float16 that is within float64
STATE = Record(
    run=Integer(1, (1 << 31) - 1),
    codes=Octets(lambda at: packed_size(at.rows * _runs(at), GRID)),
    low=Octets(lambda at: 2 * _runs(at)),
    step=Octets(lambda at: 2 * _runs(at)),
)


@short_repr
@dataclasses.dataclass(frozen=True, eq=False)
class LogScales:
    """Scales 2^(low + step · code), a code of four bits for each row and run of columns.

    Attributes
    ----------
    codes : one for each row and run
    low, step : of each run, float16 numbers in float64
    run : columns that share a scale
    start : column of a group where the weights in question begin

    Examples
    --------
    >>> LogScales.fit(np.array([[1.0, -2.0], [8.0, 0.5]]), 2).values((2, 2)).round(2)
    array([[2., 2.],
           [8., 8.]])
    """

    codes: Int[np.ndarray, "rows runs"]
    low: Float[np.ndarray, " runs"]
    step: Float[np.ndarray, " runs"]
    run: int
    start: int = 0

    @staticmethod
    def fit(targets: Float[np.ndarray, "rows columns"], run: int) -> "LogScales":
        """Scales from the largest magnitudes; rows of zeros get the smallest."""
        columns = targets.shape[1]
        edges = np.arange(0, columns, run)
        largest = np.maximum.reduceat(np.abs(targets), edges, axis=1)
        live = largest > 0
        logs = np.log2(np.where(live, largest, 1.0))
        low = np.where(live, logs, np.inf).min(axis=0)
        low = np.where(np.isfinite(low), low, 0.0).astype(np.float16).astype(np.float64)
        logs = np.where(live, logs, low)
        step = ((logs.max(axis=0) - low) / (GRID - 1)).clip(0.0).astype(np.float16).astype(np.float64)
        codes = np.rint((logs - low) / np.where(step > 0, step, 1.0)).clip(0, GRID - 1)
        return LogScales(np.where(step > 0, codes, 0).astype(np.int64), low, step, run)

    def values(self, shape: tuple[int, int]) -> Float[np.ndarray, "rows columns"]:
        """Scale of each weight of a matrix of this shape."""
        runs = (self.start + np.arange(shape[1])) // self.run
        return np.exp2(self.low + self.step * self.codes)[:, runs]

    def stored(self) -> "LogScales":
        """`low` and `step` in float16; raises `InvalidInputError` for what is beyond it."""
        low, step = (x.astype(np.float16).astype(np.float64) for x in (self.low, self.step))
        if not ((np.abs(low) < 1000) & (step >= 0) & (step < 100)).all():
            msg = f"scales 2^({low.min():.3g} + {step.max():.3g} code) and the like are beyond float16"
            raise InvalidInputError(msg + "; multiply the weights by a constant first")
        if np.array_equal(low, self.low) and np.array_equal(step, self.step):
            return self
        return dataclasses.replace(self, low=low, step=step)

    def form(self) -> RunScales:
        """The scales as plain arrays."""
        return RunScales(self.codes, np.exp2(self.low[:, None] + self.step[:, None] * np.arange(GRID)), self.run)

    def part(self, start: int) -> "LogScales":
        """The scales of weights that begin at this column of the group."""
        return dataclasses.replace(self, start=start)

    def to_state(self) -> list:
        """Codes of four bits, then low and step as float16."""
        return [
            self.run,
            pack(self.codes.reshape(-1), GRID),
            self.low.astype("<f2").tobytes(),
            self.step.astype("<f2").tobytes(),
        ]

    @staticmethod
    def from_state(state: list, shape: tuple[int, int]) -> "LogScales":
        """Inverse of `to_state` for a matrix of this shape."""
        run, codes, low, step = checked(STATE, state, "scales", rows=shape[0], columns=shape[1])
        runs = -(-shape[1] // run)
        low, step = (np.frombuffer(part, dtype="<f2").astype(np.float64) for part in (low, step))
        last = low + (GRID - 1) * step
        if not ((np.abs(low) <= MOST_LOG) & (step >= 0) & (last <= MOST_LOG)).all():
            msg = f"scales of a step below 0, or beyond 2^{MOST_LOG}; the file is damaged"
            raise DamagedFileError(msg)
        return LogScales(unpack(codes, GRID, shape[0] * runs).reshape(shape[0], runs), low, step, run)

    @staticmethod
    def concatenate(parts: "list[LogScales]") -> "LogScales":
        """Scales of groups side by side."""
        codes = np.concatenate([part.codes for part in parts], axis=1)
        low, step = (np.concatenate([getattr(part, name) for part in parts]) for name in ("low", "step"))
        return LogScales(codes, low, step, parts[0].run)


def _runs(at: Any) -> int:
    """Runs of columns, in a schema."""
    return -(-at.columns // at.run)


def check_run(run: int | None, dimension: int, group: int | None) -> None:
    """Raise `InvalidInputError` unless runs of columns hold whole vectors and divide the group.

    >>> check_run(8, 2, 256)
    """
    if run is not None and (run < 1 or run % dimension or (group is not None and group % run)):
        msg = f"`scale` is {run}; scales of whole vectors of {dimension} must divide the group of {group} columns"
        raise InvalidInputError(msg)
