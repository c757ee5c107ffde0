"""The entropy coder of trellis codes whose sequences run along the fronts of a matrix.

What is coded is what `lattq.trellis.coder` codes, but a sequence crosses columns: the class of each code is that of its
row and its column all the same. A strip of 64 neighbouring fronts is decoded row by row: what a row has in it are
neighbours in the matrix too.
"""

import dataclasses
import functools
from typing import Any

import numpy as np

from lattq._options import as_integer, normalize
from lattq.coding import BaseCoder
from lattq.coding.column_blocks import BLOCK, check_block
from lattq.coding.cosets import log_partition
from lattq.coding.damage import reading
from lattq.coding.fronts import HEIGHT, Fronts, require_streams
from lattq.coding.interleaved import WIDTH
from lattq.coding.scaling import Scaling
from lattq.coding.schema import Inner, Record, Series, checked
from lattq.coding.slots import cosets_of, kinds_of_cosets
from lattq.coding.squares import fit_squares
from lattq.coding.strips import decode_fronts, encode_fronts
from lattq.coding.twoway import DATA as COLUMNS
from lattq.coding.twoway import column_bytes, read_scales, stored_scales
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
        from lattq.kernels import counts  # numba takes long to import, and few need it

        codes = np.ascontiguousarray(codes)
        model = fit_squares(codes, codes & 1, np.array([log_partition(z0, 2) for z0 in (0, 1)]), prior=prior)
        (rows, columns), streams = codes.shape, []
        fronts = Fronts(rows, columns, self.height)
        groups, grid = model.grid(np.arange(columns), kinds_of_cosets(2))
        known: Any = counts.are_front_sequences
        for run, size, _, cuts in _runs(fronts, self.segment, self.block):
            if not known(codes, self.height, (run.start, run.stop), *cuts, walk_labels(self.code)):
                self._refused(codes.reshape(-1), fronts, run)
            streams.append(encode_fronts(codes, run, size, self.height, groups, grid, cosets_of(2)))
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
        groups, grid = model.grid(np.arange(shape[1]), kinds_of_cosets(2))
        fronts, labels, least, most = Fronts(*shape, self.height), walk_labels(self.code), 0, 0
        runs = _runs(fronts, self.segment, self.block)
        require_streams(streams, len(runs))
        for stream, (run, size, fresh, _) in zip(streams, runs, strict=True):
            where = (run, size, self.height, fresh)
            low, high = decode_fronts(stream, where, groups, grid, cosets_of(2), out, labels, *scaling)
            least, most = min(least, low), max(most, high)
        return least, most

    def gains(self, data: list, shape: tuple[int, int], prior: np.ndarray | int = 0) -> np.ndarray:
        """As those of `EntropyCodedTrellis`."""
        *scales, _ = checked(DATA, data, "coded data", columns=shape[1], rows=shape[0])
        return square_gains(read_scales(scales, shape, prior).columns)

    def fixed(self, data: list) -> int:
        """Bytes of the column classes."""
        return column_bytes(data)

    def to_state(self) -> list:
        """All options, for the container."""
        return [self.states, self.segment, self.height, self.block]

    @staticmethod
    def from_state(state: list, shape: tuple[int, int]) -> "FrontTrellis":
        """Inverse of `to_state`, for a matrix whose rows the height divides."""
        found = FrontTrellis(*checked(FrontTrellis.schema, state, "coder"))
        Fronts.in_file(shape, found.height)
        return found

    def _refused(self, flat: np.ndarray, fronts: Fronts, run: range) -> None:
        """Raise for what is no sequence."""
        lengths = np.concatenate([np.diff(_ends(fronts.size(front), self.segment)) for front in run])
        starts = np.cumsum(lengths) - lengths
        inside = np.minimum(np.arange(lengths.max()), lengths[:, None] - 1)
        try:
            self.code.inputs(flat[fronts.places(run.start, run.stop)[starts[:, None] + inside]], lengths)
        except InvalidInputError as error:
            msg = f"fronts of {self.height} rows are no sequences of this code: {error}"
            raise InvalidInputError(msg) from None


@functools.lru_cache(maxsize=1 << 13)
def _ends(size: int, segment: int) -> np.ndarray:
    """Where the sequences of a front end: neighbours, and layers of a model, share them."""
    return segment_ends(size, segment)


Arrays = tuple[np.ndarray, ...]


@functools.lru_cache(maxsize=64)
def _runs(fronts: Fronts, segment: int, block: int) -> list[tuple[range, int, Arrays, Arrays]]:
    """The fronts of each stream, how many codes they have, `_fresh` and `_cuts`; layers of a model share them."""
    runs = fronts.runs(block)
    return [(r, sum(map(fronts.size, r)), _fresh(fronts, r, segment), _cuts(fronts, r, segment)) for r in runs]


def _cuts(fronts: Fronts, run: range, segment: int) -> tuple[np.ndarray, np.ndarray]:
    """Where sequences end, counted in codes of their fronts, and where those of each front begin.

    >>> _cuts(Fronts(4, 3, height=2), range(1, 3), 2)
    (array([2, 4, 2, 4]), array([0, 2]))
    """
    ends = [_ends(fronts.size(front), segment)[1:] for front in run]
    sizes = np.array(list(map(len, ends)))
    return np.concatenate(ends), np.cumsum(sizes) - sizes


def _fresh(fronts: Fronts, run: range, segment: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows where a sequence follows another one, places of their fronts in strips, and where the rows of strips begin.

    >>> _fresh(Fronts(4, 3, height=2), range(1, 3), 2)
    (array([2, 2]), array([0, 1]), array([0, 2]))
    """
    starts = [_ends(fronts.size(front), segment)[1:-1] for front in run]
    front = np.repeat(np.arange(run.start, run.stop), list(map(len, starts)))
    low, high = np.maximum(0, front - fronts.columns + 1), np.minimum(fronts.height - 1, front)
    group, inside = np.divmod(np.concatenate(starts), high - low + 1)
    rows, place = group * fronts.height + low + inside, front - run.start
    strips = place // WIDTH
    order = np.lexsort((rows, strips))
    bounds = np.searchsorted(strips[order], np.arange(-(-len(run) // WIDTH) + 1))
    return rows[order], place[order] % WIDTH, bounds
