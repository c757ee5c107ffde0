"""Trellis codes: nearest sequences against brute force, membership, translations, and the published gains."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lattq.errors import InvalidInputError
from lattq.kernels.viterbi import nearest_codes, resolution
from lattq.trellis import TrellisCode
from lattq.trellis.codes import POLYNOMIALS, segments
from lattq.trellis.viterbi import best_path
from tests.strategies import seeds

# Granular gains in dB of Ungerboeck's codes, each from one sequence of 20 000 uniform samples; compare Marcellin and
# Fischer, IEEE Trans. Commun. 38 (1990).
UNGERBOECK = {
    4: (0o5, 0o2, 1.001),
    8: (0o13, 0o4, 1.082),
    16: (0o23, 0o4, 1.151),
    32: (0o45, 0o10, 1.215),
    64: (0o103, 0o24, 1.256),
    128: (0o235, 0o126, 1.298),
    256: (0o515, 0o362, 1.332),
}


def distances(x: np.ndarray) -> np.ndarray:
    """Squared distance of each value to the nearest integer of each residue mod 4."""
    residue = np.arange(4)
    apart = x[..., None] - residue
    return np.square(apart - 4 * np.rint(apart / 4))


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
    """Exactly, where squares are multiples of 1/256: each path leaves one residue mod 4 at every time."""
    x = np.random.default_rng(seed).integers(-64, 64, length) / 16
    code = TrellisCode(states)
    every = costs_of_paths(distances(x), code.labels, every_path(length))
    assert np.sum((x - code.nearest(x)) ** 2) == every.min()


@given(seed=seeds, states=st.sampled_from([8, 64, 256, 4096]), count=st.integers(1, 40), length=st.integers(1, 60))
def test_priced_and_weighted_sequences_are_the_cheapest(seed: int, states: int, count: int, length: int):
    """Each of the costs that make up two paths is rounded by at most half a unit of the search's resolution."""
    rng = np.random.default_rng(seed)
    x, price, weight = (
        3 * rng.standard_normal((count, length)),
        rng.uniform(-0.5, 1, (count, 1)),
        rng.random((1, length)),
    )
    code = TrellisCode(states)
    found = code.nearest(x, odd=price, weight=weight)
    costs = weight[..., None] * distances(x) + price[..., None] * (np.arange(4) % 2)
    best = np.take_along_axis(costs, code.residues(best_path(costs, code.labels))[..., None], axis=2)
    cost = weight * (x - found) ** 2 + price * (found & 1)
    assert np.all(cost.sum(axis=1) <= best[..., 0].sum(axis=1) + length / resolution(code.polynomials)[0] + 1e-5)
    assert np.all(code.residues(code.inputs(found)) == found & 3)


@given(seed=seeds, states=st.sampled_from([4, 8, 64, 256]), length=st.integers(1, 40))
def test_sequences_of_the_code_have_known_parities(seed: int, states: int, length: int):
    rng = np.random.default_rng(seed)
    code = TrellisCode(states)
    found = code.nearest(10 * rng.standard_normal((3, length)))
    np.testing.assert_array_equal(code.parities(found >> 1 & 1), found & 1)  # the systematic form
    np.testing.assert_array_equal(code.residues(code.inputs(found)), found & 3)  # the feed-forward form
    assert (found[:, 0] % 2 == 0).all()  # state 0 knows only zeros
    place = int(rng.integers(length))
    broken = found.copy()
    broken[1, place] += 1  # the other parity
    with pytest.raises(InvalidInputError, match=f"index {place} of sequence 1"):
        code.inputs(broken)
    np.testing.assert_array_equal(code.nearest(found.astype(float)), found)  # its own nearest sequence


@given(seed=seeds, states=st.sampled_from(list(POLYNOMIALS)), start=st.integers(0, 50))
def test_any_window_gives_its_last_residue(seed: int, states: int, start: int):
    inputs = np.random.default_rng(seed).integers(0, 2, 80)
    window = inputs[start : start + states.bit_length()]
    code = TrellisCode(states)
    assert code.residues(window)[-1] == code.residues(inputs)[start + len(window) - 1]
    state = int("".join(map(str, window[:-1])), 2)
    assert code.labels[state, window[-1]] == code.residues(window)[-1]


@given(seed=seeds, states=st.sampled_from(list(POLYNOMIALS)), length=st.integers(0, 40))
def test_any_input_bits_come_back(seed: int, states: int, length: int):
    """Both recursive forms against the feed-forward one, which no recursion computes."""
    inputs = np.random.default_rng(seed).integers(0, 2, (3, length)).astype(np.uint8)
    code = TrellisCode(states)
    residues = code.residues(inputs)
    np.testing.assert_array_equal(code.inputs(residues.astype(np.int32)), inputs)
    np.testing.assert_array_equal(code.parities(residues >> 1), residues & 1)


@given(seed=seeds, states=st.sampled_from([4, 8, 32, 1024]))
def test_translations_by_multiples_of_four(seed: int, states: int):
    """Exact on dyadic inputs."""
    rng = np.random.default_rng(seed)
    x, shift = rng.integers(-64, 64, (2, 20)) / 16, 4 * rng.integers(-9, 9, (2, 20))
    np.testing.assert_array_equal(TrellisCode(states).nearest(x + shift), TrellisCode(states).nearest(x) + shift)


@given(rows=st.integers(1, 5000), length=st.integers(1, 600))
def test_segments_are_long_enough_and_nearly_equal(rows: int, length: int):
    cuts = segments(rows, length)
    sizes = [cut.stop - cut.start for cut in cuts]
    assert cuts[0].start == 0
    assert cuts[-1].stop == rows
    assert all(a.stop == b.start for a, b in itertools.pairwise(cuts))
    assert max(sizes) - min(sizes) <= 1
    assert min(sizes) >= min(length, rows)


@pytest.mark.parametrize("states", UNGERBOECK)
def test_published_codes_have_the_published_second_moments(states: int):
    """Against cubes of the spacing of the supersets, 2; away from the ends, whose states are not free.

    The errors of the 32 sequences are independent, so the mean has the standard error of their scatter.
    """
    x = np.random.default_rng(states).uniform(-8, 8, (32, 1500))
    h0, h1, expected = UNGERBOECK[states]
    error = ((x - nearest_codes(x, np.full(32, 1500), (h0, h1))) ** 2)[:, 150:-150].mean(axis=1)
    gain = 10 * np.log10(4 / 12 / error.mean())
    standard_error = 10 / np.log(10) * error.std(ddof=1) / np.sqrt(len(error)) / error.mean()
    error_of_table = standard_error * np.sqrt(32 * 1200 / 20_000)
    assert abs(gain - expected) < 3 * np.hypot(standard_error, error_of_table)
    assert standard_error < 0.015


@pytest.mark.parametrize("states", POLYNOMIALS)
def test_second_moments_of_the_table(states: int):
    x = np.random.default_rng(states + 1).uniform(-2, 2, (32, 1200))
    error = ((x - TrellisCode(states).nearest(x)) ** 2)[:, 150:-150].mean(axis=1) / 4
    assert abs(error.mean() - TrellisCode(states).second_moment) < 4 * error.std(ddof=1) / np.sqrt(len(error))


@pytest.mark.parametrize("states", [16, 32, 64, 128, 256])
def test_codes_are_better_than_the_published_ones(states: int):
    """Of the same samples, in segments of 512, by at least 0.001 bit; three standard errors of the difference."""
    x = np.random.default_rng(states).uniform(-2, 2, (2048, 512))
    ours, theirs = (
        np.square(x - nearest_codes(x, np.full(2048, 512), polynomials)).mean(axis=1)
        for polynomials in (TrellisCode(states).polynomials, UNGERBOECK[states][:2])
    )
    saved = theirs - ours
    assert saved.mean() > 3 * saved.std(ddof=1) / np.sqrt(len(saved))
    assert 0.5 * np.log2(theirs.mean() / ours.mean()) > 1e-3


def test_more_states_are_better():
    moments = [TrellisCode(states).second_moment for states in POLYNOMIALS]
    assert np.all(np.diff(moments) < 0)
    assert 1 / (2 * np.pi * np.e) < moments[-1] < moments[0] < 1 / 12


def test_h0_and_h1_exchanged_are_no_code():
    """Negative control: with the parity on the current bit a decoder would not know it in advance."""
    for states in UNGERBOECK:
        labels = TrellisCode(states).labels
        assert (labels[:, 0] % 2 == labels[:, 1] % 2).all()
        assert (labels[:, 0] // 2 != labels[:, 1] // 2).all()


@pytest.mark.parametrize("states", [0, 2, 5, 2000, 8192])
def test_states_without_a_code(states: int):
    with pytest.raises(InvalidInputError, match=f"`states` is {states}"):
        TrellisCode(states)


@pytest.mark.parametrize("x", [np.array([np.nan]), np.array([1.0, np.inf]), np.array([2e9])])
def test_values_that_no_integer_is_near(x: np.ndarray):
    with pytest.raises(InvalidInputError, match=r"below 2\^30"):
        TrellisCode(8).nearest(x)


@pytest.mark.parametrize("weight", [np.array([1.5]), np.array([-0.1]), np.array([np.nan])])
def test_weights_beyond_one(weight: np.ndarray):
    with pytest.raises(InvalidInputError, match=r"0 \.\.\. 1"):
        TrellisCode(8).nearest(np.zeros(1), weight=weight)


def test_no_sequence_and_prices_that_are_not_numbers():
    assert TrellisCode(8).nearest(np.zeros((3, 0))).shape == (3, 0)
    with pytest.raises(InvalidInputError, match="price"):
        TrellisCode(8).nearest(np.zeros(2), odd=np.array([0.0, np.inf]))
    with pytest.raises(InvalidInputError, match="`segment` is 0"):
        segments(5, 0)
