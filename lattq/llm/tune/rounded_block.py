"""A block whose weights, and inputs if asked, are rounded after learned maps: what training makes accurate."""

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lattq._options import as_integer, check_levels, normalize
from lattq.errors import InvalidInputError
from lattq.llm.tune.learned import LearnedMap
from lattq.llm.tune.mapped_block import MappedBlock
from lattq.llm.tune.straight_through import OPEN, integers, token_integers
from lattq.quantizers.integers import check_group

__all__ = ["RoundedBlock", "Rounding", "check_rounding"]


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
    3.1484375
    """

    levels: int
    group: int | None = 128
    input_levels: int | None = None

    def groups(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """Rows of a matrix, and groups of each."""
        rows, columns = shape
        return rows, 1 if self.group is None else -(-columns // self.group)

    def bits(self, columns: int) -> float:
        """Bits of a weight: its code, and a 16-bit step and a zero point for each group."""
        code = math.log2(self.levels)
        return code + (16 + code) * self.groups((1, columns))[1] / columns


def check_rounding(design: Any) -> None:
    """Turn `levels`, `group` and `input_levels` of a frozen design into Python integers.

    Raises `InvalidInputError` for what is none, or out of range.

    >>> from lattq.llm.tune.trained import Trained
    >>> check_rounding(Trained(levels=8))
    """
    normalize(design, as_integer, "levels", optional=("group", "input_levels"))
    check_levels(design.levels)
    if design.input_levels is not None and not 2 <= design.input_levels <= 256:
        msg = f"`input_levels` is {design.input_levels}; inputs are rounded to 2 to 256 levels"
        raise InvalidInputError(msg)
    check_group(design.group)


class RoundedBlock(nn.Module):
    """A block as a function of hidden states and of what is learned: maps, ranges and weights.

    Weights that are learned begin at those of the block. They change what the block computes, and maps do not; what
    counts is what is left after rounding.

    Parameters
    ----------
    block : the block and its places
    maps : learned maps by place, folded in this order
    rounding : of its linear layers
    online : learned maps by place that stay at run time between a norm and its readers
    weights, ranges : whether weights, and the ranges that integers span, are learned

    Attributes
    ----------
    layers : linear layers of the block by their full names
    clip, input_clip : logits of the factors on the ranges of their weights, and on those of the tokens they read
    moved : what is added to their weights, before maps
    """

    def __init__(
        self,
        block: MappedBlock,
        maps: Mapping[str, LearnedMap],
        rounding: Rounding,
        *,
        online: Mapping[str, LearnedMap] | None = None,
        weights: bool = False,
        ranges: bool = True,
    ) -> None:
        super().__init__()
        self.block, self.rounding, self.layers = block, rounding, block.linear_layers
        self.maps, self.online = dict(maps), dict(online or {})
        self.learned = {**self.maps, **self.online}
        self._reading = {module: name for name in self.online for module in block.places[name].readers}
        shapes = {name: block.parameters[f"{name}.weight"].shape for name in self.layers}
        sizes = {name: rounding.groups(shape) for name, shape in shapes.items() if ranges}
        self.clip = {name: nn.Parameter(torch.full((2, *size), OPEN)) for name, size in sizes.items()}
        rounds = ranges and rounding.input_levels is not None
        self.input_clip = {name: nn.Parameter(torch.tensor(OPEN)) for name in self.layers if rounds}
        self.moved = {name: nn.Parameter(torch.zeros(shape)) for name, shape in shapes.items() if weights}
        # Names of layers have dots, and a dictionary of modules has no key "values".
        self._learned = nn.ModuleList(self.learned.values())
        self._numbers = nn.ParameterList([*self.clip.values(), *self.input_clip.values(), *self.moved.values()])

    def mapped(self) -> dict[str, Tensor]:
        """Parameters of the block after the folded maps."""
        own = {f"{name}.weight": self.block.parameters[f"{name}.weight"] + one for name, one in self.moved.items()}
        return self.block.mapped({name: one.map() for name, one in self.maps.items()}, own=own)

    def rounded(self) -> dict[str, Tensor]:
        """Parameters of the block after the folded maps and rounding; under maps that stay, rounding is in theirs."""
        found = self.mapped()
        for name in self.layers:
            weight, there = found[f"{name}.weight"], self._reading.get(name)
            transform = None if there is None else self.online[there].map()
            inside = weight if transform is None else transform.dual.left(weight.mT).mT
            inside = integers(inside, self.rounding.levels, self.rounding.group, self.clip.get(name))
            found[f"{name}.weight"] = inside if transform is None else transform.transposed.left(inside.mT).mT
        return found

    def forward(
        self, hidden: Float[Tensor, "batch tokens channels"], batch: int, parameters: Mapping[str, Tensor] | None = None
    ) -> Float[Tensor, "batch tokens channels"]:
        """Outputs for hidden states in place of those of a batch of the stream, with rounded parameters."""
        with self._inputs_rounded():
            return self.block(self.rounded() if parameters is None else parameters, hidden, batch)

    def constrain(self, step: int, steps: int) -> None:
        """Put every map back into the set in which it is certified."""
        for one in self.learned.values():
            one.constrain(step, steps)

    @torch.no_grad()
    def open(self) -> None:
        """Without anything learned and with whole ranges: rounding alone."""
        for one in self.learned.values():
            one.reset()
        for clip in (*self.clip.values(), *self.input_clip.values()):
            clip.fill_(math.inf)
        for moved in self.moved.values():
            moved.zero_()

    @contextlib.contextmanager
    def _inputs_rounded(self) -> Iterator[None]:
        hooks = []
        if self.rounding.input_levels is not None:
            hooks = [layer.register_forward_pre_hook(self._rounder(name)) for name, layer in self.layers.items()]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _rounder(self, name: str) -> Callable[[nn.Module, tuple], tuple]:
        levels, clip = self.rounding.input_levels or 0, self.input_clip.get(name)
        return lambda module, args: (token_integers(args[0], levels, clip), *args[1:])
