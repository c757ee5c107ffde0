"""One coder for each group of columns, where quantizers of groups have coders of their own."""

import dataclasses
from typing import Any

import numpy as np

from lattq.coding.base import BaseCoder
from lattq.errors import DamagedFileError, InvalidInputError
from lattq.parts import register
from lattq.parts.registry import find, kind_of

__all__ = ["GroupCoder"]


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

    @classmethod
    def from_state(cls, state: list) -> "GroupCoder":
        """Inverse of `to_state`."""
        group, parts = state
        if type(group) is not int or group < 1 or any(kind == "groups" for kind, _ in parts):
            msg = f"coders for groups of {group!r} columns, or groups of groups; the file is damaged"
            raise DamagedFileError(msg)
        return GroupCoder(group, tuple(find("coder", kind).from_state(own) for kind, own in parts))


def _of(prior: Any, span: slice) -> Any:
    return prior[span] if np.ndim(prior) else prior
