"""Quantizers and the designs that choose them: one file per family."""

from lattq.quantizers.base import BaseQuantizer, BlockQuantizer, Design, Given, Quantizer
from lattq.quantizers.bitshift import Bitshift, BitshiftQuantizer
from lattq.quantizers.by_name import by_name
from lattq.quantizers.codebook import CodebookQuantizer
from lattq.quantizers.entries import Entries
from lattq.quantizers.formats import Format, FormatQuantizer, multiplicative_dither
from lattq.quantizers.gptvq import GPTVQCodebook
from lattq.quantizers.groups import GroupQuantizer, join
from lattq.quantizers.integers import AbsMax, MinMax
from lattq.quantizers.lattice import Lattice, LatticeQuantizer
from lattq.quantizers.nested import Nested, NestedQuantizer
from lattq.quantizers.scalars import table_shift
from lattq.quantizers.tables import Codebook
from lattq.quantizers.trellis import Trellis, TrellisQuantizer
from lattq.quantizers.uniform import Uniform, UniformQuantizer

__all__ = [
    "AbsMax",
    "BaseQuantizer",
    "Bitshift",
    "BitshiftQuantizer",
    "BlockQuantizer",
    "Codebook",
    "CodebookQuantizer",
    "Design",
    "Entries",
    "Format",
    "FormatQuantizer",
    "GPTVQCodebook",
    "Given",
    "GroupQuantizer",
    "Lattice",
    "LatticeQuantizer",
    "MinMax",
    "Nested",
    "NestedQuantizer",
    "Quantizer",
    "Trellis",
    "TrellisQuantizer",
    "Uniform",
    "UniformQuantizer",
    "by_name",
    "join",
    "multiplicative_dither",
    "table_shift",
]
