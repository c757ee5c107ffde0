"""Trellis codes: nearest sequences against brute force, membership, translations, and the published gains."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lattq.errors import InvalidInputError
from lattq.trellis import TrellisCode, best_path
from tests.strategies import seeds

# Granular gains in dB, each from one sequence of 20 000 uniform samples; compare Marcellin and Fischer, IEEE Trans.
# Commun. 38 (1990).
GAINS = {4: 1.001, 8: 1.082, 16: 1.151, 32: 1.215, 64: 1.256, 128: 1.298, 256: 1.332}


def every_path(length: int) -> np.ndarray:
    return np.array(list(itertools.product((0, 1), repeat=length)))


def costs_of_paths(costs: np.ndarray, labels: np.ndarray, paths: np.ndarray) -> np.ndarray:
    """Cost of each path of input bits, walked one by one."""
    total = np.zeros(len(paths))
    for index, path in enumerate(paths):
        state = 0
        for time, bit in enumerate(path):
            total[index] += costs[time, labels[state, bit]]
            state = (2 * state + bit) % len(labels)
    return total


@given(seed=seeds, memory=st.integers(1, 4), length=st.integers(1, 8))
def test_no_path_is_cheaper(seed: int, memory: int, length: int):
    rng = np.random.default_rng(seed)
    costs, labels = rng.standard_normal((2, length, 4)), rng.integers(0, 4, (2**memory, 2))
    found = best_path(costs, labels)
    for one, path in zip(costs, found, strict=True):
        every = costs_of_paths(one, labels, every_path(length))
        np.testing.assert_allclose(costs_of_paths(one, labels, path[None])[0], every.min(), rtol=0, atol=1e-12)


@given(seed=seeds, states=st.sampled_from([4, 8, 16]), length=st.integers(1, 8))
def test_nearest_is_the_nearest_of_all_sequences(seed: int, states: int, length: int):
    """Each path leaves every time one residue mod 4, of which the nearest integer is best."""
    x = 4 * np.random.default_rng(seed).standard_normal(length)
    code = TrellisCode(states)
    costs = np.array([[(value - (j + 4 * np.rint((value - j) / 4))) ** 2 for j in range(4)] for value in x])
    every = costs_of_paths(costs, code.labels, every_path(length))
    np.testing.assert_allclose(np.sum((x - code.nearest(x)) ** 2), every.min(), rtol=0, atol=1e-9)


@given(seed=seeds, states=st.sampled_from([4, 8, 64, 256]), length=st.integers(1, 40))
def test_sequences_of_the_code_have_known_parities(seed: int, states: int, length: int):
    rng = np.random.default_rng(seed)
    code = TrellisCode(states)
    found = code.nearest(10 * rng.standard_normal((3, length)))
    parities = code.parities(found)
    np.testing.assert_array_equal(parities, found & 1)
    assert (parities[:, 0] == 0).all()  # state 0 knows only zeros
    place = int(rng.integers(length))
    broken = found.copy()
    broken[1, place] += 1  # the other parity
    with pytest.raises(InvalidInputError, match=f"index {place} of sequence 1"):
        code.parities(broken)
    np.testing.assert_array_equal(code.nearest(found.astype(float)), found)  # its own nearest sequence


@given(seed=seeds, states=st.sampled_from([4, 8, 32]))
def test_translations_by_multiples_of_four(seed: int, states: int):
    """Exact on dyadic inputs."""
    rng = np.random.default_rng(seed)
    x, shift = rng.integers(-64, 64, (2, 20)) / 16, 4 * rng.integers(-9, 9, (2, 20))
    np.testing.assert_array_equal(TrellisCode(states).nearest(x + shift), TrellisCode(states).nearest(x) + shift)


@pytest.mark.parametrize("states", GAINS)
def test_second_moments_are_the_published_ones(states: int):
    """Against cubes of the spacing of the supersets, 2; away from the ends, whose states are not free.

    The errors of the 32 sequences are independent, so the mean has the standard error of their scatter.
    """
    x = np.random.default_rng(states).uniform(-8, 8, (32, 1500))
    error = ((x - TrellisCode(states).nearest(x)) ** 2)[:, 150:-150].mean(axis=1)
    gain = 10 * np.log10(4 / 12 / error.mean())
    standard_error = 10 / np.log(10) * error.std(ddof=1) / np.sqrt(len(error)) / error.mean()
    error_of_table = standard_error * np.sqrt(32 * 1200 / 20_000)
    assert abs(gain - GAINS[states]) < 3 * np.hypot(standard_error, error_of_table)
    assert standard_error < 0.015


def test_h0_and_h1_exchanged_are_no_code():
    """Negative control: with the parity on the current bit a decoder would not know it in advance."""
    for states in GAINS:
        labels = TrellisCode(states).labels
        assert (labels[:, 0] % 2 == labels[:, 1] % 2).all()
        assert (labels[:, 0] // 2 != labels[:, 1] // 2).all()


@pytest.mark.parametrize("states", [0, 2, 5, 2048, 8192])
def test_states_without_a_code(states: int):
    with pytest.raises(InvalidInputError, match=f"`states` is {states}"):
        TrellisCode(states)


@pytest.mark.parametrize("x", [np.array([np.nan]), np.array([1.0, np.inf]), np.array([2e9])])
def test_values_that_no_integer_is_near(x: np.ndarray):
    with pytest.raises(InvalidInputError, match=r"below 2\^30"):
        TrellisCode(8).nearest(x)
