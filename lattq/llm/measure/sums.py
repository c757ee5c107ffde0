"""Second moments of one stream of vectors as sums that merge exactly."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.linalg.blas import dsyrk

from lattq.llm.measure.exact import Exact, ExactSum

__all__ = ["INPUTS", "OUTPUTS", "Kind", "MomentSums", "Moments", "height_of", "unpacked"]


class Kind(NamedTuple):
    """What a stream is, and the exponents of the units of its sums.

    Attributes
    ----------
    name : in a file
    outer : of products of two entries
    powers : of fourth powers
    counts : of numbers of vectors
    """

    name: str
    outer: int
    powers: int
    counts: int = -40

    def exponent(self, part: str) -> int:
        """Of a part of the sums."""
        return {"outer": self.outer, "powers": self.powers, "counts": self.counts}[part]


INPUTS = Kind("inputs", outer=-64, powers=-40)
OUTPUTS = Kind("outputs", outer=-80, powers=-60)
PARTS = ("outer", "powers", "counts")


def height_of(rows: int, most: int) -> int:
    """The largest divisor of a number of outputs that is at most so many: the outputs of a block.

    >>> height_of(11008, 512), height_of(384, 512), height_of(7, 2)
    (344, 384, 1)
    """
    return next(height for height in range(min(rows, most), 0, -1) if rows % height == 0)


class MomentSums:
    """Sums of w x xᵀ in blocks down the diagonal, of w x⁴, and of 1, w and w², over vectors x of weights w.

    Parameters
    ----------
    kind : of the stream
    groups, height : how many blocks, and their size

    Examples
    --------
    >>> sums = MomentSums(INPUTS, 1, 2)
    >>> sums.add(np.array([[1.0, 2.0], [3.0, 0.0]]))
    >>> Moments.of(sums.parts(), 1).matrix
    array([[[5., 1.],
            [1., 2.]]])
    """

    def __init__(self, kind: Kind, groups: int, height: int, allocate: Callable[..., Any] = np.zeros) -> None:
        self.kind, self.groups, self.height = kind, groups, height
        shapes = {"outer": (groups, height * (height + 1) // 2), "powers": (groups * height,), "counts": (3,)}
        self.sums = {part: ExactSum(shapes[part], kind.exponent(part), allocate) for part in PARTS}

    def add(self, x: Float[np.ndarray, "tokens _"], weights: Float[np.ndarray, " tokens"] | None = None) -> None:
        """Add vectors, each of weight 1 unless given."""
        x = np.ascontiguousarray(x, dtype=np.float64)
        w = np.ones(len(x)) if weights is None else np.asarray(weights, dtype=np.float64)
        scaled = x if weights is None else x * np.sqrt(w)[:, None]
        for group in range(self.groups):
            block = np.ascontiguousarray(scaled[:, group * self.height : (group + 1) * self.height])
            self.sums["outer"].add_triangle(group, dsyrk(1.0, block.T, lower=0).T)
        self.sums["powers"].add(np.einsum("ti,ti->i", scaled**2, x**2))
        self.sums["counts"].add(np.array([float(len(x)), w.sum(), np.square(w).sum()]))

    def parts(self) -> dict[str, Exact]:
        """The sums by their names."""
        return {part: one.exact() for part, one in self.sums.items()}


class Moments(NamedTuple):
    """Means of one stream.

    Attributes
    ----------
    matrix : sum of w x xᵀ over the number of vectors, in blocks down the diagonal
    powers : mean of x⁴ by the weights
    tokens : number of vectors
    count : number of vectors of equal weight that tell as much, (Σ w)² / Σ w²
    """

    matrix: Float[np.ndarray, "groups height height"]
    powers: Float[np.ndarray, " n"]
    tokens: float
    count: float

    @staticmethod
    def of(parts: Mapping[str, Exact], groups: int) -> "Moments":
        """Means from sums."""
        tokens, weight, squares = (float(one) for one in parts["counts"].sum)
        powers = np.asarray(parts["powers"].sum)
        matrix = unpacked(np.asarray(parts["outer"].sum), len(powers) // groups) / tokens
        return Moments(matrix, powers / weight if weight > 0 else powers, tokens, weight**2 / squares if squares else 0)


def unpacked(lower: Float[np.ndarray, "groups entries"], height: int) -> Float[np.ndarray, "groups height height"]:
    """Symmetric matrices from their lower triangles."""
    rows, columns = np.tril_indices(height)
    found = np.empty((len(lower), height, height))
    found[:, rows, columns] = lower
    found[:, columns, rows] = lower
    return found
