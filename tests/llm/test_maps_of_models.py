"""Maps folded into models that are quantized: functions stay, files are right, rates are honest, runs continue."""

import contextlib
import dataclasses
import functools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
import transformers

from lattq import llm, quantizers, recipes
from lattq.errors import InvalidInputError
from lattq.llm.convert import passes
from lattq.llm.convert.kept import KeptArrays
from lattq.llm.convert.mapped import design_of, settle
from lattq.llm.convert.workspace import Workspace
from lattq.llm.source.checkpoint import remember_dtypes
from lattq.llm.source.design import MapDesign
from lattq.llm.source.place import Location
from lattq.llm.source.places import places
from lattq.llm.tune import AWQ, Balanced, FoldedMap, Reorder, Rotate, Shift, SmoothQuant, chain, fold
from lattq.llm.tune.affinequant import AffineQuant
from lattq.progress import Stage
from lattq.transforms import Hadamard
from lattq.transforms.designs import Fixed
from tests.llm.conftest import TEXT
from tests.llm.decoders import OWN, TIED, TOKENS, decoder, logits, save_decoder
from tests.llm.test_convert import files

pytestmark = pytest.mark.filterwarnings("ignore:few calibration tokens")
KINDS = sorted(OWN)
SHORT: dict[str, Any] = {"calibration_text": TEXT[:4000], "window": 32, "samples": 16}
STEP, LEVELS = 2e-5, 256
LAYERS, PEAK = 14, 4  # layers of a decoder, and by how much the worst of 1500 logits exceeds the rms
# Each layer errs by step √(n / 12) of outputs of order 1, for up to 48 columns; absolute errors add up at worst.
FINE = LAYERS * PEAK * STEP * (48 / 12) ** 0.5
# 256 levels over a range of some 5 standard deviations, and each output sums n errors of weights of variance 1 / n.
COARSE = LAYERS * PEAK * (5 / LEVELS) / 12**0.5


def load(directory: Path) -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of each architecture."""
    folder = tmp_path_factory.mktemp("decoders")
    for kind in KINDS:
        save_decoder(decoder(kind), folder / kind)
    return folder


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
    assert (logits(load(tmp_path / "out")) - logits(decoder(kind))).abs().max() < FINE
    assert [row.place.rpartition(".")[2] for row in report.maps[:4]] == [
        "attention_input", "values", "mlp_input", "mlp_hidden"
    ]  # fmt: skip
    assert llm.Report.from_json((tmp_path / "out" / "lattq_report.json").read_text()) == report
    assert report.settings["maps"] == repr(Balanced())
    assert report.added_bytes == 0
    assert report.rate == 8 * llm.stored_bytes(tmp_path / "out") / report.weights


READ = """
import sys, torch, transformers
from pathlib import Path
from typing import Any
transformers.utils.logging.disable_progress_bar()
for path in Path(sys.argv[1]).iterdir():
    model = transformers.AutoModelForCausalLM.from_pretrained(path).eval()
    with torch.no_grad():
        torch.save((type(model).__name__, model(torch.load(path / "tokens")).logits), path / "logits")
assert not any(name.startswith("lattq") for name in sys.modules)
"""


def test_decoded_models_load_without_lattq(smoothed: Path, tmp_path: Path):
    """One process reads them all, for it has to import transformers."""
    quantized = {}
    for kind in KINDS:
        model = load(smoothed / kind)
        quantized[kind] = logits(model)
        assert (quantized[kind] - logits(decoder(kind))).abs().max() < COARSE, kind
        model.dequantize().save_pretrained(tmp_path / kind)
        torch.save(TOKENS, tmp_path / kind / "tokens")
    subprocess.run([sys.executable, "-W", "ignore", "-c", READ, str(tmp_path)], check=True, cwd=tmp_path)
    for kind in KINDS:
        name, found = torch.load(tmp_path / kind / "logits")
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
    model, tied = load(out), kind in TIED
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
    assert (logits(load(tmp_path / "out")) - logits(decoder("gemma"))).abs().max() < COARSE


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
    source, model = load(tiny), load(tmp_path / "out")
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


@dataclasses.dataclass(frozen=True)
class Slow:
    """Scales of one block after the other, each kept when it is found."""

    stop: int = 99
    found: list[str] = dataclasses.field(default_factory=list, compare=False, repr=False)

    def __call__(self, model: Any, windows: Any, *, work: Stage, keep: Any) -> tuple[FoldedMap, ...]:
        names = [name for name in places(model) if name.endswith("mlp_input")]
        for index, name in enumerate(names):
            if name not in keep:
                if index == self.stop:
                    raise KeyboardInterrupt
                keep[name] = {"scale": np.full(64, 2.0 ** (index + 1))}
                self.found.append(name)
            fold(model, name, "diagonal", keep[name]["scale"])
        return tuple(FoldedMap(name, "diagonal", 1.0, "Slow") for name in names)

    def __repr__(self) -> str:
        return "Slow()"


RTN: dict[str, Any] = {"recipe": recipes.rtn, "levels": 16, "samples": 4, "calibration_text": TEXT}


def test_an_interrupted_design_continues_to_the_same_bytes(tiny: Path, tmp_path: Path):
    whole, out = tmp_path / "whole", tmp_path / "out"
    llm.quantize_model(tiny, whole, maps=Slow(), **RTN)
    with contextlib.suppress(KeyboardInterrupt):
        llm.quantize_model(tiny, out, maps=Slow(stop=1), **RTN)
    assert out.with_name("out.partial").exists()
    other = r"interrupted run with other settings \(maps differ\)"
    with pytest.raises(InvalidInputError, match=other):
        llm.quantize_model(tiny, out, maps=SmoothQuant(), **RTN)
    with pytest.raises(InvalidInputError, match=other):
        llm.quantize_model(tiny, out, **RTN)
    again = Slow()
    llm.quantize_model(tiny, out, maps=again, **RTN)
    assert again.found == ["model.layers.1.mlp_input"]
    assert files(out) == files(whole)


def test_an_interrupted_pass_continues_behind_the_same_maps(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    whole, out, calls, quantize = tmp_path / "whole", tmp_path / "out", 0, passes.quantize
    options = {**RTN, "maps": [Rotate(), Balanced()]}
    llm.quantize_model(tiny, whole, **options)

    def failing(*args: Any, **more: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 9:
            raise KeyboardInterrupt
        return quantize(*args, **more)

    monkeypatch.setattr(passes, "quantize", failing)
    with contextlib.suppress(KeyboardInterrupt):
        llm.quantize_model(tiny, out, **options)
    llm.quantize_model(tiny, out, **options)
    assert calls == 9 - 1 + 14 - 7 + 1  # the block in work begins anew
    assert files(out) == files(whole)


def test_kept_arrays_are_found_again_and_damaged_ones_are_not(tmp_path: Path):
    workspace = Workspace(tmp_path / "out", {})
    keep = KeptArrays(workspace)
    assert workspace.empty()
    keep["a/b c"] = {"x": np.arange(3), "y": np.array(1 + 2j)}
    keep["b"] = {"x": np.zeros(0)}
    assert not workspace.empty()
    assert (sorted(keep), len(keep)) == (["a/b c", "b"], 2)
    assert keep["a/b c"]["y"] == 1 + 2j
    path = next((workspace.root / "maps").glob("a*"))
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    assert list(keep) == ["b"]
    assert "a/b c" not in keep
    del keep["b"]
    with pytest.raises(KeyError):
        del keep["b"]
    with pytest.raises(ValueError, match="allow_pickle"):
        keep["c"] = {"x": np.array([None])}
    workspace.close()


def test_what_is_no_design_is_refused(tiny: Path, tmp_path: Path, unchecked: None):
    for maps, message in (
        (3, r"`maps` holds 3, no design; pass one of `lattq\.llm\.tune`"),
        ([], "`maps` holds no design"),
        ([SmoothQuant], "SmoothQuant.*no design"),
        (lambda *args, **options: (), "whose repr differs from run to run"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            llm.quantize_model(tiny, tmp_path / "out", maps=maps, **RTN)  # type: ignore[arg-type]
    assert design_of([SmoothQuant(), Rotate()]) == chain(SmoothQuant(), Rotate())
    assert not (tmp_path / "out.partial").exists()


def test_a_class_without_a_table_is_refused_before_any_work(tmp_path: Path):
    config = transformers.GPT2Config(n_embd=16, n_head=2, n_layer=1, vocab_size=64, n_positions=32)
    save_decoder(transformers.GPT2LMHeadModel(config), tmp_path / "source")
    with pytest.raises(InvalidInputError, match="no table of places for models of the type 'gpt2'"):
        llm.quantize_model(tmp_path / "source", tmp_path / "out", maps=SmoothQuant(), **{**RTN, **SHORT})
    assert not (tmp_path / "out.partial").exists()


def test_maps_that_stay_at_run_time_are_refused(sources: Path, tmp_path: Path):
    """The weights that they leave are products, which the recipe would round once more."""
    design = AffineQuant(levels=8, group=16, epochs=1)
    with pytest.raises(
        InvalidInputError, match=r"AffineQuant leaves 1024 numbers at model\.layers\.0\.attention_input"
    ):
        llm.quantize_model(sources / "llama", tmp_path / "out", recipe=recipes.rtn, levels=8, maps=design, **SHORT)
    assert not (tmp_path / "out").exists()


def test_a_class_that_changes_its_weights_when_it_runs_is_refused(
    sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """No map could be told from what the class did."""
    forward = transformers.LlamaForCausalLM.forward

    def changing(self: Any, *args: Any, **options: Any) -> Any:
        self.model.norm.weight.data *= 0.5
        return forward(self, *args, **options)

    monkeypatch.setattr(transformers.LlamaForCausalLM, "forward", changing)
    with pytest.raises(InvalidInputError, match=r"LlamaForCausalLM changes model\.norm\.weight when it runs; no map"):
        llm.quantize_model(sources / "llama", tmp_path / "out", maps=SmoothQuant(), **{**RTN, **SHORT})


def test_a_recipe_with_a_folded_transform_points_to_maps(sources: Path, tmp_path: Path):
    def folding(levels: int) -> Any:
        return dataclasses.replace(recipes.rtn(levels), transform=Fixed(Hadamard(0), folded=True))

    with pytest.raises(InvalidInputError, match=r"layer model\.layers\.0.*maps of the whole model with `maps`"):
        llm.quantize_model(sources / "llama", tmp_path / "out", **{**RTN, **SHORT, "recipe": folding})
