"""How large the distortion of a loop is at most, from what the loop has at hand: no product of matrices.

Where U P Uᵀ = H = Σ + J, errors E cost D = tr(E Σ Eᵀ) <= tr(E H Eᵀ) = Σ_i p_i ‖x_i‖², where the columns x_i of E U are
target - Ŵ and what a penalty took from the target (theory 2.1, 2.6). Sweeps lower D + tr(Ŵ J Ŵᵀ): a visit of column i
by h_ii (‖t_i - ŵ_i‖² - ‖t_i - ŵ'_i‖²), t_i its target (2.5).

What rounding may have done is added. The sums of n + 1 terms that targets are carry at most γ Σ_j |U_ji| |e_j|, and γ
times W itself, γ = (n + 8) u; over all columns these have the norm γ ‖E‖ √tr H in the metric of P, as Σ_i p_i ‖U_i‖² is
the trace of H. In a sweep |h_ij| <= √(h_ii h_jj) gives √n of that where rounding is random. The factor itself is that
of H + Δ, |tr(E Δ Eᵀ)| <= γ ‖E‖² tr H with u of its own dtype.
"""

import math

import numpy as np
from jaxtyping import Float

from lattq.linalg.ldl import LDL

__all__ = ["Certificate"]

PART = 64  # columns whose numbers fit a cache in float64


class Certificate:
    """The bound of one run, for a loop on NumPy arrays of single columns.

    Parameters
    ----------
    factor : of the loop, with its matrix
    weight, pull : W and what a penalty takes from targets, transposed in the order of the loop

    Examples
    --------
    >>> from lattq.linalg import ldl
    >>> weight, error = np.array([[0.6], [0.6]]), np.array([[0.1], [-0.4]])
    >>> certificate = Certificate(ldl(np.eye(2)), weight, 0.0)
    >>> certificate.first_pass(weight, error)
    >>> round(certificate.bound(error), 6)
    0.17
    """

    def __init__(self, factor: LDL, weight: Float[np.ndarray, "columns rows"], pull: np.ndarray | float) -> None:
        self.factor, self.weight, self.pull = factor, weight, pull
        self.cost, self.sweeps = math.inf, 0

    def first_pass(self, target: np.ndarray, error: np.ndarray) -> None:
        """tr(E H Eᵀ) from the targets of the first pass."""
        self.cost = _squares(self.factor.pivots, (target, error, self.pull), self.weight)

    def sweep(self, costs: np.ndarray, target: np.ndarray, before: np.ndarray, error: np.ndarray) -> None:
        """Less what a sweep gained over the errors before it, where a squared error of each column costs so much."""
        if not self.sweeps and self.factor.penalty is not None:
            self.cost += _squares(self.factor.penalty[self.factor.order], (self.weight,), before)
        self.sweeps += 1
        found = (_squares(costs, (target, one), self.weight) for one in (before, error))
        self.cost -= next(found) - next(found)

    def bound(self, error: Float[np.ndarray, "columns rows"]) -> float:
        """What D does not exceed."""
        factor, n = self.factor, len(self.weight)
        if factor.matrix is None or not np.isfinite(self.cost):
            return math.inf
        scale = np.ones(n) if factor.scale is None else factor.scale
        trace = float(np.sum(np.diag(factor.matrix) * scale**2))
        trace += 0.0 if factor.penalty is None else float(np.sum(factor.penalty))
        gamma, own = ((n + 8) * float(np.finfo(x.dtype).eps) for x in (self.weight, factor.unit))
        size, whole = (float(np.vdot(x, x)) for x in (error, self.weight))
        rounding = gamma * (math.sqrt(size * trace) + math.sqrt(whole * float(factor.pivots.max())))
        rounding *= 1 + self.sweeps * n**0.5
        rounding += gamma / n * math.sqrt(whole * trace)  # of what codes decode to
        return (math.sqrt(max(self.cost, 0.0)) + rounding) ** 2 + own * size * trace


def _squares(power: np.ndarray, terms: tuple[np.ndarray | float, ...], less: np.ndarray | float) -> float:
    """Σ_i power_i ‖sum of the terms - less‖² over their lines, in their own dtype."""
    found = np.empty(len(power))
    for start in range(0, len(power), PART):
        part = slice(start, start + PART)
        own = [term[part] if isinstance(term, np.ndarray) else term for term in (*terms, less)]
        x = own[0] - own[-1]
        for other in own[1:-1]:
            x += other
        found[part] = np.einsum("cr,cr->c", x, x)
    return float(power @ found)
