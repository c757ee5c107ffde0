"""Re-estimate what the codes decode to, with the codes frozen: least squares on the true quadratic loss."""

import dataclasses
from collections.abc import Callable

import msgpack
import numpy as np
from jaxtyping import Float
from scipy.linalg import solve
from threadpoolctl import threadpool_limits

from lattq._array import Array, to_host
from lattq.errors import InvalidInputError
from lattq.feedback import GAIN_GRID
from lattq.linalg import check_layer
from lattq.quantized import Quantized

__all__ = ["GAINS", "PARAMETERS", "refit"]

GAINS = ("columns", "rows")
PARAMETERS = (*GAINS, "centroids")
ROUNDS = 2  # of alternating least squares; a third moves next to nothing
MOST_CENTROIDS = 15  # codes beyond ± this keep their place: they are rare where centroids matter
SAMPLE_ROWS = 1024  # that the normal matrix of at most 31 centroids is estimated from


def refit(
    quantized: Quantized,
    weight: Float[Array, "rows columns"],
    sigma: Float[Array, "columns columns"],
    parameters: tuple[str, ...] = PARAMETERS,
) -> Quantized:
    """Re-estimate gains and centroids by alternating least squares on tr((W-Ŵ) Σ (W-Ŵ)ᵀ), codes as they are.

    All are rounded to 1/128 and charged. New values are kept if the distortion falls by more than their bytes are worth
    (a bit per weight is a factor 4). The entropy model stays, so streams stay decodable.

    Parameters
    ----------
    parameters : of "columns" (a gain each), "rows" (a gain each), "centroids" (what the codes -15 ... 15 decode to;
        nothing where codes are symbols of a path)

    Raises
    ------
    InvalidInputError : if the shapes differ from the codes', or a parameter is unknown

    Examples
    --------
    >>> import lattq as lq
    >>> weight = np.random.default_rng(0).normal(size=(64, 8))
    >>> rough = lq.quantize(weight, np.eye(8), lq.Scheme(quantizer=lq.quantizers.Uniform(2.0)))
    >>> lq.refit(rough, weight, np.eye(8)).distortion(weight, np.eye(8)) < rough.distortion(weight, np.eye(8))
    True
    """
    weight, moment = check_layer(weight, sigma)
    if tuple(weight.shape) != quantized.shape:
        msg = f"`weight` has shape {tuple(weight.shape)}, the quantized matrix {quantized.shape}; they must agree"
        raise InvalidInputError(msg)
    with threadpool_limits(1):
        return alternate(quantized, weight, moment, parameters)


def alternate(found: Quantized, weight: Array, moment: np.ndarray, parameters: tuple[str, ...]) -> Quantized:
    """`refit` for callers that have checked weight and second moment."""
    if unknown := [name for name in parameters if name not in PARAMETERS]:
        msg = f"`parameters` holds {unknown[0]!r}; choose from {', '.join(PARAMETERS)}"
        raise InvalidInputError(msg)
    s = found.transform.congruence(moment)
    w = found.transform.forward(to_host(weight).astype(np.float64))
    ws, loss, kept = w @ s, _loss(found, w, s), 0
    for _ in range(ROUNDS):
        before = kept
        for name in parameters:
            better = _FITS[name](found, ws, s)
            less, bits = _loss(better, w, s), (_side_bits(better) - _side_bits(found)) / w.size
            if less * 4.0 ** max(bits, 0.0) < loss:
                found, loss, kept = better, less, kept + 1
        if kept == before:
            break
    return found.revalued(stats={**found.stats, "refits": found.stats.get("refits", 0) + kept})


def _loss(found: Quantized, w: np.ndarray, s: np.ndarray) -> float:
    error = w - found.decoded()
    return float(np.sum((error @ s) * error))


def _side_bits(found: Quantized) -> float:
    """What the container charges for gains and centroids."""
    return 8.0 * len(msgpack.packb(found.side_state()) or b"")


def _columns(found: Quantized, ws: np.ndarray, s: np.ndarray) -> Quantized:
    """argmin over gains g: (Σ ∘ ZᵀZ) g = diag(Zᵀ W Σ), Z the reconstruction without them."""
    z = dataclasses.replace(found, column_gains=None).decoded()
    old = np.full(len(s), GAIN_GRID) if found.column_gains is None else found.column_gains
    gains = _solve(s * (z.T @ z), np.sum(z * ws, axis=0), old / GAIN_GRID)
    return found.revalued(column_gains=_stored(gains, 2 * GAIN_GRID, GAIN_GRID))


def _rows(found: Quantized, ws: np.ndarray, s: np.ndarray) -> Quantized:
    """argmin over gains t, row by row: t_r = <z_r, w_r> / <z_r, z_r> in the inner product of Σ."""
    z = dataclasses.replace(found, row_gains=None).decoded()
    normal, right = np.sum((z @ s) * z, axis=1), np.sum(ws * z, axis=1)
    old = 1.0 if found.row_gains is None else found.row_gains / GAIN_GRID
    gains = np.where(normal > 0, right / np.where(normal > 0, normal, 1.0), old)
    return found.revalued(row_gains=_stored(gains, 2 * GAIN_GRID, GAIN_GRID))


def _centroids(found: Quantized, ws: np.ndarray, s: np.ndarray) -> Quantized:
    """argmin over shifts c_k of Ŵ = Z + Σ_k c_k B_k, B_k the cells of the entries with code k and 0 elsewhere.

    The normal matrix <B_k, B_l> comes from rows at equal distances, the right side <W - Z, B_k> from all.
    """
    if not getattr(found.quantizer, "ordered", True):
        return found
    largest = int(min(np.abs(found.codes).max(), MOST_CENTROIDS))
    plain = dataclasses.replace(found, centroids=None)
    z = plain.decoded()
    cells = plain.decoded(shift=1.0) - z
    index = np.where(np.abs(found.codes) <= largest, found.codes + largest, 2 * largest + 1)

    def by_code(values: np.ndarray, index: np.ndarray) -> np.ndarray:
        return np.bincount(index.ravel(), values.ravel(), 2 * largest + 2)[:-1]

    rows = slice(None, None, -(-len(ws) // SAMPLE_ROWS))
    cell, code = cells[rows], index[rows]
    normal = [by_code((np.where(code == k, cell, 0.0) @ s) * cell, code) for k in range(2 * largest + 1)]
    right = by_code((ws - z @ s) * cells, index)
    shifts = _solve(np.array(normal) * len(ws) / len(cell), right, np.zeros(2 * largest + 1))
    return found.revalued(centroids=_stored(shifts + 1.0, 2 * GAIN_GRID, 0, -GAIN_GRID))


def _solve(normal: np.ndarray, right: np.ndarray, old: np.ndarray) -> np.ndarray:
    """Solution of the normal equations; old values where a parameter has no effect.

    Two columns may carry the same codes, hence the ridge.
    """
    live, found = np.diag(normal) > 0, old.copy()
    if live.any():
        matrix = normal[np.ix_(live, live)]
        matrix[np.diag_indices_from(matrix)] += 1e-9 * np.mean(np.diag(matrix))
        found[live] = solve(matrix, right[live], assume_a="pos")
    return found


def _stored(values: np.ndarray, largest: int, neutral: int, start: int = 0) -> np.ndarray | None:
    """Values in 128ths, cut to 0 ... largest and moved to `start`; None if all are neutral."""
    integers = np.clip(np.rint(values * GAIN_GRID), 0, largest).astype(np.int64) + start
    return None if (integers == neutral).all() else integers


_FITS: dict[str, Callable[[Quantized, np.ndarray, np.ndarray], Quantized]] = {
    "columns": _columns,
    "rows": _rows,
    "centroids": _centroids,
}
