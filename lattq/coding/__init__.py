"""Integers to bytes and back: fixed-length packing, entropy coding with frozen tables, side information.

A coder has two methods: `encode(codes)` turns a (rows, columns) integer array into bytes (or a nested list of bytes and
integers), `decode(data, shape)` restores it exactly. The container adds the header and the hash.
"""

from lattq.coding.base import BaseCoder
from lattq.coding.damage import reading
from lattq.coding.groups import GroupCoder
from lattq.coding.indices import Indices
from lattq.coding.integers import decode_integers, encode_integers
from lattq.coding.packing import FixedLength, pack, unpack
from lattq.coding.pooled import Pooled
from lattq.coding.tables import CLASSES_PER_OCTAVE
from lattq.coding.twoway import TwoWay

__all__ = [
    "CLASSES_PER_OCTAVE",
    "BaseCoder",
    "FixedLength",
    "GroupCoder",
    "Indices",
    "Pooled",
    "TwoWay",
    "decode_integers",
    "encode_integers",
    "pack",
    "reading",
    "unpack",
]
