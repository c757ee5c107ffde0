"""Hadamard matrices of sizes that are not powers of two: the constructions of Paley and Williamson."""

import math
from functools import lru_cache

import numpy as np
from jaxtyping import Int8

__all__ = ["base_matrix", "has_base"]

LARGEST = 2048  # a base is multiplied as a dense matrix: larger ones cost more than any layer gains

# For odd t, four symmetric sequences of signs of period t whose periodic autocorrelations cancel, given by the
# places of the minus signs in the first half (1 ... (t - 1) / 2). They make the sizes 4 t that Paley leaves out.
_WILLIAMSON = {
    23: ((2, 4, 7, 9, 10), (1, 2, 3, 11), (1, 2, 5, 6, 7, 9, 11), (1, 7, 8, 9, 11)),
    29: (
        (1, 2, 5, 7, 9, 14),
        (2, 6, 7, 8, 9, 10, 11, 13),
        (3, 4, 8, 10, 13),
        (2, 7, 8, 9, 10, 12, 13),
    ),
    39: (
        (1, 5, 8, 9, 10, 11, 12, 13, 15, 16, 18),
        (1, 3, 6, 8, 9, 11, 12, 15, 16, 17, 18, 19),
        (2, 3, 4, 6, 11, 12, 13, 15, 16, 17, 19),
        (1, 3, 6, 7, 8, 9, 13, 14, 17, 18, 19),
    ),
    43: (
        (1, 3, 6, 7, 9, 11, 18, 20, 21),
        (4, 9, 10, 11, 15, 16, 17, 19, 20),
        (1, 2, 6, 7, 9, 10, 11, 12, 14, 16, 17, 20),
        (1, 5, 6, 7, 8, 10, 13, 16, 17),
    ),
}


def has_base(m: int) -> bool:
    """Tell whether `base_matrix` can build size m.

    >>> [m for m in range(4, 100, 4) if not has_base(m)]
    [16, 40, 56, 64, 88, 96]
    """
    return m % 4 == 0 and m <= LARGEST and (m // 4 in _WILLIAMSON or _paley_one(m) or _paley_two(m))


def base_matrix(m: int) -> Int8[np.ndarray, "m m"]:
    """Return a Hadamard matrix of a size for which `has_base` holds.

    References
    ----------
    Paley, "On orthogonal matrices", J. Math. Phys. 12, 1933; Williamson, "Hadamard's determinant theorem and the
    sum of four squares", Duke Math. J. 11, 1944. The Williamson sequences of period 43 were found among those
    fixed by the multiplier 6, the others by matching pairs of autocorrelations.

    Examples
    --------
    >>> matrix = base_matrix(172).astype(int)
    >>> np.array_equal(matrix @ matrix.T, 172 * np.eye(172))
    True
    """
    if m // 4 in _WILLIAMSON:
        return _williamson(m // 4)
    if _paley_one(m):
        skew = _bordered(_jacobsthal(m - 1), -1)
        return skew + np.eye(m, dtype=np.int8)
    conference = _bordered(_jacobsthal(m // 2 - 1), 1)
    corner = np.array([[1, 1], [1, -1]], dtype=np.int8)
    diagonal = np.array([[1, -1], [-1, -1]], dtype=np.int8)
    return np.kron(conference, corner) + np.kron(np.eye(m // 2, dtype=np.int8), diagonal)


def _paley_one(m: int) -> bool:
    return (m - 1) % 4 == 3 and _is_prime(m - 1)


def _paley_two(m: int) -> bool:
    q = m // 2 - 1
    return m % 2 == 0 and q % 4 == 1 and (_is_prime(q) or _is_prime_square(q))


@lru_cache(maxsize=4096)
def _is_prime(q: int) -> bool:
    return q > 1 and all(q % factor for factor in range(2, math.isqrt(q) + 1))


def _is_prime_square(q: int) -> bool:
    root = math.isqrt(q)
    return root * root == q and root > 2 and _is_prime(root)


def _legendre(p: int) -> np.ndarray:
    """Return the table of 0, 1 for squares and -1 for non-squares modulo an odd prime."""
    table = np.full(p, -1, dtype=np.int8)
    table[np.arange(1, p, dtype=np.int64) ** 2 % p] = 1
    table[0] = 0
    return table


def _jacobsthal(q: int) -> np.ndarray:
    """Return the matrix of quadratic characters of differences in the field with q elements, q = p or p^2."""
    if _is_prime(q):
        index = np.arange(q)
        return _legendre(q)[(index[:, None] - index) % q]
    p = math.isqrt(q)
    legendre = _legendre(p)
    nonsquare = int(np.flatnonzero(legendre == -1)[0])
    # Elements a + b w with w^2 a non-square: the character of an element is the one of its norm a^2 - w^2 b^2.
    a, b = np.divmod(np.arange(q), p)
    norm = (a[:, None] - a) ** 2 - nonsquare * (b[:, None] - b) ** 2
    return legendre[norm % p]


def _bordered(core: np.ndarray, sign: int) -> np.ndarray:
    """Add a first row of ones and a first column of `sign`: a conference matrix."""
    matrix = np.zeros((len(core) + 1, len(core) + 1), dtype=np.int8)
    matrix[0, 1:], matrix[1:, 0], matrix[1:, 1:] = 1, sign, core
    return matrix


def _williamson(t: int) -> np.ndarray:
    a, b, c, d = (_symmetric_circulant(t, minus) for minus in _WILLIAMSON[t])
    return np.block([[a, b, c, d], [-b, a, -d, c], [-c, d, a, -b], [-d, -c, b, a]])


def _symmetric_circulant(t: int, minus: tuple[int, ...]) -> np.ndarray:
    sequence = np.ones(t, dtype=np.int8)
    places = np.array(minus)
    sequence[places] = sequence[t - places] = -1
    index = np.arange(t)
    return sequence[(index[:, None] - index) % t]
