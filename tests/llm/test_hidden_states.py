"""Blocks called one by one see what they see in the model, whatever the class keeps, takes and returns."""

import numpy as np
import pytest
import torch
import transformers
from torch import nn
from transformers.modeling_outputs import BaseModelOutput

from lattq.llm import measure, source
from lattq.llm.measure.hidden_states import BlockStream, WholeModel, follow
from tests.llm.test_matrices import TOKENS, tiny_model

ONE_BY_ONE = (
    "LlavaForConditionalGeneration",
    "Qwen2VLForConditionalGeneration",
    "Gemma3ForConditionalGeneration",
    "Gemma2ForCausalLM",
    "GPT2LMHeadModel",
    "BloomForCausalLM",
    "FalconForCausalLM",
    "MPNetForMaskedLM",
    "DebertaV2ForMaskedLM",
    "ModernBertForMaskedLM",
    "XLNetLMHeadModel",
    "MixtralForCausalLM",
    "Llama4ForCausalLM",
    "MambaForCausalLM",
    "JambaForCausalLM",
    "BartForCausalLM",
)
# Albert calls one block again and again; Qwen3-VL and others may do more between blocks than hand on hidden states.
AT_ONCE = ("AlbertForMaskedLM",)


@pytest.mark.parametrize("name", [*ONE_BY_ONE, *AT_ONCE, "Qwen3VLForConditionalGeneration", "Zamba2ForCausalLM"])
def test_unquantized_blocks_one_by_one_have_the_moments_of_the_model(name: str):
    """A cache that is filled in one call and replayed in the next would change them by a tenth."""
    model = tiny_model(name)
    batches = list(TOKENS.split(1))
    layers = measure.reached(model, source.choose_modules(model), TOKENS).matrices
    whole = measure.InputMoments(layers)
    measure.forward_batches(model, batches, whole)
    blocks = source.find_blocks(model, layers)
    stream = follow(model, [block for _, block in blocks], batches)
    if name in ONE_BY_ONE:
        assert isinstance(stream, BlockStream)
    if name in AT_ONCE:
        assert isinstance(stream, WholeModel)
    hidden = stream.hidden
    seen = 0
    for index, (block, _) in enumerate(blocks):
        mine = {one: layer for one, layer in layers.items() if one.startswith(f"{block}.")}
        moments = measure.InputMoments(mine)
        for _repeat in range(2):  # nothing is kept from call to call
            for batch in range(len(hidden)):
                with moments.record():
                    stream.apply(index, hidden, batch)
        for one in mine:
            wanted = whole.moment(one).matrix
            np.testing.assert_allclose(moments.moment(one).matrix, wanted, atol=1e-6 * np.abs(wanted).max())
            seen += 1
        hidden = stream.advance(index, hidden)
    assert seen >= len(blocks)
    assert all("forward" not in vars(block) for _, block in blocks)


class Nested(nn.Module):
    """A block that counts how often it ran."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, hidden_states, past=None):
        return hidden_states + self.linear(hidden_states) + (0 if past is None else past)


class Skipping(transformers.PreTrainedModel):
    """Each block also takes the sum of all hidden states before it."""

    config_class = transformers.PreTrainedConfig

    def __init__(self, config):
        super().__init__(config)
        self.embed = nn.Embedding(60, 4)
        self.blocks = nn.ModuleList([Nested() for _ in range(3)])

    def forward(self, input_ids):
        hidden, total = self.embed(input_ids), 0
        for block in self.blocks:
            total = total + hidden
            hidden = block(hidden, past=total)
        return BaseModelOutput(last_hidden_state=hidden)


def test_blocks_that_take_more_than_hidden_states_run_in_the_whole_model():
    torch.manual_seed(0)
    model = Skipping(transformers.PreTrainedConfig()).eval()
    stream = follow(model, list(model.blocks), [TOKENS])
    assert isinstance(stream, WholeModel)
    layers = source.choose_modules(model)
    moments = measure.InputMoments(layers)
    with moments.record():
        stream.apply(2, stream.hidden, 0)
    assert all(not moments.borrowed(name) for name in layers)


def test_configs_are_as_before_after_a_run():
    model = tiny_model("LlavaForConditionalGeneration")
    text = model.config.text_config
    before = (text.use_cache, text._experts_implementation, text.pad_token_id)
    with source.calibrating(model):
        assert text.use_cache is False
    source.run(model, TOKENS)
    assert (text.use_cache, text._experts_implementation, text.pad_token_id) == before
    assert before[0] is True
