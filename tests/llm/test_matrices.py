"""Every kind of matrix reads, writes, observes and replaces itself; experts are seen for the tokens that chose them."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from transformers.pytorch_utils import Conv1D

from benchmarks.architectures import save_source
from benchmarks.classes import ZOO
from lattq import llm
from lattq.errors import DamagedFileError, InvalidInputError
from lattq.llm import measure, source
from lattq.llm.run.layers import LattqLinear
from lattq.llm.source.experts import Stack
from lattq.llm.source.matrices import watching
from tests.llm.conftest import change_config

pytestmark = pytest.mark.filterwarnings("ignore:few calibration tokens")
TOKENS = torch.arange(2, 50).reshape(2, 24)
MIXTURES = ("MixtralForCausalLM", "GptOssForCausalLM", "Llama4ForCausalLM", "JetMoeForCausalLM", "PhimoeForCausalLM")


def tiny_model(name: str):
    kind = getattr(transformers, name)
    torch.manual_seed(0)
    return kind(kind.config_class(**ZOO[name][1])).eval()


def seen(model, layers, tokens=TOKENS) -> dict[str, list[tuple[torch.Tensor, torch.Tensor]]]:
    """Inputs and outputs of each use."""
    uses: dict[str, list[tuple[torch.Tensor, torch.Tensor]]] = {}
    with torch.no_grad(), watching(layers, lambda name, x, y: uses.setdefault(name, []).append((x, y))):
        source.run(model, tokens)
    return uses


@pytest.mark.parametrize("name", ["GPT2LMHeadModel", *MIXTURES])
def test_what_is_seen_of_a_matrix_is_its_product(name: str):
    model = tiny_model(name)
    layers = source.choose_modules(model)
    uses = seen(model, layers)
    assert {matrix.routed for matrix in layers.values()} == ({False} if name[:4] == "GPT2" else {False, True})
    routed = 0
    for one, pairs in uses.items():
        for x, y in pairs:
            assert x.shape[-1] == layers[one].shape[1]
            assert y.shape[-1] == layers[one].shape[0]
            if layers[one].routed:
                routed += len(x)
                wanted = x @ layers[one].weight.T
                rows = y[y.ne(0).any(-1)] if len(y) != len(x) else y  # Llama 4 multiplies every token by every expert
                torch.testing.assert_close(rows, wanted)
    if name in MIXTURES:
        assert routed > 0


@pytest.mark.parametrize("name", ["MixtralForCausalLM", "PhimoeForCausalLM"])
def test_each_token_reaches_as_many_experts_as_it_chooses(name: str):
    model = tiny_model(name)
    layers = source.choose_modules(model)
    uses = seen(model, layers)
    for part in ("gate_up_proj", "down_proj"):
        reached = sum(len(x) for one, pairs in uses.items() if f"layers.0.mlp.experts.{part}" in one for x, _ in pairs)
        assert reached == TOKENS.numel() * model.config.num_experts_per_tok


def test_what_is_written_is_read_and_used():
    for name in ("GPT2LMHeadModel", "MixtralForCausalLM", "GptOssForCausalLM"):
        model = tiny_model(name)
        layers = measure.reached(model, source.choose_modules(model), TOKENS).matrices
        for matrix in layers.values():
            weight = torch.randn(matrix.shape, generator=torch.Generator().manual_seed(0))
            matrix.write(weight)
            assert torch.equal(matrix.weight, weight)
            assert matrix.weight.untyped_storage().data_ptr() == matrix.parameter.untyped_storage().data_ptr()


def test_a_stack_is_its_parameter_to_every_implementation_of_experts(tmp_path: Path):
    """Experts one by one, in batches and in groups, with payloads and dense, give the same."""
    save_source("MixtralForCausalLM", tmp_path / "source")
    options = {"calibration_text": llm.embedded_text("calibration")[:4000], "step": 0.05, "samples": 2, "window": 24}
    llm.quantize_model(tmp_path / "source", tmp_path / "out", **options)
    kind = transformers.MixtralForCausalLM
    model = kind.from_pretrained(tmp_path / "out").eval()
    stack = model.get_submodule("model.layers.0.mlp.experts").gate_up_proj
    assert isinstance(stack, Stack)
    assert stack.shape == (4, 96, 32)
    assert torch.equal(stack[1], stack[torch.tensor([0, 1])][1])
    dense = copy.deepcopy(model).dequantize()
    assert type(dense.model.layers[0].mlp.experts.gate_up_proj) is torch.nn.Parameter
    for implementation in ("eager", "batched_mm", "grouped_mm"):
        for one in (model, dense):
            one.set_experts_implementation(implementation)
        with torch.no_grad():
            assert torch.equal(model(TOKENS).logits, dense(TOKENS).logits)
    half = torch.nn.Module.to(copy.deepcopy(model), torch.bfloat16)
    with torch.no_grad():
        assert half(TOKENS).logits.dtype == torch.bfloat16
    model.save_pretrained(tmp_path / "again")
    again, before = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("again", "out"))
    assert again == before


def test_a_config_that_names_only_some_experts_raises(tmp_path: Path):
    save_source("MixtralForCausalLM", tmp_path / "source")
    options = {"calibration_text": llm.embedded_text("calibration")[:4000], "step": 0.05, "samples": 2, "window": 24}
    llm.quantize_model(tmp_path / "source", tmp_path / "out", **options)
    name = "model.layers.1.mlp.experts.down_proj.2"
    change_config(tmp_path / "out", lambda config: config["quantization_config"]["modules"].pop(name), forged=True)
    with pytest.raises(DamagedFileError, match=r"names .*down_proj\.0 and not .*down_proj\.2"):
        transformers.MixtralForCausalLM.from_pretrained(tmp_path / "out")


def test_conv1d_comes_back_as_conv1d(tmp_path: Path):
    save_source("GPT2LMHeadModel", tmp_path / "source")
    options = {"calibration_text": llm.embedded_text("calibration")[:4000], "step": 0.05, "samples": 2, "window": 24}
    llm.quantize_model(tmp_path / "source", tmp_path / "out", **options)
    model = transformers.GPT2LMHeadModel.from_pretrained(tmp_path / "out").eval()
    assert isinstance(model.get_submodule("transformer.h.0.mlp.c_fc"), LattqLinear)
    dense = copy.deepcopy(model).dequantize()
    assert type(dense.transformer.h[0].mlp.c_fc) is Conv1D
    with torch.no_grad():
        torch.testing.assert_close(model(TOKENS).logits, dense(TOKENS).logits)


@pytest.mark.parametrize("name", ["Llama4ForCausalLM", "PhimoeForCausalLM"])
def test_routers_that_are_more_than_linear_layers_stay(name: str):
    model = tiny_model(name)
    routers = [one for one, module in model.named_modules() if isinstance(module, torch.nn.Linear) and "router" in one]
    assert routers
    assert not set(routers) & source.matrices(model).keys()


def test_an_expert_without_tokens_has_the_moment_of_its_siblings():
    model = tiny_model("MixtralForCausalLM")
    layers = measure.reached(model, source.choose_modules(model), TOKENS).matrices
    few = TOKENS[:1, :1]  # one token chooses two of four experts
    moments = measure.InputMoments(layers)
    measure.forward_batches(model, [few], moments)
    names = [f"model.layers.0.mlp.experts.gate_up_proj.{index}" for index in range(4)]
    without = [name for name in names if moments.borrowed(name)]
    assert len(without) == 2
    chosen = [moments.moment(name).matrix for name in names if name not in without]
    for name in without:
        np.testing.assert_allclose(moments.moment(name).matrix, np.mean(chosen, axis=0), rtol=1e-6)


def test_patterns_choose_layers():
    model = tiny_model("MixtralForCausalLM")
    every = source.choose(model).matrices
    assert not any("lm_head" in name for name in every)
    some = source.choose(model, include=["lm_head", "*.q_proj"]).matrices
    assert set(some) == {"lm_head"} | {f"model.layers.{layer}.self_attn.q_proj" for layer in range(2)}
    less = source.choose(model, exclude=["*.experts.*", "*.0.self_attn.?_proj"])
    assert set(less.matrices) == {f"model.layers.1.self_attn.{part}_proj" for part in "qkvo"}
    assert less.reasons["model.layers.0.self_attn.q_proj"] == "excluded"
    assert less.reasons["lm_head"] == "outside the blocks"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"include": ["*.w1"]}, r"`include` holds '\*\.w1', which no linear layer matches"),
        ({"exclude": ["nothing"]}, "`exclude` holds 'nothing'"),
        ({"exclude": "*.q_proj"}, "`exclude` is the text"),
        ({"exclude": ["*"]}, "no linear layers"),
        ({"exclude": ["*.gate_up_proj.1"]}, "experts of one parameter stay together"),
    ],
)
def test_unusable_patterns_raise(options: dict, message: str):
    with pytest.raises(InvalidInputError, match=message):
        source.choose(tiny_model("MixtralForCausalLM"), **options)


@pytest.mark.parametrize(
    ("name", "window"),
    [
        ("RobertaForMaskedLM", 64),
        ("XLMRobertaModel", 64),
        ("MPNetForMaskedLM", 64),
        ("GPTJForCausalLM", 64),
        ("CodeGenForCausalLM", 64),
        ("MptForCausalLM", 64),
        ("BertModel", 64),
        ("GPT2LMHeadModel", 64),
        ("OPTForCausalLM", 64),
        ("BloomForCausalLM", 2048),
    ],
)
def test_the_default_window_is_the_longest_that_a_class_takes(name: str, window: int):
    model = tiny_model(name)
    assert source.longest_window(model) == window
    with torch.no_grad():
        source.run(model, torch.full((1, min(window, 64)), 5))
    if name in ("RobertaForMaskedLM", "BertModel", "GPT2LMHeadModel"):
        with pytest.raises(InvalidInputError, match=f"on {window + 1} tokens"):
            source.run(model, torch.full((1, window + 1), 5))
