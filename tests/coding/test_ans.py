"""Streams of symbols with known scale classes: exact for all integers and classes, or refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lattq.coding.ans import LARGEST_CLASS, decode_classes, encode_classes
from lattq.coding.tables import CLASSES, code_lengths, limit
from lattq.errors import DamagedFileError
from tests.damage import damaged_bytes, refusal_allowed
from tests.helpers import assert_same
from tests.strategies import seeds

LARGEST = 2**31 - 1


@st.composite
def symbols_and_classes(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Integers of any size up to 32 bits and classes that need not fit them."""
    size = draw(st.integers(0, 60))
    edges = st.sampled_from([0, 1, -1, LARGEST, -LARGEST, 2**30, -(2**30), limit(25), -limit(25) - 1])
    symbols = draw(
        st.lists(edges | st.integers(-300, 300) | st.integers(-LARGEST, LARGEST), min_size=size, max_size=size)
    )
    classes = draw(st.lists(st.integers(0, LARGEST_CLASS), min_size=size, max_size=size))
    return np.array(symbols, dtype=np.int64), np.array(classes, dtype=np.int64)


@given(symbols_and_classes())
def test_round_trip_is_exact(drawn: tuple[np.ndarray, np.ndarray]):
    symbols, classes = drawn
    assert_same(decode_classes(encode_classes(symbols, classes), classes), symbols)


@given(seed=seeds, size=st.integers(1, 3000))
def test_size_is_the_models_plus_one_word(seed: int, size: int):
    """The coder's state is at most 64 bits; escapes are listed beside the words."""
    rng = np.random.default_rng(seed)
    classes = rng.integers(0, CLASSES, size)
    symbols = np.rint(rng.standard_normal(size) * 2.0 ** ((classes - 1) / 8 - 3)).astype(np.int64) * (classes > 0)
    words, escapes = encode_classes(symbols, classes)
    lengths = code_lengths(int(np.abs(symbols).max()))
    bits = lengths[classes, np.abs(symbols)].sum() - 32 * len(escapes)
    assert bits - 1 <= 8 * len(words) <= bits + 64


def test_known_zeros_cost_nothing():
    symbols = np.zeros(10_000, dtype=np.int64)
    words, escapes = encode_classes(symbols, np.zeros(10_000, dtype=np.int64))
    assert len(words) <= 4
    assert escapes == []


def test_large_scales_cost_their_low_bits():
    """Above the tables a doubled scale costs one bit more."""
    rng = np.random.default_rng(0)
    normal = rng.standard_normal(4000)
    sizes = [
        8 * len(encode_classes(np.rint(normal * 2.0**log).astype(np.int64), np.full(4000, 8 * (log + 3) + 1))[0])
        for log in range(4, 20)
    ]
    np.testing.assert_allclose(np.diff(sizes) / 4000, 1.0, atol=0.01)


@given(seed=seeds, size=st.integers(1, 200), data=st.data())
def test_damaged_words_are_refused_or_give_as_many_symbols(seed: int, size: int, data: st.DataObject):
    rng = np.random.default_rng(seed)
    classes = rng.integers(0, CLASSES + 60, size)
    symbols = np.rint(rng.standard_normal(size) * 2.0 ** ((classes - 1) / 8 - 3)).astype(np.int64)
    words, escapes = encode_classes(symbols, classes)
    with refusal_allowed():
        assert decode_classes([data.draw(damaged_bytes(words)), escapes], classes).shape == classes.shape


@pytest.mark.parametrize("escapes", [[], [400, 400], [400, 400, 400, 400]])
def test_the_number_of_escapes_is_checked(escapes: list[int]):
    symbols, classes = np.array([400, 0, 400, 400]), np.full(4, 25)
    words, stored = encode_classes(symbols, classes)
    assert stored == [400, 400, 400]
    with pytest.raises(DamagedFileError, match="damaged"):
        decode_classes([words, escapes], classes)


def test_words_left_over_are_noticed():
    symbols = np.rint(np.random.default_rng(0).standard_normal(500) * 8).astype(np.int64)
    classes = np.full(500, 49)
    words, escapes = encode_classes(symbols, classes)
    with pytest.raises(DamagedFileError, match="more than its 500 symbols"):
        decode_classes([words + words, escapes], classes)
