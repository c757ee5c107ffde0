"""Indices into codebooks: bits in their places, exact round trips, bytes, damage."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lattq.coding.indices import Indices
from lattq.errors import DamagedFileError, InvalidInputError
from tests.contracts import stream_bits
from tests.damage import damaged_streams, refusal_allowed
from tests.helpers import assert_same
from tests.strategies import seeds


def drawn(seed: int, size: int, rows: int, columns: int, dimension: int, *, down: bool) -> np.ndarray:
    """Codes of vectors, skewed towards small indices."""
    indices = (np.random.default_rng(seed).random((rows, columns)) ** 3 * size).astype(np.int32)
    return np.repeat(indices, dimension, axis=0 if down else 1)


@given(
    seed=seeds,
    size=st.sampled_from([2, 3, 16, 32, 256, 1000, 65536]),
    rows=st.integers(1, 12),
    columns=st.integers(1, 9),
    dimension=st.integers(1, 8),
    down=st.booleans(),
    coded=st.booleans(),
)
def test_round_trips_are_exact(seed: int, size: int, rows: int, columns: int, dimension: int, down: bool, coded: bool):
    codes = drawn(seed, size, rows, columns, dimension, down=down)
    coder = Indices(size, dimension, down, coded)
    assert_same(coder.decode(coder.encode(codes), codes.shape), codes)


@given(seed=seeds, bits=st.integers(1, 16), rows=st.integers(1, 9), columns=st.integers(1, 9), down=st.booleans())
def test_bits_lie_one_after_the_other(seed: int, bits: int, rows: int, columns: int, down: bool):
    """One big number, whose lowest bits are the first index."""
    codes = drawn(seed, 1 << bits, rows, columns, 2, down=down)
    indices = codes[::2] if down else codes[:, ::2]
    number = sum(int(index) << (bits * place) for place, index in enumerate(indices.ravel()))
    data = Indices(1 << bits, 2, down).encode(codes)
    assert data == number.to_bytes(-(-bits * indices.size // 8), "little")


def test_skewed_indices_take_their_entropy():
    codes = drawn(1, 64, 400, 60, 2, down=False)
    counts = np.bincount(codes[:, ::2].ravel())
    counts = counts[counts > 0]
    ideal = float(counts @ np.log2(counts.sum() / counts))
    found = stream_bits(Indices(64, 2, coded=True).encode(codes))
    assert ideal <= found <= ideal + 64 * 24 + 200  # the histogram, and the coder's state
    assert found < 0.95 * stream_bits(Indices(64, 2).encode(codes))


def test_weights_of_a_vector_share_an_index():
    with pytest.raises(InvalidInputError, match="different indices"):
        Indices(4, 2).encode(np.array([[0, 1]]))
    with pytest.raises(InvalidInputError, match="divide the 3 columns"):
        Indices(4, 2).encode(np.zeros((2, 3), dtype=np.int32))
    with pytest.raises(InvalidInputError, match="from 0 to 4"):
        Indices(4).encode(np.array([[0, 4]]))
    with pytest.raises(InvalidInputError, match="`size` is 65537"):
        Indices(65537)


@given(data=st.data(), coded=st.booleans())
def test_damage_is_an_error_or_other_codes(data: st.DataObject, coded: bool):
    codes = drawn(3, 16, 5, 6, 2, down=False)
    coder = Indices(16, 2, coded=coded)
    stream = data.draw(damaged_streams(coder.encode(codes)))
    with refusal_allowed():
        assert coder.decode(stream, codes.shape).shape == codes.shape
    with pytest.raises(DamagedFileError):
        Indices(16, 2).decode(Indices(16, 2).encode(codes)[:-1], codes.shape)
