"""Quantizers and the designs that choose them: one file per family."""

from lattq.quantizers.base import Design, Quantizer
from lattq.quantizers.uniform import AbsMax, MinMax, Uniform, UniformQuantizer

__all__ = ["AbsMax", "Design", "MinMax", "Quantizer", "Uniform", "UniformQuantizer"]
