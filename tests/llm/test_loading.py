"""Weights of a loaded model: decoded once, in threads, counted as those of a dense one, and good for gradients."""

import copy
import pickle
import shutil
import threading
from pathlib import Path
from typing import Any

import accelerate.hooks
import numpy as np
import pytest
import torch
import transformers

import lattq as lq
from benchmarks.architectures import save_source
from lattq import llm
from lattq.errors import DamagedFileError, InvalidInputError
from lattq.llm.run import Encoded, LattqConfig, LattqLinear
from lattq.llm.run.decoding import in_threads
from lattq.llm.run.digests import bind
from lattq.llm.source.decoded import Decoded, settled
from lattq.progress import Stage

TOKENS = torch.tensor([[5, 9, 300, 41, 7]])
KEPT = pytest.mark.filterwarnings("ignore:You passed `quantization_config`")  # `transformers` says what it takes over
DTYPES = [torch.bfloat16, torch.float16, torch.float32, torch.float64]


def load(directory: Path, kind: type = transformers.AutoModelForCausalLM, **options: Any) -> Any:
    return kind.from_pretrained(directory, **options).eval()


def layers_of(model: Any) -> dict[str, LattqLinear]:
    return {name: one for name, one in model.named_modules() if isinstance(one, LattqLinear)}


@pytest.fixture(scope="module")
def experts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A dense mixture of experts and its quantized directory."""
    folder = tmp_path_factory.mktemp("experts")
    save_source("MixtralForCausalLM", folder / "source")
    options = {"calibration_text": llm.embedded_text("calibration")[:4000], "step": 0.05, "samples": 2, "window": 24}
    llm.quantize_model(folder / "source", folder / "out", **options)
    return folder / "source", folder / "out"


@pytest.mark.parametrize("dtype", DTYPES)
def test_weights_are_decoded_into_the_type_asked_for(quantized: Path, dtype: torch.dtype):
    """As torch rounds the reconstruction in float32."""
    model = load(quantized, dtype=dtype)
    for layer in layers_of(model).values():
        assert layer.decoded() is layer.weight
        exact = lq.Quantized.from_payload(layer.payload).dequantize(np.float64)
        wanted = torch.from_numpy(exact) if dtype == torch.float64 else torch.from_numpy(exact).float().to(dtype)
        assert torch.equal(layer.weight, wanted)


@pytest.mark.parametrize("dtype", ["auto", torch.float32])
def test_a_loaded_model_counts_as_a_dense_one(tiny: Path, quantized: Path, dtype: Any):
    model, dense = load(quantized, dtype=dtype), load(tiny, dtype=dtype)
    assert model.num_parameters() == dense.num_parameters()
    assert model.num_parameters(only_trainable=True) < dense.num_parameters(only_trainable=True)
    assert model.get_memory_footprint() == dense.get_memory_footprint()
    held = {one.untyped_storage().data_ptr(): one.nbytes for one in [*model.parameters(), *model.buffers()]}
    assert sum(held.values()) == model.get_memory_footprint()
    assert not any(one.is_meta for one in [*model.parameters(), *model.buffers()])


@KEPT
def test_payloads_are_kept_if_asked_for(quantized: Path, tmp_path: Path):
    kept = load(quantized, quantization_config=LattqConfig(keep_payload=True))
    left = load(quantized)
    payloads = sum(one.encoded.numel() for one in layers_of(kept).values())
    assert payloads == sum(one.payload_bytes for one in layers_of(left).values()) > 0
    assert kept.get_memory_footprint() == left.get_memory_footprint() + payloads
    assert {one.encoded.numel() for one in layers_of(left).values()} == {0}
    for name, model in (("kept", kept), ("left", left)):
        model.save_pretrained(tmp_path / name)
        for file in ("model.safetensors", "config.json"):
            assert (tmp_path / name / file).read_bytes() == (quantized / file).read_bytes()
    with pytest.raises(InvalidInputError, match="keep_payload"):
        LattqConfig(keep_payload="yes")


@KEPT
def test_a_payload_that_was_left_must_still_be_there(quantized: Path, tmp_path: Path):
    """Saving, casting and learning need it; weights that are decoded do not."""
    shutil.copytree(quantized, tmp_path / "here")
    left = load(tmp_path / "here")
    kept = load(tmp_path / "here", quantization_config=LattqConfig(keep_payload=True))
    expected = left(TOKENS).logits
    path = tmp_path / "here" / "model.safetensors"
    blob = bytearray(path.read_bytes())
    blob[-1 - len(blob) // 2 :] = bytes(1 + len(blob) // 2)
    path.unlink()
    assert torch.equal(copy.deepcopy(left)(TOKENS).logits, expected)
    with pytest.raises(InvalidInputError, match=r"q_proj was left in .*here/model\.safetensors.*keep_payload=True"):
        left.save_pretrained(tmp_path / "again")
    kept.save_pretrained(tmp_path / "again")
    path.write_bytes(blob)
    with pytest.raises(DamagedFileError, match=r"which has changed since; .*keep_payload=True"):
        left.state_dict()


def test_saving_over_the_directory_works(quantized: Path, tmp_path: Path):
    shutil.copytree(quantized, tmp_path / "here")
    model = load(tmp_path / "here")
    model.save_pretrained(tmp_path / "here")
    assert (tmp_path / "here" / "model.safetensors").read_bytes() == (quantized / "model.safetensors").read_bytes()


def test_a_relative_directory_is_found_from_elsewhere(quantized: Path, tmp_path: Path, monkeypatch: Any):
    monkeypatch.chdir(quantized.parent)
    model = load(Path(quantized.name))
    monkeypatch.chdir(tmp_path)
    model.save_pretrained(tmp_path / "again")
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (quantized / "model.safetensors").read_bytes()


@pytest.mark.parametrize("switch", ["load", "use"])
def test_nothing_trips_a_backward_pass(quantized: Path, switch: str, monkeypatch: pytest.MonkeyPatch):
    """Weights that were decoded under inference mode, at loading or at the first use, are plain tensors."""
    monkeypatch.setenv("LATTQ_VERIFY", switch)
    with torch.inference_mode():
        model = load(quantized, dtype=torch.float32)
    assert all(one.decoded() is None for one in layers_of(model).values()) == (switch == "use")
    with torch.inference_mode():
        model(TOKENS)
    for layer in layers_of(model).values():
        assert not layer.weight.is_inference()
        x = torch.ones(1, layer.in_features, requires_grad=True)
        bias, layer.bias = layer.bias, None  # an inference tensor, as in every model that is loaded so
        layer(x).sum().backward()
        layer.bias = bias
        assert x.grad is not None
        assert torch.allclose(x.grad[0], layer.weight.sum(0), atol=1e-5)


def test_tensors_made_under_inference_mode_do_trip_one():
    """Negative control."""
    with torch.inference_mode():
        weight, plain = torch.ones(2, 2), settled(lambda: torch.ones(2, 2))
    x = torch.ones(1, 2, requires_grad=True)
    torch.nn.functional.linear(x, plain).sum().backward()
    with pytest.raises(RuntimeError, match="Inference tensors"):
        torch.nn.functional.linear(x, weight)


def test_what_is_learned_on_top_gets_gradients(quantized: Path):
    """Factors of low rank beside a layer, as adapters have them."""
    model = load(quantized, dtype=torch.float32)
    layer = model.model.layers[0].mlp.up_proj
    down, up = (torch.nn.Parameter(torch.full(shape, 0.01)) for shape in ((2, 64), (96, 2)))
    layer.register_forward_hook(lambda module, inputs, output: output + inputs[0] @ down.T @ up.T)
    model(TOKENS).logits.square().sum().backward()
    assert down.grad is not None
    assert float(down.grad.abs().max()) > 0
    assert all(one.grad is None for one in layer.parameters() if one is not layer.bias)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_cast_decodes_anew(quantized: Path, dtype: torch.dtype):
    """Not what is left of bfloat16."""
    model = torch.nn.Module.to(load(quantized), dtype)
    for layer in layers_of(model).values():
        assert layer.decoded() is None
        assert torch.equal(layer.weight, layer.dequantize(dtype))
        assert layer.decoded() is not None


def test_undecoded_layers_move_and_copy(quantized: Path):
    payload = load(quantized).model.layers[0].mlp.up_proj.payload
    layer = LattqLinear(96, 64, payload=payload, dtype=torch.bfloat16)
    for one in (layer.to("cpu"), copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert one.decoded() is None
        assert [name for name, _ in one.named_parameters()] == ["weight"]
        assert torch.equal(one(torch.eye(64, dtype=torch.bfloat16)).T, one.weight)
        assert not any(parameter.requires_grad for parameter in one.parameters())
    assert "weight" not in layer.state_dict()
    assert not any(layer.load_state_dict(layer.state_dict()))  # neither missing nor unexpected


def test_experts_are_one_parameter(experts: tuple[Path, Path]):
    """Whose slices hold payloads and no weights of their own."""
    dense, model = (load(one, transformers.MixtralForCausalLM) for one in experts)
    assert model.num_parameters() == dense.num_parameters()
    assert model.get_memory_footprint() == dense.get_memory_footprint()
    stack = model.model.layers[0].mlp.experts.gate_up_proj
    assert [name for name, _ in stack.named_parameters()] == ["values"]
    for index, one in enumerate(stack.children()):
        assert type(one) is Encoded
        found = one.dequantize(stack.dtype)
        assert torch.equal(stack[index], found.T if stack.transposed else found)


def test_experts_are_decoded_at_first_use_where_the_check_is_deferred(
    experts: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
):
    tokens = torch.tensor([[5, 9, 30, 41, 7]])
    expected = load(experts[1], transformers.MixtralForCausalLM)(tokens).logits
    monkeypatch.setenv("LATTQ_VERIFY", "use")
    model = load(experts[1], transformers.MixtralForCausalLM)
    found = [one for one in model.modules() if isinstance(one, Decoded)]
    assert all(one.decoded() is None for one in found)
    assert torch.equal(model(tokens).logits, expected)
    assert all(one.decoded() is not None for one in found)


@pytest.mark.parametrize("where", ["auto", {"": "cpu"}])
def test_a_map_of_devices_changes_nothing(quantized: Path, where: Any):
    model = load(quantized, device_map=where)
    with torch.no_grad():
        assert torch.equal(model(TOKENS).logits, load(quantized)(TOKENS).logits)


def test_weights_that_are_moved_in_for_each_use_stay_buffers(quantized: Path):
    """Hooks that offload parameters look for them in state dicts."""
    payload = load(quantized).model.layers[0].mlp.up_proj.payload
    for offload, kept in ((False, "named_parameters"), (True, "named_buffers")):
        layer = LattqLinear(96, 64)
        layer.expect_place()
        layer.weight = torch.empty(96, 64)  # as `transformers` places buffers
        accelerate.hooks.add_hook_to_module(layer, accelerate.hooks.AlignDevicesHook("cpu", offload, weights_map={}))
        layer.encoded = torch.frombuffer(bytearray(bind(payload, "run layer")), dtype=torch.uint8)
        layer.expect("run layer", None, keeps=True)
        layer.fill()
        assert "weight" in dict(getattr(layer, kept)())
        assert torch.equal(layer(torch.eye(64)).T, layer.weight)


def test_sizes_are_known_before_anything_is_loaded(tiny: Path, quantized: Path):
    """What `device_map="auto"` asks: bytes of each module of the skeleton."""
    from transformers.integrations.accelerate import compute_module_sizes

    sizes = []

    def sized(model: Any, *others: Any) -> Any:
        sizes.append(dict(compute_module_sizes(model)[0]))
        return {"": "cpu"}

    for directory in (tiny, quantized):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(transformers.modeling_utils, "_get_device_map", sized)
            load(directory, device_map="auto")
    dense, found = sizes
    assert found[""] == dense[""]
    assert found["model.layers.0.mlp.up_proj"] == dense["model.layers.0.mlp.up_proj"] > 0


def test_several_threads_give_the_same_weights(quantized: Path):
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 4):
            torch.set_num_threads(threads)
            found.append({name: one.weight for name, one in layers_of(load(quantized)).items()})
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(weight, other[name]) for name, weight in found[0].items())


def test_jobs_run_beside_each_other_and_are_counted():
    """Two wait for each other, so that one thread alone would never end."""

    class Names:
        def __init__(self) -> None:
            self.seen: list[str] = []

        def begin(self, stage: Stage) -> None:
            self.seen.append(f"{stage.name}, {stage.total}")

        def advance(self, stage: Stage, what: str) -> None:
            self.seen.append(what)

        def end(self, stage: Stage) -> None:
            self.seen.append("end")

    names, meeting, before = Names(), threading.Barrier(2, timeout=60), torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        in_threads({"a": meeting.wait, "b": meeting.wait}, names)
    finally:
        torch.set_num_threads(before)
    assert names.seen == ["Decoding weights, 2", "a", "b", "end"]


def test_the_first_error_is_raised_and_nothing_begins_after_it():
    begun = []

    def fail() -> None:
        raise DamagedFileError(str(len(begun)))

    jobs = {"good": lambda: begun.append(1), "bad": fail, "worse": fail}
    with pytest.raises(DamagedFileError, match="1"):
        in_threads(jobs)
    assert begun == [1]
