"""Integers with a step for each group, from its range or of least squared error: symmetric and with a zero point."""

import dataclasses
from collections.abc import Callable

import numpy as np

from lattq._array import Array, array_namespace, from_host, to_host
from lattq._options import among, as_flag, as_integer, check_levels, normalize
from lattq.codebooks.scales import ScaleFit, best_scales
from lattq.errors import InvalidInputError, shown
from lattq.quantizers.base import BaseDesign
from lattq.quantizers.entries import Entries
from lattq.quantizers.steps import GROWN, SMALLEST_STEP, centered
from lattq.quantizers.uniform import UniformQuantizer

__all__ = ["AbsMax", "MinMax"]


@dataclasses.dataclass(frozen=True)
class _Integers(BaseDesign):
    """What both designs share."""

    levels: int = 16
    group: int | None = 128
    shrink: bool = False
    shared: bool = False
    fit: str = "range"

    array_generic = True

    def __post_init__(self) -> None:
        normalize(self, as_integer, "levels", optional=("group",))
        normalize(self, as_flag, "shrink", "shared")
        check_levels(self.levels)
        check_group(self.group)
        check_fit(self.fit)

    def _extreme(self, reduce: Callable[..., Array], targets: Array) -> Array:
        """A reduction over what shares a step."""
        return reduce(targets, axis=(0, 1) if self.shared else 1, keepdims=True)

    def _least_error(self, entries: Entries, grids: np.ndarray, start: np.ndarray | None = None) -> ScaleFit:
        """The best step of each row, or of all, for the best of some grids of integers."""
        host, power = to_host(entries.values).astype(np.float64), entries.power
        if self.shared:
            host, power = host.reshape(1, -1), np.broadcast_to(power, host.shape).reshape(1, -1)
        return best_scales(host, grids, power, start=start)


@dataclasses.dataclass(frozen=True)
class AbsMax(_Integers):
    """Symmetric integers with a step for each row (or all rows) and group of columns.

    From the range, the step is ``2 absmax / (levels - 1)``; for an even number of levels the positive end is cut by
    half a step, as in GPTQ. By the error it is the best one (theory 10.1), and for an even number of levels negative
    where the additional code serves better on the other side. Steps are rounded to float16 and charged.

    Parameters
    ----------
    levels : number of codes, 2 to 256
    group : columns that share a step; None for whole rows
    shrink : scale each column by its LMMSE gain, inside the loop
    shared : one step for all rows of a group; with `group=1` a step for each column
    fit : "range", the largest magnitude sets the step; "error", it has the least squared error, weighted by the pivots

    Examples
    --------
    >>> AbsMax(levels=5)(Entries(np.array([[0.5, -2.0]]))).step
    array([[1.]])
    """

    def __call__(self, entries: Entries) -> UniformQuantizer:
        """Steps of the entries."""
        targets, xp = entries.values, array_namespace(entries.values)
        step = 2 * self._extreme(xp.max, xp.abs(targets)) / (self.levels - 1)
        if self.fit == "error":
            low, high = centered(self.levels)
            grids = np.arange(low, high + 1) + np.array([[0]] if -low == high else [[0], [1]])  # and turned over
            found = self._least_error(entries, grids)
            step = _replaced(step, found.scale * (1 - 2 * found.grid))
        return UniformQuantizer(half_precision(step), 0.0, *centered(self.levels))


@dataclasses.dataclass(frozen=True)
class MinMax(_Integers):
    """Integers with a step and a zero point for each row (or all rows) and group of columns.

    From the range, they span it, 0 included. By the error, the step is the best one for its zero point, and the zero
    point better than its neighbours, reached downhill from that of the range (theory 10.2). Steps are rounded to
    float16, zero points are codes; both are charged.

    Parameters
    ----------
    levels : number of codes, 2 to 256
    group : columns that share a step; None for whole rows
    shrink : scale each column by its LMMSE gain, inside the loop
    shared : one step and zero point for all rows of a group
    fit : "range" or "error", as in `AbsMax`

    Examples
    --------
    >>> quantizer = MinMax(levels=4)(Entries(np.array([[-1.0, 2.0]])))
    >>> quantizer.step, quantizer.zero
    (array([[1.]]), array([[1.]]))
    """

    def __call__(self, entries: Entries) -> UniformQuantizer:
        """Steps and zero points of the entries."""
        targets, xp = entries.values, array_namespace(entries.values)
        low = xp.clip(self._extreme(xp.min, targets), None, 0.0)
        high = xp.clip(self._extreme(xp.max, targets), 0.0, None)
        step = half_precision((high - low) / (self.levels - 1))
        zero = xp.clip(xp.round(-low / step), 0, self.levels - 1)
        if self.fit == "error":
            grids = np.arange(self.levels) - np.arange(self.levels)[:, None]
            found = self._least_error(entries, grids, to_host(zero)[:, 0].astype(np.int64))
            step = half_precision(_replaced(step, found.scale))
            zero = xp.astype(from_host(found.grid[:, None].astype(np.float64), like=targets), zero.dtype)
        return UniformQuantizer(step, zero, 0, self.levels - 1)


def check_group(group: int | None) -> None:
    """Raise `InvalidInputError` unless `group` is None or at least 1."""
    if group is not None and group < 1:
        msg = f"`group` is {group}; give how many columns share a step, or None for whole rows"
        raise InvalidInputError(msg)


def check_fit(fit: str) -> None:
    """Raise `InvalidInputError` unless scales can be fitted to this.

    >>> check_fit("error")
    """
    if not among(fit, ("range", "error")):
        msg = (
            f'`fit` is {shown(fit)}; pass "error" for scales of least squared error, or "range" for the largest of all'
        )
        raise InvalidInputError(msg)


def _replaced(step: Array, found: np.ndarray) -> Array:
    """Fitted steps, where there are any."""
    host = to_host(step).astype(np.float64)
    return array_namespace(step).astype(
        from_host(np.where(found[:, None], found[:, None], host), like=step), step.dtype
    )


def half_precision(step: Array) -> Array:
    """Steps rounded to float16, in their own dtype; 1 for 0, and one that underflows becomes the smallest.

    Raises `InvalidInputError` if one overflows.
    """
    host = to_host(step).astype(np.float64)
    if np.abs(host).max(initial=0.0) > np.finfo(np.float16).max:
        msg = f"a step of {np.abs(host).max():.3g} is beyond float16; {GROWN}"
        raise InvalidInputError(msg)
    rounded = np.copysign(np.maximum(np.abs(host).astype(np.float16), SMALLEST_STEP), host)
    rounded = np.where(host, rounded, 1.0)
    return array_namespace(step).astype(from_host(rounded.astype(np.float64), like=step), step.dtype)
