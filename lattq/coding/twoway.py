"""The entropy coder of scalar codes: Gaussians whose scale is a row factor times a column factor.

Rows and columns of a weight matrix have their own scales; noise that feedback adds to a column has no row factor. So
the class of code (r, j) is k_j + q_r * share(k_j), where share falls from 1 to 0 as the column's scale nears the
noise's (theory 3.3). All of it is integer arithmetic on charged integers: any decoder computes the same classes.
"""

import dataclasses
import math
from typing import Any

import msgpack
import numpy as np

from lattq._options import as_integer, normalize
from lattq.coding.base import BaseCoder
from lattq.coding.column_blocks import BLOCK, check_block, column_blocks, wanted_blocks
from lattq.coding.column_squares import column_squares
from lattq.coding.damage import reading
from lattq.coding.integers import cheapest, decode_integers, encode_integers
from lattq.coding.scaling import Scaling
from lattq.coding.schema import WORDS, Inner, Integer, Record, Series, checked
from lattq.coding.slots import LARGEST_CLASS, gaussians, kinds_of_codes
from lattq.coding.strips import decode_strips, encode_strips
from lattq.coding.tables import CLASSES, CLASSES_PER_OCTAVE, SHARE, code_lengths, expected_gain, limit, scale_class
from lattq.errors import DamagedFileError
from lattq.parts import register

__all__ = [
    "DATA",
    "TwoWay",
    "TwoWayModel",
    "column_bytes",
    "live_codes",
    "read_scales",
    "row_classes",
    "stored_scales",
]

Prior = np.ndarray | int
CAP = limit(CLASSES - 1) + 1
NO_NOISE = -1000  # a noise class so low that every column has its whole row factor
NOISE_CLASSES = (NO_NOISE, *(int(x) for x in scale_class(np.array([0.25, 0.5, 1.0]))))

SAMPLE_COLUMNS = 64
MOST_OCTAVES = 1 << 10  # between a row class, a column class, or a prior, and another
WIDEST = CLASSES_PER_OCTAVE * MOST_OCTAVES
DATA = Record(
    noise=Integer(NO_NOISE, WIDEST),
    row_classes=Inner(),
    column_classes=Inner(),
    streams=Series(WORDS, 1, lambda at: at.columns),
)


@dataclasses.dataclass(frozen=True)
class TwoWayModel:
    """Scale classes of rows (relative, 0 = average), of columns, and of the noise without row factor."""

    rows: np.ndarray
    columns: np.ndarray
    noise: int

    def classes(self, columns: slice | np.ndarray = slice(None)) -> np.ndarray:
        """Class of every code in these columns, shape (rows, columns)."""
        k = self.columns[columns]
        shifted = k[None, :] + ((self.rows[:, None] * share(k, self.noise)[None, :] + 8) >> 4)
        return np.where(k[None, :] > 0, np.clip(shifted, 1, LARGEST_CLASS), 0)

    def grid(self, columns: np.ndarray, kinds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Which row of a grid each row of the matrix is, and the grid: kinds of the classes of these columns.

        >>> model = TwoWayModel(np.array([3, 0, 3]), np.array([9, 40]), NO_NOISE)
        >>> model.grid(np.array([0, 1]), np.arange(100))
        (array([1, 0, 1]), array([[ 9, 40],
               [12, 43]]))
        """
        rows, groups = np.unique(self.rows, return_inverse=True)
        classes = TwoWayModel(rows, self.columns, self.noise).classes(columns)
        return groups, kinds[np.minimum(classes, len(kinds) - 1)]

    def live(self, block: slice) -> np.ndarray:
        """The columns of a block that hold anything."""
        return block.start + np.flatnonzero(self.columns[block] > 0)


@register("coder", "two-way")
@dataclasses.dataclass(frozen=True)
class TwoWay(BaseCoder):
    """Entropy coder with a two-way scale model: `encode(codes)` and `decode(data, shape)`.

    Parameters
    ----------
    block : codes per independent stream, rounded up to whole columns. Smaller blocks give finer random access and more
        parallel decoding; each costs 10 bytes, or three for every 65536 codes.

    Examples
    --------
    >>> codes = np.arange(12).reshape(4, 3) % 5 - 2
    >>> coder = TwoWay()
    >>> (coder.decode(coder.encode(codes), codes.shape) == codes).all()
    np.True_
    """

    block: int = 1 << 20
    fused = True

    schema = Record(block=BLOCK)

    def __post_init__(self) -> None:
        normalize(self, as_integer, "block")
        check_block(self.block)

    def encode(self, codes: np.ndarray, prior: Prior = 0) -> list:
        """Streams and model of a (rows, columns) integer array, as a list that `msgpack` can store.

        `prior` is a guess of the column classes, up to a constant, that the decoder knows too: only differences are
        stored. The scales that equalize the columns are such a guess.
        """
        model = fit(codes, prior)
        lives = [model.live(block) for block in column_blocks(codes.shape, self.block)]
        cuts, kinds = np.array([0, len(codes)]), kinds_of_codes()
        streams = [encode_strips(codes, cuts, *model.grid(live, kinds), gaussians(), live) for live in lives]
        return [*stored_scales(model, prior), streams]

    @reading("entropy-coded data")
    def decode(self, data: list, shape: tuple[int, int], prior: Prior = 0, columns: slice | None = None) -> np.ndarray:
        """Codes of all columns, or of the blocks that cover `columns` only; raises `DamagedFileError`."""
        model, streams = self.read_model(data, shape, prior)
        codes = np.zeros((shape[0], len(range(*(columns or slice(None)).indices(shape[1])))), dtype=np.int32)
        for block, stream, places, inside in wanted_blocks(streams, shape, self.block, columns):
            decoded = np.zeros((shape[0], block.stop - block.start), dtype=np.int32)
            self._decode_block(stream, model, block, block.start, decoded)
            codes[:, places] = decoded[:, inside]
        return codes

    @reading("entropy-coded data")
    def values(self, data: list, shape: tuple[int, int], scaling: Scaling, out: np.ndarray, prior: Prior = 0) -> float:
        """Write what codes decode to, without the codes; returns what no value exceeds."""
        model, streams = self.read_model(data, shape, prior)
        least, most = scaling.idle(np.flatnonzero(model.columns == 0), out)
        for block, stream, *_ in wanted_blocks(streams, shape, self.block, None):
            low, high = self._decode_block(stream, model, block, 0, out, scaling)
            least, most = min(least, low), max(most, high)
        return scaling.bound(least, most)

    def _decode_block(
        self, stream: bytes, model: TwoWayModel, block: slice, first: int, out: np.ndarray, *scaling: Scaling
    ) -> tuple[int, int]:
        """Write a block of columns into `out`, whose columns begin with column `first` of the matrix."""
        live = model.live(block)
        groups, grid = model.grid(live, kinds_of_codes())
        return decode_strips(stream, groups, grid, gaussians(), np.array([0, len(groups)]), live - first, out, *scaling)

    def read_model(self, data: list, shape: tuple[int, int], prior: Prior = 0) -> tuple[TwoWayModel, list]:
        """Scale classes and streams of what `encode` returned."""
        *scales, streams = checked(DATA, data, "coded data", columns=shape[1])
        return read_scales(scales, shape, prior), streams

    def live(self, data: list, shape: tuple[int, int], prior: Prior = 0) -> int:
        """How many codes `decode` has to find: those of columns that are not all zeros."""
        return live_codes(data, shape, prior)

    def fixed(self, data: list) -> int:
        """Bytes of the column classes."""
        return column_bytes(data)

    def to_state(self) -> list:
        """The size of a block, for the container."""
        return [self.block]

    @staticmethod
    def from_state(state: list, shape: tuple[int, int]) -> "TwoWay":
        """Inverse of `to_state`."""
        return TwoWay(*checked(TwoWay.schema, state, "coder"))

    def gains(self, data: list, shape: tuple[int, int], prior: Prior = 0) -> np.ndarray:
        """LMMSE gains, in 128ths, that the column classes predict."""
        columns = self.read_model(data, shape, prior)[0].columns
        return np.array([expected_gain(int(k)) for k in columns])


def stored_scales(model: TwoWayModel, prior: Prior) -> list:
    """The three items of a stream that hold the classes; columns as differences from the prior."""
    return [model.noise, encode_integers(model.rows), encode_integers(model.columns - prior)]


def read_scales(stored: list, shape: tuple[int, int], prior: Prior) -> TwoWayModel:
    """Inverse of `stored_scales`."""
    noise, rows, columns = stored
    found = decode_integers(columns, shape[1], -WIDEST, WIDEST) + prior
    if not 0 <= found.min() <= found.max() <= WIDEST:
        msg = f"scale classes {found.min()} ... {found.max()} of columns; the file is damaged"
        raise DamagedFileError(msg)
    return TwoWayModel(decode_integers(rows, shape[0], -WIDEST, WIDEST), found, noise)


def column_bytes(data: list) -> int:
    """Bytes that the classes of columns take, of coded data that begins with scales.

    >>> column_bytes(TwoWay().encode(np.zeros((3, 2), dtype=int)))
    5
    """
    return len(bytes(msgpack.packb(data[2]) or b""))


def live_codes(data: list, shape: tuple[int, int], prior: Prior) -> int:
    """Codes in columns that are not all zeros, of coded data that begins with scales.

    >>> codes = np.array([[0, 3], [0, -1]] * 40)
    >>> live_codes(TwoWay().encode(codes), codes.shape, 0)
    80
    """
    *scales, _ = checked(DATA, data, "coded data", columns=shape[1])
    return shape[0] * int(np.count_nonzero(read_scales(scales, shape, prior).columns))


def share(k: np.ndarray, noise: int) -> np.ndarray:
    """Sixteenths of the row factor that a column of class k keeps: 16 (1 - noise variance / variance)."""
    return SHARE[np.clip(k - noise, 0, len(SHARE) - 1)]


def fit(codes: np.ndarray, prior: Prior = 0) -> TwoWayModel:
    """Model with the fewest bits, its own among them: rows and columns have their own classes only where these pay.

    The noise class is chosen on a sample of columns.
    """
    equal = TwoWayModel(np.zeros(codes.shape[0], dtype=np.int64), _moment_classes(codes), NO_NOISE)
    sample = slice(None, None, -(-codes.shape[1] // SAMPLE_COLUMNS))
    of_sample = prior if isinstance(prior, int) else prior[sample]
    part = np.ascontiguousarray(codes[:, sample])
    tried = [_fit(part, equal.columns[sample], noise, of_sample)[1] for noise in NOISE_CLASSES]
    noise = NOISE_CLASSES[int(np.argmin(tried))]
    found = _fit_columns(codes, equal, prior), _fit(codes, equal.columns, noise, prior)
    return min(found, key=lambda fit: fit[1])[0]


def _fit(codes: np.ndarray, columns: np.ndarray, noise: int, prior: Prior) -> tuple[TwoWayModel, float]:
    """Row classes from moments, then column classes by exact bits, which come second.

    Rows that all have class 0 are equal ones, which are tried in any case.
    """
    rows = row_classes(codes, columns, noise)
    if not rows.any():
        return TwoWayModel(rows, columns, noise), math.inf
    model, bits = _fit_columns(codes, TwoWayModel(rows, columns, noise), prior)
    return model, bits + 8 * len(encode_integers(rows)[2])


def _fit_columns(codes: np.ndarray, start: TwoWayModel, prior: Prior) -> tuple[TwoWayModel, float]:
    """Best classes of the columns given those of the rows, and the bits of all codes and of the columns' classes.

    Columns whose scale has no table are compared without their low bits, which cost the same in every class.
    """
    shift = np.maximum(-((CLASSES - 1 - 2 * CLASSES_PER_OCTAVE - start.columns) // CLASSES_PER_OCTAVE), 0)
    largest = np.maximum(codes.max(axis=0), -codes.min(axis=0).astype(np.int64)) >> shift
    lengths = code_lengths(1 << int(np.minimum(largest, CAP).max()).bit_length())
    bits = np.zeros((codes.shape[1], CLASSES))
    bits[largest > 0, 0] = np.inf  # the class of nothing but zeros
    for q in np.unique(start.rows):
        shifted = TwoWayModel(np.array([q]), np.arange(CLASSES), start.noise).classes()[0]
        counts = _histograms(codes, np.flatnonzero(start.rows == q), shift, lengths.shape[1])
        bits += counts @ lengths[np.minimum(shifted, CLASSES - 1)].T
    places = np.arange(CLASSES)
    classes = np.where(places > 0, places + CLASSES_PER_OCTAVE * shift[:, None], 0)
    chosen, total = cheapest(bits, classes, prior)
    found = np.take_along_axis(classes, chosen[:, None], axis=1)[:, 0]
    return TwoWayModel(start.rows, found, start.noise), total + codes.shape[0] * float(shift.sum())


def _moment_classes(codes: np.ndarray) -> np.ndarray:
    """First guess of the column classes: a variance less the 1/12 of rounding, never below half of it."""
    variance = column_squares(codes) / codes.shape[0]
    return scale_class(np.sqrt(np.maximum(variance - 1 / 12, variance / 2)))


def _histograms(codes: np.ndarray, rows: np.ndarray, shift: np.ndarray, size: int) -> np.ndarray:
    """How often magnitudes without their low bits, `CAP` at most, occur in columns of some rows; (columns, size)."""
    from lattq.kernels import counts  # numba takes long to import, and few need it

    found = np.zeros((codes.shape[1], size), dtype=np.int32)
    count: Any = counts.magnitudes
    count(np.ascontiguousarray(codes), rows, shift, CAP, found)
    return found.astype(np.float64)


def row_classes(codes: np.ndarray, columns: np.ndarray, noise: int) -> np.ndarray:
    """Relative scale classes of rows, shrunk towards 0 by what sampling alone explains.

    The mean of z² / (column variance) over columns, weighted by share, estimates a row's factor; its own scatter gives
    the standard error. With equal rows the factors scatter no more than that, and every class is 0.
    """
    from lattq.kernels import counts  # numba takes long to import, and few need it

    live = columns > 0
    if not live.any():
        return np.zeros(codes.shape[0], dtype=np.int64)
    variance = column_squares(codes) / codes.shape[0]
    weight = share(columns, noise) * (live & (variance > 0))
    if not weight.any():
        return np.zeros(codes.shape[0], dtype=np.int64)
    weight = weight / weight.sum()
    found = np.empty((codes.shape[0], 3))
    moments: Any = counts.row_moments
    moments(np.ascontiguousarray(codes), weight / np.where(variance > 0, variance, 1), weight, found)
    factor, squares, error = found.T
    error = error + factor * (factor * (weight @ weight) - 2 * squares)
    spread = factor.var()
    shrink = max(0.0, 1 - error.mean() / spread) if spread > 0 else 0.0
    log = 0.5 * np.log2(np.maximum(1 + shrink * (factor - 1), 2.0**-8))
    return np.rint(CLASSES_PER_OCTAVE * log).astype(np.int64)
