"""Triangular systems with many right-hand sides, solved where the right-hand sides live."""

import numpy as np
from jaxtyping import Float
from scipy.linalg import get_blas_funcs, solve_triangular

from lattq._array import Array, array_namespace, from_host

__all__ = ["add_product", "divide_blocks", "substitute", "triangle_times"]

LEAF = 256  # columns whose inverse is multiplied as it is


def substitute(unit: Float[Array, "n n"], right: Float[Array, "n m"], exact: Float[np.ndarray, "n n"]) -> None:
    """Replace `right`, contiguous, by U⁻¹ `right`, U unit (or block-unit) lower triangular.

    NumPy arrays go to BLAS. Others are solved by halves, so that all work is matrix products. The residual is within
    rounding of abs(U) abs(result), as that of any substitution.

    Parameters
    ----------
    unit : U, in the library and dtype of `right`
    right : overwritten
    exact : U on the host, whose diagonal tiles are inverted there

    References
    ----------
    Higham, "Accuracy and Stability of Numerical Algorithms", 2nd ed. 2002, section 14.3 (inverted diagonal blocks).

    Examples
    --------
    >>> unit, right = np.array([[1.0, 0.0], [0.5, 1.0]]), np.array([[2.0], [3.0]])
    >>> substitute(unit, right, unit)
    >>> right.T
    array([[2., 2.]])
    """
    xp, n = array_namespace(right), right.shape[0]
    if isinstance(right, np.ndarray):  # BLAS has columns one after the other: what it sees are the transposes
        (trsm,) = get_blas_funcs(("trsm",), (right,))
        solved = trsm(1.0, unit, right.T, side=1, lower=1, trans_a=1, diag=1, overwrite_b=1).T
        if not np.shares_memory(solved, right):
            right[...] = solved
        return
    if n <= LEAF:
        inverse = solve_triangular(exact, np.eye(n), lower=True, unit_diagonal=True)
        right[...] = xp.matmul(xp.astype(from_host(inverse, like=right), right.dtype), right)
        return
    half = n // 2
    substitute(unit[:half, :half], right[:half, :], exact[:half, :half])
    right[half:, :] -= xp.matmul(unit[half:, :half], right[:half, :])
    substitute(unit[half:, half:], right[half:, :], exact[half:, half:])


def triangle_times(
    matrix: Float[Array, "n n"], right: Float[Array, "n m"], *, lower: bool, out: Float[Array, "n m"] | None = None
) -> Float[Array, "n m"]:
    """A triangle of a matrix times another; NumPy arrays go to BLAS, which multiplies no zeros, and may use `out`.

    >>> triangle_times(np.array([[1.0, 2.0], [3.0, 3.0]]), np.array([[1.0], [1.0]]), lower=False).T
    array([[3., 3.]])
    """
    if not isinstance(right, np.ndarray):
        xp = array_namespace(right)
        return xp.matmul(xp.tril(matrix) if lower else xp.triu(matrix), right)
    (trmm,) = get_blas_funcs(("trmm",), (matrix, right))
    if out is not None:
        out[...] = right
    given = right if out is None else out
    return trmm(
        1.0, matrix.T, given.T, side=1, lower=not lower, overwrite_b=out is not None
    ).T  # its own order, as above


def add_product(into: Float[Array, "n m"], left: Float[Array, "n k"], right: Float[Array, "k m"]) -> None:
    """Add a product of matrices to a contiguous one, in place; NumPy arrays without a copy of the product.

    >>> into = np.ones((1, 1))
    >>> add_product(into, np.array([[2.0]]), np.array([[3.0]]))
    >>> into
    array([[7.]])
    """
    if not isinstance(into, np.ndarray):
        into += array_namespace(into).matmul(left, right)
        return
    (gemm,) = get_blas_funcs(("gemm",), (into,))
    found = gemm(1.0, right.T, left, beta=1.0, c=into.T, trans_b=1, overwrite_c=1).T
    if not np.shares_memory(found, into):
        into[...] = found


def divide_blocks(x: Float[Array, "n m"], tiles: Float[np.ndarray, "..."]) -> Float[Array, "n m"]:
    """Every block of rows multiplied by the pseudo-inverse of its symmetric tile, so that a tile of zeros gives zeros.

    `tiles` are numbers, one per row, or matrices, one per block of rows. With numbers `x` itself is overwritten.

    >>> divide_blocks(np.array([[2.0], [3.0]]), np.array([4.0, 0.0])).T
    array([[0.5, 0. ]])
    """
    xp = array_namespace(x)
    if tiles.ndim == 1:
        inverse = np.divide(1.0, tiles, out=np.zeros(len(tiles)), where=tiles != 0)[:, None]
        x *= xp.astype(from_host(inverse, like=x), x.dtype)
        return x
    inverse = xp.astype(from_host(np.linalg.pinv(tiles, hermitian=True), like=x), x.dtype)
    return xp.reshape(xp.matmul(inverse, xp.reshape(x, (len(tiles), -1, x.shape[1]))), x.shape)
