"""A quantized model inside `transformers`: the layer that holds bytes, and the plug-in that loads it."""

from lattq.llm.run.config import LattqConfig, block_of
from lattq.llm.run.directory import verified_payloads
from lattq.llm.run.encoded import Encoded
from lattq.llm.run.inputs import InputRounding
from lattq.llm.run.layers import LattqLinear
from lattq.llm.run.plugin import LattqHfQuantizer, attach, register, saved_tensors

__all__ = [
    "Encoded",
    "InputRounding",
    "LattqConfig",
    "LattqHfQuantizer",
    "LattqLinear",
    "attach",
    "block_of",
    "register",
    "saved_tensors",
    "verified_payloads",
]
