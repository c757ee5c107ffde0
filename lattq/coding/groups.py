"""One coder for each group of columns, where quantizers of groups have coders of their own."""

import dataclasses
from typing import Any

import numpy as np

from lattq.coding.base import BaseCoder
from lattq.coding.schema import KIND, Inner, Integer, Record, Series, checked
from lattq.errors import DamagedFileError, InvalidInputError
from lattq.parts import register
from lattq.parts.registry import find, kind_of

__all__ = ["GroupCoder", "group_states"]

STATE = Record(
    group=Integer(1, (1 << 31) - 1),
    parts=Series(Record(kind=KIND, state=Inner()), 1, lambda at: at.columns),
)


@register("coder", "groups")
@dataclasses.dataclass(frozen=True)
class GroupCoder(BaseCoder):
    """Coder whose parts code a group of columns each.

    Parameters
    ----------
    group : columns of a group; the last may have fewer
    parts : coder of each

    Examples
    --------
    >>> from lattq.coding import FixedLength
    >>> coder = GroupCoder(1, (FixedLength(2), FixedLength(16)))
    >>> coder.decode(coder.encode(np.array([[1, 9]])), (1, 2))
    array([[1, 9]], dtype=int32)
    """

    group: int
    parts: tuple[Any, ...]

    @property
    def components(self) -> tuple[Any, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The parts."""
        return self.parts

    def encode(self, codes: np.ndarray, prior: Any = 0) -> list:
        """What each coder makes of its columns."""
        spans = self._spans(codes.shape[1])
        return [part.encode(codes[:, span], _of(prior, span)) for part, span in zip(self.parts, spans, strict=True)]

    def decode(self, data: list, shape: tuple[int, int], prior: Any = 0) -> np.ndarray:
        """Inverse of `encode`; raises `DamagedFileError`."""
        found = [
            part.decode(own, (shape[0], span.stop - span.start), _of(prior, span))
            for part, own, span in zip(self.parts, data, self._spans(shape[1]), strict=True)
        ]
        return np.concatenate(found, axis=1)

    def _spans(self, columns: int) -> list[slice]:
        spans = [slice(low, min(low + self.group, columns)) for low in range(0, columns, self.group)]
        if len(spans) != len(self.parts):
            msg = f"coders of {len(self.parts)} groups of {self.group} columns do not fit {columns} columns"
            raise InvalidInputError(msg)
        return spans

    def to_state(self) -> list:
        """Width of a group, then kind and options of each coder."""
        return [self.group, [[kind_of("coder", part), part.to_state()] for part in self.parts]]

    def live(self, data: list, shape: tuple[int, int], prior: Any = 0) -> int:
        """How many codes the coders of all groups have to find."""
        return sum(
            part.live(own, (shape[0], span.stop - span.start), _of(prior, span))
            for part, own, span in zip(self.parts, data, self._spans(shape[1]), strict=True)
        )

    @classmethod
    def from_state(cls, state: list, shape: tuple[int, int]) -> "GroupCoder":
        """Inverse of `to_state` for a matrix of this shape."""
        group, parts = group_states("coder", state, shape)
        return GroupCoder(group, tuple(find("coder", kind).from_state(own, sides) for kind, own, sides in parts))


def group_states(role: str, state: list, shape: tuple[int, int]) -> tuple[int, list[tuple[str, list, tuple[int, int]]]]:
    """Width of a group, and kind, state and shape of each part, from the state of a file; raises `DamagedFileError`.

    >>> group_states("coder", [2, [["fixed", [4, 0]], ["two-way", [64]]]], (5, 3))
    (2, [('fixed', [4, 0], (5, 2)), ('two-way', [64], (5, 1))])
    """
    group, parts = checked(STATE, state, f"{role}s of groups", columns=shape[1])
    if len(parts) != -(-shape[1] // group) or any(kind == "groups" for kind, _ in parts):
        msg = f"{len(parts)} {role}s for groups of {group} of {shape[1]} columns, or groups of groups"
        raise DamagedFileError(msg + "; the file is damaged")
    widths = [min(group, shape[1] - number * group) for number in range(len(parts))]
    return group, [(kind, own, (shape[0], width)) for (kind, own), width in zip(parts, widths, strict=True)]


def _of(prior: Any, span: slice) -> Any:
    return prior[span] if np.ndim(prior) else prior
