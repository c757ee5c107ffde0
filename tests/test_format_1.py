"""Files that commit 3371c62 wrote, of every family that it knew, are read to the same weights, or refused."""

import dataclasses
import hashlib
import sys
from pathlib import Path

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import lattq as lq
from lattq._format_1 import streams
from lattq._payload import FORMAT, sealed
from lattq.errors import DamagedFileError, LattqError, MissingPartError
from tests.damage import damaged_bytes, damaged_streams, refusal_allowed
from tests.helpers import assert_same

# Name: file, shape, and hash of the float32 weights as the old build decoded them; written by that build.
FILES = msgpack.unpackb((Path(__file__).parent / "data" / "format_1.msgpack").read_bytes())


@pytest.mark.parametrize("name", FILES)
def test_weights_are_those_of_the_old_build(name: str):
    blob, shape, digest = FILES[name]
    found = lq.Quantized.from_bytes(blob, tuple(shape))
    assert hashlib.blake2b(found.dequantize(np.float32).tobytes(), digest_size=16).digest() == digest
    assert found.to_bytes() == blob  # saved as it was


# Trellises of other polynomials, and parts that mean something else.
KEPT = {*(name for name in FILES if "trellis" in name), "one row", "squeezellm", "watersic dithered"} - {"trellis"}


@pytest.mark.parametrize("name", [name for name in FILES if name not in KEPT])
def test_values_that_were_read_are_written_in_the_new_format(name: str):
    found = lq.Quantized.from_bytes(FILES[name][0])
    written = dataclasses.replace(found)
    assert written.payload[1] == FORMAT
    again = lq.Quantized.from_payload(written.payload)
    assert_same(again.dequantize(np.float64), found.dequantize(np.float64))


@pytest.mark.parametrize(
    ("name", "message"),
    [("trellis 256 fine", "sequence"), ("squeezellm", "cannot hold"), ("watersic dithered", "cannot hold")],
)
def test_what_means_something_else_stays_in_its_file(name: str, message: str):
    found = lq.Quantized.from_bytes(FILES[name][0])
    with pytest.raises(LattqError, match=message):
        _ = dataclasses.replace(found).payload


@given(data=st.data(), name=st.sampled_from(sorted(FILES)))
def test_damaged_files_are_refused_or_decode(data: st.DataObject, name: str):
    blob, shape, _ = FILES[name]
    with refusal_allowed():
        damaged = data.draw(damaged_bytes(blob))
        if damaged != blob:
            with pytest.raises(DamagedFileError):
                lq.Quantized.from_bytes(damaged)
    payload = blob[8 + int.from_bytes(blob[:8], "little") :]
    state = msgpack.unpackb(payload[:-8])
    forged = bytes(msgpack.packb([1, *(data.draw(damaged_streams(state[1:])) or [])]) or b"")
    with refusal_allowed(), np.errstate(all="ignore"):
        assert lq.Quantized.from_payload(sealed(forged), tuple(shape)).decoded().shape == tuple(shape)


@pytest.mark.parametrize(
    ("version", "what"), [(2, "commit f5b0757"), (3, "commit 4620346"), (9, "later release"), (0, "")]
)
def test_other_versions_say_what_reads_them(version: int, what: str):
    payload = lq.quantize(np.eye(3), np.eye(3), lq.recipes.rtn()).payload
    state = msgpack.unpackb(payload[:-8])
    forged = sealed(bytes(msgpack.packb([version, *state[1:]]) or b""))
    with pytest.raises(DamagedFileError, match=f"format version {version}.*{what}"):
        lq.Quantized.from_payload(forged)


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch):
    streams.stack.cache_clear()
    monkeypatch.setitem(sys.modules, "constriction", None)
    with pytest.raises(MissingPartError, match=r"pip install lattq\[format-1\]"):
        lq.Quantized.from_bytes(FILES["watersic"][0])
    monkeypatch.undo()
    streams.stack.cache_clear()
