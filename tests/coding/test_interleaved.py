"""Interleaved streams: exact for all integers, tables and lanes, as long as their tables say, or refused."""

import os
import subprocess
import sys

import constriction
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from docs import plain_decoder
from lattq.coding import interleaved
from lattq.coding.interleaved import decode_symbols, encode_symbols, lanes_of, read_words
from lattq.coding.slots import SLOT_BITS, WIDEST, SlotTables, cosets_of, gaussians, kinds_of_codes, kinds_of_cosets
from lattq.coding.tables import CLASSES, gaussian_counts, limit
from lattq.errors import DamagedFileError
from lattq.kernels import rans, rans_vector
from tests.damage import damaged_bytes, refusal_allowed
from tests.helpers import assert_same
from tests.strategies import seeds

FARTHEST = (1 << 59) - 1
FAMILIES = ("codes", "supersets")


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Streams with a lane for each 16 symbols, so that short ones have up to 64."""
    monkeypatch.setattr(interleaved, "LANE", 16)


def drawn(seed: int, size: int, family: str, spread: float) -> tuple[np.ndarray, np.ndarray, SlotTables]:
    """Integers of random classes, some far beyond their tables, kinds and tables."""
    rng = np.random.default_rng(seed)
    tables, kinds = (gaussians(), kinds_of_codes()) if family == "codes" else (cosets_of(2), kinds_of_cosets(2))
    classes = rng.integers(0, rng.choice([30, CLASSES, len(kinds)]), size)
    symbols = np.clip(spread * rng.standard_normal(size) * 2.0 ** ((classes - 1) / 8 - 3), -1e17, 1e17)
    symbols = np.rint(symbols).astype(np.int64)
    far = rng.random(size) < rng.choice([0, 0.02])
    symbols[far] = (
        rng.choice([1, -1], size)[far] * rng.integers(0, FARTHEST, size)[far] >> rng.integers(0, 59, size)[far]
    )
    return symbols, kinds[classes], tables


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize("family", FAMILIES)
@given(seed=seeds, size=st.integers(0, 3000), spread=st.sampled_from([1.0, 1.5, 4.0]))
def test_round_trip_is_exact(family: str, seed: int, size: int, spread: float):
    symbols, kinds, tables = drawn(seed, size, family, spread)
    assert_same(decode_symbols(encode_symbols(symbols, kinds, tables), kinds, tables), symbols)


@pytest.mark.usefixtures("narrow")
@given(seed=seeds, size=st.integers(0, 300), spread=st.sampled_from([1.0, 4.0]))
def test_a_plain_decoder_finds_the_same(seed: int, size: int, spread: float):
    rng = np.random.default_rng(seed)
    classes = rng.integers(0, 266, size)
    symbols = np.rint(spread * rng.standard_normal(size) * 2.0 ** ((classes - 1) / 8 - 3)).astype(np.int64)
    data = encode_symbols(symbols, kinds_of_codes()[classes], gaussians())
    stream = plain_decoder.Stream(data)
    assert_same(stream.take(map(plain_decoder.code, classes.tolist())), symbols)
    stream.close()


@pytest.mark.parametrize("index", [1, 9, 25, 41, 57, 61])
def test_streams_are_as_long_as_their_tables_say(index: int):
    """Rounding of states costs (1 - Σ p²) 4^(13 - 16) / (384 ln² 2) bits, 0.8e-4 (theory 3.5), and scatters.

    The coder of another library, with the same table, takes as much as the table says.
    """
    size, tables = 1 << 18, gaussians()
    rng = np.random.default_rng(index)
    symbols = np.rint(2.0 ** ((index - 1) / 8 - 3) * rng.standard_normal(size)).astype(np.int64)
    low, high = tables.ends[index]
    symbols = np.clip(symbols, low, high)
    place = tables.starts[index] + symbols - low
    ideal = float(np.sum(SLOT_BITS - np.log2(tables.entries[place] >> 16)))
    found = 8 * len(encode_symbols(symbols, np.full(size, kinds_of_codes()[index]), tables))
    lanes = 1 << lanes_of(size)
    assert ideal - 8 < found < ideal + 1e-4 * size + 32 * lanes + 16
    slots = tables.entries[tables.starts[index] + np.arange(high - low + 2)] >> 16
    model = constriction.stream.model.Categorical(slots / 2.0**SLOT_BITS, perfect=False, lazy=False)
    coder = constriction.stream.stack.AnsCoder()
    coder.encode_reverse((symbols - low).astype(np.int32), model)
    assert abs(coder.num_bits() - found) < 1e-4 * size + 32 * lanes + 64


@pytest.mark.parametrize("index", [25, 41, 57, WIDEST, WIDEST + 1, WIDEST + 8, WIDEST + 9])
def test_streams_take_little_more_than_the_entropy(index: int):
    """Slots take 0.0012 bit at eight bits and 0.00015 at four, states 0.00008, and lanes 24 bits each (theory 3.5)."""
    size, scale = 1 << 18, 2.0 ** ((index - 1) / 8 - 3)
    symbols = np.rint(scale * np.random.default_rng(index).standard_normal(size)).astype(np.int64)
    p = norm.sf((np.abs(symbols) - 0.5) / scale) - norm.sf((np.abs(symbols) + 0.5) / scale)
    found = 8 * len(encode_symbols(symbols, np.full(size, kinds_of_codes()[index]), gaussians())) / size
    lanes = 24 * (1 << lanes_of(size)) / size
    assert abs(found + np.mean(np.log2(p)) - lanes) < (3e-4 if index <= 41 else 1.4e-3)


@pytest.mark.parametrize("index", [*range(0, WIDEST, 6), WIDEST])
def test_tables_are_the_frozen_ones_in_fewer_slots(index: int):
    """All but one symbol have their counts within half a slot, or one slot; all slots are somebody's."""
    tables, counts = gaussians(), gaussian_counts(index)
    low, high = tables.ends[index]
    first = tables.starts[index]
    slots = tables.entries[first : first + high - low + 2] >> 16
    assert slots.sum() == 1 << SLOT_BITS
    assert slots.min() >= 1
    if index:
        inside = counts[low + limit(index) : high + limit(index) + 1] / 2 ** (24 - SLOT_BITS)
        wrong = (np.abs(slots[:-1] - inside) > 0.5 + 1e-9) & (inside > 0.5)
        assert wrong.sum() <= 1  # what is lacking is taken from the most frequent
    mine = tables.slots[index << SLOT_BITS : (index + 1) << SLOT_BITS]
    assert_same(np.bincount(mine - first, minlength=len(slots)), slots.astype(np.int64))


def test_sixteen_at_once_are_sixteen_one_after_the_other(monkeypatch: pytest.MonkeyPatch):
    """States and words of the vector form, and those of the plain form, which is used where lanes are few."""
    symbols, kinds, tables = drawn(3, 1 << 12, "codes", 1.0)
    for lanes in (1, 2, 8, 16, 32, 64):
        monkeypatch.setattr(interleaved, "lanes_of", lambda size, lanes=lanes: lanes.bit_length() - 1)
        data = encode_symbols(symbols, kinds, tables)
        assert len(read_words(data)[0]) == lanes
        assert_same(decode_symbols(data, kinds, tables), symbols)
    assert (SLOT_BITS, tables.values.min()) == (rans_vector.SLOT_BITS, rans.ESCAPE)


@given(seed=seeds, size=st.integers(1, 200), data=st.data())
def test_damaged_streams_are_refused_or_give_as_many_symbols(seed: int, size: int, data: st.DataObject):
    symbols, kinds, tables = drawn(seed, size, "supersets", 1.0)
    with refusal_allowed():
        blob = data.draw(damaged_bytes(encode_symbols(symbols, kinds, tables)))
        assert decode_symbols(blob, kinds, tables).shape == (size,)


@pytest.mark.parametrize("blob", [b"", b"\x00", b"\x00\x00", b"\x00\x01\x00", b"\x07" + bytes(600), b"\x01" + bytes(8)])
def test_what_is_no_stream_is_refused(blob: bytes):
    with pytest.raises(DamagedFileError, match="damaged"):
        read_words(blob)


@pytest.mark.parametrize("more", [b"\x01\x02", b"\x00\x00"])
def test_words_left_over_are_noticed(more: bytes):
    symbols, kinds, tables = drawn(0, 500, "codes", 1.0)
    with pytest.raises(DamagedFileError, match="other than their 500 symbols"):
        decode_symbols(encode_symbols(symbols, kinds, tables) + more, kinds, tables)


SCRIPT = """
import hashlib, numpy as np
from tests.coding.test_interleaved import drawn
from lattq.coding import interleaved
interleaved.LANE = 64
symbols, kinds, tables = drawn(5, 5000, "supersets", 1.5)
data = interleaved.encode_symbols(symbols, kinds, tables)
assert (interleaved.decode_symbols(data, kinds, tables) == symbols).all()
print(hashlib.sha256(data).hexdigest())
"""


def test_any_processor_writes_the_same_bytes():
    """Compiled for the processor at hand, and for the least of its kind."""
    found = set()
    for settings in ({}, {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""}):
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT], env={**os.environ, **settings}, capture_output=True, text=True, check=True
        )
        found.add(done.stdout)
    assert len(found) == 1
