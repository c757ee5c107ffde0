"""The two native searches: the same paths, whatever stands beside a sequence."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lattq.kernels import viterbi
from lattq.trellis.codes import POLYNOMIALS
from tests.strategies import seeds


@given(
    seed=seeds,
    states=st.sampled_from([4, 8, 64, 256, 4096]),
    count=st.integers(viterbi.FEW, 70),
    length=st.integers(1, 50),
    extra=st.booleans(),
    dtype=st.sampled_from([np.float32, np.float64]),
)
def test_side_by_side_is_one_by_one(seed: int, states: int, count: int, length: int, extra: bool, dtype: type):
    rng = np.random.default_rng(seed)
    x = (rng.integers(-99, 99, (count, length)) / rng.choice([4, 7])).astype(dtype)  # with ties, and without
    lengths = np.full(count, length)
    options = [rng.random(x.shape).astype(np.float32) if extra else None for _ in range(2)]
    together = viterbi.nearest_codes(x, lengths, POLYNOMIALS[states], *options)
    for i in range(count):
        one = slice(i, i + 1)
        few = [None if option is None else option[one] for option in options]
        np.testing.assert_array_equal(
            together[one], viterbi.nearest_codes(x[one], lengths[one], POLYNOMIALS[states], *few)
        )


@given(seed=seeds, states=st.sampled_from([4, 64]), count=st.integers(viterbi.FEW, 40), longest=st.integers(1, 30))
def test_shorter_sequences_cost_what_they_cost_alone(seed: int, states: int, count: int, longest: int):
    """Of equally cheap paths another one may be taken; on this grid costs are exact."""
    rng = np.random.default_rng(seed)
    x, lengths = rng.integers(-99, 99, (count, longest)) / 16, rng.integers(1, longest + 1, count)
    together = viterbi.nearest_codes(x, lengths, POLYNOMIALS[states])
    for row, found, length in zip(x, together, lengths, strict=True):
        alone = viterbi.nearest_codes(row[None, :length], np.array([length]), POLYNOMIALS[states])[0]
        assert np.sum((row - found)[:length] ** 2) == np.sum((row[:length] - alone) ** 2)


def test_what_lies_beyond_the_end_is_ignored():
    rng = np.random.default_rng(0)
    x, lengths = rng.standard_normal((20, 9)), rng.integers(1, 10, 20)
    beyond = np.arange(9) >= lengths[:, None]
    found = [viterbi.nearest_codes(np.where(beyond, v, x), lengths, POLYNOMIALS[16]) for v in (0.0, 77.7)]
    assert np.all((found[0] == found[1]) | beyond)


@pytest.mark.parametrize("states", POLYNOMIALS)
def test_no_two_paths_differ_by_more_than_16_bits_hold(states: int):
    scale, largest = viterbi.resolution(POLYNOMIALS[states])
    memory = states.bit_length() - 1
    assert largest * memory < viterbi.FAR
    assert viterbi.FAR + largest * (memory + 1) < 2**15
    assert 4 * scale <= largest + 1  # no square of the search is cut


def test_long_sequences_need_no_normalization():
    """Costs wrap around 2^16 hundreds of times; the tail's path is as good as that of a fresh start."""
    x = np.random.default_rng(3).uniform(-2, 2, (1, 200_000))
    found = viterbi.nearest_codes(x, np.array([x.size]), POLYNOMIALS[8])
    error = (x - found)[0] ** 2
    parts = error[2000:].reshape(-1, 2000).mean(axis=1)
    assert abs(parts[-30:].mean() - parts[:30].mean()) < 4 * parts.std() * np.sqrt(2 / 30)
