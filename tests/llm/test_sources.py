"""A source is read whole or not at all: missing, misshapen and unread tensors, foreign code."""

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import transformers

from lattq import llm, recipes
from lattq.errors import DamagedFileError, InvalidInputError, LattqError
from lattq.llm.source import checkpoint, classes
from lattq.llm.source.weights import skeleton, weight_files
from tests.llm.conftest import TEXT

FAST: dict[str, Any] = {"recipe": recipes.huffman_gptq, "samples": 4, "step": 0.02, "calibration_text": TEXT}


@pytest.fixture
def source(tiny: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model that a test may spoil."""
    return Path(shutil.copytree(tiny, tmp_path / "source"))


def tensors_of(directory: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(directory / "model.safetensors")


def rewrite(directory: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    """Change the tensors of a directory."""
    tensors = tensors_of(directory)
    change(tensors)
    safetensors.torch.save_file(tensors, directory / "model.safetensors", {"format": "pt"})


def reconfigure(directory: Path, **changes: Any) -> None:
    """Change keys of `config.json`; None removes one."""
    path = directory / "config.json"
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))


def without(part: str) -> Callable[[dict[str, torch.Tensor]], None]:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        for key in [key for key in tensors if part in key]:
            del tensors[key]

    return change


def misshapen(tensors: dict[str, torch.Tensor]) -> None:
    tensors["model.layers.0.mlp.up_proj.weight"] = torch.zeros(95, 64, dtype=torch.bfloat16)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (without("layers.0.self_attn.q_proj.weight"), "model.layers.0.self_attn.q_proj.weight"),
        (without("layers.1.input_layernorm"), "model.layers.1.input_layernorm.weight"),
        (without("model.norm"), "model.norm.weight"),
        (without("layers.1."), r"model\.layers\.1\..* and \d+ more"),
        (without("lm_head"), "lm_head.weight"),
        (misshapen, r"model\.layers\.0\.mlp\.up_proj\.weight with shape \(95, 64\) instead of \(96, 64\)"),
    ],
)
def test_tensors_that_do_not_fill_the_model_are_named(source: Path, tiny: Path, tmp_path: Path, change: Any, name: str):
    rewrite(source, change)
    with pytest.raises(InvalidInputError, match=name):
        llm.quantize_model(source, tmp_path / "out", **FAST)
    for model, reference in ((source, None), (tiny, source)):
        with pytest.raises(InvalidInputError, match=name):
            llm.evaluate(model, TEXT[:8000], reference=reference)
    assert not list(tmp_path.glob("out*"))


def test_a_tied_tensor_may_be_missing(tmp_path: Path):
    files = weight_files(llm.embedded_model())
    assert "lm_head.weight" not in skeleton(files)
    checkpoint.load_model(llm.embedded_model())


@pytest.mark.parametrize("names", [None, ["NoSuchModel"], ["pipeline"], ["AutoModel"]])
@pytest.mark.parametrize(
    "kind", [transformers.LlamaForCausalLM, transformers.LlamaModel, transformers.LlamaForSequenceClassification]
)
def test_without_a_known_class_the_tensors_tell(source: Path, kind: Any, names: Any):
    """The class that reads every tensor and lacks none, whatever `architectures` says."""
    wanted = kind(transformers.AutoConfig.from_pretrained(source)).to(torch.bfloat16)
    wanted.save_pretrained(source)
    reconfigure(source, architectures=names)
    found = checkpoint.load_model(source)
    assert type(found) is kind
    assert all(
        torch.equal(a, b) for a, b in zip(wanted.state_dict().values(), found.state_dict().values(), strict=True)
    )


@pytest.mark.parametrize("decoder", [False, True])
def test_an_encoder_is_not_taken_for_a_decoder(tmp_path: Path, decoder: bool):
    """Both classes have the same tensors; the configuration says which it is."""
    kind = transformers.BertLMHeadModel if decoder else transformers.BertForMaskedLM
    sizes: dict[str, Any] = {"vocab_size": 99, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1}
    config = transformers.BertConfig(**sizes, num_attention_heads=2, is_decoder=decoder)
    kind(config).save_pretrained(tmp_path)
    reconfigure(tmp_path, architectures=None)
    assert type(checkpoint.load_model(tmp_path)) is kind


def test_a_class_of_another_type_of_model_is_not_taken(source: Path):
    reconfigure(source, architectures=["MistralForCausalLM"])
    assert type(checkpoint.load_model(source)) is transformers.LlamaForCausalLM


def test_a_class_may_stand_for_the_type(source: Path):
    reconfigure(source, model_type=None)
    assert type(checkpoint.load_model(source)) is transformers.LlamaForCausalLM


def test_without_a_class_for_all_tensors_nothing_is_read(source: Path):
    reconfigure(source, architectures=None)
    rewrite(source, lambda tensors: tensors.update({"head.of.another.task": torch.zeros(2)}))
    with pytest.raises(
        InvalidInputError, match=r"nearest: LlamaForCausalLM; it has no place for head\.of\.another\.task"
    ):
        checkpoint.load_model(source)


@pytest.mark.parametrize("shard", ["5GB", "60KB"])
def test_every_tensor_of_the_source_is_in_the_result(source: Path, tmp_path: Path, shard: str):
    """What the named class has no place for comes along unchanged, and counts as dense."""
    extra = {
        "mtp.proj.weight": torch.randn(3, 5),
        "score.bias": torch.arange(4),
        "model.rotary_emb.inv_freq": torch.ones(8),
    }
    rewrite(source, lambda tensors: tensors.update(extra))
    out = tmp_path / "out"
    report = llm.quantize_model(source, out, **FAST, max_shard_size=shard)
    found: dict[str, torch.Tensor] = {}
    for path in weight_files(out):
        found |= safetensors.torch.load_file(path)
    before = tensors_of(source)
    assert found.keys() == before.keys()
    quantized = {f"{row.name}.weight" for row in report.layers}
    assert all(torch.equal(found[key], before[key]) for key in before.keys() - quantized)
    plain = llm.quantize_model(checkpoint_without(source, extra, tmp_path), tmp_path / "plain", **FAST)
    assert report.weights == plain.weights
    assert transformers.AutoModelForCausalLM.from_pretrained(out).lm_head.weight.equal(before["lm_head.weight"])


def checkpoint_without(source: Path, keys: Any, tmp_path: Path) -> Path:
    other = Path(shutil.copytree(source, tmp_path / "other"))
    rewrite(other, lambda tensors: [tensors.pop(key) for key in keys])
    return other


def test_a_tensor_that_loading_would_rename_and_lose_raises(source: Path):
    """Nothing can be carried whose key in the file is not known."""
    model, config = transformers.LlamaForCausalLM, transformers.AutoConfig.from_pretrained(source)
    tensors = skeleton(weight_files(source)) | {"LayerNorm.gamma": torch.empty(3, device="meta")}
    with pytest.raises(InvalidInputError, match=r"no place for LayerNorm\.weight, which would be lost"):
        classes.unread_keys(model, config, tensors)


def test_a_tensor_under_two_names_raises(source: Path, tmp_path: Path):
    """With and without the prefix of the base model: only one of them would be read."""
    rewrite(source, lambda tensors: tensors.update({"norm.weight": torch.zeros(64, dtype=torch.bfloat16)}))
    with pytest.raises(InvalidInputError, match=r"both norm\.weight and model\.norm\.weight"):
        llm.quantize_model(source, tmp_path / "out", **FAST)


def test_tensors_in_two_files_raise(source: Path):
    tensors = tensors_of(source)
    (source / "model.safetensors").unlink()
    twice = "model.norm.weight"
    safetensors.torch.save_file(tensors, source / "a.safetensors", {"format": "pt"})
    safetensors.torch.save_file({twice: tensors[twice] + 1}, source / "b.safetensors", {"format": "pt"})
    names = dict.fromkeys(tensors, "a.safetensors") | {twice: "b.safetensors"}
    index = {"metadata": {}, "weight_map": names}
    (source / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(DamagedFileError, match=r"b\.safetensors holds model\.norm\.weight, which another"):
        checkpoint.load_model(source)


@pytest.mark.parametrize(
    "place", ["../elsewhere/model.safetensors", "sub/../../x.safetensors", "/etc/model.safetensors"]
)
def test_an_index_that_leads_outside_raises(source: Path, place: str):
    (source / "model.safetensors").unlink()
    index = {"metadata": {}, "weight_map": {"lm_head.weight": place}}
    (source / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(InvalidInputError, match="outside the directory"):
        checkpoint.load_model(source)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ("{", "cannot be read"),
        ('{"weight_map": {}}', "no names"),
        ('{"weight_map": {"a": 3}}', "no names"),
        ('{"weight_map": {"a": "absent.safetensors"}}', "no file absent"),
    ],
)
def test_a_damaged_index_raises(source: Path, index: str, message: str):
    (source / "model.safetensors").unlink()
    (source / "model.safetensors.index.json").write_text(index)
    with pytest.raises(DamagedFileError, match=message):
        checkpoint.load_model(source)


def test_pickles_of_tensors_are_read_and_others_are_not(source: Path, tiny: Path):
    tensors = tensors_of(source)
    (source / "model.safetensors").unlink()
    torch.save(tensors, source / "pytorch_model.bin")
    assert checkpoint.load_model(source).lm_head.weight.equal(tensors["lm_head.weight"])
    (source / "pytorch_model.bin").write_bytes(b"no pickle")
    with pytest.raises(DamagedFileError, match=r"pytorch_model\.bin"):
        checkpoint.load_model(source)


CODE = """
import pathlib
pathlib.Path(__file__).with_name("ran").touch()
raise SystemExit("the code of a model ran")
"""


@pytest.mark.parametrize(("command", "known"), [("quantize", True), ("eval", False), ("python", False)])
def test_code_of_a_directory_is_neither_run_nor_asked_about(source: Path, tmp_path: Path, known: bool, command: str):
    """With standard input closed, nothing waits for an answer; a known type is read by its own class."""
    names = {"AutoConfig": "code.Config", "AutoModel": "code.Model", "AutoModelForCausalLM": "code.Model"}
    reconfigure(source, auto_map=names, **({} if known else {"model_type": "unheard_of"}))
    (source / "code.py").write_text(CODE)
    path = source / "tokenizer_config.json"
    path.write_text(
        json.dumps(json.loads(path.read_text()) | {"auto_map": {"AutoTokenizer": ["code.Tokenizer", None]}})
    )
    (tmp_path / "text.txt").write_text(TEXT[:20_000])
    text, out = str(tmp_path / "text.txt"), str(tmp_path / "out")
    arguments = {
        "quantize": ["quantize", str(source), "--out", out, "--calibration", text, "--step", "0.02", "--samples", "2"],
        "eval": ["eval", str(source), "--text", text, "--samples", "2"],
    }
    program = "import sys; from lattq.cli import main; sys.argv[0] = 'lattq'; sys.exit(main())"
    if command == "python":
        program = f"from lattq import llm; llm.quantize_model({str(source)!r}, {out!r}, step=.02, samples=2, "
        program += f"calibration_text=open({text!r}).read())"
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments.get(command, [])],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")},
        check=False,
    )
    assert (done.returncode == 0) is known, done.stderr
    assert not list(tmp_path.rglob("ran"))
    assert "Do you wish" not in done.stdout + done.stderr
    if command != "python" and not known:
        assert "no model of the type 'unheard_of'" in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_a_full_disk_is_not_a_damaged_source(tiny: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", full)
    with pytest.raises(LattqError, match=r"No space left.*make room") as caught:
        checkpoint.load_tokenizer(tiny)
    assert not isinstance(caught.value, InvalidInputError | DamagedFileError)
