"""Scheme, and the three verbs: quantize, refit, at_rate."""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.linalg import solve
from threadpoolctl import threadpool_limits

from lattq import transforms
from lattq._array import Array, array_namespace, require_finite, to_host
from lattq.coding import FixedLength, TwoWay, encode_integers
from lattq.errors import InvalidInputError
from lattq.feedback import GAIN_GRID, Cholesky, Feedback, successive_cancellation
from lattq.linalg import check_second_moment
from lattq.quantized import Quantized
from lattq.quantizers import Design, Uniform, UniformQuantizer

__all__ = ["Scheme", "quantize", "refit"]

REFIT_ROUNDS = 2  # of alternating least squares; a third moves no gain


@dataclasses.dataclass(frozen=True)
class Scheme:
    """How to quantize: transform x feedback x quantizer design x coder. Frozen, printable, comparable.

    Parameters
    ----------
    transform : design of the change of input coordinates
    feedback : what the loop feeds back, and in which order
    quantizer : design of the quantizer
    equalize : design of the diagonal that makes the pivots of the feedback equal; None leaves them as they are
    coder : integers to bytes; None takes `FixedLength` for finite quantizers and `TwoWay` for unbounded ones
    sweeps : passes of coordinate descent after the loop (see `successive_cancellation`)
    refit : re-estimate the reconstruction once the codes are known

    Examples
    --------
    >>> Scheme(quantizer=Uniform(0.5)) == Scheme(quantizer=Uniform(0.5))
    True
    """

    transform: transforms.TransformDesign = dataclasses.field(default_factory=transforms.Identity)
    feedback: Feedback = dataclasses.field(default_factory=Cholesky)
    quantizer: Design = dataclasses.field(default_factory=Uniform)
    coder: Any = None
    equalize: transforms.Equalize | None = None
    sweeps: int = 0
    refit: bool = False


def quantize(weight: Float[Array, "rows columns"], sigma: Float[Array, "columns columns"], scheme: Scheme) -> Quantized:
    """Quantize a weight matrix whose inputs have second moment `sigma`.

    Parameters
    ----------
    weight : any array library; the loop runs there, in its dtype (float32 at least)
    sigma : E[x xᵀ], symmetric positive semidefinite; singular is legal
    scheme : see `Scheme` and `lattq.recipes`

    Raises
    ------
    InvalidInputError : NaN, wrong shapes, codes that overflow
    NotPositiveSemidefiniteError : a negative pivot, named

    Examples
    --------
    >>> import lattq as lq
    >>> lq.quantize(np.eye(2), np.eye(2), lq.recipes.rtn(levels=3)).dequantize()
    array([[1., 0.],
           [0., 1.]], dtype=float32)
    """
    weight, moment = checked(weight, sigma)
    with threadpool_limits(1):  # sums in one order: the same bytes whatever the number of threads
        transform = scheme.transform(weight, moment)
        changed, second = transform.forward(weight), transform.congruence(moment)
        factor = scheme.feedback.factor(changed, second)
        target = scheme.feedback.target(changed, second, factor)
        if scheme.equalize:
            diagonal = scheme.equalize(factor)
            transform, target = transforms.append(transform, diagonal), diagonal.forward(target)
            factor = factor.rescaled(1 / diagonal.scale)
        result = successive_cancellation(target, factor, scheme.quantizer, sweeps=scheme.sweeps)
        quantizer = _concatenate(result.quantizers, scheme.quantizer, weight.shape[1])
        found = Quantized(
            codes=to_host(result.codes),
            quantizer=quantizer,
            transform=transform,
            coder=scheme.coder or _default_coder(result.quantizers[0]),
            column_gains=result.gains if (result.gains != GAIN_GRID).any() else None,
            stats={
                "overload": result.overload, "underflow": quantizer.underflow(), "idle_columns": result.idle,
            },
        )
        return _refit(found, weight, moment) if scheme.refit else found


def refit(
    quantized: Quantized, weight: Float[Array, "rows columns"], sigma: Float[Array, "columns columns"]
) -> Quantized:
    """Re-estimate column and row gains with the codes frozen, by alternating least squares on the true loss.

    Gains are rounded to 1/128 and charged. Column gains are kept if the distortion falls, row gains if it falls by more
    than their bytes are worth (a bit per weight is a factor 4). The entropy model stays, so streams stay decodable.

    Raises
    ------
    InvalidInputError : if the shapes differ from the codes'

    Examples
    --------
    >>> import lattq as lq
    >>> weight = np.random.default_rng(0).normal(size=(64, 8))
    >>> rough = lq.quantize(weight, np.eye(8), lq.Scheme(quantizer=lq.quantizers.Uniform(2.0)))
    >>> lq.refit(rough, weight, np.eye(8)).distortion(weight, np.eye(8)) < rough.distortion(weight, np.eye(8))
    True
    """
    weight, moment = checked(weight, sigma)
    if tuple(weight.shape) != quantized.shape:
        msg = f"`weight` has shape {tuple(weight.shape)}, the quantized matrix {quantized.shape}; they must agree"
        raise InvalidInputError(msg)
    with threadpool_limits(1):
        return _refit(quantized, weight, moment)


def _refit(quantized: Quantized, weight: Array, moment: np.ndarray) -> Quantized:
    """Alternate between column gains g and row gains t of Ŵ = diag(t) Z diag(g), in the transform's coordinates."""
    s = quantized.transform.congruence(moment)
    w = quantized.transform.forward(to_host(weight).astype(np.float64))
    z = quantized.quantizer.decode(quantized.codes)
    ws = w @ s
    power = float(np.sum(ws * w))
    t, g = _gains(quantized.row_gains, len(w)), _gains(quantized.column_gains, len(s))
    loss, kept = power - _fit_rows(z * g, s, ws, t)[1], 0
    for _ in range(REFIT_ROUNDS):
        new_g, saved = _fit_columns(z * t[:, None], s, ws, g)
        new_t, saved_by_rows = _fit_rows(z * new_g, s, ws, t, move=True)
        bits = (_side_bits(new_t) - _side_bits(t)) / z.size
        if power - saved_by_rows > (power - saved) * 4.0 ** -max(bits, 0.0):
            new_t, saved_by_rows = t, saved
        if not power - saved_by_rows < loss:
            break
        t, g, loss, kept = new_t, new_g, power - saved_by_rows, kept + 1
    stats = {**quantized.stats, "refits": kept}
    return dataclasses.replace(quantized, row_gains=_integers(t), column_gains=_integers(g), stats=stats)


def _fit_columns(z: np.ndarray, s: np.ndarray, ws: np.ndarray, g: np.ndarray) -> tuple[np.ndarray, float]:
    """argmin over g: (Σ ∘ ZᵀZ) g = diag(Zᵀ W Σ), rounded, and by how much it lowers tr(W Σ Wᵀ).

    Columns without codes keep their gain. Two columns may carry the same codes, hence the ridge.
    """
    normal, right = s * (z.T @ z), np.sum(z * ws, axis=0)
    live = np.diag(normal) > 0
    found = g.copy()
    if live.any():
        matrix = normal[np.ix_(live, live)]
        matrix[np.diag_indices_from(matrix)] += 1e-9 * np.mean(np.diag(matrix))
        found[live] = solve(matrix, right[live], assume_a="pos")
    found = _rounded(found)
    return found, float(2 * right @ found - found @ normal @ found)


def _fit_rows(
    z: np.ndarray, s: np.ndarray, ws: np.ndarray, t: np.ndarray, *, move: bool = False
) -> tuple[np.ndarray, float]:
    """argmin over t, row by row and rounded (or t as it is), and by how much it lowers tr(W Σ Wᵀ)."""
    normal, right = np.sum((z @ s) * z, axis=1), np.sum(ws * z, axis=1)
    if move:
        t = _rounded(np.where(normal > 0, right / np.where(normal > 0, normal, 1.0), t))
    return t, float(2 * right @ t - t**2 @ normal)


def _side_bits(gains: np.ndarray) -> float:
    integers = _integers(gains)
    return 0.0 if integers is None else 8.0 * len(encode_integers(integers)[2])


def _gains(stored: np.ndarray | None, size: int) -> np.ndarray:
    return np.ones(size) if stored is None else stored / GAIN_GRID


def _rounded(gains: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(gains * GAIN_GRID), 0, 2 * GAIN_GRID) / GAIN_GRID


def _integers(gains: np.ndarray) -> np.ndarray | None:
    integers = np.rint(gains * GAIN_GRID).astype(np.int64)
    return None if (integers == GAIN_GRID).all() else integers


def checked(weight: Array, sigma: Array) -> tuple[Array, np.ndarray]:
    """Weight as floating point of at least 32 bits, second moment as float64 on the host."""
    xp = array_namespace(weight)
    if weight.ndim != 2 or 0 in weight.shape:
        msg = f"`weight` has shape {tuple(weight.shape)}; it must be a matrix with rows and columns"
        raise InvalidInputError(msg)
    if not xp.isdtype(weight.dtype, "real floating"):
        msg = f"`weight` has dtype {weight.dtype}; convert it to a floating-point type"
        raise InvalidInputError(msg)
    require_finite("weight", weight)
    if weight.dtype not in (xp.float32, xp.float64):
        weight = xp.astype(weight, xp.float32)
    return weight, check_second_moment(sigma, weight.shape[1])


def _concatenate(parts: list, design: Design, columns: int) -> UniformQuantizer:
    return type(parts[0]).concatenate(parts, design.group or columns)


def _default_coder(quantizer: Any) -> Any:
    if quantizer.low is None:
        return TwoWay()
    return FixedLength(quantizer.high - quantizer.low + 1, quantizer.low)
