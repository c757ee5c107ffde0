"""The entropy coder of trellis codes: each code given its parity, which the codes before it tell.

A code k of parity z0 is 2 m + z0, and m has a frozen table for each scale class and parity. That is the entropy of the
code given its superset, which is all there is to pay (theory 5.2): its path bit is the last bit of m. A decoder walks
down 64 columns at once, and knows from the state of each trellis which of two tables comes next.
"""

import dataclasses
import functools
from typing import Any

import numpy as np

from lattq._options import as_integer, normalize
from lattq.coding import BaseCoder
from lattq.coding.column_blocks import BLOCK, check_block, column_blocks, wanted_blocks
from lattq.coding.cosets import log_partition
from lattq.coding.damage import reading
from lattq.coding.scaling import Scaling
from lattq.coding.schema import Choice, Integer, Record, checked
from lattq.coding.slots import cosets_of, kinds_of_cosets
from lattq.coding.squares import fit_squares
from lattq.coding.strips import decode_strips, encode_strips
from lattq.coding.twoway import DATA, TwoWayModel, column_bytes, live_codes, read_scales, stored_scales
from lattq.errors import InvalidInputError
from lattq.parts import register
from lattq.trellis.codes import LONGEST, POLYNOMIALS, TrellisCode, segment_ends, segments

__all__ = ["SEGMENT", "STATES", "EntropyCodedTrellis", "square_gains", "walk_labels"]

STATES = Choice(*POLYNOMIALS)
SEGMENT = Integer(1, LONGEST)


@register("coder", "trellis")
@dataclasses.dataclass(frozen=True)
class EntropyCodedTrellis(BaseCoder):
    """Coder of columns whose segments are sequences of a trellis code: `encode(codes)` and `decode(data, shape)`.

    Parameters
    ----------
    states, segment : of the code, and least length of the sequences that a column is cut into
    block : codes per independent stream, rounded up to whole columns; each costs some 10 bytes, or three for each 65536
        codes

    Examples
    --------
    >>> codes = TrellisCode(8).nearest(np.random.default_rng(0).normal(size=(3, 600)) * 5).T
    >>> coder = EntropyCodedTrellis(states=8, segment=600)
    >>> bool((coder.decode(coder.encode(codes), codes.shape) == codes).all())
    True
    """

    states: int = 256
    segment: int = 512
    block: int = 1 << 20

    fused = True
    schema = Record(states=STATES, segment=SEGMENT, block=BLOCK)

    def __post_init__(self) -> None:
        normalize(self, as_integer, "states", "segment", "block")
        check_block(self.block)
        segments(1, self.segment)
        _ = self.code

    @functools.cached_property
    def code(self) -> TrellisCode:
        """The code, which checks `states`."""
        return TrellisCode(self.states)

    def encode(self, codes: np.ndarray, prior: np.ndarray | int = 0) -> list:
        """Streams and model of a (rows, columns) integer array; `prior` as in `TwoWay`.

        Raises
        ------
        InvalidInputError : for a column that is not made of sequences of the code
        """
        codes = np.ascontiguousarray(codes)
        model = fit_squares(codes, codes & 1, np.array([log_partition(z0, 2) for z0 in (0, 1)]), prior=prior)
        streams = [
            self._encode_block(codes[:, block], model, block) for block in column_blocks(codes.shape, self.block)
        ]
        return [*stored_scales(model, prior), streams]

    @reading("entropy-coded trellis")
    def decode(
        self, data: list, shape: tuple[int, int], prior: np.ndarray | int = 0, columns: slice | None = None
    ) -> np.ndarray:
        """Codes of all columns, or of the blocks that cover `columns` only; raises `DamagedFileError`."""
        *scales, streams = checked(DATA, data, "coded data", columns=shape[1])
        model = read_scales(scales, shape, prior)
        codes = np.zeros((shape[0], len(range(*(columns or slice(None)).indices(shape[1])))), dtype=np.int32)
        for block, stream, places, inside in wanted_blocks(streams, shape, self.block, columns):
            decoded = np.zeros((shape[0], block.stop - block.start), dtype=np.int32)
            self._decode_block(stream, model, block, block.start, decoded)
            codes[:, places] = decoded[:, inside]
        return codes

    @reading("entropy-coded trellis")
    def values(
        self, data: list, shape: tuple[int, int], scaling: Scaling, out: np.ndarray, prior: np.ndarray | int = 0
    ) -> float:
        """Write what codes decode to, without the codes; returns what no value exceeds."""
        *scales, streams = checked(DATA, data, "coded data", columns=shape[1])
        model = read_scales(scales, shape, prior)
        least, most = scaling.idle(np.flatnonzero(model.columns == 0), out)
        for block, stream, *_ in wanted_blocks(streams, shape, self.block, None):
            low, high = self._decode_block(stream, model, block, 0, out, scaling)
            least, most = min(least, low), max(most, high)
        return scaling.bound(least, most)

    def gains(self, data: list, shape: tuple[int, int], prior: np.ndarray | int = 0) -> np.ndarray:
        """LMMSE gains, in 128ths, that the column classes predict: 1 - (noise of a quarter of a code²) / variance."""
        *scales, _ = checked(DATA, data, "coded data", columns=shape[1])
        return square_gains(read_scales(scales, shape, prior).columns)

    def fixed(self, data: list) -> int:
        """Bytes of the column classes."""
        return column_bytes(data)

    def live(self, data: list, shape: tuple[int, int], prior: np.ndarray | int = 0) -> int:
        """How many codes `decode` has to find: those of columns that are not all zeros."""
        return live_codes(data, shape, prior)

    def to_state(self) -> list:
        """States, segment and block, for the container."""
        return [self.states, self.segment, self.block]

    @staticmethod
    def from_state(state: list, shape: tuple[int, int]) -> "EntropyCodedTrellis":
        """Inverse of `to_state`."""
        return EntropyCodedTrellis(*checked(EntropyCodedTrellis.schema, state, "coder"))

    def _encode_block(self, codes: np.ndarray, model: TwoWayModel, block: slice) -> bytes:
        from lattq.kernels import counts  # numba takes long to import, and few need it

        live, cuts = model.live(block), segment_ends(len(codes), self.segment)
        known: Any = counts.are_sequences
        if not known(codes, cuts, walk_labels(self.code)):
            for rows in segments(len(codes), self.segment):
                self._refused(codes, rows, block)
        grid = model.grid(live, kinds_of_cosets(2))
        return encode_strips(codes, cuts, *grid, cosets_of(2), live - block.start, parity=True)

    def _refused(self, codes: np.ndarray, rows: slice, block: slice) -> None:
        """Raise for one segment of all columns of a block that is no sequence."""
        try:
            self.code.inputs(codes[rows].T)
        except InvalidInputError as error:
            msg = f"rows {rows.start} to {rows.stop - 1} are no sequences, columns counted from {block.start}: {error}"
            raise InvalidInputError(msg) from None

    def _decode_block(
        self, stream: bytes, model: TwoWayModel, block: slice, first: int, out: np.ndarray, *scaling: Scaling
    ) -> tuple[int, int]:
        """Write a block of columns into `out`, whose columns begin with column `first` of the matrix."""
        live = model.live(block)
        groups, grid = model.grid(live, kinds_of_cosets(2))
        cuts = segment_ends(len(out), self.segment) if len(live) else np.array([0, len(out)])
        labels = walk_labels(self.code) if len(live) else np.zeros(1, dtype=np.uint8)
        return decode_strips(stream, groups, grid, cosets_of(2), cuts, live - first, out, *scaling, labels=labels)


def walk_labels(code: TrellisCode) -> np.ndarray:
    """Residue mod 4 on the branch with input 0 from each state, as decoders need them.

    >>> walk_labels(TrellisCode(4))
    array([0, 1, 2, 3], dtype=uint8)
    """
    return np.ascontiguousarray(code.labels[:, 0], dtype=np.uint8)


def square_gains(classes: np.ndarray) -> np.ndarray:
    """128 (1 - 1 / 4s²) for scale classes: the LMMSE gain of codes of scale s with noise of a quarter of a code².

    >>> square_gains(np.array([0, 25, 33]))
    array([128,  96, 120])
    """
    s2 = 2.0 ** ((classes - 1) / 4 - 6)
    return np.where(classes > 0, np.rint(128 * np.maximum(1 - 0.25 / s2, 0.25)), 128).astype(np.int64)
