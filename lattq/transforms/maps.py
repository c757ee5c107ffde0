"""Invertible changes of input coordinates, (W, Σ) → (W T⁻¹, T Σ Tᵀ): the elementary maps, frozen values."""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from lattq._array import Array, array_namespace, from_host, short_repr
from lattq.coding.damage import reading
from lattq.coding.schema import Either, Octets, Record, checked
from lattq.errors import InvalidInputError
from lattq.parts import register
from lattq.transforms.base import BaseTransform, Divisors
from lattq.transforms.grid import SCALE_GRID, grid_scale, read_grid, stored_grid

__all__ = ["Diagonal", "Identity", "Permutation"]


@register("transform", "identity")
@dataclasses.dataclass(frozen=True)
class Identity(BaseTransform):
    """The transform that changes nothing, and its own design.

    >>> Identity().forward(np.ones((1, 2)))
    array([[1., 1.]])
    """

    plain = True
    keeps_entries = True
    divisors = Divisors()

    def __call__(self, weight: Array, sigma: np.ndarray) -> "Identity":
        """Itself."""
        return self

    def forward(self, weight: Array) -> Array:
        """The weight."""
        return weight

    def inverse(self, weight: Array) -> Array:
        """The weight."""
        return weight

    def congruence(self, sigma: np.ndarray) -> np.ndarray:
        """The second moment."""
        return sigma

    def kept(self, shape: tuple[int, int], found: Any = None) -> Any:
        """As before: no entry is moved."""
        return found

    def on_inputs(self, x: Array) -> Array:
        """As `inverse`: a diagonal is its own transpose."""
        return self.inverse(x)

    def inverse_on_inputs(self, x: Array) -> Array:
        """As `forward`."""
        return self.forward(x)

    def operations(self, columns: int) -> int:
        """None."""
        return 0

    def to_state(self) -> list:
        """Nothing."""
        return []

    @staticmethod
    def from_state(state: list, size: int) -> "Identity":
        """Itself."""
        return Identity(*checked(Record(), state, "identity"))


@register("transform", "diagonal")
@short_repr
@dataclasses.dataclass(frozen=True, eq=False)
class Diagonal(BaseTransform):
    """Columns of the weight times `scale`, inputs divided by it.

    Parameters
    ----------
    scale : positive, one per column. Scales 2^(k/16) are charged as entropy-coded integers, the fewer bits the
        coarser the grid that they lie on; others are rounded to float32, at once, and charged as that, or as bfloat16
        where that holds all of them (see `bfloat16`).

    Examples
    --------
    >>> Diagonal(np.array([1.0, 2.0])).forward(np.ones((1, 2)))
    array([[1., 2.]])
    """

    scale: Float[np.ndarray, " n"]

    schema = Record(scale=Either(Octets(lambda at: 4 * at.columns), Octets(lambda at: 2 * at.columns)))

    def __post_init__(self) -> None:
        if not (np.isfinite(self.scale).all() and (self.scale > 0).all()):
            wrong = self.scale[~(np.isfinite(self.scale) & (self.scale > 0))][0]
            msg = f"`scale` holds {wrong}; the scales of a diagonal transform are positive and finite"
            raise InvalidInputError(msg)
        if self.exponents is None:
            self._round()

    def _round(self) -> None:
        """Take the scales that the container will hold."""
        with np.errstate(over="ignore"):
            rounded = self.scale.astype(np.float32)
        if not (np.isfinite(rounded).all() and (rounded > 0).all()):
            msg = f"scales {self.scale.min():.3g} ... {self.scale.max():.3g} are beyond float32; rescale sigma"
            raise InvalidInputError(msg)
        object.__setattr__(self, "scale", rounded.astype(np.float64))

    def forward(self, weight: Array) -> Array:
        """Columns times scale."""
        _require_size(len(self.scale), weight)
        return weight * _row(self.scale, weight)

    def inverse(self, weight: Array) -> Array:
        """Columns divided by scale."""
        _require_size(len(self.scale), weight)
        return weight / _row(self.scale, weight)

    @property
    def divisors(self) -> Divisors:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The scale, of columns."""
        return Divisors(self.scale)

    def congruence(self, sigma: np.ndarray) -> np.ndarray:
        """Rows and columns divided by scale."""
        _require_size(len(self.scale), sigma)
        return sigma / self.scale / self.scale[:, None]

    @property
    def exponents(self) -> Int[np.ndarray, " n"] | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        """k where every scale is 2^(k/16), else None."""
        nearest = np.rint(SCALE_GRID * np.log2(self.scale)).astype(np.int64)
        return nearest if np.array_equal(grid_scale(nearest), self.scale) else None

    def kept(self, shape: tuple[int, int], found: Any = None) -> Any:
        """As before: no entry is moved."""
        return found

    def on_inputs(self, x: Array) -> Array:
        """As `inverse`: a diagonal is its own transpose."""
        return self.inverse(x)

    def inverse_on_inputs(self, x: Array) -> Array:
        """As `forward`."""
        return self.forward(x)

    def operations(self, columns: int) -> int:
        """One for each column."""
        return columns

    def to_state(self) -> list:
        """Exponents where all scales lie on the grid, else the upper halves of float32 if the lower ones are 0."""
        if self.exponents is not None:
            return stored_grid(self.exponents)
        bits = self.scale.astype("<f4").view("<u4")
        return [self.scale.astype("<f4").tobytes() if (bits & 0xFFFF).any() else (bits >> 16).astype("<u2").tobytes()]

    @staticmethod
    def from_state(state: list, size: int) -> "Diagonal":
        """Inverse of `to_state`."""
        if type(state) is list and len(state) > 1:
            return Diagonal(grid_scale(read_grid(state, size)))
        (data,) = checked(Diagonal.schema, state, "diagonal", columns=size)
        if len(data) == 2 * size:
            data = (np.frombuffer(data, dtype="<u2").astype("<u4") << 16).tobytes()
        scale = np.frombuffer(data, dtype="<f4").astype(np.float64)
        with reading("a diagonal"):
            return Diagonal(scale)


@register("transform", "permutation")
@short_repr
@dataclasses.dataclass(frozen=True, eq=False)
class Permutation(BaseTransform):
    """Columns taken in another order; useful only where groups or blocks depend on it.

    >>> Permutation(np.array([1, 0])).forward(np.array([[3.0, 4.0]]))
    array([[4., 3.]])
    """

    order: Int[np.ndarray, " n"]

    schema = Record(order=Octets(lambda at: at.columns * (2 if at.columns <= 1 << 16 else 4)))

    def __post_init__(self) -> None:
        if not np.array_equal(np.sort(self.order), np.arange(len(self.order))):
            msg = f"`order` is not a permutation of 0 ... {len(self.order) - 1}; each column must appear exactly once"
            raise InvalidInputError(msg)

    def forward(self, weight: Array) -> Array:
        """Columns in the new order."""
        _require_size(len(self.order), weight)
        return array_namespace(weight).take(weight, from_host(self.order, like=weight), axis=1)

    def inverse(self, weight: Array) -> Array:
        """Columns back in their own order."""
        _require_size(len(self.order), weight)
        return array_namespace(weight).take(weight, from_host(np.argsort(self.order), like=weight), axis=1)

    def congruence(self, sigma: np.ndarray) -> np.ndarray:
        """Rows and columns in the new order."""
        _require_size(len(self.order), sigma)
        return sigma[np.ix_(self.order, self.order)]

    def kept(self, shape: tuple[int, int], found: Any = None) -> Any:
        """The same entries in the new order."""
        return None if found is None else found[:, self.order]

    def on_inputs(self, x: Array) -> Array:
        """As `forward`: the map is orthogonal, so that rows times the inverse are rows times the transpose."""
        return self.forward(x)

    def inverse_on_inputs(self, x: Array) -> Array:
        """As `inverse`."""
        return self.inverse(x)

    def operations(self, columns: int) -> int:
        """None."""
        return 0

    def to_state(self) -> list:
        """The order as 16- or 32-bit integers."""
        return [self.order.astype("<u2" if len(self.order) <= 1 << 16 else "<u4").tobytes()]

    @staticmethod
    def from_state(state: list, size: int) -> "Permutation":
        """Inverse of `to_state`."""
        (data,) = checked(Permutation.schema, state, "permutation", columns=size)
        order = np.frombuffer(data, dtype="<u2" if size <= 1 << 16 else "<u4").astype(np.int64)
        with reading("a permutation"):
            return Permutation(order)


def _row(values: np.ndarray, like: Array) -> Array:
    xp = array_namespace(like)
    return xp.astype(from_host(values[None, :].copy(), like=like), like.dtype)


def _require_size(size: int, x: Array) -> None:
    if x.shape[-1] != size:
        msg = f"a transform of {size} columns does not fit an array of shape {tuple(x.shape)}"
        raise InvalidInputError(msg)
