"""The entropy coder of trellis codes whose sequences run along the fronts of a matrix.

What is coded is what `lattq.trellis.coder` codes, but a sequence crosses columns: the class of each code is that of its
row and its column all the same. Sequences of all fronts of a block lie side by side, the longest first, and are decoded
in lockstep.
"""

import dataclasses
import functools

import constriction
import numpy as np

from lattq._options import as_flag, as_integer, normalize
from lattq.coding import BaseCoder
from lattq.coding.ans import BIT, COSETS, coder_of, decode_classes, encode_classes, require_codes, words_of
from lattq.coding.column_blocks import BLOCK, check_block
from lattq.coding.cosets import log_partition
from lattq.coding.damage import reading
from lattq.coding.fronts import HEIGHT, Fronts, require_streams
from lattq.coding.schema import Flag, Inner, Record, Series, checked
from lattq.coding.squares import fit_squares, square_classes
from lattq.coding.twoway import DATA as COLUMNS
from lattq.coding.twoway import read_scales, stored_scales
from lattq.errors import DamagedFileError, InvalidInputError
from lattq.parts import register
from lattq.trellis.coder import FAIR, SEGMENT, STATES, STREAM, chance, square_gains, table_index
from lattq.trellis.codes import TrellisCode, segment_ends, segments

__all__ = ["FrontTrellis"]

DATA = Record(**{**COLUMNS.fields, "streams": Series(Inner(), 1, lambda at: at.rows + at.columns)})


@register("coder", "trellis-fronts")
@dataclasses.dataclass(frozen=True)
class FrontTrellis(BaseCoder):
    """Coder of matrices whose fronts are sequences of a trellis code: `encode(codes)` and `decode(data, shape)`.

    Parameters
    ----------
    states, segment, split : as in `EntropyCodedTrellis`; fronts are cut as columns are there
    height : rows of a group, see `lattq.coding.fronts.Fronts`
    block : codes per independent stream, rounded up to whole fronts

    Examples
    --------
    >>> fronts, code = Fronts(4, 6, height=4), TrellisCode(8)
    >>> codes, rng = np.zeros(24, dtype=np.int32), np.random.default_rng(0)
    >>> for k in range(fronts.number):
    ...     codes[fronts.places(k, k + 1)] = code.nearest(5 * rng.normal(size=fronts.size(k)))
    >>> coder = FrontTrellis(states=8, height=4)
    >>> bool((coder.decode(coder.encode(codes.reshape(4, 6)), (4, 6)).ravel() == codes).all())
    True
    """

    states: int = 256
    segment: int = 512
    height: int = 1
    split: bool = False
    block: int = 1 << 22

    schema = Record(states=STATES, segment=SEGMENT, height=HEIGHT, split=Flag(), block=BLOCK)

    def __post_init__(self) -> None:
        normalize(self, as_integer, "states", "segment", "height", "block")
        normalize(self, as_flag, "split")
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
        InvalidInputError : for a front that is not made of sequences of the code, or a height that divides no rows
        """
        codes = np.ascontiguousarray(codes)
        model = fit_squares(codes, codes & 1, np.array([log_partition(z0, 2) for z0 in (0, 1)]), prior=prior)
        classes, flat = square_classes(model).reshape(-1), codes.reshape(-1)
        streams = [
            self._encode_sequences(flat[places], classes[places], ends) for places, ends in self._sequences(codes.shape)
        ]
        return [*stored_scales(model, prior), streams]

    @reading("entropy-coded trellis")
    def decode(self, data: list, shape: tuple[int, int], prior: np.ndarray | int = 0) -> np.ndarray:
        """Codes of all columns; raises `DamagedFileError`."""
        *scales, streams = checked(DATA, data, "coded data", columns=shape[1], rows=shape[0])
        classes = square_classes(read_scales(scales, shape, prior)).reshape(-1)
        blocks = list(self._sequences(shape))
        require_streams(streams, len(blocks))
        codes = np.zeros(shape[0] * shape[1], dtype=np.int32)
        for stream, (places, ends) in zip(streams, blocks, strict=True):
            codes[places] = self._decode_sequences(stream, classes[places], ends)
        return codes.reshape(shape)

    def gains(self, data: list, shape: tuple[int, int], prior: np.ndarray | int = 0) -> np.ndarray:
        """As those of `EntropyCodedTrellis`."""
        *scales, _ = checked(DATA, data, "coded data", columns=shape[1], rows=shape[0])
        return square_gains(read_scales(scales, shape, prior).columns)

    def to_state(self) -> list:
        """All options, for the container."""
        return [self.states, self.segment, self.height, self.split, self.block]

    @staticmethod
    def from_state(state: list, shape: tuple[int, int]) -> "FrontTrellis":
        """Inverse of `to_state`, for a matrix whose rows the height divides."""
        found = FrontTrellis(*checked(FrontTrellis.schema, state, "coder"))
        Fronts.in_file(shape, found.height)
        return found

    def _sequences(self, shape: tuple[int, int]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Places of the entries of each block of fronts, sequence after sequence, and where sequences end."""
        fronts, found = Fronts(*shape, self.height), []
        for run in fronts.runs(self.block):
            cuts = [segment_ends(fronts.size(front), self.segment) for front in run]
            lengths = np.concatenate([np.diff(cut) for cut in cuts])
            found.append((fronts.places(run.start, run.stop), np.cumsum(lengths)))
        return found

    def _encode_sequences(self, codes: np.ndarray, classes: np.ndarray, ends: np.ndarray) -> list:
        times = _Times.of(ends)
        residues = (codes & 3).astype(np.uint8)
        inputs = self._inputs(codes, times)
        fair = self._fair(classes, ends)
        raw = np.packbits(inputs[fair], bitorder="little").tobytes()
        coder = constriction.stream.stack.AnsCoder()
        order = times.order[~fair[times.order]]
        path = residues[order]
        coder.encode_reverse((path >> 1).astype(np.int32), BIT, chance(path & 1, classes[order]))
        quotient = codes >> 2
        quotient ^= -(residues == 3).astype(quotient.dtype)  # -1 - quotient: the mirror image of residue 1
        return [raw, words_of(coder), *encode_classes(quotient, table_index(classes, residues), COSETS)]

    def _inputs(self, codes: np.ndarray, times: "_Times") -> np.ndarray:
        """Input bits of all sequences."""
        try:
            return times.flat(self.code.inputs(times.padded(codes).T, times.lengths).T)
        except InvalidInputError as error:
            msg = f"fronts of {self.height} rows are no sequences of this code: {error}"
            raise InvalidInputError(msg) from None

    def _decode_sequences(self, stream: list, classes: np.ndarray, ends: np.ndarray) -> np.ndarray:
        raw, words, *rest = checked(STREAM, stream, "stream")
        times, fair = _Times.of(ends), self._fair(classes, ends)
        count = int(fair.sum())
        if len(raw) != -(-count // 8):
            msg = f"{len(raw)} bytes of path bits for {count} codes; the file is damaged"
            raise DamagedFileError(msg)
        inputs = np.zeros(len(classes), dtype=np.uint8)
        inputs[fair] = np.unpackbits(np.frombuffer(raw, dtype=np.uint8), count=count, bitorder="little")
        residues = times.flat(self.code.residues(times.padded(inputs).T).T)
        if count < len(classes):
            residues = np.where(fair, residues, self._coded(words, classes, times, fair))
        elif words:
            msg = f"{len(words)} bytes of path bits for sequences that have none; the file is damaged"
            raise DamagedFileError(msg)
        quotient = decode_classes(rest, table_index(classes, residues), COSETS)
        return require_codes(4 * np.where(residues == 3, -1 - quotient, quotient) + residues)

    def _coded(self, words: bytes, classes: np.ndarray, times: "_Times", fair: np.ndarray) -> np.ndarray:
        """Residues of all sequences side by side, time after time; path bits of fair ones are elsewhere."""
        labels, coder = self.code.labels[:, 0], coder_of(words)
        residues = np.zeros(len(classes), dtype=np.uint8)
        coded = ~fair[times.starts]  # of each sequence
        state = np.zeros(len(times.starts), dtype=np.int64)
        for t, alive in enumerate(times.alive):
            here = np.flatnonzero(coded[:alive])
            now, at = state[here], times.starts[here] + t
            label = labels[now]
            upper = coder.decode(BIT, chance(label & 1, classes[at])) if len(here) else np.zeros(0, dtype=np.int64)
            residues[at] = (label & 1) + 2 * upper
            state[here] = (2 * now + (upper ^ (label >> 1))) & (self.states - 1)
        if not coder.is_empty():
            msg = f"{len(words)} bytes of path bits hold more than their codes; the file is damaged"
            raise DamagedFileError(msg)
        return residues

    def _fair(self, classes: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """Which codes belong to sequences whose path bits are stored as they are."""
        starts = np.concatenate([[0], ends[:-1]])
        fair = self.split | (np.minimum.reduceat(classes, starts) >= FAIR)
        return np.repeat(fair, np.diff(ends, prepend=0))


@dataclasses.dataclass(frozen=True, eq=False)
class _Times:
    """Sequences that lie one after the other, seen time after time, the longest first.

    Attributes
    ----------
    starts, lengths : of the sequences, the longest first
    alive : how many go on at each time
    order : places of all codes, time after time
    """

    starts: np.ndarray
    lengths: np.ndarray
    alive: np.ndarray
    order: np.ndarray

    @staticmethod
    def of(ends: np.ndarray) -> "_Times":
        lengths = np.diff(ends, prepend=0)
        by_length = np.argsort(-lengths, kind="stable")
        starts, lengths = (ends - lengths)[by_length], lengths[by_length]
        times = np.arange(lengths[0])
        alive = np.searchsorted(-lengths, -times, side="left")
        order = np.concatenate([starts[:n] + t for t, n in zip(times, alive, strict=True)])
        return _Times(starts, lengths, alive, order)

    def padded(self, x: np.ndarray) -> np.ndarray:
        """(times, sequences), 0 behind the ends."""
        found = np.zeros((len(self.alive), len(self.starts)), dtype=x.dtype)
        found[self._mask()] = x[self.order]
        return found

    def flat(self, x: np.ndarray) -> np.ndarray:
        """Inverse of `padded`."""
        found = np.empty(len(self.order), dtype=x.dtype)
        found[self.order] = x[self._mask()]
        return found

    def _mask(self) -> np.ndarray:
        return np.arange(len(self.starts)) < self.alive[:, None]
