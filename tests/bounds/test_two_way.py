"""Two-way variances: stationarity, likelihood, zeros, and what has no maximum."""

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from lattq.bounds import two_way_variances
from lattq.errors import InvalidInputError

TOLERANCE = 2e-10  # twice what the fit promises


@st.composite
def matrices(draw: st.DrawFn) -> np.ndarray:
    """Gaussian matrices with row and column scales, some rows and columns zero, and entries of very unequal size."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = draw(st.tuples(st.integers(1, 7), st.integers(1, 7)))
    spread = draw(st.sampled_from([0.0, 1.0, 4.0]))
    weight = rng.standard_normal(shape) * np.exp(spread * rng.standard_normal(shape))
    weight[rng.random(shape[0]) < 0.2] = 0.0
    weight[:, rng.random(shape[1]) < 0.2] = 0.0
    return weight


def scales(rng: np.random.Generator, size: float, count: int) -> np.ndarray:
    return np.exp(size * rng.standard_normal(count))


def assert_stationary(weight: np.ndarray, row: np.ndarray, column: np.ndarray) -> None:
    """Each live variance is the mean of the squares over the other side's; dead ones are zero."""
    live_rows, live_columns = weight.any(axis=1), weight.any(axis=0)
    assert (row[~live_rows] == 0.0).all()
    assert (column[~live_columns] == 0.0).all()
    live = weight[np.ix_(live_rows, live_columns)] ** 2 / np.outer(row[live_rows], column[live_columns])
    np.testing.assert_allclose(live.mean(axis=1), 1.0, rtol=TOLERANCE)
    np.testing.assert_allclose(live.mean(axis=0), 1.0, rtol=TOLERANCE)


@given(matrices())
@example(np.array([[1.0, 1e-7], [1e-7, 1.0]]))
@example(np.array([[1.0, 1.0], [1e-6, 1.0]]))
@example(np.array([[3.0, 0.0], [0.0, -2.0]]))
def test_stationary_and_normalised(weight: np.ndarray):
    row, column = two_way_variances(weight)
    if not weight.any():
        np.testing.assert_array_equal(row, 1.0)
        np.testing.assert_array_equal(column, 0.0)
        return
    assert_stationary(weight, row, column)
    assert row.mean() == pytest.approx(1.0, rel=1e-14)


def test_means_of_squares_are_not_stationary():
    # Negative control: the estimate that fits sums, not likelihood.
    weight = np.random.default_rng(2).standard_normal((5, 8)) * np.exp(np.arange(5.0))[:, None]
    row = (weight**2).mean(axis=1)
    with pytest.raises(AssertionError):
        assert_stationary(weight, row / row.mean(), (weight**2).mean(axis=0))


@given(matrices(), st.integers(0, 2**32 - 1))
def test_no_other_scales_are_likelier(weight: np.ndarray, seed: int):
    weight = np.where(weight == 0.0, 1.0, weight)
    row, column = two_way_variances(weight)
    rng = np.random.default_rng(seed)

    def cost(rows: np.ndarray, columns: np.ndarray) -> float:
        variances = np.outer(rows, columns)
        return float((np.log(variances) + weight**2 / variances).sum())

    best = cost(row, column)
    for size in (0.01, 0.3):
        other = cost(row * scales(rng, size, len(row)), column * scales(rng, size, len(column)))
        assert other >= best - 1e-9 * (1.0 + abs(best))


@given(matrices(), st.floats(1e-140, 1e130))
def test_scale_and_transposition(weight: np.ndarray, scale: float):
    # The maximum is unique up to the split, but very flat for some matrices: compare what it satisfies.
    if weight.any():
        row, column = two_way_variances(weight * scale)
        assert_stationary(weight, row, column / scale / scale)
        column, row = two_way_variances(weight.T)
        assert_stationary(weight, row, column)


def test_recovers_the_variances_of_a_large_matrix():
    rng = np.random.default_rng(7)
    rows, columns = np.exp(0.5 * rng.standard_normal(400)), np.exp(0.5 * rng.standard_normal(600))
    rows /= rows.mean()
    row, column = two_way_variances(rng.standard_normal((400, 600)) * np.sqrt(np.outer(rows, columns)))
    # A variance from k squares has the relative standard error √(2/k); the largest of hundreds stays within five.
    assert np.abs(np.log(row / rows)).max() < 5.0 * np.sqrt(2 / 600)
    assert np.abs(np.log(column / columns)).max() < 5.0 * np.sqrt(2 / 400)


def test_a_torch_weight_in_half_precision():
    row, column = two_way_variances(torch.ones((2, 3), dtype=torch.bfloat16))
    np.testing.assert_allclose(row, 1.0)
    np.testing.assert_allclose(column, 1.0)


@pytest.mark.parametrize(
    "weight",
    [np.array([[1.0, 0.0], [1.0, 0.0], [1.0, 1.0]]), np.array([[1.0, 0.0], [1.0, 1.0]]), np.tril(np.ones((6, 6)))],
)
def test_zeros_that_leave_no_maximum_are_refused(weight: np.ndarray):
    with pytest.raises(InvalidInputError, match="`weight` has no two-way variances"):
        two_way_variances(weight)


@pytest.mark.parametrize(
    ("weight", "named"),
    [
        (np.array([[1.0, np.inf]]), r"`weight` holds inf at index \(0, 1\)"),
        (np.array([[1.0, 1e200]]), r"size 1e\+200"),
        (np.zeros((0, 3)), r"`weight` has shape \(0, 3\)"),
    ],
)
def test_refusals_name_the_value(weight: np.ndarray, named: str):
    with pytest.raises(InvalidInputError, match=named):
        two_way_variances(weight)
