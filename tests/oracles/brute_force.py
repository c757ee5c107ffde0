"""The exact closest lattice point, by trying every integer vector of a box."""

import itertools

import numpy as np


def quadratic_error(error: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    """Cost ``e Σ eᵀ`` of each row e, shape (rows,)."""
    return np.einsum("ri,ij,rj->r", error, sigma, error)


def closest_point(row: np.ndarray, sigma: np.ndarray, step: np.ndarray | float = 1.0, radius: int = 4) -> np.ndarray:
    """Integer vector z that minimises ``(w - S z) Σ (w - S z)ᵀ`` over a box, with S = diag(step).

    Parameters
    ----------
    row : w, shape (n,) with n at most 4, so that the box of (2 radius + 1)ⁿ points stays small.
    sigma : positive semidefinite, shape (n, n).
    step : one step, or one for each coordinate.
    radius : the box reaches this many integers to either side of round(w / step).

    Examples
    --------
    Each weight alone rounds to 1; their errors would add up, so one of them goes down instead.

    >>> closest_point(np.array([0.6, 0.6]), np.array([[1.0, 0.9], [0.9, 1.0]]))
    array([0, 1])
    """
    n = len(row)
    assert n <= 4, f"a box in {n} dimensions is too large to search"
    step = np.broadcast_to(np.asarray(step, dtype=np.float64), (n,))
    center = np.round(row / step).astype(np.int64)
    box = np.array(list(itertools.product(range(-radius, radius + 1), repeat=n))) + center
    return box[np.argmin(quadratic_error(row - step * box, sigma))]
