"""The nearest diagonally dominant matrix: rows in closed form, rows and columns together by Newton's method.

Thresholds come from sorted magnitudes u₁ ≥ u₂ ≥ …: the one that leaves the sum r is the largest over k of
(Σ_{i≤k} u_i − r) / k, because Σ (u − μ)₊ ≥ Σ_{i≤k} u_i − k μ for every k, with equality at one (theory 12.4).
"""

import math

import numpy as np
from array_api_compat import device
from jaxtyping import Float

from lattq._array import Array, array_namespace, from_host, to_host
from lattq._options import as_flag, as_float
from lattq.affine.both_sides import onto_both
from lattq.affine.checks import check_ratio, square
from lattq.errors import InvalidInputError

__all__ = ["from_ball", "onto_cone", "onto_l1_ball", "project", "to_ball"]

SIDES = ("rows", "columns", "both")


def project(
    matrix: Float[Array, "*batch n n"],
    ratio: float = 0.9,
    *,
    sides: str = "rows",
    keep_diagonal: bool = False,
    floor: float = 0.0,
) -> Float[Array, "*batch n n"]:
    """The nearest matrix, in squared entries, whose off-diagonals sum to at most `ratio` times the diagonal.

    Sums are of absolute values. The result has the dtype of `matrix`, keeps the signs of its entries, and is never
    above the ratio by more than rounding. Matrices of one sign of the diagonal are a convex set; the nearest of all is
    the one with the signs that the diagonal has (zeros count as positive).

    Parameters
    ----------
    matrix : one, or a batch; any array library
    ratio : ρ, above 0 and below 1
    sides : "rows" or "columns" in closed form; "both" by Newton's method, on the host
    keep_diagonal : leave the diagonal as it is, so that only off-diagonals shrink (each row onto an ℓ1 ball)
    floor : least absolute value of the diagonal

    Raises
    ------
    InvalidInputError
        if a matrix is not square, empty or holds NaN; for a ratio that is not in (0, 1), a negative floor, unknown
        sides; if a diagonal that is kept is 0 or below the floor; and for a row of zeros without a floor

    References
    ----------
    Duchi, Shalev-Shwartz, Singer and Chandra, "Efficient projections onto the ℓ1-ball", 2008; Mendoza, Raydan and
    Tarazaga, "Computing the nearest diagonally dominant matrix", 1998 (by alternation).

    Examples
    --------
    >>> project(np.array([[1.0, 1.0], [0.0, 2.0]]), 0.5)
    array([[1.2, 0.6],
           [0. , 2. ]])
    >>> project(np.array([[1.0, 1.0], [0.0, 2.0]]), 0.5, keep_diagonal=True)
    array([[1. , 0.5],
           [0. , 2. ]])
    """
    found, ratio, floor = square("matrix", matrix), check_ratio(ratio), as_float("floor", floor)
    keep_diagonal = as_flag("keep_diagonal", keep_diagonal)
    if sides not in SIDES:
        msg = f"`sides` is {sides!r}; choose one of {', '.join(SIDES)}"
        raise InvalidInputError(msg)
    if not 0 <= floor < float("inf"):
        msg = f"`floor` is {floor}; give the least absolute value of the diagonal, 0 or above"
        raise InvalidInputError(msg)
    xp = array_namespace(found)
    wide = xp.astype(found, xp.float64)
    _require_diagonal(wide, sides, floor, keep=keep_diagonal)
    unit = 2.0 ** (math.frexp(float(xp.max(xp.abs(wide))))[1] - 1)  # sums of the largest numbers are numbers
    signs = 1.0 - 2.0 * xp.astype(_diagonal(wide) < 0, xp.float64)[..., None]
    start, least = wide / unit * signs, None if keep_diagonal else floor / unit
    if sides == "both":
        nearest = _both(start, ratio, least)
    elif sides == "columns":
        nearest = _transpose(_rows(_transpose(start), ratio, least))
    else:
        nearest = _rows(start, ratio, least)
    return xp.astype(_within(nearest, ratio, sides) * signs * unit, found.dtype)


def onto_l1_ball(x: Float[Array, "*batch n"], radius: Float[Array, "*batch"]) -> Float[Array, "*batch n"]:
    """The nearest vectors whose absolute values sum to at most `radius`, 0 or above.

    >>> onto_l1_ball(np.array([3.0, -1.0]), np.array(2.0))
    array([ 2., -0.])
    """
    xp = array_namespace(x)
    sums, counts = _sorted_sums(x)
    return _shrunk(x, xp.max((sums - radius[..., None]) / counts, axis=-1))


def onto_cone(
    head: Float[Array, "*batch"], tail: Float[Array, "*batch n"], ratio: float, floor: float = 0.0
) -> tuple[Float[Array, "*batch"], Float[Array, "*batch n"]]:
    """The nearest (d, v) with Σ|v| ≤ ratio · d and d ≥ floor.

    >>> onto_cone(np.array([1.0]), np.array([[1.0]]), 0.5)
    (array([1.2]), array([[0.6]]))
    """
    xp = array_namespace(tail)
    sums, counts = _sorted_sums(tail)
    threshold = xp.max((sums - ratio * head[..., None]) / (counts + ratio**2), axis=-1)
    threshold = xp.maximum(xp.clip(threshold, min=0.0), -head / ratio)  # below the dual cone: to the apex
    raised = head + ratio * threshold
    on_floor = onto_l1_ball(tail, xp.ones_like(head) * (ratio * floor))
    return xp.clip(raised, min=floor), xp.where((raised < floor)[..., None], on_floor, _shrunk(tail, threshold))


def to_ball(free: Float[Array, "*batch n"], ratio: float) -> Float[Array, "*batch n"]:
    """ρ v / (1 + Σ|v|): a smooth map of all vectors onto those whose absolute values sum to less than ρ.

    >>> to_ball(np.array([1.0, -1.0]), 0.9).round(3)
    array([ 0.3, -0.3])
    """
    return check_ratio(ratio) * free / (1 + _sum(free))


def from_ball(inside: Float[Array, "*batch n"], ratio: float) -> Float[Array, "*batch n"]:
    """Inverse of `to_ball`: x / (ρ − Σ|x|).

    Raises
    ------
    InvalidInputError : if a sum is not below the ratio

    >>> from_ball(np.array([0.3, -0.3]), 0.9).round(12)
    array([ 1., -1.])
    """
    rest = check_ratio(ratio) - _sum(inside)
    least = float(array_namespace(inside).min(rest))
    if not least > 0:
        msg = f"`inside` has a row whose absolute values sum to {ratio - least:.6g}; they sum to less than {ratio}"
        raise InvalidInputError(msg)
    return inside / rest


def _rows(x: Array, ratio: float, floor: float | None) -> Array:
    """Each row onto the cone, or onto the ball that belongs to its diagonal where that stays (no floor)."""
    diagonal, outside = _diagonal(x), _outside(x)
    if floor is None:
        return _joined(diagonal, onto_l1_ball(outside, ratio * diagonal))
    return _joined(*onto_cone(diagonal, outside, ratio, floor))


def _both(x: Array, ratio: float, floor: float | None) -> Array:
    """Rows and columns of each matrix of a batch, on the host; the diagonal is not negative."""
    host = to_host(x)
    flat = host.reshape(-1, *host.shape[-2:]).copy()
    for one in flat:
        off, diagonal = onto_both(np.abs(_outside(one)), np.diag(one).copy(), ratio, floor)
        one[:] = np.sign(one) * off
        np.fill_diagonal(one, diagonal)
    return from_host(flat.reshape(host.shape), like=x)


def _within(x: Array, ratio: float, sides: str) -> Array:
    """Off-diagonals times what rounding, or an iteration that has not ended, leaves above the ratio."""
    diagonal, outside = _diagonal(x), _outside(x)
    if sides != "columns":
        outside = outside * _share(ratio * diagonal, _sum(outside)[..., 0])[..., None]
    if sides != "rows":
        outside = outside * _share(ratio * diagonal, _sum(_transpose(outside))[..., 0])[..., None, :]
    return _joined(diagonal, outside)


def _share(budget: Array, used: Array) -> Array:
    xp = array_namespace(used)
    return xp.where(used > budget, budget / xp.where(used > 0, used, xp.ones_like(used)), xp.ones_like(used))


def _require_diagonal(x: Array, sides: str, floor: float, *, keep: bool) -> None:
    """A diagonal that may be kept, or rows from which one can grow."""
    diagonal = np.abs(to_host(_diagonal(x)))
    if keep:
        wrong = (diagonal == 0) | (diagonal < floor)
        reason = f"below the floor {floor:g}" if floor else "0"
        advice = "leave out `keep_diagonal`, or scale the row"
    else:
        magnitudes = np.abs(to_host(x))
        along = [magnitudes.max(axis=-1)] * (sides != "columns") + [magnitudes.max(axis=-2)] * (sides != "rows")
        wrong = (np.max(along, axis=0) == 0) & (floor == 0)
        reason, advice = "0, like all beside it", "give a `floor`"
    if wrong.any():
        index = tuple(int(i) for i in np.argwhere(wrong)[0])
        msg = f"`matrix` has the diagonal entry {diagonal[index]:g} at {index}, {reason}; {advice}"
        raise InvalidInputError(msg)


def _sorted_sums(x: Array) -> tuple[Array, Array]:
    """Sums of the k largest magnitudes, and k."""
    xp = array_namespace(x)
    falling = xp.sort(xp.abs(x), axis=-1, descending=True)
    return xp.cumulative_sum(falling, axis=-1), xp.arange(1, x.shape[-1] + 1, dtype=x.dtype, device=device(x))


def _shrunk(x: Array, threshold: Array) -> Array:
    """Magnitudes less a threshold, at least 0, with their signs."""
    xp = array_namespace(x)
    left = xp.abs(x) - xp.clip(threshold, min=0.0)[..., None]
    return xp.sign(x) * xp.clip(left, min=0.0)


def _diagonal(x: Array) -> Array:
    return array_namespace(x).linalg.diagonal(x)


def _outside(x: Array) -> Array:
    """Zeros on the diagonal."""
    xp = array_namespace(x)
    return xp.where(xp.eye(x.shape[-1], dtype=x.dtype, device=device(x)) > 0, xp.zeros_like(x), x)


def _joined(diagonal: Array, outside: Array) -> Array:
    eye = array_namespace(outside).eye(outside.shape[-1], dtype=outside.dtype, device=device(outside))
    return outside + diagonal[..., None] * eye


def _transpose(x: Array) -> Array:
    return array_namespace(x).matrix_transpose(x)


def _sum(x: Array) -> Array:
    xp = array_namespace(x)
    return xp.sum(xp.abs(x), axis=-1, keepdims=True)
