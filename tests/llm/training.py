"""A block of a tiny decoder, and a design that trains it in no time."""

from typing import Any

import torch

from lattq.llm.measure.hidden_states import BlockStream
from lattq.llm.source import find_blocks
from lattq.llm.tune.mapped_block import MappedBlock
from lattq.llm.tune.trained import Trained
from lattq.llm.tune.training import Schedule
from tests.llm.decoders import decoder

WINDOWS = torch.randint(2, 64, (9, 12), generator=torch.Generator().manual_seed(3))
SHORT = Schedule(epochs=2, batch=1, held_out=3)
DESIGN = Trained(levels=4, group=16, schedule=SHORT)


def block_of(kind: str = "llama", index: int = 0) -> tuple[Any, list[torch.Tensor], list[torch.Tensor], MappedBlock]:
    """A decoder, the inputs and outputs of one of its blocks for windows one by one, and the block."""
    model = decoder(kind)
    stream = BlockStream(model, [block for _, block in find_blocks(model)], list(WINDOWS.split(1)))
    block = MappedBlock(model, stream, index)
    with torch.no_grad():
        wanted = [block(block.parameters, one, window) for window, one in enumerate(stream.hidden)]
    return model, stream.hidden, wanted, block
