"""Inner products of coded vectors in integers: leaders as int8, and one scale for each."""

from jaxtyping import Float, Int, Int8

from lattq._array import Array, array_namespace, require_integers
from lattq.errors import InvalidInputError
from lattq.lattices.voronoi import VoronoiCode

__all__ = ["integer_product", "small_leaders"]


def small_leaders(code: VoronoiCode, digits: Int[Array, "*batch n"]) -> Int8[Array, "*batch dim"]:
    """Leaders in integer coordinates as int8: for E8 they are twice the leaders, and at most 2 q.

    Raises
    ------
    InvalidInputError : if one is beyond 127, as E8 may be for q above 63

    Examples
    --------
    >>> import numpy as np
    >>> from lattq.lattices import E8
    >>> small_leaders(VoronoiCode(E8, 14), np.arange(8)).dtype
    dtype('int8')
    """
    xp = array_namespace(digits)
    leaders = code.leaders(digits)
    largest = int(xp.max(xp.abs(leaders))) if leaders.shape and 0 not in leaders.shape else 0
    if largest > 127:
        msg = f"a leader has the coordinate {largest}, beyond int8; take a smaller `q` than {code.q}"
        raise InvalidInputError(msg)
    return xp.astype(leaders, xp.int8)


def integer_product(
    x: Int8[Array, "*batch blocks dim"],
    x_scales: Float[Array, "*batch blocks"],
    y: Int8[Array, "*batch blocks dim"],
    y_scales: Float[Array, "*batch blocks"],
    integer_scale: float,
) -> Float[Array, "*batch"]:
    """Inner products of vectors in blocks: products of int8 leaders added up in int32, times the scales of the blocks.

    Parameters
    ----------
    x, y : leaders in integer coordinates
    x_scales, y_scales : of each block, those of rows included; narrower types than float32 become float32
    integer_scale : of the lattice

    Examples
    --------
    >>> import numpy as np
    >>> from lattq.lattices import E8
    >>> code = VoronoiCode(E8, 14)
    >>> digits = code.encode(3 * np.random.default_rng(0).standard_normal((2, 5, 8)))
    >>> scales = np.full((2, 5), 0.25)
    >>> small, points = small_leaders(code, digits), 0.25 * code.decode(digits)
    >>> found = integer_product(small[0], scales[0], small[1], scales[1], E8.integer_scale)
    >>> bool(found == np.sum(points[0] * points[1]))
    True
    """
    require_integers("x", x)
    require_integers("y", y)
    xp = array_namespace(x)
    if x.shape[-2:] != y.shape[-2:] or x_scales.shape != x.shape[:-1] or y_scales.shape != y.shape[:-1]:
        msg = (
            f"`x` {tuple(x.shape)} and `y` {tuple(y.shape)} with scales {tuple(x_scales.shape)} and "
            f"{tuple(y_scales.shape)} do not match; both have as many blocks, and a scale for each"
        )
        raise InvalidInputError(msg)
    whole = xp.sum(xp.astype(x, xp.int32) * xp.astype(y, xp.int32), axis=-1, dtype=xp.int32)
    one, two = (s if s.dtype in (xp.float32, xp.float64) else xp.astype(s, xp.float32) for s in (x_scales, y_scales))
    return xp.sum(xp.astype(whole, one.dtype) * one * two, axis=-1) / integer_scale**2
