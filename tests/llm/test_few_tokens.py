"""Models from few calibration tokens: not worse than rounding to nearest, and told; bytes of any number of threads."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from lattq import llm, recipes
from lattq.cli.entry import app
from lattq.errors import FewTokensWarning
from lattq.llm import measure
from lattq.llm.source import choose_modules, load_model, load_tokenizer, token_windows
from tests.llm.conftest import TEXT

EVALUATION = llm.embedded_text("evaluation")[:20_000]


def divergence(out: Path) -> float:
    """KL to the embedded model, bits per token."""
    found = llm.evaluate(out, EVALUATION, reference=llm.embedded_model(), samples=8)
    assert found.kl_bits_per_token is not None
    return found.kl_bits_per_token


def converted(out: Path, **options: Any) -> llm.Report:
    """Quantize the embedded model."""
    return llm.quantize_model(llm.embedded_model(), out, calibration_text=TEXT, **options)


@pytest.mark.slow
def test_few_tokens_are_not_worse_than_round_to_nearest(tmp_path: Path):
    nearest = converted(tmp_path / "rtn", recipe=recipes.rtn, levels=8, window=2, samples=1)
    limit = divergence(tmp_path / "rtn")
    with pytest.warns(FewTokensWarning):
        few = converted(tmp_path / "few", step=0.0245, window=2, samples=1)
    assert nearest.rate - 0.05 <= few.rate <= nearest.rate
    assert divergence(tmp_path / "few") <= limit


def test_a_layer_that_saw_few_tokens_is_named(tiny: Path, tmp_path: Path):
    options = {"recipe": recipes.huffman_gptq, "step": 0.02, "calibration_text": TEXT}
    with pytest.warns(FewTokensWarning, match=r"model\.layers\.0\.\S+ saw 8 for its \d+ columns, and 13 more"):
        few = llm.quantize_model(tiny, tmp_path / "few", window=8, samples=1, **options)
    assert {row.tokens for row in few.layers} == {8}
    enough = llm.quantize_model(tiny, tmp_path / "enough", window=64, samples=64, **options)
    assert enough.few_tokens() is None
    assert {row.tokens for row in enough.layers} == {64 * 64}
    assert llm.Report.from_json(few.to_json()) == few


def test_the_command_line_says_so_too(tiny: Path, tmp_path: Path):
    text = tmp_path / "text.txt"
    text.write_text(TEXT)
    command = ["quantize", str(tiny), "--calibration", str(text), "--step", "0.02", "--window", "8", "--samples", "1"]
    found = CliRunner().invoke(app, [*command, "--out", str(tmp_path / "out")])
    assert found.exit_code == 0
    assert "few calibration tokens" in found.output
    found = CliRunner().invoke(app, [*command, "--out", str(tmp_path / "json"), "--json"])
    assert {row["tokens"] for row in json.loads(found.stdout)["layers"]} == {8}


def test_sigma_is_shrunk_and_the_accumulator_is_not(tiny: Path):
    model = load_model(tiny, torch.float32)
    layers = choose_modules(model)
    moments = measure.InputMoments(layers, drift=True)
    windows = token_windows(load_tokenizer(tiny), TEXT, 8, 1)
    with torch.no_grad():
        with moments.remember():
            model(windows)
        with moments.record():
            model(windows)
    for name, layer in layers.items():
        plain = moments.moment(name).matrix
        assert np.linalg.matrix_rank(plain) <= 8 < layer.weight.shape[1]
        assert np.linalg.eigvalsh(moments.sigma(name))[0] > 0
        np.testing.assert_array_equal(moments.cross(name), moments.sigma(name))  # nothing drifts
        assert moments.tokens(name) == 8


def test_bytes_do_not_depend_on_the_number_of_threads(tmp_path: Path):
    modules = ["model.layers.2.self_attn.o_proj", "model.layers.1.mlp.down_proj"]
    options = {"modules": modules, "window": 256, "samples": 16, "step": 0.02, "drift": True}
    found, before = set(), torch.get_num_threads()
    try:
        for threads, jobs in ((1, 1), (2, 2)):
            torch.set_num_threads(threads)
            out = tmp_path / f"{threads}"
            converted(out, jobs=jobs, **options)
            found.add((out / "model.safetensors").read_bytes())
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert len(found) == 1
