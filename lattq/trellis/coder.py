"""The entropy coder of trellis codes: path bits, then what is left of each code once its residue mod 4 is known.

The parity z0 of a code is known from the codes before it. Given z0 a code costs its path bit z1 and, with the residue
z0 + 2 z1, its place in the coset of 4 Z. Together that is the entropy of the code given its superset, which is all
there is to pay (theory 5.2). Where the Gaussian is wide z1 is a fair coin: then the input bits of the feed-forward
register are stored as they are, and any window of them gives a residue. In columns of low rate z1 is entropy coded, and
decoded in lockstep: one time after the other, in all segments of all those columns at once.
"""

import dataclasses
import functools

import constriction
import numpy as np

from lattq._options import as_integer, normalize
from lattq.coding import BaseCoder
from lattq.coding.ans import BIT, COSETS, coder_of, decode_classes, encode_classes, require_codes, words_of
from lattq.coding.column_blocks import BLOCK, check_block, column_blocks, wanted_blocks
from lattq.coding.cosets import MOST, coset_index, log_partition, upper_half
from lattq.coding.damage import reading
from lattq.coding.schema import WORDS, Choice, Flag, Inner, Integer, Octets, Record, checked
from lattq.coding.squares import fit_squares, square_classes
from lattq.coding.twoway import DATA, TwoWayModel, live_codes, read_scales, stored_scales
from lattq.errors import DamagedFileError, InvalidInputError
from lattq.parts import register
from lattq.trellis.codes import LONGEST, POLYNOMIALS, TrellisCode, segment_ends, segments

__all__ = ["FAIR", "SEGMENT", "STATES", "STREAM", "EntropyCodedTrellis", "chance", "square_gains", "table_index"]

STATES = Choice(*POLYNOMIALS)
SEGMENT = Integer(1, LONGEST)
STREAM = Record(raw=Octets(), path=WORDS, words=Inner(), escapes=Inner())  # the last two are of `encode_classes`
FAIR = 35  # scale class, 2.4 codes, from which on an entropy coder would save less than 1e-5 of a path bit


@register("coder", "trellis")
@dataclasses.dataclass(frozen=True)
class EntropyCodedTrellis(BaseCoder):
    """Coder of columns whose segments are sequences of a trellis code: `encode(codes)` and `decode(data, shape)`.

    Parameters
    ----------
    states, segment : of the code, and least length of the sequences that a column is cut into
    split : store the path bits of all columns as they are, so that everything decodes in parallel; that costs 0.14 bit
        a weight in columns of one bit, 0.01 at 1.5 bits, 0.001 at 1.8 and next to nothing above 2 (theory 5.2)
    block : codes per independent stream, rounded up to whole columns; each costs some 20 bytes

    Examples
    --------
    >>> codes = TrellisCode(8).nearest(np.random.default_rng(0).normal(size=(3, 600)) * 5).T
    >>> coder = EntropyCodedTrellis(states=8, segment=600)
    >>> bool((coder.decode(coder.encode(codes), codes.shape) == codes).all())
    True
    """

    states: int = 256
    segment: int = 512
    split: bool = False
    block: int = 1 << 22

    schema = Record(states=STATES, segment=SEGMENT, split=Flag(), block=BLOCK)

    def __post_init__(self) -> None:
        normalize(self, as_integer, "states", "segment", "block")
        check_block(self.block)
        segments(1, self.segment)
        _ = self.code
        object.__setattr__(self, "split", bool(self.split))

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
            codes[:, places] = self._decode_block(stream, shape[0], model, block)[:, inside]
        return codes

    def gains(self, data: list, shape: tuple[int, int], prior: np.ndarray | int = 0) -> np.ndarray:
        """LMMSE gains, in 128ths, that the column classes predict: 1 - (noise of a quarter of a code²) / variance."""
        *scales, _ = checked(DATA, data, "coded data", columns=shape[1])
        return square_gains(read_scales(scales, shape, prior).columns)

    def live(self, data: list, shape: tuple[int, int], prior: np.ndarray | int = 0) -> int:
        """How many codes `decode` has to find: those of columns that are not all zeros."""
        return live_codes(data, shape, prior)

    def to_state(self) -> list:
        """States, segment, split and block, for the container."""
        return [self.states, self.segment, self.split, self.block]

    @staticmethod
    def from_state(state: list, shape: tuple[int, int]) -> "EntropyCodedTrellis":
        """Inverse of `to_state`."""
        return EntropyCodedTrellis(*checked(EntropyCodedTrellis.schema, state, "coder"))

    def _encode_block(self, codes: np.ndarray, model: TwoWayModel, block: slice) -> list:
        classes, residues = square_classes(model, block), (codes & 3).astype(np.uint8)
        cuts = segments(len(codes), self.segment)
        inputs = np.concatenate([self._inputs(codes, residues, rows, block) for rows in cuts])
        live, fair = self._kinds(classes)
        raw = np.packbits(inputs[:, _places(fair)], bitorder="little").tobytes()
        unfair = live & ~fair
        coder = constriction.stream.stack.AnsCoder()
        rows = np.concatenate(self._times(len(codes)))
        path = residues[:, unfair][rows]
        coder.encode_reverse((path >> 1).ravel().astype(np.int32), BIT, chance(path & 1, classes[:, unfair][rows]))
        quotient = codes >> 2
        quotient ^= -(residues == 3).astype(quotient.dtype)  # -1 - quotient: the mirror image of residue 1
        index, places = table_index(classes, residues), _places(live)
        return [raw, words_of(coder), *encode_classes(quotient[:, places].ravel(), index[:, places].ravel(), COSETS)]

    def _inputs(self, codes: np.ndarray, residues: np.ndarray, rows: slice, block: slice) -> np.ndarray:
        """Input bits of one segment of all columns of a block, from residues in bytes."""
        try:
            return self.code.inputs(residues[rows].T).T
        except InvalidInputError:
            return self._refused(codes, rows, block)

    def _refused(self, codes: np.ndarray, rows: slice, block: slice) -> np.ndarray:
        """Raise what the codes themselves are refused for."""
        try:
            return self.code.inputs(codes[rows].T).T
        except InvalidInputError as error:
            msg = f"rows {rows.start} to {rows.stop - 1} are no sequences, columns counted from {block.start}: {error}"
            raise InvalidInputError(msg) from None

    def _decode_block(self, stream: list, height: int, model: TwoWayModel, block: slice) -> np.ndarray:
        raw, words, *rest = checked(STREAM, stream, "stream")
        live = model.live(block)
        classes = square_classes(model, live)
        fair = self._kinds(classes)[1]
        residues = np.zeros(classes.shape, dtype=np.uint8)
        residues[:, _places(fair)] = self._fair_residues(raw, height, int(fair.sum()))
        residues[:, ~fair] = self._coded_residues(words, height, classes[:, ~fair])
        index = table_index(classes, residues)
        quotient = decode_classes(rest, index.ravel(), COSETS).reshape(index.shape)
        found = require_codes(4 * np.where(residues == 3, -1 - quotient, quotient) + residues)
        codes = np.zeros((height, block.stop - block.start), dtype=np.int32)
        codes[:, live - block.start] = found
        return codes

    def _fair_residues(self, raw: bytes, height: int, columns: int) -> np.ndarray:
        if len(raw) != -(-height * columns // 8):
            msg = f"{len(raw)} bytes of path bits for {columns} columns of {height} codes; the file is damaged"
            raise DamagedFileError(msg)
        if not columns:  # there may be a million segments of nothing
            return np.empty((height, 0), dtype=np.uint8)
        bits = np.unpackbits(np.frombuffer(raw, dtype=np.uint8), count=height * columns, bitorder="little")
        inputs, residues = bits.reshape(height, columns), np.empty((height, columns), dtype=np.uint8)
        ends = segment_ends(height, self.segment)
        lengths = np.diff(ends)
        for length in np.unique(lengths):  # two at most
            rows = ends[:-1][lengths == length][:, None] + np.arange(length)
            residues[rows] = self.code.residues(inputs[rows].transpose(0, 2, 1)).transpose(0, 2, 1)
        return residues

    def _coded_residues(self, words: bytes, height: int, classes: np.ndarray) -> np.ndarray:
        """All segments of all columns side by side, time after time."""
        if words and not classes.size:
            msg = f"{len(words)} bytes of path bits for columns that have none; the file is damaged"
            raise DamagedFileError(msg)
        if not classes.size:
            return np.empty(classes.shape, dtype=np.uint8)
        labels = self.code.labels[:, 0]
        coder = coder_of(words)
        residues = np.empty(classes.shape, dtype=np.uint8)
        times = self._times(height)
        state = np.zeros((len(times[0]), classes.shape[1]), dtype=np.int64)
        for rows in times:
            now = state[: len(rows)]
            label = labels[now]
            ones = chance(label & 1, classes[rows])
            upper = coder.decode(BIT, ones).reshape(now.shape)
            residues[rows] = (label & 1) + 2 * upper
            state[: len(rows)] = (2 * now + (upper ^ (label >> 1))) & (self.states - 1)
        if not coder.is_empty():
            msg = f"{len(words)} bytes of path bits hold more than their {classes.size} bits; the file is damaged"
            raise DamagedFileError(msg)
        return residues

    def _kinds(self, classes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Columns that hold anything, and of those the ones whose path bits are stored as they are."""
        live = classes.max(axis=0) > 0
        return live, live & (self.split | (classes.min(axis=0) >= FAIR))

    def _times(self, rows: int) -> list[np.ndarray]:
        """The rows at each time of all segments that go on; longer segments come first, so these are the first ones."""
        ends = segment_ends(rows, self.segment)
        order = np.argsort(ends[:-1] - ends[1:], kind="stable")
        starts, lengths = ends[:-1][order], np.diff(ends)[order]
        return [starts[lengths > t] + t for t in range(lengths[0])]


def square_gains(classes: np.ndarray) -> np.ndarray:
    """128 (1 - 1 / 4s²) for scale classes: the LMMSE gain of codes of scale s with noise of a quarter of a code².

    >>> square_gains(np.array([0, 25, 33]))
    array([128,  96, 120])
    """
    s2 = 2.0 ** ((classes - 1) / 4 - 6)
    return np.where(classes > 0, np.rint(128 * np.maximum(1 - 0.25 / s2, 0.25)), 128).astype(np.int64)


def _places(columns: np.ndarray) -> slice | np.ndarray:
    """The columns of a mask: if they are all, without copies."""
    return slice(None) if columns.all() else columns


def table_index(classes: np.ndarray, residues: np.ndarray) -> np.ndarray:
    """Coset tables of codes with these residues mod 4.

    >>> table_index(np.array([25]), np.array([0]))
    array([160], dtype=int16)
    """
    tables = coset_index(np.arange(4), 4, np.arange(MOST + 1)[:, None]).astype(np.int16)
    return tables.ravel()[4 * classes + residues]


def chance(parity: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Probability that the path bit is 1: of odd codes a half, since the two cosets are mirror images.

    >>> chance(np.array([0, 1]), np.array([25, 25])).round(3)
    array([0.213, 0.5  ])
    """
    return np.where(parity, 0.5, upper_half()[classes]).ravel()
