"""From quantized matrices to tables: the same weights, element for element, or a reason."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import lattq as lq
from lattq import recipes
from lattq.errors import InvalidInputError
from lattq.export.lookup import lookup_table
from tests.strategies import gaussian_layer, seeds


@given(
    seed=seeds,
    bits=st.sampled_from([1, 2, 3]),
    dimension=st.sampled_from([1, 2]),
    down=st.booleans(),
    entry_bits=st.sampled_from([None, 8, 4]),
    overhead=st.sampled_from([0.125, 4.0]),
)
def test_weights_are_the_same(
    seed: int, bits: int, dimension: int, down: bool, entry_bits: int | None, overhead: float
):
    """Also where the last group is smaller: 8 of 20 rows, 4 columns of a table in 6."""
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal((20, 12)) * 2.0 ** int(rng.integers(-6, 6))
    scheme = recipes.gptvq(
        bits, dimension=dimension, down=down, entry_bits=entry_bits, overhead=overhead, sweeps=0, rounds=0
    )
    found = lq.quantize(weight, np.eye(12), scheme)
    table = lookup_table(found)
    np.testing.assert_array_equal(table.dense(), found.dequantize(np.float16))  # exact but for its subnormal numbers
    assert table.axis == (0 if down else 1)


@pytest.mark.parametrize(
    ("scheme", "reason"),
    [
        (recipes.rtn(4, group=4), "UniformQuantizer has no tables"),
        (recipes.squeezellm(2, outliers=0.1), "the transform Sparse"),
        (recipes.gptvq(2, dimension=1, scale=4), "a scale of runs"),
        (recipes.ecvq(0.5, size=16, dimension=1), "the transform Diagonal"),
    ],
)
def test_what_a_table_cannot_say(scheme: lq.Scheme, reason: str):
    weight, sigma = gaussian_layer(16, 12)
    with pytest.raises(InvalidInputError, match=reason):
        lookup_table(lq.quantize(weight, sigma, scheme))


def test_a_width_that_core_ml_lacks():
    weight, sigma = gaussian_layer(64, 10)
    found = lq.quantize(weight, sigma, recipes.gptvq(1, dimension=5))
    with pytest.raises(InvalidInputError, match="32 entries; Core ML has"):
        lookup_table(found)
