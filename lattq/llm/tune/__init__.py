"""Training through a quantizer: soft palettes."""

from lattq.llm.tune.soft_palette import SoftPalette, harden, soft_palettize

__all__ = [
    "SoftPalette",
    "harden",
    "soft_palettize",
]
