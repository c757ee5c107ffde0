"""Published methods, each a sentence about the four parts.

Recipes with a `step` are entropy coded, recipes with `levels` or `bits` have a fixed rate. All return a `Scheme`.
"""

from lattq.recipes.cells import bitshift, nestquant
from lattq.recipes.codebooks import ecvq, gptvq, gptvq_published, palettize, pq, squeezellm
from lattq.recipes.grids import (
    UNBIASED,
    block_format,
    gptq,
    gptq_published,
    huffman_gptq,
    rtn,
    watersic,
    watersic_published,
)
from lattq.recipes.two_sides import guided, two_sided, yaqa

__all__ = [
    "UNBIASED",
    "bitshift",
    "block_format",
    "ecvq",
    "gptq",
    "gptq_published",
    "gptvq",
    "gptvq_published",
    "guided",
    "huffman_gptq",
    "nestquant",
    "palettize",
    "pq",
    "rtn",
    "squeezellm",
    "two_sided",
    "watersic",
    "watersic_published",
    "yaqa",
]
