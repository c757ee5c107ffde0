"""A few columns that a quantizer codes in one go, each error fed into the columns before it."""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float, Int

__all__ = ["Strip"]


@dataclasses.dataclass(frozen=True, eq=False)
class Strip:
    """Columns of the loop, in its order, a line to each; they are coded from the last to the first.

    Parameters
    ----------
    target : with the feedback of all columns after the strip; that inside it is added
    weight : W
    unit : above the diagonal, what errors in one column (of the strip) add to the target of another
    idle : whose errors cost nothing: they get the codes of 0
    codes, error : written; an error is W less the reconstruction

    Examples
    --------
    >>> target, weight, error = np.zeros((3, 2, 3))
    >>> Strip(target, weight, np.eye(2), np.zeros(2, dtype=bool), np.zeros((2, 3), dtype=np.int32), error).rows
    3
    """

    target: Float[np.ndarray, "columns rows"]
    weight: Float[np.ndarray, "columns rows"]
    unit: Float[np.ndarray, "columns columns"]
    idle: Bool[np.ndarray, " columns"]
    codes: Int[np.ndarray, "columns rows"]
    error: Float[np.ndarray, "columns rows"]

    @property
    def rows(self) -> int:
        """Numbers in a column."""
        return self.target.shape[1]
