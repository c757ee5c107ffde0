"""Bits for layers: at equal slope, alike, or whichever is better by text that neither was calibrated on."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lattq import llm, recipes
from lattq.errors import InvalidInputError
from lattq.llm.convert import stages
from lattq.llm.convert.quantize import judged
from lattq.llm.distill.divergence import mean_distance
from lattq.llm.source.checkpoint import load_model, load_tokenizer
from lattq.llm.source.windows import token_windows
from tests.llm.conftest import TEXT

OPTIONS: dict[str, Any] = {"recipe": recipes.huffman_gptq, "samples": 4, "calibration_text": TEXT, "window": 64}
LAYERS: dict[str, Any] = {"include": ["*.1.self_attn.[qv]_proj"], "propagate": False}


@pytest.fixture(scope="module")
def dense() -> Path:
    """A model whose layers matter unequally."""
    return llm.embedded_model()


@pytest.mark.parametrize("recipe", [recipes.huffman_gptq, recipes.two_sided])
def test_layers_of_one_rate_have_about_that(dense: Path, tmp_path: Path, recipe: Any):
    options: dict[str, Any] = {**OPTIONS, **LAYERS, "recipe": recipe, "rate": 3.0}
    rates = {}
    for allocation in ("rate", "loss"):
        report = llm.quantize_model(dense, tmp_path / allocation, allocation=allocation, **options)
        assert abs(report.rate - 3.0) <= 0.005
        rates[allocation] = [row.rate for row in report.layers]
    assert np.ptp(rates["rate"]) < 0.3  # Gaussian weights would have nothing but models of their scales between them
    assert np.ptp(rates["loss"]) > 2 * np.ptp(rates["rate"])


def test_the_best_is_the_one_with_less_divergence_on_held_out_windows(dense: Path, tmp_path: Path):
    options: dict[str, Any] = {**OPTIONS, **LAYERS, "rate": 2.5, "samples": 9}
    report = llm.quantize_model(dense, tmp_path / "best", allocation="best", **options)
    found, chosen = report.settings["held_out"], report.settings["chosen"]
    assert found[chosen] == min(found.values())
    assert [path.name for path in tmp_path.iterdir()] == ["best"]
    assert abs(report.rate - 2.5) <= 0.005
    held_out = token_windows(load_tokenizer(dense), TEXT, 64, 9, 0)[7::8]
    own, best = (load_model(path, torch.float32) for path in (dense, tmp_path / "best"))
    assert mean_distance(own, best, held_out) == pytest.approx(found[chosen], rel=1e-3)
    assert llm.Report.from_json((tmp_path / "best" / "lattq_report.json").read_text()) == report


def test_windows_that_judge_are_not_measured():
    """One of eight, and at least one; the rest is calibrated on."""
    for number, chosen in ((2, [1]), (7, [6]), (8, [7]), (17, [7, 15])):
        judges, others = judged(torch.arange(number)[:, None])
        assert judges.flatten().tolist() == chosen
        assert sorted(judges.flatten().tolist() + others.flatten().tolist()) == list(range(number))


def test_the_worse_one_is_not_kept(dense: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A negative control: with the judge turned over, the other is."""
    options: dict[str, Any] = {**OPTIONS, **LAYERS, "rate": 2.5, "allocation": "best"}
    first = llm.quantize_model(dense, tmp_path / "first", **options)
    true = stages.mean_distance
    monkeypatch.setattr(stages, "mean_distance", lambda *given: 1 / true(*given))
    other = llm.quantize_model(dense, tmp_path / "other", **options)
    assert {first.settings["chosen"], other.settings["chosen"]} == {"loss", "rate"}


def test_it_is_the_default_where_outputs_count(dense: Path, tmp_path: Path):
    """With a rate, and windows enough to spare some."""
    options: dict[str, Any] = {**OPTIONS, **LAYERS, "rate": 3.0, "recipe": recipes.two_sided}
    found = {}
    for samples in (7, 8):
        report = llm.quantize_model(dense, tmp_path / str(samples), **{**options, "samples": samples})
        found[samples] = report.settings["allocation"]
    assert found == {7: "loss", 8: "best"}


def test_an_interrupted_call_continues(dense: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    options: dict[str, Any] = {**OPTIONS, **LAYERS, "rate": 2.5, "allocation": "best"}
    whole = llm.quantize_model(dense, tmp_path / "whole", **options)

    def interrupted(*_: Any) -> float:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(stages, "mean_distance", interrupted)
        with pytest.raises(KeyboardInterrupt):
            llm.quantize_model(dense, tmp_path / "out", **options)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.partial", "whole"]
    with pytest.raises(InvalidInputError, match=r"other settings \(seed differ"):
        llm.quantize_model(dense, tmp_path / "out", **{**options, "seed": 1})
    again = llm.quantize_model(dense, tmp_path / "out", **options)
    assert again.settings == whole.settings
    names = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("out", "whole")]
    assert names[0] == names[1]


def test_fixed_rates_are_made_once(dense: Path, tmp_path: Path):
    options: dict[str, Any] = {**OPTIONS, **LAYERS, "recipe": recipes.rtn, "levels": 4, "allocation": "best"}
    report = llm.quantize_model(dense, tmp_path / "out", **options)
    assert list(report.settings["held_out"]) == ["loss"]


def test_a_short_text_is_refused_before_anything_is_made(dense: Path, tmp_path: Path):
    options: dict[str, Any] = {**OPTIONS, **LAYERS, "rate": 2.5, "calibration_text": TEXT[:1000]}
    ways: list[dict[str, Any]] = [{"allocation": "best", "samples": 1}, {"refine": True, "samples": 1}]
    for more in ways:
        with pytest.raises(InvalidInputError, match=r"tokens|windows"):
            llm.quantize_model(dense, tmp_path / "out", **options | more)
    assert not list(tmp_path.iterdir())


def test_refining_needs_text(dense: Path, tmp_path: Path):
    with pytest.raises(InvalidInputError, match="`refine` trains on text"):
        llm.quantize_model(dense, tmp_path / "out", rate=3.0, statistics=tmp_path / "none", refine=True)


def test_the_best_needs_text(dense: Path, tmp_path: Path):
    with pytest.raises(InvalidInputError, match='`allocation` is "best", which is judged on text'):
        llm.quantize_model(dense, tmp_path / "out", rate=3.0, statistics=tmp_path / "none", allocation="best")
