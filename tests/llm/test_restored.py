"""A class may change weights when it runs; what is written is the source's all the same."""

from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import transformers

from benchmarks.architectures import save_source, write_decoded
from lattq import llm, recipes
from lattq.errors import InvalidInputError
from tests.llm.conftest import TEXT

pytestmark = pytest.mark.filterwarnings("ignore:few calibration tokens")
TOKENS = torch.arange(2, 40)[None]
FAST: dict[str, Any] = {"recipe": recipes.rtn, "levels": 256, "samples": 4, "window": 32, "calibration_text": TEXT}
RESCALED = ("attention.output", "feed_forward.value")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An RWKV, which halves weights of its later blocks in its first forward, again for each two blocks."""
    directory = tmp_path_factory.mktemp("rwkv") / "source"
    save_source("RwkvForCausalLM", directory)
    return directory


def test_the_source_changes_when_it_runs(source: Path):
    """Else this shows nothing."""
    model: Any = transformers.RwkvForCausalLM.from_pretrained(source).eval()
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    with torch.no_grad():
        model(TOKENS)
    changed = [key for key, tensor in model.state_dict().items() if not torch.equal(tensor, before[key])]
    assert changed == [f"rwkv.blocks.{block}.{part}.weight" for block in (2, 3) for part in RESCALED]


@pytest.mark.parametrize("include", [None, ["*.key"]])
def test_tensors_that_stay_are_those_of_the_source(source: Path, tmp_path: Path, include: Any):
    report = llm.quantize_model(source, tmp_path / "out", include=include, **FAST)
    before, after = (safetensors.torch.load_file(path / "model.safetensors") for path in (source, tmp_path / "out"))
    assert after.keys() == before.keys()
    quantized = {f"{row.name}.weight" for row in report.layers}
    assert quantized
    assert all(torch.equal(before[key], after[key]) for key in before.keys() - quantized)
    models: list[Any] = [transformers.RwkvForCausalLM.from_pretrained(path) for path in (source, tmp_path / "out")]
    dense, model = (one.eval() for one in models)
    write_decoded(dense, model)
    with torch.no_grad():
        assert torch.equal(dense(TOKENS).logits, model(TOKENS).logits)


def test_layers_that_their_class_changes_stay_dense_and_are_listed(source: Path, tmp_path: Path):
    report = llm.quantize_model(source, tmp_path / "out", **FAST)
    why = {row.name: row.why for row in report.dense}
    rescaled = {f"rwkv.blocks.{block}.{part}.weight" for block in (2, 3) for part in RESCALED}
    assert {name for name in why if why[name] == "changed by its class when it runs"} == rescaled
    name = "rwkv.blocks.3.attention.output"
    with pytest.raises(InvalidInputError, match=f"`{name}` cannot be quantized: changed by its class"):
        llm.quantize_model(source, tmp_path / "other", modules=[name], **FAST)
