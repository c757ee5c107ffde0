"""Sums that are the same in any order and grouping, to the last bit."""

from fractions import Fraction

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from lattq.errors import InvalidInputError
from lattq.llm.measure.exact import Exact, ExactSum

UNIT = -64
NUMBERS = st.floats(-1e12, 1e12, allow_nan=False) | st.floats(-1e-12, 1e-12)


def total(values: list[float]) -> Exact:
    """Of single numbers."""
    found = ExactSum((1,), UNIT)
    for value in values:
        found.add(np.array([value]))
    return found.exact()


def fraction(exact: Exact) -> Fraction:
    """Its value."""
    return Fraction(float(exact.sum[0])) + Fraction(int(exact.rest[0])) * Fraction(2) ** UNIT


def rounded(value: float) -> Fraction:
    """The nearest multiple of the unit, ties to even ones."""
    return Fraction(round(Fraction(value) / Fraction(2) ** UNIT)) * Fraction(2) ** UNIT


@given(st.lists(NUMBERS, max_size=30))
def test_a_sum_is_that_of_fractions(values: list[float]):
    found = total(values)
    assert fraction(found) == sum(map(rounded, values))
    assert abs(Fraction(float(found.sum[0])) - fraction(found)) <= Fraction(float(np.spacing(abs(found.sum[0]))))


@given(st.lists(NUMBERS, min_size=1, max_size=12), st.randoms(use_true_random=False), st.integers(0, 11))
def test_order_and_grouping_change_no_bit(values: list[float], random, split: int):
    wanted = total(values)
    random.shuffle(values)
    parts = ExactSum((1,), UNIT)
    for part in (values[:split], values[split:]):
        parts.merge(total(part))
    found = parts.exact()
    assert found.sum.tobytes() == wanted.sum.tobytes()
    assert found.rest.tobytes() == wanted.rest.tobytes()


def test_floats_alone_mind_the_order():
    values = [1e10, 2.0**-64, -1e10]
    assert sum(values) != values[0] + values[2] + values[1]
    assert float(total(values).sum[0]) == 2.0**-64


def test_a_triangle_is_added_row_by_row(rng: np.random.Generator):
    matrix = rng.standard_normal((5, 5))
    found, wanted = ExactSum((2, 15), UNIT), ExactSum((15,), UNIT)
    found.add_triangle(1, matrix)
    wanted.add(matrix[np.tril_indices(5)])
    np.testing.assert_array_equal(found.exact().sum[1], wanted.exact().sum)
    assert not found.exact().sum[0].any()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 2.0 ** (UNIT + 115), -1e300])
def test_what_no_limb_holds_raises(value: float):
    with pytest.raises(InvalidInputError, match="not finite or beyond"):
        ExactSum((1,), UNIT).add(np.array([value]))


def test_a_sum_that_grows_out_of_range_raises():
    found = ExactSum((1,), UNIT)
    found.add(np.array([2.0 ** (UNIT + 113.5)]))
    with pytest.raises(InvalidInputError, match="beyond"):
        found.add(np.array([2.0 ** (UNIT + 113.5)]))


def test_zero_is_one_zero():
    assert total([-0.0]).sum.tobytes() == total([]).sum.tobytes() == total([1.0, -1.0]).sum.tobytes()
