"""What the loop feeds back: from weights and second moment to a factor with its order, and to the loop's target."""

import dataclasses
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float
from scipy.linalg import get_lapack_funcs

from lattq._array import Array, array_namespace, from_host, to_host
from lattq.errors import InvalidInputError
from lattq.linalg import LDL, ldl

__all__ = ["MMSE", "Cholesky", "Feedback", "OpenLoop", "column_scale"]

MIRROR_BLOCK = 128

(dpotri,) = get_lapack_funcs(("potri",), dtype=np.float64)


@runtime_checkable
class Feedback(Protocol):
    """From weight and second moment to the factor that the loop uses, and to its target. Encoder only."""

    def factor(self, weight: Array, sigma: np.ndarray) -> LDL:
        """Factor and order."""
        ...

    def target(self, weight: Array, sigma: np.ndarray, factor: LDL) -> Array:
        """What the loop approximates, shape of `weight`."""
        ...


@dataclasses.dataclass(frozen=True)
class OpenLoop:
    """No feedback: U = I, pivots are the diagonal of sigma, or its diagonal blocks.

    Parameters
    ----------
    block : columns quantized together

    Examples
    --------
    >>> OpenLoop().factor(np.ones((1, 2)), np.eye(2)).unit
    array([[1., 0.],
           [0., 1.]])
    """

    block: int = 1

    def factor(self, weight: Array, sigma: np.ndarray) -> LDL:
        """The identity."""
        n = sigma.shape[0]
        if self.block < 1 or n % self.block:
            msg = f"`block` is {self.block}, which does not divide the {n} columns of `sigma`; choose a divisor"
            raise InvalidInputError(msg)
        if self.block == 1:
            return LDL(np.eye(n), np.diag(sigma).copy(), np.arange(n))
        blocks = np.stack([sigma[i : i + self.block, i : i + self.block] for i in range(0, n, self.block)])
        return LDL(np.eye(n), blocks, np.arange(n))

    def target(self, weight: Array, sigma: np.ndarray, factor: LDL) -> Array:
        """The weight itself."""
        return weight


@dataclasses.dataclass(frozen=True)
class Cholesky:
    """Feedback through the factor of sigma, or of a damped sigma.

    Parameters
    ----------
    order : columns are coded from the last to the first of this order: "natural"; "reversed" (codes column 0 first, as
        GPTQ does); "sorted" (largest diagonal entry coded first, GPTQ's act-order); "pivoted" (the most predictable
        column is coded first, prediction measured relative to each column's mean square)
    damping : this fraction of the mean diagonal is added to the diagonal of the factor only
    block : columns quantized together; pivots are then block x block matrices

    Examples
    --------
    >>> Cholesky().factor(np.ones((1, 2)), np.array([[2.0, 1.0], [1.0, 2.0]])).pivots
    array([2. , 1.5])
    """

    order: str = "natural"
    damping: float = 0.0
    block: int = 1

    def __post_init__(self) -> None:
        _require_not_negative("damping", self.damping)

    def factor(self, weight: Array, sigma: np.ndarray) -> LDL:
        """The factor of the damped second moment."""
        damped = sigma + self.damping * np.diag(sigma).mean() * np.eye(sigma.shape[0])
        return _factor(damped, column_scale(weight), self.order, self.block)

    def target(self, weight: Array, sigma: np.ndarray, factor: LDL) -> Array:
        """The weight itself."""
        return weight


@dataclasses.dataclass(frozen=True)
class MMSE:
    """Feedback that knows that columns reconstructed at low rate carry less than their weight.

    With H = sigma + J and target W sigma H⁻¹, the loop on H minimises tr((W-Ŵ) sigma (W-Ŵ)ᵀ) + tr(Ŵ J Ŵᵀ) (theory 2.4).
    Here J is `ratio * noise` times the identity in coordinates where all columns have the same mean square.

    Parameters
    ----------
    noise : distortion of a column, squared error per weight: step² / 12 for a uniform quantizer
    ratio : 1 is what a white Gaussian codebook wants, flat from 0.8 to 1.3; with LMMSE gains on top, 0.3 to 0.5
    order, block : as in `Cholesky`

    Examples
    --------
    >>> feedback, weight, sigma = MMSE(noise=1.0, ratio=0.5), np.ones((1, 1)), np.eye(1)
    >>> feedback.target(weight, sigma, feedback.factor(weight, sigma))
    array([[0.66666667]])
    """

    noise: float
    ratio: float = 1.0
    order: str = "pivoted"
    block: int = 1

    def __post_init__(self) -> None:
        _require_not_negative("noise", self.noise)
        _require_not_negative("ratio", self.ratio)

    def factor(self, weight: Array, sigma: np.ndarray) -> LDL:
        """The factor of H."""
        scale = column_scale(weight)
        return _factor(sigma + np.diag(self._penalty(scale)), scale, self.order, self.block)

    def target(self, weight: Array, sigma: np.ndarray, factor: LDL) -> Array:
        """W sigma H⁻¹ = W (I - J H⁻¹)."""
        if self.ratio == 0:
            return weight
        xp = array_namespace(weight)
        penalty = self._penalty(column_scale(weight))
        inverse = np.linalg.inv(sigma + np.diag(penalty)) if self.block > 1 else _inverse(factor)
        correction = penalty[:, None] * inverse
        return weight - xp.matmul(weight, xp.astype(from_host(correction, like=weight), weight.dtype))

    def _penalty(self, scale: np.ndarray) -> np.ndarray:
        return self.ratio * self.noise / scale**2


def column_scale(weight: Array) -> Float[np.ndarray, " columns"]:
    """Root mean square of each column, at least 1 % of the whole matrix's (1 if the matrix is zero).

    >>> column_scale(np.array([[3.0, 0.0], [3.0, 0.0]])).round(3)
    array([3.   , 0.021])
    """
    power = np.mean(np.square(to_host(weight), dtype=np.float64), axis=0)
    mean = power.mean()
    return np.sqrt(np.maximum(power, 1e-4 * mean)) if mean > 0 else np.ones(power.shape)


def _require_not_negative(name: str, value: float) -> None:
    if not 0.0 <= value < np.inf:
        msg = f"`{name}` is {value}; pass a finite number, zero or above"
        raise InvalidInputError(msg)


def _factor(h: np.ndarray, scale: np.ndarray, order: str, block: int) -> LDL:
    """Factor with the order measured where every column has the same mean square."""
    if order != "pivoted":
        return ldl(h, order=_permutation(h, order), block=block)
    return ldl(scale[:, None] * h * scale, order="pivoted", block=block).rescaled(1 / scale)


def _inverse(factor: LDL) -> np.ndarray:
    """H⁻¹ in the original column order, from the scalar factor of a definite H."""
    inverse, _ = dpotri(factor.unit * np.sqrt(factor.pivots), lower=1)
    for start in range(0, len(inverse), MIRROR_BLOCK):  # in blocks that a cache holds
        part = slice(start, start + MIRROR_BLOCK)
        inverse[:start, part] = inverse[part, :start].T
        inverse[part, part] = np.tril(inverse[part, part]) + np.tril(inverse[part, part], -1).T
    found = np.empty_like(inverse)
    found[np.ix_(factor.order, factor.order)] = inverse
    return found


def _permutation(h: np.ndarray, order: str) -> np.ndarray:
    n = h.shape[0]
    if order == "natural":
        return np.arange(n)
    if order == "reversed":
        return np.arange(n)[::-1].copy()
    if order == "sorted":  # coded from the last to the first, so the largest diagonal entry comes last
        return np.argsort(np.diag(h), kind="stable")
    msg = f'`order` is {order!r}; choose "natural", "reversed", "sorted" or "pivoted"'
    raise InvalidInputError(msg)
