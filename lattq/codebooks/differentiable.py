"""Soft k-means of numbers: its fixed point, and the gradient through it without unrolling iterations.

A number takes a mixture of entries, with shares softmax(-(x - c)² / T), and entries are the means of what they share.
Shares depend on a number's value alone, so all tables have a row per different value: at most 65 536 for numbers of 16
bits, however many numbers there are. At the fixed point C = F(x, C) the implicit function theorem gives
dC/dx = (I - F_C)⁻¹ F_x, one small system.
"""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Float

from lattq._array import Array, from_host, require_finite, to_host
from lattq.codebooks.clustering import check_size, check_weights, finite_floats
from lattq.codebooks.kmeans_1d import Distinct, distinct, kmeans_1d
from lattq.errors import InvalidInputError

__all__ = ["SoftClustering", "soft_kmeans"]

_ROUNDS = 200


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
        share = _shares(self._values.values, self.centroids, self.temperature)
        return from_host((share @ self.centroids)[self._places], like=self._like)

    def assignment(self) -> np.ndarray:
        """Nearest entry of each number: what is left as the temperature falls to zero."""
        return np.abs(self._values.values[:, None] - self.centroids).argmin(axis=1).astype(np.int32)[self._places]

    def gradient(
        self, output: Float[Array, " n"], centroids: Float[Array, " size"] | None = None
    ) -> Float[Array, " n"]:
        """Gradient of a loss by the numbers, from those by the outputs and (if given) by the entries.

        The temperature counts as a constant.

        Raises
        ------
        InvalidInputError : if a gradient has another shape, or is not finite.
        """
        require_finite("output", output)
        upper = to_host(output).astype(np.float64)
        if upper.shape != self._places.shape:
            msg = f"`output` has shape {upper.shape}; there are {self._places.shape} numbers"
            raise InvalidInputError(msg)
        x, c = self._values.values[:, None], self.centroids
        share, slope = _shares(x[:, 0], c, self.temperature), 2.0 / self.temperature
        mixture = share @ c
        total = np.bincount(self._places, upper, len(x))
        by_entry = (total[:, None] * share * (1.0 + slope * (c - mixture[:, None]) * (x - c))).sum(axis=0)
        if centroids is not None:
            by_entry = by_entry + to_host(centroids)
        mass = self._values.weights @ share
        adjoint = np.linalg.solve(np.eye(len(c)) - _jacobian(self._values, c, self.temperature).T, by_entry) / mass
        through = (share * (1.0 + slope * (x - c) * (c - mixture[:, None]))) @ adjoint
        direct = slope * (share @ c**2 - mixture**2)
        found = direct[self._places] * upper
        found += through[self._places] * (1.0 if self._weights is None else self._weights)
        return from_host(found, like=self._like)


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

    References: Cho, Alizadeh Vahid, Adya and Rastegari 2022 (DKM); Cho et al. 2023 (eDKM: tables of distinct values).

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
    power = -((x[:, None] - c) ** 2) / temperature
    share = np.exp(power - power.max(axis=1, keepdims=True))
    return share / share.sum(axis=1, keepdims=True)


def _means(values: Distinct, c: np.ndarray, temperature: float) -> np.ndarray:
    """F(x, C); an entry without a share stays."""
    share = _shares(values.values, c, temperature) * values.weights[:, None]
    mass = share.sum(axis=0)
    offsets = np.einsum("ij,ij->j", share, values.values[:, None] - c)
    return c + np.divide(offsets, mass, out=np.zeros_like(c), where=mass > 0)


def _jacobian(values: Distinct, c: np.ndarray, temperature: float) -> np.ndarray:
    """F_C at a fixed point."""
    share, offset = _shares(values.values, c, temperature), values.values[:, None] - c
    left = share * offset * values.weights[:, None]
    right = share * offset * (2.0 / temperature)
    mass = values.weights @ share
    return (np.diag((left * offset).sum(axis=0) * (2.0 / temperature)) - left.T @ right) / mass[:, None]


def _fixed_point(values: Distinct, c: np.ndarray, temperature: float, tolerance: float) -> tuple[np.ndarray, float]:
    """Newton's method for F(x, C) = C, with a plain step wherever that does not bring it closer."""
    move = _means(values, c, temperature) - c
    for _ in range(_ROUNDS):
        if np.abs(move).max() <= tolerance:
            break
        step = np.linalg.lstsq(np.eye(len(c)) - _jacobian(values, c, temperature), move, rcond=None)[0]
        after = _means(values, c + step, temperature) - (c + step)
        if not np.abs(after).max() < np.abs(move).max():
            step = move
            after = _means(values, c + step, temperature) - (c + step)
        c, move = c + step, after
    return c, float(np.abs(move).max())
