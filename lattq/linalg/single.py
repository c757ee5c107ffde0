"""Pivoted LDL factors in float32, for loops that run in float32: half the time of float64, where that is enough.

A factor found in float32 is that of H + Δ with |Δ_ij| <= n u √(H_ii H_jj), u = 2⁻²⁴, and about √n u in place of n u
where rounding is random (Higham and Mary 2019). A loop at high rate leaves errors E whose second moment is in
proportion to (H + Δ)⁻¹, so that Δ moves the distortion tr(E H Eᵀ) by the factor 1 - tr(Δ (H + Δ)⁻¹) / n. In units of
the diagonal that is at most max|Δ_ij| ‖H⁻¹‖_F / √n for random Δ, hence below √n u / λ, λ the least eigenvalue. No
pivot, relative to its diagonal entry, is below λ; float32 is taken where the least of them exceeds `LEAST` √n u, so
that pivots themselves are right to 1 / `LEAST`.

References: Higham and Mary, "A new approach to probabilistic rounding error analysis", SIAM J. Sci. Comput. 41 (2019).
"""

import math

import numpy as np
from jaxtyping import Float
from scipy.linalg import get_lapack_funcs

from lattq.linalg.definite import UNIT, in_single
from lattq.linalg.ldl import LDL
from lattq.linalg.roots import clear_above

__all__ = ["LEAST", "single_ldl"]

LEAST = 128.0
WIDEST = 2.0**100  # ratio of scales that float32 holds
STRIP = 64  # columns that fit a cache in float64


(_pstrf,) = get_lapack_funcs(("pstrf",), dtype=np.float32)


def single_ldl(
    matrix: Float[np.ndarray, "n n"], scale: Float[np.ndarray, " n"], added: float | Float[np.ndarray, " n"] = 0.0
) -> LDL | None:
    """The factor of H, `matrix` with something added to its diagonal, in a pivoted order.

    Pivots of ``scale[:, None] * H * scale`` are largest first.

    None where float32 is not enough, or the scaled diagonal is not positive or not finite.

    >>> factor = single_ldl(np.array([[4.0, 2.0], [2.0, 3.0]]), np.ones(2))
    >>> factor.pivots.round(3), factor.unit.dtype
    (array([4., 2.]), dtype('float32'))
    """
    n = len(matrix)
    with np.errstate(over="ignore", invalid="ignore"):
        power = (np.diag(matrix) + added) * scale * scale
        top = float(power.max())
    if not (0.0 < top < np.inf and power.min() > 0.0):
        return None
    size = np.ldexp(scale, -(math.frexp(top)[1] // 2))  # a power of two: another unit is the same factor
    scaled = in_single(matrix, size)
    own = np.ldexp(power, -(math.frexp(top)[1] // 2 * 2))
    scaled[np.diag_indices(n)] = own
    least = LEAST * n**0.5 * UNIT
    factor, order, rank, _ = _pstrf(scaled.T, tol=least * float(own.min()), lower=True, overwrite_a=True)
    if rank < n:  # it stops at a pivot that is too small
        return None
    order = order.astype(np.int64) - 1
    roots = np.diag(factor).astype(np.float64)
    back = 1 / size[order]
    if not (back.max() / (roots * back).min() < WIDEST and float(np.min(roots**2 / own[order])) > least):
        return None
    clear_above(factor)
    for start in range(0, n, STRIP):
        columns = slice(start, start + STRIP)
        factor.T[columns] *= (back / (roots[columns] * back[columns])[:, None]).astype(np.float32)
    factor[np.diag_indices(n)] = 1.0
    return LDL(factor, (roots * back) ** 2, order)
