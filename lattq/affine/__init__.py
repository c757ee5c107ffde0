"""Affine maps that are certified invertible: closed forms, A = D (I + N) T0 around any of them, and published cases.

A layer y = W x is the layer W Aᵀ on inputs that, as rows, became X A⁻¹. In the terms of `lattq.transforms`,
(W, Σ) → (W T⁻¹, T Σ Tᵀ), the transform is T = A⁻ᵀ: weights W Aᵀ, second moment A⁻ᵀ Σ A⁻¹.
`balanced`, `wush` and `closed_forms.whitening` need no training, and `gain` says before anything is rounded what a map
is worth (theory 13). Strict diagonal dominance of D (I + N) makes A invertible and says how well (theory 12). It is a
certificate only if it is enforced: `project` finds the nearest dominant matrix, `certificate` states the bounds that
follow. T0 is any invertible reference, such as a closed form, which dominance around the identity cannot reach.

`maps` holds the map as a value, `inverses` the solvers, `projections` and `schedules` what training needs, `scales` the
special cases, `decoders` what is better than an inverse.
"""

from lattq.affine.closed_forms import balanced, wush
from lattq.affine.dominance import certificate
from lattq.affine.gains import gain
from lattq.affine.projections import project

__all__ = ["balanced", "certificate", "gain", "project", "wush"]
