"""Recipes that look weights up in tables."""

import math
from typing import Any

from lattq._options import as_float, as_integer
from lattq.errors import InvalidInputError
from lattq.feedback import Cholesky, OpenLoop
from lattq.feedback.elementwise import ElementwiseCholesky
from lattq.quantizers import Codebook, GPTVQCodebook
from lattq.scheme import Scheme
from lattq.transforms import Equalize, Outliers
from lattq.transforms.maps import Identity

__all__ = ["ecvq", "gptvq", "gptvq_published", "palettize", "pq", "squeezellm"]

GROUP = 256  # columns of a table, as published with GPTVQ
MOST_INDEX_BITS = 16


def palettize(
    bits: int = 4,
    *,
    dimension: int = 1,
    rows: int | None = None,
    entry_bits: int | None = None,
    weighted: bool = False,
) -> Scheme:
    """Tables for the whole matrix or groups of its rows, without feedback (Core ML's palettes).

    Parameters
    ----------
    bits : per weight; a table has 2^(bits dimension) entries
    dimension : weights of a vector, side by side in a row
    rows : that share a table; None for all
    entry_bits : None for float16, 8 or 4 for integers times a step
    weighted : measure errors by the second moment of the inputs, in place of counting all alike

    Examples
    --------
    >>> palettize(bits=2, dimension=2).quantizer.size
    16
    """
    size = _size(bits, dimension)
    return Scheme(
        feedback=OpenLoop(block=dimension),
        quantizer=Codebook(size, dimension, group=None, rows=rows, entry_bits=entry_bits, weighted=weighted),
    )


def pq(bits: int = 2, *, dimension: int = 4, entry_bits: int | None = 8) -> Scheme:
    """Product quantization (Jégou et al. 2011): each run of columns has its own codebook, without feedback.

    Parameters
    ----------
    bits : per weight
    dimension : columns of a run
    entry_bits : as in `palettize`

    Examples
    --------
    >>> pq(bits=2, dimension=4).quantizer.group
    4
    """
    size = _size(bits, dimension)
    design = Codebook(size, dimension, group=dimension, entry_bits=entry_bits, weighted=False)
    return Scheme(feedback=OpenLoop(block=dimension), quantizer=design)


def squeezellm(bits: int = 3, *, importance: Any = None, outliers: float = 0.0045) -> Scheme:
    """A table for each row, fitted to sensitivities, and a sparse part for outliers (Kim et al. 2024).

    Tables are the exact solution of weighted k-means.

    Parameters
    ----------
    bits : per weight of the dense part
    importance : weights of squared errors, (rows, columns), for tables and outliers: the Fisher diagonal, as
        published; None takes the second moment of the inputs
    outliers : fraction of the weights in the sparse part, a ninth of them by sensitivity, the others by magnitude; its
        places and float16 values are charged, and replace what the tables say

    Examples
    --------
    >>> squeezellm(bits=3).transform
    Outliers(fraction=0.004, sensitive=0.0005, importance=None)
    """
    outliers = as_float("outliers", outliers)
    shares = round(outliers * 8 / 9, 12), round(outliers / 9, 12)
    sparse = Outliers(*shares, importance=importance) if outliers else Identity()
    design = Codebook(_size(bits, 1), rows=1, group=None, entry_bits=None, importance=importance)
    return Scheme(transform=sparse, feedback=OpenLoop(), quantizer=design)


def gptvq(
    bits: int = 2,
    *,
    dimension: int = 2,
    overhead: float = 0.125,
    entry_bits: int | None = 8,
    scale: int | None = None,
    down: bool = False,
    damping: float = 0.01,
    sweeps: int = 4,
    rounds: int = 1,
) -> Scheme:
    """Codebooks with exact block feedback, the metric of the pivots, coordinate descent and refitted tables.

    GPTVQ (van Baalen et al. 2024) with its approximations undone (theory 9.3): errors of a vector are fed back by a
    triangle, and measured by the same matrix in k-means and look-up; scales follow the feedback.

    Parameters
    ----------
    bits : per weight, without tables
    dimension : weights of a vector
    overhead : bits per weight that the tables take, which says how many rows share one in groups of 256 columns:
        narrower groups take more, and matrices of fewer rows have one table for a group
    entry_bits : as in `palettize`
    scale : columns of a row that share a scale of four bits, or None
    down : vectors down the rows of a column (VPTQ, Liu et al. 2024)
    damping : as in `gptq`, in the first pass and its sweeps; refits and rounds see the second moment as it is
    sweeps : of coordinate descent after the first pass and in each round
    rounds : how often sweeps and the refit of tables are repeated

    Examples
    --------
    >>> gptvq(bits=2, dimension=2).quantizer.rows
    8
    """
    size = _size(bits, dimension)
    design = Codebook(
        size,
        dimension,
        group=_group(1 if down else dimension, scale),
        rows=_rows(size, dimension, overhead, entry_bits, dimension if down else 1),
        entry_bits=entry_bits,
        scale=scale,
        down=down,
    )
    feedback = Cholesky("reversed", damping, block=1 if down else dimension)
    return Scheme(feedback=feedback, quantizer=design, sweeps=sweeps, refit=("tables",), rounds=rounds)


def gptvq_published(bits: int = 2, *, dimension: int = 2, overhead: float = 0.125, damping: float = 0.01) -> Scheme:
    """GPTVQ as published, with its approximations (theory 9.3): a baseline.

    Without scales of runs, where its code rounds copies of the weights that the feedback does not reach.

    Parameters
    ----------
    bits, dimension, overhead, damping : as in `gptvq`

    Examples
    --------
    >>> gptvq_published(bits=2, dimension=2).refit
    ('tables by Adam',)
    """
    size = _size(bits, dimension)
    rows = _rows(size, dimension, overhead, 8, 1)
    design = GPTVQCodebook(size, dimension, group=_group(dimension, None), rows=rows)
    feedback = ElementwiseCholesky(dimension, damping)
    return Scheme(feedback=feedback, quantizer=design, refit=("tables by Adam",))


def ecvq(step: float, *, size: int = 256, dimension: int = 2, sweeps: int = 0) -> Scheme:
    """One entropy-coded codebook, whose vectors are chosen for squared error plus bits (Chou et al. 1989).

    Errors are equalized and fed back as in WaterSIC, and a bit is worth what it is worth at the distortion step² / 12.

    Parameters
    ----------
    step : side of a cubic cell with the wanted distortion
    size : entries; 2^(bits dimension) for `bits` well above the rate
    dimension : weights of a vector
    sweeps : of coordinate descent

    Examples
    --------
    >>> round(ecvq(step=0.5).quantizer.slope, 4)
    0.0289
    """
    step = as_float("step", step)
    if not 0.0 < step < 1e100:
        msg = f"`step` is {step}; the side of a cell is positive and below 1e100"
        raise InvalidInputError(msg)
    design = Codebook(size, dimension, group=None, entry_bits=None, slope=2 * math.log(2) * step**2 / 12)
    return Scheme(feedback=Cholesky(block=dimension), quantizer=design, equalize=Equalize(), sweeps=sweeps)


def _size(bits: int, dimension: int) -> int:
    """Entries of a table; raises `InvalidInputError` for one of more than 2^16."""
    bits, dimension = as_integer("bits", bits), as_integer("dimension", dimension)
    if not (bits >= 1 and dimension >= 1 and bits * dimension <= MOST_INDEX_BITS):
        msg = f"`bits` is {bits} and `dimension` {dimension}; their product is 1 to {MOST_INDEX_BITS}, bits of an index"
        raise InvalidInputError(msg)
    return 1 << (bits * dimension)


def _group(dimension: int, scale: int | None) -> int:
    """Columns of a table: about `GROUP`, whole vectors and whole runs of a scale."""
    step = dimension if scale is None else as_integer("scale", scale)
    return max(GROUP // max(step, 1), 1) * step


def _rows(size: int, dimension: int, overhead: float, entry_bits: int | None, multiple: int) -> int:
    """Rows that share a table which takes `overhead` bits a weight, a multiple of what vectors need."""
    overhead = as_float("overhead", overhead)
    if not 0.0 < overhead < math.inf:
        msg = f"`overhead` is {overhead}; pass the bits per weight that tables may take, above zero"
        raise InvalidInputError(msg)
    weights = size * dimension * (16 if entry_bits is None else entry_bits) / overhead
    return max(math.ceil(weights / GROUP / multiple), 1) * multiple
