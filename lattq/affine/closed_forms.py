"""Closed forms of the best invertible map of a layer, and what any map can bring.

A map is an invertible n by n array A. It takes weights W to W Aᵀ and inputs x to A⁻ᵀ x, so that their product stays,
and the second moment Σ of the inputs to A⁻ᵀ Σ A⁻¹; as a transform of lattq, T = A⁻ᵀ. Two regimes want different maps
(theory 13): with an entropy coder `whitening`, with a fixed number of levels `balanced` second moments on both sides.
Only WᵀW matters to them: several layers that read the same inputs are stacked.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.linalg import block_diag

from lattq._array import Array, host_reals
from lattq._options import as_integer
from lattq.affine.checks import as_damping, as_fraction
from lattq.errors import InvalidInputError
from lattq.linalg.checks import check_block, require_root, require_semidefinite, with_diagonal
from lattq.linalg.hadamard import has_hadamard_matrix, randomized_hadamard
from lattq.linalg.roots import potrf

__all__ = ["Weights", "as_map", "balanced", "stacked", "whitening", "wush"]

Weights = Float[Array, "_ columns"] | Sequence[Float[Array, "_ columns"]]


def balanced(
    weight: Weights,
    sigma: Float[Array, "columns columns"],
    *,
    block: int | None = None,
    damping: float = 0.01,
    share: float = 0.5,
) -> Float[np.ndarray, "columns columns"]:
    """Return the map after which weights and inputs have the same, diagonal second moment.

    With LᵀL = Σ and L Wᵀ = U S Vᵀ it is A = S^-½ Uᵀ L, and S is both (W Aᵀ)ᵀ W Aᵀ and A⁻ᵀ Σ A⁻¹. It attains the least
    product ‖Σ^(1/2) A⁻¹‖ ‖W Aᵀ‖ of all invertible maps, the nuclear norm of W Σ^(1/2): what rounding with a fixed
    number of levels costs, up to crest factors, which a Hadamard matrix makes alike (`wush`). Inputs that no weight
    reaches, or the reverse, lie where S is 0; blocks without any output keep their coordinates.

    Parameters
    ----------
    weight : or several that share their inputs
    block : size of the blocks of a block-diagonal map, each the closed form for its columns; None for one block
    damping : fraction of the mean diagonal of Σ added to it, then of the mean of S added to S; 0 wants both invertible
    share : p of A = S^-p Uᵀ L, 0 to 1: weights get the second moment S^(2-2p), inputs S^2p. At 0 the inputs are white,
        at 1 the weights; rounding with Cholesky feedback, which uses the unequal variances of inputs itself, wants
        about 0.75 (theory 13.5)

    Raises
    ------
    InvalidInputError : for a block that does not divide the columns, or without damping a singular Σ or W Σ^(1/2)
    NotPositiveSemidefiniteError : for a second moment with a negative pivot

    References
    ----------
    Chen et al. 2026, "WUSH", arXiv 2512.00956, whose blocks these are; theory 13.3.

    Examples
    --------
    >>> weight, sigma = np.array([[1.0, 0.0], [0.0, 4.0]]), np.diag([16.0, 1.0])
    >>> found = balanced(weight, sigma, damping=0.0)
    >>> (weight @ found.T).T @ (weight @ found.T)
    array([[4., 0.],
           [0., 4.]])
    """
    return _blockwise(weight, sigma, block, _rule(damping, share))


def wush(
    weight: Weights,
    sigma: Float[Array, "columns columns"],
    *,
    block: int | None = 32,
    damping: float = 0.01,
    share: float = 0.5,
    seed: int = 0,
) -> Float[np.ndarray, "columns columns"]:
    """Return `balanced`, then a randomized Hadamard matrix: all columns of a block have the same second moment.

    Parameters
    ----------
    weight, block, damping, share : as in `balanced`; the published blocks have 32 or 16 columns, and share one half
    seed : of the signs

    Raises
    ------
    InvalidInputError : as `balanced`, and for blocks of a size without a Hadamard matrix
    NotPositiveSemidefiniteError : as `balanced`

    References
    ----------
    As `balanced`.

    Examples
    --------
    >>> weight, sigma = np.array([[1.0, 0.0], [0.0, 4.0]]), np.diag([16.0, 9.0])
    >>> found = wush(weight, sigma, block=None, damping=0.0)
    >>> np.diag((weight @ found.T).T @ (weight @ found.T)).round(12)
    array([8., 8.])
    """

    rule = _rule(damping, share)

    def rotated(part: np.ndarray, moment: np.ndarray) -> np.ndarray:
        if not has_hadamard_matrix(len(moment)):
            msg = (
                f"no Hadamard matrix of the {len(moment)} columns of a block is known here; pass `block=`, "
                "a divisor of the columns such as a power of two"
            )
            raise InvalidInputError(msg)
        return randomized_hadamard(rule(part, moment).T.copy(), seed).T

    return _blockwise(weight, sigma, block, rotated)


def whitening(
    sigma: Float[Array, "columns columns"], *, block: int | None = None, damping: float = 0.01
) -> Float[np.ndarray, "columns columns"]:
    """Return the symmetric square root of Σ: the map after which the inputs are white.

    Best where an entropy coder follows and no feedback: one step for all columns then loses nothing at high rate
    (`lattq.affine.gains.entropy_coded_loss`). Of all maps that whiten, R Σ^(1/2) with a rotation R, this is the nearest
    to the identity; ``balanced(share=0)`` is the one that makes the columns of the weights uncorrelated too, which a
    coder of single columns wants. Bad for a fixed number of levels, see `balanced`.

    Parameters
    ----------
    block, damping : as in `balanced`

    Raises
    ------
    InvalidInputError : for a block that does not divide the columns, or without damping a singular Σ
    NotPositiveSemidefiniteError : for a second moment with a negative pivot

    Examples
    --------
    >>> whitening(np.diag([4.0, 9.0]), damping=0.0)
    array([[2., 0.],
           [0., 3.]])
    """

    def root(part: np.ndarray, moment: np.ndarray) -> np.ndarray:
        if not moment.any():
            return np.eye(len(moment))
        damped = _damped(moment, as_damping("damping", damping))
        _cholesky(damped)
        values, vectors = np.linalg.eigh(damped)
        return (vectors * np.sqrt(values)) @ vectors.T

    moment = require_semidefinite(sigma)
    return _blockwise(np.zeros((1, len(moment))), moment, block, root)


def stacked(
    weight: Weights, sigma: Float[Array, "columns columns"]
) -> tuple[Float[np.ndarray, "rows columns"], Float[np.ndarray, "columns rank"]]:
    """Return all rows that read the same inputs, and F with F Fᵀ = Σ; raises as `balanced`.

    >>> stacked([np.ones((1, 2)), np.zeros((2, 2))], np.eye(2))[0].shape
    (3, 2)
    """
    rows = _rows(weight)
    return rows, require_root(require_semidefinite(sigma, rows.shape[1]))


def as_map(matrix: Float[Array, "_ _"], n: int) -> Float[np.ndarray, "n n"]:
    """Return A on the host; raises `InvalidInputError` unless it is square, finite, invertible and of that size.

    >>> as_map(np.eye(2), 2).shape
    (2, 2)
    """
    found = host_reals("matrix", matrix)
    if found.shape != (n, n):
        msg = f"`matrix` has shape {found.shape}; a map of {n} columns is {n} x {n}"
        raise InvalidInputError(msg)
    with np.errstate(divide="ignore", invalid="ignore"):
        condition = float(np.linalg.cond(found, 1))
    if not condition < 1.0 / np.finfo(np.float64).eps:
        msg = f"`matrix` has condition {condition:.3g}, singular in float64; damp what it was made from"
        raise InvalidInputError(msg)
    return found


def _rows(weight: Any) -> np.ndarray:
    """One weight, or several one above the other."""
    parts = weight if isinstance(weight, list | tuple) else [weight]
    found = [host_reals("weight", part) for part in parts]
    if not found or any(part.ndim != 2 or part.shape[1] != found[0].shape[1] or 0 in part.shape for part in found):
        msg = f"`weight` has shapes {[part.shape for part in found]}; pass matrices with the same columns"
        raise InvalidInputError(msg)
    return np.vstack(found)


def _blockwise(
    weight: Any, sigma: Array, block: int | None, rule: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> np.ndarray:
    """The rule for each run of columns, side by side on the diagonal."""
    rows = _rows(weight)
    moment, n = require_semidefinite(sigma, rows.shape[1]), rows.shape[1]
    size = n if block is None else as_integer("block", block)
    check_block(size, n)
    runs = [slice(start, start + size) for start in range(0, n, size)]
    return np.asarray(block_diag(*(rule(rows[:, run], moment[run, run]) for run in runs)))


def _rule(damping: float, share: float) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """`_balanced` with checked options."""
    return functools.partial(_balanced, damping=as_damping("damping", damping), share=as_fraction("share", share))


def _balanced(rows: np.ndarray, moment: np.ndarray, damping: float, share: float) -> np.ndarray:
    """S^-p Uᵀ L of one block."""
    n = len(moment)
    if not moment.any() or not rows.any():
        return np.eye(n)
    root = _cholesky(_damped(moment, damping))
    triangle = np.linalg.qr(rows, mode="r")
    square = np.zeros((n, n))
    square[: len(triangle)] = triangle @ root.T
    _, sizes, basis = np.linalg.svd(square)
    sizes = sizes + damping * sizes.mean()
    if sizes[-1] <= n * np.finfo(np.float64).eps * sizes[0]:
        msg = f"`weight` times the root of `sigma` has rank below its {n} columns; pass `damping` above 0, such as 0.01"
        raise InvalidInputError(msg)
    return basis @ root / (sizes**share)[:, None]


def _damped(moment: np.ndarray, damping: float) -> np.ndarray:
    return with_diagonal(moment, damping * float(np.diag(moment).mean()), "damping", damping)


def _cholesky(moment: np.ndarray) -> np.ndarray:
    """Upper triangular L with LᵀL = Σ; raises for a singular Σ."""
    factor, failed = potrf(moment, lower=False, clean=True)
    smallest = len(moment) * np.finfo(np.float64).eps * np.diag(moment)
    if failed or bool((np.diag(factor) ** 2 <= smallest).any()):
        msg = f"`sigma` is singular in a block of {len(moment)} columns; pass `damping` above 0, such as 0.01"
        raise InvalidInputError(msg)
    return factor
