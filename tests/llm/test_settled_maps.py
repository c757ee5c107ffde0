"""Maps folded into models in bfloat16: weights take up what rounding does to gains and biases."""

from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from lattq import llm, recipes
from lattq.llm.convert.mapped import settle
from lattq.llm.source.checkpoint import remember_dtypes
from lattq.llm.source.place import Location
from lattq.llm.source.places import places
from lattq.llm.tune import AWQ, Balanced, Shift, SmoothQuant, chain
from lattq.progress import Stage
from tests.llm.conftest import TEXT
from tests.llm.decoders import TOKENS, decoder, load_decoder


def half(kind: str) -> Any:
    """A model as its bfloat16 directory holds it, in float32, and the types of its tensors there."""
    model = decoder(kind).to(torch.bfloat16)
    return model.float(), dict.fromkeys(remember_dtypes(model), torch.bfloat16)


NORMS = ("*.attention_input", "*.mlp_input")
THERE = (SmoothQuant(), Balanced(places=NORMS), AWQ(levels=8, group=16, points=5, places=NORMS))


@pytest.mark.parametrize("kind", ["llama", "gemma", "opt", "phi3", "qwen3"])
@pytest.mark.parametrize("settled", [True, False])
def test_weights_take_up_what_bfloat16_does_to_gains_and_biases(kind: str, settled: bool):
    """What is left is the rounding of the readers' biases, half a unit in the last of 8 bits. Without, it is far."""
    model, dtypes = half(kind)
    generator = torch.Generator().manual_seed(0)
    probes = {}
    for name, place in places(model).items():
        if place.readers and place.forward[0].location is Location.GAIN and name != "model.head_input":
            x = torch.randn(50, place.channels, generator=generator)
            probes[name] = x, read_by(model, place, x)
    shifts = [Shift(places=NORMS)] if kind == "opt" else []
    chain(*shifts, *THERE)(model, TOKENS, work=Stage("maps"), keep={})
    quantized = {f"{name}.weight" for name, one in model.named_modules() if isinstance(one, torch.nn.Linear)}
    if settled:
        settle(model, dtypes, quantized)
    else:
        for key, tensor in model.state_dict().items():
            tensor.copy_(tensor if key in quantized else tensor.bfloat16())
    for key, tensor in model.state_dict().items():
        assert key in quantized or torch.equal(tensor, tensor.bfloat16().float())
    excess = 0.0
    for name, (x, before) in probes.items():
        for module, (was, _) in before.items():
            now, bias = read_by(model, places(model)[name], x)[module]
            excess = max(excess, float(((now - was).abs() - 2.0**-8 * bias.abs()).max()))
    assert (excess < 1e-4) == settled


def read_by(model: Any, place: Any, x: torch.Tensor) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """What the readers of a norm make of its normalized inputs, and their biases."""
    norm = model.get_submodule(place.forward[0].module)
    bias = getattr(norm, "bias", None)
    inputs = x * (norm.weight + place.forward[0].plus) + (0 if bias is None else bias)
    found = {}
    for name in place.readers:
        layer = model.get_submodule(name)
        own = torch.zeros(len(layer.weight)) if layer.bias is None else layer.bias
        found[name] = (inputs @ layer.weight.T + own).detach().clone(), own.detach().clone()
    return found


def test_a_bfloat16_directory_computes_what_its_source_does(tiny: Path, tmp_path: Path):
    """Read in float32, at a step that only the rounding of moved biases exceeds; what no map moves stays."""
    options = {"calibration_text": TEXT, "samples": 8, "recipe": recipes.huffman_gptq, "step": 1e-4}
    design = chain(SmoothQuant(), Balanced())
    report = llm.quantize_model(tiny, tmp_path / "out", maps=design, allocation="distortion", **options)
    before, after = (safetensors.torch.load_file(path / "model.safetensors") for path in (tiny, tmp_path / "out"))
    dense = {key: tensor for key, tensor in after.items() if tensor.dtype != torch.uint8}
    assert {tensor.dtype for tensor in dense.values()} == {torch.bfloat16}
    changed = {key for key, tensor in dense.items() if not torch.equal(tensor, before[key])}
    assert changed == {
        key for key in dense if "layers" in key and ("norm" in key or "v_proj" in key or "o_proj" in key)
    }
    source, model = load_decoder(tiny), load_decoder(tmp_path / "out")
    tokens = torch.arange(2, 34)[None]
    with torch.no_grad():
        wanted, found = source(tokens).logits, model(tokens).logits
        exact = float((found - wanted).abs().max())
        # Half a unit of 8 bits in each bias of o: what adding as much to those of the source does bounds it.
        moved = []
        for sign in (1, -1):
            for layer in source.model.layers:
                bias = layer.self_attn.o_proj.bias
                bias += sign * 2.0**-8 * bias.abs()
            moved.append(float((source(tokens).logits - wanted).abs().max()))
    assert exact < 4 * max(moved) + 1e-3 * float(wanted.abs().max())
    assert report.added_bytes == 0
