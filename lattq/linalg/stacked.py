"""LDL factors of the blocks down the diagonal of a matrix."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from lattq._array import short_repr
from lattq.linalg.ldl import unchecked_ldl

__all__ = ["StackedLDL"]


@short_repr
@dataclass(frozen=True, eq=False)
class StackedLDL:
    """``G[k] == unit[k] @ diag(pivots[k]) @ unit[k].T`` for each block, in float64 on the host.

    Attributes
    ----------
    unit : unit lower triangular
    pivots : one for each row of a block

    Examples
    --------
    >>> StackedLDL.of(np.array([[[4.0, 2.0], [2.0, 3.0]]])).pivots
    array([[4., 2.]])
    """

    unit: Float[np.ndarray, "groups height height"]
    pivots: Float[np.ndarray, "groups height"]

    @staticmethod
    def of(blocks: Float[np.ndarray, "groups height height"]) -> "StackedLDL":
        """The factors, rows in their own order, of blocks that are semidefinite."""
        found = [unchecked_ldl(block, "natural", 1) for block in blocks]
        return StackedLDL(np.stack([one.unit for one in found]), np.stack([one.pivots for one in found]))

    @property
    def height(self) -> int:
        """Rows of a block."""
        return self.pivots.shape[1]

    def rescaled(self, scale: Float[np.ndarray, " rows"]) -> "StackedLDL":
        """The factors of ``scale[:, None] * G * scale``.

        >>> StackedLDL.of(np.array([[[4.0, 2.0], [2.0, 3.0]]])).rescaled(np.array([0.5, 1.0])).pivots
        array([[1., 2.]])
        """
        s = scale.reshape(self.pivots.shape)
        return StackedLDL(self.unit / s[:, None, :] * s[:, :, None], self.pivots * s**2)
