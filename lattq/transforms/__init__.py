"""Invertible changes of input coordinates, (W, Σ) → (W T⁻¹, T Σ Tᵀ), and the designs that choose them.

A transform is *stored* (charged, undone by `dequantize`) or *folded* (the weights stay transformed; whoever owns the
neighbouring layer applies and charges it once).
"""

from lattq.transforms.base import BaseTransform, Transform
from lattq.transforms.chains import Chain, Folded, append, folded, from_state, kept, split_unit, to_state
from lattq.transforms.designs import Equalize, Fixed, Sort, TransformDesign, refuse_equalize, then
from lattq.transforms.gain import Gain, Normalize, to_unit
from lattq.transforms.maps import SCALE_GRID, Diagonal, Hadamard, Identity, Permutation, bfloat16, grid_scale
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
    "bfloat16",
    "folded",
    "from_state",
    "grid_scale",
    "kept",
    "refuse_equalize",
    "split_unit",
    "then",
    "to_state",
    "to_unit",
]
