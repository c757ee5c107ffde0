"""Which step or number of levels each layer gets: one for all, or whatever makes the files meet a rate.

A conversion that must meet a rate is a controlled process. Curves say what each layer is expected to take at a step; a
few layers, quantized first, say how far this is off; then layers are quantized once, some at a time, and those that are
left make up for what the others took more or less than expected. So steps differ by some hundredths of an octave, which
is of second order: where their logarithms, base 2, have the variance v, the same distortion takes ln 2 v bits more.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from lattq._options import power_of_two
from lattq._rate_curve import RateCurve
from lattq._step_search import GRID

__all__ = ["OneSetting", "RateControl", "Settings"]

PARTS = 8  # in which a conversion learns how much is left
REACH = 8 * GRID  # octaves either way in which a step is sought
LARGEST_TURN = 0.1  # bits by which the rate of layers that are quantized again may change


@runtime_checkable
class Settings(Protocol):
    """What layers are quantized at."""

    def of(self, name: str) -> float | int | None:
        """The setting of a layer; None if it has to wait."""
        ...

    def next(self, names: Sequence[str]) -> Mapping[str, float | int]:
        """Those of some layers, in the order of the model, that can be quantized now, and at what: one at least."""
        ...

    def learn(self, name: str, size: int) -> None:
        """A layer took so many bytes."""
        ...


@runtime_checkable
class Notes(Protocol):
    """Where decisions are kept, such as a `Workspace`."""

    def note(self, what: str, found: Any) -> None:
        """Keep something that JSON can hold, by a name."""
        ...

    def noted(self, what: str) -> Any:
        """What `note` kept; None if nothing."""
        ...


class OneSetting:
    """One for all layers.

    Examples
    --------
    >>> OneSetting(16).of("any")
    16
    """

    def __init__(self, value: float | int) -> None:
        self.value = value

    def of(self, name: str) -> float | int:
        """The setting."""
        return self.value

    def next(self, names: Sequence[str]) -> dict[str, float | int]:
        """All of them."""
        return dict.fromkeys(names, self.value)

    def learn(self, name: str, size: int) -> None:
        """Nothing."""


class RateControl:
    """Steps that make payloads fill a budget.

    What is decided is noted, so that an interrupted conversion goes on as it would have.

    Parameters
    ----------
    curves : of all layers, in the order in which they are quantized
    scales : what the common step is multiplied by in each layer
    budget : bytes for all payloads
    notes : those of the conversion
    name : of the control, where a conversion has several
    """

    def __init__(
        self,
        curves: Mapping[str, RateCurve],
        scales: Mapping[str, float],
        budget: float,
        notes: Notes,
        name: str = "",
    ) -> None:
        self.curves, self.scales, self.budget, self.notes = dict(curves), scales, budget, notes
        self._values, self._turns = f"values {name}", f"corrections {name}"
        self.values: dict[str, float] = dict(notes.noted(self._values) or {})
        self.sizes: dict[str, int] = {}
        self.off: dict[str, float] = {}

    def of(self, name: str) -> float | None:
        """The common step when the turn of a layer comes."""
        return self.values.get(name)

    def next(self, names: Sequence[str]) -> dict[str, float]:
        """Those that have a step already; or the next eighth of the model, which gets one."""
        ready = {name: self.values[name] for name in names if name in self.values}
        if ready:
            return ready
        value, total = self.step(), sum(curve.size for curve in self.curves.values())
        for name in names:
            ready[name] = value
            if PARTS * sum(self.curves[one].size for one in ready) >= total:
                break
        self._decide(ready)
        return ready

    def learn(self, name: str, size: int) -> None:
        """Note what a layer took, and how far that is from what was expected."""
        self.sizes[name] = size
        self.note(name, self.values[name], size)

    def note(self, name: str, value: float, size: int) -> None:
        """A layer would take so many bytes at a common step."""
        curve = self.curves[name]
        self.off[name] = 8 * size / curve.size - curve.rate(value * self.scales[name])

    def step(self) -> float:
        """The common step at which layers that are left fill what is left."""
        left = [name for name in self.curves if name not in self.sizes]
        return self._filling(left, 8 * (self.budget - sum(self.sizes.values())))

    def correct(self, over: float) -> None:
        """Give the last layers another step: files came out longer by so many bytes.

        As few layers as can take it up with a tenth of a bit; all of them, if they cannot.
        """
        last: list[str] = []
        for name in reversed(self.curves):
            last.append(name)
            if 8 * abs(over) <= LARGEST_TURN * sum(self.curves[one].size for one in last):
                break
        wanted = 8 * (sum(self.sizes.pop(name) for name in last) - over)
        self.notes.note(self._turns, self.turns + 1)
        self._decide(dict.fromkeys(last, self._filling(last, wanted)))

    @property
    def turns(self) -> int:
        """How often layers were given another step."""
        return self.notes.noted(self._turns) or 0

    @property
    def mean(self) -> float:
        """The common step, on the geometric mean over the weights."""
        logs = sum(self.curves[name].size * math.log2(value) for name, value in self.values.items())
        return 2 ** (logs / sum(self.curves[name].size for name in self.values))

    def _decide(self, values: dict[str, float]) -> None:
        self.values |= values
        self.notes.note(self._values, self.values)

    def _filling(self, names: Iterable[str], bits: float) -> float:
        """The step of the grid, powers of 2^(1 / 1024), at which layers take so many bits or hardly less."""
        off = {name: self.expected_off(name) for name in names}
        low, high = -REACH, REACH
        start = round(GRID * math.log2(self._start(list(off))))
        while high - low > 1:
            middle = (low + high) // 2
            step = power_of_two(start + middle, GRID)
            low, high = (middle, high) if self._bits(off, step) > bits else (low, middle)
        return power_of_two(start + high, GRID)

    def expected_off(self, name: str) -> float:
        """What a layer takes beyond its curve: as before, or as those of its kind or all did on the mean."""
        if name in self.off:
            return self.off[name]
        alike = [one for one in self.off if kind(one) == kind(name)] or list(self.off)
        size = sum(self.curves[one].size for one in alike)
        return sum(self.off[one] * self.curves[one].size for one in alike) / size if size else 0.0

    def _bits(self, off: Mapping[str, float], step: float) -> float:
        rates = (
            (self.curves[name], self.curves[name].rate(step * self.scales[name]) + more) for name, more in off.items()
        )
        return sum(curve.size * max(rate, 0.0) for curve, rate in rates)

    def _start(self, names: list[str]) -> float:
        """A step of about one bit."""
        total = sum(self.curves[name].size for name in names)
        return 2 ** (
            sum(self.curves[n].size * math.log2(self.curves[n].step(1.0) / self.scales[n]) for n in names) / total
        )


def kind(name: str) -> str:
    """The name of a layer without its numbers.

    >>> kind("model.layers.12.mlp.up_proj")
    'model.layers..mlp.up_proj'
    """
    return re.sub(r"\d+", "", name)
