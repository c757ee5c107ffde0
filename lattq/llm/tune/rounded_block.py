"""A block whose weights, and inputs if asked, are rounded after learned maps: what training makes accurate."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lattq.llm.source.place import Place
from lattq.llm.tune.learned import LearnedMap
from lattq.llm.tune.mapped_block import MappedBlock
from lattq.llm.tune.straight_through import OPEN, integers, token_integers

__all__ = ["RoundedBlock", "Rounding"]


class Rounding(NamedTuple):
    """To how many integers weights and activations are rounded.

    Attributes
    ----------
    levels : of weights
    group : columns that share a step; None for whole rows
    input_levels : of the inputs of linear layers, with a step for each token; None leaves them as they are

    Examples
    --------
    >>> Rounding(8, 128).bits(256)
    3.15625
    """

    levels: int
    group: int | None = 128
    input_levels: int | None = None

    def bits(self, columns: int) -> float:
        """Bits of a weight: its code, and a 16-bit step and a zero point for each group."""
        code = (self.levels - 1).bit_length()
        groups = 1 if self.group is None else -(-columns // self.group)
        return code + (16 + code) * groups / columns


class RoundedBlock(nn.Module):
    """A block as a function of hidden states and of what is learned.

    Parameters
    ----------
    block : the block and its places
    maps : learned maps by place, folded in this order
    rounding : of its linear layers
    online : learned maps by place that stay at run time between a norm and its readers

    Attributes
    ----------
    clip : logits of range factors of each linear layer
    """

    def __init__(
        self,
        block: MappedBlock,
        maps: Mapping[str, LearnedMap],
        rounding: Rounding,
        online: Mapping[str, LearnedMap] | None = None,
    ) -> None:
        super().__init__()
        self.block, self.rounding = block, rounding
        self.layers = block.linear_layers
        self.maps, self.online = dict(maps), dict(online or {})
        self.learned = {**self.maps, **self.online}
        self._learned = nn.ModuleList(self.learned.values())  # a dictionary of modules has no key "values"
        self._reading = {module: name for name in self.online for module in block.places[name].readers}
        self.clip = {}
        for name in self.layers:
            rows, columns = block.parameters[f"{name}.weight"].shape
            groups = 1 if rounding.group is None else -(-columns // rounding.group)
            self.clip[name] = nn.Parameter(torch.full((2, rows, groups), OPEN))
        self._clip = nn.ParameterList(self.clip.values())
        self.moved: dict[str, nn.Parameter] = {}

    def train_weights(self, start=None) -> None:
        for name in self.layers:
            w = self.block.parameters[f"{name}.weight"]
            self.moved[name] = nn.Parameter(torch.zeros_like(w) if start is None else start[name] - w)
        self._moved = nn.ParameterList(self.moved.values())

    def place(self, name: str) -> Place:
        """Of the block."""
        return self.block.places[name]

    def mapped(self) -> dict[str, Tensor]:
        """Parameters of the block after the folded maps."""
        base = {f"{name}.weight": self.block.parameters[f"{name}.weight"] + one for name, one in self.moved.items()}
        return self.block.mapped({name: one.map() for name, one in self.maps.items()}, start=base)

    def parameters_rounded(self) -> dict[str, Tensor]:
        """Parameters of the block after the folded maps and rounding; around maps that stay, rounding is in theirs."""
        found = self.mapped()
        for name in self.layers:
            weight, there = found[f"{name}.weight"], self._reading.get(name)
            transform = None if there is None else self.online[there].map()
            inside = weight if transform is None else transform.dual.left(weight.mT).mT
            clip = self.clip[name]
            inside = integers(inside, self.rounding.levels, self.rounding.group, clip)
            found[f"{name}.weight"] = inside if transform is None else transform.transposed.left(inside.mT).mT
        return found

    def forward(
        self, hidden: Float[Tensor, "batch tokens channels"], batch: int, parameters: Mapping[str, Tensor] | None = None
    ) -> Float[Tensor, "batch tokens channels"]:
        """Outputs for hidden states in place of those of a batch of the stream."""
        with self._inputs_rounded():
            return self.block(self.parameters_rounded() if parameters is None else parameters, hidden, batch)

    def constrain(self, step: int, steps: int) -> None:
        """Put every map back into the set in which it is certified."""
        for one in self.learned.values():
            one.constrain(step, steps)

    @contextlib.contextmanager
    def _inputs_rounded(self) -> Iterator[None]:
        levels = self.rounding.input_levels
        hooks = []
        if levels is not None:
            hooks = [
                layer.register_forward_pre_hook(lambda module, args: (token_integers(args[0], levels), *args[1:]))
                for layer in self.layers.values()
            ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()
