"""Tables of other symbols: exact for all counts, as long as the library that is the oracle, or a little more."""

import constriction
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lattq.coding.alphabets import Histogram, bit_kinds, bits, distributions, equals, shares
from lattq.coding.interleaved import Reader, encode_parts
from lattq.coding.slots import SHIFT, SLOT_BITS
from lattq.errors import DamagedFileError
from tests.damage import damaged_bytes, refusal_allowed
from tests.helpers import assert_same
from tests.strategies import seeds

SLOTS = 1 << SLOT_BITS
counts_of_symbols = st.lists(st.integers(0, 50) | st.integers(0, 1 << 40), min_size=2, max_size=40).filter(
    lambda counts: sum(count > 0 for count in counts) > 1
)


@given(counts_of_symbols)
def test_shares_are_the_nearest_by_largest_remainder(counts: list[int]):
    """In exact fractions: all slots are given, whole ones first; what rare symbols get, the most frequent one lacks."""
    found, total = shares(np.array(counts)), sum(counts)
    assert found.sum() == SLOTS
    assert_same(found > 0, np.array(counts) > 0)
    rare = sum(0 < SLOTS * count < total for count in counts)
    for share, count in zip(found.tolist(), counts, strict=True):
        if count and SLOTS * count >= total and count != max(counts):
            assert SLOTS * count // total <= share <= SLOTS * count // total + 1
    assert abs(int(found.max()) * total - SLOTS * max(counts)) <= (rare + 1) * total


@given(st.lists(st.integers(2, 1 << 16), min_size=1, max_size=4), seeds)
def test_equals_come_back_and_cost_their_logarithm(sizes: list[int], seed: int):
    """A count of slots is off by one at most, of 16 at least, and the last of those with low bits may be a part."""
    rng, number = np.random.default_rng(seed), 2000
    tables, kinds = equals(tuple(sizes))
    which = rng.integers(0, len(sizes), number)
    symbols = rng.integers(0, np.array(sizes)[which])
    stream = encode_parts([(symbols, kinds[which], tables)])
    reader = Reader(stream)
    assert_same(reader.take(kinds[which], tables), symbols)
    reader.close()
    ideal = np.log2(np.array(sizes))[which].sum()
    assert abs(8 * len(stream) - ideal) <= 0.004 * number + 5 * 0.08 * np.sqrt(number) + 32


def test_bits_cost_little_more_than_their_entropy():
    """For every chance of 16 bits: a divergence of 1.8e-4 bit at most, and 5e-5 on average over all."""
    chance = np.arange(1, 65536)
    table = bit_kinds(chance) >> SHIFT
    ones = bits().entries[1::2] >> 16
    p, q = chance / 65536, ones[table] / SLOTS
    divergence = p * np.log2(p / q) + (1 - p) * np.log2((1 - p) / (1 - q))
    assert divergence.max() < 1.8e-4
    assert divergence.mean() < 5e-5
    assert_same(table, 126 - table[::-1])
    assert len(bits().starts) == 127


@given(seed=seeds, size=st.integers(1, 4000), chance=st.integers(1, 65535))
def test_bits_come_back(seed: int, size: int, chance: int):
    found = (np.random.default_rng(seed).random(size) < chance / 65536).astype(np.int64)
    kinds = np.full(size, bit_kinds(np.array([chance]))[0])
    reader = Reader(encode_parts([(found, kinds, bits())]))
    assert_same(reader.take(kinds, bits()), found)
    reader.close()


@given(
    seed=seeds,
    size=st.sampled_from([2, 3, 30, 300, 3000, 60000]),
    spread=st.sampled_from([0.02, 0.2, 3.0]),
    number=st.integers(2, 3000),
)
def test_histograms_cost_their_entropy(seed: int, size: int, spread: float, number: int):
    """Against the coder of another library with the same counts: of a Gaussian, of few symbols far apart, of many."""
    rng = np.random.default_rng(seed)
    integers = np.clip(np.rint(size * (0.5 + spread * rng.standard_normal(number))), 0, size - 1).astype(np.int64)
    integers[:2] = 0, size - 1
    counts = np.bincount(integers)
    histogram = Histogram.of(counts)
    stream = encode_parts(histogram.parts(integers))
    reader = Reader(stream)
    assert_same(histogram.take(reader, number), integers)
    reader.close()
    coder = constriction.stream.stack.AnsCoder()
    model = constriction.stream.model.Categorical(counts / counts.sum(), perfect=False, lazy=False)
    coder.encode_reverse(integers.astype(np.int32), model)
    assert 8 * len(stream) <= coder.num_valid_bits() + 0.001 * number + 64


def test_symbols_beyond_the_last_are_refused():
    """Of 2049 symbols two share a table's entry; the last stands alone."""
    histogram = Histogram.of(np.ones(2049, dtype=np.int64))
    assert histogram.low == 1
    wrong = Histogram(np.arange(2050), 1, histogram.tables, histogram.members)
    stream = encode_parts(wrong.parts(np.array([2049])))
    with pytest.raises(DamagedFileError, match="symbol 2049"):
        histogram.take(Reader(stream), 1)


@given(seed=seeds, data=st.data())
def test_damaged_streams_are_refused_or_give_as_many_symbols(seed: int, data: st.DataObject):
    integers = np.random.default_rng(seed).geometric(0.02, 300)
    histogram = Histogram.of(np.bincount(integers))
    with refusal_allowed():
        reader = Reader(data.draw(damaged_bytes(encode_parts(histogram.parts(integers)))))
        assert histogram.take(reader, 300).shape == (300,)
        reader.close()


def test_parts_follow_each_other_in_one_stream():
    """Also empty ones, and none at all."""
    tables, few = distributions(np.array([[1, 3], [5, 1]])), np.array([1, 0, 1])
    parts = [(few, np.array([0, 32, 0]), tables), (few[:0], few[:0], tables), (few, np.array([32, 32, 0]), bits())]
    reader = Reader(encode_parts(parts))
    for symbols, kinds, own in parts:
        assert_same(reader.take(kinds, own), symbols)
    reader.close()
    assert encode_parts([]) == b""
    Reader(b"").close()
    with pytest.raises(DamagedFileError, match="no bytes for 3 symbols"):
        Reader(b"").take(np.zeros(3, dtype=np.uint32), tables)
    with pytest.raises(DamagedFileError, match="hold other than their 0 symbols"):
        Reader(b"\0\1").close()
