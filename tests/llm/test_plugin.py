"""Quantized directories load, save, dequantize and generate; damaged ones and forgotten imports fail loudly."""

import copy
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
import transformers

import lattq as lq
from benchmarks.architectures import save_source
from lattq import llm
from lattq.errors import DamagedFileError, InvalidInputError
from lattq.llm.run.layers import LattqLinear
from lattq.llm.run.plugin import register
from lattq.llm.source.matrices import replace
from tests.llm.conftest import change_config

TOKENS = torch.tensor([[5, 9, 300, 41, 7]])


def load(directory: Path, kind: type = transformers.AutoModelForCausalLM, **options):
    return kind.from_pretrained(directory, **options).eval()


@torch.no_grad()
def logits(model) -> torch.Tensor:
    return model(TOKENS).logits


def tensors(directory: Path) -> dict[str, torch.Tensor]:
    found = {}
    for path in directory.glob("*.safetensors"):
        found |= safetensors.torch.load_file(path)
    return found


def test_only_the_linear_weights_of_the_blocks_change(tiny: Path, quantized: Path):
    before, after = tensors(tiny), tensors(quantized)
    assert before.keys() == after.keys()
    changed = {key for key in before if before[key].dtype != after[key].dtype}
    assert len(changed) == 14
    assert all(key.startswith("model.layers.") and key.endswith("_proj.weight") for key in changed)
    assert all(after[key].dtype == torch.uint8 and after[key].ndim == 1 for key in changed)
    assert all(torch.equal(before[key], after[key]) for key in before.keys() - changed)


def test_loaded_layers_compute_with_the_decoded_weights(tiny: Path, quantized: Path):
    model = load(quantized, dtype=torch.float32)
    dense = load(tiny, dtype=torch.float32)
    for name, layer in list(model.named_modules()):
        if isinstance(layer, LattqLinear):
            weight = lq.Quantized.from_payload(layer.payload).dequantize()
            dense.get_submodule(name).weight.data = torch.from_numpy(weight)
    assert torch.equal(logits(model), logits(dense))


def test_two_round_trips_keep_every_byte(quantized: Path, tmp_path: Path):
    directory = quantized
    for name in ("first", "second"):
        load(directory).save_pretrained(tmp_path / name)
        directory = tmp_path / name
        assert (directory / "model.safetensors").read_bytes() == (quantized / "model.safetensors").read_bytes()
        assert json.loads((directory / "config.json").read_text()) == json.loads(
            (quantized / "config.json").read_text()
        )
    assert torch.equal(logits(load(directory)), logits(load(quantized)))


def test_shards_are_written_and_read(quantized: Path, tmp_path: Path):
    load(quantized).save_pretrained(tmp_path, max_shard_size="60KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
    assert torch.equal(logits(load(tmp_path)), logits(load(quantized)))


def test_dequantize_gives_dense_layers_of_the_same_values(quantized: Path, tmp_path: Path):
    model = load(quantized)
    expected = logits(model)
    dense = model.dequantize()
    assert not any(isinstance(layer, LattqLinear) for layer in dense.modules())
    assert dense.model.layers[0].mlp.up_proj.weight.dtype == torch.bfloat16
    assert torch.equal(logits(dense), expected)
    dense.save_pretrained(tmp_path)
    assert torch.equal(logits(load(tmp_path)), expected)


def test_generate(quantized: Path):
    model = load(quantized)
    assert model.generate(TOKENS, max_new_tokens=4, do_sample=False).shape == (1, 9)


def test_the_base_model_loads_and_saves_too(quantized: Path, tmp_path: Path):
    base = load(quantized, transformers.AutoModel)
    assert isinstance(base.layers[1].mlp.up_proj, LattqLinear)
    base.save_pretrained(tmp_path)
    again = load(tmp_path, transformers.AutoModel)
    with torch.no_grad():
        expected = load(quantized).model(TOKENS).last_hidden_state
        assert torch.equal(base(TOKENS).last_hidden_state, expected)
        assert torch.equal(again(TOKENS).last_hidden_state, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_cast_leaves_payloads_alone(quantized: Path, dtype: torch.dtype):
    model = load(quantized)
    before = model.model.layers[0].mlp.up_proj.payload
    model = copy.deepcopy(model)
    torch.nn.Module.to(model, dtype)
    assert logits(model).dtype == dtype
    assert model.model.layers[0].mlp.up_proj.payload == before


def test_a_layer_shows_its_decoded_weight(quantized: Path):
    """Code of a class asks for dtype, device and values of a weight, and may cast its inputs to that dtype."""
    model = load(quantized)
    layer = model.model.layers[0].mlp.up_proj
    assert layer.weight.dtype == torch.bfloat16
    assert torch.equal(layer.weight, layer.dequantize(torch.bfloat16))
    assert layer.weight is layer.weight  # decoded once
    torch.nn.Module.to(model, torch.float32)
    assert layer.weight.dtype == torch.float32
    assert layer.weight.shape == (96, 64)
    assert layer.encoded.dtype == torch.uint8


def test_layers_that_a_class_keeps_in_float32_stay_so(tmp_path: Path):
    """T5 multiplies by `wo` in float32 when all else is float16."""
    save_source("T5EncoderModel", tmp_path / "source")
    options = {"calibration_text": llm.embedded_text("calibration")[:4000], "step": 0.05, "samples": 8, "window": 32}
    llm.quantize_model(tmp_path / "source", tmp_path / "out", include=["*.wo"], **options)
    model = load(tmp_path / "out", transformers.T5EncoderModel, dtype=torch.float16)
    dense = load(tmp_path / "source", transformers.T5EncoderModel, dtype=torch.float16)
    for part in (model, dense):
        assert part.encoder.block[0].layer[1].DenseReluDense.wo.weight.dtype == torch.float32
    with torch.no_grad():
        wanted = dense.encoder(input_ids=torch.tensor([[5, 9, 30]])).last_hidden_state
        found = model.encoder(input_ids=torch.tensor([[5, 9, 30]])).last_hidden_state
    assert found.dtype == wanted.dtype
    assert (found - wanted).norm() < 0.2 * wanted.norm()


def test_a_layer_survives_pickle_and_state_dict(quantized: Path):
    layer = load(quantized).model.layers[0].self_attn.q_proj
    again = pickle.loads(pickle.dumps(layer))
    fresh = LattqLinear(layer.out_features, layer.in_features, bias=True).to(torch.bfloat16)
    fresh.load_state_dict(layer.state_dict())
    x = torch.ones(1, 64, dtype=torch.bfloat16)
    assert torch.equal(again(x), layer(x))
    assert torch.equal(fresh(x), layer(x))
    assert set(layer.state_dict()) == {"encoded", "bias"}


def test_registering_twice_is_harmless():
    register()


SCRIPT = """
import sys, transformers
try:
    transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1])
except RuntimeError as error:
    assert "ignore_mismatched_sizes" in str(error), error
else:
    sys.exit("loaded without lattq")
import lattq.llm
transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1])
"""


def test_without_the_import_loading_raises(quantized: Path):
    command, environment = [sys.executable, "-c", SCRIPT, str(quantized)], os.environ | {"HF_HUB_OFFLINE": "1"}
    found = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert found.returncode == 0, found.stderr


@pytest.fixture
def copied(quantized: Path, tmp_path: Path) -> Path:
    for path in quantized.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def payload_spans(path: Path) -> list[tuple[int, int]]:
    blob = path.read_bytes()
    size = int.from_bytes(blob[:8], "little")
    header = json.loads(blob[8 : 8 + size])
    header.pop("__metadata__", None)
    spans = [entry["data_offsets"] for entry in header.values() if entry["dtype"] == "U8"]
    return [(8 + size + start, 8 + size + end) for start, end in spans]


def test_a_flipped_bit_in_a_payload_raises(copied: Path):
    path = copied / "model.safetensors"
    blob, spans = path.read_bytes(), payload_spans(path)
    rng = np.random.default_rng(0)
    for start, end in spans[::3]:
        place = int(rng.integers(start, end))
        damaged = bytearray(blob)
        damaged[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        with pytest.raises(DamagedFileError, match=r"layer model\.layers\..*hash"):
            load(copied)
    path.write_bytes(blob)
    load(copied)


def test_a_truncated_file_raises(copied: Path):
    path = copied / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DamagedFileError, match="truncated"):
        load(copied)


def test_a_missing_payload_raises(copied: Path):
    path = copied / "model.safetensors"
    found = safetensors.torch.load_file(path)
    del found["model.layers.0.mlp.up_proj.weight"]
    safetensors.torch.save_file(found, path, {"format": "pt"})
    with pytest.raises(DamagedFileError, match="up_proj"):
        load(copied)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 2}, "format version 2"),
        ({"format_version": "1"}, "format version '1'"),
        ({"modules": ["model.norm"]}, r"`modules` in config.json is \"\['model.norm'\]\""),
        ({"modules": {"model.layers.0.mlp.up_proj": "96x"}}, "rows x columns"),
        ({"modules": {"model.layers.0.mlp.up_proj": "96x65"}}, "96x65"),
        ({"modules": {"model.norm": "96x64"}}, "model.norm"),
    ],
)
def test_a_wrong_config_raises(copied: Path, change: dict, message: str):
    """Also one whose digest fits."""
    change_config(copied, lambda config: config["quantization_config"].update(change), forged=True)
    with pytest.raises(DamagedFileError, match=message):
        load(copied)


def test_a_model_without_the_layers_raises(copied: Path):
    modules = {"elsewhere": "96x64"}
    change_config(copied, lambda config: config["quantization_config"].update(modules=modules), forged=True)
    with pytest.raises(DamagedFileError, match="lists the layer elsewhere; a LlamaForCausalLM of its sizes"):
        load(copied)
    with pytest.raises(InvalidInputError, match="none of the quantized layers"):
        load(copied, transformers.AutoModel)


def test_replacing_a_module_that_does_not_exist_raises():
    with pytest.raises(InvalidInputError, match="nowhere"):
        replace(torch.nn.Linear(2, 2), "nowhere", torch.nn.Identity())
