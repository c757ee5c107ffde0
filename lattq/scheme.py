"""Scheme, and the three verbs: quantize, refit, at_rate."""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Float
from threadpoolctl import threadpool_limits

from lattq import transforms
from lattq._array import Array, array_namespace, require_finite, to_host
from lattq.coding import FixedLength, TwoWay
from lattq.errors import InvalidInputError
from lattq.feedback import GAIN_GRID, Cholesky, Feedback, successive_cancellation
from lattq.linalg import check_second_moment
from lattq.quantized import Quantized
from lattq.quantizers import Design, Uniform, UniformQuantizer

__all__ = ["Scheme", "quantize", "refit"]


@dataclasses.dataclass(frozen=True)
class Scheme:
    """How to quantize: transform x feedback x quantizer design x coder. Frozen, printable, comparable.

    Parameters
    ----------
    transform : design of the change of input coordinates
    feedback : what the loop feeds back, and in which order
    quantizer : design of the quantizer
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
    weight, moment = _checked(weight, sigma)
    with threadpool_limits(1):  # sums in one order: the same bytes whatever the number of threads
        transform = scheme.transform(weight, moment)
        target, factor = scheme.feedback(transform.forward(weight), transform.congruence(moment))
        result = successive_cancellation(target, factor, scheme.quantizer, sweeps=scheme.sweeps)
        found = Quantized(
            codes=to_host(result.codes),
            quantizer=_concatenate(result.quantizers, scheme.quantizer, weight.shape[1]),
            transform=transform,
            coder=scheme.coder or _default_coder(result.quantizers[0]),
            column_gains=result.gains if (result.gains != GAIN_GRID).any() else None,
            stats={"overload": result.overload, "idle_columns": result.idle},
        )
        return refit(found, weight, moment) if scheme.refit else found


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
    weight, moment = _checked(weight, sigma)
    w = quantized.transform.forward(to_host(weight).astype(np.float64))
    s = quantized.transform.congruence(moment)
    z = quantized.quantizer.decode(quantized.codes)
    with threadpool_limits(1):
        return _Refit(quantized, w, s, z).run()


class _Refit:
    """Alternating least squares for Ŵ = diag(t) Z diag(g), in the coordinates of the transform."""

    def __init__(self, quantized: Quantized, w: np.ndarray, s: np.ndarray, z: np.ndarray) -> None:
        rows, columns = quantized.shape
        self.quantized, self.w, self.s, self.z = quantized, w, s, z
        self.t = _gains(quantized.row_gains, rows)
        self.g = _gains(quantized.column_gains, columns)
        self.ws = w @ s
        self.power = float(np.sum(self.ws * w))

    def run(self) -> Quantized:
        best, loss = self.quantized, self.loss(self.t, self.g)
        kept = 0
        for _ in range(ROUNDS):
            g = _rounded(self.columns(self.t))
            g_loss = self.loss(self.t, g)
            t = _rounded(self.rows(g))
            t_loss = self.loss(t, g)
            candidate = self.with_gains(t, g)
            bits = (len(candidate.payload) - len(best.payload)) * 8 / best.codes.size
            if t_loss > 0 and 0.5 * np.log2(min(g_loss, loss) / t_loss) <= max(bits, 0):
                t, t_loss, candidate = self.t, g_loss, self.with_gains(self.t, g)
            if not t_loss < loss:
                break
            best, loss, self.t, self.g, kept = candidate, t_loss, t, g, kept + 1
        return dataclasses.replace(best, stats={**self.quantized.stats, "refits": kept})

    def columns(self, t: np.ndarray) -> np.ndarray:
        """argmin over g: (Σ ∘ ZᵀT²Z) g = diag(ZᵀT W Σ); columns without codes keep their gain."""
        scaled = self.z * t[:, None]
        normal = self.s * (scaled.T @ scaled)
        right = np.sum(scaled * self.ws, axis=0)
        live = np.diag(normal) > 0
        g = self.g.copy()
        matrix = normal[np.ix_(live, live)]
        ridge = 1e-9 * np.mean(np.diag(matrix)) if live.any() else 0.0  # two columns may carry the same codes
        g[live] = np.linalg.solve(matrix + ridge * np.eye(live.sum()), right[live])
        return g

    def rows(self, g: np.ndarray) -> np.ndarray:
        """argmin over t, row by row; rows without codes keep their gain."""
        scaled = self.z * g
        power = np.sum((scaled @ self.s) * scaled, axis=1)
        live = power > 0
        t = self.t.copy()
        t[live] = np.sum(self.ws * scaled, axis=1)[live] / power[live]
        return t

    def loss(self, t: np.ndarray, g: np.ndarray) -> float:
        found = self.z * t[:, None] * g
        error = self.w - found
        return float(np.sum((error @ self.s) * error))

    def with_gains(self, t: np.ndarray, g: np.ndarray) -> Quantized:
        return dataclasses.replace(self.quantized, row_gains=_integers(t), column_gains=_integers(g))


ROUNDS = 3


def _gains(stored: np.ndarray | None, size: int) -> np.ndarray:
    return np.ones(size) if stored is None else stored / GAIN_GRID


def _rounded(gains: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(gains * GAIN_GRID), 0, 2 * GAIN_GRID) / GAIN_GRID


def _integers(gains: np.ndarray) -> np.ndarray | None:
    integers = np.rint(gains * GAIN_GRID).astype(np.int64)
    return None if (integers == GAIN_GRID).all() else integers


def _checked(weight: Array, sigma: Array) -> tuple[Array, np.ndarray]:
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
