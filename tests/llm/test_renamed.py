"""Where files have other names for tensors than the model, payloads have the model's, and every byte of them counts."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors import safe_open

import lattq as lq
from lattq import llm, recipes
from lattq.llm.convert import stages
from lattq.llm.run import attach
from lattq.llm.source import checkpoint, choose_modules
from tests.llm.conftest import TEXT
from tests.test_cli import values
from tests.tiny import save_tokenizer

TOKENS = torch.tensor([[5, 9, 300, 41, 7]])
TEXT_MODEL: dict[str, Any] = {
    "vocab_size": 2048,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 128,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
VISION: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 8,
}


def llava() -> Any:
    config = transformers.LlavaConfig(
        text_config=transformers.LlamaConfig(**TEXT_MODEL),
        vision_config=transformers.CLIPVisionConfig(**VISION, projection_dim=16),
        image_token_index=2000,
    )
    return transformers.LlavaForConditionalGeneration(config)


def gemma3() -> Any:
    config = transformers.Gemma3Config(
        text_config=transformers.Gemma3TextConfig(**TEXT_MODEL, head_dim=16, sliding_window=64),
        vision_config=transformers.SiglipVisionConfig(**VISION),
        mm_tokens_per_image=4,
        image_token_index=2000,
        boi_token_index=2001,
        eoi_token_index=2002,
    )
    return transformers.Gemma3ForConditionalGeneration(config)


def qwen2_vl() -> Any:
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]}
    config = transformers.Qwen2VLConfig(
        text_config={**TEXT_MODEL, "rope_parameters": rope},
        vision_config={"depth": 1, "embed_dim": 32, "hidden_size": 32, "num_heads": 2, "patch_size": 4, "mlp_ratio": 2},
        image_token_id=2000,
        video_token_id=2001,
        vision_start_token_id=2002,
        vision_end_token_id=2003,
    )
    return transformers.Qwen2VLForConditionalGeneration(config)


@pytest.mark.parametrize("make", [llava, gemma3, qwen2_vl])
def test_renamed_tensors_are_counted_and_found(make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    torch.manual_seed(0)
    model = make().to(torch.bfloat16)
    source, out = tmp_path / "source", tmp_path / "out"
    model.save_pretrained(source)
    save_tokenizer(source)
    with safe_open(source / "model.safetensors", framework="pt") as tensors:
        assert not set(tensors.keys()) <= model.state_dict().keys()  # else this shows nothing
    names = [name for name, part in model.named_modules() if isinstance(part, torch.nn.Linear)]
    names = [name for name in names if "language_model.layers" in name]
    expected = watched(monkeypatch)
    report = llm.quantize_model(
        source,
        out,
        rate=4.5,
        modules=names,
        propagate=False,
        window=64,
        samples=4,
        recipe=recipes.huffman_gptq,
        calibration_text=TEXT[:20_000],
    )
    assert abs(report.rate - 4.5) <= stages.TOLERANCE
    assert report.stored_bytes == llm.stored_bytes(out) == expected[-1]
    assert report.stored_bytes > sum(row.rate * row.shape[0] * row.shape[1] for row in report.layers) / 8
    shown = values("inspect", out)
    assert shown["rate"] == report.rate
    assert [row["name"] for row in shown["layers"]] == names

    restored = type(model).from_pretrained(out).eval()
    logits = restored(input_ids=TOKENS).logits
    restored.save_pretrained(tmp_path / "again")
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (out / "model.safetensors").read_bytes()
    dense = restored.dequantize()
    dense.save_pretrained(tmp_path / "dense")
    again = type(model).from_pretrained(tmp_path / "dense").eval()
    assert torch.equal(again(input_ids=TOKENS).logits, logits)
    with (
        safe_open(source / "model.safetensors", framework="pt") as before,
        safe_open(tmp_path / "dense" / "model.safetensors", framework="pt") as after,
    ):
        assert before.keys() == after.keys()


@pytest.mark.parametrize("kind", ["Mixtral", "GptOss"])
def test_tensors_that_loading_merges_are_written_as_they_are_in_the_model(kind: str, tmp_path: Path):
    """Experts are one tensor in the model and many in dense files; a directory holds the one."""
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**TEXT_MODEL, num_local_experts=4, num_experts_per_tok=2)
    model = getattr(transformers, f"{kind}ForCausalLM")(config).eval()
    model.save_pretrained(tmp_path / "source")
    with safe_open(tmp_path / "source" / "model.safetensors", framework="pt") as tensors:
        keys = set(tensors.keys())
    assert checkpoint.unread_tensors(tmp_path / "source", model) == {}
    model = checkpoint.load_model(tmp_path / "source")
    name = "model.layers.1.self_attn.q_proj"
    found = choose_modules(model, [name])
    payload = lq.quantize(found[name].weight, torch.eye(32), recipes.rtn()).payload
    attach(model, found, {name: payload}, "run")
    model.save_pretrained(tmp_path / "out")
    restored = type(model).from_pretrained(tmp_path / "out")
    for (key, mine), (_, theirs) in zip(model.state_dict().items(), restored.state_dict().items(), strict=True):
        assert torch.equal(mine, theirs), key
    logits = restored(TOKENS).logits
    dense = restored.dequantize()
    dense.save_pretrained(tmp_path / "dense")
    with safe_open(tmp_path / "dense" / "model.safetensors", framework="pt") as tensors:
        assert set(tensors.keys()) == keys
    assert torch.equal(type(model).from_pretrained(tmp_path / "dense")(TOKENS).logits, logits)


def watched(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes that a search expects."""
    found, stored = [], stages.Conversion.stored

    def watch(self: stages.Conversion, *sizes: Any) -> int:
        found.append(stored(self, *sizes))
        return found[-1]

    monkeypatch.setattr(stages.Conversion, "stored", watch)
    return found


def test_config_names_the_layers_as_the_model_does(quantized: Path):
    modules = json.loads((quantized / "config.json").read_text())["quantization_config"]["modules"]
    with safe_open(quantized / "model.safetensors", framework="pt") as tensors:
        assert {f"{name}.weight" for name in modules} <= set(tensors.keys())
