"""What `quantize_model` refuses as maps, before any work where it can."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import transformers

from lattq import llm, recipes
from lattq.errors import InvalidInputError
from lattq.llm.convert.mapped import design_of
from lattq.llm.tune import Rotate, SmoothQuant, chain
from lattq.llm.tune.affinequant import AffineQuant
from lattq.transforms import Hadamard
from lattq.transforms.designs import Fixed
from tests.llm.conftest import SHORT, TEXT
from tests.llm.decoders import save_decoder

RTN: dict[str, Any] = {"recipe": recipes.rtn, "levels": 16, "samples": 4, "calibration_text": TEXT}


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
