"""Integers scaled to the range of each group: absmax and min-max, for fixed rates."""

import dataclasses
from collections.abc import Callable

import numpy as np

from lattq._array import Array, array_namespace, from_host, to_host
from lattq._options import as_flag, as_integer, check_levels, normalize
from lattq.errors import InvalidInputError
from lattq.quantizers.entries import Entries
from lattq.quantizers.steps import SMALLEST_STEP
from lattq.quantizers.uniform import UniformQuantizer, centered

__all__ = ["AbsMax", "MinMax"]


@dataclasses.dataclass(frozen=True)
class _Integers:
    """What both designs share."""

    levels: int = 16
    group: int | None = 128
    shrink: bool = False
    shared: bool = False

    def __post_init__(self) -> None:
        normalize(self, as_integer, "levels", optional=("group",))
        normalize(self, as_flag, "shrink", "shared")
        check_levels(self.levels)
        check_group(self.group)

    def _extreme(self, reduce: Callable[..., Array], targets: Array) -> Array:
        """A reduction over what shares a step."""
        return reduce(targets, axis=(0, 1) if self.shared else 1, keepdims=True)


@dataclasses.dataclass(frozen=True)
class AbsMax(_Integers):
    """Symmetric integers scaled to the largest magnitude of each row (or all rows) and group of columns.

    The step is ``2 absmax / (levels - 1)``; for an even number of levels the positive end is cut by half a step, as in
    GPTQ. Steps are rounded to float16 and charged.

    Parameters
    ----------
    levels : number of codes, 2 to 256
    group : columns that share a step; None for whole rows
    shrink : scale each column by its LMMSE gain, inside the loop
    shared : one step for all rows of a group; with `group=1` a step for each column

    Examples
    --------
    >>> AbsMax(levels=5)(Entries(np.array([[0.5, -2.0]]))).step
    array([[1.]])
    """

    def __call__(self, entries: Entries) -> UniformQuantizer:
        """Steps from the largest magnitudes of the entries."""
        targets, xp = entries.values, array_namespace(entries.values)
        largest = self._extreme(xp.max, xp.abs(targets))
        return UniformQuantizer(half_precision(2 * largest / (self.levels - 1)), 0.0, *centered(self.levels))


@dataclasses.dataclass(frozen=True)
class MinMax(_Integers):
    """Integers with a zero point that span the range (0 included) of each row (or all rows) and group of columns.

    Steps are rounded to float16, zero points are codes; both are charged.

    Parameters
    ----------
    levels : number of codes, 2 to 256
    group : columns that share a step; None for whole rows
    shrink : scale each column by its LMMSE gain, inside the loop
    shared : one step and zero point for all rows of a group

    Examples
    --------
    >>> quantizer = MinMax(levels=4)(Entries(np.array([[-1.0, 2.0]])))
    >>> quantizer.step, quantizer.zero
    (array([[1.]]), array([[1.]]))
    """

    def __call__(self, entries: Entries) -> UniformQuantizer:
        """Steps and zero points from the extremes of the entries."""
        targets, xp = entries.values, array_namespace(entries.values)
        low = xp.clip(self._extreme(xp.min, targets), None, 0.0)
        high = xp.clip(self._extreme(xp.max, targets), 0.0, None)
        step = half_precision((high - low) / (self.levels - 1))
        zero = xp.clip(xp.round(-low / step), 0, self.levels - 1)
        return UniformQuantizer(step, zero, 0, self.levels - 1)


def check_group(group: int | None) -> None:
    """Raise `InvalidInputError` unless `group` is None or at least 1."""
    if group is not None and group < 1:
        msg = f"`group` is {group}; give how many columns share a step, or None for whole rows"
        raise InvalidInputError(msg)


def half_precision(step: Array) -> Array:
    """Steps rounded to float16, in their own dtype; 1 for 0, and one that underflows becomes the smallest.

    Raises `InvalidInputError` if one overflows.
    """
    host = to_host(step).astype(np.float64)
    if host.max(initial=0.0) > np.finfo(np.float16).max:
        msg = f"a step of {host.max():.3g} is beyond float16; divide the weights by a constant first"
        raise InvalidInputError(msg)
    rounded = np.where(host > 0, np.maximum(host.astype(np.float16), SMALLEST_STEP), 1.0)
    return array_namespace(step).astype(from_host(rounded.astype(np.float64), like=step), step.dtype)
