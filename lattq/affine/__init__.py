"""Affine maps that are certified invertible: A = D (I + N) T0, the rows of N within a ball of radius below 1.

A layer y = W x is the layer W Aᵀ on inputs that, as rows, became X A⁻¹. In the terms of `lattq.transforms`,
(W, Σ) → (W T⁻¹, T Σ Tᵀ), the transform is T = A⁻ᵀ: weights W Aᵀ, second moment A⁻ᵀ Σ A⁻¹.
Strict diagonal dominance of D (I + N) makes A invertible and says how well (theory 12). It is a certificate only if it
is enforced: `project` finds the nearest dominant matrix, `certificate` states the bounds that follow. T0 is any
invertible reference, such as a rotation, which dominance around the identity cannot reach.

`lattq.affine.maps` holds the map as a value, `inverses` the solvers, `projections` and `schedules` what training needs.
"""

from lattq.affine.dominance import certificate
from lattq.affine.projections import project

__all__ = ["certificate", "project"]
