"""Linear algebra of quantization: LDL factors of a second moment, streaming moments, Hadamard rotations."""

from lattq.linalg.ldl import ldl
from lattq.linalg.moments import SecondMoment
from lattq.linalg.shrinkage import shrink

__all__ = ["SecondMoment", "ldl", "shrink"]
