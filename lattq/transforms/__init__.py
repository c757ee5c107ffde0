"""Invertible changes of input coordinates, (W, Σ) → (W T⁻¹, T Σ Tᵀ), and the designs that choose them.

A transform is *stored* (charged, undone by `dequantize`) or *folded* (the weights stay transformed; whoever owns the
neighbouring layer applies and charges it once).
"""

from lattq.transforms.base import BaseTransform, Transform
from lattq.transforms.chains import Chain, Folded, append, folded, from_state, to_state
from lattq.transforms.designs import Equalize, Fixed, Sort, TransformDesign, refuse_equalize, then
from lattq.transforms.gain import Gain, Normalize
from lattq.transforms.maps import SCALE_GRID, Diagonal, Hadamard, Identity, Permutation, grid_scale
from lattq.transforms.outliers import Outliers, Sparse

__all__ = [
    "SCALE_GRID",
    "BaseTransform",
    "Chain",
    "Diagonal",
    "Equalize",
    "Fixed",
    "Folded",
    "Gain",
    "Hadamard",
    "Identity",
    "Normalize",
    "Outliers",
    "Permutation",
    "Sort",
    "Sparse",
    "Transform",
    "TransformDesign",
    "append",
    "folded",
    "from_state",
    "grid_scale",
    "refuse_equalize",
    "then",
    "to_state",
]
