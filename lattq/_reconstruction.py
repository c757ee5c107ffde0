"""Weights from coded codes, one after the other, where every code decodes to a number of its own."""

import dataclasses
from typing import Any

import numpy as np

from lattq._payload import class_prior
from lattq.coding.narrow import BFLOAT16, cells, in_cells, largest
from lattq.coding.scaling import Scaling
from lattq.errors import InvalidInputError, shown
from lattq.feedback.loop import GAIN_GRID
from lattq.transforms.base import Divisors

__all__ = ["destination", "scaling_of", "weights"]

DTYPES = ("float16", "float32", "float64", BFLOAT16)


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


def weights(found: Any, dtype: Any, out: np.ndarray | None) -> np.ndarray:
    """The reconstruction of a result, see `Quantized.dequantize`; without codes where nobody has asked for them.

    >>> import lattq as lq
    >>> weights(lq.quantize(np.eye(2), np.eye(2), lq.recipes.huffman_gptq(step=0.25)), "float32", None).dtype
    dtype('float32')
    """
    name, out = destination(dtype, out, found.shape)
    inside, most = cells(out), largest(name)
    scaling = None if "codes" in vars(found) else scaling_of(found)
    if scaling is not None and _written(found, scaling, inside) <= most:
        return out
    with np.errstate(over="ignore", invalid="ignore"):
        values = found.transform.inverse(found.decoded())
        farthest = float(np.abs(values).max(initial=0.0))
    if np.isnan(farthest):
        msg = f"codes decode to NaN; the numbers of {found.quantizer!r}, or of {found.transform!r}, are wrong"
        raise InvalidInputError(msg)
    if farthest > most:
        msg = f"values up to {farthest:.3g} do not fit `dtype` = {name}; pass a wider one"
        raise InvalidInputError(msg)
    inside[...] = in_cells(values, inside.dtype)
    return out


def _written(found: Any, scaling: Scaling, out: np.ndarray) -> float:
    """Let the coder write weights; returns what none exceeds."""
    with np.errstate(over="ignore", invalid="ignore"):
        return found.coder.values(found.coded, found.shape, scaling, out, class_prior(found.transform))


def destination(dtype: Any, out: Any, shape: tuple[int, int]) -> tuple[str, np.ndarray]:
    """Name of the type of weights, and the array that they are written to, checked; a new one if `out` is None.

    Raises
    ------
    InvalidInputError : for other types than float16, bfloat16, float32 and float64, or an array that does not fit

    >>> destination("bfloat16", np.empty((2, 3), dtype=np.uint16), (2, 3))[0]
    'bfloat16'
    """
    name = dtype if dtype == BFLOAT16 else _name(dtype)
    if name not in DTYPES:
        msg = f"`dtype` is {str(dtype)[:40]!r}; pass one of {', '.join(DTYPES)}, in the byte order of this machine"
        raise InvalidInputError(msg)
    if out is None:
        try:
            return name, np.empty(shape, dtype=dtype)
        except TypeError:
            msg = "NumPy has no bfloat16 of its own; pass `dtype` = ml_dtypes.bfloat16, or `out` of uint16 for its bits"
            raise InvalidInputError(msg) from None
    fits = isinstance(out, np.ndarray) and out.shape == shape and out.flags.c_contiguous and out.flags.writeable
    if not fits or (_name(out.dtype) != name and not (name == BFLOAT16 and out.dtype == np.uint16)):
        wanted = f"{name}{', or its bits in uint16,' if name == BFLOAT16 else ''} of shape {shape}"
        msg = f"`out` is {shown(out)}; pass an array of {wanted} that is contiguous by rows and may be written"
        raise InvalidInputError(msg)
    return name, out


def _name(dtype: Any) -> str:
    """Name of a dtype in the byte order of this machine; empty for others and for what is none."""
    try:
        found = np.dtype(dtype)
    except TypeError:
        return ""
    return found.name if found.isnative else ""
