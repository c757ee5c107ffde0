"""Side information: any integers come back, short arrays stay short."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lattq.coding.integers import decode_integers, encode_integers
from lattq.errors import DamagedFileError
from tests.contracts import stream_bits
from tests.damage import damaged_streams, refusal_allowed
from tests.helpers import assert_same
from tests.strategies import seeds

LARGEST = 2**31 - 1

arrays = st.one_of(
    st.lists(st.integers(-300, 300), max_size=50),
    st.lists(st.integers(-LARGEST, LARGEST), max_size=50),
    st.lists(st.sampled_from([0, 0, 0, LARGEST, -LARGEST, 1]), max_size=50),
    st.builds(lambda value, size: [value] * size, st.integers(-LARGEST, LARGEST), st.integers(0, 2000)),
).map(lambda values: np.array(values, dtype=np.int64))


@given(arrays)
def test_round_trip_is_exact(values: np.ndarray):
    assert_same(decode_integers(encode_integers(values), len(values)), values)


@given(st.integers(-LARGEST, LARGEST), st.integers(1, 5000))
def test_a_constant_costs_its_parameters_only(value: int, size: int):
    assert encode_integers(np.full(size, value))[2:] == [b""]


@given(seed=seeds, size=st.integers(20, 3000), log=st.floats(-1, 5), centre=st.integers(-1000, 1000))
def test_gaussian_arrays_cost_their_entropy(seed: int, size: int, log: float, centre: int):
    """The class is chosen by exact bits, so it beats the entropy of the true scale up to the coder's state.

    The empirical average of -log2 p has a standard deviation of about 1 / (√2 ln 2) = 1.02 bit a symbol.
    """
    scale = 2.0**log
    values = np.rint(np.random.default_rng(seed).standard_normal(size) * scale).astype(np.int64) + centre
    entropy = 0.5 * np.log2(2 * np.pi * np.e * (scale**2 + 1 / 12))  # at least that of the rounded Gaussian
    allowed = size * (entropy + 0.003) + 6 * 1.02 * np.sqrt(size) + 64
    assert stream_bits(encode_integers(values)) <= allowed + 100


def test_pinned_bytes():
    """The centre and class of the model, and the stream, with what the table cannot hold."""
    values = np.array([3, -1, 4, -1, 5, -9, 2, -6, 5, -3, 5, -8, 9, -7, 9, 3] * 3 + [150])
    centre, index, stream = encode_integers(values)
    assert (centre, index) == (3, 46)
    assert stream.hex() == "008c4fb10ccd6705e21ed389e1da47dce02db32221197b0412b3ee506564da9390"


@given(seed=seeds, size=st.integers(1, 60), data=st.data())
def test_damaged_streams_are_refused_or_give_as_many_integers(seed: int, size: int, data: st.DataObject):
    rng = np.random.default_rng(seed)
    stream = encode_integers(np.rint(rng.standard_t(2, size) * 10).astype(np.int64))
    damaged = data.draw(damaged_streams(stream))
    with refusal_allowed():
        assert decode_integers(damaged, size).shape == (size,)


def test_the_wrong_length_is_noticed():
    stream = encode_integers(np.rint(np.random.default_rng(0).standard_normal(100) * 50).astype(np.int64))
    with pytest.raises(DamagedFileError):
        decode_integers(stream, 50)
