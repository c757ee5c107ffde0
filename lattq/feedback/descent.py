"""What a penalty takes from targets, and the matrix of sweeps; columns in the order of the factor."""

import numpy as np
from jaxtyping import Float

from lattq._array import Array, array_namespace, from_host
from lattq.linalg.ldl import LDL
from lattq.linalg.substitution import divide_blocks, substitute, triangle_times

__all__ = ["descent", "host_like", "pulled"]


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
    unit, n = factor.unit, len(factor.unit)
    block = n // len(factor.pivots)
    tiles = factor.pivots.reshape(-1, block, block)
    h = np.matmul(unit.reshape(n, -1, block).transpose(1, 0, 2), tiles).transpose(1, 0, 2).reshape(n, n)
    h = np.ascontiguousarray(triangle_times(unit, h.T, lower=True))
    places = np.arange(n).reshape(-1, block)
    places = places[:, :, None], places[:, None, :]
    own = h[places]
    h = divide_blocks(h, own)
    h[places] = 0.0
    charged = _charged(factor, weight)
    return host_like(h, weight), own, 0.0 if charged is None else divide_blocks(charged, own / _unit(factor))


def host_like(x: np.ndarray, like: Array) -> Array:
    """A host array in the library, device and dtype of another.

    >>> host_like(np.ones(1), np.ones(1, dtype=np.float32)).dtype
    dtype('float32')
    """
    return array_namespace(like).astype(from_host(x, like=like), like.dtype)


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
