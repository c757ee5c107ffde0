"""Layers and models that round their inputs: products, calibration, directories, and what stands in their way."""

import copy
import dataclasses
import functools
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st

import lattq as lq
from lattq import llm, recipes
from lattq.errors import DamagedFileError, InvalidInputError
from lattq.linalg.effective import effective_weight
from lattq.llm.convert import passes
from lattq.llm.convert.rounded import CLIPS, InputSettings, RoundedInputs, measured, rounding
from lattq.llm.run import InputRounding, LattqLinear, block_of
from lattq.llm.source import read_config
from lattq.llm.source.matrices import matrices
from lattq.transforms import WUSH, Equalize, Fixed, Hadamard, Outliers, then
from lattq.transforms.designs import Sort
from lattq.transforms.maps import Diagonal
from tests.llm.conftest import TEXT, change_config

TOKENS = torch.tensor([[5, 9, 300, 41, 7]])
FAST: dict[str, Any] = {"samples": 8, "calibration_text": TEXT}
DESIGNS = {
    "none": lq.Scheme().transform,
    "rotation": Hadamard(3),
    "diagonal": Fixed(Diagonal(np.linspace(0.5, 2.0, 16).astype(np.float32).astype(np.float64))),
    "blocks": WUSH(4),
    "chain": then(Sort(), Hadamard(1), WUSH(4)),
}


def rotated(levels: int) -> lq.Scheme:
    """Round to nearest behind a rotation that stays."""
    return dataclasses.replace(recipes.rtn(levels, group=None), transform=Hadamard(1))


def load(directory: Path, kind: Any = transformers.AutoModelForCausalLM, **options: Any) -> Any:
    return kind.from_pretrained(directory, **options).eval()


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    return model(TOKENS).logits


def files(directory: Path) -> dict[str, bytes]:
    """Contents of every file but the report, whose times differ."""
    return {one.name: one.read_bytes() for one in directory.iterdir() if one.is_file() and "report" not in one.name}


@pytest.fixture(scope="module")
def rounded(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with a rotation and four bits for weights and inputs."""
    out = tmp_path_factory.mktemp("rounded") / "out"
    llm.quantize_model(tiny, out, recipe=rotated, levels=16, input_bits=4, **FAST)
    return out


def layer_of(design: Any, rows: int = 6, **options: Any) -> tuple[LattqLinear, lq.Quantized, torch.Tensor]:
    """A layer with a bias, what it holds, and inputs for it."""
    rng = np.random.default_rng(0)
    weight, x = rng.standard_normal((rows, 16)), rng.standard_normal((5, 16)) * np.geomspace(0.2, 5, 16)
    scheme = lq.Scheme(transform=design, quantizer=lq.quantizers.AbsMax(levels=256))
    quantized = lq.quantize(weight, x.T @ x / 5, scheme)
    layer = LattqLinear(rows, 16, bias=True, payload=quantized.payload, **options)
    assert layer.bias is not None
    torch.nn.init.normal_(layer.bias, generator=torch.Generator().manual_seed(0))
    return layer, quantized, torch.from_numpy(x.astype(np.float32))


@pytest.mark.parametrize("name", DESIGNS)
@pytest.mark.parametrize("bits", [3, 8])
def test_a_product_is_that_of_rounded_inputs_in_the_coordinates_of_the_transform(name: str, bits: int):
    """Against matrices in float64; rounding in other coordinates gives other outputs."""
    how = InputRounding(bits, clip=0.9)
    layer, quantized, x = layer_of(DESIGNS[name], inputs=how)
    matrix = quantized.transform.on_inputs(np.eye(16))  # Tᵀ
    codes = how(torch.from_numpy(x.double().numpy() @ matrix)).numpy()
    weight = quantized.dequantize(np.float64) @ np.linalg.inv(matrix.T)
    with torch.no_grad():
        assert layer.bias is not None
        found, bias = layer(x), layer.bias.double().numpy()
    expected = codes @ weight.T + bias
    assert np.abs(found.double().numpy() - expected).max() < 1e-4 * np.abs(expected).max()
    plain = how(x).double().numpy() @ quantized.dequantize(np.float64).T + bias
    assert (np.abs(plain - expected).max() > 1e-3) == (name != "none")
    with torch.no_grad():
        batched = layer(x.reshape(5, 1, 16))
    assert torch.equal(batched, found.reshape(5, 1, 6))


def test_at_eight_bits_hardly_anything_is_lost():
    for design in DESIGNS.values():
        layer, quantized, x = layer_of(design, inputs=InputRounding(8))
        dense = torch.nn.functional.linear(x, torch.from_numpy(quantized.dequantize()), layer.bias)
        assert (layer(x) - dense).norm() < 0.02 * dense.norm()


def test_a_transform_that_cannot_act_on_inputs_is_refused(tiny: Path, tmp_path: Path):
    layer, _, x = layer_of(Outliers(0.05), inputs=InputRounding(4))
    with pytest.raises(InvalidInputError, match="sparse part"):
        layer(x)
    options = {"recipe": recipes.squeezellm, "bits": 3, "input_bits": 4, **FAST}
    with pytest.raises(InvalidInputError, match=r"layer model\.layers\.0\.self_attn\.q_proj: a sparse part"):
        llm.quantize_model(tiny, tmp_path / "out", **options)


def test_a_layer_keeps_its_rounding(tmp_path: Path):
    layer, _, x = layer_of(Hadamard(3), inputs=InputRounding(4, clip=0.8))
    assert "inputs=InputRounding(bits=4, symmetric=False, clip=0.8)" in repr(layer)
    expected = layer(x)
    for again in (pickle.loads(pickle.dumps(layer)), copy.deepcopy(layer)):
        assert torch.equal(again(x), expected)
    half = copy.deepcopy(layer).to(torch.float16)
    assert half(x.half()).dtype == torch.float16
    assert (half(x.half()).float() - expected).norm() < 0.02 * expected.norm()
    assert torch.equal(layer.to(torch.float32)(x), expected)
    fresh = LattqLinear(6, 16, bias=True, inputs=layer.inputs)
    fresh.load_state_dict(layer.state_dict())
    assert torch.equal(fresh(x), expected)


@given(seed=st.integers(0, 2**32 - 1), bits=st.integers(2, 8))
def test_a_searched_clip_is_never_worse_than_none(seed: int, bits: int):
    """And no other of those tried is better, by outputs in float64."""
    rng = np.random.default_rng(seed)
    x = rng.standard_t(4, (40, 8)) * np.exp(rng.standard_normal(8))
    weight, sigma = rng.standard_normal((5, 8)), x.T @ x / len(x)
    transform = Hadamard(seed % 7)
    scheme = lq.Scheme(transform=transform)
    found = InputSettings(bits).design(scheme, weight, sigma, torch.from_numpy(x))
    moved, turned = torch.from_numpy(transform.on_inputs(x)), transform.forward(weight)

    def error(clip: float) -> float:
        noise = (InputRounding(bits, clip=clip)(moved) - moved).numpy()
        return float(np.einsum("ri,ij,rj->", turned, noise.T @ noise / len(x), turned))

    errors = {clip: error(clip) for clip in CLIPS}
    assert errors[found.rounding.clip] <= min(errors.values()) * (1 + 1e-9)
    assert errors[found.rounding.clip] <= errors[1.0]
    given = InputSettings(bits, clip=0.7).design(scheme, weight, sigma, torch.from_numpy(x))
    assert given.rounding.clip == 0.7


def test_moments_are_those_of_what_the_layers_see(tiny: Path):
    """E[x̂ x̂ᵀ] and E[x x̂ᵀ] by hooks of this test; q, k and v have one x and each its own x̂."""
    model = load(tiny, dtype=torch.float32)
    layers = {name: one for name, one in matrices(model).items() if "layers.0.self_attn" in name}
    inputs = {name: RoundedInputs(Hadamard(i), InputRounding(3 + i)) for i, name in enumerate(layers)}
    pairs: dict[str, list[torch.Tensor]] = {name: [] for name in layers}

    def forward(batch: int) -> None:
        model(TOKENS + batch)

    with torch.no_grad():
        moments, _ = measured(layers, range(3), forward, forward, inputs)
        handles = [one.watch(lambda name, x, y: pairs[name].append(x[0])) for one in layers.values()]
        for batch in range(3):
            forward(batch)
        with rounding(layers, inputs):
            for batch in range(3):
                forward(batch)
        for handle in handles:
            handle.remove()
    for name, one in inputs.items():
        clean, seen = torch.cat(pairs[name][:3]).double(), torch.cat(pairs[name][3:]).double()
        assert np.allclose(moments.moment(name).matrix, (seen.T @ seen / 15).numpy(), atol=1e-6)
        cross = moments._cross[name].matrix + moments.moment(name).matrix
        assert np.allclose(cross, (clean.T @ seen / 15).numpy(), atol=1e-6)
        if "o_proj" not in name:
            assert torch.allclose(seen, one(clean.float()).double(), atol=1e-5)


@given(seed=st.integers(0, 2**32 - 1), bits=st.integers(2, 4))
def test_corrected_weights_lose_less(seed: int, bits: int):
    """E‖W x − V x̂‖² is least for V = W E[x x̂ᵀ] E[x̂ x̂ᵀ]⁻¹, with ridge for a moment without inverse."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((60, 8)) * np.geomspace(0.05, 4, 8)
    seen = InputRounding(bits)(torch.from_numpy(x)).numpy()
    weight = rng.standard_normal((3, 8))
    target = effective_weight(weight, x.T @ seen / 60, seen.T @ seen / 60, damping=0.01)
    lost = [np.square(x @ weight.T - seen @ one.T).sum() for one in (weight, target)]
    assert lost[1] <= lost[0] * (1 + 1e-9)


@pytest.mark.parametrize(
    "options",
    [{}, {"drift": True}, {"propagate": False, "input_correction": False}, {"input_clip": 0.9, "jobs": 2}],
    ids=str,
)
def test_a_model_computes_as_it_was_calibrated(tiny: Path, tmp_path: Path, options: dict[str, Any]):
    """The loaded model is the dense one with decoded weights behind the hooks of calibration."""
    report = llm.quantize_model(
        tiny, tmp_path / "out", recipe=rotated, levels=16, input_bits=4, **{**FAST, "samples": 4, **options}
    )
    assert report.stored_bytes == llm.stored_bytes(tmp_path / "out")
    assert {row.input_clip for row in report.layers} <= set(CLIPS)
    model, dense = (load(one, dtype=torch.float32) for one in (tmp_path / "out", tiny))
    layers, inputs = matrices(dense), {}
    for row in report.layers:
        layer = model.get_submodule(row.name)
        assert row.input_clip is not None
        assert layer.inputs == InputRounding(4, clip=row.input_clip)
        inputs[row.name] = RoundedInputs(lq.Quantized.from_payload(layer.payload).transform, layer.inputs)
        layers[row.name].write(layer.dequantize())
    with rounding(layers, inputs):
        expected = logits(dense)
    assert (logits(model) - expected).norm() < 1e-3 * expected.norm()
    assert (logits(dense) - expected).norm() > 1e-2 * expected.norm()


def test_a_directory_says_how_inputs_are_rounded(rounded: Path, tmp_path: Path):
    block = json.loads((rounded / "config.json").read_text())["quantization_config"]
    assert block["format_version"] == 2
    assert {key: block["input_activations"][key] for key in ("num_bits", "symmetric", "strategy", "dynamic")} == {
        "num_bits": 4,
        "symmetric": False,
        "strategy": "token",
        "dynamic": True,
    }
    report = llm.Report.from_json((rounded / "lattq_report.json").read_text())
    assert block["input_activations"]["clip"] == {row.name: row.input_clip for row in report.layers}
    assert block_of(read_config(rounded), rounded).inputs().keys() == block["modules"].keys()
    load(rounded).save_pretrained(tmp_path / "again")
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (rounded / "model.safetensors").read_bytes()
    assert json.loads((tmp_path / "again" / "config.json").read_text())["quantization_config"] == block
    assert torch.equal(logits(load(tmp_path / "again")), logits(load(rounded)))


def test_the_base_model_rounds_too(rounded: Path, tmp_path: Path):
    base = load(rounded, transformers.AutoModel)
    assert base.layers[1].mlp.up_proj.inputs.bits == 4
    base.save_pretrained(tmp_path)
    again = load(tmp_path, transformers.AutoModel)
    with torch.no_grad():
        expected = load(rounded).model(TOKENS).last_hidden_state
        assert torch.equal(again(TOKENS).last_hidden_state, expected)


def test_dequantized_models_round_no_inputs(rounded: Path):
    model = load(rounded, dtype=torch.float32)
    expected = {name: one.dequantize() for name, one in model.named_modules() if isinstance(one, LattqLinear)}
    before = logits(model)
    dense = model.dequantize()
    for name, weight in expected.items():
        assert torch.equal(dense.get_submodule(name).weight, weight)
    assert (logits(dense) - before).norm() > 1e-2 * before.norm()


def test_operations_are_those_of_the_maps_that_stay(tiny: Path, rounded: Path, tmp_path: Path):
    """64 = 2^6 columns, and 96 = 12 · 2^3: 6 and 11 + 3 additions for each; none where maps are undone at decoding."""
    report = llm.Report.from_json((rounded / "lattq_report.json").read_text())
    for row in report.layers:
        assert row.operations == row.shape[1] * {64: 6, 96: 14}[row.shape[1]]
    assert report.operations == 2 * (6 * 64 * 6 + 96 * 14)
    plain = llm.quantize_model(tiny, tmp_path / "plain", recipe=rotated, levels=16, **FAST)
    assert plain.operations == 0
    assert {row.input_clip for row in plain.layers} == {None}
    block = json.loads((tmp_path / "plain" / "config.json").read_text())["quantization_config"]
    assert block["format_version"] == 1
    assert "input_activations" not in block


@pytest.fixture
def copied(rounded: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(rounded, tmp_path / "copied"))


Q = "model.layers.0.self_attn.q_proj"


def change_inputs(**changes: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda config: config["quantization_config"]["input_activations"].update(changes)


@pytest.mark.parametrize(
    "change",
    [
        change_inputs(num_bits=8),
        lambda config: config["quantization_config"]["input_activations"]["clip"].update({Q: 0.5}),
        lambda config: config["quantization_config"].pop("input_activations"),
    ],
)
def test_altered_rounding_is_refused(copied: Path, change: Callable[[dict[str, Any]], Any]):
    change_config(copied, change)
    with pytest.raises(DamagedFileError):
        load(copied)
    with pytest.raises(DamagedFileError):
        llm.stored_bytes(copied)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (change_inputs(num_bits=1), "`num_bits` is 1"),
        (change_inputs(strategy="channel"), "`strategy` is 'channel'"),
        (change_inputs(clip={Q: 1.0}), "each quantized layer"),
        (change_inputs(more=1), "input_activations"),
        (lambda config: config["quantization_config"].pop("input_activations"), "format version 2"),
        (lambda config: config["quantization_config"].update(format_version=1), "format version 1"),
    ],
)
def test_forged_rounding_is_refused(copied: Path, change: Callable[[dict[str, Any]], Any], message: str):
    """Also where the digest fits."""
    change_config(copied, change, forged=True)
    with pytest.raises(DamagedFileError, match=message):
        load(copied)


def test_an_interrupted_run_continues_to_the_same_bytes(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    whole, out, calls = tmp_path / "whole", tmp_path / "out", 0
    options = {"recipe": rotated, "levels": 16, "input_bits": 4, "drift": True, **FAST}
    llm.quantize_model(tiny, whole, **options)
    quantize = passes.quantize

    def interrupted(*args: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 10:
            raise KeyboardInterrupt
        return quantize(*args)

    monkeypatch.setattr(passes, "quantize", interrupted)
    with pytest.raises(KeyboardInterrupt):
        llm.quantize_model(tiny, out, **options)
    with pytest.raises(InvalidInputError, match=r"input_bits differ"):
        llm.quantize_model(tiny, out, **{**options, "input_bits": 8})
    llm.quantize_model(tiny, out, **options)
    assert files(out) == files(whole)


@pytest.mark.parametrize(
    ("recipe", "setting"),
    [
        (functools.partial(recipes.gptq, group=32), {"rate": 5.0}),
        (functools.partial(recipes.gptvq, dimension=2), {"bits": 3}),
        (recipes.nestquant, {"levels": 14}),
        (recipes.bitshift, {"bits": 3}),
        (recipes.UNBIASED, {"rate": 5.0}),
    ],
    ids=["gptq", "gptvq", "nestquant", "trellis", "watersic"],
)
def test_every_recipe_of_the_loop_takes_rounded_inputs(
    tiny: Path, tmp_path: Path, recipe: Any, setting: dict[str, Any]
):
    options = {"modules": ["model.layers.0.mlp.up_proj"], **FAST, "samples": 4}
    report = llm.quantize_model(tiny, tmp_path / "out", recipe=recipe, input_bits=8, **setting, **options)
    assert report.rate <= setting.get("rate", 100) + 0.005
    assert report.stored_bytes == llm.stored_bytes(tmp_path / "out")
    found = llm.evaluate(tmp_path / "out", TEXT[:3000], reference=tiny, window=32)
    assert found.kl_bits_per_token is not None
    assert found.kl_bits_per_token < 0.1


def test_a_held_transform_is_that_of_unrounded_inputs(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Equalizing scales too: what calibration rounded in is what the payload holds, up to a power of two."""
    designed: list[RoundedInputs] = []
    design = InputSettings.design

    def noted(*args: Any) -> RoundedInputs:
        designed.append(design(*args))
        return designed[-1]

    monkeypatch.setattr(InputSettings, "design", noted)
    options = {**FAST, "samples": 4, "modules": ["model.layers.0.mlp.up_proj"], "recipe": recipes.UNBIASED}
    report = llm.quantize_model(tiny, tmp_path / "out", input_bits=4, step=0.05, **options)
    layer = load(tmp_path / "out").get_submodule(options["modules"][0])
    transform = lq.Quantized.from_payload(layer.payload).transform
    assert report.operations == transform.operations(64) == 64
    assert isinstance(recipes.UNBIASED(0.05).equalize, Equalize)
    ratio = transform.on_inputs(np.ones((1, 64))) / designed[0].transform.on_inputs(np.ones((1, 64)))
    assert np.ptp(ratio) == 0
    assert np.log2(ratio[0, 0]) % 1 == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input_bits": 1}, "`input_bits` is 1"),
        ({"input_bits": 4, "input_clip": 1.5}, "`input_clip` is 1.5"),
        ({"input_clip": 0.9}, "`input_clip` is 0.9"),
        ({"input_bits": "4"}, "`input_bits` is '4'; pass an integer"),
        ({"input_bits": 4.5}, "`input_bits` is 4.5; pass an integer"),
        ({"input_bits": 4, "input_clip": "a"}, "`input_clip` is 'a'; pass a number"),
        ({"input_bits": 4, "input_clip": float("nan")}, "`input_clip` is nan"),
        ({"input_bits": 4, "input_correction": "no"}, "`input_correction` is 'no'; pass True or False"),
    ],
)
def test_unusable_arguments_raise(tiny: Path, tmp_path: Path, options: dict[str, Any], message: str, unchecked: None):
    with pytest.raises(InvalidInputError, match=message):
        llm.quantize_model(tiny, tmp_path / "out", recipe=recipes.rtn, levels=16, **FAST, **options)
    assert not (tmp_path / "out").exists()
