"""Which columns share a quantizer, in the order of the loop."""

import numpy as np

from lattq.errors import InvalidInputError

__all__ = ["group_bounds"]


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
