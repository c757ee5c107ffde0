"""What a second moment must satisfy before it is factored."""

import itertools

import numpy as np
from jaxtyping import Float

from lattq._array import Array, as_array, as_floats, epsilon, to_host
from lattq.errors import InvalidInputError, NotPositiveSemidefiniteError
from lattq.linalg.definite import clearly_definite
from lattq.linalg.roots import first_negative_pivot, square_root, without_rounding
from lattq.linalg.tolerances import column_scale, pivot_tolerance

__all__ = [
    "check_second_moment",
    "not_semidefinite",
    "require_root",
    "require_semidefinite",
    "with_diagonal",
    "with_root",
]

SYMMETRY_BLOCK = 128


def check_second_moment(sigma: Float[Array, "rows columns"], n: int | None = None) -> Float[np.ndarray, "rows columns"]:
    """Return `sigma` as an exactly symmetric float64 host array, or raise saying what is wrong with it.

    An asymmetry up to ``4 * sqrt(eps) * max(diagonal)``, with eps of the dtype of `sigma`, is taken for
    rounding and averaged out. Definiteness is left to `ldl`, except for a negative diagonal.

    Parameters
    ----------
    n : the number of columns it must have, if known

    Raises
    ------
    InvalidInputError
        if an entry is NaN or infinite, or the matrix is empty, not square, not symmetric, or not n by n
    NotPositiveSemidefiniteError
        if a diagonal entry is negative by more than rounding; it names the first

    Examples
    --------
    >>> check_second_moment(np.eye(2, dtype=np.float32)).dtype
    dtype('float64')
    """
    _require_square(tuple(as_array("sigma", sigma).shape), n)
    matrix = to_host(as_floats("sigma", sigma)).astype(np.float64)
    eps = epsilon(sigma)
    symmetric = _require_symmetric(matrix, 4.0 * np.sqrt(eps))
    diagonal = np.diag(matrix)
    negative = np.flatnonzero(diagonal < -pivot_tolerance(matrix, eps))
    if len(negative):
        raise not_semidefinite(int(negative[0]), float(diagonal[negative[0]]))
    return matrix if symmetric else 0.5 * (matrix + matrix.T)


def require_semidefinite(
    sigma: Float[Array, "rows columns"], n: int | None = None
) -> Float[np.ndarray, "rows columns"]:
    """Return what `check_second_moment` does, free of what rounding in the dtype of `sigma` made negative.

    The one place that decides: what passes here is accepted by every feedback and order. Eigenvalues that rounding
    explains, down to ``-n * eps`` in units of the columns' variances, eps of the dtype, are lifted to zero or above by
    the least power of two times eps that does so, added to the diagonal in these units (theory 2.8).

    Raises
    ------
    InvalidInputError : as `check_second_moment`
    NotPositiveSemidefiniteError : for a more negative pivot; it names the first such column

    Examples
    --------
    >>> inputs = np.random.default_rng(0).standard_normal((3, 8)).astype(np.float32)
    >>> gram = inputs.T @ inputs
    >>> bool(np.abs(require_semidefinite(gram) - gram).max() < 1e-5)
    True
    """
    return with_root(sigma, n)[0]


def with_root(
    sigma: Float[Array, "rows columns"], n: int | None = None
) -> tuple[Float[np.ndarray, "rows columns"], Float[np.ndarray, "columns rank"] | None]:
    """`require_semidefinite`, and the root where that was needed to decide; one far from singular needs none.

    >>> with_root(np.array([[4.0, 4.0], [4.0, 4.0]]))[1].tolist(), with_root(np.eye(2))[1] is None
    ([[2.0], [2.0]], True)
    """
    checked = check_second_moment(sigma, n)
    if np.diag(checked).min() > 0 and clearly_definite(checked, column_scale(checked)):
        return checked, None
    found = without_rounding(checked, epsilon(sigma))
    if found is None:
        raise not_semidefinite(*first_negative_pivot(checked))
    matrix, root = found
    return matrix, require_root(matrix) if root is None else root


def require_root(sigma: Float[np.ndarray, "n n"]) -> Float[np.ndarray, "n rank"]:
    """Return F with F Fᵀ = Σ for a matrix that has passed `require_semidefinite`, or was made from one by a transform.

    A transform that spreads scales may round more than float64 explains: then what float32 explains is allowed.

    >>> require_root(np.array([[4.0]]))
    array([[2.]])
    """
    root = square_root(sigma)
    if root is None:
        lifted = without_rounding(sigma, float(np.finfo(np.float32).eps))
        root = None if lifted is None else lifted[1]
    if root is None:
        raise not_semidefinite(*first_negative_pivot(sigma))
    return root


def _require_square(shape: tuple[int, ...], n: int | None) -> None:
    if len(shape) != 2 or shape[0] != shape[1] or shape[0] == 0:
        msg = f"`sigma` has shape {shape}; a second moment is a square matrix with at least one column"
        raise InvalidInputError(msg)
    if n is not None and shape[0] != n:
        msg = f"`sigma` is {shape[0]} x {shape[0]} but the weight has {n} columns; pass E[x x^T] of this layer's inputs"
        raise InvalidInputError(msg)


def _require_symmetric(matrix: np.ndarray, relative: float) -> bool:
    """Whether the matrix is symmetric to the last bit; raises unless it is up to rounding."""
    largest, row, column = 0.0, 0, 0
    tiles = range(0, len(matrix), SYMMETRY_BLOCK)
    for start, first in itertools.combinations_with_replacement(tiles, 2):  # a whole transpose would miss every cache
        part, others = slice(start, start + SYMMETRY_BLOCK), slice(first, first + SYMMETRY_BLOCK)
        tile, turned = matrix[part, others], matrix[others, part].T
        if np.array_equal(tile, turned):
            continue
        difference = np.abs(tile - turned)
        place = int(np.argmax(difference))
        if difference.flat[place] > largest:
            down, right = np.unravel_index(place, difference.shape)
            largest, row, column = float(difference.flat[place]), start + int(down), first + int(right)
    if largest > relative * np.max(np.abs(np.diag(matrix))):
        msg = (
            f"`sigma` is not symmetric: entry ({row}, {column}) is {matrix[row, column]:.6g} and entry "
            f"({column}, {row}) is {matrix[column, row]:.6g}; pass E[x x^T], or (sigma + sigma.T) / 2 if this is noise"
        )
        raise InvalidInputError(msg)
    return largest == 0.0


def not_semidefinite(index: int, pivot: float) -> NotPositiveSemidefiniteError:
    msg = (
        f"`sigma` is not positive semidefinite: column {index} has pivot {pivot:.6g}; accumulate E[x x^T] in "
        f"float64 and symmetrise it, or add damping: 1e-6 of its mean diagonal, or more, on the diagonal"
    )
    return NotPositiveSemidefiniteError(msg, index=index, pivot=pivot)


def check_block(block: int, columns: int) -> None:
    """Raise `InvalidInputError` unless blocks of so many columns fill a second moment.

    >>> check_block(2, 4)
    """
    if block < 1 or columns % block:
        msg = f"`block` is {block}, which does not divide the {columns} columns of `sigma`; choose a divisor"
        raise InvalidInputError(msg)


def with_diagonal(
    sigma: Float[np.ndarray, "n n"], added: float | Float[np.ndarray, " n"], name: str, value: float
) -> Float[np.ndarray, "n n"]:
    """Return `sigma` with a larger diagonal; raises `InvalidInputError`, naming the option, for one beyond float64.

    >>> with_diagonal(np.ones((2, 2)), 0.5, "damping", 0.5)
    array([[1.5, 1. ],
           [1. , 1.5]])
    """
    found = sigma.copy()
    with np.errstate(over="ignore"):
        found[np.diag_indices_from(found)] += added
    if not np.isfinite(np.diag(found)).all():
        msg = f"`{name}` is {value}, which takes the diagonal of `sigma` beyond float64; choose a smaller one"
        raise InvalidInputError(msg)
    return found
