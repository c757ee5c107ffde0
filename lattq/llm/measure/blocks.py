"""Hidden states on their way through the blocks of a model."""

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from lattq.llm.source.windows import run

__all__ = ["BlockStream"]


class BlockStream:
    """Hidden states on their way through the blocks of a model, one block at a time.

    Every block is called with the arguments the model itself gave it, recorded in one forward in which the blocks
    pass their input on.

    Parameters
    ----------
    model : a `transformers` model
    blocks : its blocks, in order
    batches : token windows
    """

    def __init__(self, model: Any, blocks: list[nn.Module], batches: Iterable[Int[Tensor, "_ window"]]) -> None:
        self.blocks = blocks
        self.hidden: list[Tensor] = []
        self._calls: list[list[tuple[tuple, dict]]] = []
        for batch in batches:
            calls: list[tuple[tuple, dict]] = []
            with torch.no_grad(), _recorders(blocks, self.hidden, calls):
                run(model.base_model, batch)
            self._calls.append(calls)

    @torch.no_grad()
    def apply(self, index: int, hidden: list[Tensor], batch: int) -> Tensor:
        """Output of block `index` for one batch of hidden states."""
        args, kwargs = self._calls[batch][index]
        output = self.blocks[index](hidden[batch], *args, **kwargs)
        return output[0] if isinstance(output, tuple) else output

    def advance(self, index: int, hidden: list[Tensor]) -> list[Tensor]:
        """Outputs of block `index` for all batches."""
        return [self.apply(index, hidden, batch) for batch in range(len(hidden))]


@contextlib.contextmanager
def _recorders(blocks: list[nn.Module], hidden: list[Tensor], calls: list[tuple[tuple, dict]]) -> Iterator[None]:
    """Let every block record its arguments and return its input; the first also runs, to learn what blocks return."""
    returns_tuple = False

    def recorder(index: int, forward: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal returns_tuple
            if index == 0:
                returns_tuple = isinstance(forward(*args, **kwargs), tuple)
            x, *rest = args if args else (kwargs.pop("hidden_states"),)
            if index == 0:
                hidden.append(x)
            calls.append((tuple(rest), kwargs))
            return (x,) if returns_tuple else x

        return call

    for index, block in enumerate(blocks):
        block.forward = recorder(index, block.forward)
    try:
        yield
    finally:
        for block in blocks:
            del block.forward
