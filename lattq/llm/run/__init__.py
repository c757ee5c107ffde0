"""A quantized model inside `transformers`: the layer that holds bytes, and the plug-in that loads it."""

from lattq.llm.run.layers import LattqLinear
from lattq.llm.run.plugin import LattqConfig, LattqHfQuantizer, attach, register

__all__ = [
    "LattqConfig",
    "LattqHfQuantizer",
    "LattqLinear",
    "attach",
    "register",
]
