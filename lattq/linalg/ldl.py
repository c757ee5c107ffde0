"""LDL factors of a second moment: the pivots and the feedback of successive cancellation.

A second moment may be singular (fewer samples than inputs, dead inputs). Eliminating such a matrix in a
given order amplifies rounding without bound, so the singular case goes through two stable steps: a pivoted
Cholesky factor decides whether the matrix is positive semidefinite and gives a square root, and a
Householder reduction of that root brings it to the wanted order. There pivots are squared norms, so none
comes out negative by rounding.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.linalg import get_lapack_funcs, solve_triangular

from lattq._array import Array
from lattq.errors import InvalidInputError
from lattq.linalg.checks import check_second_moment, not_semidefinite, pivot_tolerance

__all__ = ["LDL", "ldl"]

# Multiple of the pivot tolerance up to which the rest of a pivoted elimination counts as rounding: the entries of
# that rest carry the rounding of the input as well as that of the elimination.
_RESIDUAL_SLACK = 8.0
# Elimination in a given order is trusted if all pivots exceed this multiple of the tolerance: without pivoting, a zero
# pivot may come out at hundreds of times the tolerance.
_CLEAR = 1e3
_PANEL = 48

_potrf, _pstrf = get_lapack_funcs(("potrf", "pstrf"), dtype=np.float64)


@dataclass(frozen=True)
class LDL:
    """``sigma[order][:, order] == unit @ blockdiag(pivots) @ unit.T``, in float64 on the host.

    Attributes
    ----------
    unit : unit lower triangular; block-unit (identity blocks on the diagonal) if the blocks are larger than 1
    pivots : one number per column, or one symmetric matrix per block
    order : ``order[i]`` is the original index of the i-th column of `unit`

    Examples
    --------
    >>> factor = ldl(np.array([[4.0, 2.0], [2.0, 3.0]]))
    >>> (factor.unit * factor.pivots) @ factor.unit.T
    array([[4., 2.],
           [2., 3.]])
    """

    unit: Float[np.ndarray, "n n"]
    pivots: Float[np.ndarray, " n"] | Float[np.ndarray, "blocks b b"]
    order: Int[np.ndarray, " n"]


def ldl(
    sigma: Float[Array, "n n"],
    *,
    order: str | Int[np.ndarray, " n"] = "natural",
    block: int = 1,
    damping: float = 0.0,
) -> LDL:
    """Factor a second moment as unit lower triangular times pivots times transpose.

    The pivot of a column is the variance left in it once the columns before it in `order` are known.
    Pivots within ``n * eps * max(diagonal)`` of zero (n counted as at least 8) are set to zero, and the
    part of `unit` below them too: such a column costs no rate. The product then differs from `sigma` by a
    small multiple of that tolerance, except in the row and column of a pivot that was positive but below
    it, where the difference may reach the geometric mean of that pivot and the largest diagonal entry.
    With blocks, read "largest entry of abs(unit) abs(pivots) abs(unit).T" for "max(diagonal)": that is
    larger where a block is nearly singular.

    Parameters
    ----------
    order : "natural"; "sorted", by decreasing diagonal; "pivoted", where each column is the one with the
        largest remaining variance, so that scalar pivots decrease; or a permutation of the columns
    block : columns per block; must divide n
    damping : this fraction of the mean diagonal is added to the diagonal first

    Raises
    ------
    InvalidInputError
        for a matrix that is not finite, square and symmetric, or an option out of range
    NotPositiveSemidefiniteError
        if a pivot is negative by more than rounding; it names a column of negative variance if there is one,
        else the first such column in `order`

    References
    ----------
    Higham, "Accuracy and Stability of Numerical Algorithms", 2nd ed. 2002, sections 10.3 (pivoted Cholesky
    factors of semidefinite matrices) and 19.3 (Householder reduction).

    Examples
    --------
    >>> sigma = np.array([[1.0, 2.0], [2.0, 5.0]])
    >>> ldl(sigma).pivots
    array([1., 1.])
    >>> factor = ldl(sigma, order="pivoted")
    >>> factor.order, factor.pivots
    (array([1, 0]), array([5. , 0.2]))
    """
    sigma = check_second_moment(sigma)
    _require_options(len(sigma), block, damping)
    if damping:
        sigma = sigma + damping * np.mean(np.diag(sigma)) * np.eye(len(sigma))
    unit, pivots, columns = _scalar_ldl(sigma, order)
    if block > 1:
        unit, pivots = _merge_blocks(unit, pivots, block)
    return LDL(unit, pivots, columns)


def _require_options(n: int, block: int, damping: float) -> None:
    if block < 1 or n % block:
        msg = f"`block` is {block}, which does not divide the {n} columns of `sigma`; choose a divisor"
        raise InvalidInputError(msg)
    if not 0.0 <= damping < np.inf:
        msg = f"`damping` is {damping}; it is a finite fraction of the mean diagonal, at least 0"
        raise InvalidInputError(msg)


def _scalar_ldl(sigma: np.ndarray, order: str | np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    tolerance = pivot_tolerance(sigma)
    if isinstance(order, str) and order == "pivoted":
        root, columns = _pivoted_root(sigma, tolerance)
        return *_pivoted_ldl(root[columns]), columns
    columns = _columns(order, np.diag(sigma))
    ordered = sigma[np.ix_(columns, columns)]
    factor, failed = _potrf(ordered, lower=True, clean=True)
    diagonal = np.diag(factor)
    if not failed and np.min(diagonal) ** 2 > _CLEAR * tolerance:
        return factor / diagonal, diagonal**2, columns
    root, _ = _pivoted_root(ordered, tolerance, columns)
    return *_householder_ldl(root.T, tolerance), columns


def _columns(order: str | np.ndarray, diagonal: np.ndarray) -> np.ndarray:
    n = len(diagonal)
    if isinstance(order, str):
        if order == "natural":
            return np.arange(n)
        if order == "sorted":
            return np.argsort(-diagonal, kind="stable")
        msg = f'`order` is "{order}"; choose "natural", "sorted", "pivoted" or a permutation'
        raise InvalidInputError(msg)
    order = np.asarray(order)
    if order.shape != (n,) or not np.array_equal(np.sort(order), np.arange(n)):
        msg = f"`order` is not a permutation of 0 ... {n - 1}; each column of `sigma` must appear exactly once"
        raise InvalidInputError(msg)
    return order.astype(np.int64)


def _eliminate(matrix: np.ndarray, tolerance: float) -> tuple[np.ndarray, np.ndarray, float]:
    """Return a pivoted Cholesky factor (columns: rank), its row order, and the largest entry of what it leaves."""
    factor, pivot_order, rank, _ = _pstrf(matrix, tol=tolerance, lower=True)
    columns = pivot_order.astype(np.int64) - 1
    factor = np.tril(factor)[:, :rank]
    rest = matrix[np.ix_(columns[rank:], columns[rank:])] - factor[rank:] @ factor[rank:].T
    return factor, columns, float(np.max(np.abs(rest), initial=0.0))


def _pivoted_root(
    matrix: np.ndarray, tolerance: float, labels: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return a square root of `matrix` (n x rank) and the pivoted order of its rows; raise if there is none.

    `labels` are the original indices of the columns of `matrix`, for the message.
    """
    factor, columns, rest = _eliminate(matrix, tolerance)
    if rest > _RESIDUAL_SLACK * tolerance:
        order = columns if labels is None else np.arange(len(matrix))
        position, pivot = _first_negative_pivot(matrix[np.ix_(order, order)], tolerance)
        index = order[position] if labels is None else labels[position]
        raise not_semidefinite(int(index), pivot)
    root = np.empty_like(factor)
    root[columns] = factor
    return root, columns


def _first_negative_pivot(matrix: np.ndarray, tolerance: float) -> tuple[int, float]:
    """Return the first column whose leading submatrix is not semidefinite, and its pivot."""
    semidefinite, indefinite = 0, len(matrix)
    while indefinite - semidefinite > 1:
        middle = (semidefinite + indefinite) // 2
        _, _, rest = _eliminate(matrix[:middle, :middle], tolerance)
        if rest > _RESIDUAL_SLACK * tolerance:
            indefinite = middle
        else:
            semidefinite = middle
    leading, column = matrix[:semidefinite, :semidefinite], matrix[semidefinite, :semidefinite]
    factor, columns, _ = _eliminate(leading, tolerance)
    rank = factor.shape[1]
    known = solve_triangular(factor[:rank], column[columns[:rank]], lower=True) if rank else np.zeros(0)
    pivot = float(matrix[semidefinite, semidefinite] - known @ known)
    if pivot < -tolerance:
        return semidefinite, pivot
    # The column is correlated with a combination of earlier ones that has no variance: name the eigenvalue instead.
    return semidefinite, float(np.linalg.eigvalsh(matrix[:indefinite, :indefinite])[0])


def _pivoted_ldl(factor: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Turn a lower trapezoidal pivoted Cholesky factor into unit and decreasing pivots."""
    n, rank = factor.shape
    diagonal = np.diag(factor)
    unit, pivots = np.eye(n), np.zeros(n)
    unit[:, :rank] = factor / diagonal
    pivots[:rank] = np.minimum.accumulate(diagonal**2)  # equal pivots may come out in either order by rounding
    return unit, pivots


def _householder_ldl(root: np.ndarray, tolerance: float) -> tuple[np.ndarray, np.ndarray]:
    """Return unit and pivots of ``root.T @ root`` in the order of its columns.

    Reflections bring `root` to row echelon form, a panel of columns at a time. A column that the ones before it
    determine keeps no row.
    """
    n = root.shape[1]
    rest = root.copy()
    unit, pivots = np.eye(n), np.zeros(n)
    done = 0
    for start in range(0, n, _PANEL):
        stop = min(start + _PANEL, n)
        reflectors, columns = _reduce_panel(rest[done:, start:stop], tolerance)
        _reflect(rest[done:, stop:], reflectors)
        for column in columns + start:
            head = rest[done, column]
            unit[column + 1 :, column] = rest[done, column + 1 :] / head
            pivots[column] = head**2
            done += 1
    return unit, pivots


def _reduce_panel(panel: np.ndarray, tolerance: float) -> tuple[np.ndarray, np.ndarray]:
    """Bring `panel` to echelon form in place; return its unit reflection vectors and the columns that have a pivot."""
    reflectors, columns = [], []
    for column in range(panel.shape[1]):
        row = len(columns)
        tail = panel[row:, column]
        norm = np.linalg.norm(tail)
        if norm**2 <= tolerance:
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


def _merge_blocks(unit: np.ndarray, pivots: np.ndarray, block: int) -> tuple[np.ndarray, np.ndarray]:
    """Move the part of `unit` inside each diagonal block into the pivot of that block."""
    n = len(unit)
    merged, matrices = np.eye(n), np.empty((n // block, block, block))
    for index, start in enumerate(range(0, n, block)):
        inside = slice(start, start + block)
        corner = unit[inside, inside]
        matrices[index] = (corner * pivots[inside]) @ corner.T
        below = unit[start + block :, inside]
        merged[start + block :, inside] = solve_triangular(corner, below.T, lower=True, trans=1, unit_diagonal=True).T
    return merged, 0.5 * (matrices + matrices.transpose(0, 2, 1))
