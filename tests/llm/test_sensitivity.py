"""Sensitivities of hidden states: those of gradients one by one."""

import pytest
import torch

from lattq.errors import InvalidInputError
from lattq.llm.measure.sensitivity import state_sensitivities
from lattq.llm.source import find_blocks
from tests.llm.decoders import decoder
from tests.llm.training import WINDOWS


def test_sensitivities_of_states_are_those_of_gradients_one_by_one():
    model = decoder("llama")
    blocks = [block for _, block in find_blocks(model)]
    found = state_sensitivities(model, blocks, [WINDOWS[:2]], seed=5)
    generator, states = torch.Generator().manual_seed(5), []
    hooks = [block.register_forward_hook(lambda m, a, out: states.append(out)) for block in blocks]
    logits = model(WINDOWS[:2], use_cache=False).logits
    for hook in hooks:
        hook.remove()
    logs = torch.log_softmax(logits, -1).reshape(-1, logits.shape[-1])
    drawn = torch.multinomial(logs.detach().exp(), 1, generator=generator)
    states = [one[0] if isinstance(one, tuple) else one for one in states]
    gradients = torch.autograd.grad(logs.gather(-1, drawn).sum(), states)
    for gradient, moment in zip(gradients, found, strict=True):
        slow = torch.stack([torch.outer(g, g) for g in gradient.reshape(-1, gradient.shape[-1]).double()]).sum(0) / 24
        assert torch.allclose(moment, slow, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("part", ["", "model.embed_tokens"])
def test_sensitivities_of_a_frozen_model_are_those_of_the_model(part: str):
    model = decoder("llama")
    blocks = [block for _, block in find_blocks(model)]
    wanted = state_sensitivities(model, blocks, [WINDOWS[:2]])
    model.get_submodule(part).requires_grad_(False)
    before = [one.requires_grad for one in model.parameters()]
    for one, two in zip(wanted, state_sensitivities(model, blocks, [WINDOWS[:2]]), strict=True):
        assert torch.equal(one, two)
    with pytest.raises(InvalidInputError, match="vocabulary of 64"):
        state_sensitivities(model, blocks, [WINDOWS[:2], WINDOWS + 64])
    assert [one.requires_grad for one in model.parameters()] == before
    assert all(one.grad is None for one in model.parameters())
    assert not any(block._forward_hooks for block in blocks)


def test_a_seed_that_torch_does_not_take_is_named():
    model = decoder("llama")
    with pytest.raises(InvalidInputError, match=r"`seed` is 18446744073709551616; pass one below 2\^64"):
        state_sensitivities(model, [block for _, block in find_blocks(model)], [WINDOWS[:1]], seed=2**64)
