"""The published mask and the growing budget."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lattq.affine.dominance import certify
from lattq.affine.schedules import gradual_mask, growing_ratio, stable_factor
from lattq.errors import InvalidInputError
from tests.affine.strategies import mixing
from tests.strategies import seeds


@given(n=st.integers(1, 9), epochs=st.integers(1, 7), stability=st.sampled_from([1.0, 0.1, 1e-4]))
def test_the_mask_grows_from_the_diagonal_to_the_whole(n: int, epochs: int, stability: float):
    masks = [gradual_mask(n, epoch, epochs, stability) for epoch in range(epochs)]
    for epoch, mask in enumerate(masks):
        for i in range(n):
            for j in range(n):
                inside = abs(i - j) <= (n - 1) * epoch // max(epochs - 1, 1) or epochs == 1
                assert mask[i, j] == (1.0 if i == j else stability if inside else 0.0)
    np.testing.assert_array_equal(masks[-1] == 0, False)
    if epochs > 1:
        np.testing.assert_array_equal(masks[0], np.eye(n))


def test_heads_are_masked_apart():
    mask = gradual_mask(2, 1, 2, 0.5, heads=2)
    np.testing.assert_array_equal(mask, np.kron(np.eye(2), [[1.0, 0.5], [0.5, 1.0]]))


@given(seed=seeds, ratio=st.floats(0.05, 3.0), epoch=st.integers(0, 4), stability=st.floats(0.01, 1.0))
def test_a_mask_keeps_dominance_and_makes_none(seed: int, ratio: float, epoch: int, stability: float):
    matrix = mixing(6, ratio, seed)
    before, after = certify(matrix), certify(matrix * gradual_mask(6, epoch, 5, stability))
    assert after.row_ratio <= before.row_ratio
    # the last mask only scales: what is too large by more than 1 / α stays outside
    last = certify(matrix * gradual_mask(6, 4, 5, stability))
    assert last.row_ratio == pytest.approx(stability * before.row_ratio)


def test_the_published_truncation_alone_breaks_dominance():
    # entries are kept at 0.01 or more: with α = 1 and 768 rows the off-diagonals sum to at least 7.67
    n = 768
    matrix = np.eye(n) + 0.01 * (1 - np.eye(n))
    found = certify(matrix * gradual_mask(n, 19, 20, 1.0))
    assert found.row_ratio == pytest.approx(7.67)
    assert found.dominant_rows == 0.0


def test_the_factor_that_would_keep_dominance_is_tiny():
    assert stable_factor(4096, 2560, 5e-3) == pytest.approx(1 / (2560 * 5e-3 * 4095))
    assert stable_factor(1, 10, 1.0) == float("inf")


@given(steps=st.integers(1, 50), ratio=st.floats(0.01, 0.99), share=st.floats(0.01, 1.0))
def test_the_budget_grows_from_nothing_to_the_ratio(steps: int, ratio: float, share: float):
    found = [growing_ratio(step, steps, ratio, share=share) for step in range(steps + 1)]
    assert found[0] == 0.0
    assert found[-1] == ratio
    assert found == sorted(found)
    assert max(found) == ratio


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: gradual_mask(4, 2, 2), "`epoch` is 2 of 2"),
        (lambda: gradual_mask(4, 0, 0), "`epoch` is 0 of 0"),
        (lambda: gradual_mask(0, 0, 1), "`n` is 0"),
        (lambda: gradual_mask(4, 0, 1, 0.0), "`stability` is 0.0"),
        (lambda: gradual_mask(4, 0, 1, 2.0), "`stability` is 2.0"),
        (lambda: gradual_mask(4, 0, 1, heads=0), "`heads` is 0"),
        (lambda: growing_ratio(0, 0), "`steps` is 0"),
        (lambda: growing_ratio(3, 2), "`step` is 3 of 2"),
        (lambda: growing_ratio(0, 2, 1.0), "`ratio` is 1.0"),
        (lambda: growing_ratio(0, 2, share=0.0), "`share` is 0.0"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_what_is_no_schedule_is_named(call, says: str):
    with pytest.raises(InvalidInputError, match=says):
        call()
