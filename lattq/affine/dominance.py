"""Strict diagonal dominance and what follows from it: a certificate that a matrix is invertible, and how well."""

import dataclasses
import math

import numpy as np
from jaxtyping import Float

from lattq._array import Array, as_reals, to_host
from lattq._options import as_flag
from lattq.affine.checks import host_square
from lattq.affine.gaps import InverseBounds, determinant_interval, dominance_ratio, gaps, inverse_bounds
from lattq.affine.inverses import Factors, factor
from lattq.errors import InvalidInputError

__all__ = [
    "Certificate",
    "certificate",
    "certify",
    "condition",
    "random_signs",
    "require_invertible",
    "round_trip",
]

PROBES = 16  # rows that are sent through the map and back


@dataclasses.dataclass(frozen=True)
class Certificate:
    """What diagonal dominance says about A = M T0; T0 = I where no reference was given.

    Bounds are infinite, and the determinant's lower end is -inf, where M is not dominant enough for them. What is
    called measured is None where it was not asked for.

    Attributes
    ----------
    row_ratio, column_ratio : largest sum of the absolute off-diagonals over the diagonal of a row, of a column, of M;
        below 1 is dominant
    dominant_rows : fraction of the rows with a ratio below 1
    inverse_inf, inverse_one, inverse_two : bounds on the largest row sum of M⁻¹, column sum, singular value
    condition_inf, condition_two : bounds on the condition numbers of M in these norms
    log_determinant : an interval that holds log|det A|
    measured_condition : κ₂ of M
    reference_condition : κ₂ of T0; that of A is at most the product with `condition_two`
    error : largest entry of x − (x A⁻¹) A over rows of random signs, solved in the dtype of the matrix

    Examples
    --------
    >>> found = certificate(np.array([[4.0, 1.0], [-1.0, 2.0]]))
    >>> found.row_ratio, found.inverse_inf, found.condition_inf
    (0.5, 1.0, 5.0)
    >>> found.dominant, found.scaled_condition
    (True, 3.0)
    """

    row_ratio: float
    column_ratio: float
    dominant_rows: float
    inverse_inf: float
    inverse_one: float
    inverse_two: float
    condition_inf: float
    condition_two: float
    log_determinant: tuple[float, float]
    measured_condition: float | None = None
    reference_condition: float | None = None
    error: float | None = None

    @property
    def dominant(self) -> bool:
        """Whether all rows, or all columns, are strictly dominant: then A is invertible."""
        return min(self.row_ratio, self.column_ratio) < 1

    @property
    def certified(self) -> bool:
        """Whether any bound on the inverse is finite: by dominance, by mean gaps, or by the structure of a map."""
        return min(self.inverse_inf, self.inverse_one, self.inverse_two) < math.inf

    @property
    def scaled_condition(self) -> float:
        """Bound (1 + ρ) / (1 − ρ) on κ∞ of I + N: what a solve sees that divides by D apart."""
        return (1 + self.row_ratio) / (1 - self.row_ratio) if self.row_ratio < 1 else math.inf


def certificate(
    matrix: Float[Array, "n n"],
    reference: Float[Array, "n n"] | None = None,
    *,
    strict: bool = False,
    measure: bool = True,
) -> Certificate:
    """What diagonal dominance says about a matrix A, around a reference T0 if one is given.

    Any matrix can be measured; of one that is not dominant the bounds are infinite. Sums are rounded up in float64, so
    the bounds hold for the numbers as they are stored; around a reference, for A T0⁻¹ as it is computed in float64.

    Parameters
    ----------
    matrix : A
    reference : T0, invertible; ratios, norms and condition numbers are then those of M = A T0⁻¹
    strict : raise unless A is certified
    measure : also measure condition numbers (a singular value decomposition) and the error of the inverse

    Raises
    ------
    InvalidInputError
        if an array is not square, empty, or holds NaN; if `reference` is singular or of another size; and where
        `strict`, if no bound on M⁻¹ is finite: it names the worst row

    References
    ----------
    Levy 1881 and Desplanques 1887 (invertible); Varah, "A lower bound for the smallest singular value of a matrix",
    1975 (norms of the inverse); Johnson, "A Gersgorin-type lower bound for the smallest singular value", 1989;
    Ostrowski 1937 (determinant).

    Examples
    --------
    >>> rotation = np.array([[0.0, 1.0], [-1.0, 0.0]])      # far from dominant, and perfect as a reference
    >>> certificate(rotation).dominant_rows, certificate(rotation).inverse_inf
    (0.0, inf)
    >>> certificate(np.array([[2.0, 0.5], [-0.5, 1.0]]) @ rotation, rotation).inverse_inf
    2.0
    """
    strict, measure = as_flag("strict", strict), as_flag("measure", measure)
    whole = host_square("matrix", matrix)
    core, log_reference, base = whole, 0.0, None
    if reference is not None:
        base = host_square("reference", reference)
        factors = require_invertible("reference", base)
        if factors.size != len(whole):
            msg = f"`reference` has {factors.size} rows and `matrix` {len(whole)}; pass matrices of one size"
            raise InvalidInputError(msg)
        core, log_reference = factors.solve_rows(whole), factors.logabsdet()
    found = certify(core, log_reference)
    if strict and not found.certified:
        raise _not_dominant(core)
    if not measure:
        return found
    return dataclasses.replace(
        found,
        measured_condition=condition(core),
        reference_condition=1.0 if base is None else condition(base),
        error=round_trip(as_reals("matrix", matrix)),
    )


def certify(
    matrix: Float[np.ndarray, "n n"], log_reference: float = 0.0, known: InverseBounds | None = None
) -> Certificate:
    """The certificate of a host matrix without what is measured.

    Parameters
    ----------
    log_reference : added to the logarithm of the determinant
    known : bounds on the inverse that hold for another reason

    >>> certify(np.array([[2.0]])).log_determinant[0] == math.log(2)
    True
    """
    found = gaps(matrix)
    bounds = inverse_bounds(found)
    if known is not None:
        bounds = bounds.least(known)
    with np.errstate(over="ignore"):
        norm_inf, norm_one = float(np.max(found.diagonal + found.rows)), float(np.max(found.diagonal + found.columns))
        norm_two = min(math.sqrt(norm_inf) * math.sqrt(norm_one), float(np.linalg.norm(matrix)))
    low, high = determinant_interval(matrix, found)
    return Certificate(
        row_ratio=dominance_ratio(found.rows, found.diagonal),
        column_ratio=dominance_ratio(found.columns, found.diagonal),
        dominant_rows=float(np.mean(found.rows < found.diagonal)),
        inverse_inf=bounds.inf,
        inverse_one=bounds.one,
        inverse_two=bounds.two,
        condition_inf=_product(norm_inf, bounds.inf),
        condition_two=_product(norm_two, bounds.two),
        log_determinant=(low + log_reference, high + log_reference),
    )


def round_trip(matrix: Float[Array, "n n"]) -> float:
    """Largest entry of x − (x A⁻¹) A over rows of random signs; infinite for a singular matrix.

    >>> round_trip(np.eye(3))
    0.0
    """
    host = to_host(matrix)
    signs, factors = random_signs(len(host)).astype(host.dtype), factor(host)
    if not factors.regular:
        return math.inf
    with np.errstate(over="ignore", invalid="ignore"):
        back = factors.solve_rows(signs).astype(np.float64) @ host.astype(np.float64)
    error = float(np.abs(signs - back).max())
    return error if math.isfinite(error) else math.inf


def random_signs(n: int) -> Float[np.ndarray, "probes n"]:
    """Rows of random signs, always the same.

    >>> np.unique(random_signs(4))
    array([-1.,  1.])
    """
    return np.where(np.random.default_rng(0).random((PROBES, n)) < 0.5, -1.0, 1.0)


def condition(matrix: Float[np.ndarray, "n n"]) -> float:
    """κ₂, measured; infinite for a singular matrix.

    >>> condition(np.diag([4.0, 1.0]))
    4.0
    """
    singular = np.linalg.svd(matrix, compute_uv=False)
    return float(singular[0] / singular[-1]) if singular[-1] > 0 else math.inf


def require_invertible(name: str, matrix: Float[np.ndarray, "n n"]) -> Factors:
    """The factors of a float64 host matrix; raises `InvalidInputError` if it is singular to working precision.

    >>> require_invertible("reference", np.eye(2)).size
    2
    """
    found = factor(matrix)
    if found.reciprocal_condition() < np.finfo(np.float64).eps:
        msg = f"`{name}` is singular: 1/κ is {found.reciprocal_condition():.2g}; pass an invertible matrix"
        raise InvalidInputError(msg)
    return found


def _product(norm: float, bound: float) -> float:
    return norm * bound if math.isfinite(bound) else math.inf


def _not_dominant(matrix: np.ndarray) -> InvalidInputError:
    found = gaps(matrix)
    worst = int(np.argmin(found.diagonal - found.rows))
    return InvalidInputError(
        f"row {worst} of `matrix` has the diagonal {found.diagonal[worst]:.6g} and off-diagonals of sum "
        f"{found.rows[worst]:.6g}; it is dominant neither by rows nor by columns, `project` it"
    )
