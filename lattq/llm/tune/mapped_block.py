"""A block of a model as a function of the maps at its places, for training them before any weight is changed."""

from collections.abc import Mapping
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from lattq.errors import InvalidInputError
from lattq.llm.measure.hidden_states import BlockStream
from lattq.llm.source.place import Place
from lattq.llm.source.places import places
from lattq.llm.tune.equivalence import folded, shifted
from lattq.llm.tune.maps import Map

__all__ = ["MappedBlock"]


class MappedBlock:
    """One block, its places, and its parameters after maps.

    Between the parameters and the outputs is where a quantizer goes: without one, no map changes the outputs.

    Parameters
    ----------
    model : a model of `transformers` whose type has a table of places
    stream : its blocks, one by one, with what the model gives them
    index : which block

    Attributes
    ----------
    places : of the block, by the last part of their names
    parameters : of the block, by their full names, without gradients
    linear_layers : of the block, by their full names

    Examples
    --------
    >>> import torch
    >>> from lattq import llm
    >>> from lattq.llm.source import find_blocks, load_model
    >>> from lattq.llm.tune.maps import Diagonal
    >>> model = load_model(llm.embedded_model(), dtype=torch.float32)
    >>> stream = BlockStream(model, [block for _, block in find_blocks(model)], [torch.arange(2, 18)[None]])
    >>> block = MappedBlock(model, stream, 1)
    >>> scale = torch.full((1, 256), 0.5, requires_grad=True)
    >>> parameters = block.mapped({"mlp_input": Diagonal(scale)})
    >>> rounded = {name: (64 * value).sin() / 64 for name, value in parameters.items()}    # in place of a quantizer
    >>> hidden = stream.hidden[0]
    >>> error = (block(rounded, hidden, 0) - block(block.parameters, hidden, 0)).square().mean()
    >>> error.backward()
    >>> bool(scale.grad.abs().max() > 0)
    True
    """

    def __init__(self, model: Any, stream: BlockStream, index: int) -> None:
        block = stream.blocks[index]
        name = next((name for name, module in model.named_modules() if module is block), None)
        if name is None:
            msg = f"block {index} of the stream is no module of `model`; make the stream from this model"
            raise InvalidInputError(msg)
        self._stream, self._index, self._prefix = stream, index, f"{name}."
        found = {key.removeprefix(self._prefix): place for key, place in places(model).items()}
        self.places: dict[str, Place] = {key: place for key, place in found.items() if f"{name}.{key}" == place.name}
        self.parameters = {self._prefix + key: value.detach() for key, value in block.named_parameters()}
        self.linear_layers = {
            self._prefix + key: module for key, module in block.named_modules() if isinstance(module, nn.Linear)
        }

    def mapped(
        self,
        maps: Mapping[str, Map],
        shifts: Mapping[str, Float[Tensor, "heads size"]] | None = None,
        own: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """The parameters after shifts, and then maps in their order; gradients flow to both.

        Parameters
        ----------
        own : values in place of some of the block's own parameters

        Raises
        ------
        InvalidInputError : for a place that the block lacks

        Nothing else is checked: `fold` and `shift` do that when the result goes into the model.
        """
        found = self.parameters | dict(own or {})
        for name, delta in (shifts or {}).items():
            found |= shifted(self._place(name), delta, found)
        for name, transform in maps.items():
            found |= folded(self._place(name), transform, found)
        return found

    def __call__(
        self, parameters: Mapping[str, Tensor], hidden: Float[Tensor, "batch tokens channels"], batch: int
    ) -> Float[Tensor, "batch tokens channels"]:
        """Outputs of the block with these parameters, for hidden states in place of those of a batch of the stream."""
        own = {name.removeprefix(self._prefix): value for name, value in parameters.items()}
        return self._stream.call(self._index, hidden, batch, own)

    def _place(self, name: str) -> Place:
        if name not in self.places:
            msg = f"no place {name!r} in this block; there are {', '.join(self.places)}"
            raise InvalidInputError(msg)
        return self.places[name]
