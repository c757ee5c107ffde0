"""GPTQ as the paper writes it: Frantar, Ashkboos, Hoefler and Alistarh 2023, Algorithm 1, in float64.

The paper quantizes the columns from first to last with the upper Cholesky factor of the inverse Hessian. lattq's
natural order goes from last to first, so the two agree on reversed columns.
"""

from collections.abc import Callable

import numpy as np

Rounding = Callable[[np.ndarray], np.ndarray]
"""From one column of targets, shape (rows,), to its reconstruction."""
Design = Callable[[np.ndarray], Rounding]
"""From the current targets of a group of columns, shape (rows, group), to the rounding that the group uses."""


def textbook_gptq(weight: np.ndarray, hessian: np.ndarray, design: Design, group: int | None = None) -> np.ndarray:
    """Return the reconstruction, shape (rows, columns).

    Parameters
    ----------
    weight : the matrix to quantize, shape (rows, columns).
    hessian : positive definite, shape (columns, columns); the scale does not matter.
    design : called at the first column of each group with the already updated targets of the whole group.
    group : columns per group; None is all columns in one group.

    Examples
    --------
    A diagonal Hessian feeds nothing back, so this is plain rounding.

    >>> textbook_gptq(np.array([[0.6, 1.2]]), np.diag([1.0, 4.0]), lambda targets: np.round)
    array([[1., 1.]])
    """
    targets = np.array(weight, dtype=np.float64)
    columns = targets.shape[1]
    size = columns if group is None else group
    upper = np.linalg.cholesky(np.linalg.inv(hessian)).T  # H⁻¹ = upperᵀ upper
    reconstruction = np.zeros_like(targets)
    rounding: Rounding = np.round
    for i in range(columns):
        if i % size == 0:
            rounding = design(targets[:, i : i + size].copy())
        reconstruction[:, i] = rounding(targets[:, i].copy())
        error = (targets[:, i] - reconstruction[:, i]) / upper[i, i]
        targets[:, i:] -= np.outer(error, upper[i, i:])
    return reconstruction
