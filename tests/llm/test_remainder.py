"""What stays dense is listed with its share of the file, and why."""

from pathlib import Path
from typing import Any

import pytest

from benchmarks.architectures import save_source, unlisted_bytes
from lattq import llm, recipes
from lattq.errors import InvalidInputError
from lattq.llm.convert.report import DenseRow
from tests.llm.conftest import TEXT

pytestmark = pytest.mark.filterwarnings("ignore:few calibration tokens")
FAST: dict[str, Any] = {"recipe": recipes.huffman_gptq, "step": 0.02, "samples": 4, "calibration_text": TEXT}


def test_excluded_layers_stay_and_are_listed(tiny: Path, tmp_path: Path):
    report = llm.quantize_model(tiny, tmp_path / "out", exclude=["*.1.*", "*.v_proj"], **FAST)
    assert {row.name.split(".")[-1] for row in report.layers} == {
        f"{part}_proj" for part in ("q", "k", "o", "gate", "up", "down")
    }
    assert all(".layers.0." in row.name for row in report.layers)
    why = {row.name: row.why for row in report.dense}
    assert why["model.layers.1.mlp.up_proj.weight"] == why["model.layers.0.self_attn.v_proj.weight"] == "excluded"
    assert why["lm_head.weight"] == "outside the blocks"
    assert why["model.embed_tokens.weight"] == "embedding"
    assert why["model.norm.weight"] == why["model.layers.0.self_attn.q_proj.bias"] == "vector"
    assert unlisted_bytes(tmp_path / "out", report) == 0
    assert report.dense == tuple(sorted(report.dense, key=lambda row: -row.share))
    head = next(row for row in report.dense if row.name == "lm_head.weight")
    assert head == DenseRow(head.name, (2048, 64), 2 * 2048 * 64 / report.file_bytes, head.why)
    assert list(report.dense_shares()) == ["outside the blocks", "embedding", "excluded", "vector"]


def test_included_layers_may_lie_outside_the_blocks(tiny: Path, tmp_path: Path):
    report = llm.quantize_model(tiny, tmp_path / "out", include=["lm_head", "*.0.*.k_proj"], **FAST)
    assert [row.name for row in report.layers] == ["model.layers.0.self_attn.k_proj", "lm_head"]


def test_experts_without_tokens_are_told(tmp_path: Path):
    """Four tokens choose two of many experts each."""
    save_source("MixtralForCausalLM", tmp_path / "source")
    options = FAST | {"calibration_text": TEXT[:3], "window": 2, "step": 0.05, "samples": 1}
    report = llm.quantize_model(tmp_path / "source", tmp_path / "out", **options)
    told = [row.name for row in report.layers if "inputs" in row.stats]
    assert told
    assert all(".experts." in name for name in told)
    assert {row.stats["inputs"] for row in report.layers if row.name in told} == {"none: of its siblings"}
    assert len(told) < sum(".experts." in row.name for row in report.layers)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"include": ["*.w1"]}, "`include` holds"),
        ({"exclude": ["*.w1"]}, "`exclude` holds"),
        ({"exclude": "*"}, "`exclude` is the text"),
        ({"include": ["*"], "modules": ["lm_head"]}, "both given"),
        ({"window": 4000}, "fails on 4000 tokens"),
    ],
)
def test_unusable_choices_raise_and_leave_nothing(tmp_path: Path, change: dict, message: str):
    save_source("BertModel", tmp_path / "source")
    with pytest.raises(InvalidInputError, match=message):
        llm.quantize_model(tmp_path / "source", tmp_path / "out", **{**FAST, "window": 24, **change})
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_a_layer_that_is_asked_for_and_sees_no_input_raises(tmp_path: Path):
    save_source("LlavaForConditionalGeneration", tmp_path / "source")
    names = ["model.multi_modal_projector.linear_1"]
    with pytest.raises(InvalidInputError, match="cannot be quantized: no calibration input reached it"):
        llm.quantize_model(tmp_path / "source", tmp_path / "out", modules=names, **{**FAST, "window": 24})
