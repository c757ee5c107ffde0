"""Projections onto dominant matrices as what they are: the point of a polyhedron nearest to another.

Every facet is written down, so only small sizes are possible. The least distance problem min ‖z‖ under G z ≥ h is
solved by nonnegative least squares (Lawson and Hanson, "Solving Least Squares Problems", 1974, chapter 23).
"""

import itertools

import numpy as np
from scipy.optimize import nnls


def least_distance(facets: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """The shortest z with facets @ z >= levels.

    >>> least_distance(np.array([[1.0, 1.0]]), np.array([2.0]))
    array([1., 1.])
    """
    unit = np.zeros(facets.shape[1] + 1)
    unit[-1] = 1.0
    multipliers, _ = nnls(np.vstack([facets.T, levels]), unit, maxiter=100 * len(facets))
    rest = np.vstack([facets.T, levels]) @ multipliers - unit
    return -rest[:-1] / rest[-1]


def facets_of(n: int, ratio: float, sides: str) -> np.ndarray:
    """Rows g with g · matrix >= 0: ratio · diagonal − Σ ± off-diagonals, for all signs.

    >>> facets_of(2, 0.5, "rows").shape
    (4, 4)
    """
    found = []
    for i in range(n):
        for signs in itertools.product((1, -1), repeat=n - 1):
            row = np.insert(-np.array(signs, dtype=float), i, ratio)
            for side in ("rows", "columns"):
                if sides in (side, "both"):
                    facet = np.zeros((n, n))
                    facet[(i, slice(None)) if side == "rows" else (slice(None), i)] = row
                    found.append(facet.ravel())
    return np.array(found)


def nearest_dominant(
    matrix: np.ndarray, ratio: float, sides: str, *, keep_diagonal: bool = False, floor: float = 0.0
) -> np.ndarray:
    """The nearest dominant matrix with a diagonal of the signs it has.

    >>> nearest_dominant(np.array([[1.0, 1.0], [0.0, 2.0]]), 0.5, "rows").round(12)
    array([[1.2, 0.6],
           [0. , 2. ]])
    """
    n = len(matrix)
    signs = np.where(np.diag(matrix) < 0, -1.0, 1.0)[:, None]
    start = (matrix * signs).ravel()
    facets = facets_of(n, ratio, sides)
    levels = np.zeros(len(facets))
    eye = np.eye(n * n)[:: n + 1]  # picks the diagonal
    if floor:
        facets, levels = np.vstack([facets, eye]), np.append(levels, np.full(n, floor))
    if keep_diagonal:
        free = ~np.eye(n, dtype=bool).ravel()
        levels = levels - facets[:, ~free] @ start[~free]
        found = start.copy()
        found[free] += least_distance(facets[:, free], levels - facets[:, free] @ start[free])
    else:
        found = start + least_distance(facets, levels - facets @ start)
    return found.reshape(n, n) * signs
