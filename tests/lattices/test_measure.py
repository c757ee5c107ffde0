"""Simulations: known values inside the intervals as often as promised, gaps of known codes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from lattq import bounds
from lattq.errors import InvalidInputError
from lattq.lattices import BW16, E8, A, A_dual, D, Lattice, Leech24, Z, measure_gap, measure_nsm


@dataclass(frozen=True)
class Own:
    """A lattice that is not of this library."""

    generator: np.ndarray
    nearest: Callable[[np.ndarray], np.ndarray]


CUBES = Own(generator=np.eye(2), nearest=np.rint)


def test_intervals_hold_the_truth_as_often_as_promised():
    """Binomial: 400 draws at 80 % have a standard deviation of 8."""
    inside = 0
    for seed in range(400):
        low, high = measure_nsm(CUBES, 500, seed, confidence=0.8).interval
        inside += low < 1 / 12 < high
    assert abs(inside - 320) < 4 * 8


def test_a_lattice_of_the_user_in_any_basis_and_scale():
    skewed = Own(generator=3 * np.array([[1.0, 0.0], [5.0, 1.0]]), nearest=lambda x: 3 * np.rint(x / 3))
    found = measure_nsm(skewed, 50_000)
    assert abs(found.value - 1 / 12) < 4 * found.standard_error
    plane = Own(generator=A(2).generator, nearest=A(2).nearest)
    found = measure_nsm(plane, 50_000)
    assert abs(found.value - (A(2).nsm or 0.0)) < 4 * found.standard_error


def test_a_worse_rounding_is_seen():
    """Negative control: floors instead of nearest integers."""
    found = measure_nsm(Own(generator=np.eye(2), nearest=np.floor), 10_000)
    assert abs(found.value - 1 / 3) < 4 * found.standard_error


def test_samples_are_those_of_the_seed():
    assert measure_nsm(CUBES, 100, 1) == measure_nsm(CUBES, 100, 1) != measure_nsm(CUBES, 100, 2)


@pytest.mark.parametrize("step", [0.3, 1.0, 1.8])
def test_gap_of_the_integers_is_the_exact_one(step: float):
    """Up to what a Gaussian on the integers costs more than the probabilities of cells."""
    exact = bounds.entropy_coded_scalar(step=step).gap
    found = measure_gap(Z(4), step, 60_000)
    assert exact - 4 * found.standard_error < found.value < exact + 4 * found.standard_error + 0.004


@pytest.mark.parametrize("lattice", [D(4), E8, BW16, Leech24], ids=str)
@pytest.mark.parametrize("step", [0.3, 1.5])
def test_gap_is_flat(lattice: Lattice, step: float):
    found = measure_gap(lattice, step, 30_000)
    assert abs(found.value - (lattice.space_filling_gap or 0.0)) < 4 * found.standard_error + 0.001
    assert found.interval[0] < found.value < found.interval[1]


def test_standard_error_is_the_scatter_of_repetitions():
    found = [measure_gap(E8, 0.7, 400, seed) for seed in range(60)]
    scatter = np.std([one.value for one in found], ddof=1)
    assert 0.72 < scatter / np.mean([one.standard_error for one in found]) < 1.3


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lattice": "E8"}, "`lattice` is 'E8'"),
        ({"seed": -1}, "`seed` is -1"),
        ({"seed": 1.5}, r"`seed` is 1\.5"),
        ({"seed": None}, "`seed` is None"),
        ({"samples": None}, "`samples` is None"),
        ({"confidence": None}, "`confidence` is None"),
        ({"confidence": np.nan}, "`confidence` is nan"),
    ],
)
def test_arguments_are_checked_before_any_work(monkeypatch: pytest.MonkeyPatch, change: dict, message: str):
    monkeypatch.setattr(Lattice, "nearest", None)
    for measure, more in ((measure_nsm, {}), (measure_gap, {"step": 0.5})):
        with pytest.raises(InvalidInputError, match=message):
            measure(**{"lattice": E8, "samples": 100, **more, **change})


@pytest.mark.usefixtures("unchecked")
def test_the_gap_of_a_lattice_without_a_closed_form(monkeypatch: pytest.MonkeyPatch):
    """The samples used to be drawn and rounded first, or refused for their number of coordinates."""
    monkeypatch.setattr(Lattice, "nearest", None)
    lattices: list[Any] = [A(2), A_dual(3), CUBES]
    for lattice in lattices:
        with pytest.raises(InvalidInputError, match="which has no partition function in closed form"):
            measure_gap(lattice, 0.5, 100)
    steps: list[Any] = [None, np.nan]
    for step in steps:
        with pytest.raises(InvalidInputError, match=f"`step` is {step}"):
            measure_gap(E8, step, 100)


def test_bad_arguments():
    with pytest.raises(InvalidInputError, match="`samples` is 1"):
        measure_nsm(CUBES, 1)
    with pytest.raises(InvalidInputError, match=r"`confidence` is 1\.5"):
        measure_nsm(CUBES, 10, confidence=1.5)
    with pytest.raises(InvalidInputError, match="`generator` has rank below 2"):
        measure_nsm(Own(generator=np.ones((2, 2)), nearest=np.rint), 10)
    with pytest.raises(InvalidInputError, match="`step` is -1"):
        measure_gap(E8, -1.0, 10)
    with pytest.raises(InvalidInputError, match="every vector goes to zero"):
        measure_gap(E8, 1e4, 10)
