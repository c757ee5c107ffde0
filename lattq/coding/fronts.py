"""Fronts of a matrix: sets of entries that do not hear each other when errors are fed back along rows and columns.

Rows lie in groups of `height`; only rows of a group hear each other. Entry (r, j) belongs to the front (r mod height) +
j: a column where the height is 1, else an anti-diagonal in each group. The last front is coded first (theory 15.3).
"""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Int

from lattq.coding.damage import reading
from lattq.coding.schema import Integer
from lattq.errors import DamagedFileError, InvalidInputError

__all__ = ["HEIGHT", "Fronts", "require_streams"]

HEIGHT = Integer(1, 1 << 20)
"""Rows of a group in a file."""


@dataclasses.dataclass(frozen=True)
class Fronts:
    """The fronts of a matrix, numbered from its upper left corner.

    Parameters
    ----------
    rows, columns : of the matrix
    height : rows of a group, a divisor of the rows

    Examples
    --------
    >>> fronts = Fronts(2, 3, height=2)
    >>> fronts.number, fronts.size(1), fronts.entries(1)
    (4, 2, (array([0, 1]), array([1, 0])))
    """

    rows: int
    columns: int
    height: int = 1

    def __post_init__(self) -> None:
        if self.height < 1 or self.rows % self.height:
            msg = f"`height` is {self.height}, which does not divide {self.rows} rows; groups have equal heights"
            raise InvalidInputError(msg)

    @staticmethod
    @reading("fronts")
    def in_file(shape: tuple[int, int], height: int) -> "Fronts":
        """Those of a matrix in a file; raises `DamagedFileError` for a height that does not divide its rows."""
        return Fronts(*shape, height)

    @property
    def number(self) -> int:
        """How many there are."""
        return self.height + self.columns - 1

    def span(self, front: int) -> tuple[int, int]:
        """First and last row of each group that has an entry in it."""
        return max(0, front - self.columns + 1), min(self.height - 1, front)

    def size(self, front: int) -> int:
        """Entries of a front."""
        low, high = self.span(front)
        return (high - low + 1) * (self.rows // self.height)

    def entries(self, front: int) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
        """Rows, ascending, and columns of the entries of a front."""
        low, high = self.span(front)
        inside, starts = np.arange(low, high + 1), np.arange(0, self.rows, self.height)[:, None]
        rows = starts + inside
        return rows.reshape(-1), np.broadcast_to(front - inside, rows.shape).reshape(-1)

    def places(self, first: int, last: int) -> Int[np.ndarray, " n"]:
        """Flat places, row by row, of all entries of the fronts first ... last - 1, one front after the other.

        >>> Fronts(2, 3, height=2).places(0, 2)
        array([0, 1, 3])
        """
        from lattq.kernels import fronts as kernels  # numba takes long to import, and few need it

        found = np.empty(sum(map(self.size, range(first, last))), dtype=np.int64)
        fill: Any = kernels.places
        fill(self.rows, self.columns, self.height, first, last, found)
        return found

    def runs(self, size: int) -> list[range]:
        """Fronts one after the other that hold `size` entries or little more: streams of their own.

        >>> Fronts(2, 3, height=2).runs(4)
        [range(0, 3), range(3, 4)]
        """
        found, first, held = [], 0, 0
        for front in range(self.number):
            held += self.size(front)
            if held >= size or front == self.number - 1:
                found.append(range(first, front + 1))
                first, held = front + 1, 0
        return found


def require_streams(streams: list, number: int) -> None:
    """Raise `DamagedFileError` unless there is a stream for each of so many runs of fronts.

    >>> require_streams([b""], 1)
    """
    if len(streams) != number:
        msg = f"{len(streams)} streams for {number} blocks of fronts; the file is damaged"
        raise DamagedFileError(msg)
