"""Hadamard matrices, the fast transform, and randomized rotations.

A Hadamard matrix of size n = m * 2^k is the Kronecker product of one of size m, found by a construction of
number theory, and of the one of size 2^k, applied in n log n additions. With random signs it spreads any vector
evenly over its coordinates.
"""

import math
import sys
from functools import lru_cache

import numpy as np
from jaxtyping import Float, Int8, Num

from lattq._array import Array, array_namespace, as_array, from_host
from lattq._options import as_seed
from lattq.errors import InvalidInputError
from lattq.linalg.hadamard_bases import base_matrix, has_base

__all__ = [
    "fwht",
    "hadamard_matrix",
    "hadamard_transform",
    "random_signs",
    "randomized_hadamard",
]

NATIVE, NATIVE_LOADED = 1 << 16, 1 << 10  # numbers, from which on compiled code is worth an import, and a call


def hadamard_matrix(n: int) -> Int8[np.ndarray, "n n"]:
    """Return an n by n matrix H of signs with orthogonal rows, ``H @ H.T == n * I``.

    Of all ways to write n = m * 2^k, it takes the one with the smallest m that is 1 or has a Paley or a
    Williamson construction, and returns the Kronecker product of the matrices of m and of 2^k.

    Raises
    ------
    InvalidInputError : if no such m is known; it names the nearest sizes that exist

    References
    ----------
    Sylvester 1867; Paley, "On orthogonal matrices", 1933; Williamson, "Hadamard's determinant theorem and the sum
    of four squares", 1944.

    Examples
    --------
    >>> hadamard_matrix(2)
    array([[ 1,  1],
           [ 1, -1]], dtype=int8)
    >>> matrix = hadamard_matrix(12).astype(int)
    >>> np.array_equal(matrix @ matrix.T, 12 * np.eye(12))
    True
    """
    m, power = _split(n)
    return np.kron(_base(m), _sylvester(power))


def has_hadamard_matrix(n: int) -> bool:
    """Whether `hadamard_matrix` knows one of this size.

    >>> has_hadamard_matrix(20), has_hadamard_matrix(22)
    (True, False)
    """
    return _find_split(n) is not None


def hadamard_additions(n: int) -> int:
    """Additions for each entry that `hadamard_transform` takes: m - 1 + k with n = m * 2^k.

    >>> hadamard_additions(8), hadamard_additions(24)
    (3, 12)
    """
    m, power = _split(n)
    return m - 1 + power.bit_length() - 1


def fwht(x: Num[Array, "..."], *, axis: int = -1, orthonormal: bool = False) -> Num[Array, "..."]:
    """Multiply by the Hadamard matrix of size 2^k along one axis, with n log n additions.

    Parameters
    ----------
    orthonormal : divide by the square root of the length, which makes the transform its own inverse

    Raises
    ------
    InvalidInputError : if the length is not a power of two

    Examples
    --------
    >>> fwht(np.array([1.0, 0.0, 2.0, 0.0]))
    array([ 3.,  3., -1., -1.])
    """
    x = _with_axis(x, axis)
    xp, n = array_namespace(x), x.shape[axis]
    if n < 1 or n & (n - 1):
        msg = f"axis {axis} of `x` has length {n}, not a power of two; use `hadamard_transform` for m * 2^k"
        raise InvalidInputError(msg)
    return xp.moveaxis(_sums(xp.moveaxis(x, axis, -1), math.sqrt(n) if orthonormal else 1.0), -1, axis)


def hadamard_transform(x: Float[Array, "..."], *, axis: int = -1, inverse: bool = False) -> Float[Array, "..."]:
    """Multiply by the orthogonal matrix ``hadamard_matrix(n) / sqrt(n)`` along one axis.

    For the last axis this is ``x @ hadamard_matrix(n) / sqrt(n)``, at the cost of m + k additions per entry
    with n = m * 2^k.

    Parameters
    ----------
    inverse : multiply by the transpose instead

    Raises
    ------
    InvalidInputError : if no Hadamard matrix of this size is known; it names the nearest sizes that exist

    Examples
    --------
    >>> y = hadamard_transform(np.eye(12))
    >>> np.allclose(hadamard_transform(y, inverse=True), np.eye(12))
    True
    """
    x = _with_axis(x, axis)
    xp = array_namespace(x)
    m, power = _split(x.shape[axis])
    if m == 1:
        return fwht(x, axis=axis, orthonormal=True)
    base = np.array(_base(m) if inverse else _base(m).T)
    base = xp.astype(from_host(base, like=x), x.dtype)
    y = xp.moveaxis(x, axis, -1)
    shape = y.shape
    y = _sums(xp.matmul(base, xp.reshape(y, (*shape[:-1], m, power))), math.sqrt(m * power))
    return xp.moveaxis(xp.reshape(y, shape), -1, axis)


def random_signs(n: int, seed: int) -> Int8[np.ndarray, " n"]:
    """Return n random signs, on the host: the same for every platform and version.

    They are the raw bits of the Philox generator, low bits first, because NumPy fixes its bit streams for
    good but not what its distributions make of them.

    Examples
    --------
    >>> random_signs(6, seed=0)
    array([-1,  1,  1, -1,  1, -1], dtype=int8)
    """
    if n < 1 or seed < 0:
        msg = f"`n` is {n} and `seed` is {seed}; the number of signs is at least 1 and the seed at least 0"
        raise InvalidInputError(msg)
    words = np.random.Philox(seed).random_raw(-(-n // 64))
    bits = (words[:, None] >> np.arange(64, dtype=np.uint64)) & np.uint64(1)
    return (1 - 2 * bits.astype(np.int8)).reshape(-1)[:n]


def randomized_hadamard(x: Float[Array, "*batch n"], seed: int, *, inverse: bool = False) -> Float[Array, "*batch n"]:
    """Rotate the last axis: ``x @ diag(signs) @ hadamard_matrix(n) / sqrt(n)`` with `random_signs` of the seed.

    Parameters
    ----------
    inverse : undo it, that is, multiply by the transpose of that orthogonal matrix

    Raises
    ------
    InvalidInputError : if no Hadamard matrix of this size is known; it names the nearest sizes that exist

    Examples
    --------
    >>> y = randomized_hadamard(np.array([8.0, 0.0, 0.0, 0.0]), seed=1)
    >>> np.abs(y)
    array([4., 4., 4., 4.])
    >>> np.abs(randomized_hadamard(y, seed=1, inverse=True))
    array([8., 0., 0., 0.])
    """
    x = _with_axis(x, -1)
    xp = array_namespace(x)
    signs = xp.astype(from_host(random_signs(x.shape[-1], as_seed(seed)), like=x), x.dtype)
    return hadamard_transform(x, inverse=True) * signs if inverse else hadamard_transform(x * signs)


def _with_axis(x: Array, axis: int) -> Array:
    """An array that has this axis."""
    found = as_array("x", x)
    if not -found.ndim <= axis < found.ndim:
        msg = f"`x` has shape {tuple(found.shape)}, without axis {axis}"
        raise InvalidInputError(msg)
    return found


def _sums(x: Array, divisor: float) -> Array:
    """Transform of the last axis, divided; for large arrays by compiled code, which gives the same bits."""
    enough = NATIVE_LOADED if "numba" in sys.modules else NATIVE
    if isinstance(x, np.ndarray) and x.dtype in (np.float32, np.float64) and x.size >= enough:
        from lattq.kernels import fwht as native  # numba takes most of a second to import

        return native.transform(np.ascontiguousarray(x).reshape(-1, x.shape[-1]), divisor).reshape(x.shape)
    y = _generic_sums(x)
    return y if divisor == 1.0 else y / divisor


def _generic_sums(x: Array) -> Array:
    """Transform of the last axis for any array library."""
    xp, shape = array_namespace(x), x.shape
    for _ in range(shape[-1].bit_length() - 1):
        # Transform the highest bit of the index and make it the lowest: after all bits the order is natural again.
        y = xp.reshape(x, (*shape[:-1], 2, shape[-1] // 2))
        first, second = y[..., 0, :], y[..., 1, :]
        x = xp.stack((first + second, first - second), axis=-1)
    return xp.reshape(x, shape)


def _split(n: int) -> tuple[int, int]:
    """Write n as the smallest m that has a construction times a power of two."""
    split = _find_split(n)
    if split is None:
        smaller = next((k for k in range(n - 1, 0, -1) if _find_split(k)), 1)
        larger = next(k for k in range(max(n, 0) + 1, 2 * max(n, 1) + 1) if _find_split(k))
        msg = f"no Hadamard matrix of size {n} is known here; the nearest sizes are {smaller} and {larger}"
        raise InvalidInputError(msg)
    return split


@lru_cache(maxsize=4096)
def _find_split(n: int) -> tuple[int, int] | None:
    if n < 1:
        return None
    power = n & -n
    if power == n:
        return 1, n
    sizes = ((n // power) << shift for shift in range(2, power.bit_length()))
    return next(((m, n // m) for m in sizes if has_base(m)), None)


@lru_cache(maxsize=64)
def _base(m: int) -> np.ndarray:
    matrix = np.ones((1, 1), dtype=np.int8) if m == 1 else base_matrix(m)
    matrix.setflags(write=False)
    return matrix


def _sylvester(n: int) -> np.ndarray:
    return fwht(np.eye(n, dtype=np.int8))
