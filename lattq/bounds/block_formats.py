"""Block formats: numbers of a few bits that share a scale taken from the largest of them, and their exact error.

With m the largest magnitude of a block and M that of the format, the scale is

- "float16": m / M, in half precision;
- "e4m3": m / M rounded to E4M3, as in NVFP4, whose weights are scaled beforehand so that this fits;
- "e8m0": 2^(floor(log2 m) - floor(log2 M)), the rule of the MX formats: it puts m into the last octave of the format,
  and what lies there beyond M is cut.
"""

import dataclasses
import math

import numpy as np
from jaxtyping import Float
from scipy.special import erfcinv, erfinv, log_ndtr

from lattq._array import host_reals
from lattq._options import among
from lattq.bounds._checks import Number, integer_at_least, positive
from lattq.bounds.format_error import gaussian_error
from lattq.bounds.formats import (
    E2M1FN,
    E2M3FN,
    E3M2FN,
    E4M3FN,
    E5M2,
    E8M0,
    NF4,
    NumberFormat,
    int_format,
    nearest_value,
)
from lattq.errors import InvalidInputError, shown

__all__ = ["BLOCK_FORMATS", "BlockFormat", "block_distortion", "block_loss", "block_scales"]

SCALE_BITS = {"float16": 16, "e4m3": 8, "e8m0": 8}
SMALLEST_SCALE = {
    "float16": float(np.finfo(np.float16).smallest_subnormal),
    "e4m3": float(E4M3FN.values[E4M3FN.values > 0.0][0]),
    "e8m0": float(E8M0.values[0]),
}
PIECE = 0.125  # standard deviations of the largest entry, over which 6 Gauss points are enough
LARGEST_SCALE = {"float16": float(np.finfo(np.float16).max), "e4m3": E4M3FN.largest, "e8m0": float(E8M0.values[-1])}


def check_scale(scale: str) -> None:
    """Raise `InvalidInputError` unless this is a format of scales.

    >>> check_scale("e8m0")
    """
    if not among(scale, SCALE_BITS):
        msg = f"`scale` is {shown(scale)}; pass {', '.join(map(repr, SCALE_BITS))}"
        raise InvalidInputError(msg)


def check_number(number: NumberFormat) -> None:
    """Raise `InvalidInputError` unless this is a format that a scale makes fit numbers of both signs.

    >>> check_number(E2M1FN)
    """
    if not isinstance(number, NumberFormat):
        msg = f"`number` is {shown(number)}; pass a format, such as `number_format('e2m1fn')`"
        raise InvalidInputError(msg)
    if not number.values[0] < 0.0 < number.values[-1]:
        msg = f"{number!r} reaches from {number.values[0]} to {number.values[-1]}; a block needs values of both signs"
        raise InvalidInputError(msg)


@dataclasses.dataclass(frozen=True)
class BlockFormat:
    """Numbers of a format in blocks of `size` that share a scale.

    Parameters
    ----------
    number : the format.
    size : entries that share a scale; None for as many as there are.
    scale : "float16", "e4m3" or "e8m0"; see the head of this module.

    Examples
    --------
    >>> BLOCK_FORMATS["mxfp4"], BLOCK_FORMATS["mxfp4"].rate
    (BlockFormat(number=NumberFormat('e2m1fn'), size=32, scale='e8m0'), 4.25)
    """

    number: NumberFormat
    size: int | None
    scale: str = "float16"

    def __post_init__(self) -> None:
        if self.size is not None:
            integer_at_least("size", self.size, 1)
        check_number(self.number)
        check_scale(self.scale)

    @property
    def rate(self) -> float:
        """Bits per entry, the scale included."""
        return self.number.bits + (SCALE_BITS[self.scale] / self.size if self.size else 0.0)


BLOCK_FORMATS = {
    "mxfp4": BlockFormat(E2M1FN, 32, "e8m0"),
    "mxfp6-e2m3": BlockFormat(E2M3FN, 32, "e8m0"),
    "mxfp6-e3m2": BlockFormat(E3M2FN, 32, "e8m0"),
    "mxfp8-e4m3": BlockFormat(E4M3FN, 32, "e8m0"),
    "mxfp8-e5m2": BlockFormat(E5M2, 32, "e8m0"),
    "mxint8": BlockFormat(int_format(8), 32, "e8m0"),
    "nvfp4": BlockFormat(E2M1FN, 16, "e4m3"),
    "nf4": BlockFormat(NF4, 64, "float16"),
}
"""Block formats by name."""


def block_scales(largest: Float[np.ndarray, "*shape"], number: NumberFormat, scale: str) -> Float[np.ndarray, "*shape"]:
    """Return the scales of blocks whose largest magnitudes are given; 1 for a block of zeros.

    Scales too small for their format become its smallest; those of "e8m0" and "e4m3" that are too large, its largest.

    Parameters
    ----------
    largest : largest magnitude of each block.
    number : format of the entries.
    scale : format of the scales.

    Raises
    ------
    InvalidInputError : if a scale is beyond float16, `scale` is no format of scales, `number` has values of one sign
        only, or `largest` holds NaN, infinity or a negative number.

    Examples
    --------
    >>> block_scales(np.array([0.0, 3.0, 5.9, 6.0]), E2M1FN, "e8m0")
    array([1. , 0.5, 1. , 1. ])
    """
    check_number(number)
    check_scale(scale)
    largest = host_reals("largest", largest)
    if (largest < 0.0).any():
        msg = f"`largest` holds {largest.min()}; a magnitude is not negative"
        raise InvalidInputError(msg)
    wanted = largest / number.largest
    if scale == "e8m0":
        # frexp is exact where log2 may round up to the next power.
        exponents = np.frexp(largest)[1] - math.frexp(number.largest)[1]
        found = np.ldexp(1.0, np.clip(exponents, -127, 127))
    elif scale == "e4m3":
        found = nearest_value(wanted, E4M3FN)
    else:
        if wanted.max(initial=0.0) > LARGEST_SCALE[scale]:
            msg = f"a scale of {wanted.max():.3g} is beyond float16; divide the weights by a constant first"
            raise InvalidInputError(msg)
        found = wanted.astype(np.float16).astype(np.float64)
    return np.where(largest > 0.0, np.maximum(found, SMALLEST_SCALE[scale]), 1.0)


def block_distortion(block: BlockFormat, *, size: int | None = None, variance: Number = 1.0) -> float:
    """Return the expected squared error per entry of a block format on Gaussian entries, theory (6.10).

    Exact: given the largest entry the others are independent truncated Gaussians; their error is integrated over the
    cells of the format, then over the largest entry, scale by scale. "float16" scales are taken as exact: as long as
    they are normal numbers of float16, from 6.1e-5 to 65504, that leaves out less than 1e-6 of the variance.

    Parameters
    ----------
    block : the format.
    size : entries of a block; needed where the format leaves it open, and the same where it does not.
    variance : of the entries. A power-of-two scale makes the error depend on it, "e4m3" on its being within reach: for
        weights of N entries scaled to 448 M, as in NVFP4, it is about (448 M)² / (2 ln N).

    Returns
    -------
    Squared error per entry.

    Raises
    ------
    InvalidInputError : if `variance` is not positive, or the size of the block is not known, or known to be another.

    Examples
    --------
    >>> round(block_distortion(BLOCK_FORMATS["mxfp4"]), 6)
    0.013219
    """
    deviation = math.sqrt(positive("variance", variance))
    entries = _entries(block, size)
    maxima, weights = _maximum_rule(entries, _breaks(block, deviation))
    if block.scale == "float16":
        scales = maxima / block.number.largest
    else:
        scales = block_scales(deviation * maxima, block.number, block.scale) / deviation
    errors = [_error_given(block.number.values * s, m, entries) for m, s in zip(maxima, scales, strict=True)]
    return float(variance) * float(weights @ np.array(errors))


def block_loss(block: BlockFormat, *, size: int | None = None, variance: Number = 1.0) -> float:
    """Return the gap of a block format to R(D) of the Gaussian, in bits per entry, its scales charged.

    Parameters
    ----------
    block, size, variance : as for `block_distortion`.

    Raises
    ------
    InvalidInputError : as for `block_distortion`.

    Examples
    --------
    >>> round(block_loss(BLOCK_FORMATS["mxfp4"]), 4)
    1.1294
    """
    distortion = block_distortion(block, size=size, variance=variance)
    rate = block.number.bits + SCALE_BITS[block.scale] / _entries(block, size)
    return rate + min(0.0, 0.5 * math.log2(distortion / float(variance)))


def _entries(block: BlockFormat, size: int | None) -> int:
    """Return how many entries share a scale."""
    entries = size if block.size is None else block.size
    if entries is None:
        msg = "the format has blocks of any size; pass `size`, how many entries share a scale"
        raise InvalidInputError(msg)
    if size is not None and size != entries:
        msg = f"`size` is {size}, but the format has blocks of {block.size}; leave `size` out"
        raise InvalidInputError(msg)
    return integer_at_least("size", entries, 1)


def _error_given(values: np.ndarray, m: float, entries: int) -> float:
    """Return the squared error per entry of a block whose largest magnitude is m, of either sign."""
    mass = 1.0 - 2.0 * math.exp(float(log_ndtr(-m)))
    others = gaussian_error(values, -m, m) / mass if entries > 1 else 0.0
    largest = np.mean([np.min(np.abs(sign * m - values)) ** 2 for sign in (-1.0, 1.0)])
    return ((entries - 1) * others + float(largest)) / entries


def _breaks(block: BlockFormat, deviation: float) -> np.ndarray:
    """Return the largest magnitudes, in standard deviations, where scale or code of the largest entry changes."""
    if block.scale == "float16":
        return np.zeros(0)
    if block.scale == "e8m0":
        jumps = np.ldexp(1.0, np.arange(-127, 128)) / deviation
    else:
        jumps = E4M3FN.thresholds * (block.number.largest / deviation)
    jumps = jumps[(jumps > 1e-12) & (jumps < 40.0)]
    bounds = np.concatenate([[0.0], jumps, [40.0]])
    middles = (bounds[:-1] + bounds[1:]) / 2.0
    scales = block_scales(deviation * middles, block.number, block.scale) / deviation
    cells = np.outer(scales, block.number.thresholds)
    inside = (cells > bounds[:-1, None]) & (cells < bounds[1:, None])
    return np.union1d(jumps, cells[inside])


def _maximum_rule(entries: int, breaks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return nodes and weights of an expectation over the largest of so many |N(0, 1)|, smooth between the breaks."""
    lowest = math.sqrt(2.0) * float(erfinv(10.0 ** (-20.0 / entries)))
    highest = math.sqrt(2.0) * float(erfcinv(1e-20 / entries))
    grid = np.linspace(lowest, highest, 1 + math.ceil((highest - lowest) / PIECE))
    edges = np.union1d(grid, breaks[(breaks > lowest) & (breaks < highest)])
    nodes, weights = np.polynomial.legendre.leggauss(6)
    half = np.diff(edges)[:, None] / 2.0
    x = (edges[:-1, None] + half * (nodes + 1.0)).ravel()
    # The density entries · P(|x| < m)^(entries - 1) · 2 φ(m), in logarithms.
    log_density = (entries - 1) * np.log1p(-2.0 * np.exp(log_ndtr(-x))) - 0.5 * x * x
    weights = (half * weights).ravel() * np.exp(log_density - log_density.max())
    return x, weights / weights.sum()
