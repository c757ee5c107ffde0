"""Every recipe follows maps, at the rate that it has without."""

import functools
from pathlib import Path
from typing import Any

import pytest

from lattq import llm, quantizers, recipes
from lattq.llm.source.design import MapDesign
from lattq.llm.tune import AWQ, Balanced, Rotate, SmoothQuant
from tests.llm.conftest import TEXT

RECIPES: dict[str, tuple[Any, dict[str, Any]]] = {
    "rtn": (functools.partial(recipes.rtn, group=64), {"levels": 8}),
    "gptq": (functools.partial(recipes.gptq, group=64, fit="error"), {"levels": 8}),
    "gptvq": (functools.partial(recipes.gptvq, sweeps=1), {"bits": 2}),
    "nestquant": (recipes.nestquant, {"levels": 8}),
    "watersic": (functools.partial(recipes.UNBIASED, quantizer=quantizers.Trellis(states=8)), {"step": 0.05}),
}


OTHERS: dict[str, MapDesign] = {
    "awq": AWQ(levels=8, group=64, points=6, places=("*.values",)),
    "rotate": Rotate(),
    "smoothquant": SmoothQuant(places=("*.values",)),
}


COMPOSED = [(name, "balanced") for name in RECIPES] + [("gptq", name) for name in OTHERS]
NOISE = 1.5  # of KL from 500 tokens of so small a change, and what a map may cost where nothing was to be gained


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[float, float]]:
    """Rate and KL of each recipe without maps."""
    folder = tmp_path_factory.mktemp("plain")
    return {name: composed(name, None, folder / name) for name in RECIPES}


def composed(name: str, maps: MapDesign | None, out: Path) -> tuple[float, float]:
    """A layer of the embedded model that reads values: rate of its bytes, KL of the model."""
    recipe, setting = RECIPES[name]
    report = llm.quantize_model(
        llm.embedded_model(), out, recipe=recipe, maps=maps, calibration_text=TEXT, window=128, samples=4,
        modules=["model.layers.1.self_attn.o_proj"], **setting,
    )  # fmt: skip
    assert report.rate == 8 * (llm.stored_bytes(out) + report.added_bytes) / report.weights
    text = llm.embedded_text("evaluation")[:8000]
    found = llm.evaluate(out, text, reference=llm.embedded_model(), window=128, samples=4)
    assert found.kl_bits_per_token is not None
    return 8 * report.stored_bytes / report.weights, found.kl_bits_per_token


@pytest.mark.parametrize(("name", "design"), COMPOSED)
def test_every_recipe_follows_maps(name: str, design: str, plain: dict[str, tuple[float, float]], tmp_path: Path):
    rate, kl = composed(name, Balanced() if design == "balanced" else OTHERS[design], tmp_path / "out")
    assert rate == pytest.approx(plain[name][0], abs=0.3 if name == "watersic" else 0.02)
    assert kl < NOISE * plain[name][1]
