"""Sums over windows say how much the vectors of a window tell together."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lattq.llm.measure.sums import Moments, MomentSums
from tests.strategies import seeds


def moments_of(windows: np.ndarray) -> Moments:
    """Of windows of vectors."""
    sums = MomentSums("outputs", 1, windows.shape[-1])
    for window in windows:
        sums.add(window)
    return Moments.of({part: one.sum for part, one in sums.parts().items()}, 1)


def drawn(rng: np.random.Generator, shared: float) -> np.ndarray:
    """Forty windows of eight vectors of three numbers, whose correlation with each other is given."""
    own, common = rng.standard_normal((40, 8, 3)), rng.standard_normal((40, 1, 3))
    return ((1 - shared) ** 0.5 * own + shared**0.5 * common) @ np.diag([1.0, 0.5, 0.2])


@pytest.mark.parametrize("shared", [0.0, 0.5, 0.9])
def test_the_count_is_that_of_independent_vectors_that_tell_as_much(rng: np.random.Generator, shared: float):
    """Over many repetitions the squared error of E[x xᵀ] is that of `count` Gaussian vectors; tokens alone are not."""
    truth = np.diag([1.0, 0.25, 0.04])
    found = [moments_of(drawn(rng, shared)) for _ in range(400)]
    squared = [float(np.square(one.matrix[0] - truth).sum()) for one in found]
    of_one = float(np.trace(truth) ** 2 + np.square(truth).sum())
    wanted, error = of_one / np.mean(squared), np.std(squared) / np.mean(squared) / 20
    count = np.mean([one.count for one in found])
    # Effects below 1 are taken for 1, and means of ratios are not ratios of means: a tenth, besides five errors.
    assert abs(count / wanted - 1) < 5 * error + 0.1
    assert (320 / wanted > 1.5) == (shared > 0)


@given(seed=seeds, repeats=st.integers(1, 9))
def test_vectors_that_are_repeated_tell_no_more(seed: int, repeats: int):
    one = np.random.default_rng(seed).standard_normal((30, 1, 3))
    single, many = (moments_of(one.repeat(times, 1)) for times in (1, repeats))
    np.testing.assert_allclose(many.matrix, single.matrix, rtol=1e-6)
    assert many.count <= single.count * (1 + 1e-6)


def test_one_window_does_not_tell():
    assert moments_of(np.ones((1, 5, 3))).count == 5
