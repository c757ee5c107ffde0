"""What happens at one front: its quantizer is told whose entries they are, and encodes them."""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from lattq.coding.fronts import Fronts
from lattq.errors import InvalidInputError
from lattq.linalg.ldl import LDL
from lattq.linalg.stacked import StackedLDL
from lattq.linalg.substitution import triangle_times

__all__ = ["FrontStep", "Sides", "require_fronts"]

PART = 64  # columns whose squares fit a cache


@dataclasses.dataclass(eq=False)
class FrontStep:
    """Codes and reconstructions for the targets of a front, rows ascending.

    Parameters
    ----------
    quantizer : of this group of columns
    weight : transposed, columns in the order of the loop
    free_rows, free_units : whose errors cost nothing; a unit is a block of columns
    kept : which entries count, like `weight`; None for all

    Attributes
    ----------
    overload : targets outside the range of the quantizer so far
    """

    quantizer: Any
    fronts: Fronts
    weight: Float[np.ndarray, "columns rows"]
    free_rows: Bool[np.ndarray, " rows"]
    free_units: Bool[np.ndarray, " units"]
    kept: Bool[np.ndarray, "columns rows"] | None = None
    overload: int = 0

    def __post_init__(self) -> None:
        self.rows, columns = _mean_squares(self.weight)
        self.units = columns.reshape(self.fronts.columns, -1).mean(axis=1) / (columns.mean() or 1.0)
        self.free = bool(self.quantizer.idle_zeros and (self.free_rows.any() or self.free_units.any()))

    def __call__(self, front: int, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The codes, and what they decode to: 0 where entries do not count, the code of 0 where errors are free."""
        rows, units = self.fronts.entries(front)
        current = self.quantizer.in_front(rows, units, self.rows[rows] * self.units[units])
        counted = None if self.kept is None else self._counted(self.kept, rows, units)
        target = target if counted is None else target * counted
        if self.free:
            target[self.free_rows[rows] | self.free_units[units]] = 0.0
        codes = current.encode(target)
        self.overload += current.overload(target)
        found = current.decode(codes).astype(target.dtype, copy=False)
        return codes, found if counted is None else found * counted

    def _counted(self, kept: np.ndarray, rows: np.ndarray, units: np.ndarray) -> np.ndarray:
        blocks = kept.reshape(self.fronts.columns, -1, kept.shape[1])
        return blocks[units, :, rows].astype(self.weight.dtype)


def _mean_squares(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each row and of each column of the weights, which come transposed."""
    rows, columns = np.zeros(weight.shape[1]), np.empty(len(weight))
    for start in range(0, len(weight), PART):
        part = slice(start, start + PART)
        squares = np.square(weight[part], dtype=np.float64)
        rows += squares.sum(axis=0)
        columns[part] = squares.mean(axis=1)
    return rows / len(weight), columns


@dataclasses.dataclass(eq=False)
class Sides:
    """Both factors of a metric in which rows hear each other, for errors with a line to a column, in loop order.

    Parameters
    ----------
    factor, outputs : of the inputs and of the outputs
    unit : Uᵀ in the dtype of the loop
    pull : what a penalty takes from the targets
    """

    factor: LDL
    outputs: StackedLDL
    unit: Float[np.ndarray, "columns columns"]
    pull: Any

    def __post_init__(self) -> None:
        self.rows_unit = self.outputs.unit.astype(self.unit.dtype)

    def left(self, x: Float[np.ndarray, "columns rows"]) -> Float[np.ndarray, "columns rows"]:
        """x V, block by block of the rows."""
        found = np.empty_like(x)
        blocks, into = (y.reshape(len(x), -1, self.outputs.height).swapaxes(0, 1) for y in (x, found))
        np.matmul(blocks, self.rows_unit, out=into)
        return found

    def summed(self, error: Float[np.ndarray, "columns rows"]) -> Float[np.ndarray, "columns rows"]:
        """P, transposed, less what a penalty takes."""
        return triangle_times(self.unit, error, lower=False) - self.pull

    def cost(self, summed: Float[np.ndarray, "columns rows"]) -> float:
        """tr(G (W-Ŵ) H (W-Ŵ)ᵀ), less what does not depend on Ŵ if H holds a penalty."""
        blocks, total = len(self.factor.pivots), 0.0
        noise = self.left(summed).reshape(blocks, -1, summed.shape[1])
        tiles = self.factor.pivots.reshape(blocks, noise.shape[1], noise.shape[1])
        power = self.outputs.pivots.reshape(-1)
        for start in range(0, blocks, PART):
            part = noise[start : start + PART].astype(np.float64)
            total += float(np.einsum("uar,uar,r->", np.matmul(tiles[start : start + PART], part), part, power))
        return total


def require_fronts(weight: Any, design: Any, height: int) -> None:
    """Raise `InvalidInputError` for what the loop cannot do where rows hear each other.

    >>> from lattq.quantizers import Uniform
    >>> require_fronts(np.ones((4, 2)), Uniform(0.1), 2)
    """
    if not isinstance(weight, np.ndarray):
        msg = f"`weight` is a {type(weight).__name__}; where rows hear each other the loop runs on the host: pass NumPy"
        raise InvalidInputError(msg)
    if weight.shape[0] % height:
        msg = f"the factor of G has blocks of {height} rows, which do not divide the {weight.shape[0]} of `weight`"
        raise InvalidInputError(msg)
    if design.shrink:
        msg = (
            "`shrink` is True, but gains of columns are not known while fronts cross them; pass shrink=False, and "
            "refit gains afterwards, or give `outputs` as a diagonal"
        )
        raise InvalidInputError(msg)
