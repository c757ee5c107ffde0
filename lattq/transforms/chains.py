"""Transforms made of transforms, and how any of them is stored."""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Int

from lattq._array import Array
from lattq.errors import InvalidInputError
from lattq.parts import find, kind_of, register
from lattq.transforms.base import BaseTransform, Transform
from lattq.transforms.maps import Identity

__all__ = ["Chain", "Folded", "append", "folded", "from_state", "to_state"]


@register("transform", "chain")
@dataclasses.dataclass(frozen=True, eq=False)
class Chain(BaseTransform):
    """Transforms applied one after the other; only the first may be folded.

    >>> from lattq.transforms import Diagonal
    >>> Chain((Diagonal(np.array([2.0])), Diagonal(np.array([3.0])))).forward(np.ones((1, 1)))
    array([[6.]])
    """

    parts: tuple[Transform, ...]

    def __post_init__(self) -> None:
        if any(folded(part) is not None for part in self.parts[1:]):
            msg = "a folded transform is not the first of its chain: nobody could undo the stored ones before it"
            raise InvalidInputError(msg)

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

    @property
    def components(self) -> tuple[Any, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The parts."""
        return self.parts

    @property
    def plain(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether all parts are."""
        return all(part.plain for part in self.parts)  # pyright: ignore[reportAttributeAccessIssue]

    @property
    def exponents(self) -> Int[np.ndarray, " n"] | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Those of the last part."""
        return getattr(self.parts[-1], "exponents", None) if self.parts else None

    def on_inputs(self, x: Array) -> Array:
        """All parts, first to last."""
        for part in self.parts:
            x = part.on_inputs(x)  # pyright: ignore[reportAttributeAccessIssue]
        return x

    def split(self) -> tuple[Any, Any]:
        """The sparse part of the first, if it has one: W = S + (what the others undo)."""
        if not self.parts:
            return None, self
        found, first = self.parts[0].split()  # pyright: ignore[reportAttributeAccessIssue]
        if found is None:
            return None, self
        rest = self.parts[1:]
        return found, Chain(rest if isinstance(first, Identity) else (first, *rest))

    def check_rows(self, rows: int) -> None:
        """All parts check."""
        for part in self.parts:
            part.check_rows(rows)  # pyright: ignore[reportAttributeAccessIssue]

    def to_state(self) -> list:
        """Kind and state of every part."""
        return [to_state(part) for part in self.parts]

    @staticmethod
    def from_state(state: list, size: int) -> "Chain":
        """Inverse of `to_state`."""
        return Chain(tuple(from_state(part, size) for part in state))


@register("transform", "folded")
@dataclasses.dataclass(frozen=True, eq=False)
class Folded(BaseTransform):
    """A transform that its owner undoes elsewhere: the quantized weights stay transformed and nothing is charged.

    After a round trip through bytes the inner transform is gone, and so is the way back.

    >>> from lattq.transforms import Diagonal
    >>> Folded(Diagonal(np.array([2.0]))).inverse(np.ones((1, 1)))
    array([[1.]])
    """

    inner: Transform | None = None

    plain = True

    def forward(self, weight: Array) -> Array:
        """The inner transform; raises `InvalidInputError` once it is gone."""
        return self._known().forward(weight)

    def inverse(self, weight: Array) -> Array:
        """The weight, still transformed."""
        return weight

    def on_inputs(self, x: Array) -> Array:
        """The vectors: the owner has transformed them already."""
        return x

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


def append(transform: Transform, last: Transform) -> Transform:
    """One transform, then another.

    >>> from lattq.transforms import Hadamard
    >>> append(Identity(), Hadamard(1))
    Hadamard(seed=1)
    """
    if isinstance(transform, Identity):
        return last
    return Chain((*(transform.parts if isinstance(transform, Chain) else (transform,)), last))


def folded(transform: Transform) -> Folded | None:
    """The folded transform that comes first, if there is one: quantized weights live behind it.

    >>> from lattq.transforms import Hadamard
    >>> folded(Chain((Folded(Hadamard(1)), Hadamard(2))))
    Folded(inner=Hadamard(seed=1))
    """
    while isinstance(transform, Chain) and transform.parts:
        transform = transform.parts[0]
    return transform if isinstance(transform, Folded) else None


def to_state(transform: Transform) -> list:
    """[kind, state], for the container.

    >>> from lattq.transforms import Hadamard
    >>> to_state(Hadamard(seed=3))
    ['hadamard', [3]]
    """
    return [kind_of("transform", transform), transform.to_state()]  # pyright: ignore[reportAttributeAccessIssue]


def from_state(state: list, size: int) -> Transform:
    """Inverse of `to_state` for `size` columns.

    >>> from_state(["hadamard", [3]], 4)
    Hadamard(seed=3)
    """
    kind, inner = state
    return find("transform", kind).from_state(inner, size)
