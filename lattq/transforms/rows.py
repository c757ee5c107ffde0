"""Scales of rows: what makes errors of all outputs count alike, as `Diagonal` does for inputs."""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from lattq._array import Array, array_namespace, from_host, short_repr
from lattq.coding.schema import Inner, Integer, Record, checked
from lattq.errors import InvalidInputError
from lattq.parts import register
from lattq.transforms.base import BaseTransform, Divisors
from lattq.transforms.grid import MOST_GRID, grid_scale, read_grid, stored_grid

__all__ = ["RowScales"]

MOST_ROWS = 1 << 20


@register("transform", "rows")
@short_repr
@dataclasses.dataclass(frozen=True, eq=False)
class RowScales(BaseTransform):
    """Rows of the weight times 2^(k/16); inputs stay as they are, and errors of outputs count by so much less.

    Parameters
    ----------
    steps : k, one for each row; charged as entropy-coded integers

    Examples
    --------
    >>> RowScales(np.array([0, 16])).forward(np.ones((2, 1)))
    array([[1.],
           [2.]])
    """

    steps: Int[np.ndarray, " rows"]

    schema = Record(rows=Integer(1, MOST_ROWS), steps=Inner())

    def __post_init__(self) -> None:
        if np.abs(self.steps).max(initial=0) > MOST_GRID:
            msg = f"`steps` go from {self.steps.min()} to {self.steps.max()}; a scale is within 2^± {MOST_GRID // 16}"
            raise InvalidInputError(msg)

    @property
    def scale(self) -> np.ndarray:
        """What rows are multiplied by."""
        return grid_scale(self.steps)

    @property
    def divisors(self) -> Divisors:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The scale, of rows."""
        return Divisors(rows=self.scale)

    @property
    def row_factors(self) -> Float[np.ndarray, " rows"]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """What rows are divided by, inverted."""
        return 1 / self.scale

    def forward(self, weight: Array) -> Array:
        """Rows times scale."""
        return weight * self._column(weight)

    def inverse(self, weight: Array) -> Array:
        """Rows divided by scale."""
        return weight / self._column(weight)

    def congruence(self, sigma: np.ndarray) -> np.ndarray:
        """The second moment of the inputs, as it is."""
        return sigma

    def output_congruence(self, outputs: np.ndarray) -> np.ndarray:
        """Blocks divided by the scales of their rows, from both sides."""
        scale = self.scale.reshape(len(outputs), -1)
        return outputs / scale[:, :, None] / scale[:, None, :]

    def kept(self, shape: tuple[int, int], found: Any = None) -> Any:
        """As before: no entry is moved."""
        return found

    def operations(self, columns: int) -> int:
        """None on inputs: it acts on outputs, one multiplication for each, which kernels have as their own scales."""
        return 0

    def check_rows(self, rows: int) -> None:
        """Raise `InvalidInputError` for another number of rows."""
        if rows != len(self.steps):
            msg = f"{len(self.steps)} scales of rows do not fit a matrix of {rows} rows"
            raise InvalidInputError(msg)

    def to_state(self) -> list:
        """How many rows, and the steps."""
        return [len(self.steps), stored_grid(self.steps)]

    @staticmethod
    def from_state(state: list, size: int) -> "RowScales":
        """Inverse of `to_state`."""
        rows, steps = checked(RowScales.schema, state, "scales of rows")
        return RowScales(read_grid(steps, rows))

    def _column(self, like: Array) -> Array:
        self.check_rows(int(like.shape[0]))
        xp = array_namespace(like)
        return xp.astype(from_host(self.scale[:, None].copy(), like=like), like.dtype)
