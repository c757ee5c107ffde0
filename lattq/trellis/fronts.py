"""The entropy coder of trellis codes whose sequences run along the fronts of a matrix.

What is coded is what `lattq.trellis.coder` codes, but a sequence crosses columns: the class of each code is that of its
row and its column all the same. Sequences of all fronts of a block, the longest first, are decoded 64 at a time.
"""

import dataclasses
import functools
from collections.abc import Iterator

import numpy as np

from lattq._options import as_integer, normalize
from lattq.coding import BaseCoder
from lattq.coding.column_blocks import BLOCK, check_block
from lattq.coding.cosets import log_partition
from lattq.coding.damage import reading
from lattq.coding.fronts import HEIGHT, Fronts, require_streams
from lattq.coding.interleaved import WIDTH, encode_symbols
from lattq.coding.scaling import Scaling
from lattq.coding.schema import Inner, Record, Series, checked
from lattq.coding.slots import kinds_of_supersets, parity_kinds, supersets
from lattq.coding.squares import fit_squares, square_classes
from lattq.coding.strips import decode_places
from lattq.coding.twoway import DATA as COLUMNS
from lattq.coding.twoway import read_scales, stored_scales
from lattq.errors import InvalidInputError
from lattq.parts import register
from lattq.trellis.coder import SEGMENT, STATES, square_gains, walk_labels
from lattq.trellis.codes import TrellisCode, segment_ends, segments

__all__ = ["FrontTrellis"]

DATA = Record(**{**COLUMNS.fields, "streams": Series(Inner(), 1, lambda at: at.rows + at.columns)})


@register("coder", "trellis-fronts")
@dataclasses.dataclass(frozen=True)
class FrontTrellis(BaseCoder):
    """Coder of matrices whose fronts are sequences of a trellis code: `encode(codes)` and `decode(data, shape)`.

    Parameters
    ----------
    states, segment : as in `EntropyCodedTrellis`; fronts are cut as columns are there
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
    block: int = 1 << 20

    fused = True
    schema = Record(states=STATES, segment=SEGMENT, height=HEIGHT, block=BLOCK)

    def __post_init__(self) -> None:
        normalize(self, as_integer, "states", "segment", "height", "block")
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
        streams = []
        for places, ends in self._sequences(codes.shape):
            self._check(flat[places], ends)
            order, steps, _ = _in_steps(ends)
            found = flat[places[order]]
            kinds = parity_kinds(classes[places[order]], found)
            streams.append(encode_symbols((found >> 1).astype(np.int64), kinds, supersets(), steps))
        return [*stored_scales(model, prior), streams]

    @reading("entropy-coded trellis")
    def decode(self, data: list, shape: tuple[int, int], prior: np.ndarray | int = 0) -> np.ndarray:
        """Codes of all columns; raises `DamagedFileError`."""
        codes = np.zeros(shape, dtype=np.int32)
        self._decode(data, shape, prior, codes)
        return codes

    @reading("entropy-coded trellis")
    def values(
        self, data: list, shape: tuple[int, int], scaling: Scaling, out: np.ndarray, prior: np.ndarray | int = 0
    ) -> float:
        """Write what codes decode to, without the codes; returns what no value exceeds."""
        return scaling.bound(*self._decode(data, shape, prior, out, scaling))

    def _decode(
        self, data: list, shape: tuple[int, int], prior: np.ndarray | int, out: np.ndarray, *scaling: Scaling
    ) -> tuple[int, int]:
        """Write all fronts into `out`; returns the least and the largest code."""
        *scales, streams = checked(DATA, data, "coded data", columns=shape[1], rows=shape[0])
        model = read_scales(scales, shape, prior)
        groups, grid = model.grid(np.arange(shape[1]), kinds_of_supersets())
        require_streams(streams, len(Fronts(*shape, self.height).runs(self.block)))
        labels, least, most = walk_labels(self.code), 0, 0
        for stream, (places, ends) in zip(streams, self._sequences(shape), strict=True):
            order, steps, fresh = _in_steps(ends)
            where = np.divmod(places[order], shape[1])
            low, high = decode_places(stream, groups, grid, supersets(), where, steps, fresh, out, labels, *scaling)
            least, most = min(least, low), max(most, high)
        return least, most

    def gains(self, data: list, shape: tuple[int, int], prior: np.ndarray | int = 0) -> np.ndarray:
        """As those of `EntropyCodedTrellis`."""
        *scales, _ = checked(DATA, data, "coded data", columns=shape[1], rows=shape[0])
        return square_gains(read_scales(scales, shape, prior).columns)

    def to_state(self) -> list:
        """All options, for the container."""
        return [self.states, self.segment, self.height, self.block]

    @staticmethod
    def from_state(state: list, shape: tuple[int, int]) -> "FrontTrellis":
        """Inverse of `to_state`, for a matrix whose rows the height divides."""
        found = FrontTrellis(*checked(FrontTrellis.schema, state, "coder"))
        Fronts.in_file(shape, found.height)
        return found

    def _sequences(self, shape: tuple[int, int]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Places of the entries of each block of fronts, sequence after sequence, and where sequences end."""
        fronts = Fronts(*shape, self.height)
        for run in fronts.runs(self.block):
            lengths = [_lengths(fronts.size(front), self.segment) for front in run]
            yield fronts.places(run.start, run.stop), np.cumsum(np.concatenate(lengths))

    def _check(self, codes: np.ndarray, ends: np.ndarray) -> None:
        """Raise for what is no sequence."""
        lengths = np.diff(ends, prepend=0)
        places = np.minimum((ends - lengths)[:, None] + np.arange(lengths.max()), ends[:, None] - 1)
        try:
            self.code.inputs(codes[places], lengths)
        except InvalidInputError as error:
            msg = f"fronts of {self.height} rows are no sequences of this code: {error}"
            raise InvalidInputError(msg) from None


@functools.lru_cache(maxsize=1 << 13)
def _lengths(size: int, segment: int) -> np.ndarray:
    """Lengths of the sequences of a front: neighbours, and layers of a model, share them."""
    return np.diff(segment_ends(size, segment))


def _in_steps(ends: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Codes of sequences that lie one after the other, in the order of decoding; sizes of steps, and which begin anew.

    The longest sequences come first, 64 at a time: a step is one code of each that goes on.

    >>> _in_steps(np.array([1, 4]))
    (array([1, 0, 2, 3]), array([2, 1, 1]), array([ True, False, False]))
    """
    lengths = np.diff(ends, prepend=0)
    longest = np.argsort(-lengths, kind="stable")
    starts, lengths = (ends - lengths)[longest], lengths[longest]
    orders, steps, fresh = [], [], []
    for first in range(0, len(lengths), WIDTH):
        some = lengths[first : first + WIDTH]
        times = np.arange(some[0])
        going = times[:, None] < some
        orders.append((starts[first : first + WIDTH] + times[:, None])[going])
        steps.append(going.sum(axis=1))
        fresh.append(times == 0)
    return np.concatenate(orders), np.concatenate(steps), np.concatenate(fresh)
