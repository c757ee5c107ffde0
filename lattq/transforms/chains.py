"""Transforms made of transforms, and how any of them is stored."""

import dataclasses
import itertools
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from lattq._array import Array, short_repr
from lattq.coding.damage import reading
from lattq.coding.schema import KIND, Inner, Record, Series, checked
from lattq.errors import DamagedFileError, InvalidInputError
from lattq.parts import register
from lattq.parts.registry import find, kind_of
from lattq.transforms.base import BaseTransform, Divisors, Transform
from lattq.transforms.gain import EXPONENT, Gain
from lattq.transforms.maps import Identity

__all__ = ["Chain", "Folded", "append", "folded", "from_state", "kept", "split_last", "split_unit", "to_state"]

MOST_PARTS = 16


@register("transform", "chain")
@short_repr
@dataclasses.dataclass(frozen=True, eq=False)
class Chain(BaseTransform):
    """Up to 16 transforms applied one after the other; only the first may be folded, and a chain in it is its parts.

    >>> from lattq.transforms import Diagonal
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

    def output_congruence(self, outputs: np.ndarray) -> np.ndarray:
        """All parts, first to last."""
        for part in self.parts:
            outputs = part.output_congruence(outputs)  # pyright: ignore[reportAttributeAccessIssue]
        return outputs

    @property
    def components(self) -> tuple[Any, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The parts."""
        return self.parts

    @property
    def plain(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether all parts are."""
        return all(part.plain for part in self.parts)  # pyright: ignore[reportAttributeAccessIssue]

    @property
    def keeps_entries(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether all parts do."""
        return all(part.keeps_entries for part in self.parts)  # pyright: ignore[reportAttributeAccessIssue]

    @property
    def divisors(self) -> Divisors | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Those of all parts, the last first, if they are of columns and then of rows."""
        found: Divisors | None = Divisors()
        for part in reversed(self.parts):
            own = part.divisors  # pyright: ignore[reportAttributeAccessIssue]
            found = None if found is None else found.after(own)
        return found

    @property
    def row_factors(self) -> Float[np.ndarray, " rows"] | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Those of all parts together."""
        found = [part.row_factors for part in self.parts]  # pyright: ignore[reportAttributeAccessIssue]
        known = [one for one in found if one is not None]
        return np.prod(known, axis=0) if known else None

    @property
    def exponents(self) -> Int[np.ndarray, " n"] | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Those of the last part, but for a power of two."""
        rest = split_unit(self)[0]
        last = rest.parts[-1] if isinstance(rest, Chain) and rest.parts else rest
        return None if isinstance(last, Chain) else last.exponents  # pyright: ignore[reportAttributeAccessIssue]

    def kept(self, shape: tuple[int, int], found: Any = None) -> Any:
        """All parts, first to last."""
        for part in self.parts:
            found = part.kept(shape, found)  # pyright: ignore[reportAttributeAccessIssue]
        return found

    def on_inputs(self, x: Array) -> Array:
        """All parts, first to last."""
        for part in self.parts:
            x = part.on_inputs(x)  # pyright: ignore[reportAttributeAccessIssue]
        return x

    def inverse_on_inputs(self, x: Array) -> Array:
        """All parts undone, last to first."""
        for part in reversed(self.parts):
            x = part.inverse_on_inputs(x)  # pyright: ignore[reportAttributeAccessIssue]
        return x

    def operations(self, columns: int) -> int:
        """Those of all parts."""
        return sum(part.operations(columns) for part in self.parts)  # pyright: ignore[reportAttributeAccessIssue]

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
        parts = checked(Chain.schema, state, "chain")
        with reading("a chain"):
            return Chain(tuple(_restored(part, size, inside=True) for part in parts))


@register("transform", "folded")
@short_repr
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

    def inverse_on_inputs(self, x: Array) -> Array:
        """The vectors."""
        return x

    def operations(self, columns: int) -> int:
        """None here."""
        return 0

    def congruence(self, sigma: np.ndarray) -> np.ndarray:
        """The inner congruence; raises `InvalidInputError` once it is gone."""
        return self._known().congruence(sigma)

    def output_congruence(self, outputs: np.ndarray) -> np.ndarray:
        """That of the inner transform; raises `InvalidInputError` once it is gone."""
        return self._known().output_congruence(outputs)  # pyright: ignore[reportAttributeAccessIssue]

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
    if isinstance(transform, Chain) and transform.parts:
        transform = transform.parts[0]
    return transform if isinstance(transform, Folded) else None


def split_unit(transform: Transform) -> tuple[Transform, int]:
    """A transform without the power of two that comes last, and its exponent, 0 where there is none.

    >>> from lattq.transforms import Hadamard
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


def split_last(transform: Any) -> tuple[Transform, Any]:
    """What comes before the last transform, and that.

    >>> from lattq.transforms import Hadamard
    >>> split_last(Chain((Hadamard(1), Hadamard(2))))
    (Hadamard(seed=1), Hadamard(seed=2))
    """
    *parts, last = transform.parts if isinstance(transform, Chain) else (transform,)
    return (parts[0] if len(parts) == 1 else Chain(tuple(parts)) if parts else Identity()), last


def kept(transform: Any, shape: tuple[int, int]) -> Bool[np.ndarray, "rows columns"] | None:
    """Which entries of the transformed matrix count: not those that sparse parts replace; None where all do.

    Where a later part mixes the columns, all do.

    >>> from lattq.transforms.maps import Permutation
    >>> from lattq.transforms.outliers import Sparse
    >>> kept(Chain((Sparse(np.array([1]), np.array([9.0]), 2), Permutation(np.array([1, 0])))), (1, 2))
    array([[False,  True]])
    """
    return transform.kept(shape)


def to_state(transform: Transform) -> list:
    """[kind, state], for the container, and the exponent of a power of two that comes last.

    >>> from lattq.transforms import Hadamard
    >>> to_state(Hadamard(seed=3)), to_state(Chain((Hadamard(seed=3), Gain(0.25))))
    (['hadamard', [3]], ['hadamard', [3], -2])
    """
    rest, exponent = split_unit(transform)
    if exponent and not split_unit(rest)[1]:
        return [*to_state(rest), exponent]
    return [kind_of("transform", transform), transform.to_state()]  # pyright: ignore[reportAttributeAccessIssue]


def from_state(state: list, size: int) -> Transform:
    """Inverse of `to_state` for `size` columns.

    >>> from_state(["hadamard", [3]], 4)
    Hadamard(seed=3)
    """
    return _restored(state, size)


def _restored(state: list, size: int, *, inside: bool = False) -> Transform:
    stored = {"kind": KIND, "state": Inner()}
    if type(state) is list and len(state) > len(stored):
        stored["exponent"] = EXPONENT
    kind, inner, *exponent = checked(Record(**stored), state, "transform")
    if inside and kind == "chain":
        msg = "a chain in a chain; the file is damaged"
        raise DamagedFileError(msg)
    found = find("transform", kind).from_state(inner, size)
    return append(found, Gain.power_of_two(*exponent)) if exponent else found
