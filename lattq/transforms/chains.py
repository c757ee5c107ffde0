"""Transforms made of transforms, and how any of them is stored."""

import dataclasses
import itertools
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from lattq._array import Array, short_repr
from lattq.coding import reading
from lattq.coding.schema import Choice, Inner, Record, Series, checked
from lattq.errors import InvalidInputError
from lattq.transforms.gain import EXPONENT, Gain
from lattq.transforms.maps import Diagonal, Hadamard, Identity, Permutation, Transform
from lattq.transforms.outliers import Sparse

__all__ = [
    "Chain",
    "Folded",
    "append",
    "check_rows",
    "folded",
    "from_state",
    "kept",
    "kind_of",
    "octaves",
    "split_unit",
    "to_state",
]

MOST_PARTS = 16


@short_repr
@dataclasses.dataclass(frozen=True, eq=False)
class Chain:
    """Up to 16 transforms applied one after the other; only the first may be folded, and a chain in it is its parts.

    >>> Chain((Diagonal(np.array([2.0])), Diagonal(np.array([3.0])))).forward(np.ones((1, 1)))
    array([[6.]])
    """

    parts: tuple[Transform, ...]

    schema = Series(Inner(), 0, MOST_PARTS)

    def __post_init__(self) -> None:
        parts = [part.parts if isinstance(part, Chain) else (part,) for part in self.parts]
        object.__setattr__(self, "parts", tuple(itertools.chain.from_iterable(parts)))
        if len(self.parts) > MOST_PARTS:
            msg = f"a chain of {len(self.parts)} transforms; at most {MOST_PARTS} are stored"
            raise InvalidInputError(msg)
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

    def to_state(self) -> list:
        """Kind and state of every part."""
        return [to_state(part) for part in self.parts]

    @staticmethod
    def from_state(state: list, size: int) -> "Chain":
        """Inverse of `to_state`."""
        parts = checked(Chain.schema, state, "chain")
        kinds = {name: kind for name, kind in KINDS.items() if kind is not Chain}
        with reading("a chain"):
            return Chain(tuple(_restored(part, size, kinds) for part in parts))


@short_repr
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
        return Folded(*checked(Record(), state, "folded"))


def append(transform: Transform, last: Transform) -> Transform:
    """One transform, then another.

    >>> append(Identity(), Hadamard(1))
    Hadamard(seed=1)
    """
    if isinstance(transform, Identity):
        return last
    return Chain((*(transform.parts if isinstance(transform, Chain) else (transform,)), last))


def folded(transform: Transform) -> Folded | None:
    """The folded transform that comes first, if there is one: quantized weights live behind it.

    >>> folded(Chain((Folded(Hadamard(1)), Hadamard(2))))
    Folded(inner=Hadamard(seed=1))
    """
    if isinstance(transform, Chain) and transform.parts:
        transform = transform.parts[0]
    return transform if isinstance(transform, Folded) else None


def split_unit(transform: Transform) -> tuple[Transform, int]:
    """A transform without the power of two that comes last, and its exponent, 0 where there is none.

    >>> split_unit(Chain((Hadamard(1), Gain(0.25)))), split_unit(Gain(2.0))
    ((Hadamard(seed=1), -2), (Identity(), 1))
    """
    parts = transform.parts if isinstance(transform, Chain) else (transform,)
    last = parts[-1] if parts else None
    if not isinstance(last, Gain) or last.exponent is None:
        return transform, 0
    rest = parts[:-1]
    if not isinstance(transform, Chain):
        return Identity(), last.exponent
    return rest[0] if len(rest) == 1 else Chain(rest), last.exponent


def octaves(transform: Transform) -> Int[np.ndarray, " n"] | None:
    """Exponents of a diagonal transform on the grid, alone or last in a chain but for a power of two.

    They tell how codes scale.

    >>> octaves(Diagonal(np.array([1.0, 2.0])))
    array([ 0, 16])
    """
    transform = split_unit(transform)[0]
    last = transform.parts[-1] if isinstance(transform, Chain) and transform.parts else transform
    return last.exponents if isinstance(last, Diagonal) else None


KINDS = {
    "identity": Identity, "diagonal": Diagonal, "permutation": Permutation, "hadamard": Hadamard, "chain": Chain,
    "folded": Folded, "gain": Gain, "sparse": Sparse,
}  # fmt: skip


def check_rows(transform: Transform, rows: int) -> None:
    """Raise `InvalidInputError` unless the sparse parts of a transform lie in a matrix of so many rows.

    >>> check_rows(Hadamard(seed=3), 4)
    """
    for part in transform.parts if isinstance(transform, Chain) else (transform,):
        if isinstance(part, Sparse):
            part.check_rows(rows)


def kept(transform: Transform, shape: tuple[int, int]) -> Bool[np.ndarray, "rows columns"] | None:
    """Which entries of the transformed matrix count: not those that sparse parts replace; None where all do.

    Where a later part mixes the columns, all do.

    >>> kept(Chain((Sparse(np.array([1]), np.array([9.0]), 2), Permutation(np.array([1, 0])))), (1, 2))
    array([[False,  True]])
    """
    found = None
    for part in transform.parts if isinstance(transform, Chain) else (transform,):
        if isinstance(part, Sparse):
            found = part.kept(shape) if found is None else found & part.kept(shape)
        elif isinstance(part, Permutation) and found is not None:
            found = found[:, part.order]
        elif isinstance(part, Hadamard | Folded | Chain):
            found = None
    return found


def kind_of(transform: Transform) -> str:
    """Name of a transform in a file; raises `InvalidInputError` for one that no file can hold, alone or in a chain.

    >>> kind_of(Hadamard(seed=3))
    'hadamard'
    """
    kind = next((name for name, cls in KINDS.items() if isinstance(transform, cls)), None)
    if kind is None:
        msg = f"a file cannot hold the transform {transform!r}; it knows {', '.join(KINDS)}"
        raise InvalidInputError(msg)
    for part in transform.parts if isinstance(transform, Chain) else ():
        kind_of(part)
    return kind


def to_state(transform: Transform) -> list:
    """[kind, state], for the container, and the exponent of a power of two that comes last.

    >>> to_state(Hadamard(seed=3)), to_state(Chain((Hadamard(seed=3), Gain(0.25))))
    (['hadamard', [3]], ['hadamard', [3], -2])
    """
    rest, exponent = split_unit(transform)
    if exponent and not split_unit(rest)[1]:
        return [*to_state(rest), exponent]
    return [kind_of(transform), transform.to_state()]  # pyright: ignore[reportAttributeAccessIssue]


def from_state(state: list, size: int) -> Transform:
    """Inverse of `to_state` for `size` columns.

    >>> from_state(["hadamard", [3]], 4)
    Hadamard(seed=3)
    """
    return _restored(state, size, KINDS)


def _restored(state: list, size: int, kinds: dict[str, Any]) -> Transform:
    stored = {"kind": Choice(*kinds), "state": Inner()}
    if type(state) is list and len(state) > len(stored):
        stored["exponent"] = EXPONENT
    kind, inner, *exponent = checked(Record(**stored), state, "transform")
    found = kinds[kind].from_state(inner, size)
    return append(found, Gain.power_of_two(*exponent)) if exponent else found
