"""Invertible changes of input coordinates, (W, Σ) → (W T⁻¹, T Σ Tᵀ), and the designs that choose them.

A transform is *stored* (charged, undone by `dequantize`) or *folded* (the weights stay transformed; whoever owns the
neighbouring layer applies and charges it once).
"""

from lattq.transforms.affine import WUSH, Balanced
from lattq.transforms.base import BaseTransform
from lattq.transforms.designs import Equalize, Fixed, then
from lattq.transforms.gain import Normalize
from lattq.transforms.maps import Diagonal
from lattq.transforms.outliers import Outliers
from lattq.transforms.rotation import Hadamard

__all__ = [
    "WUSH",
    "Balanced",
    "BaseTransform",
    "Diagonal",
    "Equalize",
    "Fixed",
    "Hadamard",
    "Normalize",
    "Outliers",
    "then",
]
