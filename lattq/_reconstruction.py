"""Weights from coded codes, one after the other, where every code decodes to a number of its own."""

import dataclasses
from typing import Any

import numpy as np

from lattq._payload import class_prior
from lattq.coding.scaling import Scaling
from lattq.feedback.loop import GAIN_GRID
from lattq.transforms.base import Divisors

__all__ = ["scaling_of", "written"]


def scaling_of(found: Any) -> Scaling | None:
    """What the codes of a result decode to, with all gains; None if its transform does more than divide columns
    and then rows.

    >>> import lattq as lq
    >>> scaling_of(lq.quantize(np.eye(2), np.eye(2), lq.Scheme(quantizer=lq.quantizers.Uniform(0.5)))).step
    0.5
    """
    own, transform = found.quantizer.scaling, found.transform
    divisors = Divisors() if transform.plain else transform.divisors
    if own is None or found.kept is not None or divisors is None:
        return None
    columns, rows, shifts = (
        None if one is None else one / GAIN_GRID for one in (found.column_gains, found.row_gains, found.centroids)
    )
    gains = {"shifts": shifts, "columns": columns, "rows": rows}
    return dataclasses.replace(own, **gains, divisors=divisors.columns, row_divisors=divisors.rows)


def written(found: Any, scaling: Scaling, dtype: Any) -> np.ndarray | None:
    """Weights of a result as its coder writes them; None where they might not fit the dtype."""
    direct = np.dtype(dtype) in (np.float32, np.float64)
    out = np.empty(found.shape, dtype=dtype if direct else np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        bound = found.coder.values(found.coded, found.shape, scaling, out, class_prior(found.transform))
    if not bound <= float(np.finfo(dtype).max):
        return None
    return out if direct else out.astype(dtype)
