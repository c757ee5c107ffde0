"""Quantizers of groups of columns side by side: joined where their class says how, and kept where it does not."""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Num

from lattq._array import to_host
from lattq.coding.groups import GroupCoder, group_states
from lattq.coding.messages import packed, unpacked
from lattq.errors import InvalidInputError
from lattq.parts import register
from lattq.parts.registry import find, kind_of, require_part
from lattq.quantizers.base import BaseQuantizer

__all__ = ["GroupQuantizer", "as_stored", "join"]


@register("quantizer", "groups")
@dataclasses.dataclass(frozen=True, eq=False)
class GroupQuantizer(BaseQuantizer):
    """One quantizer for each group of columns, whatever they are.

    Attributes
    ----------
    parts : quantizer of each group
    group : columns of a group; the last may have fewer

    Examples
    --------
    >>> from lattq.quantizers import UniformQuantizer
    >>> both = GroupQuantizer((UniformQuantizer(np.array([[0.5]])), UniformQuantizer(np.array([[2.0]]), 0.0, -1, 0)), 1)
    >>> both.decode(np.array([[3, -1]]))
    array([[ 1.5, -2. ]])
    >>> both.coder
    GroupCoder(group=1, parts=(TwoWay(block=1048576), FixedLength(levels=2, low=-1)))
    """

    parts: tuple[Any, ...]
    group: int

    @property
    def components(self) -> tuple[Any, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The parts."""
        return self.parts

    @property
    def ordered(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether the codes of all groups are."""
        return all(part.ordered for part in self.parts)

    @property
    def coder(self) -> Any:
        """That of all groups, or one for each."""
        coders = [part.coder for part in self.parts]
        return coders[0] if all(coder == coders[0] for coder in coders) else GroupCoder(self.group, tuple(coders))

    def encode(self, x: Float[np.ndarray, "rows columns"]) -> Int[np.ndarray, "rows columns"]:
        """Codes of each group."""
        return np.concatenate([part.encode(own) for part, own in self._split(x)], axis=1)

    def decode(self, codes: Num[np.ndarray, "rows columns"]) -> Float[np.ndarray, "rows columns"]:
        """Reconstruction of each group, on the host in float64."""
        found = [to_host(part.decode(own)).astype(np.float64) for part, own in self._split(to_host(codes))]
        return np.concatenate(found, axis=1)

    def overload(self, x: Float[np.ndarray, "rows columns"]) -> int:
        """Sum over the groups."""
        return sum(part.overload(own) for part, own in self._split(x))

    def underflow(self) -> int:
        """Sum over the groups."""
        return sum(part.underflow() for part in self.parts)

    def idle(self, codes: Int[np.ndarray, "rows columns"]) -> int:
        """Sum over the groups."""
        return sum(part.idle(own) for part, own in self._split(codes))

    def check_codes(self, codes: Int[np.ndarray, "rows columns"]) -> None:
        """Raise `InvalidInputError` for codes that the quantizer of their group does not know."""
        for part, own in self._split(codes):
            part.check_codes(own)

    def _split(self, x: Any) -> list[tuple[Any, Any]]:
        lows = range(0, x.shape[1], self.group)
        if len(lows) != len(self.parts):
            msg = f"quantizers of {len(self.parts)} groups of {self.group} columns do not fit {x.shape[1]} columns"
            raise InvalidInputError(msg)
        return [(part, x[:, low : low + self.group]) for part, low in zip(self.parts, lows, strict=True)]

    def to_state(self) -> list:
        """Width of a group, then kind and state of each quantizer."""
        return [self.group, [[kind_of("quantizer", part), part.to_state()] for part in self.parts]]

    @staticmethod
    def from_state(state: list, shape: tuple[int, int]) -> "GroupQuantizer":
        """Inverse of `to_state` for a matrix of this shape."""
        group, parts = group_states("quantizer", state, shape)
        found = [find("quantizer", kind).from_state(own, sides) for kind, own, sides in parts]
        return GroupQuantizer(tuple(found), group)


def join(parts: list, group: int, shape: tuple[int, int]) -> Any:
    """One quantizer, on the host and as a file holds it, for a matrix of this shape from those of its groups.

    Parameters
    ----------
    parts : of each `group` of columns, in column order

    Examples
    --------
    >>> from lattq.quantizers import UniformQuantizer
    >>> parts = [UniformQuantizer(np.full((1, 1), step)) for step in (0.5, 0.25)]
    >>> join(parts, 1, (4, 2)).step
    array([[0.5 , 0.25]])
    """
    first = type(parts[0])
    found = first.concatenate(parts, group) if all(type(part) is first for part in parts) else None
    if found is not None:
        return found
    widths = [min(group, shape[1] - number * group) for number in range(len(parts))]
    restored = [as_stored(part, (shape[0], width)) for part, width in zip(parts, widths, strict=True)]
    return restored[0] if len(restored) == 1 else GroupQuantizer(tuple(restored), group)


def as_stored(part: Any, shape: tuple[int, int]) -> Any:
    """The quantizer that a file would give back; raises `InvalidInputError` for a state that no file can hold.

    >>> from lattq.quantizers import UniformQuantizer
    >>> as_stored(UniformQuantizer(np.array([[0.5]], dtype=np.float32)), (4, 2)).step.dtype
    dtype('float64')
    """
    require_part("quantizer", part)
    state = packed(part.to_state(), f"`to_state` of {part!r}")
    return type(part).from_state(unpacked(state), shape)
