"""The nearest matrix that is dominant by rows and by columns, by Newton's method on its dual.

With x ≥ 0 the magnitudes, the minimum of ½‖v − x‖² + ½‖d − d₀‖² under Σ_j v_ij ≤ ρ d_i, Σ_i v_ij ≤ ρ d_j is
v_ij = (x_ij − λ_i − μ_j)₊, d_i = max(floor, d₀_i + ρ (λ_i + μ_i)), at the minimum over λ, μ ≥ 0 of the convex
½ Σ v² + ½ Σ (d² − (d − d₀ − ρ λ − ρ μ)²), whose gradient is the slack. Dykstra's alternation minimises it over λ and
μ in turn, in thousands of rounds for hundreds of rows; it is piecewise quadratic, and a dozen Newton steps end it.
"""

import numpy as np
from jaxtyping import Float
from scipy.linalg import solve

__all__ = ["onto_both"]

ROUNDS, CLOSE, SLOPE, NOISE = 200, 1e-13, 1e-4, 1e-14


def onto_both(
    magnitudes: Float[np.ndarray, "n n"], diagonal: Float[np.ndarray, " n"], ratio: float, floor: float | None
) -> tuple[Float[np.ndarray, "n n"], Float[np.ndarray, " n"]]:
    """Off-diagonal magnitudes and diagonal of the nearest matrix; the diagonal stays where `floor` is None.

    >>> onto_both(np.array([[0.0, 1.0], [0.0, 0.0]]), np.array([1.0, 2.0]), 0.5, None)[0]
    array([[0. , 0.5],
           [0. , 0. ]])
    """
    dual = _Dual(magnitudes, diagonal, ratio, floor)
    z = np.zeros(2 * len(diagonal))
    value, slope = dual.value(z), dual.gradient(z)
    scale = max(float(magnitudes.max()), float(np.abs(diagonal).max()), np.finfo(float).tiny) * len(diagonal)
    for _ in range(ROUNDS):
        free = (z > 0) | (slope < 0)
        if not free.any() or np.abs(slope[free]).max() <= CLOSE * scale:
            break
        step = np.zeros_like(z)
        step[free] = -solve(dual.curvature(z)[np.ix_(free, free)], slope[free], assume_a="pos")
        length = 1.0
        while True:  # a projected step that descends, up to the rounding of the value
            tried = np.maximum(z + length * step, 0.0)
            found = dual.value(tried)
            if found <= value + SLOPE * float(slope @ (tried - z)) + NOISE * abs(value) or length < NOISE:
                break
            length /= 2
        z, value, slope = tried, found, dual.gradient(tried)
    return dual.primal(z)


class _Dual:
    """The dual function of one problem."""

    def __init__(self, magnitudes: np.ndarray, diagonal: np.ndarray, ratio: float, floor: float | None) -> None:
        self.magnitudes, self.diagonal, self.ratio, self.floor = magnitudes, diagonal, ratio, floor
        self.n = len(diagonal)

    def primal(self, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Off-diagonals and diagonal that belong to multipliers."""
        rows, columns = z[: self.n], z[self.n :]
        off = np.maximum(self.magnitudes - rows[:, None] - columns, 0.0)
        if self.floor is None:
            return off, self.diagonal
        return off, np.maximum(self.diagonal + self.ratio * (rows + columns), self.floor)

    def value(self, z: np.ndarray) -> float:
        """To be minimised."""
        off, diagonal = self.primal(z)
        pull = self.ratio * (z[: self.n] + z[self.n :])
        if self.floor is None:
            return 0.5 * float(np.sum(off * off)) + float(pull @ diagonal)
        wanted = self.diagonal + pull
        return 0.5 * float(np.sum(off * off) + np.sum(wanted * wanted - (diagonal - wanted) ** 2))

    def gradient(self, z: np.ndarray) -> np.ndarray:
        """Budgets less sums."""
        off, diagonal = self.primal(z)
        budget = self.ratio * diagonal
        return np.concatenate([budget - off.sum(axis=1), budget - off.sum(axis=0)])

    def curvature(self, z: np.ndarray) -> np.ndarray:
        """Second derivatives where they exist, and a trifle on the diagonal where they are singular."""
        off, diagonal = self.primal(z)
        active, n = (off > 0).astype(float), self.n
        found = np.block([[np.diag(active.sum(axis=1)), active], [active.T, np.diag(active.sum(axis=0))]])
        if self.floor is not None:
            own = np.diag(np.where(diagonal > self.floor, self.ratio**2, 0.0))
            found += np.block([[own, own], [own, own]])
        found[np.diag_indices(2 * n)] += 1e-10 * (1 + np.diag(found))
        return found
