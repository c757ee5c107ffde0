"""The search for a step at which something has a rate, along an expected curve."""

import math
from collections.abc import Callable
from typing import Protocol, TypeVar, runtime_checkable

from lattq._options import power_of_two
from lattq.errors import CodeOverflowError, RateNotReachedError

__all__ = ["GRID", "TOLERANCE", "Curve", "Octaves", "Rated", "search_step"]

TOLERANCE = 0.005
GRID = 1024  # steps are 2^(k / 1024): where the rate falls by 2 bits an octave, the nearest misses by 0.001 bit
OVERFLOW_MOVE = 8 * GRID  # up, after codes that no coder holds
LARGEST_MOVE = 3 * GRID  # beyond that a slope says nothing
LARGEST_MISS = 8.0  # bits
MOST_RATIO = 3.0  # of what a rate falls by to what it was expected to
LAST_PLACE = 120 * GRID  # either way: steps are float32 numbers


@runtime_checkable
class _HasRate(Protocol):
    """Anything with a rate in bits per weight: a quantized matrix, or a whole model."""

    @property
    def rate(self) -> float:
        """Bits per weight."""
        ...


Rated = TypeVar("Rated", bound=_HasRate)


@runtime_checkable
class Curve(Protocol):
    """A rate as a falling function of the step: expected, up to a constant."""

    def rate(self, step: float) -> float:
        """Bits per weight at a step."""
        ...

    def step(self, rate: float) -> float:
        """The step of a rate."""
        ...


class Octaves:
    """A bit for each octave, as at high rate.

    Examples
    --------
    >>> Octaves().rate(0.25), Octaves().step(2.0)
    (2.0, 0.25)
    """

    def rate(self, step: float) -> float:
        """-log2(step)."""
        return -math.log2(step)

    def step(self, rate: float) -> float:
        """The inverse."""
        return 2.0**-rate


def search_step(
    rate: float,
    step: float,
    encode: Callable[[float], Rated],
    curve: Curve,
    *,
    encodes: int,
    near: float = TOLERANCE / 5,
) -> tuple[float, Rated]:
    """Search for `encode(step).rate == rate` along an expected curve; the step that came closest and its result.

    A miss moves the step to where the curve is lower by as much, or by what the last two encodes make of that. All
    steps are 2^(k / 1024), k an integer. Between a step of too high and one of too low a rate the search stays there;
    where the rate jumps, it goes on with the nearest steps. It stops within `near` bits, or after `encodes` calls. A
    step whose codes overflow is too small. Raises `RateNotReachedError` if that holds for all.

    >>> import types
    >>> search_step(3.0, 1.0, lambda step: types.SimpleNamespace(rate=2 - math.log2(step)), Octaves(), encodes=3)[0]
    0.5
    """
    tried: dict[int, Rated] = {}
    place, floor = min(max(_place(step), -LAST_PLACE), LAST_PLACE), -math.inf
    for _ in range(encodes):
        try:
            tried[place] = encode(power_of_two(place, GRID))
        except CodeOverflowError:  # the rate is above any that a coder holds
            floor = place
            place = (place + min(tried)) // 2 if tried else place + OVERFLOW_MOVE
            continue
        if abs(tried[place].rate - rate) <= near:
            break
        place = _next_place({k: found.rate - rate for k, found in tried.items()}, floor, curve)
    if not tried:
        msg = f"steps up to 2^{floor / GRID:.0f} give codes that no coder holds; {rate} bits per weight are too many"
        raise RateNotReachedError(msg, rate=rate)
    best = min(tried, key=lambda k: abs(tried[k].rate - rate))
    return power_of_two(best, GRID), tried[best]


def _place(step: float) -> int:
    return round(GRID * math.log2(step))


def _next_place(misses: dict[int, float], floor: int | float, curve: Curve) -> int:
    """Place in the grid to try next, from how far rates were off, in the order they were tried."""
    (last, miss), ratio = list(misses.items())[-1], 1.0
    expected = curve.rate(power_of_two(last, GRID))
    if len(misses) > 1:
        old, before = list(misses.items())[-2]
        fall = curve.rate(power_of_two(old, GRID)) - expected
        ratio = (before - miss) / fall if fall else 1.0
    usual = min(max(ratio, 1 / MOST_RATIO), MOST_RATIO)
    place = _place(curve.step(expected - min(max(miss / usual, -LARGEST_MISS), LARGEST_MISS)))
    place = last + min(max(place - last, -LARGEST_MOVE), LARGEST_MOVE)
    place = min(max(place, -LAST_PLACE), LAST_PLACE)
    low = max((k for k, off in misses.items() if off > 0), default=None)
    high = min((k for k, off in misses.items() if off < 0), default=None)
    if low is not None and high is not None and low < high and (ratio != usual or not low < place < high):
        place = _between(low, high, misses)
    place = max(place, math.ceil((last + floor) / 2)) if floor > -math.inf else place
    nearest = min(misses, key=lambda k: abs(misses[k]))
    turn = 1 if misses[nearest] > 0 else -1
    untried = (nearest + way * turn * d for d in range(1, len(misses) + 2) for way in (1, -1))
    return place if place not in misses else next(k for k in untried if k not in misses and k > floor)


def _between(low: int, high: int, misses: dict[int, float]) -> int:
    """Where a line through the ends of a bracket is 0; of an end that stayed twice, half the miss counts (Illinois).

    >>> _between(0, 100, {0: 3.0, 100: -1.0}), _between(0, 100, {100: -1.0, -10: 9.0, 0: 3.0})
    (75, 86)
    """
    above, below = misses[low], misses[high]
    if len(misses) > 2:
        *_, before, last = (off > 0 for off in misses.values())
        above, below = (above / 2 if not (before or last) else above), (below / 2 if before and last else below)
    return round(low + (high - low) * above / (above - below))
