"""Integers to bytes and back: fixed-length packing, entropy coding with frozen tables, side information.

A coder has two methods: `encode(codes)` turns a (rows, columns) integer array into bytes (or a nested list of bytes and
integers), `decode(data, shape)` restores it exactly. The container adds the header and the hash.
"""

from lattq.coding.base import BaseCoder
from lattq.coding.packing import FixedLength
from lattq.coding.pooled import Pooled
from lattq.coding.twoway import TwoWay

__all__ = ["BaseCoder", "FixedLength", "Pooled", "TwoWay"]
