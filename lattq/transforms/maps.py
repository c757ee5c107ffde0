"""Invertible changes of input coordinates, (W, Σ) → (W T⁻¹, T Σ Tᵀ): the maps themselves, frozen values."""

import dataclasses
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int

from lattq._array import Array, array_namespace, from_host
from lattq.coding import decode_integers, encode_integers
from lattq.errors import InvalidInputError
from lattq.linalg import randomized_hadamard

__all__ = [
    "SCALE_GRID",
    "Chain",
    "Diagonal",
    "Folded",
    "Hadamard",
    "Identity",
    "Permutation",
    "Transform",
    "from_state",
    "grid_scale",
    "octaves",
    "to_state",
]

SCALE_GRID = 16  # scales of `Equalize` lie on a grid of 1/16 octave, which costs 0.0002 bit a weight


@runtime_checkable
class Transform(Protocol):
    """An invertible map of input coordinates."""

    def forward(self, weight: Array) -> Array:
        """W T⁻¹."""
        ...

    def inverse(self, weight: Array) -> Array:
        """W T; undoes `forward`."""
        ...

    def congruence(self, sigma: np.ndarray) -> np.ndarray:
        """T Σ Tᵀ, the second moment of the transformed inputs."""
        ...


@dataclasses.dataclass(frozen=True)
class Identity:
    """The transform that changes nothing, and its own design.

    >>> Identity().forward(np.ones((1, 2)))
    array([[1., 1.]])
    """

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

    def to_state(self) -> list:
        """Nothing."""
        return []

    @staticmethod
    def from_state(state: list, size: int) -> "Identity":
        """Itself."""
        return Identity()


@dataclasses.dataclass(frozen=True, eq=False)
class Diagonal:
    """Columns of the weight times `scale`, inputs divided by it.

    Parameters
    ----------
    scale : positive, one per column. Scales 2^(k/16) are charged as entropy-coded integers, others as float32.

    Examples
    --------
    >>> Diagonal(np.array([1.0, 2.0])).forward(np.ones((1, 2)))
    array([[1., 2.]])
    """

    scale: Float[np.ndarray, " n"]

    def __post_init__(self) -> None:
        if not (np.isfinite(self.scale).all() and (self.scale > 0).all()):
            wrong = self.scale[~(np.isfinite(self.scale) & (self.scale > 0))][0]
            msg = f"`scale` holds {wrong}; the scales of a diagonal transform are positive and finite"
            raise InvalidInputError(msg)

    def forward(self, weight: Array) -> Array:
        """Columns times scale."""
        return weight * _row(self.scale, weight)

    def inverse(self, weight: Array) -> Array:
        """Columns divided by scale."""
        return weight / _row(self.scale, weight)

    def congruence(self, sigma: np.ndarray) -> np.ndarray:
        """Rows and columns divided by scale."""
        return sigma / self.scale / self.scale[:, None]

    @property
    def exponents(self) -> Int[np.ndarray, " n"] | None:
        """k where every scale is 2^(k/16), else None."""
        nearest = np.rint(SCALE_GRID * np.log2(self.scale)).astype(np.int64)
        return nearest if np.array_equal(grid_scale(nearest), self.scale) else None

    def to_state(self) -> list:
        """Exponents where all scales lie on the grid, else float32."""
        if self.exponents is not None:
            return encode_integers(self.exponents)
        return [self.scale.astype("<f4").tobytes()]

    @staticmethod
    def from_state(state: list, size: int) -> "Diagonal":
        """Inverse of `to_state`."""
        if len(state) == 1:
            return Diagonal(np.frombuffer(state[0], dtype="<f4").astype(np.float64))
        return Diagonal(grid_scale(decode_integers(state, size)))


@dataclasses.dataclass(frozen=True, eq=False)
class Permutation:
    """Columns taken in another order; useful only where groups or blocks depend on it.

    >>> Permutation(np.array([1, 0])).forward(np.array([[3.0, 4.0]]))
    array([[4., 3.]])
    """

    order: Int[np.ndarray, " n"]

    def forward(self, weight: Array) -> Array:
        """Columns in the new order."""
        return array_namespace(weight).take(weight, from_host(self.order, like=weight), axis=1)

    def inverse(self, weight: Array) -> Array:
        """Columns back in their own order."""
        return array_namespace(weight).take(weight, from_host(np.argsort(self.order), like=weight), axis=1)

    def congruence(self, sigma: np.ndarray) -> np.ndarray:
        """Rows and columns in the new order."""
        return sigma[np.ix_(self.order, self.order)]

    def to_state(self) -> list:
        """The order as 16- or 32-bit integers."""
        return [self.order.astype("<u2" if len(self.order) <= 1 << 16 else "<u4").tobytes()]

    @staticmethod
    def from_state(state: list, size: int) -> "Permutation":
        """Inverse of `to_state`."""
        return Permutation(np.frombuffer(state[0], dtype="<u2" if size <= 1 << 16 else "<u4").astype(np.int64))


@dataclasses.dataclass(frozen=True)
class Hadamard:
    """Random signs, then a Hadamard matrix over √n: an orthogonal map that makes columns alike.

    Raises `InvalidInputError` where no Hadamard matrix of that size is known.

    >>> rotation = Hadamard(seed=1)
    >>> bool(abs(rotation.inverse(rotation.forward(np.eye(4))) - np.eye(4)).max() < 1e-15)
    True
    """

    seed: int = 0

    def __call__(self, weight: Array, sigma: np.ndarray) -> "Hadamard":
        """Itself: the rotation does not depend on the data."""
        return self

    def forward(self, weight: Array) -> Array:
        """Rows rotated."""
        return randomized_hadamard(weight, self.seed)

    def inverse(self, weight: Array) -> Array:
        """Rows rotated back."""
        return randomized_hadamard(weight, self.seed, inverse=True)

    def congruence(self, sigma: np.ndarray) -> np.ndarray:
        """Rows and columns rotated."""
        rotated = self.forward(self.forward(sigma).T)
        return (rotated + rotated.T) / 2

    def to_state(self) -> list:
        """The seed."""
        return [self.seed]

    @staticmethod
    def from_state(state: list, size: int) -> "Hadamard":
        """Inverse of `to_state`."""
        return Hadamard(*state)


@dataclasses.dataclass(frozen=True, eq=False)
class Chain:
    """Transforms applied one after the other.

    >>> Chain((Diagonal(np.array([2.0])), Diagonal(np.array([3.0])))).forward(np.ones((1, 1)))
    array([[6.]])
    """

    parts: tuple[Transform, ...]

    def forward(self, weight: Array) -> Array:
        """All parts, first to last."""
        for part in self.parts:
            weight = part.forward(weight)
        return weight

    def inverse(self, weight: Array) -> Array:
        """All parts undone, last to first."""
        for part in reversed(self.parts):
            weight = part.inverse(weight)
        return weight

    def congruence(self, sigma: np.ndarray) -> np.ndarray:
        """All parts, first to last."""
        for part in self.parts:
            sigma = part.congruence(sigma)
        return sigma

    def to_state(self) -> list:
        """Kind and state of every part."""
        return [to_state(part) for part in self.parts]

    @staticmethod
    def from_state(state: list, size: int) -> "Chain":
        """Inverse of `to_state`."""
        return Chain(tuple(from_state(part, size) for part in state))


@dataclasses.dataclass(frozen=True, eq=False)
class Folded:
    """A transform that its owner undoes elsewhere: the quantized weights stay transformed and nothing is charged.

    After a round trip through bytes the inner transform is gone, and so is the way back.

    >>> Folded(Diagonal(np.array([2.0]))).inverse(np.ones((1, 1)))
    array([[1.]])
    """

    inner: Transform | None = None

    def forward(self, weight: Array) -> Array:
        """The inner transform; raises `InvalidInputError` once it is gone."""
        return self._known().forward(weight)

    def inverse(self, weight: Array) -> Array:
        """The weight, still transformed."""
        return weight

    def congruence(self, sigma: np.ndarray) -> np.ndarray:
        """The inner congruence; raises `InvalidInputError` once it is gone."""
        return self._known().congruence(sigma)

    def _known(self) -> Transform:
        if self.inner is None:
            msg = "a folded transform is not part of the bytes; pass weights and second moment already transformed"
            raise InvalidInputError(msg)
        return self.inner

    def to_state(self) -> list:
        """Nothing: the owner charges it."""
        return []

    @staticmethod
    def from_state(state: list, size: int) -> "Folded":
        """A folded transform whose inner part is unknown."""
        return Folded()


def octaves(transform: Transform) -> Int[np.ndarray, " n"] | None:
    """Exponents of a diagonal transform on the grid, alone or last in a chain: they tell how codes scale.

    >>> octaves(Diagonal(np.array([1.0, 2.0])))
    array([ 0, 16])
    """
    last = transform.parts[-1] if isinstance(transform, Chain) and transform.parts else transform
    return last.exponents if isinstance(last, Diagonal) else None


def grid_scale(exponents: Int[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """2^(k/16), from the integer and the fractional octave.

    >>> grid_scale(np.array([0, 16, -8])).round(4)
    array([1.    , 2.    , 0.7071])
    """
    return np.ldexp(np.exp2((exponents % SCALE_GRID) / SCALE_GRID), exponents // SCALE_GRID)


KINDS = {
    "identity": Identity, "diagonal": Diagonal, "permutation": Permutation, "hadamard": Hadamard, "chain": Chain,
    "folded": Folded,
}  # fmt: skip


def to_state(transform: Transform) -> list:
    """[kind, state], for the container.

    >>> to_state(Hadamard(seed=3))
    ['hadamard', [3]]
    """
    kind = next(name for name, cls in KINDS.items() if isinstance(transform, cls))
    return [kind, transform.to_state()]  # pyright: ignore[reportAttributeAccessIssue]


def from_state(state: list, size: int) -> Transform:
    """Inverse of `to_state` for `size` columns.

    >>> from_state(["hadamard", [3]], 4)
    Hadamard(seed=3)
    """
    kind, inner = state
    return KINDS[kind].from_state(inner, size)


def _row(values: np.ndarray, like: Array) -> Array:
    xp = array_namespace(like)
    return xp.astype(from_host(values[None, :].copy(), like=like), like.dtype)
