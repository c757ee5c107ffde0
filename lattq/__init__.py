"""lattq: how few bits a weight matrix needs, how to reach that, and real files that prove it."""

from lattq import (
    affine,
    bounds,
    codebooks,
    coding,
    errors,
    export,
    feedback,
    lattices,
    linalg,
    matmul,
    packed,
    parts,
    quantizers,
    recipes,
    transforms,
    trellis,
)
from lattq._metric import Metric
from lattq.files import load, save
from lattq.least_squares import refit
from lattq.parts import register
from lattq.quantized import Quantized
from lattq.rate import at_rate
from lattq.scheme import Scheme, quantize

__all__ = [
    "Metric",
    "Quantized",
    "Scheme",
    "affine",
    "at_rate",
    "bounds",
    "codebooks",
    "coding",
    "errors",
    "export",
    "feedback",
    "lattices",
    "linalg",
    "load",
    "matmul",
    "packed",
    "parts",
    "quantize",
    "quantizers",
    "recipes",
    "refit",
    "register",
    "save",
    "transforms",
    "trellis",
]
