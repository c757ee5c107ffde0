"""The affine map A = D (I + N) T0 as a value: what it does to weights and inputs, its certificate and its price."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float

from lattq._array import Array, as_floats, from_host, host_reals, short_repr, to_host
from lattq._options import as_flag
from lattq.affine.checks import host_square
from lattq.affine.dominance import Certificate, certify, condition, random_signs
from lattq.affine.gaps import InverseBounds, gaps
from lattq.affine.linear import Dense, Identity, LinearMap
from lattq.errors import InvalidInputError

__all__ = ["AffineMap"]


@short_repr
@dataclasses.dataclass(frozen=True, eq=False)
class AffineMap:
    """A = D (I + N) T0 with a dominant D (I + N): certified invertible around the reference T0.

    The layer y = W x equals the layer `on_weight(W)` on inputs `on_inputs(X)`.

    Parameters
    ----------
    diagonal : D, no entry 0
    mixing : I + N with ones on its diagonal, of `lattq.affine.structures` or `linear`; an array is `Dense`; I if None
    reference : T0, such a structure or an array; I if None

    Raises
    ------
    InvalidInputError
        if sizes differ, an entry of D is 0 or not finite, the diagonal of `mixing` is not 1, T0 is singular, or
        neither dominance nor the structure certifies `mixing`

    Examples
    --------
    >>> found = AffineMap(np.array([2.0, 1.0]), np.array([[1.0, 0.5], [-0.5, 1.0]]))
    >>> weight, x = np.array([[1.0, 2.0]]), np.array([[3.0, 5.0]])
    >>> x @ weight.T, found.on_inputs(x) @ found.on_weight(weight).T
    (array([[13.]]), array([[13.]]))
    >>> found.certificate().row_ratio
    0.5
    """

    diagonal: Float[np.ndarray, " n"]
    mixing: Any = None  # a `LinearMap` from here on
    reference: Any = None

    def __post_init__(self) -> None:
        diagonal = host_reals("diagonal", self.diagonal)
        if diagonal.ndim != 1 or not len(diagonal) or (diagonal == 0).any():
            msg = (
                f"`diagonal` has shape {diagonal.shape} and {(diagonal == 0).sum()} zeros; pass n numbers other than 0"
            )
            raise InvalidInputError(msg)
        object.__setattr__(self, "diagonal", diagonal)
        for name in ("mixing", "reference"):
            object.__setattr__(self, name, _structure(name, getattr(self, name), len(diagonal)))
        self._check_mixing()

    @classmethod
    def from_matrix(cls, matrix: Float[Array, "n n"], reference: LinearMap | Array | None = None) -> "AffineMap":
        """The map with this A; raises `InvalidInputError` where A T0⁻¹ is not dominant: `project` it first.

        >>> AffineMap.from_matrix(np.array([[2.0, 1.0], [0.0, 1.0]])).diagonal
        array([2., 1.])
        """
        whole = host_square("matrix", matrix)
        base = _structure("reference", reference, len(whole))
        core = base.solve(whole)
        diagonal = np.diag(core).copy()
        if (diagonal == 0).any():
            msg = (
                f"`matrix` has {(diagonal == 0).sum()} zeros on its diagonal, around its reference; `project` it first"
            )
            raise InvalidInputError(msg)
        mixing = core / diagonal[:, None]
        np.fill_diagonal(mixing, 1.0)
        return cls(diagonal, Dense(mixing), base)

    @property
    def size(self) -> int:
        """Columns of the weights."""
        return len(self.diagonal)

    @property
    def values(self) -> int:
        """Numbers that must be stored: D, N and T0."""
        return self.size + self.mixing.values + self.reference.values

    @property
    def operations(self) -> int:
        """Multiplications for one row of inputs, where the map stays at run time."""
        return self.size + self.mixing.operations + self.reference.operations

    def stored_bytes(self, value_bytes: int = 2) -> int:
        """Bytes of all stored numbers; folded maps store none.

        >>> AffineMap(np.ones(4)).stored_bytes()
        8
        """
        return self.values * value_bytes

    def matrix(self) -> Float[np.ndarray, "n n"]:
        """A."""
        return self.diagonal[:, None] * self.reference.apply(self.mixing.matrix())

    def on_weight(self, weight: Float[Array, "rows n"]) -> Float[Array, "rows n"]:
        """W Aᵀ, in the dtype of the weight."""
        return self._rows("weight", weight, self.apply, transposed=True)

    def inverse_on_weight(self, weight: Float[Array, "rows n"]) -> Float[Array, "rows n"]:
        """W A⁻ᵀ: undoes `on_weight`, and is what dequantized weights become."""
        return self._rows("weight", weight, self.solve, transposed=True)

    def on_inputs(self, x: Float[Array, "*batch n"]) -> Float[Array, "*batch n"]:
        """X A⁻¹ for rows X."""
        return self._rows("x", x, self.solve, transposed=False)

    def on_moment(self, sigma: Float[Array, "n n"]) -> Float[np.ndarray, "n n"]:
        """A⁻ᵀ Σ A⁻¹, the second moment of the new inputs.

        >>> AffineMap(np.array([2.0])).on_moment(np.array([[4.0]]))
        array([[1.]])
        """
        half = self.on_inputs(host_square("sigma", sigma))
        found = self.on_inputs(np.ascontiguousarray(half.T))
        return (found + found.T) / 2

    def apply(self, x: np.ndarray, *, transposed: bool = False) -> np.ndarray:
        """X A, or X Aᵀ, for float64 rows of the host: a map is a `LinearMap`, and can be a reference itself."""
        if transposed:
            return self.mixing.apply(self.reference.apply(x, transposed=True), transposed=True) * self.diagonal
        return self.reference.apply(self.mixing.apply(x * self.diagonal))

    def solve(self, x: np.ndarray, *, transposed: bool = False) -> np.ndarray:
        """X A⁻¹, or X A⁻ᵀ."""
        if transposed:
            return self.reference.solve(self.mixing.solve(x / self.diagonal, transposed=True), transposed=True)
        return self.mixing.solve(self.reference.solve(x)) / self.diagonal

    def logabsdet(self) -> float:
        """log|det A|, exact up to rounding."""
        return float(np.sum(np.log(np.abs(self.diagonal)))) + self.mixing.logabsdet() + self.reference.logabsdet()

    def inverse_bounds(self) -> InverseBounds:
        """Bounds on A⁻¹: those of D (I + N) times those that the reference gives."""
        return self._relative_bounds().times(self.reference.inverse_bounds())

    def certificate(self, *, measure: bool = True) -> Certificate:
        """Bounds of D (I + N), relative to T0, with those of the structure where they are better.

        Parameters
        ----------
        measure : also measure condition numbers, and the error that is left where A and x A⁻¹ are kept in float32
        """
        core = self.diagonal[:, None] * self.mixing.matrix()
        found = certify(core, self.reference.logabsdet(), self._relative_bounds())
        if not as_flag("measure", measure):
            return found
        return dataclasses.replace(
            found,
            measured_condition=condition(core),
            reference_condition=condition(self.reference.matrix()),
            error=self._error(),
        )

    def _relative_bounds(self) -> InverseBounds:
        """Bounds on (D (I + N))⁻¹ that the structure gives."""
        return self.mixing.inverse_bounds().over(float(np.abs(self.diagonal).min()))

    def _error(self) -> float:
        """Largest entry of x − (x A⁻¹) A, with x A⁻¹ and A rounded to float32."""
        signs = random_signs(self.size)
        back = self.solve(signs).astype(np.float32).astype(np.float64) @ self.matrix().astype(np.float32)
        return float(np.abs(signs - back).max())

    def _rows(self, name: str, x: Array, act: Callable[..., np.ndarray], *, transposed: bool) -> Array:
        """Act on rows of any library in float64, and round to their dtype."""
        given = as_floats(name, x)
        if given.ndim < 1 or given.shape[-1] != self.size:
            msg = f"`{name}` has shape {tuple(given.shape)}, but the map has {self.size} columns"
            raise InvalidInputError(msg)
        host = to_host(given)
        found = act(host.astype(np.float64), transposed=transposed).astype(host.dtype)
        return from_host(found, like=given)

    def _check_mixing(self) -> None:
        """Ones on the diagonal, and certified: by dominance of rows or columns, or by its structure."""
        mixing = self.mixing.matrix()
        if not np.array_equal(np.diag(mixing), np.ones(self.size)):
            worst = int(np.argmax(np.abs(np.diag(mixing) - 1)))
            msg = f"`mixing` has {mixing[worst, worst]:.6g} on its diagonal at {worst}; it is I + N, D has the scales"
            raise InvalidInputError(msg)
        found = gaps(mixing)
        certified = found.rows.max() < 1 or found.columns.max() < 1 or min(self.mixing.inverse_bounds()) < np.inf
        if not certified:
            worst = int(np.argmax(found.rows))
            msg = (
                f"`mixing` is not dominant: off-diagonals of row {worst} sum to {found.rows[worst]:.6g}; `project` it, "
                f"or pass it as `reference`, which need only be invertible"
            )
            raise InvalidInputError(msg)


def _structure(name: str, given: LinearMap | Array | None, size: int) -> LinearMap:
    """A structure of this size: itself, I for None, `Dense` for an array."""
    if given is None:
        return Identity(size)
    found = given if isinstance(given, LinearMap) else Dense(host_square(name, given))
    if found.size != size:
        msg = f"`{name}` has {found.size} rows, but the map has {size}; pass one size"
        raise InvalidInputError(msg)
    return found
