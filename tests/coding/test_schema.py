"""Schemas: what a file may hold is read as it is, and anything else is refused by name, whatever it is."""

import contextlib
import tracemalloc
from types import SimpleNamespace
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lattq.coding.messages import unpacked
from lattq.coding.schema import (
    SCALE,
    WORDS,
    Choice,
    Either,
    Flag,
    Inner,
    Integer,
    Octets,
    Real,
    Record,
    Series,
    Text,
    checked,
)
from lattq.errors import DamagedFileError

SAMPLES = {
    "integer": (Integer(-3, 9), [-3, 0, 9], [-4, 10, True, 3.0, 2**70, "3", b"3", [3], None]),
    "float": (Real(-1.0, 1.0), [-1.0, 0.0, 1.0], [1, 1.5, float("nan"), float("inf"), -float("inf"), True, None]),
    "scale": (SCALE, [0.5, 2.0**511, 2.0**-511], [0.0, -1.0, 1e308, 1e-308, 5e-324, 1, float("nan")]),
    "flag": (Flag(), [True, False], [0, 1, None, "yes", [True]]),
    "choice": (Choice(None, 1, 4, "a"), [None, 1, 4, "a"], [True, 1.0, 2, "b", b"a", []]),
    "text": (Text(r"[a-z]{2,5}"), ["ab", "abcde"], ["a", "abcdef", "AB", "ab\n", b"ab", 3, None]),
    "bytes": (Octets(3), [b"abc"], [b"ab", b"abcd", "abc", [97, 98, 99], None]),
    "words": (WORDS, [b"", b"a", b"abcd"], ["abcd", 4, None]),
    "either": (Either(None, Integer(0, 1), Real(5.0, 6.0)), [None, 0, 5.5], [2, 4.0, "x", []]),
    "series": (Series(Integer(0, 9), 1, 3), [[1], [1, 2, 3]], [[], [1, 2, 3, 4], [10], (1,), {}, "1", 1, None]),
    "record": (Record(a=Integer(0, 9), b=Flag()), [[1, True]], [[1], [1, True, 2], [True, True], [1, 1], {}, None]),
    "inner": (Inner(), [None, 1, [[]]], []),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_what_fits_is_read_as_it_is_and_the_rest_is_refused_by_name(name: str):
    schema, good, bad = SAMPLES[name]
    for value in good:
        found = checked(schema, value, "field")
        assert (found, type(found)) == (value, type(value))
    for value in bad:
        with pytest.raises(DamagedFileError, match=r"`\w+` is .*, not .*; the file is damaged"):
            checked(schema, value, "field")


def test_sizes_depend_on_the_matrix_and_on_fields_before():
    schema = Record(
        group=Integer(1, lambda at: at.columns), data=Octets(lambda at: at.rows * -(-at.columns // at.group))
    )
    assert checked(schema, [3, b"abcdef"], rows=2, columns=7) == [3, b"abcdef"]
    for state in ([8, b"ab"], [3, b"abcde"], [0, b"ab"]):
        with pytest.raises(DamagedFileError):
            checked(schema, state, rows=2, columns=7)


def test_fields_of_one_record_are_unknown_to_another():
    inner = Record(size=Integer(1, 9))
    with pytest.raises(AttributeError, match="size"):
        checked(Record(first=inner, second=Octets(lambda at: at.size)), [[3], b"abc"])
    assert vars(SimpleNamespace()) == {}


@given(value=st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(), st.lists))
def test_no_value_raises_anything_else(value: Any):
    for schema, _, _ in SAMPLES.values():
        with contextlib.suppress(DamagedFileError):
            checked(schema, value)


plain = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.binary()


@given(value=st.recursive(plain, lambda inner: st.lists(inner, max_size=20)))
def test_messages_come_back(value: Any):
    assert unpacked(bytes(msgpack.packb(value) or b"")) == value


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xc1",
        b"\x01\x01",
        b"\x91" * 5000,
        b"\xdd\xff\xff\xff\xff",
        b"\xdc\xff\xff" * 1000,
        b"\xc6\xff\xff\xff\xffabc",
        b"\x81\x01\x02",
        b"\xd4\x01\x01",
        b"\xd9\x02\xff\xff",
        b"\xda\x02\x00" + b"a" * 512,
    ],
    ids=repr,
)
def test_what_is_no_message_is_refused(body: bytes):
    """Unfinished, nested a thousand times, longer than it says, maps, extensions, strings of no or much text."""
    with pytest.raises(DamagedFileError, match="are no message"):
        unpacked(body)


@pytest.mark.parametrize("item", [b"\x90", b"\x80", b"\x91\x90", b"\xcd\xff\xff", b"\xa2ab", b"\xc4\x00"])
def test_a_message_takes_less_than_a_hundred_times_its_length(item: bytes):
    """And lists within lists that all claim to be as long as the message take nothing before they are found out."""
    body = b"\xdd" + (20_000).to_bytes(4, "big") + item * 20_000
    for message in (body, (b"\xdd" + len(body).to_bytes(4, "big")) * 900 + item * 20_000):
        tracemalloc.start()
        with contextlib.suppress(DamagedFileError):
            unpacked(message)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 100 * len(message)


def test_numbers_of_files_have_squares():
    for number in (SCALE.low, SCALE.high):
        assert np.finfo(np.float64).smallest_normal <= number**2 <= np.finfo(np.float64).max
