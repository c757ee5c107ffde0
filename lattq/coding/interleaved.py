"""Streams of interleaved asymmetric numeral systems over frozen tables, as bytes.

A stream is a byte with the exponent of its number of lanes, their states in 4 bytes each, and words of 2 bytes in the
order of decoding, all with the least byte first. Several states begin, for the encoder, at 2^16: then every one of them
is at least that at any time. A single one begins at 1, and is stored without zeros at its end if there are no words.
"""

import numpy as np

from lattq.coding.slots import SlotTables
from lattq.errors import DamagedFileError

__all__ = [
    "WIDTH",
    "beginning",
    "decode_symbols",
    "encode_symbols",
    "lanes_of",
    "packed_words",
    "read_words",
    "require_end",
]

LANE = 1 << 16  # symbols for which a state of its own costs 24 bits, 0.0004 bit each
WIDTH = 64  # symbols of a step
MOST_LANES = 6  # their exponent
FULL = 1 << 16


def lanes_of(size: int) -> int:
    """Exponent of the number of lanes for so many symbols: one for each 65536, a power of two up to 64.

    >>> lanes_of(100), lanes_of(1 << 18), lanes_of(1 << 22)
    (0, 2, 6)
    """
    return min(max(size // LANE, 1).bit_length() - 1, MOST_LANES)


def packed_words(states: np.ndarray, words: np.ndarray) -> bytes:
    """The bytes of a stream.

    >>> packed_words(np.array([7]), np.array([], dtype=np.uint16))
    b'\\x00\\x07'
    """
    lanes = len(states).bit_length() - 1
    body = states.astype("<u4").tobytes() + words.astype("<u2").tobytes()
    return bytes([lanes]) + (body if len(words) or lanes else body.rstrip(b"\0"))


def read_words(stream: bytes, what: str = "entropy-coded block") -> tuple[np.ndarray, np.ndarray]:
    """States and words of `packed_words`; raises `DamagedFileError` for bytes that it does not return.

    >>> read_words(b"\\x00\\x07")
    (array([7], dtype=uint32), array([], dtype=uint16))
    """
    lanes = stream[0] if stream else MOST_LANES + 1
    body = stream[1:]
    if not lanes and len(body) < 4:
        body = body + bytes(4 - len(body)) if body and body[-1] else b""
    if lanes > MOST_LANES or len(body) < 4 << lanes or len(body) % 2:
        msg = f"{what} of {len(stream)} bytes holds no states of lanes; the file is damaged"
        raise DamagedFileError(msg)
    states = np.frombuffer(body, dtype="<u4", count=1 << lanes).astype(np.uint32)
    words = np.frombuffer(body, dtype="<u2", offset=4 << lanes).astype(np.uint16)
    if (states < (FULL if len(words) or lanes else 1)).any():
        msg = f"states of {what} are not those of an encoder; the file is damaged"
        raise DamagedFileError(msg)
    return states, words


def encode_symbols(symbols: np.ndarray, kinds: np.ndarray, tables: SlotTables) -> bytes:
    """Code integers, 1-D, in tables of their own: `kinds` are 32 times the table plus low bits that are coded as such.

    Symbols are decoded in steps of 64: of a step first what the tables hold, then the rest.

    >>> from lattq.coding.slots import gaussians, kinds_of_codes
    >>> encode_symbols(np.array([0, -1, 3]), kinds_of_codes()[[25, 25, 25]], gaussians())
    b'\\x00UR\\x01'
    """
    from lattq.kernels import rans_encode  # numba takes long to import, and few need it

    what = np.ascontiguousarray(symbols, dtype=np.int64), np.ascontiguousarray(kinds, dtype=np.uint32)
    return packed_words(*rans_encode.encode(*what, WIDTH, tables.arrays, tables.starts, *beginning(len(symbols))))


def beginning(size: int) -> tuple[int, int]:
    """How many lanes so many symbols have, and the states in which an encoder begins.

    >>> beginning(100), beginning(1 << 18)
    ((1, 1), (4, 65536))
    """
    lanes = 1 << lanes_of(size)
    return lanes, 1 if lanes == 1 else FULL


def decode_symbols(stream: bytes, kinds: np.ndarray, tables: SlotTables) -> np.ndarray:
    """Inverse of `encode_symbols`; raises `DamagedFileError` if the stream does not end where it should.

    >>> from lattq.coding.slots import gaussians, kinds_of_codes
    >>> decode_symbols(b"\\x00UR\\x01", kinds_of_codes()[[25, 25, 25]], gaussians())
    array([ 0, -1,  3])
    """
    from lattq.kernels import rans

    states, words = read_words(stream)
    found = np.empty(len(kinds), dtype=np.int64)
    used = rans.decode_plain(words, states, kinds, WIDTH, tables.arrays, found)
    require_end(states, words, int(used), len(kinds))
    return found


def require_end(states: np.ndarray, words: np.ndarray, used: int, size: int) -> None:
    """Raise `DamagedFileError` unless a decoder has come to where the encoder of so many symbols began.

    >>> require_end(np.array([1]), np.array([]), 0, 9)
    """
    lanes, begin = beginning(size)
    if used != len(words) or (states != begin).any() or len(states) != lanes:
        msg = f"{len(words)} words in {len(states)} lanes hold other than their {size} symbols; the file is damaged"
        raise DamagedFileError(msg)
