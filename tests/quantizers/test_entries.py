"""Sets of entries: the power of each is a row factor times a column factor, and designs weigh errors by it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lattq.errors import InvalidInputError
from lattq.quantizers import Codebook, Entries
from tests.strategies import moment, seeds


@given(seed=seeds, rows=st.integers(1, 6), blocks=st.integers(1, 4), width=st.integers(1, 4))
def test_the_power_is_the_cost_of_a_unit_error(seed: int, rows: int, blocks: int, width: int):
    """Of an error in one entry alone, by the quadratic form of its block and the factor of its row."""
    rng = np.random.default_rng(seed)
    pivots = np.stack([moment(rng.uniform(0.1, 2, width), seed + k) for k in range(blocks)])
    factors = rng.uniform(0.5, 2, rows)
    entries = Entries(rng.normal(size=(rows, blocks * width)), pivots=pivots, row_power=factors)
    assert entries.block == width
    for row in range(rows):
        for column in range(blocks * width):
            error = np.zeros(width)
            error[column % width] = 1.0
            cost = factors[row] * error @ pivots[column // width] @ error
            assert entries.power[row, column] == pytest.approx(cost, rel=1e-12)


def test_without_factors_all_errors_cost_the_same():
    entries = Entries(np.ones((3, 2)))
    np.testing.assert_array_equal(entries.power, np.ones((1, 2)))
    np.testing.assert_array_equal(entries.columns, [0, 1])


@given(seed=seeds, repeats=st.lists(st.integers(1, 3), min_size=2, max_size=6))
def test_a_row_of_power_k_counts_as_k_rows(seed: int, repeats: list[int]):
    """Tables of numbers are exact, so that the weighted squared error is the least: that of the rows repeated."""
    values = np.random.default_rng(seed).normal(size=(len(repeats), 5))
    design = Codebook(size=3, entry_bits=None)
    weighed = design(Entries(values, row_power=np.array(repeats, dtype=float))).tables
    repeated = design(Entries(np.repeat(values, repeats, axis=0))).tables

    def cost(tables: np.ndarray) -> float:
        nearest = np.abs(values[..., None] - tables.reshape(-1)).min(axis=-1)
        return float(np.sum(np.array(repeats)[:, None] * nearest**2))

    # entries are float16: each moves by at most 2^-11 of its size, and the cost has no slope at the optimum
    slack = sum(repeats) * 5 * (np.abs(values).max() * 2.0**-11) ** 2
    assert abs(cost(weighed) - cost(repeated)) <= slack + 1e-12


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    "options",
    [
        {"columns": np.arange(3)},
        {"pivots": np.ones(3)},
        {"pivots": np.ones((2, 2, 2))},
        {"row_power": np.ones(3)},
        {"row_power": np.ones((2, 1))},
    ],
)
def test_sizes_that_do_not_agree_are_named(options: dict):
    with pytest.raises(InvalidInputError, match=r"agree|factor to each"):
        Entries(np.ones((2, 2)), **options)
