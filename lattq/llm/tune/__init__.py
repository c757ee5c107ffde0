"""Changing weights before they are quantized: invertible maps folded into a model, and training through a quantizer."""

from lattq.llm.source.design import FoldedMap, MapDesign
from lattq.llm.tune.designs import Balanced, Reorder, Rotate, chain
from lattq.llm.tune.folding import fold, fold_gains, shift
from lattq.llm.tune.mapped_block import MappedBlock
from lattq.llm.tune.scale_designs import AWQ, Shift, SmoothQuant
from lattq.llm.tune.soft_palette import SoftPalette, harden, soft_palettize
from lattq.llm.tune.trained import Trained
from lattq.llm.tune.training import Schedule
from lattq.llm.tune.tying import untie

__all__ = [
    "AWQ",
    "Balanced",
    "FoldedMap",
    "MapDesign",
    "MappedBlock",
    "Reorder",
    "Rotate",
    "Schedule",
    "Shift",
    "SmoothQuant",
    "SoftPalette",
    "Trained",
    "chain",
    "fold",
    "fold_gains",
    "harden",
    "shift",
    "soft_palettize",
    "untie",
]
