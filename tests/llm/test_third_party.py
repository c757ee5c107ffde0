"""Parts of another package in a model directory: same logits as the dense model of the decoded weights."""

import sys
from pathlib import Path

import pytest
import torch
import transformers

import lattq as lq
from lattq import llm
from lattq.errors import MissingPartError
from lattq.llm.run.layers import LattqLinear
from lattq.transforms.chains import split_unit
from tests.llm.conftest import TEXT
from tests.plugin import NAME, forget, install

TOKENS = torch.tensor([[5, 9, 300, 41, 7]])


@torch.no_grad()
def logits(model: torch.nn.Module) -> torch.Tensor:
    return model(TOKENS).logits


def test_a_model_directory_holds_parts_of_another_package(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = tmp_path / "site"
    folder.mkdir()
    package = install(folder, monkeypatch)

    def recipe(levels: int = 7) -> lq.Scheme:
        return lq.Scheme(
            transform=package.Reflect(), quantizer=package.Powers(levels, group=32), coder=package.Deflate()
        )

    out = tmp_path / "out"
    report = llm.quantize_model(tiny, out, recipe=recipe, levels=5, samples=2, calibration_text=TEXT)
    assert 0.5 < report.rate < 32
    forget(monkeypatch)  # the entry point finds it again
    model = transformers.AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32).eval()
    dense = transformers.AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32).eval()
    kinds = set()
    for name, layer in list(model.named_modules()):
        if isinstance(layer, LattqLinear):
            quantized = lq.Quantized.from_payload(layer.payload)
            kinds.add(type(split_unit(quantized.transform)[0]).__name__)
            dense.get_submodule(name).weight.data = torch.from_numpy(quantized.dequantize())
    assert kinds == {"Reflection"}
    assert torch.equal(logits(model), logits(dense))
    payload = next(layer.payload for layer in model.modules() if isinstance(layer, LattqLinear))
    forget(monkeypatch)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if not list(Path(p).glob(f"{NAME}*"))])
    with pytest.raises(MissingPartError, match="pip install lattq-example"):
        lq.Quantized.from_payload(payload)
    with pytest.raises(MissingPartError, match="pip install lattq-example"):
        transformers.AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32)
    assert NAME not in sys.modules
