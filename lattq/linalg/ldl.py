"""LDL factors of a second moment: the pivots and the feedback of successive cancellation."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.linalg import solve_triangular

from lattq._array import Array, epsilon, short_repr
from lattq.errors import InvalidInputError
from lattq.linalg.checks import check_block, check_second_moment, not_semidefinite, with_diagonal
from lattq.linalg.roots import (
    clear_cholesky,
    first_negative_pivot,
    householder_ldl,
    is_clear,
    pivoted_cholesky,
    semidefinite_root,
    without_rounding,
)
from lattq.linalg.tolerances import column_scale, relative_tolerance

__all__ = ["LDL", "ldl"]

STRIP = 64  # lines that fit a cache


@short_repr
@dataclass(frozen=True)
class LDL:
    """``H[order][:, order] == unit @ blockdiag(pivots) @ unit.T`` on the host; H is sigma, or sigma + J.

    All in float64, but for a unit that a rule found in float32 for a loop in float32.

    Attributes
    ----------
    unit : unit lower triangular; block-unit (identity blocks on the diagonal) if the blocks are larger than 1
    pivots : one number per column, or one symmetric matrix per block
    order : ``order[i]`` is the original index of the i-th column of `unit`
    penalty : J, in the original order: what the reconstruction is charged beside the error (theory 2.6), a matrix or
        its diagonal; None for nothing
    matrix, scale : H - J in the original order, ``scale[:, None] * matrix * scale``, where it is at hand; else None

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
    penalty: Float[np.ndarray, " n"] | Float[np.ndarray, "n n"] | None = None
    matrix: Float[np.ndarray, "n n"] | None = None
    scale: Float[np.ndarray, " n"] | None = None

    def rescaled(self, scale: Float[np.ndarray, " n"]) -> "LDL":
        """The factor, in the same order, of ``scale[:, None] * sigma * scale``.

        If Σ = U P Uᵀ, then D Σ D = (D U D⁻¹) (D P D) (D U D⁻¹)ᵀ.

        >>> ldl(np.array([[4.0, 2.0], [2.0, 3.0]])).rescaled(np.array([0.5, 1.0])).pivots
        array([1., 2.])
        """
        s = scale[self.order]
        unit = _between(self.unit, s)
        tiles = s.reshape(len(self.pivots), -1)
        squares = s**2 if self.pivots.ndim == 1 else tiles[:, :, None] * tiles[:, None, :]
        penalty = self.penalty
        if penalty is not None:
            penalty = penalty * (scale**2 if penalty.ndim == 1 else scale * scale[:, None])
        whole = scale if self.scale is None else self.scale * scale
        return LDL(unit, self.pivots * squares, self.order, penalty, self.matrix, whole)


def _between(unit: np.ndarray, s: np.ndarray) -> np.ndarray:
    """(unit / s) * s[:, None], in float64, a strip of memory at a time."""
    found, by_columns = np.empty_like(unit), unit.flags.f_contiguous
    for start in range(0, len(s), STRIP):
        part = slice(start, start + STRIP)
        rows, columns = (slice(None), part) if by_columns else (part, slice(None))
        own = unit[rows, columns] / s[columns]
        own *= s[rows, None]
        found[rows, columns] = own
    return found


def ldl(
    sigma: Float[Array, "n n"],
    *,
    order: str | Int[np.ndarray, " n"] = "natural",
    block: int = 1,
    damping: float = 0.0,
) -> LDL:
    """Factor a second moment as unit lower triangular times pivots times transpose.

    The pivot of a column is the variance left in it once the columns before it in `order` are known.
    A pivot within ``n * eps`` times the variance of its column is set to zero (n counted as at least 8), and
    the part of `unit` below it too: such a column costs no rate. The product then differs from entry (i, j)
    of `sigma` by a small multiple of ``n * eps * sqrt(sigma[i, i] * sigma[j, j])``, or by the square root of
    dropped pivot times ``sigma[j, j]`` in the row of a pivot that was dropped without being zero. Inputs in
    other units thus give the same factor in other units. A matrix that is semidefinite only to
    ``n * eps * max(diagonal)``, like one that was transformed with rounding, is factored to that precision.
    One in float32 is judged by the rounding of float32, as `quantize` judges it.
    With blocks the difference is relative to the entries of abs(unit) abs(pivots) abs(unit).T.

    Parameters
    ----------
    order : "natural"; "sorted", by decreasing diagonal; "pivoted", where each column is the one with the
        largest remaining variance, so that scalar pivots decrease up to rounding, zeros last; or a
        permutation of the columns
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
    given, sigma = sigma, check_second_moment(sigma)
    eps = epsilon(given)
    if not 0.0 <= damping < np.inf:
        msg = f"`damping` is {damping}; it is a finite fraction of the mean diagonal, at least 0"
        raise InvalidInputError(msg)
    if damping:
        sigma = with_diagonal(sigma, damping * float(np.mean(np.diag(sigma))), "damping", damping)
    if eps > np.finfo(np.float64).eps:
        lifted = without_rounding(sigma, eps)
        sigma = sigma if lifted is None else lifted[0]
    return unchecked_ldl(sigma, order, block)


def unchecked_ldl(sigma: Float[np.ndarray, "n n"], order: str | Int[np.ndarray, " n"], block: int) -> LDL:
    """`ldl` of a matrix that has passed `check_second_moment`, or was made from one symmetrically.

    >>> unchecked_ldl(np.eye(2), "natural", 1).pivots
    array([1., 1.])
    """
    check_block(block, len(sigma))
    unit, pivots, columns = _scalar_ldl(sigma, order)
    if block > 1:
        unit, pivots = _merge_blocks(unit, pivots, block)
    return LDL(unit, pivots, columns, matrix=sigma)


def _scalar_ldl(sigma: np.ndarray, order: str | np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    n, alive = len(sigma), np.any(sigma, axis=0)
    pivoted = isinstance(order, str) and order == "pivoted" and bool(alive.any())
    if pivoted:
        live = np.flatnonzero(alive)
        part = sigma if alive.all() else sigma[np.ix_(live, live)]
        greedy, position = pivoted_cholesky(part, tolerance=0.0)
        columns = np.concatenate([live[position], np.flatnonzero(~alive)])
    else:
        greedy, columns = None, _columns(order, np.diag(sigma))
    place = np.flatnonzero(alive[columns])
    if len(place) == n:
        unit, pivots = _live_ldl(sigma, columns, greedy)
    else:
        unit, pivots = np.eye(n), np.zeros(n)
        if len(place):
            unit[np.ix_(place, place)], pivots[place] = _live_ldl(sigma, columns[place], greedy)
    if pivoted and not pivots.all():
        last = np.argsort(pivots == 0, kind="stable")
        unit, pivots, columns = unit[np.ix_(last, last)], pivots[last], columns[last]
    return unit, pivots, columns


def _live_ldl(sigma: np.ndarray, columns: np.ndarray, greedy: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Return unit and pivots of some columns in that order; `greedy` is their Cholesky factor if it is known."""
    scale = column_scale(sigma)
    units = scale[columns]
    if greedy is not None:
        if is_clear(greedy, units):
            roots = np.diag(greedy).copy()
            greedy /= roots
            return greedy, roots**2
    else:
        factor = clear_cholesky(sigma[np.ix_(columns, columns)] / units, units)
        if factor is not None:
            roots = np.diag(factor).copy()
            factor /= roots
            factor *= units[:, None]
            factor /= units
            return factor, (roots * units) ** 2
    return _singular_ldl(sigma, columns, scale)


def _singular_ldl(sigma: np.ndarray, columns: np.ndarray, scale: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    for units in (scale, np.full_like(scale, np.max(scale))):
        root = semidefinite_root(sigma, units)
        if root is not None:
            smallest = relative_tolerance(len(sigma)) * units**2
            return householder_ldl(root[columns].T, smallest[columns])
    position, pivot = first_negative_pivot(sigma[np.ix_(columns, columns)])
    raise not_semidefinite(int(columns[position]), pivot)


def _columns(order: str | np.ndarray, diagonal: np.ndarray) -> np.ndarray:
    n = len(diagonal)
    if isinstance(order, str):
        if order == "natural":
            return np.arange(n)
        if order in ("sorted", "pivoted"):  # pivoted comes here only if nothing varies
            return np.argsort(-diagonal, kind="stable")
        msg = f'`order` is "{order}"; choose "natural", "sorted", "pivoted" or a permutation'
        raise InvalidInputError(msg)
    order = np.asarray(order)
    if order.shape != (n,) or not np.array_equal(np.sort(order), np.arange(n)):
        msg = f"`order` is not a permutation of 0 ... {n - 1}; each column of `sigma` must appear exactly once"
        raise InvalidInputError(msg)
    return order.astype(np.int64)


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
