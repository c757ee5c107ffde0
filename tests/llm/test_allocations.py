"""Bits for layers: at equal slope, alike, or whichever is better by text that neither was calibrated on."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lattq import llm, recipes
from lattq.errors import InvalidInputError
from lattq.llm.convert import quantize_best as best
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


def test_the_best_is_the_one_with_less_divergence_on_held_out_text(dense: Path, tmp_path: Path):
    options: dict[str, Any] = {**OPTIONS, **LAYERS, "rate": 2.5}
    report = llm.quantize_model(dense, tmp_path / "best", allocation="best", **options)
    found, chosen = report.settings["held_out"], report.settings["chosen"]
    assert found[chosen] == min(found.values())
    assert [path.name for path in tmp_path.iterdir()] == ["best"]
    cut = len(TEXT) * 7 // 8
    given: dict[str, Any] = options | {"calibration_text": TEXT[:cut], "allocation": chosen}
    again = llm.quantize_model(dense, tmp_path / "again", **given)
    weights = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("best", "again")]
    assert weights[0] == weights[1]
    assert again.rate == report.rate
    held_out = llm.evaluate(tmp_path / "best", TEXT[cut:], reference=dense, window=64, samples=1)
    assert (held_out.kl_bits_per_token or 0.0) * np.log(2) == pytest.approx(found[chosen], rel=1e-3)
    assert llm.Report.from_json((tmp_path / "best" / "lattq_report.json").read_text()) == report


def test_the_worse_one_is_not_kept(dense: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A negative control: with the judge turned over, the other is."""
    options: dict[str, Any] = {**OPTIONS, **LAYERS, "rate": 2.5, "allocation": "best"}
    first = llm.quantize_model(dense, tmp_path / "first", **options)
    true = best.mean_distance
    monkeypatch.setattr(best, "mean_distance", lambda *given: 1 / true(*given))
    other = llm.quantize_model(dense, tmp_path / "other", **options)
    assert {first.settings["chosen"], other.settings["chosen"]} == {"loss", "rate"}


def test_an_interrupted_call_continues(dense: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    options: dict[str, Any] = {**OPTIONS, **LAYERS, "rate": 2.5, "allocation": "best"}

    def interrupted(*_: Any) -> float:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(best, "mean_distance", interrupted)
        with pytest.raises(KeyboardInterrupt):
            llm.quantize_model(dense, tmp_path / "out", **options)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.loss", "out.rate"]
    others: list[dict[str, Any]] = [
        {"seed": 1},
        {"recipe": recipes.watersic},
        {"samples": 5},
        {"include": ["*.1.self_attn.q_proj"]},
    ]
    for other in others:
        with pytest.raises(InvalidInputError, match="is of a call with other settings"):
            llm.quantize_model(dense, tmp_path / "out", **options | other)
    llm.quantize_model(dense, tmp_path / "out", **options)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_fixed_rates_are_made_once(dense: Path, tmp_path: Path):
    options: dict[str, Any] = {**OPTIONS, **LAYERS, "recipe": recipes.rtn, "levels": 4, "allocation": "best"}
    report = llm.quantize_model(dense, tmp_path / "out", **options)
    assert list(report.settings["held_out"]) == ["loss"]


def test_a_short_text_is_refused_before_anything_is_made(dense: Path, tmp_path: Path):
    options: dict[str, Any] = {**OPTIONS, **LAYERS, "rate": 2.5, "calibration_text": TEXT[:1000]}
    ways: list[dict[str, Any]] = [{"allocation": "best"}, {"refine": True, "samples": 1}]
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
