"""Arrays that decoders write weights to: of floats, or of 16-bit integers for the bits of narrower types.

NumPy has no bfloat16, and Numba does not calculate with float16. So their bits are written: of bfloat16 to arrays of
uint16, of float16 to arrays of int16. Numbers are rounded to float32, and then to the nearest of the type.
"""

from typing import Any

import numpy as np
from jaxtyping import Float

__all__ = ["cells", "in_cells", "largest"]

BFLOAT16 = "bfloat16"
DIRECT = ("float32", "float64")


def largest(name: str) -> float:
    """The largest number of a floating-point type.

    >>> largest("float16"), largest("bfloat16")
    (65504.0, 3.3895313892515355e+38)
    """
    return (2 - 2.0**-7) * 2.0**127 if name == BFLOAT16 else float(np.finfo(name).max)


def cells(out: np.ndarray) -> np.ndarray:
    """The memory of an array as decoders write to it; one of uint16 holds bfloat16 already.

    >>> cells(np.zeros(2, dtype=np.float16)).dtype, cells(np.zeros(2)).dtype
    (dtype('int16'), dtype('float64'))
    """
    if out.dtype.name in DIRECT:
        return out
    return out.view(np.int16 if out.dtype == np.float16 else np.uint16)


def in_cells(values: Float[np.ndarray, "*shape"], dtype: Any) -> np.ndarray:
    """Finite numbers as arrays of this dtype hold them.

    >>> [hex(one) for one in in_cells(np.array([1.0, -2.0]), np.uint16)]
    ['0x3f80', '0xc000']
    """
    if np.dtype(dtype).name in DIRECT:
        return values.astype(dtype, copy=False)
    narrow = np.asarray(values, dtype=np.float32)
    if dtype == np.int16:
        return narrow.astype(np.float16).view(np.int16)
    bits = narrow.view(np.uint32)
    return (bits + 0x7FFF + (bits >> 16 & 1) >> 16).astype(np.uint16)
