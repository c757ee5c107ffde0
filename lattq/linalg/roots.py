"""Square roots of semidefinite matrices, and the LDL factors in them.

A second moment may be singular (fewer samples than inputs, dead inputs). Eliminating such a matrix in a given order
amplifies rounding without bound, so the singular case goes through two stable steps: a pivoted Cholesky factor decides
whether the matrix is positive semidefinite and gives a square root, and a Householder reduction of that root brings it
to the wanted order. There pivots are squared norms, so none comes out negative by rounding.

References: Higham, "Accuracy and Stability of Numerical Algorithms", 2nd ed. 2002, sections 10.3 and 19.3.
"""

import numpy as np
from scipy.linalg import get_lapack_funcs, solve_triangular

from lattq.linalg.tolerances import column_scale, pivot_tolerance, relative_tolerance

__all__ = [
    "clear_above",
    "clear_cholesky",
    "first_negative_pivot",
    "householder_ldl",
    "is_clear",
    "pivoted_cholesky",
    "potrf",
    "semidefinite_root",
    "square_root",
    "without_rounding",
]

# Multiple of the pivot tolerance up to which the rest of a pivoted elimination counts as rounding: the entries of
# that rest carry the rounding of the input as well as that of the elimination.
_SLACK = 8.0
_PANEL = 48
# Elimination in a given order is trusted if all pivots exceed this multiple of the tolerance: without pivoting, a zero
# pivot may come out at hundreds of times the tolerance.
_CLEAR = 1e3

potrf, _pstrf = get_lapack_funcs(("potrf", "pstrf"), dtype=np.float64)


def is_clear(factor: np.ndarray, scale: np.ndarray) -> bool:
    """Tell whether a Cholesky factor has full rank and pivots far above rounding, for columns of that scale.

    >>> is_clear(np.eye(2), np.ones(2))
    True
    """
    n, rank = factor.shape
    return rank == n and float(np.min(np.diag(factor) / scale)) ** 2 > _CLEAR * relative_tolerance(n)


def clear_cholesky(matrix: np.ndarray, scale: np.ndarray) -> np.ndarray | None:
    """The Cholesky factor of a symmetric ``matrix / scale[:, None]`` if that is clear; overwrites the matrix.

    >>> clear_cholesky(np.array([[8.0]]), np.array([2.0]))
    array([[2.]])
    """
    matrix /= scale[:, None]
    factor, failed = potrf(matrix.T, lower=True, clean=True, overwrite_a=True)  # its own order: LAPACK's are columns
    return factor if not failed and is_clear(factor, np.ones(len(factor))) else None


def square_root(sigma: np.ndarray) -> np.ndarray | None:
    """Return F with ``F @ F.T`` equal to `sigma` up to rounding, or None if that has no root.

    >>> square_root(np.array([[4.0, 2.0], [2.0, 2.0]]))
    array([[2., 0.],
           [1., 1.]])
    """
    alive = np.any(sigma, axis=0)
    if not alive.all():  # without inputs: no part of the elimination
        inner = square_root(sigma[np.ix_(alive, alive)]) if alive.any() else np.zeros((0, 0))
        if inner is None:
            return None
        root = np.zeros((len(sigma), inner.shape[1]))
        root[alive] = inner
        return root
    scale = column_scale(sigma)
    factor = clear_cholesky(sigma / scale, scale)
    if factor is not None:
        factor *= scale[:, None]
        return factor
    for units in (scale, np.full_like(scale, np.max(scale))):
        root = semidefinite_root(sigma, units)
        if root is not None:
            return root
    return None


def without_rounding(sigma: np.ndarray, eps: float) -> tuple[np.ndarray, np.ndarray | None] | None:
    """Return `sigma` if it is semidefinite, else with the least diagonal that rounding in units of `eps` explains.

    And its root. None if that is not enough.

    >>> without_rounding(np.array([[1.0, 1.0 + 1e-7], [1.0 + 1e-7, 1.0]]), 2.0**-23)[0] - 1.0
    array([[2.38418579e-07, 1.00000000e-07],
           [1.00000000e-07, 2.38418579e-07]])
    """
    root = square_root(sigma)
    if root is not None:
        return sigma, root
    scale = column_scale(sigma)
    for units in (scale, np.full_like(scale, np.max(scale))):
        matrix, added = sigma / units / units[:, None], 2 * eps
        while eps > np.finfo(np.float64).eps and added <= 2 * _SLACK * relative_tolerance(len(sigma), eps):
            shifted = matrix.copy()
            shifted[np.diag_indices_from(shifted)] += added / 2
            if not potrf(shifted, lower=True)[1]:
                found = sigma.copy()
                found[np.diag_indices_from(found)] += added * units**2
                return found, square_root(found)
            added *= 2
    return None


def pivoted_cholesky(matrix: np.ndarray, tolerance: float) -> tuple[np.ndarray, np.ndarray]:
    """Eliminate the largest remaining variance until none exceeds `tolerance`.

    Returns the lower trapezoidal factor, rows in the order of elimination, and that order.

    >>> pivoted_cholesky(np.array([[1.0, 2.0], [2.0, 4.0]]), 1e-15)
    (array([[2.],
           [1.]]), array([1, 0]))
    """
    factor, order, rank, _ = _pstrf(matrix.T, tol=tolerance, lower=True)  # its own order: LAPACK's are columns
    clear_above(factor)
    return factor[:, :rank], order.astype(np.int64) - 1


def clear_above(factor: np.ndarray) -> None:
    """Zeros above the diagonal, in place: `np.tril` makes two more matrices.

    >>> factor = np.ones((2, 2))
    >>> clear_above(factor)
    >>> factor
    array([[1., 0.],
           [1., 1.]])
    """
    for start in range(0, len(factor), _PANEL):
        stop = start + _PANEL
        factor[:start, start:stop] = 0.0
        factor[start:stop, start:stop] = np.tril(factor[start:stop, start:stop])


def semidefinite_root(sigma: np.ndarray, scale: np.ndarray) -> np.ndarray | None:
    """Return F with as many columns as the rank and ``F @ F.T`` equal to `sigma`, or None if that has no root.

    Entry (i, j) is known up to rounding of ``scale[i] * scale[j]``.

    >>> semidefinite_root(np.array([[1.0, 2.0], [2.0, 4.0]]), np.ones(2))
    array([[1.],
           [2.]])
    """
    matrix = sigma / scale / scale[:, None]
    tolerance = relative_tolerance(len(sigma))
    factor, order = pivoted_cholesky(matrix, tolerance)
    if not _is_rounding(matrix, factor, order, tolerance):
        return None
    root = np.empty_like(factor)
    root[order] = factor
    return root * scale[:, None]


def _is_rounding(matrix: np.ndarray, factor: np.ndarray, order: np.ndarray, tolerance: float) -> bool:
    """Tell whether a pivoted Cholesky factor leaves nothing but rounding."""
    left = order[factor.shape[1] :]
    below = factor[factor.shape[1] :]
    rest = matrix[np.ix_(left, left)] - below @ below.T
    return float(np.max(np.abs(rest), initial=0.0)) <= _SLACK * tolerance


def first_negative_pivot(matrix: np.ndarray) -> tuple[int, float]:
    """Return the first column whose leading submatrix is not semidefinite, and its pivot.

    The matrix must not be semidefinite.

    >>> first_negative_pivot(np.array([[1.0, 2.0], [2.0, 1.0]]))
    (1, -3.0)
    """
    tolerance = pivot_tolerance(matrix)
    semidefinite, indefinite = 0, len(matrix)
    while indefinite - semidefinite > 1:
        middle = (semidefinite + indefinite) // 2
        leading = matrix[:middle, :middle]
        if _is_rounding(leading, *pivoted_cholesky(leading, tolerance), tolerance):
            semidefinite = middle
        else:
            indefinite = middle
    leading, column = matrix[:semidefinite, :semidefinite], matrix[semidefinite, :semidefinite]
    factor, columns = pivoted_cholesky(leading, tolerance)
    rank = factor.shape[1]
    known = solve_triangular(factor[:rank], column[columns[:rank]], lower=True) if rank else np.zeros(0)
    pivot = float(matrix[semidefinite, semidefinite] - known @ known)
    if pivot < -tolerance:
        return semidefinite, pivot
    # The column is correlated with a combination of earlier ones that has no variance: name the eigenvalue instead.
    return semidefinite, float(np.linalg.eigvalsh(matrix[:indefinite, :indefinite])[0])


def householder_ldl(root: np.ndarray, smallest: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return unit and pivots of ``root.T @ root`` in the order of its columns.

    Reflections bring `root` to row echelon form, a panel of columns at a time. A column keeps no row if the ones
    before it leave it no more than its entry of `smallest`.

    >>> householder_ldl(np.array([[1.0, 1.0, 2.0], [0.0, 0.0, 1.0]]), np.zeros(3))
    (array([[1., 0., 0.],
           [1., 1., 0.],
           [2., 0., 1.]]), array([1., 0., 1.]))
    """
    n = root.shape[1]
    rest = root.copy()
    unit, pivots = np.eye(n), np.zeros(n)
    done = 0
    for start in range(0, n, _PANEL):
        stop = min(start + _PANEL, n)
        reflectors, columns = _reduce_panel(rest[done:, start:stop], smallest[start:stop])
        _reflect(rest[done:, stop:], reflectors)
        for column in columns + start:
            head = rest[done, column]
            unit[column + 1 :, column] = rest[done, column + 1 :] / head
            pivots[column] = head * head  # rounded the same at every scale, which a scalar power is not
            done += 1
    return unit, pivots


def _reduce_panel(panel: np.ndarray, smallest: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bring `panel` to echelon form in place; return its unit reflection vectors and the columns that have a pivot."""
    reflectors, columns = [], []
    for column in range(panel.shape[1]):
        row = len(columns)
        tail = panel[row:, column]
        norm = np.linalg.norm(tail)
        if norm**2 <= smallest[column]:
            continue
        vector = np.zeros(len(panel))
        vector[row:] = tail
        vector[row] += np.copysign(norm, tail[0])  # the sign that avoids cancellation
        vector /= np.linalg.norm(vector)
        panel[:, column:] -= np.outer(2.0 * vector, vector @ panel[:, column:])
        reflectors.append(vector)
        columns.append(column)
    return np.array(reflectors).reshape(len(columns), len(panel)).T, np.array(columns, dtype=np.int64)


def _reflect(rest: np.ndarray, vectors: np.ndarray) -> None:
    """Apply the reflections ``I - 2 v v^T`` to `rest` in place, first vector first.

    Their product is ``I - V T V^T``, with the inverse of T triangular (Puglisi 1992).
    """
    if vectors.shape[1] == 0 or rest.shape[1] == 0:
        return
    gram = np.tril(vectors.T @ vectors, -1) + 0.5 * np.eye(vectors.shape[1])
    rest -= vectors @ solve_triangular(gram, vectors.T @ rest, lower=True)
