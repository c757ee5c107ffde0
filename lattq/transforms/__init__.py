"""Invertible changes of input coordinates, (W, Σ) → (W T⁻¹, T Σ Tᵀ), and the designs that choose them.

A transform is *stored* (charged, undone by `dequantize`) or *folded* (the weights stay transformed; whoever owns the
neighbouring layer applies and charges it once).
"""

from lattq.transforms.designs import Equalize, Fixed, Sort, TransformDesign, then
from lattq.transforms.maps import (
    SCALE_GRID,
    Chain,
    Diagonal,
    Folded,
    Hadamard,
    Identity,
    Permutation,
    Transform,
    from_state,
    grid_scale,
    octaves,
    to_state,
)

__all__ = [
    "SCALE_GRID",
    "Chain",
    "Diagonal",
    "Equalize",
    "Fixed",
    "Folded",
    "Hadamard",
    "Identity",
    "Permutation",
    "Sort",
    "Transform",
    "TransformDesign",
    "from_state",
    "grid_scale",
    "octaves",
    "then",
    "to_state",
]
