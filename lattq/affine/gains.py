"""What a map brings to a layer, before any rounding: in decibels for a fixed number of levels, in bits otherwise."""

import math

import numpy as np
from jaxtyping import Float

from lattq._array import Array
from lattq._options import as_integer
from lattq.affine.closed_forms import Weights, as_map, stacked
from lattq.errors import InvalidInputError
from lattq.linalg.checks import check_block, require_root, require_semidefinite

__all__ = ["entropy_coded_loss", "gain"]


def gain(
    weight: Weights,
    sigma: Float[Array, "columns columns"],
    matrix: Float[Array, "_ _"] | None = None,
    *,
    block: int | None = None,
    group: int | None = None,
) -> float:
    """Return by how many decibels a map lowers the error of rounding to a fixed number of levels, before any rounding.

    The error is proportional to ‖Σ^(1/2) A⁻¹‖² ‖W Aᵀ‖² as long as crest factors are alike; with `group` the largest
    magnitudes count themselves: to the sum over rows and groups of (max |w|)² times the trace of the group's Σ.

    Parameters
    ----------
    weight : or several that share their inputs
    matrix : A, see `lattq.affine`; None for the map that gains most, which no other exceeds without `group`
    block : for `matrix=None`, of block-diagonal maps only; 1 bounds all scales of columns
    group : columns that share a step; None compares powers, without crest factors

    Raises
    ------
    InvalidInputError : for a singular `matrix`, shapes that do not fit, or `group` without a map
    NotPositiveSemidefiniteError : for a second moment with a negative pivot

    Examples
    --------
    Here scales make both sides alike, and no other map gains more.

    >>> weight, sigma = np.diag([10.0, 1.0]), np.diag([1.0, 100.0])
    >>> round(gain(weight, sigma), 2), round(gain(weight, sigma, np.diag([0.1, 1.0])), 2)
    (14.07, 14.07)
    >>> round(gain(weight, sigma, np.diag([1.0, 0.1])), 2)
    -19.91
    """
    rows, root = stacked(weight, sigma)
    if matrix is None:
        if group is not None:
            msg = f"`group` is {group}, and without `matrix` there are no largest magnitudes; pass a map, or no group"
            raise InvalidInputError(msg)
        before, after = _product(rows, root), _least_product(rows, root, block)
    else:
        new = as_map(matrix, rows.shape[1])
        after = _product(rows @ new.T, np.linalg.solve(new.T, root), group)
        before = _product(rows, root, group)
    return _decibels(before, after)


def entropy_coded_loss(sigma: Float[Array, "columns columns"], matrix: Float[Array, "_ _"] | None = None) -> float:
    """Return the bits a weight that one step for all columns loses after a map, without feedback, at high rate.

    Beyond the cell's own gap: ½ log2 of the mean diagonal of A⁻ᵀ Σ A⁻¹ over det(A⁻ᵀ Σ A⁻¹)^(1/n). Zero for `whitening`
    and rotations after it; infinite for a singular Σ (theory 13.2).

    Parameters
    ----------
    matrix : A; None for the identity

    Raises
    ------
    InvalidInputError : for a singular `matrix` or one of another size
    NotPositiveSemidefiniteError : for a second moment with a negative pivot

    Examples
    --------
    >>> sigma = np.diag([1.0, 16.0])
    >>> round(entropy_coded_loss(sigma), 3), abs(entropy_coded_loss(sigma, np.diag([1.0, 4.0]))) < 1e-12
    (0.544, True)
    """
    root = require_root(require_semidefinite(sigma))
    if root.shape[1] < root.shape[0]:
        return math.inf
    new = np.eye(len(root)) if matrix is None else as_map(matrix, len(root))
    moved = np.linalg.solve(new.T, root)
    logarithm = 2.0 * float(np.linalg.slogdet(moved)[1]) / len(root)
    return 0.5 * (math.log(float(np.sum(np.square(moved))) / len(root)) - logarithm) / math.log(2.0)


def _least_product(rows: np.ndarray, root: np.ndarray, block: int | None) -> float:
    """Square of the nuclear norm, or of the sum of those of the blocks."""
    n = rows.shape[1]
    size = n if block is None else as_integer("block", block)
    check_block(size, n)
    norms = [_nuclear_norm(rows[:, start : start + size], root[start : start + size]) for start in range(0, n, size)]
    return float(np.sum(norms)) ** 2


def _nuclear_norm(rows: np.ndarray, root: np.ndarray) -> float:
    """Of W F, from triangles no larger than its block."""
    left, right = (np.asarray(np.linalg.qr(x, mode="r")) for x in (rows, root.T))
    return float(np.linalg.svd(left @ right.T, compute_uv=False).sum())


def _product(rows: np.ndarray, root: np.ndarray, group: int | None = None) -> float:
    """‖W‖² tr Σ, or the same of each group with the largest magnitude in place of the power."""
    power = np.sum(np.square(root), axis=1)
    if group is None:
        return float(np.sum(np.square(rows)) * np.sum(power))
    starts = range(0, rows.shape[1], max(as_integer("group", group), 1))
    peaks = np.maximum.reduceat(np.abs(rows), starts, axis=1)
    return float(np.sum(np.square(peaks) @ np.add.reduceat(power, starts)))


def _decibels(before: float, after: float) -> float:
    if before == 0.0:
        return 0.0
    return 10.0 * math.log10(before / after) if after > 0.0 else math.inf
