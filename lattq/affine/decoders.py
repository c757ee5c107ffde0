"""The best decoder of given codes, where the inverse of a map stays at run time anyway."""

from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.linalg import lstsq

from lattq._array import Array, host_reals
from lattq.errors import InvalidInputError

__all__ = ["least_squares_decoder"]


def least_squares_decoder(
    weight: Float[Array, "rows columns"], decoded: Float[Array, "rows columns"]
) -> Float[np.ndarray, "columns columns"]:
    """Return T with the least ‖(W - Ŵ T) Σ^(1/2)‖ for codes that decode to Ŵ: T = (ŴᵀŴ)⁻¹ ŴᵀW.

    The same T for every Σ, and never worse than the transform that Ŵ was made with: Ŵ T is W projected onto the columns
    of Ŵ. T need not be the inverse of anything; where Ŵ has dependent columns, the T of least norm. For weights with
    many more rows than columns: T costs as much as n more rows, and errors of n rows or fewer vanish into it.

    Parameters
    ----------
    weight : as it is used, W
    decoded : in the coordinates of the transform, Ŵ (`Quantized.decoded()`)

    Raises
    ------
    InvalidInputError : for shapes that differ, NaN or infinite entries

    References
    ----------
    Theory 13.5.

    Examples
    --------
    >>> least_squares_decoder(np.array([[1.0], [2.2], [3.1]]), np.array([[1.0], [2.0], [3.0]])).round(3)
    array([[1.05]])
    """
    target, codes = host_reals("weight", weight), host_reals("decoded", decoded)
    if target.ndim != 2 or target.shape != codes.shape or 0 in target.shape:
        msg = f"`weight` has shape {target.shape} and `decoded` {codes.shape}; pass two matrices of the same shape"
        raise InvalidInputError(msg)
    found: Any = lstsq(codes, target)
    return np.asarray(found[0])
