"""Refining: layers with frozen codes compute what their payloads say, and training never leaves a model worse."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import lattq as lq
from lattq import llm
from lattq.coding.integers import encode_integers
from lattq.errors import InvalidInputError
from lattq.llm import Refining, refine_model
from lattq.llm.distill import training
from lattq.llm.distill.divergence import divergence, log_probabilities
from lattq.llm.distill.factors import FrozenCodes
from lattq.llm.distill.student import Student
from lattq.llm.distill.training import distill
from lattq.llm.run import block_of, verified_payloads
from lattq.llm.run.layers import LattqLinear
from lattq.llm.source import checkpoint
from lattq.llm.source.weights import weight_files
from lattq.llm.source.windows import token_windows
from lattq.progress import Stage
from lattq.quantized import Quantized
from lattq.transforms import Hadamard
from tests.llm.conftest import TEXT
from tests.strategies import seeds
from tests.tiny import save_tokenizer, tiny_config

ROWS, COLUMNS = 24, 32
WORK = {"calibration_text": TEXT, "window": 64, "samples": 48, "refining": Refining(epochs=3, tokens=512, gains=True)}
SCHEMES = {
    "rtn": lq.recipes.rtn(levels=8, group=8),
    "zero points": lq.recipes.rtn(levels=8, group=8, symmetric=False),
    "gptq": lq.recipes.gptq(levels=8, group=12),
    "sorted": lq.recipes.gptq(levels=8, group=12, order="sorted"),
    "huffman_gptq": lq.recipes.huffman_gptq(0.3),
    "shrunk": lq.recipes.huffman_gptq(0.9, shrink=True),
    "watersic": lq.recipes.watersic(0.3, mmse=0.0, refit=("rows", "columns")),
    "rotated": lq.recipes.watersic(0.3, rotation=Hadamard(0)),
    "trellis": lq.recipes.watersic(0.3, quantizer=lq.quantizers.Trellis(states=8)),
    "two-sided": lq.recipes.two_sided(0.3),
    "two-sided rotated": lq.recipes.two_sided(0.3, rotation=Hadamard(0), quantizer=lq.quantizers.Uniform()),
    "palette": lq.recipes.palettize(bits=3),
    "outliers": lq.recipes.squeezellm(bits=3),
    "bitshift": lq.recipes.bitshift(bits=2, memory=6),
}
NAMES = [*SCHEMES, "watersic, gains", "gptq, gains", "rotated, gains", "two-sided, gains"]


def quantized(name: str, seed: int = 0) -> Quantized:
    """A Gaussian matrix of unequal rows under a scheme."""
    rng = np.random.default_rng(seed)
    weight = rng.normal(size=(ROWS, COLUMNS)) * np.exp(0.5 * rng.normal(size=(ROWS, 1)))
    inputs = rng.normal(size=(4 * COLUMNS, COLUMNS)) * np.exp(0.5 * rng.normal(size=COLUMNS))
    scores = rng.normal(size=(4 * ROWS, ROWS)) * np.exp(rng.normal(size=ROWS))
    metric = lq.Metric(inputs.T @ inputs / len(inputs), scores.T @ scores / len(scores))
    scheme = SCHEMES[name.removesuffix(", gains")]
    found = lq.quantize(weight, metric if "two-sided" in name else metric.inputs, scheme)
    if name.endswith(", gains"):
        return found.revalued(row_gains=128 + np.arange(ROWS) % 9, column_gains=120 + np.arange(COLUMNS) % 5)
    return found


def layer_of(found: Quantized) -> LattqLinear:
    return LattqLinear(ROWS, COLUMNS, payload=found.payload)


def payloads_of(directory: Path) -> dict[str, bytes]:
    """Payloads of a directory, whole and verified."""
    return verified_payloads(block_of(checkpoint.read_config(directory), directory), weight_files(directory))


@pytest.fixture(scope="module")
def dense() -> Path:
    """A model that has learned something: what is quantized of it matters."""
    return llm.embedded_model()


@pytest.fixture(scope="module")
def coarse(dense: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its middle block at about two bits."""
    out = tmp_path_factory.mktemp("coarse") / "out"
    options = {"recipe": lq.recipes.huffman_gptq, "step": 0.1, "samples": 8, "calibration_text": TEXT}
    llm.quantize_model(dense, out, **options, include=["model.layers.1.*"], allocation="distortion", propagate=False)
    return out


@pytest.fixture(scope="module")
def fine(dense: Path, coarse: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """The same, refined."""
    out = tmp_path_factory.mktemp("fine") / "out"
    return out, refine_model(coarse, out, source=dense, **WORK)


@pytest.fixture
def pair(dense: Path, coarse: Path) -> tuple[Student, Any, Tensor]:
    """A student, its teacher, and windows."""
    tokenizer, teacher = checkpoint.load_tokenizer(dense), checkpoint.load_model(dense, torch.float32)
    windows = token_windows(tokenizer, TEXT, 64, 48)
    return Student(checkpoint.load_model(coarse), gains=True), teacher, windows


@pytest.mark.parametrize("gains", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_a_layer_with_frozen_codes_is_its_payload(name: str, gains: bool):
    found = quantized(name)
    layer = layer_of(found)
    frozen = FrozenCodes(layer, gains=gains)
    x = torch.randn(5, COLUMNS, generator=torch.Generator().manual_seed(0))
    # Products of float32, in another order than those of float64.
    slack = 8 * torch.finfo(torch.float32).eps * float(layer.weight.abs().max()) * COLUMNS
    assert torch.allclose(frozen.weight, layer.weight, atol=slack)
    assert torch.allclose(frozen(x), layer(x), atol=slack * float(x.abs().max()) * COLUMNS)
    assert frozen.quantized() is frozen.plain
    frozen.round()
    assert frozen.quantized().payload == found.payload


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(NAMES), seeds, st.floats(0.001, 0.3), st.booleans())
def test_what_was_learned_is_what_a_decoder_finds(name: str, seed: int, size: float, gains: bool):
    found = quantized(name)
    frozen = FrozenCodes(layer_of(found), gains=gains)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for factor in frozen.parameters():
            factor.mul_(1 + size * torch.randn(factor.shape, generator=generator))
    frozen.round()
    again = Quantized.from_payload(frozen.quantized().payload, found.shape)
    assert np.array_equal(again.codes, found.codes)
    wanted = torch.from_numpy(again.dequantize())
    assert torch.allclose(frozen.weight, wanted, atol=1e-4 * float(wanted.abs().max()))
    before = frozen.quantized().payload
    frozen.round()
    assert frozen.quantized().payload == before


@pytest.mark.parametrize("name", NAMES)
def test_without_gains_no_byte_is_added(name: str):
    frozen = FrozenCodes(layer_of(quantized(name)))
    assert frozen.row_gains is None
    assert frozen.column_gains is None
    with torch.no_grad():
        for factor in frozen.parameters():
            factor.mul_(1.1)
    frozen.round()
    assert len(frozen.quantized().payload) == len(frozen.plain.payload)
    changed = frozen.quantized().payload != frozen.plain.payload
    assert changed == (frozen.steps is not None)


def test_integers_with_steps_have_no_gains_of_rows():
    assert FrozenCodes(layer_of(quantized("gptq")), gains=True).row_gains is None


@pytest.mark.parametrize("spread", [1.0, 4.0, 12.0])
def test_the_price_of_gains_is_about_their_bytes(spread: float):
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(4096, 4))
    frozen = FrozenCodes(
        LattqLinear(4096, 4, payload=lq.quantize(weight, np.eye(4), lq.recipes.huffman_gptq(0.5)).payload),
        gains=True,
    )
    gains = 128 + np.rint(spread * rng.normal(size=4096))
    assert frozen.row_gains is not None
    with torch.no_grad():
        frozen.row_gains.copy_(torch.from_numpy(gains / 128))
    _, _, words = encode_integers(gains.astype(np.int64) - 128)
    # A scalar code takes a quarter of a bit more than the formula, of the two bits and more here; classes are close.
    assert float(frozen.bits().detach()) == pytest.approx(8 * len(words), rel=0.15)


def test_gradients_are_finite_differences():
    frozen = FrozenCodes(layer_of(quantized("watersic, gains")), gains=True).double()
    x = torch.randn(3, COLUMNS, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    factors = dict(frozen.named_parameters())
    assert factors.keys() == {"steps", "row_gains", "column_gains"}

    def output(*values: Tensor) -> Tensor:
        return torch.func.functional_call(frozen, dict(zip(factors, values, strict=True)), (x,))

    assert torch.autograd.gradcheck(output, tuple(factors.values()))


def test_recomputed_blocks_give_the_same_gradients(pair: tuple[Student, Any, Tensor]):
    student, _, windows = pair
    found = []
    for recomputed in (False, True):
        student.model.zero_grad()
        loss = log_probabilities(student.model, windows[:2])[..., 0].sum()
        if recomputed:
            with student.recomputing():
                loss = log_probabilities(student.model, windows[:2])[..., 0].sum()
                loss.backward()
        else:
            loss.backward()
        found.append({name: torch.as_tensor(one.grad).clone() for name, one in student.learned.items()})
    for name, gradient in found[0].items():
        assert torch.equal(gradient, found[1][name]), name


def test_a_divergence_is_zero_of_itself_and_never_negative():
    logs = torch.log_softmax(torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(0)), -1)
    assert torch.equal(divergence(logs, logs), torch.zeros(2, 5))
    assert (divergence(logs[:1], logs[1:]) > 0).all()


def test_refining_leaves_codes_and_helps_unseen_text(dense: Path, coarse: Path, fine: tuple[Path, Any]):
    out, told = fine
    assert told.distillation.best_epoch > 0
    assert told.distillation.end.divergence < told.distillation.start.divergence
    plain, new = payloads_of(coarse), payloads_of(out)
    assert plain.keys() == new.keys()
    assert any(plain[name] != new[name] for name in plain)
    for name, payload in plain.items():
        assert np.array_equal(Quantized.from_payload(payload).codes, Quantized.from_payload(new[name]).codes)
    text = llm.embedded_text("evaluation")[:20_000]
    before, after = (llm.evaluate(one, text, reference=dense, window=64, samples=40) for one in (coarse, out))
    assert (after.kl_bits_per_token or 0.0) < (before.kl_bits_per_token or 0.0)


def test_every_byte_is_counted(coarse: Path, fine: tuple[Path, Any]):
    out, told = fine
    assert told.stored_bytes == llm.stored_bytes(out)
    assert told.plain_bytes == llm.stored_bytes(coarse)
    assert told.rate == 8 * told.stored_bytes / told.weights
    new = payloads_of(out)
    assert told.distillation.end.payload_bytes == sum(map(len, new.values()))
    report = llm.Report.from_json((out / "lattq_report.json").read_text())
    assert (report.rate, report.stored_bytes, report.run) == (told.rate, told.stored_bytes, told.run)
    assert report.file_bytes == sum(path.stat().st_size for path in out.glob("*.safetensors"))
    for row in report.layers:
        assert row.rate == 8 * len(new[row.name]) / math.prod(row.shape)


def test_dense_tensors_keep_their_types(coarse: Path, fine: tuple[Path, Any]):
    def types(directory: Path) -> dict[str, Any]:
        return {name: one.dtype for name, one in checkpoint.load_model(directory).named_parameters()}

    assert types(fine[0]) == types(coarse)


def test_the_same_call_writes_the_same_bytes(dense: Path, coarse: Path, fine: tuple[Path, Any], tmp_path: Path):
    refine_model(coarse, tmp_path / "again", source=dense, **WORK)
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "again" / name).read_bytes() == (fine[0] / name).read_bytes()


def test_an_interrupted_run_continues_to_the_same_bytes(
    dense: Path, coarse: Path, fine: tuple[Path, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    whole, done = training._Run.epoch, []

    def interrupted(self: Any) -> None:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(1)
        whole(self)

    with monkeypatch.context() as patch:
        patch.setattr(training._Run, "epoch", interrupted)
        with pytest.raises(KeyboardInterrupt):
            refine_model(coarse, tmp_path / "out", source=dense, **WORK)
    assert not (tmp_path / "out").exists()
    with pytest.raises(InvalidInputError, match="refining"):
        refine_model(coarse, tmp_path / "out", source=dense, **{**WORK, "refining": Refining(epochs=9, gains=True)})
    epochs = []

    def counted(self: Any) -> None:
        epochs.append(1)
        whole(self)

    monkeypatch.setattr(training._Run, "epoch", counted)
    refine_model(coarse, tmp_path / "out", source=dense, **WORK)
    assert len(epochs) == len(fine[1].distillation.epochs) - 2
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == (fine[0] / "model.safetensors").read_bytes()
    assert not (tmp_path / "out.partial").exists()


def test_a_run_that_diverges_ends_with_what_it_began(pair: tuple[Student, Any, Tensor]):
    student, teacher, windows = pair
    before = student.payloads()
    found = distill(student, teacher, windows, Refining(epochs=2, tokens=512, reach=0.9), Stage("train"), {})
    assert found.best_epoch == 0
    assert min(epoch.score for epoch in found.epochs) > found.start.score  # there was something to refuse
    assert found.end == found.start
    assert found.ratio == 1.0
    assert student.payloads() == before


def test_a_step_that_is_not_finite_is_taken_back(pair: tuple[Student, Any, Tensor], monkeypatch: pytest.MonkeyPatch):
    student, teacher, windows = pair
    plain, calls, rates = training._Run.step, [], []

    def broken(self: Any, batch: Tensor, reached: set[str]) -> bool:
        calls.append(1)
        rates.append(self.optimizer.param_groups[0]["lr"])
        if len(calls) == 9:  # in the second epoch of six steps
            before = student.state()
            with monkeypatch.context() as patch:
                patch.setattr(training, "distance", lambda wanted, found: math.nan * found.sum(-1))
                assert not plain(self, batch, reached)
            assert all(torch.equal(one, before[name]) for name, one in student.state().items())
            return False
        return plain(self, batch, reached)

    monkeypatch.setattr(training._Run, "step", broken)
    found = distill(student, teacher, windows, Refining(epochs=3, tokens=512), Stage("train"), {})
    assert [epoch.rejected for epoch in found.epochs] == [False, True, False]
    assert rates[9] == pytest.approx(rates[8] / 2)
    assert found.end.divergence <= found.start.divergence
    assert all(bool(one.isfinite().all()) for one in student.learned.values())


def test_a_model_that_never_gives_a_number_stays(pair: tuple[Student, Any, Tensor], monkeypatch: pytest.MonkeyPatch):
    student, teacher, windows = pair
    before = student.payloads()
    monkeypatch.setattr(training._Run, "step", lambda *_: False)
    found = distill(student, teacher, windows, Refining(epochs=9, patience=2), Stage("train"), {})
    assert len(found.epochs) == 3
    assert student.payloads() == before


def test_bytes_beyond_the_most_are_refused(dense: Path, coarse: Path, tmp_path: Path):
    report = llm.Report.from_json((coarse / "lattq_report.json").read_text())
    told = refine_model(coarse, tmp_path / "out", source=dense, most_rate=report.rate, **WORK)
    assert told.rate <= report.rate


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another model of the same class."""
    directory = tmp_path_factory.mktemp("models") / "other"
    transformers.LlamaForCausalLM(tiny_config()).save_pretrained(directory)
    save_tokenizer(directory)
    return directory


def test_another_source_is_refused(dense: Path, other: Path, coarse: Path, tmp_path: Path):
    with pytest.raises(InvalidInputError, match="not the model that"):
        refine_model(coarse, tmp_path / "out", source=other, **WORK)
    with pytest.raises(InvalidInputError, match="is quantized itself"):
        refine_model(coarse, tmp_path / "out", source=coarse, **WORK)
    with pytest.raises(InvalidInputError, match="no quantized layers"):
        refine_model(dense, tmp_path / "out", source=dense, **WORK)
    assert not list(tmp_path.iterdir())


def test_another_source_is_refused_by_its_shapes_where_there_is_no_report(coarse: Path, other: Path, tmp_path: Path):
    bare = tmp_path / "bare"
    bare.mkdir()
    for path in coarse.iterdir():
        if path.name != "lattq_report.json":
            (bare / path.name).write_bytes(path.read_bytes())
    with pytest.raises(InvalidInputError, match="another model"):
        refine_model(bare, tmp_path / "out", source=other, **WORK)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"samples": 1}, "takes 2: one judges"),
        ({"calibration_text": " "}, "empty"),
        ({"most_rate": 0.0}, "most_rate"),
        ({"threads": 0}, "threads"),
    ],
)
def test_unusable_arguments_are_named(change: dict[str, Any], match: str, dense: Path, coarse: Path, tmp_path: Path):
    with pytest.raises(InvalidInputError, match=match):
        refine_model(coarse, tmp_path / "out", source=dense, **{**WORK, **change})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "change", [{"epochs": 0}, {"tokens": 0}, {"held_out": 1}, {"patience": -1}, {"reach": 0.0}, {"reach": math.nan}]
)
def test_unusable_options_are_named(change: dict[str, Any]):
    with pytest.raises(InvalidInputError, match=next(iter(change))):
        Refining(**change)


def test_a_layer_without_gradient_is_named(pair: tuple[Student, Any, Tensor]):
    student, teacher, windows = pair
    block = student.model.model.layers[1].self_attn
    plain = block.forward

    def idle(*args: Any, **kwargs: Any) -> Any:
        output, *rest = plain(*args, **kwargs)
        return (torch.zeros_like(output), *rest)

    block.forward = idle
    with pytest.raises(InvalidInputError, match=r"no gradient reaches model.layers.1.self_attn"):
        distill(student, teacher, windows, Refining(epochs=1, tokens=512), Stage("train"), {})


def test_quantize_refines_within_the_rate(dense: Path, tmp_path: Path):
    options = {"recipe": lq.recipes.huffman_gptq, "rate": 4.0, "include": ["*.1.mlp.*"], "propagate": False}
    options |= {key: WORK[key] for key in ("calibration_text", "window", "samples")}
    report = llm.quantize_model(dense, tmp_path / "out", refine=Refining(epochs=2, tokens=512, gains=True), **options)
    assert report.rate <= 4.005
    assert report.rate == 8 * llm.stored_bytes(tmp_path / "out") / report.weights
    assert (tmp_path / "out" / "lattq_refinement.json").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_models_without_a_head_learn_embeddings(tmp_path: Path):
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=2048, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=96
    )
    transformers.BertModel(config).save_pretrained(tmp_path / "bert")
    save_tokenizer(tmp_path / "bert")
    options = {"calibration_text": TEXT, "window": 32, "samples": 24}
    recipe = {"recipe": lq.recipes.rtn, "levels": 3}
    report = llm.quantize_model(tmp_path / "bert", tmp_path / "plain", **options, **recipe, include=["encoder*"])
    told = refine_model(
        tmp_path / "plain", tmp_path / "out", source=tmp_path / "bert", **{**WORK, "refining": WORK["refining"]}
    )
    assert told.distillation.end.divergence < told.distillation.start.divergence
    assert told.rate == report.rate  # steps of float16 for each row and group are stored anyway


def test_options_are_in_the_words_of_the_run(fine: tuple[Path, Any]):
    assert fine[1].settings["refining"] == dataclasses.asdict(WORK["refining"])


def directory_of(model: Any, directory: Path) -> Path:
    """A random model with a tokenizer on disk."""
    model.save_pretrained(directory)
    save_tokenizer(directory)
    return directory


SMALL = {"calibration_text": TEXT, "window": 32, "samples": 24}


def test_experts_stay_and_the_rest_learns(tmp_path: Path):
    torch.manual_seed(0)
    sizes = {key: value for key, value in vars(tiny_config()).items() if key in ("vocab_size", "hidden_size")}
    config = transformers.MixtralConfig(
        **sizes,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_local_experts=2,
        num_experts_per_tok=1,
        max_position_embeddings=64,
    )
    source = directory_of(transformers.MixtralForCausalLM(config), tmp_path / "dense")
    llm.quantize_model(source, tmp_path / "plain", recipe=lq.recipes.huffman_gptq, step=0.03, **SMALL)
    told = refine_model(
        tmp_path / "plain", tmp_path / "out", source=source, refining=Refining(epochs=2, tokens=256), **SMALL
    )
    assert told.distillation.best_epoch > 0
    assert told.distillation.end.payload_bytes == sum(map(len, payloads_of(tmp_path / "out").values()))
    plain, new = payloads_of(tmp_path / "plain"), payloads_of(tmp_path / "out")
    assert {name for name in plain if plain[name] == new[name]} >= {name for name in plain if "experts" in name}


def test_rounded_inputs_stay_rounded(tmp_path: Path):
    torch.manual_seed(0)
    source = directory_of(transformers.LlamaForCausalLM(tiny_config()), tmp_path / "dense")
    llm.quantize_model(source, tmp_path / "plain", recipe=lq.recipes.rtn, levels=4, input_bits=4, **SMALL)
    refining = Refining(epochs=2, tokens=256, reach=1e-3)
    told = refine_model(tmp_path / "plain", tmp_path / "out", source=source, refining=refining, **SMALL)
    assert told.distillation.best_epoch > 0
    inputs = [block_of(checkpoint.read_config(tmp_path / name), name).inputs() for name in ("plain", "out")]
    assert inputs[0] == inputs[1] != {}
    loaded = checkpoint.load_model(tmp_path / "out", torch.float32)
    student = Student(checkpoint.load_model(tmp_path / "out"))
    batch = torch.randint(2, 2048, (2, 32), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours, theirs = (log_probabilities(model, batch) for model in (student.model, loaded))
    assert torch.allclose(ours, theirs, atol=1e-3)
