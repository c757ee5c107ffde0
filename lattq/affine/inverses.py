"""Inverses of diagonally dominant matrices: factors without pivots, solves, and two series with their bounds.

Eliminating without exchanging rows is safe here: every Schur complement is dominant with a ratio no larger, entries
grow at most by 2, and the factors satisfy ‖|L| |U|‖∞ ≤ (1 + ρ) / (1 − ρ) ‖A‖∞, whatever n is (theory 12.5). By
columns of the transpose the diagonal is then the largest entry, so that LAPACK, which takes the largest, keeps it.
"""

import dataclasses
import math
import warnings

import numpy as np
from array_api_compat import device
from jaxtyping import Float, Int
from scipy.linalg import get_lapack_funcs, lu_factor, lu_solve

from lattq._array import Array, array_namespace, as_floats
from lattq._options import as_float, as_integer
from lattq.affine.checks import at_least, check_ratio, require_square
from lattq.errors import InvalidInputError

__all__ = [
    "Factors",
    "factor",
    "inverse",
    "neumann",
    "neumann_error",
    "neumann_terms",
    "newton_schulz",
    "newton_schulz_error",
    "newton_schulz_steps",
    "solve_error",
]


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Factors:
    """A = L U with L lower triangular and U unit upper triangular, kept as the factors of the transpose.

    Attributes
    ----------
    packed : Uᵀ, unit lower triangular, and Lᵀ in one matrix
    order : of the columns of A; 0, 1, 2 ... where A is dominant by rows
    largest : of the absolute entries of A

    Examples
    --------
    >>> found = factor(np.array([[4.0, 1.0], [-1.0, 2.0]]))
    >>> found.solve_rows(np.array([[4.0, 1.0]])), found.pivot_free
    (array([[1., 0.]]), True)
    """

    packed: Float[np.ndarray, "n n"]
    order: Int[np.ndarray, " n"]
    largest: float
    norm_inf: float

    @property
    def size(self) -> int:
        """Rows of A."""
        return len(self.packed)

    @property
    def pivot_free(self) -> bool:
        """Whether no columns were exchanged."""
        return bool(np.array_equal(self.order, np.arange(self.size)))

    @property
    def growth(self) -> float:
        """Largest absolute entry of a pivot row or column, over that of A; at most 2 if A is dominant by rows."""
        rows = np.tril(self.packed, -1) * np.diag(self.packed)
        return float(max(np.abs(np.triu(self.packed)).max(), np.abs(rows).max()) / self.largest)

    @property
    def regular(self) -> bool:
        """Whether all pivots are numbers other than zero."""
        pivots = np.diag(self.packed)
        return bool(np.isfinite(pivots).all() and (pivots != 0).all())

    def solve_rows(self, x: Float[np.ndarray, "*batch n"]) -> Float[np.ndarray, "*batch n"]:
        """X A⁻¹ for rows X."""
        return self._solved(x, 0)

    def solve_transposed(self, x: Float[np.ndarray, "*batch n"]) -> Float[np.ndarray, "*batch n"]:
        """X A⁻ᵀ for rows X."""
        return self._solved(x, 1)

    def logabsdet(self) -> float:
        """log|det A|: what the factors know anyway."""
        with np.errstate(divide="ignore"):
            return float(np.sum(np.log(np.abs(np.diag(self.packed)).astype(np.float64))))

    def reciprocal_condition(self) -> float:
        """1 / κ∞ as LAPACK estimates it; 0 for a singular matrix."""
        if not self.regular:
            return 0.0
        (gecon,) = get_lapack_funcs(("gecon",), (self.packed,))
        return float(gecon(self.packed, self.norm_inf, norm="1")[0])

    def _solved(self, x: np.ndarray, transposed: int) -> np.ndarray:
        if x.shape[-1] != self.size:
            msg = f"a matrix of {self.size} rows does not fit an array of shape {x.shape}"
            raise InvalidInputError(msg)
        right = x.reshape(-1, self.size).T
        found = lu_solve((self.packed, self.order), right, trans=transposed, check_finite=False)
        return np.ascontiguousarray(found.T).reshape(x.shape)


def factor(matrix: Float[np.ndarray, "n n"]) -> Factors:
    """Factors of a host matrix in its dtype; without exchanges where it is dominant by rows.

    >>> factor(np.eye(2, dtype=np.float32)).packed.dtype
    dtype('float32')
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an exact zero pivot: `regular` says so
        packed, order = lu_factor(matrix.T, check_finite=False)
    magnitudes = np.abs(matrix)
    return Factors(packed, order, float(magnitudes.max()), float(magnitudes.sum(axis=1).max()))


def inverse(matrix: Float[Array, "*batch n n"]) -> Float[np.ndarray, "*batch n n"]:
    """A⁻¹ from the factors, of one matrix or of a batch, in its dtype, on the host.

    Where only X A⁻¹ is wanted, `factor(...).solve_rows` takes a third of the work.

    Raises
    ------
    InvalidInputError : if a matrix is not square, empty, holds NaN, or is singular

    >>> inverse(np.array([[[2.0]], [[4.0]]])).ravel()
    array([0.5 , 0.25])
    """
    found = np.asarray(as_floats("matrix", matrix))
    require_square("matrix", found)
    flat = found.reshape(-1, *found.shape[-2:])
    return np.stack([_inverted(one) for one in flat]).reshape(found.shape)


def _inverted(matrix: np.ndarray) -> np.ndarray:
    factors = factor(matrix)
    getri, getri_lwork = get_lapack_funcs(("getri", "getri_lwork"), (factors.packed,))
    found, info = getri(factors.packed, factors.order, lwork=int(getri_lwork(factors.size)[0].real))
    if info:
        msg = f"`matrix` is singular: its pivot {info - 1} is 0; `project` it, or pass an invertible one"
        raise InvalidInputError(msg)
    return found.T


def solve_error(n: int, ratio: float, dtype: np.dtype | type = np.float32) -> float:
    """Bound on the relative error of solves with I + N by rows in a dtype: 3 n u ((1 + ρ) / (1 − ρ))² / (1 − 3 n u).

    With u half the machine epsilon; for x (I + N)⁻¹ in the 1-norm, for (I + N)⁻¹ x in the largest entry, and for
    the residual relative to x in the same norms (theory 12.5). Rounding errors that do not conspire give √n for n.

    Raises
    ------
    InvalidInputError : unless 0 < ratio < 1

    >>> f"{solve_error(256, 0.5):.1e}", f"{solve_error(256, 0.9, np.float64):.1e}"
    ('4.1e-04', '3.1e-11')
    """
    rounding = 3 * as_integer("n", n) * float(np.finfo(dtype).eps) / 2
    ratio = check_ratio(ratio)
    return rounding / (1 - rounding) * ((1 + ratio) / (1 - ratio)) ** 2


def neumann(x: Float[Array, "rows n"], off: Float[Array, "n n"], terms: int) -> Float[Array, "rows n"]:
    """X Σ (−N)^k over k < `terms`: rows times (I + N)⁻¹ without forming it, one product with N for each term but one.

    The error is at most ‖N‖^terms / (1 − ‖N‖) times x in any norm (`neumann_error`).

    >>> neumann(np.array([[1.0, 0.0]]), np.array([[0.0, 0.5], [0.0, 0.0]]), 2)
    array([[ 1. , -0.5]])
    """
    found = x
    for _ in range(at_least("terms", terms, 1) - 1):
        found = x - array_namespace(x).matmul(found, off)
    return found


def neumann_error(ratio: float, terms: int) -> float:
    """Bound on ‖(I + N)⁻¹ − Σ‖ after `terms` terms, ‖N‖ ≤ ratio: ρ^terms / (1 − ρ).

    >>> neumann_error(0.5, 3)
    0.25
    """
    ratio = check_ratio(ratio)
    return ratio ** at_least("terms", terms, 1) / (1 - ratio)


def neumann_terms(ratio: float, error: float) -> int:
    """Least number of terms for which `neumann_error` is at most `error`.

    >>> neumann_terms(0.5, 0.25)
    3
    """
    return max(1, math.ceil(_powers(ratio, error)))


def newton_schulz(
    off: Float[Array, "*batch n n"], steps: int, start: Float[Array, "*batch n n"] | None = None
) -> Float[Array, "*batch n n"]:
    """(I + N)⁻¹ by `steps` steps X ← X (2 I − (I + N) X), two products each; any array library.

    Each step squares the residual I − (I + N) X, which starts as −N: the error is at most ρ^(2^steps) / (1 − ρ).

    Parameters
    ----------
    off : N
    start : instead of I, such as the inverse before a small change of N

    References
    ----------
    Schulz 1933.

    Examples
    --------
    >>> newton_schulz(np.array([[0.0, 0.5], [0.0, 0.0]]), 1)
    array([[ 1. , -0.5],
           [ 0. ,  1. ]])
    """
    xp = array_namespace(off)
    eye = xp.eye(off.shape[-1], dtype=off.dtype, device=device(off))
    steps, matrix = at_least("steps", steps, 0), eye + off
    found = xp.broadcast_to(eye, off.shape) if start is None else start
    for _ in range(steps):
        found = 2 * found - xp.matmul(found, xp.matmul(matrix, found))
    return found


def newton_schulz_error(ratio: float, steps: int) -> float:
    """Bound on ‖(I + N)⁻¹ − X‖ after `steps` steps from I, ‖N‖ ≤ ratio.

    >>> newton_schulz_error(0.5, 2)
    0.125
    """
    ratio = check_ratio(ratio)
    return ratio ** (2.0 ** at_least("steps", steps, 0)) / (1 - ratio)


def newton_schulz_steps(ratio: float, error: float) -> int:
    """Least number of steps for which `newton_schulz_error` is at most `error`.

    >>> newton_schulz_steps(0.5, 1e-7), newton_schulz_steps(0.9, 1e-7)
    (5, 8)
    """
    return max(0, math.ceil(math.log2(max(_powers(ratio, error), 1e-300))))


def _powers(ratio: float, error: float) -> float:
    """K with ρ^K = error (1 − ρ)."""
    ratio, error = check_ratio(ratio), as_float("error", error)
    if not 0 < error < math.inf:
        msg = f"`error` is {error}; ask for a positive one, such as 1e-7"
        raise InvalidInputError(msg)
    return math.log(error * (1 - ratio)) / math.log(ratio)
