"""The entropy coder of scalar codes: Gaussians whose scale is a row factor times a column factor.

Rows and columns of a weight matrix have their own scales; noise that feedback adds to a column has no row factor. So
the class of code (r, j) is k_j + q_r * share(k_j), where share falls from 1 to 0 as the column's scale nears the
noise's (theory 3.3). All of it is integer arithmetic on charged integers: any decoder computes the same classes.
"""

import dataclasses
from collections.abc import Iterator

import numpy as np

from lattq._options import as_integer, normalize
from lattq.coding.ans import decode_classes, encode_classes
from lattq.coding.base import BaseCoder
from lattq.coding.damage import reading
from lattq.coding.integers import decode_integers, encode_integers
from lattq.coding.tables import CLASSES, CLASSES_PER_OCTAVE, SHARE, code_lengths, expected_gain, limit, scale_class
from lattq.errors import DamagedFileError, InvalidInputError
from lattq.parts import register

__all__ = [
    "TwoWay",
    "TwoWayModel",
    "check_block",
    "column_blocks",
    "read_scales",
    "row_classes",
    "stored_scales",
    "wanted_blocks",
]

Prior = np.ndarray | int
CAP = limit(CLASSES - 1) + 1
NO_NOISE = -1000  # a noise class so low that every column has its whole row factor
NOISE_CLASSES = (NO_NOISE, *(int(x) for x in scale_class(np.array([0.25, 0.5, 1.0]))))

SAMPLE_COLUMNS = 64
ROW_BLOCK = 64  # rows whose squares a cache holds
LARGEST_BLOCK = 1 << 24


@dataclasses.dataclass(frozen=True)
class TwoWayModel:
    """Scale classes of rows (relative, 0 = average), of columns, and of the noise without row factor."""

    rows: np.ndarray
    columns: np.ndarray
    noise: int

    def classes(self, columns: slice = slice(None)) -> np.ndarray:
        """Class of every code in these columns, shape (rows, columns)."""
        k = self.columns[columns]
        shifted = k[None, :] + ((self.rows[:, None] * share(k, self.noise)[None, :] + 8) >> 4)
        return np.where(k[None, :] > 0, np.maximum(shifted, 1), 0)


@register("coder", "two-way")
@dataclasses.dataclass(frozen=True)
class TwoWay(BaseCoder):
    """Entropy coder with a two-way scale model: `encode(codes)` and `decode(data, shape)`.

    Parameters
    ----------
    block : codes per independent stream, rounded up to whole columns. Smaller blocks give finer random access and more
        parallel decoding; each costs about 10 bytes.

    Examples
    --------
    >>> codes = np.arange(12).reshape(4, 3) % 5 - 2
    >>> coder = TwoWay()
    >>> (coder.decode(coder.encode(codes), codes.shape) == codes).all()
    np.True_
    """

    block: int = 1 << 18

    def __post_init__(self) -> None:
        normalize(self, as_integer, "block")
        check_block(self.block)

    def encode(self, codes: np.ndarray, prior: Prior = 0) -> list:
        """Streams and model of a (rows, columns) integer array, as a list that `msgpack` can store.

        `prior` is a guess of the column classes, up to a constant, that the decoder knows too: only differences are
        stored. The scales that equalize the columns are such a guess.
        """
        model = fit(codes)
        streams = [
            encode_classes(codes[:, block].ravel(), model.classes(block).ravel())
            for block in column_blocks(codes.shape, self.block)
        ]
        return [*stored_scales(model, prior), streams]

    @reading("entropy-coded data")
    def decode(self, data: list, shape: tuple[int, int], prior: Prior = 0, columns: slice | None = None) -> np.ndarray:
        """Codes of all columns, or of the blocks that cover `columns` only; raises `DamagedFileError`."""
        model, streams = self.read_model(data, shape, prior)
        codes = np.zeros((shape[0], len(range(*(columns or slice(None)).indices(shape[1])))), dtype=np.int32)
        for block, stream, places, inside in wanted_blocks(streams, shape, self.block, columns):
            decoded = decode_classes(stream, model.classes(block).ravel()).reshape(shape[0], -1)
            codes[:, places] = decoded[:, inside]
        return codes

    def read_model(self, data: list, shape: tuple[int, int], prior: Prior = 0) -> tuple[TwoWayModel, list]:
        """Scale classes and streams of what `encode` returned."""
        *scales, streams = data
        return read_scales(scales, shape, prior), streams

    def gains(self, data: list, shape: tuple[int, int], prior: Prior = 0) -> np.ndarray:
        """LMMSE gains, in 128ths, that the column classes predict."""
        columns = self.read_model(data, shape, prior)[0].columns
        return np.array([expected_gain(int(k)) for k in columns])


def check_block(block: int) -> None:
    """Raise `InvalidInputError` unless a stream of so many codes is one that a decoder should allocate.

    >>> check_block(1024)
    """
    if not 1 <= block <= LARGEST_BLOCK:
        msg = f"`block` is {block}; a stream holds 1 to {LARGEST_BLOCK} codes, which bounds a decoder's memory"
        raise InvalidInputError(msg)


def column_blocks(shape: tuple[int, int], block: int) -> list[slice]:
    """Column ranges of the independent streams.

    >>> column_blocks((100, 5), 200)
    [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    rows, width = shape
    step = max(1, -(-block // rows))
    return [slice(start, min(start + step, width)) for start in range(0, width, step)]


def wanted_blocks(
    streams: list, shape: tuple[int, int], block: int, columns: slice | None
) -> Iterator[tuple[slice, list, list[int], list[int]]]:
    """Blocks that hold any of `columns`: their range, stream, places among the wanted columns, and places inside."""
    blocks = column_blocks(shape, block)
    if len(streams) != len(blocks):
        msg = f"{len(streams)} streams for {len(blocks)} blocks of columns; the file is damaged"
        raise DamagedFileError(msg)
    wanted = range(*(columns or slice(None)).indices(shape[1]))
    for one, stream in zip(blocks, streams, strict=True):
        places = [place for place, j in enumerate(wanted) if one.start <= j < one.stop]
        if places:
            yield one, stream, places, [wanted[place] - one.start for place in places]


def stored_scales(model: TwoWayModel, prior: Prior) -> list:
    """The three items of a stream that hold the classes; columns as differences from the prior."""
    return [model.noise, encode_integers(model.rows), encode_integers(model.columns - prior)]


def read_scales(stored: list, shape: tuple[int, int], prior: Prior) -> TwoWayModel:
    """Inverse of `stored_scales`."""
    noise, rows, columns = stored
    return TwoWayModel(decode_integers(rows, shape[0]), decode_integers(columns, shape[1]) + prior, noise)


def share(k: np.ndarray, noise: int) -> np.ndarray:
    """Sixteenths of the row factor that a column of class k keeps: 16 (1 - noise variance / variance)."""
    return SHARE[np.clip(k - noise, 0, len(SHARE) - 1)]


def fit(codes: np.ndarray) -> TwoWayModel:
    """Model with the fewest bits; the noise class is chosen on a sample of columns, row classes only where they pay."""
    equal = TwoWayModel(np.zeros(codes.shape[0], dtype=np.int64), _moment_classes(codes), NO_NOISE)
    sample = slice(None, None, -(-codes.shape[1] // SAMPLE_COLUMNS))
    noise = min(NOISE_CLASSES, key=lambda noise: _fit(codes[:, sample], equal.columns[sample], noise)[1])
    return min((_fit_columns(codes, equal), _fit(codes, equal.columns, noise)), key=lambda found: found[1])[0]


def _fit(codes: np.ndarray, columns: np.ndarray, noise: int) -> tuple[TwoWayModel, float]:
    """Row classes from moments, then column classes by exact bits, which come second."""
    rows = row_classes(codes, columns, noise)
    model, bits = _fit_columns(codes, TwoWayModel(rows, columns, noise))
    return model, bits + 8 * len(encode_integers(rows)[2])


def _fit_columns(codes: np.ndarray, start: TwoWayModel) -> tuple[TwoWayModel, float]:
    """Best class of each column given the row classes, and the bits of all codes.

    Columns whose scale has no table are compared without their low bits, which cost the same in every class.
    """
    shift = np.maximum(-((CLASSES - 1 - 2 * CLASSES_PER_OCTAVE - start.columns) // CLASSES_PER_OCTAVE), 0)
    magnitudes = np.minimum(np.abs(codes) >> shift, CAP)
    lengths = code_lengths(1 << int(magnitudes.max()).bit_length())
    bits = np.zeros((codes.shape[1], CLASSES))
    for q in np.unique(start.rows):
        shifted = TwoWayModel(np.array([q]), np.arange(CLASSES), start.noise).classes()[0]
        counts = _histograms(magnitudes[start.rows == q], lengths.shape[1])
        bits += counts @ lengths[np.minimum(shifted, CLASSES - 1)].T
    classes = bits.argmin(axis=1)
    classes = np.where(classes > 0, classes + CLASSES_PER_OCTAVE * shift, 0)
    total = float(bits.min(axis=1).sum() + codes.shape[0] * shift.sum())
    return TwoWayModel(start.rows, classes, start.noise), total


def _moment_classes(codes: np.ndarray) -> np.ndarray:
    """First guess of the column classes: a variance less the 1/12 of rounding, never below half of it."""
    variance = np.mean(np.square(codes, dtype=np.float64), axis=0)
    return scale_class(np.sqrt(np.maximum(variance - 1 / 12, variance / 2)))


def _histograms(magnitudes: np.ndarray, size: int) -> np.ndarray:
    """How often each magnitude occurs in each column, shape (columns, size)."""
    width = magnitudes.shape[1]
    flat = (magnitudes + size * np.arange(width)).ravel()
    return np.bincount(flat, minlength=size * width).reshape(width, size).astype(np.float64)


def row_classes(codes: np.ndarray, columns: np.ndarray, noise: int) -> np.ndarray:
    """Relative scale classes of rows, shrunk towards 0 by what sampling alone explains.

    The mean of z² / (column variance) over columns, weighted by share, estimates a row's factor; its own scatter gives
    the standard error. With equal rows the factors scatter no more than that, and every class is 0.
    """
    live = columns > 0
    if not live.any():
        return np.zeros(codes.shape[0], dtype=np.int64)
    blocks = [slice(start, start + ROW_BLOCK) for start in range(0, codes.shape[0], ROW_BLOCK)]
    variance = sum(np.square(codes[block], dtype=np.float64).sum(axis=0) for block in blocks) / codes.shape[0]
    weight = share(columns, noise) * (live & (variance > 0))
    if not weight.any():
        return np.zeros(codes.shape[0], dtype=np.int64)
    weight = weight / weight.sum()
    relative = weight / np.where(variance > 0, variance, 1)
    factor, squares, error = np.empty((3, codes.shape[0]))
    for block in blocks:
        power = np.square(codes[block], dtype=np.float64)
        factor[block], squares[block] = power @ relative, power @ (weight * relative)
        error[block] = np.square(power, out=power) @ relative**2
    error += factor * (factor * (weight @ weight) - 2 * squares)
    spread = factor.var()
    shrink = max(0.0, 1 - error.mean() / spread) if spread > 0 else 0.0
    log = 0.5 * np.log2(np.maximum(1 + shrink * (factor - 1), 2.0**-8))
    return np.rint(CLASSES_PER_OCTAVE * log).astype(np.int64)
