"""Floating-point rounding whose relative error does not depend on the number."""

import numpy as np
from jaxtyping import Float

from lattq._array import Array, array_namespace, as_floats, from_host
from lattq._options import as_integer
from lattq.bounds._checks import positive
from lattq.bounds.block_formats import check_number
from lattq.bounds.formats import NumberFormat
from lattq.errors import InvalidInputError
from lattq.quantizers.dither import dither_offsets
from lattq.quantizers.formats import FormatQuantizer

__all__ = ["multiplicative_dither"]


def multiplicative_dither(
    x: Float[Array, "rows columns"], number: NumberFormat, seed: int, *, scale: float = 1.0
) -> Float[Array, "rows columns"]:
    """Return 2^U Q(2^-U x) with U uniform on [0, 1) for each entry, Q the nearest value of `scale` times a format.

    Without overflow and underflow the squared error of every x is x² times `floating_point_distortion` of
    `lattq.bounds.format_error`, whatever x is: floating-point rounding made independent of where in its octave it lies.
    A decoder draws the same U from the seed, so nothing but the codes is stored.

    Parameters
    ----------
    x : numbers to round
    number : a floating-point format
    seed : of U, from 0 to 2^64 - 1; a column's draws depend on the seed and its index only
    scale : what the values of the format are multiplied by, for all entries

    Raises
    ------
    InvalidInputError : if x is no matrix of finite floating-point numbers, `number` no format, `scale` not positive or
        `seed` no seed

    Examples
    --------
    >>> from lattq.bounds import number_format
    >>> x = np.full((20000, 1), 1.3)
    >>> error = multiplicative_dither(x, number_format("e4m3fn"), seed=1) - x
    >>> round(float(np.mean((error / x) ** 2)), 4)
    0.0007
    """
    if not 0 <= as_integer("seed", seed) < 2**64:
        msg = f"`seed` is {seed}; a seed is an integer of at least 0 and below 2^64"
        raise InvalidInputError(msg)
    scale, x = positive("scale", scale), as_floats("x", x)
    xp = array_namespace(x)
    check_number(number)
    if x.ndim != 2:
        msg = f"`x` has shape {tuple(x.shape)}; pass a matrix of floating-point numbers"
        raise InvalidInputError(msg)
    octave = np.exp2(dither_offsets(seed, x.shape[0], np.arange(x.shape[1])) + 0.5)
    moved = FormatQuantizer(xp.astype(from_host(scale * octave, like=x), xp.float64), number)
    return xp.astype(moved.decode(moved.encode(x)), x.dtype)
