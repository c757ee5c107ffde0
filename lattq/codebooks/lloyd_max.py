"""Scalar quantizers with the least squared error for a density, by Lloyd's two conditions, and their high-rate limit.

A level is the mean of its cell and a threshold lies midway between two levels. Newton's method solves both at once: a
level depends on its neighbours only, so each step is one tridiagonal system. Integrals are Gauss sums on panels that
thresholds cut further.
"""

import dataclasses
import functools
import math
from collections.abc import Callable

import numpy as np
from scipy.linalg import solve_banded

from lattq._array import short_repr
from lattq.codebooks.clustering import at_least_one
from lattq.errors import InvalidInputError

__all__ = ["GAUSSIAN", "LAPLACIAN", "UNIFORM", "Density", "ScalarQuantizer", "lloyd_max", "panter_dite"]

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(12)


@short_repr
@dataclasses.dataclass(frozen=True, eq=False)
class Density:
    """A probability density on an interval; it need not be normalised.

    Attributes
    ----------
    pdf : of arrays of numbers
    low, high : its support; infinite ends are fine where tails have a second moment
    breaks : where the density is not smooth
    scale : about the width of the density, where the support is infinite; panels are dense around `center`
    center : about its middle

    Raises
    ------
    InvalidInputError : if the support is empty, or the density negative or without mass.

    Examples
    --------
    >>> triangle = Density(lambda x: 1.0 - abs(x), -1.0, 1.0, breaks=(0.0,))
    >>> round(triangle.variance, 12)
    0.166666666667
    """

    pdf: Callable[[np.ndarray], np.ndarray]
    low: float = -math.inf
    high: float = math.inf
    breaks: tuple[float, ...] = ()
    scale: float = 1.0
    center: float = 0.0

    def __post_init__(self) -> None:
        if not self.low < self.high or not 0 < self.scale < math.inf:
            msg = f"a density on {self.low} to {self.high} of scale {self.scale}; give an interval and a positive width"
            raise InvalidInputError(msg)
        values = self._on(self.mesh)[1]
        if not values.min() >= 0 or not 0 < self.mass < math.inf:
            msg = f"the density has values from {values.min():.3g}, mass {self.mass:.3g}; none may be negative"
            raise InvalidInputError(msg)

    @functools.cached_property
    def mesh(self) -> np.ndarray:
        """Ends of panels: equal ones on a bounded support, else fine in the middle and wider outside."""
        if math.isfinite(self.low) and math.isfinite(self.high):
            ends = np.linspace(self.low, self.high, 257)
        else:
            ends = self.center + self.scale * np.sinh(np.arange(-300, 301) / 16)
            inside = ends[(ends > self.low) & (ends < self.high)]
            ends = np.concatenate([[end for end in (self.low,) if math.isfinite(end)], inside])
            ends = np.append(ends, self.high) if math.isfinite(self.high) else ends
        return np.union1d(ends, [b for b in self.breaks if self.low < b < self.high])

    @functools.cached_property
    def mass(self) -> float:
        """Integral of `pdf`."""
        return float(self.integral(lambda x, f: f))

    @functools.cached_property
    def mean(self) -> float:
        """Mean."""
        return self.integral(lambda x, f: (x - self.center) * f) / self.mass + self.center

    @functools.cached_property
    def variance(self) -> float:
        """Variance."""
        return self.integral(lambda x, f: (x - self.mean) ** 2 * f) / self.mass

    def integral(self, function: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> float:
        """Integral of a function of x and pdf(x)."""
        x, values, weights = self._on(self.mesh)
        return float(np.sum(weights * function(x, values)))

    def _on(self, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Nodes of each panel, densities there, and weights; shape (panels, nodes)."""
        widths = np.diff(ends)[:, None] / 2
        x = ends[:-1, None] + widths * (_NODES + 1)
        return x, np.asarray(self.pdf(x), dtype=float) * np.ones_like(x), widths * _WEIGHTS

    def cells(self, thresholds: np.ndarray, levels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Probability, mean and squared error around its level, of each cell between thresholds."""
        ends = np.union1d(self.mesh, thresholds)
        x, values, weights = self._on(ends)
        starts = np.concatenate([[0], np.searchsorted(ends, thresholds)])
        offset = x - np.repeat(levels, np.diff(starts, append=len(ends) - 1))[:, None]
        shares = weights * values / self.mass
        mass, moment, error = (np.add.reduceat((shares * offset**power).sum(axis=1), starts) for power in (0, 1, 2))
        return mass, levels + moment / np.maximum(mass, 1e-300), error


def _standard_normal(x: np.ndarray) -> np.ndarray:
    return np.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)


def _laplace(x: np.ndarray) -> np.ndarray:
    return np.exp(-math.sqrt(2.0) * np.abs(x)) / math.sqrt(2.0)


def _flat(x: np.ndarray) -> np.ndarray:
    return np.full_like(x, 1 / math.sqrt(12.0))


GAUSSIAN = Density(_standard_normal)
"""The standard normal density."""
LAPLACIAN = Density(_laplace, breaks=(0.0,))
"""The Laplace density of variance 1."""
UNIFORM = Density(_flat, -math.sqrt(3.0), math.sqrt(3.0))
"""The uniform density of mean 0 and variance 1."""


@short_repr
@dataclasses.dataclass(frozen=True, eq=False)
class ScalarQuantizer:
    """Levels and thresholds of a quantizer, with what they cost.

    Attributes
    ----------
    levels : outputs, ascending
    thresholds : between cells, one fewer
    distortion : squared error per number
    entropy : of the index, bits per number

    Examples
    --------
    >>> lloyd_max(2).encode(np.array([-0.1, 3.0]))
    array([0, 1])
    """

    levels: np.ndarray
    thresholds: np.ndarray
    distortion: float
    entropy: float

    def encode(self, x: np.ndarray) -> np.ndarray:
        """Index of the nearest level."""
        return np.searchsorted(self.thresholds, x)

    def decode(self, indices: np.ndarray) -> np.ndarray:
        """Levels."""
        return self.levels[indices]


def lloyd_max(size: int, density: Density = GAUSSIAN) -> ScalarQuantizer:
    """Return the quantizer of `size` levels with the least squared error for a density.

    For log-concave densities (all three named here) the two conditions have one solution, the optimum; for others it is
    a stationary one near that of `panter_dite`.

    Parameters
    ----------
    size : levels
    density : of the numbers; standard normal if not given

    Raises
    ------
    InvalidInputError : if `size` is below 1, or Newton's method finds no quantizer with as many cells.

    References
    ----------
    Max 1960; Lloyd 1982; Fleischer 1964 (uniqueness).

    Examples
    --------
    >>> found = lloyd_max(4)
    >>> found.levels.round(6), round(found.distortion, 8), round(found.entropy, 4)
    (array([-1.510418, -0.45278 ,  0.45278 ,  1.510418]), 0.11748185, 1.9111)
    """
    size = at_least_one("size", size)
    levels = _companded(size, density)
    width = math.sqrt(density.variance)
    for _ in range(20):
        levels = density.cells(_midpoints(levels), levels)[1]
    for _ in range(100):
        move, wrong = _newton(levels, density)
        while np.any(np.diff(levels - move) <= 0):
            move = move / 2
        levels = levels - move
        close = np.abs(move) <= 1e-10 * (width + np.abs(levels))  # the next step would be its square
        if close.all() or wrong <= 1e-14 * width:
            break
    else:
        msg = f"no quantizer of {size} levels found for this density; is it smooth between its `breaks`?"
        raise InvalidInputError(msg)
    mass, _, error = density.cells(_midpoints(levels), levels)
    entropy = -float(mass @ np.log2(mass, where=mass > 0, out=np.zeros_like(mass)))
    return ScalarQuantizer(levels, _midpoints(levels), float(error.sum()), max(entropy, 0.0))


def panter_dite(density: Density = GAUSSIAN) -> float:
    """Return (∫ f^(1/3))³ / 12: with N levels the least squared error tends to this over N².

    Raises
    ------
    InvalidInputError : if the integral does not exist.

    References
    ----------
    Panter and Dite 1951.

    Examples
    --------
    >>> round(panter_dite() / (math.sqrt(3) * math.pi / 2), 10), round(panter_dite(LAPLACIAN), 10)
    (1.0, 4.5)
    """
    return density.integral(lambda x, f: np.cbrt(f / density.mass)) ** 3 / 12


def _midpoints(levels: np.ndarray) -> np.ndarray:
    return (levels[1:] + levels[:-1]) / 2


def _companded(size: int, density: Density) -> np.ndarray:
    """Quantiles of the density proportional to f^(1/3), that of levels at high rate."""
    x, values, weights = density._on(density.mesh)
    shares = (weights * np.cbrt(values)).ravel()
    running = np.cumsum(shares) - shares / 2  # as much to the left of a node as to the right: symmetry stays
    return np.interp((np.arange(size) + 0.5) / size * shares.sum(), running, x.ravel())


def _newton(levels: np.ndarray, density: Density) -> tuple[np.ndarray, float]:
    """Step of Newton's method for levels minus means of cells, and the largest of these."""
    thresholds = _midpoints(levels)
    mass, means, _ = density.cells(thresholds, levels)
    at = np.asarray(density.pdf(thresholds), dtype=float) / density.mass
    upper = at * (thresholds - means[:-1]) / (2 * mass[:-1])  # half of what a threshold does to the mean below it
    lower = at * (means[1:] - thresholds) / (2 * mass[1:])
    bands = np.zeros((3, len(levels)))
    bands[1] = 1 - np.append(upper, 0) - np.append(0, lower)
    bands[0, 1:], bands[2, :-1] = -upper, -lower
    return solve_banded((1, 1), bands, levels - means), float(np.abs(levels - means).max())
