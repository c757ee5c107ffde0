"""Invertible maps of the inputs of a layer, as arrays: closed forms, what they gain, and published special cases.

A map A takes weights W to W Aᵀ and inputs x to A⁻ᵀ x (`lattq.affine.closed_forms`).
"""

from lattq.affine.closed_forms import balanced, whitening, wush
from lattq.affine.decoders import least_squares_decoder
from lattq.affine.gains import gain
from lattq.affine.scales import awq_scales, smoothquant_scales

__all__ = [
    "awq_scales",
    "balanced",
    "gain",
    "least_squares_decoder",
    "smoothquant_scales",
    "whitening",
    "wush",
]
