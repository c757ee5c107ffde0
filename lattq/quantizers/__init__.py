"""Quantizers and the designs that choose them: one file per family."""

from lattq.quantizers.base import BaseDesign, BaseQuantizer, Given
from lattq.quantizers.bitshift import Bitshift
from lattq.quantizers.entries import Entries
from lattq.quantizers.formats import Format
from lattq.quantizers.gptvq import GPTVQCodebook
from lattq.quantizers.integers import AbsMax, MinMax
from lattq.quantizers.lattice import Lattice
from lattq.quantizers.nested import Nested
from lattq.quantizers.tables import Codebook
from lattq.quantizers.trellis import Trellis
from lattq.quantizers.uniform import Uniform, UniformQuantizer

__all__ = [
    "AbsMax",
    "BaseDesign",
    "BaseQuantizer",
    "Bitshift",
    "Codebook",
    "Entries",
    "Format",
    "GPTVQCodebook",
    "Given",
    "Lattice",
    "MinMax",
    "Nested",
    "Trellis",
    "Uniform",
    "UniformQuantizer",
]
