"""Simulations with error bars, for the lattices here and for those of others."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from scipy.special import ndtri

from lattq._options import as_float, as_integer, as_seed
from lattq.errors import InvalidInputError, shown
from lattq.lattices.lattice import Lattice
from lattq.lattices.theta import closed_series, log_partition, scale_of_norm

__all__ = ["Estimate", "HasNearest", "measure_gap", "measure_nsm"]

BATCH = 2**16


@runtime_checkable
class HasNearest(Protocol):
    """Any lattice: a basis, and the point nearest to each vector."""

    @property
    def generator(self) -> np.ndarray:
        """Rows are basis vectors."""
        ...

    @property
    def nearest(self) -> Callable[[Any], Any]:
        """From vectors in rows to the lattice points nearest to them."""
        ...


@dataclass(frozen=True)
class Estimate:
    """A mean over independent samples.

    Attributes
    ----------
    value : the mean
    standard_error : its standard deviation, from the scatter of the samples
    interval : where the true value lies with the confidence asked for

    Examples
    --------
    >>> Estimate(1.0, 0.1, (0.8, 1.2)).interval
    (0.8, 1.2)
    """

    value: float
    standard_error: float
    interval: tuple[float, float]


def measure_nsm(lattice: HasNearest, samples: int, seed: int = 0, confidence: float = 0.95) -> Estimate:
    """Normalised second moment: squared error per dimension of vectors uniform in a cell, over volume^(2 / dimension).

    The vectors are uniform in the parallelepiped of the basis, which has a translate of every vector of the cell.

    Parameters
    ----------
    lattice : one of `lattq.lattices`, or anything with a `generator` and a `nearest`
    samples : number of vectors, at least 2
    seed : of the vectors
    confidence : of the interval, between 0 and 1

    Raises
    ------
    InvalidInputError : for too few samples, a negative seed, a confidence out of range or a basis that is not one

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> cubes = SimpleNamespace(generator=np.eye(3), nearest=np.rint)
    >>> low, high = measure_nsm(cubes, 10_000).interval
    >>> low < 1 / 12 < high
    True
    """
    if not isinstance(lattice, HasNearest):
        msg = f"`lattice` is {shown(lattice)}; pass one of `lattq.lattices`, or what has a `generator` and a `nearest`"
        raise InvalidInputError(msg)
    samples, quantile, rng = _checked(samples, seed, confidence)
    basis = np.asarray(lattice.generator, dtype=np.float64)
    sign, log = np.linalg.slogdet(basis @ basis.T)
    if not sign > 0:
        msg = f"`generator` has rank below {len(basis)}; its rows must be independent"
        raise InvalidInputError(msg)
    unit = len(basis) * math.exp(log / len(basis))
    errors = []
    for size in _batches(samples):
        x = rng.random((size, len(basis))) @ basis
        errors.append(np.sum((x - np.asarray(lattice.nearest(x))) ** 2, axis=1) / unit)
    return _estimate(np.concatenate(errors), quantile)


def measure_gap(lattice: Lattice, step: float, samples: int, seed: int = 0, confidence: float = 0.95) -> Estimate:
    """Bits per sample above the rate–distortion function of N(0, 1) of the lattice with ideal entropy coding.

    Vectors x of independent N(0, 1) go to the nearest point y of the scaled lattice, which is coded with the Gaussian
    model of `theta.log_partition` at its best scale and decoded as g y, with the best gain g: two numbers that
    are fitted to all samples. The rate is the length under the model, not an entropy of frequencies.

    Parameters
    ----------
    lattice : one with a closed partition function: Z, D, D_dual, E8, BW16 or Leech24
    step : side of the cube with the volume of a cell
    samples : number of vectors, at least 2
    seed : of the vectors
    confidence : of the interval, between 0 and 1

    Raises
    ------
    InvalidInputError : for too few samples, a negative seed, a step or a confidence out of range, or another lattice

    Examples
    --------
    >>> from lattq.lattices import E8
    >>> abs(measure_gap(E8, 0.5, 20_000).value - E8.space_filling_gap) < 0.003
    True
    """
    closed_series(lattice)
    samples, quantile, rng = _checked(samples, seed, confidence)
    step = as_float("step", step)
    if not 0 < step < math.inf:
        msg = f"`step` is {step}; pass a positive number"
        raise InvalidInputError(msg)
    n = lattice.dimension
    unit = step / lattice.volume ** (1 / n)
    moments = []
    for size in _batches(samples):
        x = rng.standard_normal((size, n))
        y = unit * lattice.nearest(x / unit)
        moments.append(np.stack([np.sum(a * b, axis=1) for a, b in ((x, x), (x, y), (y, y))]))
    power, cross, square = np.concatenate(moments, axis=1)
    if not np.any(square):
        msg = f"`step` is {step}: every vector goes to zero; pass a smaller one"
        raise InvalidInputError(msg)
    gain = cross.mean() / square.mean()
    error = power - 2 * gain * cross + gain**2 * square
    norm = square * (lattice.integer_scale / unit) ** 2
    scale = scale_of_norm(lattice, float(norm.mean()))
    rate = (float(log_partition(lattice, scale)) + norm / (2 * scale**2)) / (n * math.log(2))
    # To first order the gap is a mean over samples; gain and scale are at their optimum and add nothing.
    share = rate + (error / error.mean() - 1) / (2 * math.log(2)) + 0.5 * math.log2(error.mean() / n)
    # |x|² has a known mean; what the gap owes to its scatter is taken off.
    excess = power - n
    share = share - excess * np.mean(share * excess - share.mean() * excess) / np.mean(excess**2)
    return _estimate(share, quantile)


def _checked(samples: int, seed: int, confidence: float) -> tuple[int, float, np.random.Generator]:
    """Number of samples, half the width of an interval in standard errors, and what draws the samples."""
    confidence, rng = as_float("confidence", confidence), np.random.default_rng(as_seed(seed))
    count = as_integer("samples", samples)
    if count < 2:
        msg = f"`samples` is {count}; a standard error takes at least 2"
        raise InvalidInputError(msg)
    if not 0 < confidence < 1:
        msg = f"`confidence` is {confidence}; pass a number between 0 and 1, such as 0.95"
        raise InvalidInputError(msg)
    return count, float(ndtri((1 + confidence) / 2)), rng


def _batches(samples: int) -> Iterator[int]:
    """Sizes of batches."""
    return (min(BATCH, samples - start) for start in range(0, samples, BATCH))


def _estimate(values: np.ndarray, quantile: float) -> Estimate:
    """Mean and its error."""
    mean, error = float(values.mean()), float(values.std(ddof=1)) / math.sqrt(len(values))
    return Estimate(mean, error, (mean - quantile * error, mean + quantile * error))
