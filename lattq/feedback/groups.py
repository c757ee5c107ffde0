"""Which columns share a quantizer, in the order of the loop."""

import bisect

import numpy as np

from lattq.errors import InvalidInputError

__all__ = ["Groups", "group_bounds"]


def group_bounds(order: np.ndarray, group: int | None, block: int) -> dict[int, int]:
    """Start and end, in loop order, of each group of `group` adjacent columns.

    Raises `InvalidInputError` if blocks do not divide the groups, or the order tears one apart.

    >>> group_bounds(np.array([2, 3, 0, 1]), 2, 1)
    {0: 2, 2: 4}
    """
    n = len(order)
    width = n if group is None else group
    if width % block:
        msg = f"the design's group of {width} columns is not a multiple of the block of {block}"
        raise InvalidInputError(msg)
    label = order // width
    starts = np.flatnonzero(np.diff(label, prepend=-1))
    if len(starts) != -(-n // width):
        msg = (
            f"groups of {width} columns are torn apart by the order of the feedback; "
            "use order='natural' or 'reversed', a group of 1 or None, or permute the columns with a transform first"
        )
        raise InvalidInputError(msg)
    return dict(zip(starts.tolist(), [*starts[1:].tolist(), n], strict=True))


class Groups:
    """Groups of columns that share a quantizer, made of blocks of columns that are quantized together.

    Parameters
    ----------
    order, group, block : as for `group_bounds`

    Attributes
    ----------
    ends : of each group, by its start, in the order of the loop
    block_starts : the least column of each block

    Examples
    --------
    >>> groups = Groups(np.array([2, 3, 0, 1]), 2, 1)
    >>> groups.middle(0, 4), groups.middle(0, 2), groups.first_column(0), groups.block_starts
    (2, 1, 2, [2, 3, 0, 1])
    """

    def __init__(self, order: np.ndarray, group: int | None, block: int) -> None:
        self.order, self.block = order, block
        self.ends = group_bounds(order, group, block)
        self.starts = sorted(self.ends)
        self.block_starts = order.reshape(-1, block).min(axis=1).tolist()

    def middle(self, lo: int, hi: int) -> int:
        """A boundary of groups near the middle, or of blocks inside one group."""
        inside = self.starts[bisect.bisect_left(self.starts, lo + 1) : bisect.bisect_left(self.starts, hi)]
        if inside:
            return min(inside, key=lambda start: abs(2 * start - lo - hi))
        return lo + (hi - lo) // self.block // 2 * self.block

    def share(self, lo: int, hi: int) -> bool:
        """Whether columns lo ... hi - 1 are of one group.

        >>> Groups(np.arange(4), 2, 1).share(0, 2), Groups(np.arange(4), 2, 1).share(1, 3)
        (True, False)
        """
        return bisect.bisect_left(self.starts, lo + 1) == bisect.bisect_left(self.starts, hi)

    def first_column(self, lo: int) -> int:
        """The least column of the group that starts here."""
        return int(self.order[lo : self.ends[lo]].min())
