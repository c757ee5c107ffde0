"""Integers to bytes and back: fixed-length packing, entropy coding with frozen tables, side information.

A coder has two methods: `encode(codes)` turns a (rows, columns) integer array into bytes (or a nested list of bytes and
integers), `decode(data, shape)` restores it exactly. The container adds the header and the hash.
"""

from lattq.coding.ans import COSETS, decode_classes, encode_classes, words_of
from lattq.coding.cosets import coset_index, log_partition, on_grid, upper_half
from lattq.coding.damage import reading
from lattq.coding.integers import decode_integers, encode_integers
from lattq.coding.packing import FixedLength, pack, unpack
from lattq.coding.pooled import Pooled
from lattq.coding.squares import fit_squares, square_classes
from lattq.coding.tables import CLASSES_PER_OCTAVE, scale_class
from lattq.coding.twoway import (
    TwoWay,
    TwoWayModel,
    check_block,
    column_blocks,
    read_scales,
    row_classes,
    stored_scales,
    wanted_blocks,
)

__all__ = [
    "CLASSES_PER_OCTAVE",
    "COSETS",
    "FixedLength",
    "Pooled",
    "TwoWay",
    "TwoWayModel",
    "check_block",
    "column_blocks",
    "coset_index",
    "decode_classes",
    "decode_integers",
    "encode_classes",
    "encode_integers",
    "fit_squares",
    "log_partition",
    "on_grid",
    "pack",
    "read_scales",
    "reading",
    "row_classes",
    "scale_class",
    "square_classes",
    "stored_scales",
    "unpack",
    "upper_half",
    "wanted_blocks",
    "words_of",
]
