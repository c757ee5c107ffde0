"""What cannot be factored: indefinite matrices, by the name of the column, and options out of range."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lattq.errors import InvalidInputError, NotPositiveSemidefiniteError
from lattq.linalg import ldl
from tests.oracles.rational_ldl import first_indefinite, rational_pivots
from tests.strategies import seeds

ORDERS = ["natural", "sorted", "pivoted"]


@given(seed=seeds, n=st.integers(2, 6))
def test_an_indefinite_matrix_names_its_first_bad_column(seed: int, n: int):
    entries = np.random.default_rng(seed).integers(-2, 3, size=(n, n))
    matrix = entries + entries.T
    np.fill_diagonal(matrix, np.random.default_rng(seed + 1).integers(0, 12, size=n))
    wanted = first_indefinite(matrix)
    if wanted is None:
        assert np.all(ldl(matrix.astype(np.float64)).pivots >= 0)
        return
    with pytest.raises(NotPositiveSemidefiniteError, match=f"column {wanted} .*damping") as caught:
        ldl(matrix.astype(np.float64))
    assert caught.value.index == wanted
    assert caught.value.pivot < 0
    before = rational_pivots(matrix[:wanted, :wanted])
    if before is not None and all(before):
        leading, column = matrix[:wanted, :wanted], matrix[:wanted, wanted]
        known = column @ np.linalg.solve(leading, column) if wanted else 0.0
        assert caught.value.pivot == pytest.approx(matrix[wanted, wanted] - known, rel=1e-6)


@pytest.mark.parametrize("order", ORDERS)
def test_the_index_is_the_original_one(order: str):
    sigma = np.diag([1.0, 5.0, 3.0, 2.0])
    sigma[1, 3] = sigma[3, 1] = 4.0
    with pytest.raises(NotPositiveSemidefiniteError) as caught:
        ldl(sigma, order=order)
    assert caught.value.index == 3
    assert caught.value.pivot == pytest.approx(2.0 - 16.0 / 5.0)
    with pytest.raises(NotPositiveSemidefiniteError) as caught:
        ldl(sigma, order=np.array([3, 0, 2, 1]))
    assert caught.value.index == 1


def test_a_negative_variance_is_named_first():
    sigma = np.diag([1.0, 1.0, 0.0, -2.0])
    sigma[0, 1] = sigma[1, 0] = 3.0
    with pytest.raises(NotPositiveSemidefiniteError) as caught:
        ldl(sigma)
    assert (caught.value.index, caught.value.pivot) == (3, -2.0)


@pytest.mark.parametrize("order", ORDERS)
def test_no_variance_but_correlation_is_indefinite(order: str):
    with pytest.raises(NotPositiveSemidefiniteError):
        ldl(np.array([[0.0, 1.0], [1.0, 0.0]]), order=order)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"block": 2}, "`block` is 2, which does not divide the 3 columns"),
        ({"block": 0}, "`block` is 0"),
        ({"order": "random"}, '`order` is "random"'),
        ({"order": np.array([0, 0, 1])}, "permutation of 0 ... 2"),
        ({"damping": -0.1}, "`damping` is -0.1"),
        ({"damping": float("nan")}, "`damping` is nan"),
    ],
)
def test_options_out_of_range(options: dict, message: str):
    with pytest.raises(InvalidInputError, match=message):
        ldl(np.eye(3), **options)
