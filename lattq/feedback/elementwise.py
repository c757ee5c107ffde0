"""The block feedback of GPTVQ as published, which divides errors of a vector by a diagonal instead of a triangle."""

import dataclasses

import numpy as np
from scipy.linalg import solve_triangular

from lattq._array import Array
from lattq.errors import InvalidInputError
from lattq.feedback.rules import Cholesky, check_options
from lattq.linalg.checks import check_block
from lattq.linalg.ldl import LDL

__all__ = ["ElementwiseCholesky"]


@dataclasses.dataclass(frozen=True)
class ElementwiseCholesky:
    """Feedback of GPTVQ as published: exact for single columns, not for vectors along the rows.

    With Σ⁻¹ = UᵀU and U upper triangular, the error e of a block B of columns enters the columns after it as
    e diag(U_BB)⁻¹ U, where e U_BB⁻¹ U would cancel it (theory 9.3). It is a baseline: `Cholesky("reversed", damping,
    block)` is the exact rule at the same cost.

    Parameters
    ----------
    block : columns of a vector
    damping : this fraction of the mean diagonal is added to the diagonal

    References
    ----------
    van Baalen et al. 2024 (GPTVQ), algorithm 1, and its code.

    Examples
    --------
    >>> sigma = np.array([[2.0, 1.0, 0.5], [1.0, 2.0, 1.0], [0.5, 1.0, 2.0]])
    >>> exact, published = Cholesky("reversed"), ElementwiseCholesky(block=1, damping=0.0)
    >>> bool(np.allclose(*(rule.factor(np.ones((1, 3)), sigma).unit for rule in (exact, published))))
    True
    """

    block: int = 1
    damping: float = 0.01

    def __post_init__(self) -> None:
        check_options(self, "damping")

    def factor(self, weight: Array, sigma: np.ndarray) -> LDL:
        """The unit factor of that recursion; as pivots the diagonal 1 / U_jj that its code weighs errors with."""
        dead = np.flatnonzero(np.diag(sigma) == 0.0)
        sigma = sigma.copy()
        sigma[dead, dead] = np.diag(sigma).max() or 1.0  # published is 1, which depends on the unit of the inputs
        exact = Cholesky("reversed", self.damping).factor(weight, sigma)
        n, block = len(exact.order), self.block
        if not (exact.pivots > 0).all():
            msg = "`sigma` is singular, and the published recursion divides by its pivots; pass more `damping`"
            raise InvalidInputError(msg)
        check_block(block, n)
        # Σ = V P Vᵀ with V unit upper triangular, so U = P^-½ V⁻¹ and diag(U)⁻¹ U = V⁻¹.
        later = solve_triangular(exact.unit[::-1, ::-1], np.eye(n), lower=False, unit_diagonal=True)
        index = np.arange(n) // block
        later[index[:, None] >= index] = 0.0
        recursion = solve_triangular(np.eye(n) + later, np.eye(n), lower=False, unit_diagonal=True)
        root = np.sqrt(exact.pivots[::-1])
        order = np.arange(n).reshape(-1, block)[::-1].reshape(-1)
        tiles = root.reshape(-1, block)[::-1]
        pivots = tiles.reshape(-1) if block == 1 else tiles[:, :, None] * np.eye(block)
        return LDL(recursion[np.ix_(order, order)], pivots, order)
