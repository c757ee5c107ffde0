"""What is wrong in a source is named: a tensor, a file; nothing raw, nothing read as something else."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from benchmarks.architectures import save_source
from lattq import llm, recipes
from lattq.errors import InvalidInputError
from lattq.llm.source import checkpoint
from tests.llm.conftest import TEXT
from tests.llm.test_sources import reconfigure, rewrite

FAST: dict[str, Any] = {"recipe": recipes.huffman_gptq, "samples": 4, "step": 0.02, "calibration_text": TEXT}
UP = "model.layers.0.mlp.up_proj"


@pytest.fixture
def source(tiny: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model that a test may spoil."""
    return Path(shutil.copytree(tiny, tmp_path / "source"))


def refused(source: Path, match: str) -> None:
    """Neither quantized nor evaluated."""
    with pytest.raises(InvalidInputError, match=match):
        llm.quantize_model(source, source.with_name("out"), **FAST)
    with pytest.raises(InvalidInputError, match=match):
        llm.evaluate(source, TEXT[:8000])
    assert not list(source.parent.glob("out*"))


@pytest.mark.parametrize(
    ("name", "key", "wanted"),
    [
        ("MixtralForCausalLM", "model.layers.1.block_sparse_moe.experts.2.w1.weight", (48, 32)),
        ("Qwen3MoeForCausalLM", "model.layers.0.mlp.experts.3.down_proj.weight", (32, 24)),
        ("GptOssForCausalLM", "model.layers.1.mlp.experts.gate_up_proj", (4, 32, 96)),
    ],
)
def test_an_expert_that_is_missing_or_misshapen_is_named(name: str, key: str, wanted: tuple, tmp_path: Path):
    """As the files name it, also where loading makes one tensor of several."""
    save_source(name, tmp_path)
    short = (*wanted[:-1], 5)
    for change, match in (
        (
            lambda tensors: tensors.update({key: torch.zeros(short)}),
            f"holds {key} with shape {short} instead of {wanted}",
        ),
        (lambda tensors: tensors.pop(key), f"lacks {key}, for {name}"),
    ):
        rewrite(tmp_path, change)
        with pytest.raises(InvalidInputError) as caught:
            checkpoint.load_model(tmp_path)
        assert match in str(caught.value)
        assert "report" not in str(caught.value)


def as_integers(scale: bool) -> Callable[[dict[str, torch.Tensor]], None]:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        weight = tensors[f"{UP}.weight"].float()
        step = weight.abs().amax(1, keepdim=True) / 127
        tensors[f"{UP}.weight"] = (weight / step).round().to(torch.int8)
        if scale:
            tensors[f"{UP}.weight_scale"] = step

    return change


@pytest.mark.parametrize("scale", [True, False])
def test_stored_integers_are_no_weights(source: Path, scale: bool):
    rewrite(source, as_integers(scale))
    refused(source, rf"holds {UP}\.weight in integers.*give the model with dense weights")


@pytest.mark.parametrize("name", [f"{UP}.weight_scale", "layers.0.self_attn.o_proj.bias", "lm_head.input_scale"])
def test_tensors_that_a_layer_does_not_use_raise(source: Path, name: str):
    """Its weight alone would be something else."""
    rewrite(source, lambda tensors: tensors.update({name: torch.ones(64)}))
    if name.endswith("o_proj.bias"):
        reconfigure(source, attention_bias=False)
    refused(source, rf"{name}.*, which the class does not use in that layer, for LlamaForCausalLM")


def test_integers_where_the_model_has_integers_are_read(tmp_path: Path):
    """Positions of BERT, in files of older releases."""
    sizes: dict[str, Any] = {"vocab_size": 99, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1}
    transformers.BertModel(transformers.BertConfig(**sizes, num_attention_heads=2)).save_pretrained(tmp_path)
    rewrite(tmp_path, lambda tensors: tensors.update({"embeddings.position_ids": torch.arange(512)[None]}))
    checkpoint.load_model(tmp_path)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("name", [f"{UP}.weight", "model.norm.weight", "lm_head.weight", "model.embed_tokens.weight"])
def test_a_weight_that_is_not_finite_is_named(source: Path, name: str, value: float):
    def spoil(tensors: dict[str, torch.Tensor]) -> None:
        tensors[name].view(-1)[70 % tensors[name].numel()] = value

    rewrite(source, spoil)
    refused(source, rf"{name} of .* holds {value} at \(")


@pytest.mark.parametrize("content", [b"[]", b"3", b"null", b"\xff\xfe{}", b"{", b'{"model_type": []}'])
def test_a_config_that_is_none_is_said_to_be(source: Path, content: bytes):
    (source / "config.json").write_bytes(content)
    refused(source, r"cannot read config\.json|no model of the type")


def test_a_tokenizer_that_contradicts_itself_is_said_to(source: Path):
    path = source / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    tokenizer["model"] = {"type": "BPE", "vocab": {"a": 0}, "merges": [["b", "c"]]}
    path.write_text(json.dumps(tokenizer))
    refused(source, r"cannot load the tokenizer of .*source")


def test_a_module_at_the_top_of_its_directory_is_no_folder(source: Path, tmp_path: Path):
    (source / "modules.json").write_text('[{"path": ""}, {"path": "."}]')
    llm.quantize_model(source, tmp_path / "out", **FAST)
