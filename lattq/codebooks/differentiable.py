"""Soft k-means of numbers: its fixed point, and the gradient through it without unrolling iterations.

A number takes a mixture of entries, with shares softmax(-(x - c)² / T), and entries are the means of what they share.
Shares depend on a number's value alone, so all tables have a row per different value: at most 65 536 for numbers of 16
bits, however many numbers there are. At the fixed point C = F(x, C) the implicit function theorem gives
dC/dx = (I - F_C)⁻¹ F_x, one small system.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Float

from lattq._array import Array, from_host, host_reals, short_repr
from lattq.codebooks.clustering import check_size, check_weights, finite_floats
from lattq.codebooks.kmeans_1d import Distinct, distinct, kmeans_1d
from lattq.errors import InvalidInputError

__all__ = ["SoftClustering", "soft_kmeans"]

_ROUNDS = 200
_FLAT = 1e-6  # least curvature that a step counts on
_NOTHING = 1e-280  # a share too small to divide by
_TABLE = 1 << 16  # numbers in a table of shares: rows are taken in parts


@short_repr
@dataclasses.dataclass(frozen=True, eq=False)
class SoftClustering:
    """A fixed point of soft k-means.

    Attributes
    ----------
    centroids : entries, float64
    temperature : T, in squared units of the numbers
    residual : largest change that one more iteration would make to an entry

    Examples
    --------
    >>> found = soft_kmeans(np.array([0.0, 1.0, 5.0, 6.0]), 2)
    >>> found.output().round(4)
    array([0.5, 0.5, 5.5, 5.5])
    """

    centroids: Float[np.ndarray, " size"]
    temperature: float
    residual: float
    _values: Distinct
    _places: np.ndarray
    _weights: np.ndarray | None
    _like: Any

    def output(self) -> Float[Array, " n"]:
        """The mixture of entries of each number."""
        x, c = self._values.values, self.centroids
        mixture = np.concatenate([_shares(x[part], c, self.temperature) @ c for part in _parts(x, c)])
        return from_host(mixture[self._places], like=self._like)

    def assignment(self) -> np.ndarray:
        """Nearest entry of each number: what is left as the temperature falls to zero."""
        x, c = self._values.values, self.centroids
        cells = [np.abs(x[part, None] - c).argmin(axis=1) for part in _parts(x, c)]
        return np.concatenate(cells).astype(np.int32)[self._places]

    def gradient(
        self, output: Float[Array, " n"], centroids: Float[Array, " size"] | None = None
    ) -> Float[Array, " n"]:
        """Gradient of a loss by the numbers, from those by the outputs and (if given) by the entries.

        The temperature counts as a constant.

        Raises
        ------
        InvalidInputError : if a gradient has another shape, or is not finite.
        """
        upper = host_reals("output", output)
        by_entry = None if centroids is None else host_reals("centroids", centroids)
        direct, through = self.gradient_parts(upper, by_entry)
        return from_host(direct * upper + through * (1.0 if self._weights is None else self._weights), like=self._like)

    def gradient_parts(
        self, output: Float[np.ndarray, " n"], centroids: Float[np.ndarray, " size"] | None = None
    ) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
        """The two parts of `gradient` on the host: a number's own share in its output, and what moves entries.

        The gradient is the first times `output`, plus the second times the weights. If a number stands for several
        equal ones, its weight being how many, then `output` takes the sum of their gradients; each of them gets the
        first part times its own gradient, plus the second.

        Raises
        ------
        InvalidInputError : if a gradient has another shape. What is not finite spreads.
        """
        for name, found, shape in (
            ("output", output, self._places.shape),
            ("centroids", centroids, self.centroids.shape),
        ):
            if found is not None and found.shape != shape:
                msg = f"`{name}` has shape {found.shape}; there are {shape} numbers"
                raise InvalidInputError(msg)
        c, slope, values = self.centroids, 2.0 / self.temperature, self._values.values
        total = np.bincount(self._places, output, len(values))
        by_entry = np.zeros(len(c)) if centroids is None else centroids.astype(np.float64)  # a copy
        direct, through = np.empty(len(values)), np.empty(len(values))
        for part in _parts(values, c):
            share, spread = self._spread(part)
            direct[part] = slope * (share * spread**2).sum(axis=1)
            by_entry += total[part] @ (share * (1.0 + slope * spread * (values[part, None] - c)))
        sums = _Sums.of(self._values, c, self.temperature)
        adjoint = np.linalg.solve(np.eye(len(c)) - sums.jacobian.T, by_entry)
        adjoint = np.divide(adjoint, sums.mass, out=np.zeros_like(c), where=sums.mass > _NOTHING)
        for part in _parts(values, c):
            share, spread = self._spread(part)
            through[part] = (share * (1.0 + slope * spread * (values[part, None] - c))) @ adjoint
        return direct[self._places], through[self._places]

    def _spread(self, part: slice) -> tuple[np.ndarray, np.ndarray]:
        """Shares of some values, and how far each entry is from their mixture."""
        share = _shares(self._values.values[part], self.centroids, self.temperature)
        return share, self.centroids - (share @ self.centroids)[:, None]


def soft_kmeans(
    x: Float[Array, " n"],
    size: int,
    weights: Float[Array, " n"] | None = None,
    *,
    softness: float = 0.05,
    temperature: float | None = None,
    start: Float[Array, " size"] | None = None,
    tolerance: float = 1e-12,
) -> SoftClustering:
    """The fixed point of soft k-means next to the best codebook.

    Parameters
    ----------
    x : numbers
    size : entries
    weights : of numbers, above zero; 1 if not given
    softness : T over the squared width of a cell, the mean gap between entries of the start; so it means the same at
        every scale. Halfway between two entries the slope of the output is 1 / (2 softness).
    temperature : T itself, instead
    start : first entries; those of `kmeans_1d` if not given
    tolerance : stop when entries move by less than this share of the range of `x`

    Raises
    ------
    InvalidInputError : if a number is not finite, a weight not positive, the temperature not positive, or `size` above
        the number of distinct values.

    References
    ----------
    Cho, Alizadeh Vahid, Adya and Rastegari 2022 (DKM); Cho et al. 2023 (eDKM: tables of distinct values).

    Examples
    --------
    >>> found = soft_kmeans(np.array([0.0, 1.0, 2.0, 5.0, 6.0]), 2, softness=0.2)
    >>> found.centroids.round(4), found.gradient(np.eye(5)[1]).round(3)
    (array([1.0063, 5.3572]), array([ 0.364,  0.446,  0.292, -0.073, -0.029]))
    """
    host = finite_floats("x", x)
    mass = None if weights is None else check_weights(weights, host.shape)
    values = distinct(host, mass)
    check_size("size", size, len(np.unique(values.values)), "distinct values")
    first = kmeans_1d(host, size, mass).centroids if start is None else finite_floats("start", start).astype(np.float64)
    if first.shape != (size,):
        msg = f"`start` has shape {first.shape}; there are {size} entries"
        raise InvalidInputError(msg)
    span = float(np.ptp(values.values))
    width = float(np.ptp(first)) / (size - 1) if size > 1 else span or 1.0
    heat = softness * width**2 if temperature is None else temperature
    if not 0 < heat < np.inf:
        msg = f"`softness` is {softness} and `temperature` {temperature}; both must be finite and above zero"
        raise InvalidInputError(msg)
    entries, residual = _fixed_point(values, first, heat, tolerance * span)
    places = values.cells(host, np.arange(len(values.values)))
    return SoftClustering(entries, float(heat), residual, values, places, mass, x)


def _shares(x: np.ndarray, c: np.ndarray, temperature: float) -> np.ndarray:
    """Share of each entry in each value; rows sum to 1."""
    return _shares_and_energies(x, c, temperature)[0]


def _shares_and_energies(x: np.ndarray, c: np.ndarray, temperature: float) -> tuple[np.ndarray, np.ndarray]:
    """Also -T log Σ exp(-(x - c)² / T) of each value, whose sum falls until entries are at a fixed point."""
    power = (x[:, None] - c) ** 2 / -temperature
    top = power.max(axis=1, keepdims=True)
    power -= top
    share = np.exp(power, out=power)
    total = share.sum(axis=1, keepdims=True)
    share /= total
    return share, -temperature * (top + np.log(total))[:, 0]


def _parts(values: np.ndarray, c: np.ndarray) -> Iterator[slice]:
    """Rows of a few at a time: no table has all values at once."""
    rows = max(1, _TABLE // len(c))
    yield from (slice(low, low + rows) for low in range(0, len(values), rows))


@short_repr
@dataclasses.dataclass(frozen=True, eq=False)
class _Sums:
    """`move` is F(x, C) - C, where an entry without a share stays; `jacobian` is F_C at a fixed point.

    The gradient of the energy by C is -2 mass move, and its Hessian at a fixed point 2 mass (I - F_C).
    """

    mass: np.ndarray
    move: np.ndarray
    jacobian: np.ndarray
    energy: float

    @staticmethod
    def of(values: Distinct, c: np.ndarray, temperature: float) -> "_Sums":
        mass, first, second, mixed = (np.zeros(shape) for shape in (len(c), len(c), len(c), (len(c), len(c))))
        energy = 0.0
        for part in _parts(values.values, c):
            share, energies = _shares_and_energies(values.values[part], c, temperature)
            energy += float(values.weights[part] @ energies)
            offset = values.values[part, None] - c
            weighted = share * values.weights[part, None]
            mass += weighted.sum(axis=0)
            weighted *= offset
            first += weighted.sum(axis=0)
            second += np.einsum("ij,ij->j", weighted, offset)
            share *= offset
            mixed += weighted.T @ share
        inverse = np.divide(1.0, mass, out=np.zeros_like(c), where=mass > _NOTHING)
        jacobian = (np.diag(second) - mixed) * (2.0 / temperature) * inverse[:, None]
        return _Sums(mass, first * inverse, jacobian, energy)

    @property
    def largest(self) -> float:
        """Largest move of an entry."""
        return float(np.abs(self.move).max())

    def newton(self) -> np.ndarray:
        """Newton's step, turned downhill where the energy curves down; F_C is symmetric in the metric of the masses."""
        root = np.sqrt(self.mass)
        inverse = np.divide(1.0, root, out=np.zeros_like(root), where=self.mass > _NOTHING)
        symmetric = root[:, None] * self.jacobian * inverse
        eigenvalues, basis = np.linalg.eigh((symmetric + symmetric.T) / 2)
        curvature = np.maximum(np.abs(1.0 - eigenvalues), _FLAT)
        return inverse * (basis @ (basis.T @ (root * self.move) / curvature))

    def lower(self, before: "_Sums", step: np.ndarray, rounding: float) -> bool:
        """Whether the step was worth it: a share of the fall that the slope promised, or smaller moves at the end."""
        promised = 2.0 * float(before.mass * before.move @ step)
        if promised <= rounding:
            return self.energy <= before.energy + rounding and self.largest < before.largest
        return self.energy <= before.energy - 0.1 * promised


def _fixed_point(values: Distinct, c: np.ndarray, temperature: float, tolerance: float) -> tuple[np.ndarray, float]:
    """Newton's method for F(x, C) = C, downhill all the way: half of a step that is too long, or the plain step."""
    here = _Sums.of(values, c, temperature)
    total = temperature * values.weights.sum() * (1.0 + np.log(len(c)))
    rounding = 1e-14 * float(abs(here.energy) + total)
    for _ in range(_ROUNDS):
        if here.largest <= tolerance:
            break
        newton = here.newton()
        for step in (newton, newton / 2, newton / 8, newton / 64, here.move):
            there = np.clip(c + step, values.values[0], values.values[-1])  # means are in the range
            after = _Sums.of(values, there, temperature)
            if after.lower(here, there - c, rounding):
                break
        else:  # the plain step never climbs, but an entry with hardly a share does not show in the energy
            if here.largest <= 1000 * tolerance or after.energy > here.energy + rounding:
                break
        c, here = there, after
    return c, here.largest
