"""Scales of least error on layers of a real model: what they leave of the error of the largest magnitude."""

import numpy as np
import pytest

import lattq as lq
from lattq import llm
from lattq.llm.measure import InputMoments, forward_batches
from lattq.llm.source import batches_of, choose_modules, load_model, load_tokenizer, token_windows

LEFT = {"rtn": {4: 0.48, 8: 0.67, 16: 0.82}, "gptq": {4: 0.51, 8: 0.71, 16: 0.86}}  # two digits, by levels
LAYERS = ("0.self_attn.q_proj", "1.mlp.up_proj", "2.mlp.down_proj")


@pytest.fixture(scope="module")
def layers() -> list[tuple[np.ndarray, np.ndarray]]:
    """Weights and second moments of three layers of the embedded model."""
    folder = llm.embedded_model()
    model = load_model(folder, "float32")
    windows = token_windows(load_tokenizer(folder), llm.embedded_text("calibration"), 256, 24)
    every = choose_modules(model)
    chosen = {name: layer for name, layer in every.items() if name.endswith(LAYERS)}
    moments = InputMoments(chosen)
    forward_batches(model, batches_of(windows), moments)
    return [(layer.weight.numpy(), moments.moment(name).matrix) for name, layer in chosen.items()]


@pytest.mark.parametrize("levels", [4, 8, 16])
@pytest.mark.parametrize("recipe", [lq.recipes.rtn, lq.recipes.gptq], ids=lambda recipe: recipe.__name__)
def test_a_search_leaves_what_it_should(recipe, levels: int, layers: list[tuple[np.ndarray, np.ndarray]]):
    """The mean over layers of the ratio of output errors, groups of 128."""
    assert len(layers) == len(LAYERS)
    ratios = []
    for weight, sigma in layers:
        found = [lq.quantize(weight, sigma, recipe(levels, fit=fit)) for fit in ("error", "range")]
        assert found[0].nbytes <= found[1].nbytes + 16
        searched, plain = (layer.distortion(weight, sigma) for layer in found)
        ratios.append(searched / plain)
    assert np.mean(ratios) <= LEFT[recipe.__name__][levels] + 0.005
