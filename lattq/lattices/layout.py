"""Which rows of a column make up the points of a lattice."""

import dataclasses
import functools

import numpy as np

from lattq._array import short_repr

__all__ = ["Layout"]


@short_repr
@dataclasses.dataclass(frozen=True, eq=False)
class Layout:
    """Which rows make up points: n after n in the order of their classes, and fewer than n left over.

    >>> layout = Layout(np.array([5, 0, 5, 0, 0]), 2)
    >>> layout.order, layout.whole, layout.classes
    (array([1, 3, 4, 0, 2]), 4, array([0, 5, 5]))
    """

    rows: np.ndarray
    dimension: int

    @functools.cached_property
    def order(self) -> np.ndarray:
        """The rows, sorted."""
        return np.argsort(self.rows, kind="stable")

    @functools.cached_property
    def whole(self) -> int:
        """How many of them are in points."""
        return len(self.rows) // self.dimension * self.dimension

    @functools.cached_property
    def classes(self) -> np.ndarray:
        """One class for each point, that of its middle row, then those of the rows left over."""
        ordered = self.rows[self.order]
        return np.append(ordered[self.dimension // 2 : self.whole : self.dimension], ordered[self.whole :])

    @functools.cached_property
    def repeats(self) -> np.ndarray:
        """How many rows have each of `classes`."""
        points = self.whole // self.dimension
        return np.repeat([self.dimension, 1], [points, len(self.rows) - self.whole])
