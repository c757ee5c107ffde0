"""Files of statistics: whole or refused; what they cannot be used for raises and says what to do."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.numpy import load_file
from typer.testing import CliRunner

from lattq import llm, recipes
from lattq.cli.entry import app
from lattq.errors import DamagedFileError, InvalidInputError
from lattq.llm import source
from lattq.llm.measure import Statistics, measure_model
from lattq.llm.measure.model import measure_windows
from lattq.llm.measure.score import Score, pooling_of
from lattq.llm.tune import Balanced
from tests.llm.conftest import TEXT
from tests.llm.test_measure import MINILM
from tests.tiny import save_tokenizer, tiny_config

LAYER = "model.layers.0.mlp.down_proj"
OPTIONS: dict[str, Any] = {"calibration_text": TEXT, "window": 32, "samples": 24}

pytestmark = pytest.mark.filterwarnings("ignore:few calibration tokens")


@pytest.fixture(scope="module")
def file(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Statistics of the tiny model."""
    path = tmp_path_factory.mktemp("statistics") / "statistics.safetensors"
    measure_model(tiny, out=path, **OPTIONS)
    return path


def changed(file: Path, path: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    """A copy with another header; offsets of the arrays stay right if it is no longer than the old one."""
    blob = file.read_bytes()
    size = int.from_bytes(blob[:8], "little")
    header = json.loads(blob[8 : 8 + size])
    about = json.loads(header["__metadata__"]["lattq.statistics"])
    change({"header": header, "about": about})
    if "lattq.statistics" in header["__metadata__"]:
        header["__metadata__"]["lattq.statistics"] = json.dumps(about, separators=(",", ":"))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + blob[8 + size :])
    return path


def test_any_reader_of_safetensors_reads_the_sums(file: Path):
    arrays, found = load_file(file), Statistics.load(file)
    lower = arrays[f"{LAYER}.inputs.outer"][0]
    tokens = arrays[f"{LAYER}.inputs.counts"][0]
    assert tokens == 24 * 32
    assert lower.dtype == np.float64
    np.testing.assert_array_equal(found.moments(LAYER).inputs[np.tril_indices(96)], lower / tokens)


def test_a_file_in_float32_is_smaller_and_does_not_merge(file: Path, tmp_path: Path):
    found = Statistics.load(file)
    found.save(tmp_path / "small", exact=False)
    small = Statistics.load(tmp_path / "small")
    assert (tmp_path / "small").stat().st_size < 0.35 * file.stat().st_size
    np.testing.assert_allclose(small.sigma(LAYER), found.sigma(LAYER), rtol=1e-5, atol=1e-6)
    for one, other in ((small, found), (found, small)):
        with pytest.raises(InvalidInputError, match="float32 cannot be merged"):
            one.merge(other)
    small.save(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "small").read_bytes()


def _without_layer(parts: dict[str, Any]) -> None:
    del parts["about"]["layers"][LAYER]


def _other_shape(parts: dict[str, Any]) -> None:
    parts["about"]["layers"][LAYER]["shape"] = [64, 95]


def _other_array(parts: dict[str, Any]) -> None:
    header = parts["header"]
    header["x"] = header.pop(f"{LAYER}.inputs.outer")


def _no_tokens(parts: dict[str, Any]) -> None:
    parts["about"]["origin"]["scored"] = 0


def _version(parts: dict[str, Any]) -> None:
    parts["about"]["version"] = 9


def _no_origin(parts: dict[str, Any]) -> None:
    del parts["about"]["origin"]


@pytest.mark.parametrize("change", [_without_layer, _other_shape, _other_array, _no_tokens, _version, _no_origin])
def test_a_header_that_does_not_fit_is_damage(file: Path, tmp_path: Path, change: Callable):
    with pytest.raises(DamagedFileError):
        Statistics.load(changed(file, tmp_path / "changed", change))


def test_files_that_are_none(file: Path, tmp_path: Path, tiny: Path):
    with pytest.raises(InvalidInputError, match="there is no file"):
        Statistics.load(tmp_path / "missing")
    with pytest.raises(InvalidInputError, match="holds no statistics"):
        Statistics.load(tiny / "model.safetensors")
    (tmp_path / "cut").write_bytes(file.read_bytes()[:-100])
    with pytest.raises(DamagedFileError, match="truncated or damaged"):
        Statistics.load(tmp_path / "cut")


def test_an_interrupted_write_leaves_nothing(file: Path, tmp_path: Path):
    found = Statistics.load(file)
    broken = dataclasses.replace(found, arrays={**found.arrays, f"{LAYER}.inputs.outer": np.array("no number")})
    with pytest.raises(ValueError, match="could not convert"):
        broken.save(tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_statistics_of_other_models_or_methods_do_not_merge(file: Path):
    found = Statistics.load(file)
    for field, what in (("model", "models"), ("method", "methods")):
        other = dataclasses.replace(found, origin=dataclasses.replace(found.origin, **{field: "other"}))
        with pytest.raises(InvalidInputError, match=f"of different {what}"):
            found.merge(other)


def test_statistics_in_other_blocks_do_not_merge(tiny: Path, file: Path):
    other = measure_model(tiny, block=16, modules=[LAYER], **OPTIONS)
    with pytest.raises(InvalidInputError, match=f"differ in what `{LAYER}` is"):
        Statistics.load(file).merge(other)


@pytest.mark.parametrize(("name", "value"), [("draws", 0), ("block", 0), ("threads", 0), ("label_seed", -1)])
def test_settings_out_of_range_raise(tiny: Path, name: str, value: int):
    options: dict[str, Any] = OPTIONS | {name: value}
    with pytest.raises(InvalidInputError, match=str(value)):
        measure_model(tiny, **options)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", ["draws", "block", "threads", "label_seed", "guides", "samples", "window"])
def test_settings_that_are_no_integers_raise(tiny: Path, name: str):
    options: dict[str, Any] = OPTIONS | {name: "four"}
    with pytest.raises(InvalidInputError, match="is 'four'; pass an integer"):
        measure_model(tiny, **options)


def test_a_model_with_numbers_out_of_scale_raises(tmp_path: Path):
    torch.manual_seed(0)
    model: Any = transformers.LlamaForCausalLM(tiny_config())
    model.model.layers[0].mlp.up_proj.weight.data *= 1e20
    model.save_pretrained(tmp_path / "model")
    save_tokenizer(tmp_path / "model")
    with pytest.raises(InvalidInputError, match="not finite or beyond"):
        measure_model(tmp_path / "model", **OPTIONS)


# Quantizing from statistics.


def rows_of(report: llm.Report) -> dict[str, tuple[float, float, int]]:
    """Rate, distortion and tokens by layer."""
    return {row.name: (row.rate, row.distortion, row.tokens) for row in report.layers}


ONE_SIDED: dict[str, Any] = {"recipe": recipes.UNBIASED}


@pytest.mark.parametrize(
    "recipe", [{"recipe": recipes.gptq, "levels": 16}, ONE_SIDED | {"step": 0.02}, ONE_SIDED | {"rate": 3.0}]
)
def test_a_file_gives_what_its_text_gives(tiny: Path, file: Path, tmp_path: Path, recipe: dict[str, Any]):
    recipe |= {"allocation": "distortion", "modules": [LAYER, "model.layers.1.self_attn.k_proj"]}
    text = llm.quantize_model(tiny, tmp_path / "text", propagate=False, **OPTIONS, **recipe)
    found = llm.quantize_model(tiny, tmp_path / "found", statistics=file, **recipe)
    assert rows_of(found).keys() == rows_of(text).keys()
    for name, (rate, distortion, tokens) in rows_of(text).items():
        mine = rows_of(found)[name]
        assert mine[2] == tokens == 24 * 32
        assert mine[:2] == pytest.approx((rate, distortion), rel=0.01)
    assert found.settings["calibration"] == f"statistics {Statistics.load(file).digest()}"


def test_outputs_count_as_in_the_file(tiny: Path, tmp_path: Path):
    """What a conversion measures itself is what `measure_model` writes with two draws, weighed by an eighth."""
    model, plain = source.load_model(tiny).float(), measure_model(tiny, draws=2, **OPTIONS)
    windows = source.token_windows(source.load_tokenizer(tiny), TEXT, OPTIONS["window"], OPTIONS["samples"], 0)[::8]
    layers = {name: one for name, one in source.choose_modules(model).items() if name in plain.layers}
    origin = dataclasses.replace(plain.origin, tokens=windows.numel(), scored=2 * windows.numel())
    pilot = measure_windows(model, layers, windows, Score(0, 2)).statistics(origin)
    measured = measure_model(tiny, draws=2, matched=pilot, **OPTIONS)
    text = llm.quantize_model(tiny, tmp_path / "text", step=0.02, **OPTIONS)
    assert not text.settings["propagate"]
    found = llm.quantize_model(tiny, tmp_path / "found", statistics=measured, step=0.02)
    for name, (rate, distortion, _) in rows_of(text).items():
        assert rows_of(found)[name][:2] == pytest.approx((rate, distortion), rel=0.01)
    one = llm.quantize_model(tiny, tmp_path / "plain", statistics=measured, step=0.02, **ONE_SIDED)
    assert one.distortion != pytest.approx(found.distortion, rel=0.05)
    behind = llm.quantize_model(tiny, tmp_path / "behind", step=0.02, propagate=True, **OPTIONS)
    assert behind.distortion != pytest.approx(found.distortion, rel=0.001)


def test_two_runs_from_a_file_and_its_value_are_the_same_bytes(tiny: Path, file: Path, tmp_path: Path):
    llm.quantize_model(tiny, tmp_path / "one", statistics=str(file), step=0.02)
    llm.quantize_model(tiny, tmp_path / "other", statistics=Statistics.load(file), step=0.02)
    one, other = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "other"))
    assert one == other


def test_steps_follow_the_sensitivities_of_the_file(tiny: Path, file: Path, tmp_path: Path):
    found = llm.quantize_model(tiny, tmp_path / "out", statistics=file, step=0.02, **ONE_SIDED)
    statistics = Statistics.load(file)
    tokens, known = statistics.origin.scored, {name: statistics.sensitivity(name) for name in statistics.layers}
    more = sum(known.values()) / len(known)  # one token more, of mean sensitivity
    slopes = [row.value**2 * (tokens * known[row.name] + more) for row in found.layers]
    assert slopes == pytest.approx([slopes[0]] * len(slopes), rel=1e-9)
    assert len({row.value for row in found.layers}) > 3


@pytest.mark.parametrize(
    "options",
    [
        {"calibration_text": TEXT},
        {"drift": True},
        {"propagate": True},
        {"input_bits": 4},
        {"window": 32},
        {"samples": 3},
        {"maps": Balanced()},
    ],
    ids=lambda options: next(iter(options)),
)
def test_what_statistics_do_not_hold_cannot_be_asked_of_them(tiny: Path, file: Path, tmp_path: Path, options: dict):
    with pytest.raises(InvalidInputError, match=f"`statistics` and `{next(iter(options))}` are both given"):
        llm.quantize_model(tiny, tmp_path / "out", statistics=file, step=0.02, **options)
    assert not (tmp_path / "out").exists()


def test_neither_text_nor_statistics(tiny: Path, tmp_path: Path):
    with pytest.raises(InvalidInputError, match="`calibration_text` is missing"):
        llm.quantize_model(tiny, tmp_path / "out", step=0.02)
    with pytest.raises(InvalidInputError, match="there is no file"):
        llm.quantize_model(tiny, tmp_path / "out", statistics=tmp_path / "missing", step=0.02)


def test_statistics_of_another_model_are_refused(file: Path, tmp_path: Path):
    with pytest.raises(InvalidInputError, match="of another model"):
        llm.quantize_model(llm.embedded_model(), tmp_path / "out", statistics=file, step=0.02)
    with pytest.raises(InvalidInputError, match="measure this one"):
        measure_model(llm.embedded_model(), matched=Statistics.load(file), **OPTIONS)
    assert not (tmp_path / "out.partial").exists()


def test_shapes_of_another_model_are_refused(tiny: Path, file: Path, tmp_path: Path):
    found = Statistics.load(file)
    layers = {**found.layers, LAYER: dataclasses.replace(found.layers[LAYER], shape=(64, 64))}
    with pytest.raises(InvalidInputError, match=r"hold model\S+ as \(64, 64\), and it is \(64, 96\)"):
        llm.quantize_model(tiny, tmp_path / "out", statistics=dataclasses.replace(found, layers=layers), step=0.02)


def test_layers_that_were_not_measured_stay_dense(tiny: Path, tmp_path: Path):
    found = measure_model(tiny, modules=[LAYER], **OPTIONS)
    report = llm.quantize_model(tiny, tmp_path / "out", statistics=found, step=0.02)
    assert [row.name for row in report.layers] == [LAYER]
    assert any(row.why == "no calibration input reached it" for row in report.dense)
    other: dict[str, Any] = {"modules": ["model.layers.0.mlp.up_proj"]}
    with pytest.raises(InvalidInputError, match="cannot be quantized"):
        llm.quantize_model(tiny, tmp_path / "other", statistics=found, step=0.02, **other)


# The commands.


def run(*arguments: Any) -> Any:
    """Run a command that succeeds and parse its output."""
    found = CliRunner().invoke(app, [str(one) for one in [*arguments, "--json"]], catch_exceptions=False)
    assert found.exit_code == 0, found.output
    return json.loads(found.stdout)


def test_commands_measure_merge_show_and_quantize(tiny: Path, tmp_path: Path):
    text = tmp_path / "text.txt"
    text.write_text(TEXT)
    files = [tmp_path / name for name in ("one", "two", "both", "turned")]
    for seed, path in enumerate(files[:2]):
        told = run(
            "measure", tiny, "--calibration", text, "--out", path, "--window", 32, "--samples", 6, "--seed", seed
        )
        assert told["tokens"] == 6 * 32
    told = run("statistics", "merge", files[0], files[1], "--out", files[2])
    run("statistics", "merge", files[1], files[0], "--out", files[3])
    assert files[2].read_bytes() == files[3].read_bytes()
    shown = run("statistics", "show", files[2])
    assert shown["tokens"] == told["tokens"] == 12 * 32
    assert {row["name"] for row in shown["layers"]} == set(Statistics.load(files[2]).layers)
    plain = CliRunner().invoke(app, ["statistics", "show", str(files[2])])
    assert "12 windows of 1 text(s), 384 tokens" in plain.stdout
    report = run("quantize", tiny, "--statistics", files[2], "--step", "0.02", "--out", tmp_path / "out")
    assert {row["tokens"] for row in report["layers"]} == {384}
    again = run("statistics", "merge", files[0], files[0], "--out", files[3])
    assert again["repeated"] == 6


def test_commands_complain_in_one_line(tiny: Path, file: Path, tmp_path: Path):
    for arguments, words in (
        (["measure", tiny, "--out", tmp_path / "x"], "needs `--calibration FILE`"),
        (["statistics", "merge", file, "--out", tmp_path / "x"], "two files or more"),
        (["statistics", "show", tmp_path / "missing"], "there is no file"),
        (["quantize", tiny, "--statistics", file, "--drift", "--out", tmp_path / "x"], "`drift` are both given"),
    ):
        found = CliRunner().invoke(app, [str(one) for one in arguments])
        assert found.exit_code == 1
        (line,) = found.stderr.splitlines()
        assert words in line


# Encoders.


def test_a_directory_says_how_its_embeddings_are_pooled(tiny: Path):
    """all-MiniLM takes the mean and normalises it; a Llama has no such pipeline."""
    assert pooling_of(MINILM) == "mean"
    assert pooling_of(tiny) is None


def test_statistics_of_an_encoder_are_of_its_embeddings():
    options: dict[str, Any] = OPTIONS | {"samples": 3}
    found = measure_model(MINILM, modules=[(name := "encoder.layer.5.output.dense")], draws=2, **options)
    model = source.load_model(MINILM, torch.float32)
    windows = source.token_windows(source.load_tokenizer(MINILM), TEXT, options["window"], options["samples"])
    layers = source.choose_modules(model, [name])
    for pooling in ("mean", None):
        sums = measure_windows(model, layers, windows, Score(0, 2, pooling)).statistics(found.origin)
        same = np.allclose(sums.moments(name).outputs, found.moments(name).outputs, rtol=1e-5, atol=1e-12)
        assert same == (pooling == "mean")
