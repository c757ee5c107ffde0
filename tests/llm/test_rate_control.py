"""Steps of layers so that payloads fill a budget: against simulated layers whose rates differ from their curves."""

import json
import math
from typing import Any

import numpy as np
import pytest

from lattq._rate_curve import RateCurve
from lattq.llm.convert.rate_control import LARGEST_TURN, OneSetting, RateControl, kind

KINDS = ("q", "k", "v", "o", "gate", "up", "down")


class Notes:
    """A workspace in memory, as a file would bring it back."""

    def __init__(self, text: str = "{}") -> None:
        self.notes = json.loads(text)

    def note(self, what: str, found: Any) -> None:
        self.notes = json.loads(json.dumps(self.notes | {what: found}))

    def noted(self, what: str) -> Any:
        return self.notes.get(what)


class Layers:
    """Layers that take more than expected, by what their kind and they themselves add."""

    def __init__(self, seed: int, blocks: int) -> None:
        rng = np.random.default_rng(seed)
        self.curves, self.off = {}, {}
        more = dict(zip(KINDS, rng.uniform(0, 0.3, len(KINDS)), strict=True))
        for block in range(blocks):
            for one in KINDS:
                name = f"layers.{block}.{one}"
                levels = rng.uniform(-6, 6) + np.linspace(-3, 3, 9)
                self.curves[name] = RateCurve(levels, np.full(9, 1 / 9), int(rng.integers(1, 5)) << 14)
                self.off[name] = more[one] + rng.uniform(-0.02, 0.02)
        self.count = sum(curve.size for curve in self.curves.values())

    def size(self, name: str, step: float) -> int:
        curve = self.curves[name]
        return round(curve.size * max(curve.rate(step) + self.off[name], 0.001) / 8)

    def run(self, control: RateControl, stop: int | None = None) -> float:
        """Quantize all, or so many; bits per weight of those that have been."""
        for name in self.curves:
            if (step := control.of(name)) is not None:
                control.learn(name, self.size(name, step))
        waiting = [name for name in self.curves if name not in control.sizes]
        while waiting and (stop is None or len(control.sizes) < stop):
            for name, step in control.next(waiting).items():
                control.learn(name, self.size(name, step))
            waiting = [name for name in waiting if name not in control.sizes]
        return 8 * sum(control.sizes.values()) / self.count


def control_of(layers: Layers, rate: float, notes: Any = None) -> RateControl:
    return RateControl(layers.curves, dict.fromkeys(layers.curves, 1.0), rate * layers.count / 8, notes or Notes())


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("rate", [2.0, 3.5])
def test_layers_that_are_left_make_up_for_the_others(seed: int, rate: float):
    """Only what the last eighth cannot know is missed, .02 bit of it; curves alone miss by what layers add."""
    layers = Layers(seed, 6)
    assert layers.run(control_of(layers, rate)) == pytest.approx(rate, abs=0.02 / 4)
    blind = control_of(layers, rate)
    step = blind.step()
    assert 8 * sum(layers.size(name, step) for name in layers.curves) / layers.count > rate + 0.05


@pytest.mark.parametrize("over", [0.003, -0.008, 0.05])
def test_the_last_layers_take_up_what_was_missed(over: float):
    """As few as can do it with a tenth of a bit, and no others."""
    layers, notes = Layers(3, 6), Notes()
    control = control_of(layers, 3.0, notes)
    before = layers.run(control)
    steps = dict(control.values)
    control.correct(over * layers.count / 8)
    after = layers.run(control)
    moved = [name for name in steps if control.values[name] != steps[name]]
    names = list(layers.curves)
    assert moved == names[len(names) - len(moved) :]
    share = sum(layers.curves[name].size for name in moved) / layers.count
    assert after == pytest.approx(before - over, abs=share / 1024 + 1e-5)  # a step of the grid for them
    assert abs(over) <= LARGEST_TURN * share
    assert share < abs(over) / LARGEST_TURN + 0.1
    assert control.turns == notes.noted("corrections ") == 1


@pytest.mark.parametrize("stop", [1, 9, 20])
def test_a_control_that_was_interrupted_decides_as_it_would_have(stop: int):
    layers, notes = Layers(5, 5), Notes()
    whole = control_of(layers, 2.5)
    layers.run(whole)
    layers.run(control_of(layers, 2.5, notes), stop)
    again = control_of(layers, 2.5, Notes(json.dumps(notes.notes)))
    layers.run(again)
    assert again.values == whole.values


def test_steps_lie_on_the_grid_and_their_mean_is_geometric():
    layers = Layers(7, 4)
    control = control_of(layers, 3.0)
    layers.run(control)
    logs = {name: 1024 * math.log2(value) for name, value in control.values.items()}
    assert all(abs(log - round(log)) < 1e-6 for log in logs.values())
    mean = sum(logs[name] * layers.curves[name].size for name in logs) / layers.count
    assert 1024 * math.log2(control.mean) == pytest.approx(mean)


def test_kinds_are_names_without_numbers():
    assert len({kind(f"a.{block}.b") for block in range(20)}) == 1
    assert kind("a.0.b") != kind("a.0.c")


def test_one_setting_never_waits():
    setting = OneSetting(3)
    assert setting.next(["a", "b"]) == {"a": 3, "b": 3}
    assert setting.of("a") == 3
