"""What a penalty takes from targets, and the matrix of sweeps; columns in the order of the factor."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from lattq._array import Array, array_namespace, from_host, to_host
from lattq.linalg.ldl import LDL
from lattq.linalg.substitution import divide_blocks, substitute, triangle_times

__all__ = ["descent", "host_like", "pulled"]

STRIP = 64  # rows of a matrix that fit a cache


def pulled(
    factor: LDL, unit: Float[Array, "columns columns"], weight: Float[Array, "columns rows"]
) -> Float[Array, "columns rows"] | float:
    """What a penalty takes from the targets of the first pass, theory (2.6b); 0 without one.

    Parameters
    ----------
    unit : Uᵀ in the library and dtype of the loop
    weight : W, transposed
    """
    found = _charged(factor, weight)
    if found is None:
        return 0.0
    substitute(array_namespace(unit).matrix_transpose(unit), found, factor.unit)
    return divide_blocks(found, factor.pivots / _unit(factor))


def descent(
    factor: LDL, weight: Float[Array, "columns rows"]
) -> tuple[Float[Array, "columns columns"], Float[np.ndarray, "blocks b b"], Float[Array, "columns rows"] | float]:
    """H_BB⁻¹ H with zero diagonal blocks, H_BB, and H_BB⁻¹ J W: the best block, given the errors of all others.

    It is W plus the product with them, less the other (theory 2.5).

    >>> from lattq.linalg import ldl
    >>> descent(ldl(np.array([[2.0, 1.0], [1.0, 4.0]])), np.ones((2, 1)))[0]
    array([[0.  , 0.5 ],
           [0.25, 0.  ]])
    """
    n, block = len(factor.unit), len(factor.unit) // len(factor.pivots)
    own = np.empty((n // block, block, block))
    whole = np.empty((n, n), dtype=to_host(weight[:0, :0]).dtype)
    rows_of = _rows_of(factor, block)
    for start in range(0, n, block * max(STRIP // block, 1)):
        stop = min(start + block * max(STRIP // block, 1), n)
        rows = rows_of(slice(start, stop))
        places = np.arange(stop - start).reshape(-1, block)
        places = places[:, :, None], start + places[:, None, :]
        tiles = rows[places]
        own[start // block : stop // block] = tiles
        rows = divide_blocks(rows, tiles.reshape(-1) if block == 1 else tiles)
        rows[places] = 0.0
        whole[start:stop] = rows
    charged = _charged(factor, weight)
    pull = 0.0 if charged is None else divide_blocks(charged, own / _unit(factor))
    return from_host(whole, like=weight), own, pull


def _rows_of(factor: LDL, block: int) -> Callable[[slice], np.ndarray]:
    """Rows of H in the order of the loop, from the matrix that was factored, or from its factors."""
    order, n = factor.order, len(factor.unit)
    if factor.matrix is not None:
        matrix, penalty = factor.matrix, factor.penalty
        scale = np.ones(n) if factor.scale is None else factor.scale[order]

        def rows_of(rows: slice) -> np.ndarray:
            found = matrix[order[rows]][:, order] * scale * scale[rows, None]
            if penalty is None:
                return found
            if penalty.ndim == 2:
                return found + penalty[order[rows]][:, order]
            place = np.arange(len(found))
            found[place, rows.start + place] += penalty[order[rows]]
            return found

        return rows_of
    unit, tiles = factor.unit, factor.pivots.reshape(-1, block, block)
    h = np.matmul(unit.reshape(n, -1, block).transpose(1, 0, 2), tiles).transpose(1, 0, 2).reshape(n, n)
    h = np.ascontiguousarray(triangle_times(unit, h.T, lower=True))
    return lambda rows: h[rows].copy()


def host_like(x: np.ndarray, like: Array) -> Array:
    """A host array in the library, device and dtype of another.

    >>> host_like(np.ones(1), np.ones(1, dtype=np.float32)).dtype
    dtype('float32')
    """
    return array_namespace(like).astype(from_host(x, like=like), like.dtype, copy=False)


def _unit(factor: LDL) -> float:
    return float(np.abs(factor.pivots).max(initial=0.0))


def _charged(factor: LDL, weight: Array) -> Array | None:
    """J W in the order of the loop, J in units of the largest pivot, which any dtype holds; None without J."""
    penalty, order, unit = factor.penalty, factor.order, _unit(factor)
    if penalty is None or not unit:
        return None
    if penalty.ndim == 1:
        return weight * host_like(penalty[order, None] / unit, weight)
    return array_namespace(weight).matmul(host_like(penalty[np.ix_(order, order)] / unit, weight), weight)
