"""Streams of interleaved asymmetric numeral systems over frozen tables, as bytes.

A stream is a byte with the exponent of its number of lanes, their states in 4 bytes each, and words of 2 bytes in the
order of decoding, all with the least byte first. Several states begin, for the encoder, at 2^16: then every one of them
is at least that at any time. A single one begins at 1, and is stored without zeros at its end: with words behind it, it
has 3 or 4 bytes, and the length of the stream says which.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from lattq.coding.slots import SlotTables
from lattq.errors import DamagedFileError

__all__ = [
    "WIDTH",
    "Part",
    "Reader",
    "beginning",
    "decode_symbols",
    "encode_parts",
    "encode_symbols",
    "lanes_of",
    "packed_words",
    "read_words",
    "require_codes",
    "require_end",
]

Part = tuple[np.ndarray, np.ndarray, SlotTables]
"""Integers, their kinds, and the tables that these name."""

LANE = 1 << 16  # symbols for which a state of its own costs 24 bits, 0.0004 bit each
WIDTH = 64  # symbols of a step
MOST_LANES = 6  # their exponent
FULL = 1 << 16
ROOM = 16 * WIDTH  # words that a step may take, and more


def lanes_of(size: int) -> int:
    """Exponent of the number of lanes for so many symbols: one for each 65536, a power of two up to 64.

    >>> lanes_of(100), lanes_of(1 << 18), lanes_of(1 << 22)
    (0, 2, 6)
    """
    return min(max(size // LANE, 1).bit_length() - 1, MOST_LANES)


def beginning(size: int) -> tuple[int, int]:
    """How many lanes so many symbols have, and the states in which an encoder begins.

    >>> beginning(100), beginning(1 << 18)
    ((1, 1), (4, 65536))
    """
    lanes = 1 << lanes_of(size)
    return lanes, 1 if lanes == 1 else FULL


def packed_words(states: np.ndarray, words: np.ndarray) -> bytes:
    """The bytes of a stream.

    >>> packed_words(np.array([7]), np.array([], dtype=np.uint16))
    b'\\x00\\x07'
    """
    lanes, first = len(states).bit_length() - 1, states.astype("<u4").tobytes()
    return bytes([lanes]) + (first if lanes else first.rstrip(b"\0")) + words.astype("<u2").tobytes()


def read_words(stream: bytes, what: str = "entropy-coded block") -> tuple[np.ndarray, np.ndarray]:
    """States and words of `packed_words`; raises `DamagedFileError` for bytes that it does not return.

    >>> read_words(b"\\x00\\x07")
    (array([7], dtype=uint32), array([], dtype=uint16))
    """
    lanes, body = stream[0] if stream else MOST_LANES + 1, stream[1:]
    size = 4 << lanes if lanes else min(len(body), 4 - len(body) % 2)
    first = body[:size]
    if lanes > MOST_LANES or len(first) < max(size, 1) or (len(body) - size) % 2 or not (lanes or first[-1]):
        msg = f"{what} of {len(stream)} bytes holds no states of lanes; the file is damaged"
        raise DamagedFileError(msg)
    states = np.frombuffer(first + bytes(-size % 4), dtype="<u4").astype(np.uint32)
    words = np.frombuffer(body, dtype="<u2", offset=size).astype(np.uint16)
    if (states < (FULL if len(words) or lanes else 1)).any():
        msg = f"states of {what} are not those of an encoder; the file is damaged"
        raise DamagedFileError(msg)
    return states, words


def encode_parts(parts: Sequence[Part]) -> bytes:
    """Code integers, part after part, each 1-D in tables of its own; nothing is no bytes.

    Kinds are 32 times the number of a table plus how many low bits are coded as they are. Symbols are decoded in steps
    of 64, the first of each part begins a step: of a step first what the tables hold, then the rest.

    >>> from lattq.coding.slots import gaussians, kinds_of_codes
    >>> encode_parts([(np.array([0, -1, 3]), kinds_of_codes()[[25, 25, 25]], gaussians())])
    b'\\x00UR\\x01'
    """
    number = sum(len(symbols) for symbols, _, _ in parts)
    if not number:
        return b""
    from lattq.kernels import rans_encode  # numba takes long to import, and few need it

    run: Any = rans_encode.encode
    lanes, begin = beginning(number)
    words, states = np.empty(number + ROOM, dtype=np.uint16), np.full(lanes, begin, dtype=np.uint32)
    place = len(words)
    for symbols, kinds, tables in reversed(parts):
        number -= len(symbols)
        what = np.ascontiguousarray(symbols, dtype=np.int64), np.ascontiguousarray(kinds, dtype=np.uint32)
        words, place = run(words, place, states, number, *what, WIDTH, tables.arrays, tables.starts)
    return packed_words(states, words[place:])


def encode_symbols(symbols: np.ndarray, kinds: np.ndarray, tables: SlotTables) -> bytes:
    """One part of `encode_parts`.

    >>> from lattq.coding.slots import gaussians, kinds_of_codes
    >>> encode_symbols(np.array([0, -1, 3]), kinds_of_codes()[[25, 25, 25]], gaussians())
    b'\\x00UR\\x01'
    """
    return encode_parts([(symbols, kinds, tables)])


class Reader:
    """Takes parts off a stream, one after the other: tables of a part may depend on those before.

    >>> from lattq.coding.slots import gaussians, kinds_of_codes
    >>> reader = Reader(b"\\x00UR\\x01")
    >>> found = [reader.take(kinds_of_codes()[[25, 25, 25]], gaussians())]
    >>> reader.close()
    >>> found
    [array([ 0, -1,  3])]
    """

    def __init__(self, stream: bytes, what: str = "entropy-coded block") -> None:
        self.what, self.number, self.place = what, 0, 0
        self.states, self.words = read_words(stream, what) if stream else (np.array([1]), np.empty(0, dtype=np.uint16))
        self.empty = not stream

    def take(self, kinds: np.ndarray, tables: SlotTables) -> np.ndarray:
        """The next integers; raises `DamagedFileError` where the stream is empty."""
        found = np.empty(len(kinds), dtype=np.int64)
        if not len(kinds):
            return found
        if self.empty:
            msg = f"{self.what} has no bytes for {len(kinds)} symbols; the file is damaged"
            raise DamagedFileError(msg)
        from lattq.kernels import rans  # numba takes long to import, and few need it

        run: Any = rans.decode_plain
        what = np.ascontiguousarray(kinds, dtype=np.uint32)
        self.place = int(run(self.words, self.place, self.states, self.number, what, WIDTH, tables.arrays, found))
        self.number += len(kinds)
        return found

    def close(self) -> None:
        """Raise `DamagedFileError` unless the stream ends here, in the states that an encoder begins with."""
        if self.number or not self.empty:
            require_end(self.states, self.words, self.place, self.number)


def decode_symbols(stream: bytes, kinds: np.ndarray, tables: SlotTables) -> np.ndarray:
    """Inverse of `encode_symbols`; raises `DamagedFileError` if the stream does not end where it should.

    >>> from lattq.coding.slots import gaussians, kinds_of_codes
    >>> decode_symbols(b"\\x00UR\\x01", kinds_of_codes()[[25, 25, 25]], gaussians())
    array([ 0, -1,  3])
    """
    reader = Reader(stream)
    found = reader.take(kinds, tables)
    reader.close()
    return found


def require_end(states: np.ndarray, words: np.ndarray, used: int, size: int) -> None:
    """Raise `DamagedFileError` unless a decoder has come to where the encoder of so many symbols began.

    >>> require_end(np.array([1]), np.array([]), 0, 9)
    """
    lanes, begin = beginning(size)
    if not size or used != len(words) or (states != begin).any() or len(states) != lanes:
        msg = f"{len(words)} words in {len(states)} lanes hold other than their {size} symbols; the file is damaged"
        raise DamagedFileError(msg)


def require_codes(symbols: np.ndarray) -> np.ndarray:
    """Decoded symbols as codes; raises `DamagedFileError` for what int32 does not hold.

    >>> require_codes(np.array([3, -4])).dtype
    dtype('int32')
    """
    if symbols.size and not -(1 << 31) <= symbols.min() <= symbols.max() < 1 << 31:
        msg = f"codes {symbols.min()} ... {symbols.max()} are beyond 32 bits; the file is damaged"
        raise DamagedFileError(msg)
    return symbols.astype(np.int32)
