"""Re-estimate what the codes decode to, with the codes frozen: least squares on the true quadratic loss."""

import math
from collections.abc import Callable
from typing import Any

import msgpack
import numpy as np
from jaxtyping import Float
from threadpoolctl import threadpool_limits

from lattq._array import Array, to_host
from lattq._layer import check_layer
from lattq._metric import Metric
from lattq._options import among, as_names
from lattq.errors import InvalidInputError, shown
from lattq.least_squares.gains import fit_centroids, fit_columns, fit_rows, fit_steps
from lattq.least_squares.tables import fit_tables, fit_tables_by_adam
from lattq.quantized import Quantized

__all__ = ["GAINS", "PARAMETERS", "alternate", "refit"]

GAINS = ("columns", "rows")
PARAMETERS = (*GAINS, "centroids", "tables")
ROUNDS = 2  # of alternating least squares; a third moves next to nothing


def refit(
    quantized: Quantized,
    weight: Float[Array, "rows columns"],
    sigma: Any,
    parameters: tuple[str, ...] = PARAMETERS,
) -> Quantized:
    """Re-estimate gains and centroids by alternating least squares on tr(G (W-Ŵ) Σ (W-Ŵ)ᵀ), codes as they are.

    Gains and centroids are rounded to 1/128 and charged. New values are kept if the distortion falls by more than their
    bytes are worth (a bit per weight is a factor 4). The entropy model stays, so streams stay decodable.

    Parameters
    ----------
    parameters : of "columns" (a gain each), "rows" (a gain each), "steps" (of rows and groups of columns, as their type
        holds them, for no byte; nothing where all rows share theirs), "centroids" (what the codes -15 ... 15 decode to;
        nothing where codes are symbols of a path), "tables" (entries of codebooks); "tables by Adam" is the update that
        GPTVQ was published with

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
    weight, metric = check_layer(weight, sigma)
    parameters = as_names("parameters", parameters)
    if tuple(weight.shape) != quantized.shape:
        msg = f"`weight` has shape {tuple(weight.shape)}, the quantized matrix {quantized.shape}; they must agree"
        raise InvalidInputError(msg)
    with threadpool_limits(1):
        return alternate(quantized, weight, metric, parameters)


def alternate(found: Quantized, weight: Array, metric: Metric, parameters: tuple[str, ...]) -> Quantized:
    """`refit` for callers that have checked weight and metric.

    >>> import lattq as lq
    >>> weight = np.random.default_rng(0).normal(size=(64, 8))
    >>> rough = lq.quantize(weight, np.eye(8), lq.Scheme(quantizer=lq.quantizers.Uniform(2.0)))
    >>> alternate(rough, weight, Metric(np.eye(8)), GAINS).stats["refits"] > 0
    True
    """
    if unknown := [name for name in parameters if not among(name, _FITS)]:
        msg = f"`parameters` holds {shown(unknown[0])}; choose from {', '.join(_FITS)}"
        raise InvalidInputError(msg)
    metric = metric.moved(found.transform)
    w = found.transform.forward(to_host(weight).astype(np.float64))
    loss, kept = metric.squared_error(w - found.decoded()), 0
    for _ in range(ROUNDS):
        before = kept
        for name in parameters:
            better = _FITS[name](found, w, metric)
            less, bits = metric.squared_error(w - better.decoded()), (_side_bits(better) - _side_bits(found)) / w.size
            if less < loss and (less == 0 or math.log2(loss / less) > 2 * max(bits, 0.0)):
                found, loss, kept = better, less, kept + 1
        if kept == before:
            break
    return found.revalued(stats={**found.stats, "refits": found.stats.get("refits", 0) + kept})


def _side_bits(found: Quantized) -> float:
    """What the container charges for gains and centroids."""
    return 8.0 * len(msgpack.packb(found.side_state()) or b"")


_FITS: dict[str, Callable[[Quantized, np.ndarray, Metric], Quantized]] = {
    "columns": fit_columns,
    "rows": fit_rows,
    "steps": fit_steps,
    "centroids": fit_centroids,
    "tables": fit_tables,
    "tables by Adam": fit_tables_by_adam,
}
