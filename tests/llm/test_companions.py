"""What lies beside the weights comes along, in plain modes; full disks and crashes leave nothing that blocks."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from safetensors import SafetensorError

import lattq as lq
from lattq import llm, recipes
from lattq.errors import DamagedFileError, InvalidInputError, LattqError
from lattq.files import plain_modes
from lattq.llm.convert import passes, stages
from lattq.llm.convert.companions import companions
from lattq.llm.convert.workspace import Workspace
from tests.llm.conftest import TEXT
from tests.test_cli import error

FAST: dict[str, Any] = {"recipe": recipes.huffman_gptq, "samples": 4, "step": 0.02, "calibration_text": TEXT}
KEPT = ["README.md", "LICENSE", "1_Pooling/config.json", "2_Dense/config.json", "assets/deep/picture.png", "code.py"]
DENSE_LAYER = ["2_Dense/model.safetensors", "3_Dense/pytorch_model.bin"]
LEFT = ["pytorch_model.bin", "onnx/model.onnx", "original/weights.pth", "old.index.json", ".git/config", ".hidden"]


@pytest.fixture
def source(tiny: Path, tmp_path: Path) -> Path:
    """The tiny model as sentence-transformers would have it, with the same weights in other formats."""
    source = Path(shutil.copytree(tiny, tmp_path / "source"))
    for name in [*KEPT, *DENSE_LAYER, *LEFT]:
        path = source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"contents of {name}")
    modules = [{"path": ""}, *({"path": name} for name in ("1_Pooling", "2_Dense", "3_Dense"))]
    (source / "modules.json").write_text(json.dumps(modules))
    return source


def test_every_file_that_is_no_weight_of_the_model_comes_along(source: Path, tmp_path: Path):
    out = tmp_path / "out"
    llm.quantize_model(source, out, **FAST)
    for name in [*KEPT, *DENSE_LAYER, "modules.json", "tokenizer.json"]:
        assert (out / name).read_bytes() == (source / name).read_bytes(), name
    assert not [name for name in LEFT if (out / name).exists()]
    assert {path.name for path in out.glob("*.safetensors")} == {"model.safetensors"}


def test_a_folder_inside_the_source_is_not_copied_into_itself(source: Path):
    llm.quantize_model(source, source / "small", **FAST)
    assert not (source / "small" / "small").exists()
    assert not list((source / "small").glob("*.partial"))


def test_links_are_followed_inside_alone(source: Path, tmp_path: Path):
    """Weights may lie elsewhere, and the Hub's cache keeps all files beside its snapshots."""
    outside = tmp_path / "private.txt"
    outside.write_text("not for others")
    (source / "model.safetensors").rename(tmp_path / "weights.safetensors")
    (source / "model.safetensors").symlink_to(tmp_path / "weights.safetensors")
    (source / "copying").symlink_to("LICENSE")
    assert source / "copying" in companions(source, tmp_path / "out")
    for target in (outside, tmp_path / "absent", tmp_path):
        (source / "link").symlink_to(target)
        with pytest.raises(InvalidInputError, match=r"link is a link to .*put the file itself there"):
            llm.quantize_model(source, tmp_path / "out", **FAST)
        (source / "link").unlink()
    assert not list(tmp_path.glob("out*"))
    cache = tmp_path / "models--a--b"
    (cache / "blobs").mkdir(parents=True)
    (cache / "blobs" / "0123").write_text("{}")
    snapshot = Path(shutil.copytree(source, cache / "snapshots" / "abcd", symlinks=True))
    (snapshot / "extra.json").symlink_to("../../blobs/0123")
    assert snapshot / "extra.json" in companions(snapshot, tmp_path / "out")


@pytest.fixture(params=[0o022, 0o002, 0o077])
def umask(request: pytest.FixtureRequest):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def modes(folder: Path) -> set[int]:
    return {path.stat().st_mode & 0o777 for path in folder.rglob("*") if path.is_file()}


def test_files_have_the_modes_of_the_umask(tiny: Path, tmp_path: Path, umask: int):
    out = tmp_path / "out"
    llm.quantize_model(tiny, out, **FAST, modules=["model.layers.0.mlp.up_proj"], max_shard_size="100KB")
    assert modes(out) == {0o666 & ~umask}
    lq.save(tmp_path / "one.lattq", lq.quantize(torch.eye(4), torch.eye(4), recipes.rtn()))
    assert (tmp_path / "one.lattq").stat().st_mode & 0o777 == 0o666 & ~umask


def test_plain_modes_keep_what_may_be_run(tmp_path: Path):
    for name, mode in (("private", 0o600), ("program", 0o700)):
        (tmp_path / name).touch()
        (tmp_path / name).chmod(mode)
    plain_modes(tmp_path)
    (tmp_path / "plain").touch()
    plain = (tmp_path / "plain").stat().st_mode
    assert (tmp_path / "private").stat().st_mode == plain
    assert (tmp_path / "program").stat().st_mode == plain | 0o100


@pytest.mark.parametrize("place", ["shards", "report", "folder"])
def test_a_full_disk_is_named(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str):
    """It is neither a damaged source nor a raw error, and the repeated call continues."""

    def full(*_: Any, **__: Any) -> None:
        if place == "shards":
            msg = "Error while serializing: I/O error: No space left on device (os error 28)"
            raise SafetensorError(msg)
        raise OSError(28, "No space left on device")

    (tmp_path / "text.txt").write_text(TEXT)
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        if place == "shards":
            patch.setattr("transformers.modeling_utils.safe_save_file", full)
        elif place == "report":
            patch.setattr(stages.Report, "save", full)
        else:
            patch.setattr("shutil.rmtree", lambda *_, **__: None)
            patch.setattr(Path, "mkdir", once_made(full))
        with pytest.raises(LattqError, match=r"cannot write .*No space left on device.*make room") as caught:
            llm.quantize_model(tiny, out, **FAST)
        assert not isinstance(caught.value, DamagedFileError)
        if place == "shards":
            options = ("--calibration", tmp_path / "text.txt", "--step", 0.02, "--recipe", "huffman_gptq")
            assert "make room" in error("quantize", tiny, "--out", tmp_path / "shown", *options, "--samples", 4)
    assert not out.exists()
    monkeypatch.setattr(passes, "quantize", full)  # no layer is quantized again
    llm.quantize_model(tiny, out, **FAST)


def once_made(full: Any) -> Any:
    mkdir = Path.mkdir

    def refuse(self: Path, *args: Any, **options: Any) -> None:
        if self.name == "model":
            full()
        mkdir(self, *args, **options)

    return refuse


def test_a_folder_without_a_finished_layer_blocks_nobody(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Whatever stopped the first run, however little of its settings was written."""

    def crash(*_: Any) -> None:
        raise KeyboardInterrupt

    out, manifest = tmp_path / "out", tmp_path / "out.partial" / "manifest.json"
    with monkeypatch.context() as patch:
        patch.setattr(passes, "quantize", crash)
        with pytest.raises(KeyboardInterrupt):
            llm.quantize_model(tiny, out, **FAST)
    assert manifest.exists()
    for text in (None, "", '{"reci', "[1]"):
        if text is not None:
            manifest.parent.mkdir(exist_ok=True)
            manifest.write_text(text)
        llm.quantize_model(tiny, out, **{**FAST, "step": 0.03, "modules": ["model.layers.0.mlp.up_proj"]})
        shutil.rmtree(out)


def test_notes_of_other_settings_are_forgotten(tmp_path: Path):
    first = Workspace(tmp_path / "out", {"rate": 3})
    first.note("values", {"layer": 0.1})
    first.close()
    again = Workspace(tmp_path / "out", {"rate": 3})
    assert again.noted("values") == {"layer": 0.1}
    again.close()
    other = Workspace(tmp_path / "out", {"rate": 4})
    assert other.noted("values") is None
    other.close()


def test_a_crash_leaves_no_folder_without_a_layer(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(passes, "quantize", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        llm.quantize_model(tiny, tmp_path / "out", **FAST)
    assert not list(tmp_path.glob("out*"))


def test_weights_of_modules_are_those_of_the_source(source: Path, tmp_path: Path):
    """A dense module keeps its own tensors: they are no weights of the model."""
    tensors = {"linear.weight": torch.randn(3, 64)}
    safetensors.torch.save_file(tensors, source / "2_Dense" / "model.safetensors")
    found = companions(source, tmp_path / "out")
    assert source / "2_Dense" / "model.safetensors" in found
    assert source / "model.safetensors" not in found
