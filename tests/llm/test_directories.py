"""A quantized directory holds what was written, bound to layer and run, and nothing else of it counts."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from lattq import llm, recipes
from lattq.errors import DamagedFileError, InvalidInputError
from lattq.llm.run import block_of, verified_payloads
from lattq.llm.run.digests import bind, context, digest_of_files, digest_of_state, unbind
from lattq.llm.source import read_config, weight_files
from lattq.llm.source.weights import DTYPES
from tests.llm.conftest import TEXT, change_config
from tests.test_cli import error

TOKENS = torch.tensor([[5, 9, 300, 41, 7]])
LAYER = "model.layers.{}.self_attn.q_proj.weight"
FAST: dict[str, Any] = {"recipe": recipes.huffman_gptq, "samples": 4, "calibration_text": TEXT}


def load(directory: Path, kind: Any = transformers.AutoModelForCausalLM) -> Any:
    return kind.from_pretrained(directory).eval()


def verify(directory: Path) -> None:
    """What loading checks, without a model."""
    verified_payloads(block_of(read_config(directory), directory), weight_files(directory))


@pytest.fixture
def copied(quantized: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(quantized, tmp_path / "copied"))


@pytest.fixture(scope="module")
def other_run(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model and recipe at another step."""
    out = tmp_path_factory.mktemp("other") / "out"
    llm.quantize_model(tiny, out, step=0.03, **FAST)
    return out


def tensors_of(directory: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(directory / "model.safetensors")


def write(directory: Path, tensors: dict[str, torch.Tensor]) -> None:
    safetensors.torch.save_file(tensors, directory / "model.safetensors", {"format": "pt"})


def swap(tensors: dict[str, torch.Tensor], a: str, b: str) -> None:
    tensors[a], tensors[b] = tensors[b].clone(), tensors[a].clone()


def test_swapped_payloads_raise(copied: Path, monkeypatch: pytest.MonkeyPatch):
    """Each is whole and fits; it stands for the other layer. A deferred check finds that when the layer is used."""
    tensors = tensors_of(copied)
    swap(tensors, LAYER.format(0), LAYER.format(1))
    write(copied, tensors)
    with pytest.raises(DamagedFileError, match=r"layer model\.layers\.0\.self_attn\.q_proj.*another layer or run"):
        load(copied)
    monkeypatch.setenv("LATTQ_VERIFY", "use")
    model = load(copied)
    with pytest.raises(DamagedFileError, match="another layer or run"):
        model(TOKENS)
    with pytest.raises(DamagedFileError, match="another layer or run"):
        model.state_dict()


def test_a_payload_of_another_run_raises(copied: Path, other_run: Path):
    tensors = tensors_of(copied)
    tensors[LAYER.format(1)] = tensors_of(other_run)[LAYER.format(1)]
    write(copied, tensors)
    with pytest.raises(DamagedFileError, match=r"layer model\.layers\.1\.self_attn\.q_proj.*another layer or run"):
        load(copied)


def test_a_shard_of_another_run_raises(quantized: Path, other_run: Path, tmp_path: Path):
    """Shards of the same layers, each whole."""
    for directory, name in ((quantized, "mine"), (other_run, "theirs")):
        load(directory).save_pretrained(tmp_path / name, max_shard_size="40KB")
    raised = 0
    for path in sorted((tmp_path / "mine").glob("*.safetensors")):
        other, own = tmp_path / "theirs" / path.name, path.read_bytes()
        if tensors_of_file(other).keys() == tensors_of_file(path).keys() and other.read_bytes() != own:
            shutil.copyfile(other, path)
            with pytest.raises(DamagedFileError, match=r"another layer or run|of another run"):
                load(tmp_path / "mine")
            path.write_bytes(own)
            raised += 1
    assert raised
    load(tmp_path / "mine")


@given(data=st.data())
@settings(max_examples=60)
def test_every_bit_of_every_tensor_is_checked(quantized: Path, tmp_path_factory: pytest.TempPathFactory, data: Any):
    folder = tmp_path_factory.mktemp("flipped")
    shutil.copyfile(quantized / "config.json", folder / "config.json")
    blob = bytearray((quantized / "model.safetensors").read_bytes())
    start = 8 + int.from_bytes(blob[:8], "little")
    blob[data.draw(st.integers(start, len(blob) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    (folder / "model.safetensors").write_bytes(blob)
    with pytest.raises(DamagedFileError):
        verify(folder)
    shutil.rmtree(folder)


def test_a_flipped_bit_of_an_embedding_raises(copied: Path, monkeypatch: pytest.MonkeyPatch):
    tensors = tensors_of(copied)
    tensors["model.embed_tokens.weight"].view(torch.int16)[7, 3] ^= 1
    write(copied, tensors)
    with pytest.raises(DamagedFileError, match="altered, missing, added, or of another run"):
        load(copied)
    monkeypatch.setenv("LATTQ_VERIFY", "use")  # then only payloads are checked
    load(copied)(TOKENS)


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t.pop("model.norm.weight"),
        lambda t: t.update(extra=torch.zeros(2)),
        lambda t: swap(t, "model.layers.0.input_layernorm.weight", "model.layers.1.input_layernorm.weight"),
        lambda t: t.update({"model.norm.weight": t["model.norm.weight"].view(torch.float16)}),
        lambda t: t.update({"model.embed_tokens.weight": t["model.embed_tokens.weight"].reshape(64, 2048)}),
    ],
)
def test_changed_tensors_raise(copied: Path, change: Any):
    tensors = tensors_of(copied)
    change(tensors)
    write(copied, tensors)
    with pytest.raises(DamagedFileError, match="config"):
        load(copied)


def test_a_missing_digest_raises(copied: Path):
    change_config(copied, lambda config: config["quantization_config"].pop("digest"), forged=True)
    with pytest.raises(DamagedFileError, match="not those that config"):
        load(copied)


@pytest.mark.parametrize(
    "change",
    [
        lambda config: config.update(num_hidden_layers=3),
        lambda config: config.update(num_hidden_layers=1),
        lambda config: config.update(rms_norm_eps=1.0),
        lambda config: config.pop("rope_parameters"),
        lambda config: config["quantization_config"]["modules"].pop(LAYER.format(0).removesuffix(".weight")),
        lambda config: config["quantization_config"].update(run="0" * 16),
        lambda config: config["quantization_config"].pop("config_digest"),
    ],
)
@pytest.mark.parametrize("switch", ["load", "use"])
def test_a_changed_config_raises(copied: Path, change: Any, switch: str, monkeypatch: pytest.MonkeyPatch):
    """It decides what the tensors mean: how many layers, which of them are quantized, what they compute."""
    monkeypatch.setenv("LATTQ_VERIFY", switch)
    change_config(copied, change)
    for use in (load, llm.stored_bytes, verify):
        with pytest.raises(DamagedFileError, match=r"config\.json of .* is not the one that was written"):
            use(copied)
    assert "is not the one that was written" in error("inspect", copied)


def test_layers_that_are_dropped_by_an_argument_raise(quantized: Path):
    with pytest.raises(DamagedFileError, match=r"lists the layer model\.layers\.1\."):
        transformers.AutoModelForCausalLM.from_pretrained(quantized, num_hidden_layers=1)


@pytest.mark.parametrize("modules", [None, {}])
def test_a_directory_without_quantized_layers_is_none(copied: Path, modules: Any):
    change_config(copied, lambda config: config["quantization_config"].update(modules=modules), forged=True)
    with pytest.raises(InvalidInputError, match="holds no quantized layers"):
        llm.stored_bytes(copied)
    assert "holds no quantized layers" in error("inspect", copied)


def test_what_a_load_may_choose_is_free(quantized: Path, copied: Path, tmp_path: Path):
    """The type of numbers, how attention is computed, the class; and a config that was loaded and saved."""
    for options in ({"dtype": torch.float32}, {"attn_implementation": "eager"}, {"torch_dtype": "float16"}):
        model = transformers.AutoModelForCausalLM.from_pretrained(quantized, **options)
        model.save_pretrained(tmp_path / "again")
        load(tmp_path / "again")
        shutil.rmtree(tmp_path / "again")
    load(quantized, transformers.AutoModel).save_pretrained(tmp_path / "base")
    load(tmp_path / "base", transformers.AutoModel)
    transformers.AutoConfig.from_pretrained(quantized).save_pretrained(copied)
    load(copied)
    free = {"transformers_version": "4.0.0", "dtype": "float32", "_name_or_path": "elsewhere"}
    change_config(copied, lambda config: config.update(free))
    load(copied)


def test_an_index_that_leads_outside_raises(copied: Path, tmp_path: Path):
    """Also where `transformers` reads it, and whatever is there."""
    (copied / "model.safetensors").rename(tmp_path / "elsewhere.safetensors")
    names = dict.fromkeys(tensors_of_file(tmp_path / "elsewhere.safetensors"), "../elsewhere.safetensors")
    index = {"metadata": {}, "weight_map": names}
    (copied / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(InvalidInputError, match="outside"):
        load(copied)
    with pytest.raises(InvalidInputError, match="outside"):
        llm.stored_bytes(copied)


def tensors_of_file(path: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(path)


def test_files_that_are_not_loaded_do_not_count(copied: Path, other_run: Path, quantized: Path):
    shutil.copyfile(other_run / "model.safetensors", copied / "old.safetensors")
    index = {"metadata": {}, "weight_map": {LAYER.format(0): "old.safetensors"}}
    (copied / "model.safetensors.index.json").write_text(json.dumps(index))
    assert llm.stored_bytes(copied) == llm.stored_bytes(quantized)
    assert torch.equal(load(copied)(TOKENS).logits, load(quantized)(TOKENS).logits)


def test_shards_hold_the_same_content(quantized: Path, tmp_path: Path):
    """The digest is of tensors, not of files: other tools may spread them otherwise."""
    load(quantized).save_pretrained(tmp_path, max_shard_size="40KB")
    assert digest_of_files(weight_files(tmp_path)) == digest_of_files(weight_files(quantized))
    assert read_config(tmp_path)["quantization_config"] == read_config(quantized)["quantization_config"]


def test_a_changed_model_saves_with_a_new_digest(quantized: Path, tmp_path: Path):
    model = load(quantized)
    torch.nn.init.ones_(model.model.norm.weight)
    model.save_pretrained(tmp_path)
    assert torch.equal(load(tmp_path)(TOKENS).logits, model(TOKENS).logits)
    assert read_config(tmp_path)["quantization_config"] != read_config(quantized)["quantization_config"]


def test_a_deferred_check_changes_nothing_else(quantized: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LATTQ_VERIFY", "use")
    model = load(quantized)
    model.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").read_bytes() == (quantized / "model.safetensors").read_bytes()
    assert torch.equal(load(tmp_path)(TOKENS).logits, model(TOKENS).logits)
    monkeypatch.setenv("LATTQ_VERIFY", "never")
    with pytest.raises(InvalidInputError, match="LATTQ_VERIFY is 'never'"):
        load(quantized)


@given(st.lists(st.tuples(st.sampled_from(sorted(DTYPES)), st.lists(st.integers(0, 3), max_size=3)), max_size=5))
def test_digests_of_states_and_files_agree(tmp_path_factory: pytest.TempPathFactory, parts: list):
    rng = np.random.default_rng(0)
    state = {}
    for index, (dtype, shape) in enumerate(parts):
        raw = rng.integers(0, 2, (*shape, DTYPES[dtype].itemsize), dtype=np.uint8)
        state[f"t{index}"] = torch.from_numpy(raw).reshape(-1).view(DTYPES[dtype]).reshape(shape)
    folder = tmp_path_factory.mktemp("digests")
    safetensors.torch.save_file(state, folder / "a.safetensors")
    assert digest_of_files([folder / "a.safetensors"]) == digest_of_state(state)
    if state:
        assert digest_of_state({**state, "t0": state["t0"][None]}) != digest_of_state(state)
        assert digest_of_state({f"{key} ": tensor for key, tensor in state.items()}) != digest_of_state(state)


@given(body=st.binary(max_size=40), one=st.text(max_size=4), other=st.text(max_size=4))
def test_a_bound_payload_is_read_in_its_context_alone(quantized: Path, body: bytes, one: str, other: str):
    """The payload of a layer, damaged or not, is what was bound, or nothing."""
    payload = next(iter(verified_payloads(block_of(read_config(quantized), ""), weight_files(quantized)).values()))
    bound = bind(payload, context("run", one))
    assert unbind(bound, context("run", one)) == payload
    for changed in (bound[: len(body)], body, bound + b"\0", payload):
        with pytest.raises(DamagedFileError, match="hash"):
            unbind(changed, context("run", one))
    if one != other:
        with pytest.raises(DamagedFileError, match="hash"):
            unbind(bound, context("run", other))
