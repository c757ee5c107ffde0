"""Models quantized with a second moment for each group of rows: from text, from statistics, never without."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lattq import llm, recipes
from lattq.errors import InvalidInputError
from lattq.llm.convert.metrics import Metrics
from lattq.llm.measure import Statistics, measure_model
from tests.llm.conftest import TEXT

LAYER = "model.layers.0.mlp.down_proj"
OPTIONS: dict[str, Any] = {"calibration_text": TEXT, "window": 32, "samples": 24}
GUIDED: dict[str, Any] = {"recipe": recipes.guided, "levels": 8, "modules": [LAYER, "model.layers.1.self_attn.k_proj"]}

pytestmark = pytest.mark.filterwarnings("ignore:few calibration tokens")


@pytest.fixture(scope="module")
def measured(tiny: Path) -> Statistics:
    """Statistics of the tiny model, with guides, of as many draws of labels as a conversion takes."""
    return measure_model(tiny, draws=2, guides=4, **OPTIONS)


def test_statistics_with_guides_give_what_their_text_gives(tiny: Path, measured: Statistics, tmp_path: Path):
    text = llm.quantize_model(tiny, tmp_path / "text", propagate=False, **OPTIONS, **GUIDED)
    measured.save(tmp_path / "statistics.safetensors")
    found = llm.quantize_model(tiny, tmp_path / "found", statistics=tmp_path / "statistics.safetensors", **GUIDED)
    for one, other in zip(found.layers, text.layers, strict=True):
        assert (one.name, one.rate) == (other.name, other.rate)
        assert one.distortion == pytest.approx(other.distortion, rel=0.01)
    assert "guides=4" in found.settings["recipe"]
    plain = llm.quantize_model(
        tiny, tmp_path / "plain", statistics=measured, recipe=recipes.gptq, levels=8, modules=GUIDED["modules"]
    )
    assert plain.rate == found.rate
    assert (tmp_path / "plain/model.safetensors").read_bytes() != (tmp_path / "found/model.safetensors").read_bytes()


def test_the_metric_of_a_layer_is_its_guides(tiny: Path, measured: Statistics):
    """An error of a row costs w x xᵀ of its group and one more token, in units of the layer, drawn to Σ; all damped."""
    sigma = measured.sigma(LAYER)
    metric = Metrics(measured, {LAYER: 2.0}, guides=True).of(LAYER, sigma)
    tokens, prior = measured.origin.scored, np.mean([measured.sensitivity(name) for name in measured.layers])
    expected = (tokens * measured.guided(LAYER) + prior * sigma) / (tokens + 1) / 2.0
    size = np.trace(expected, axis1=1, axis2=2) / np.trace(sigma)
    expected = (expected / size[:, None, None] + 0.3 * sigma) / 1.3 * ((size + 0.3 * size.mean()) / 1.3)[:, None, None]
    error = np.random.default_rng(0).standard_normal(measured.layers[LAYER].shape)
    cost = sum(np.sum(own @ guide * own) for own, guide in zip(np.split(error, 4), expected, strict=True))
    assert metric.squared_error(error) * error.size == pytest.approx(cost, rel=1e-9)
    np.testing.assert_allclose(np.trace(metric.guides, axis1=1, axis2=2), np.trace(sigma), rtol=1e-12)


def test_statistics_without_guides_are_refused(tiny: Path, tmp_path: Path):
    plain = measure_model(tiny, **OPTIONS)
    with pytest.raises(InvalidInputError, match=r"no groups of outputs were measured for .* measure with `guides`"):
        llm.quantize_model(tiny, tmp_path / "out", statistics=plain, **GUIDED)
    assert not (tmp_path / "out").exists()


def test_inputs_behind_quantized_blocks_keep_the_guides(tiny: Path, tmp_path: Path):
    """By default, and at a rate in place of levels."""
    found = llm.quantize_model(tiny, tmp_path / "out", rate=4.4, **OPTIONS, **{**GUIDED, "levels": None})
    assert found.rate <= 4.4
    assert found.settings["propagate"]
