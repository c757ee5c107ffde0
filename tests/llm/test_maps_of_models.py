"""Maps folded into models that are quantized: functions stay, files are right, rates are honest."""

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch

from lattq import llm, recipes
from lattq.errors import InvalidInputError
from lattq.llm.source.places import places
from lattq.llm.tune import Balanced, FoldedMap, Reorder, Rotate, SmoothQuant
from tests.llm.conftest import SHORT
from tests.llm.decoders import OWN, TIED, decoder, load_decoder, logits, read_without_lattq

KINDS = sorted(OWN)
STEP, LEVELS = 2e-5, 256
LAYERS, PEAK = 14, 4  # layers of a decoder, and by how much the worst of 1500 logits exceeds the rms
# Each layer errs by step √(n / 12) of outputs of order 1, for up to 48 columns; absolute errors add up at worst.
FINE = LAYERS * PEAK * STEP * (48 / 12) ** 0.5
# 256 levels over a range of some 5 standard deviations, and each output sums n errors of weights of variance 1 / n.
COARSE = LAYERS * PEAK * (5 / LEVELS) / 12**0.5


@pytest.fixture(scope="module")
def smoothed(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each with 256 levels, behind scales."""
    folder = tmp_path_factory.mktemp("smoothed")
    options = {**SHORT, "recipe": recipes.rtn, "levels": LEVELS, "maps": SmoothQuant()}
    for kind in KINDS:
        llm.quantize_model(sources / kind, folder / kind, **options)
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_a_balanced_model_of_high_rate_computes_the_same(kind: str, sources: Path, tmp_path: Path):
    options = {**SHORT, "recipe": recipes.huffman_gptq, "step": STEP, "allocation": "distortion"}
    report = llm.quantize_model(sources / kind, tmp_path / "out", maps=Balanced(), **options)
    assert (logits(load_decoder(tmp_path / "out")) - logits(decoder(kind))).abs().max() < FINE
    assert [row.place.rpartition(".")[2] for row in report.maps[:4]] == [
        "attention_input", "values", "mlp_input", "mlp_hidden"
    ]  # fmt: skip
    assert llm.Report.from_json((tmp_path / "out" / "lattq_report.json").read_text()) == report
    assert report.settings["maps"] == repr(Balanced())
    assert report.added_bytes == 0
    assert report.rate == 8 * llm.stored_bytes(tmp_path / "out") / report.weights


def test_decoded_models_load_without_lattq(smoothed: Path, tmp_path: Path):
    quantized = {}
    for kind in KINDS:
        model = load_decoder(smoothed / kind)
        quantized[kind] = logits(model)
        assert (quantized[kind] - logits(decoder(kind))).abs().max() < COARSE, kind
        model.dequantize().save_pretrained(tmp_path / kind)
    for kind, (name, found) in read_without_lattq(tmp_path).items():
        assert name == type(decoder(kind)).__name__
        assert (found - quantized[kind]).abs().max() < 1e-4, kind


def test_dense_tensors_are_those_of_the_maps(smoothed: Path, sources: Path):
    """Gains changed, all else as in the source; nothing was put back, and nothing else moved."""
    before, after = (safetensors.torch.load_file(path / "qwen2" / "model.safetensors") for path in (sources, smoothed))
    dense = {key for key in before if after[key].dtype != torch.uint8}
    changed = {key for key in dense if not torch.equal(before[key], after[key])}
    assert changed == {key for key in dense if "layernorm" in key}
    model = decoder("qwen2")
    report = llm.Report.from_json((smoothed / "qwen2" / "lattq_report.json").read_text())
    for row in report.maps:
        gain = model.get_submodule(places(model)[row.place].forward[0].module).weight.detach()
        scale = after[f"{places(model)[row.place].forward[0].module}.weight"] / gain
        assert float(scale.max() / scale.min()) == pytest.approx(row.condition, rel=1e-5)


@pytest.mark.parametrize("kind", ["gemma", "llama"])
@pytest.mark.parametrize("head", [False, True])
def test_a_rotated_model_is_charged_for_the_head_that_it_unties(kind: str, head: bool, sources: Path, tmp_path: Path):
    out, include = tmp_path / "out", ["*layers*", "lm_head"] if head else ["*layers*"]
    options = {**SHORT, "recipe": recipes.rtn, "levels": LEVELS, "include": include, "maps": Rotate()}
    report = llm.quantize_model(sources / kind, out, **options)
    model, tied = load_decoder(out), kind in TIED
    assert (logits(model) - logits(decoder(kind))).abs().max() < COARSE
    assert not json.loads((out / "config.json").read_text())["tie_word_embeddings"]
    assert report.maps[0] == FoldedMap("model.residual", "rotation", 1.0, "Rotate", added=64 * 32 * tied)
    assert report.added_bytes == (64 * 32 * 4 if tied and not head else 0)
    assert report.rate == 8 * (llm.stored_bytes(out) + report.added_bytes) / report.weights
    assert any(row.name == "lm_head" for row in report.layers) == head
    counted = sum(row.shape[0] * row.shape[1] for row in report.layers)
    assert report.weights == counted - (64 * 32 if tied and head else 0)


def test_a_rate_is_met_with_the_head_that_maps_untie(sources: Path, tmp_path: Path):
    options = {**SHORT, "recipe": recipes.huffman_gptq, "propagate": False, "maps": Rotate()}
    options |= {"include": ["lm_head", "*.1.mlp.*"], "samples": 4}
    report = llm.quantize_model(sources / "gemma", tmp_path / "out", rate=9, **options)
    assert abs(report.rate - 9) <= 0.005
    with pytest.raises(InvalidInputError, match=r"only weights that `maps` added would be quantized \(lm_head\)"):
        llm.quantize_model(
            sources / "gemma", tmp_path / "head", rate=9, **(options | {"include": ["lm_head"], "propagate": True})
        )


def test_an_order_of_the_stream_leaves_a_tied_head_tied(sources: Path, tmp_path: Path):
    design = Reorder(clusters=4, places=("*.mlp_hidden", "residual"))
    options = {**SHORT, "recipe": recipes.rtn, "levels": LEVELS}
    report = llm.quantize_model(sources / "gemma", tmp_path / "out", maps=design, **options)
    assert report.added_bytes == 0
    assert "lm_head.weight" not in safetensors.torch.load_file(tmp_path / "out" / "model.safetensors")
    assert (logits(load_decoder(tmp_path / "out")) - logits(decoder("gemma"))).abs().max() < COARSE
