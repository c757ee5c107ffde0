"""A block as a function of its maps: the same as folding them, and its gradients are those of finite differences."""

from typing import Any

import numpy as np
import pytest
import torch

from lattq.errors import InvalidInputError
from lattq.llm.measure.hidden_states import BlockStream
from lattq.llm.source import find_blocks
from lattq.llm.tune.folding import fold, shift
from lattq.llm.tune.mapped_block import MappedBlock
from lattq.llm.tune.maps import Blocks, Diagonal, map_of
from tests.llm.decoders import TOKENS, decoder, random_map

# Norms calculate in float32 whatever the type of the model, a few of them one after the other.
NORMS = 32 * 2**-23


def block_of(kind: str) -> tuple[Any, BlockStream, MappedBlock]:
    model = decoder(kind).double()
    stream = BlockStream(model, [block for _, block in find_blocks(model)], [TOKENS])
    return model, stream, MappedBlock(model, stream, 1)


def coarse(parameters: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Something smooth that is no equivalence, in place of a quantizer."""
    return {name: value + 0.1 * (5 * value).sin() for name, value in parameters.items()}


@pytest.mark.parametrize("kind", ["llama", "opt", "qwen3", "gemma", "phi3"])
def test_parameters_after_maps_are_those_that_folding_writes(kind: str, rng: np.random.Generator):
    model, stream, block = block_of(kind)
    values = {name: random_map(place, place.structures[-1], rng) for name, place in block.places.items()}
    maps = {name: map_of(place, place.structures[-1], values[name]) for name, place in block.places.items()}
    found = block.mapped(maps)
    outputs = block(found, stream.hidden[0], 0)
    change = (outputs - block(block.parameters, stream.hidden[0], 0)).abs().max()
    assert change < NORMS * outputs.abs().max()
    for name, place in block.places.items():
        fold(model, place, place.structures[-1], values[name])
    for name, value in found.items():
        assert torch.equal(model.get_parameter(name), value), name


def test_shifts_are_those_that_are_folded(rng: np.random.Generator):
    model, _, block = block_of("opt")
    deltas = {name: rng.standard_normal(32) for name in ("attention_input", "keys", "values", "mlp_input")}
    shapes = {name: (block.places[name].heads, block.places[name].size) for name in deltas}
    found = block.mapped({}, {name: torch.from_numpy(delta).reshape(shapes[name]) for name, delta in deltas.items()})
    for name, delta in deltas.items():
        shift(model, block.places[name], delta)
    for name, value in found.items():
        assert torch.equal(model.get_parameter(name), value), name


@pytest.mark.parametrize("kind", ["llama", "opt"])
def test_gradients_are_those_of_finite_differences(kind: str):
    """Of the outputs of a block with something coarse in it; without, they are zero."""
    _, stream, block = block_of(kind)
    values, size = block.places["values"].heads, block.places["values"].size

    def error(direction: torch.Tensor, act: Any) -> torch.Tensor:
        matrix = torch.eye(size, dtype=torch.float64) + direction[:, :size, :size]
        scale = 1 + direction[:1, 0, :].repeat(1, 32 // size)
        maps = {"values": Blocks(matrix, torch.linalg.inv(matrix)), "mlp_input": Diagonal(scale)}
        outputs = stream.call(1, stream.hidden[0], 0, {})  # the true ones
        found = block(act(block.mapped(maps)), stream.hidden[0], 0)
        return (found - outputs - 0.1).square().mean()

    start = (0.1 * torch.randn(values, size, size, generator=torch.Generator().manual_seed(0))).double()
    start.requires_grad_()
    # Differences over 2·10⁻³ of sums with float32 noise: 10⁻⁷ / 10⁻³, and a third derivative of order 10² · 10⁻⁶.
    assert torch.autograd.gradcheck(lambda x: error(x, coarse), start, eps=1e-3, atol=1e-3, rtol=1e-3)
    (gradient,) = torch.autograd.grad(error(start, coarse), start)
    (nothing,) = torch.autograd.grad(error(start, lambda parameters: parameters), start)
    assert gradient.abs().max() > 1e-4
    assert nothing.abs().max() < NORMS


def test_a_place_that_the_block_lacks_is_named():
    _, _, block = block_of("llama")
    with pytest.raises(InvalidInputError, match="no place 'residual' in this block; there are attention_input, keys"):
        block.mapped({"residual": Diagonal(torch.ones(1, 32))})


def test_a_block_of_another_model_is_refused():
    _, stream, _ = block_of("llama")
    with pytest.raises(InvalidInputError, match="is no module of `model`"):
        MappedBlock(decoder("llama"), stream, 0)
