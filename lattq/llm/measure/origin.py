"""What statistics are of: layers of a model, and windows of text."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from lattq.errors import InvalidInputError

__all__ = ["MeasuredLayer", "Origin", "merged_layers", "merged_origin"]


@dataclasses.dataclass(frozen=True)
class MeasuredLayer:
    """A layer of `Statistics`.

    Attributes
    ----------
    shape : rows and columns
    groups : of its outputs, each with a block of their own
    siblings : layers whose moments stand in for its own if nothing reached it, itself included
    leader : the layer that received the same inputs and has their moments; None if nothing reached it
    transposed : whether its parameter holds inputs × outputs
    guides : groups of its outputs that weigh its inputs, see `Guided`; 0 for none

    Examples
    --------
    >>> MeasuredLayer((4, 3), groups=1, siblings=("k",), leader="q", transposed=False).leader
    'q'
    """

    shape: tuple[int, int]
    groups: int
    siblings: tuple[str, ...]
    leader: str | None
    transposed: bool
    guides: int = 0


@dataclasses.dataclass(frozen=True)
class Origin:
    """What statistics were measured on, and how.

    Attributes
    ----------
    model : hash of its directory
    method : in words; only statistics of one method can be merged
    texts : hashes
    windows : digests of each window with the seed and number of draws of its labels
    lengths : of windows in tokens
    seeds : of labels
    tokens : of all windows
    scored : tokens times draws of labels
    exact : whether sums are exact, so that they can be merged

    Examples
    --------
    >>> one = Origin("model", "plain", ("text",), ("window",), (8,), (0,), tokens=8, scored=8)
    >>> merged_origin(one, one).repeated
    1
    """

    model: str
    method: str
    texts: tuple[str, ...]
    windows: tuple[str, ...]
    lengths: tuple[int, ...]
    seeds: tuple[int, ...]
    tokens: int
    scored: int
    exact: bool = True

    @property
    def repeated(self) -> int:
        """How many windows were there before, with the same labels."""
        return len(self.windows) - len(set(self.windows))


def merged_origin(a: Origin, b: Origin) -> Origin:
    """Of all windows of both."""
    if not (a.exact and b.exact):
        msg = "statistics that were saved in float32 cannot be merged; merge those in float64"
        raise InvalidInputError(msg)
    for field, what in (("model", "models"), ("method", "methods")):
        one, other = getattr(a, field), getattr(b, field)
        if one != other:
            msg = f"the statistics are of different {what}, {one} and {other}, and cannot be merged"
            raise InvalidInputError(msg)
    unions: dict[str, Any] = {
        name: tuple(sorted({*getattr(a, name), *getattr(b, name)})) for name in ("texts", "lengths", "seeds")
    }
    windows = tuple(sorted([*a.windows, *b.windows]))
    return Origin(a.model, a.method, windows=windows, tokens=a.tokens + b.tokens, scored=a.scored + b.scored, **unions)


def merged_layers(a: Mapping[str, MeasuredLayer], b: Mapping[str, MeasuredLayer]) -> dict[str, MeasuredLayer]:
    """All layers; what reached one of two reached both."""
    found = {**a, **b}
    for name in a.keys() & b.keys():
        leader = a[name].leader or b[name].leader
        found[name] = dataclasses.replace(a[name], leader=leader)
        if found[name] != dataclasses.replace(b[name], leader=leader) or b[name].leader not in (None, leader):
            msg = f"the statistics differ in what `{name}` is: {a[name]} and {b[name]}; measure both in one way"
            raise InvalidInputError(msg)
    return found
