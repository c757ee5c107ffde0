"""What the loop feeds back: from weights and second moment to a factor with its order."""

import dataclasses
import math
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float
from scipy.special import polygamma

from lattq._array import Array, array_namespace, from_host, require_finite, to_host
from lattq._options import as_float, as_integer, normalize
from lattq.errors import InvalidInputError, shown
from lattq.linalg.checks import check_block, with_diagonal
from lattq.linalg.ldl import LDL, unchecked_ldl
from lattq.linalg.single import single_ldl

__all__ = [
    "MMSE",
    "Beside",
    "Cholesky",
    "Feedback",
    "NoisyInputs",
    "OpenLoop",
    "beside",
    "check_options",
    "column_scale",
]

PART = 64  # rows whose squares fit a cache


@runtime_checkable
class Feedback(Protocol):
    """From weight and second moment to the factor that the loop uses. Encoder only."""

    def factor(self, weight: Array, sigma: np.ndarray) -> LDL:
        """Factor, order and penalty."""
        ...


class Beside(NamedTuple):
    """What a rule makes of a metric with outputs, before it is asked for the factor of the inputs.

    Attributes
    ----------
    weight : what the loop aims for
    outputs : blocks of the matrix whose factors feed errors along rows
    rule : for the inputs
    """

    weight: Array
    outputs: np.ndarray
    rule: Any


def beside(rule: Any, weight: Array, outputs: np.ndarray, sigma: np.ndarray) -> Beside:
    """What a rule makes of the outputs; those that do not say take G as it is.

    >>> beside(Cholesky(), np.ones((1, 1)), np.ones((1, 1, 1)), np.eye(1)).outputs
    array([[[1.]]])
    """
    own = getattr(rule, "beside", None)
    return Beside(weight, outputs, rule) if own is None else own(weight, outputs, sigma)


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

    def __post_init__(self) -> None:
        normalize(self, as_integer, "block")

    def beside(self, weight: Array, outputs: np.ndarray, sigma: np.ndarray) -> "Beside":
        """Nothing is fed along rows: the diagonal of G alone."""
        return Beside(weight, np.einsum("gii->gi", outputs).reshape(-1, 1, 1), self)

    def factor(self, weight: Array, sigma: np.ndarray) -> LDL:
        """The identity."""
        n = sigma.shape[0]
        check_block(self.block, n)
        if self.block == 1:
            return LDL(np.eye(n), np.diag(sigma).copy(), np.arange(n))
        blocks = np.stack([sigma[i : i + self.block, i : i + self.block] for i in range(0, n, self.block)])
        return LDL(np.eye(n), blocks, np.arange(n))


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
        check_options(self, "damping")

    def factor(self, weight: Array, sigma: np.ndarray) -> LDL:
        """The factor of the damped second moment."""
        added = self.damping * float(np.diag(sigma).mean())
        factor = _factor(sigma, added, ("damping", self.damping), weight, column_scale(weight), self)
        return factor if added else dataclasses.replace(factor, matrix=sigma)


@dataclasses.dataclass(frozen=True)
class MMSE:
    """Feedback that knows that columns reconstructed at low rate carry less than their weight.

    The loop on H = sigma + J, told that J is a penalty, minimises tr((W-Ŵ) sigma (W-Ŵ)ᵀ) + tr(Ŵ J Ŵᵀ) (theory 2.6).
    Here J is `ratio * noise` times the identity in coordinates where all columns have the same mean square.

    Parameters
    ----------
    noise : distortion of a column, squared error per weight: step² / 12 for a uniform quantizer
    ratio : 1 is what a white Gaussian codebook wants, flat from 0.8 to 1.3; with LMMSE gains on top, 0.3 to 0.5
    order, block : as in `Cholesky`

    Examples
    --------
    >>> factor = MMSE(noise=1.0, ratio=0.5).factor(np.ones((1, 1)), np.eye(1))
    >>> factor.pivots, factor.penalty
    (array([1.5]), array([0.5]))
    """

    noise: float
    ratio: float = 1.0
    order: str = "pivoted"
    block: int = 1

    def __post_init__(self) -> None:
        check_options(self, "noise", "ratio")

    def beside(self, weight: Array, outputs: np.ndarray, sigma: np.ndarray) -> "Beside":
        """G + J beside sigma + J': each side charged where the other has its mean (theory 15.7).

        The best weights for the rows are (G + J)⁻¹ G W, which the loop then aims for.
        """
        rows, columns = column_scale(np.swapaxes(to_host(weight), 0, 1)), column_scale(weight)
        columns = columns / math.sqrt(float(np.mean(columns**2)))
        weighed = float(np.mean(np.einsum("gii->gi", outputs).reshape(-1) * rows**2)) / float(np.mean(rows**2))
        excited = float(np.mean(np.diag(sigma) * columns**2))
        if not self.noise or not weighed > 0 or not excited > 0:
            return Beside(weight, outputs, self)
        penalty = (self.ratio * self.noise / excited / rows**2).reshape(outputs.shape[:2])
        charged = outputs + penalty[:, :, None] * np.eye(outputs.shape[1])
        host, eye = to_host(weight), np.eye(outputs.shape[1])
        taken = np.linalg.solve(charged, penalty[:, :, None] * eye).astype(host.dtype)
        best = host - np.matmul(taken, host.reshape(*penalty.shape, -1)).reshape(host.shape)
        return Beside(from_host(best, like=weight), charged, dataclasses.replace(self, noise=self.noise / weighed))

    def factor(self, weight: Array, sigma: np.ndarray) -> LDL:
        """The factor of H, with the penalty."""
        scale = column_scale(weight)
        with np.errstate(over="ignore", divide="ignore"):
            penalty = self.ratio * self.noise / scale**2
        return _penalized(sigma, penalty, weight, scale, self)


@dataclasses.dataclass(frozen=True)
class NoisyInputs:
    """Feedback for weights whose inputs are quantized too (QA-LDLQ of NestQuant).

    If x + z arrives, with z uncorrelated noise of covariance J, then E ‖W x - Ŵ (x + z)‖² is tr((W-Ŵ) sigma (W-Ŵ)ᵀ) +
    tr(Ŵ J Ŵᵀ), which the loop on sigma + J minimises (theory 2.6). J is white here, as a rotation makes it.

    Parameters
    ----------
    noise : mean square of z over that of x: 4^-R and a little more for inputs of R bits; NestQuant takes 1 / 155
    order, block : as in `Cholesky`

    References
    ----------
    Savkin, Porat, Ordentlich and Polyanskiy 2025 (NestQuant).

    Examples
    --------
    >>> NoisyInputs(noise=0.5).factor(np.ones((1, 2)), np.diag([1.0, 3.0])).penalty
    array([1., 1.])
    """

    noise: float
    order: str = "natural"
    block: int = 1

    def __post_init__(self) -> None:
        check_options(self, "noise")

    def factor(self, weight: Array, sigma: np.ndarray) -> LDL:
        """The factor of sigma + J, with the penalty."""
        penalty = np.full(len(sigma), self.noise * float(np.diag(sigma).mean()))
        return _penalized(sigma, penalty, weight, column_scale(weight), self)


def column_scale(weight: Array) -> Float[np.ndarray, " columns"]:
    """Root mean square of each column, at least 1 % of the whole matrix's (1 if the matrix is zero).

    Logarithms of mean squares are drawn together by the part of their scatter that so few rows explain: for r Gaussian
    numbers their variance is the trigamma function of r / 2.

    >>> column_scale(np.array([[3.0, 0.0]] * 1000)).round(3)
    array([3.   , 0.021])
    >>> column_scale(np.array([[3.0, 1.0]])).round(3)
    array([2.236, 2.236])
    """
    host = to_host(weight)
    peak = float(max(host.max(initial=0.0), -host.min(initial=0.0)))
    if not peak > 0:
        return np.ones(host.shape[1])
    power = np.zeros(host.shape[1])
    for start in range(0, len(host), PART):
        power += np.square(np.divide(host[start : start + PART], peak, dtype=np.float64)).sum(axis=0) / len(host)
    mean = power.mean()
    log = np.log(np.maximum(power / mean, 1e-4))
    scatter = float(log.var())
    shrink = max(0.0, 1 - float(polygamma(1, len(host) / 2)) / scatter) if scatter > 0 else 0.0
    shrunk = np.exp(log.mean() + shrink * (log - log.mean()))
    return peak * np.sqrt(mean * np.maximum(power / mean, 1e-4).mean() * shrunk / shrunk.mean())


def check_options(design: Any, *names: str) -> None:
    """Make options Python numbers; raise `InvalidInputError` unless those named are finite and not negative."""
    normalize(design, as_float, *names)
    normalize(design, as_integer, "block")
    for name in names:
        value = getattr(design, name)
        if not 0.0 <= value < np.inf:
            msg = f"`{name}` is {value}; pass a finite number, zero or above"
            raise InvalidInputError(msg)


def _penalized(
    sigma: np.ndarray, penalty: np.ndarray, weight: Array, scale: np.ndarray, design: MMSE | NoisyInputs
) -> LDL:
    """The factor of sigma + J, J the diagonal `penalty`."""
    factor = _factor(sigma, penalty, ("noise", design.noise), weight, scale, design)
    return dataclasses.replace(factor, penalty=penalty if penalty.any() else None, matrix=sigma)


def _factor(
    sigma: np.ndarray,
    added: Any,
    option: tuple[str, float],
    weight: Array,
    scale: np.ndarray,
    design: Cholesky | MMSE | NoisyInputs,
) -> LDL:
    """Factor of sigma with more on its diagonal, which an option asks for; without its matrix.

    The order is measured where every column has the same mean square. In float32 where weights are and that is enough.
    """
    block, pivoted = design.block, design.order == "pivoted"
    if pivoted and block == 1 and weight.dtype == array_namespace(weight).float32:
        factor = single_ldl(sigma, scale, added)
        if factor is not None:
            return factor
    h = with_diagonal(sigma, added, *option)
    if not pivoted:
        return dataclasses.replace(unchecked_ldl(h, _permutation(h, design.order, block), block), matrix=None)
    with np.errstate(over="ignore"):
        scaled = h * scale * scale[:, None]
    require_finite("sigma", scaled)
    return dataclasses.replace(unchecked_ldl(scaled, "pivoted", block).rescaled(1 / scale), matrix=None, scale=None)


def _permutation(h: np.ndarray, order: str, block: int) -> np.ndarray:
    """Columns of a block stay side by side where the order is not that of the data."""
    n = h.shape[0]
    if order == "natural":
        return np.arange(n)
    if order == "reversed":
        check_block(block, n)
        return np.arange(n).reshape(-1, block)[::-1].reshape(-1)
    if order == "sorted":  # coded from the last to the first, so the largest diagonal entry comes last
        return np.argsort(np.diag(h), kind="stable")
    msg = f'`order` is {shown(order)}; choose "natural", "reversed", "sorted" or "pivoted"'
    raise InvalidInputError(msg)
