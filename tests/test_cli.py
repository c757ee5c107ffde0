"""The command line: what it prints, how it fails, and that it starts without the libraries it does not need."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from typer.testing import CliRunner, Result

import lattq as lq
from lattq import llm
from lattq.cli import console, demo, main
from lattq.cli.entry import app
from lattq.llm.run.layers import LattqLinear
from lattq.progress import Several, Stage
from tests.tiny import save_tokenizer, tiny_config

LAYER = "model.layers.0.self_attn.q_proj"
PNG = b"\x89PNG\r\n\x1a\n"


def run(*arguments: Any) -> Result:
    """Run a command in this process."""
    return CliRunner().invoke(app, [str(one) for one in arguments], catch_exceptions=False)


def values(*arguments: Any) -> Any:
    """Run a command with `--json` and parse all of its output; stderr holds events of progress only."""
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    assert all("event" in json.loads(line) for line in result.stderr.splitlines())
    return json.loads(result.stdout)


def error(*arguments: Any) -> str:
    """The one line on stderr with which a command fails, twice: as text and as JSON."""
    result = run(*arguments)
    assert result.exit_code == 1, result.output
    assert not result.stdout
    (line,) = result.stderr.splitlines()
    again = run(*arguments, "--json")
    assert again.exit_code == 1
    assert all("event" in json.loads(each) for each in again.stderr.splitlines())
    assert json.loads(again.stdout) == {"error": line.removeprefix("lattq: ")}
    return line


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short text file."""
    path = tmp_path_factory.mktemp("texts") / "text.txt"
    path.write_text(llm.embedded_text("calibration")[:20_000], encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory of a random Llama with the tokenizer of the embedded model."""
    torch.manual_seed(0)
    directory = tmp_path_factory.mktemp("models") / "tiny"
    transformers.LlamaForCausalLM(tiny_config()).save_pretrained(directory)
    save_tokenizer(directory)
    return directory


@pytest.fixture(scope="module")
def quantized(tiny: Path, text: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """The tiny model at 4 bits, and what the command printed."""
    out = tmp_path_factory.mktemp("quantized") / "out"
    options = ["--recipe", "huffman_gptq", "--rate", 4, "--samples", 8, "--one-pass"]
    return out, values("quantize", tiny, "--out", out, "--calibration", text, *options)


def test_help_lists_the_commands():
    result = run("--help")
    assert result.exit_code == 0
    for name in ("quantize", "measure", "refine", "eval", "inspect", "bounds", "demo"):
        assert name in result.stdout
        assert "--debug" in run(name, "--help").stdout
    assert run("--version").stdout.startswith("lattq ")


def test_starts_without_torch_and_matplotlib():
    code = """
import sys
sys.modules.update(dict.fromkeys(["torch", "transformers", "matplotlib"]))
from lattq.cli import main
assert main(["--help"]) == 0
assert main(["bounds", "--rates", "2"]) == 0
assert main(["bounds", "--plot", "a.png"]) == 1
assert main(["quantize", "embedded", "--out", "a"]) == 1
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    assert "6.2500e-02" in found.stdout
    assert found.stderr.splitlines() == [
        "lattq: a figure needs matplotlib: pip install lattq[plot]",
        "lattq: this command needs torch: pip install lattq[llm]",
    ]


def test_bounds_prints_what_the_library_says():
    found = values("bounds", "--rates", "1,2", "--variance", 4)
    assert [row["distortion"] for row in found["rates"]] == [1.0, 0.25]
    scalar = lq.bounds.entropy_coded_scalar(1.0, variance=4.0)
    assert found["rates"][0]["scalar_gap"] == scalar.gap
    assert found["rates"][1]["absmax_distortion"] == lq.bounds.absmax_distortion(4, 128, variance=4.0)
    gaps = [row["gap"] for row in found["space_filling"]]
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[0] == pytest.approx(lq.bounds.CUBIC_GAP)
    table = run("bounds", "--rates", "1,2", "--variance", 4).stdout
    assert f"{scalar.gap:.4f}" in table
    assert "Leech" in table


def test_bounds_of_a_layer(tmp_path: Path, rng: np.random.Generator):
    inputs = rng.normal(size=(200, 12)) @ rng.normal(size=(12, 12))
    sigma = inputs.T @ inputs / len(inputs)
    np.save(tmp_path / "sigma.npy", sigma)
    found = values("bounds", "--sigma", tmp_path / "sigma.npy", "--rates", "0.5,6", "--plot", tmp_path / "layer.png")
    low, high = found["rates"]
    assert low["distortion"] == pytest.approx(lq.bounds.layer_distortion(sigma, 0.5), rel=1e-12)
    assert low["distortion"] > low["high_rate_distortion"]
    assert high["distortion"] == pytest.approx(high["high_rate_distortion"], rel=1e-9)
    by_order = {row["order"]: row for row in found["cancellation"]}
    assert by_order["natural"]["loss"] == pytest.approx(lq.bounds.cancellation_loss(lq.linalg.ldl(sigma).pivots))
    for row in by_order.values():  # the order moves the pivots, not their product
        assert np.log(row["pivots"]).sum() == pytest.approx(np.linalg.slogdet(sigma)[1])
    assert (tmp_path / "layer.png").read_bytes().startswith(PNG)
    sigma[0] = sigma[:, 0] = 0
    np.save(tmp_path / "singular.npy", sigma)
    found = values("bounds", "--sigma", tmp_path / "singular.npy", "--rates", "1")
    assert found["rates"][0]["high_rate_distortion"] is None
    assert {row["idle_columns"] for row in found["cancellation"]} == {1}
    assert "columns without rate" in run("bounds", "--sigma", tmp_path / "singular.npy").stdout


def test_bounds_draws(tmp_path: Path):
    result = run("bounds", "--plot", tmp_path / "bounds.png")
    assert str(tmp_path / "bounds.png") in result.stdout.replace("\n", "")
    assert (tmp_path / "bounds.png").read_bytes().startswith(PNG)


def test_quantize_reports_the_files(quantized: tuple[Path, Any]):
    out, report = quantized
    assert report["out"] == str(out)
    assert abs(report["rate"] - 4) <= 0.005
    assert report["rate"] == 8 * llm.stored_bytes(out) / report["weights"]
    assert report["weights"] == sum(row["shape"][0] * row["shape"][1] for row in report["layers"])
    assert len(report["layers"]) == 7


def test_quantize_prints_a_table(tiny: Path, text: Path, tmp_path: Path):
    out = tmp_path / "out"
    options = ["--recipe", "rtn", "--levels", 16, "--group", 0, "--module", LAYER, "--samples", 2, "--jobs", 2]
    result = run("quantize", tiny, "--out", out, "--calibration", text, *options)
    assert result.exit_code == 0, result.output
    assert LAYER in result.stdout
    assert "64x64" in result.stdout
    assert "bytes replace 4,096 weights" in result.stdout
    assert result.stderr.startswith("warning: few calibration tokens")
    assert "group=None" in llm.Report.from_json((out / "lattq_report.json").read_text()).settings["recipe"]


def test_guides_come_from_text_or_from_statistics_that_have_them(tiny: Path, text: Path, tmp_path: Path):
    options = ["--recipe", "guided", "--levels", 16, "--group", 0, "--module", LAYER]
    report = values(
        "quantize", tiny, "--out", tmp_path / "text", "--calibration", text, "--samples", 2, "--guides", 2, *options
    )
    assert "guides=2" in report["settings"]["recipe"]
    for guides in (0, 2):
        known = tmp_path / f"{guides}.safetensors"
        measured = run("measure", tiny, "--out", known, "--calibration", text, "--samples", 2, "--guides", guides)
        assert measured.exit_code == 0, measured.output
        found = run("quantize", tiny, "--out", tmp_path / f"out {guides}", "--statistics", known, *options)
        assert found.exit_code == (0 if guides else 1), found.output
    assert "measure with `guides`" in " ".join(
        run(
            "quantize", tiny, "--out", tmp_path / "again", "--statistics", tmp_path / "0.safetensors", *options
        ).stderr.split()
    )


def test_maps_by_name_are_folded_and_listed(tiny: Path, text: Path, tmp_path: Path):
    options = ["--calibration", text, "--recipe", "rtn", "--levels", 16, "--samples", 4, "--maps", "rotate, awq"]
    report = values("quantize", tiny, "--out", tmp_path / "out", *options)
    assert [row["design"] for row in report["maps"]] == ["Rotate"] * 2 + ["AWQ"] * 4
    assert "AWQ(levels=16, group=128" in report["settings"]["maps"]
    found = values("inspect", tmp_path / "out")
    assert found["maps"] == report["maps"]
    assert (found["rate"], found["weights"]) == (report["rate"], report["weights"])
    shown = run("inspect", tmp_path / "out").stdout
    assert "maps folded before" in shown
    assert "mlp_hidden" in shown


def test_rounded_inputs_are_asked_for_reported_and_inspected(tiny: Path, text: Path, tmp_path: Path):
    out = tmp_path / "out"
    options = ["--recipe", "rtn", "--levels", 16, "--group", 0, "--module", LAYER, "--samples", 2]
    options += ["--input-bits", 4, "--input-clip", 0.9]
    result = run("quantize", tiny, "--out", out, "--calibration", text, *options)
    assert result.exit_code == 0, result.output
    words = "inputs rounded to 4 bits, token by token; maps that stay take 0 operations for each"
    assert words in result.stdout
    assert words in run("inspect", out).stdout
    (row,) = values("inspect", out)["layers"]
    assert (row["input_bits"], row["input_clip"], row["operations"]) == (4, 0.9, 0)


def test_json_holds_the_warnings(tiny: Path, text: Path, tmp_path: Path):
    """They are part of the one value on stdout; stderr has events only."""
    options = ["--recipe", "rtn", "--levels", 16, "--module", LAYER, "--calibration", text, "--samples"]
    (warning,) = values("quantize", tiny, "--out", tmp_path / "few", *options, 2)["warnings"]
    assert warning.startswith(f"few calibration tokens: {LAYER} saw 128 for its 64 columns")
    assert values("quantize", tiny, "--out", tmp_path / "enough", *options, 16)["warnings"] == []


def test_bitshift_is_offered(tiny: Path, text: Path, tmp_path: Path):
    options = ["--recipe", "bitshift", "--bits", 2, "--module", "model.layers.0.self_attn.k_proj", "--samples", 8]
    report = values("quantize", tiny, "--out", tmp_path / "out", "--calibration", text, *options)
    assert 2 < report["layers"][0]["rate"] < 3
    assert "Bitshift" in report["settings"]["recipe"]


def test_a_report_of_another_run_is_refused(quantized: tuple[Path, Any], tiny: Path, text: Path, tmp_path: Path):
    out, other = shutil.copytree(quantized[0], tmp_path / "out"), tmp_path / "other"
    options = ["--recipe", "rtn", "--levels", 16, "--module", LAYER, "--samples", 2, "--calibration", text]
    values("quantize", tiny, "--out", other, *options)
    shutil.copyfile(other / "lattq_report.json", out / "lattq_report.json")
    assert "is of another run than the model beside it" in error("inspect", out)
    for content in (b"\xff", b"[]", b"3"):
        (out / "lattq_report.json").write_bytes(content)
        assert "lattq_report.json" in error("inspect", out)


def test_quantize_chooses_layers_by_patterns_and_says_what_stays_dense(tiny: Path, text: Path, tmp_path: Path):
    options = ["--recipe", "rtn", "--levels", 16, "--group", 0, "--samples", 2, "--calibration", text]
    chosen = ["--include", "*_proj", "--exclude", "*.mlp.*", "--exclude", "*.v_proj"]
    result = run("quantize", tiny, "--out", tmp_path / "out", *chosen, *options)
    assert result.exit_code == 0, result.output
    words = " ".join(result.stdout.split())
    again = " ".join(run("inspect", tmp_path / "out").stdout.split())
    for name in ("model.embed_tokens.weight", "model.layers.0.mlp.down_proj.weight and 3 more", "excluded", "vector"):
        assert name in words
        assert name in again
    report = values("inspect", tmp_path / "out")
    assert {row["name"].split(".")[-1] for row in report["layers"]} == {"q_proj", "k_proj", "o_proj"}
    assert sum(row["share"] for row in report["dense"] if row["why"] == "excluded") > 0
    message = error("quantize", tiny, "--out", tmp_path / "none", "--exclude", "*.w1", *options)
    assert "`exclude` holds '*.w1', which no linear layer matches" in message


def test_eval(quantized: tuple[Path, Any], tiny: Path, text: Path):
    found = values("eval", quantized[0], "--text", text, "--reference", tiny, "--samples", 4)
    assert 0 < found["kl_bits_per_token"] < 0.1
    assert 0.5 < found["top1_agreement"] <= 1
    same = values("eval", tiny, "--text", text, "--reference", tiny, "--samples", 4)
    assert same["kl_bits_per_token"] == 0
    table = run("eval", tiny, "--text", text, "--samples", 4).stdout
    assert f"{same['perplexity']:.4f}" in table
    assert "KL" not in table


def test_inspect_a_directory(quantized: tuple[Path, Any], tmp_path: Path):
    out, report = quantized
    found = values("inspect", out, "--plot", tmp_path / "layers.png")
    for key in ("rate", "weights", "stored_bytes", "file_bytes"):
        assert found[key] == report[key]
    for mine, theirs in zip(found["layers"], report["layers"], strict=True):
        for key in ("name", "shape", "rate", "distortion", "reference", "gap"):
            assert mine[key] == theirs[key]
    assert (tmp_path / "layers.png").read_bytes().startswith(PNG)
    table = run("inspect", out).stdout
    assert LAYER in table
    assert "TwoWay" in table


def test_inspect_a_directory_without_report(quantized: tuple[Path, Any], tmp_path: Path):
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("config.json", "model.safetensors"):
        (copy / name).write_bytes((quantized[0] / name).read_bytes())
    found = values("inspect", copy, "--plot", tmp_path / "layers.png")
    assert found["rate"] == quantized[1]["rate"]
    assert {row["gap"] for row in found["layers"]} == {None}


def test_inspect_a_file(tmp_path: Path, rng: np.random.Generator):
    layer = lq.quantize(rng.normal(size=(64, 8)), np.eye(8), lq.recipes.watersic(step=0.5))
    lq.save(tmp_path / "layer.lattq", layer)
    found = values("inspect", tmp_path / "layer.lattq", "--plot", tmp_path / "codes.png")
    assert found["rate"] == layer.rate
    assert found["shape"] == [64, 8]
    assert found["mean_column_entropy"] < found["rate"]
    assert (tmp_path / "codes.png").read_bytes().startswith(PNG)
    assert "64x8" in run("inspect", tmp_path / "layer.lattq").stdout


@pytest.mark.parametrize(("recipe", "options"), [("gptvq", ["--dimension", 2]), ("palettize", [])])
def test_export_to_core_ml(recipe: str, options: list[Any], tiny: Path, text: Path, tmp_path: Path):
    """From a model directory to a package that holds the same weights, element for element."""
    pytest.importorskip("coremltools")
    out, package = tmp_path / "out", tmp_path / "layers.mlpackage"
    more = ["--samples", 2, "--one-pass", *options]
    report = values("quantize", tiny, "--out", out, "--calibration", text, "--recipe", recipe, "--bits", 2, *more)
    assert report["settings"]["bits"] == 2
    found = values("export", out, "--to", "coreml", "--out", package)
    tables = lq.export.coreml.read(package)
    model = transformers.AutoModelForCausalLM.from_pretrained(out)
    layers = {name: one for name, one in model.named_modules() if isinstance(one, LattqLinear)}
    assert set(tables) == set(layers)
    assert found["layers"] == len(layers)
    for name, layer in layers.items():
        np.testing.assert_array_equal(tables[name].dense().astype(np.float32), layer.dequantize().numpy())
    assert "exists" in error("export", out, "--out", package)


def test_damage_is_found(quantized: tuple[Path, Any], tmp_path: Path, text: Path):
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in quantized[0].iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    weights = copy / "model.safetensors"
    whole = weights.read_bytes()
    header = int.from_bytes(whole[:8], "little")
    start = json.loads(whole[8 : 8 + header])[f"{LAYER}.weight"]["data_offsets"][0]
    place = 8 + header + start + 5
    weights.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    for arguments in (["inspect", copy], ["eval", copy, "--text", text]):
        assert f"layer {LAYER}: the hash of" in error(*arguments)
    weights.write_bytes(whole[:-10])
    for arguments in (["inspect", copy], ["eval", copy, "--text", text]):
        assert "truncated or damaged" in error(*arguments)
    change = whole.replace(b"model.norm.weight", b"model.morn.weight", 1)
    assert change != whole
    weights.write_bytes(change)
    for arguments in (["inspect", copy], ["eval", copy, "--text", text]):
        assert "not those that config.json describes" in error(*arguments)
    weights.unlink()
    assert "has no weights" in error("inspect", copy)
    (tmp_path / "file").write_bytes(whole[:1000])
    assert "truncated or damaged" in error("inspect", tmp_path / "file")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["bounds", "--rates", "0"], "above 0"),
        (["bounds", "--rates", "40"], "at most 24"),
        (["bounds", "--rates", "two"], "'two'"),
        (["bounds", "--variance", "nan"], "`variance`"),
        (["bounds", "--sigma", "TEXT"], "not an .npy file"),
        (["bounds", "--sigma", "missing.npy"], "missing.npy"),
        (["bounds", "--plot", "figure.gif"], ".png"),
        (["bounds", "--plot", "missing/figure.png"], "there is no folder"),
        (["quantize", "TINY", "--out", "OUT"], "--calibration"),
        (["quantize", "TINY", "--out", "OUT", "--calibration", "missing.txt"], "missing.txt"),
        (["quantize", "TINY", "--out", "OUT", "--calibration", "EMPTY"], "the text is empty"),
        (["quantize", "TINY", "--out", "OUT", "--calibration", "BINARY"], "not UTF-8"),
        (["quantize", "TINY", "--out", "OUT", "--calibration", "TEXT", "--rate", "0"], "`--rate` is 0"),
        (["quantize", "TINY", "--out", "OUT", "--calibration", "TEXT", "--rate", "40"], "at most 24"),
        (["quantize", "TINY", "--out", "OUT", "--calibration", "TEXT", "--group", "8"], "`--group` does not apply"),
        (
            ["quantize", "TINY", "--out", "OUT", "--calibration", "TEXT", "--levels", "8"],
            "`--rate` or `--step`; got `--levels`",
        ),
        (
            ["quantize", "TINY", "--out", "OUT", "--recipe", "rtn", "--rate", "3", "--levels", "8"],
            "rtn takes `--rate` or `--levels`; got `--rate` and `--levels`",
        ),
        (["quantize", "TINY", "--out", "OUT", "--calibration", "TEXT", "--maps", "awq"], "give `--levels` or `--bits`"),
        (["quantize", "TINY", "--out", "OUT", "--calibration", "TEXT", "--maps", "spin"], "`--maps` names 'spin'"),
        (["quantize", "TINY", "--out", "TEXT/out", "--calibration", "TEXT"], "`out`"),
        (["quantize", "TINY", "--out", "TINY", "--calibration", "TEXT"], "not an empty directory"),
        (["quantize", "missing", "--out", "OUT", "--calibration", "TEXT"], "no directory missing"),
        (["quantize", "STRANGE", "--out", "OUT", "--calibration", "TEXT"], "no model of the type 'stranger'"),
        (["eval", "STRANGE", "--text", "TEXT"], "no model of the type 'stranger'"),
        (["eval", "BROKEN", "--text", "TEXT"], "cannot read config.json"),
        (["eval", "TINY"], "--text"),
        (["eval", "missing", "--text", "TEXT"], "no directory missing"),
        (["eval", "TINY", "--text", "EMPTY"], "the text is empty"),
        (["inspect", "missing"], "missing"),
        (["inspect", "TINY"], "holds no quantized layers"),
        (["export", "TINY", "--out", "OUT"], "holds no quantized layers"),
        (["demo", "--out", "TINY"], "choose a new or an empty directory"),
        (["demo", "--rates", "0.5", "--out", "OUT"], "at least 1 bit"),
    ],
)
def test_errors_are_one_line(arguments: list[str], words: str, tiny: Path, text: Path, tmp_path: Path):
    (tmp_path / "empty.txt").write_text("  \n")
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00")
    names = {"TINY": tiny, "TEXT": text, "OUT": tmp_path / "out"}
    names |= {"EMPTY": tmp_path / "empty.txt", "BINARY": tmp_path / "binary.txt", "TEXT/out": text / "out"}
    for name, text_of in {"STRANGE": '{"model_type": "stranger"}', "BROKEN": "{"}.items():
        names[name] = tmp_path / name
        names[name].mkdir()
        (names[name] / "config.json").write_text(text_of)
    assert words in error(*[names.get(one, one) for one in arguments])
    assert not (tmp_path / "out").exists()


def test_debug_shows_the_traceback():
    with pytest.raises(lq.errors.InvalidInputError):
        run("bounds", "--rates", "0", "--debug")


def test_main_returns_the_exit_code(capsys: pytest.CaptureFixture[str]):
    assert main(["bounds", "--rates", "1"]) == 0
    assert main(["bounds", "--no-such-option"]) == 2
    assert "no-such-option" in capsys.readouterr().err


def test_an_interrupt_says_how_to_resume(tiny: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    arguments = ["quantize", tiny, "--out", tmp_path / "out", "--calibration", text, "--samples", 2]
    arguments += ["--recipe", "huffman_gptq", "--step", 0.05]

    def interrupted(self: Several, stage: Stage, what: str) -> None:
        if stage.name == "quantize":
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Several, "advance", interrupted)
        result = run(*arguments)
    assert result.exit_code == 130
    assert "repeat the command to resume" in result.stderr
    assert (tmp_path / "out.partial").is_dir()
    assert run(*arguments).exit_code == 0
    assert not (tmp_path / "out.partial").exists()


def test_the_log_holds_the_tree_of_a_conversion(tiny: Path, text: Path, tmp_path: Path):
    arguments = ["quantize", tiny, "--out", tmp_path / "out", "--calibration", text, "--samples", 2, "--step", 0.05]
    found = run(*arguments, "--recipe", "huffman_gptq", "--log", tmp_path / "log", "--json")
    assert found.exit_code == 0
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [json.loads(line)["event"] for line in found.stderr.splitlines()] == [line["event"] for line in lines]
    assert lines[0]["stage"] == ["lattq quantize"]
    assert lines[-1]["event"] == "end"
    (last,) = (line for line in lines if line["event"] == "end" and line["stage"][-1] == "quantize")
    assert last["done"] == last["total"] == len(json.loads(found.stdout)["layers"])


def test_a_quantizer_by_name(tmp_path: Path):
    options = ["quantize", "embedded", "--rate", "2.5", "--samples", 4, "--out", tmp_path / "out"]
    options += ["--module", "model.layers.1.self_attn.o_proj", "--one-pass"]
    found = values(*options, "--quantizer", "trellis-8")
    assert abs(found["rate"] - 2.5) <= 0.005
    assert llm.stored_bytes(tmp_path / "out") * 8 == found["rate"] * 256 * 256
    assert 1 < values("eval", tmp_path / "out", "--text", "embedded", "--samples", 1)["perplexity"] < 1000
    for wrong, word in (("trellis-9", "9, for which there is no code"), ("voronoi", "no quantizer 'voronoi'")):
        assert word in " ".join(run(*options[:-4], tmp_path / "x", "--quantizer", wrong).output.split())
    wrong = run(*options, "--quantizer", "trellis-8", "--recipe", "rtn")
    assert "does not apply to the recipe rtn" in " ".join(wrong.output.split())


def test_json_is_strict(capsys: pytest.CaptureFixture[str]):
    console.print_json({"a": [float("inf"), (1, float("nan"))], "b": "x"})
    assert json.loads(capsys.readouterr().out) == {"a": [None, [1, None]], "b": "x"}


@pytest.mark.slow
def test_demo(tmp_path: Path):
    out = tmp_path / "demo"
    options = ["--out", out, "--rates", "3", "--samples", 8, "--eval-samples", 4]
    options += [part for name in ("q_proj", "k_proj") for part in ("--module", f"model.layers.0.self_attn.{name}")]
    rows = {row["recipe"]: row for row in values("demo", *options)}
    assert list(rows) == ["rtn", "gptq", "watersic", "trellis", "two_sided"]
    for row in rows.values():
        assert row["rate"] == 8 * llm.stored_bytes(row["directory"]) / (2 * 256 * 256)
        assert row["perplexity"] > 1
        assert 0 < row["gap"] < row["rate"]
        assert 0 < row["kl_bits_per_token"] < 1
    assert abs(rows["watersic"]["rate"] - 3) <= 0.005
    assert abs(rows["trellis"]["rate"] - 3) <= 0.005
    assert abs(rows["two_sided"]["rate"] - 3) <= 0.005
    assert 3.125 < rows["rtn"]["rate"] == pytest.approx(rows["gptq"]["rate"], abs=0.01)
    for key in ("gap", "distortion", "weighted_distortion"):
        assert rows["trellis"][key] < rows["watersic"][key] < rows["gptq"][key] < rows["rtn"][key]
    assert (out / "rate_distortion.png").read_bytes().startswith(PNG)
    assert len(json.loads((out / "lattq-demo.json").read_text())) == 5
    demo.prepare(out)  # its own output may go
    assert [path.name for path in out.iterdir()] == ["lattq-demo.json"]
    (out / "thesis.txt").write_text("mine")
    with pytest.raises(lq.errors.InvalidInputError, match=r"thesis\.txt"):
        demo.prepare(out)
    assert (out / "thesis.txt").exists()


def test_integers_have_orders_zero_points_and_fits_on_the_command_line(tmp_path: Path):
    """Each option reaches the recipe, with groups; the recipe is named in the report."""
    options = ["quantize", "embedded", "--levels", 4, "--group", 32, "--samples", 2, "--module", LAYER, "--one-pass"]
    plain = values(*options, "--recipe", "gptq", "--out", tmp_path / "plain")
    zeros = values(*options, "--recipe", "gptq", "--asymmetric", "--out", tmp_path / "zeros")
    ordered = values(*options, "--recipe", "gptq", "--order", "sorted", "--out", tmp_path / "sorted")
    coarse = values(*options, "--recipe", "gptq", "--fit", "range", "--out", tmp_path / "range")
    published = values(*options, "--recipe", "gptq_published", "--out", tmp_path / "published")
    assert zeros["rate"] == pytest.approx(plain["rate"] + 2 / 32, abs=0.01)  # two bits of zero point for 32 weights
    assert 0 < ordered["rate"] - plain["rate"] < 0.2
    assert coarse["layers"][0]["distortion"] > 1.5 * plain["layers"][0]["distortion"]
    assert published["layers"][0]["distortion"] > plain["layers"][0]["distortion"]
    options = ["quantize", "embedded", "--bits", 2, "--recipe", "palettize", "--asymmetric"]
    wrong = run(*options, "--out", tmp_path / "wrong")
    assert "`--symmetric` does not apply to the recipe palettize" in " ".join(wrong.output.split())


def test_refine_says_what_it_did(quantized: tuple[Path, Any], tiny: Path, text: Path, tmp_path: Path):
    options = ["--source", tiny, "--calibration", text, "--epochs", 1, "--samples", 4, "--no-embeddings"]
    found = values("refine", quantized[0], "--out", tmp_path / "json", *options)
    assert found["distillation"]["end"]["divergence"] <= found["distillation"]["start"]["divergence"]
    assert found["settings"]["refining"]["embeddings"] is False
    assert found["stored_bytes"] == llm.stored_bytes(tmp_path / "json")
    result = run("refine", quantized[0], "--out", tmp_path / "table", *options)
    assert result.exit_code == 0, result.output
    assert f"{found['rate']:.4f} bits per weight" in result.stdout
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "json" / name).read_bytes() == (tmp_path / "table" / name).read_bytes()


def test_refine_names_what_is_missing(quantized: tuple[Path, Any], tiny: Path, text: Path, tmp_path: Path):
    assert "--calibration" in error("refine", quantized[0], "--source", tiny, "--out", tmp_path / "out")
    dense = ["--source", tiny, "--calibration", text, "--out", tmp_path / "out"]
    assert "no quantized layers" in error("refine", tiny, *dense)
    assert "`reach` is 0.0" in error("refine", quantized[0], *dense, "--reach", 0.0)
