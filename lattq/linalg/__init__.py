"""Linear algebra of quantization: LDL factors of a second moment, streaming moments, Hadamard rotations."""

from lattq.linalg.checks import check_layer, check_second_moment
from lattq.linalg.effective import effective_weight
from lattq.linalg.hadamard import fwht, hadamard_matrix, hadamard_transform, random_signs, randomized_hadamard
from lattq.linalg.ldl import LDL, ldl
from lattq.linalg.moments import SecondMoment
from lattq.linalg.shrinkage import Shrunk, shrink

__all__ = [
    "LDL",
    "SecondMoment",
    "Shrunk",
    "check_layer",
    "check_second_moment",
    "effective_weight",
    "fwht",
    "hadamard_matrix",
    "hadamard_transform",
    "ldl",
    "random_signs",
    "randomized_hadamard",
    "shrink",
]
