"""Training a model, block by block: maps are certified, runs resume, and what is stored is what training saw."""

import copy
import dataclasses
import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

import lattq as lq
from lattq.errors import InvalidInputError
from lattq.llm import quantize_model
from lattq.llm.tune import learned
from lattq.llm.tune.trained import Trained, train_blocks
from lattq.llm.tune.training import Schedule
from lattq.progress import Stage
from tests.llm.conftest import TEXT
from tests.llm.decoders import decoder
from tests.llm.training import DESIGN, WINDOWS


def test_one_epoch_and_one_window_are_enough():
    model = decoder("llama")
    rows = Trained(levels=4, schedule=Schedule(epochs=1))(model, WINDOWS[:1], work=Stage("maps"), keep={})
    assert len([row for row in rows if row.structure != "rounded"]) == 10
    assert len([row for row in rows if row.structure == "rounded"]) == 14


def test_maps_alone_keep_the_function_and_are_certified():
    for kind in ("llama", "opt"):
        model = decoder(kind)
        before = model(WINDOWS).logits
        design = dataclasses.replace(DESIGN, weights=False, ranges=False)
        rows = design(model, WINDOWS, work=Stage("maps"), keep={})
        assert (model(WINDOWS).logits - before).abs().max() < 1e-4
        heads = [row for row in rows if row.structure == "heads"]
        assert heads
        assert all(row.certificate is not None and row.certificate["row_ratio"] <= 0.9 for row in heads)
        assert any(row.condition > 1.0 for row in rows)


def test_an_interrupted_training_continues_to_the_same_maps():
    class Interrupted(Exception):
        pass

    class Kept(dict):
        def __setitem__(self, name: str, value: Any) -> None:
            super().__setitem__(name, value)
            if len(self) == 1 and not resumed:
                raise Interrupted

    resumed, keep = False, Kept()
    with pytest.raises(Interrupted):
        DESIGN(decoder("llama"), WINDOWS, work=Stage("maps"), keep=keep)
    resumed = True
    whole, again = decoder("llama"), decoder("llama")
    first = DESIGN(whole, WINDOWS, work=Stage("maps"), keep={})
    assert DESIGN(again, WINDOWS, work=Stage("maps"), keep=keep) == first
    for name, one in whole.state_dict().items():
        assert torch.equal(again.state_dict()[name], one), name


def test_what_is_stored_is_what_training_rounded(tiny: Path, tmp_path: Path):
    """Plain rounding of the weights that training leaves gives the weights that it saw."""
    recipe = functools.partial(lq.recipes.rtn, group=16, symmetric=False, fit="range")
    wanted: dict[str, torch.Tensor] = {}

    @dataclasses.dataclass(frozen=True)
    class Watched(Trained):
        def __call__(self, model: Any, windows: torch.Tensor, **options: Any) -> Any:
            for block, _ in train_blocks(copy.deepcopy(model), windows, self.prepared, self.schedule, Stage("fit"), {}):
                rounded = block.rounded()
                wanted.update((name, rounded[f"{name}.weight"].detach()) for name in block.layers)
            return super().__call__(model, windows, **options)

    design = Watched(levels=4, group=16, metric="distortion", schedule=Schedule(epochs=1))
    out = tmp_path / "out"
    quantize_model(tiny, out, calibration_text=TEXT, recipe=recipe, levels=4, window=32, samples=4, maps=design)
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(out)
    for name, weight in wanted.items():
        change = (model.get_submodule(name).dequantize() - weight).abs().max()
        # Gains of norms are rounded to bfloat16, which weights make up for: both ends of a range move by 2⁻⁹.
        assert change <= 2**-7 * weight.abs().max(), name
    assert len(wanted) == 14


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"recipe": functools.partial(lq.recipes.rtn, group=None)}, "`recipe` rounds them to others"),
        ({"exclude": ["*.o_proj"]}, "o_proj rounded, which stays dense"),
        ({"drift": True}, "`drift` would move them; pass drift=False"),
        ({"input_bits": 4}, "`input_correction` would move them; pass input_correction=False"),
    ],
)
def test_rounded_weights_are_not_rounded_to_others(tiny: Path, tmp_path: Path, options: dict[str, Any], message: str):
    """Whatever would move them off their grid, or leave them there in a dense layer, is named."""
    plain = functools.partial(lq.recipes.rtn, group=16, symmetric=False, fit="range")
    design = Trained(levels=4, group=16, schedule=Schedule(epochs=1, held_out=0))
    fixed: dict[str, Any] = {"recipe": plain, "levels": 4, "window": 32, "samples": 4, "maps": design}
    with pytest.raises(InvalidInputError, match=message):
        quantize_model(tiny, tmp_path / "out", calibration_text=TEXT, **(fixed | options))


def test_inputs_are_rounded_in_the_ranges_that_training_found(tiny: Path, tmp_path: Path):
    plain = functools.partial(lq.recipes.rtn, group=16, symmetric=False, fit="range")
    design = Trained(levels=16, group=16, input_levels=16, schedule=Schedule(epochs=1))
    options: dict[str, Any] = {"recipe": plain, "levels": 16, "window": 32, "samples": 4, "maps": design}
    options |= {"input_bits": 4, "input_correction": False}
    report = quantize_model(tiny, tmp_path / "out", calibration_text=TEXT, **options)
    learned = {row.place: row.clip for row in report.maps if row.structure == "rounded"}
    assert {row.name: row.input_clip for row in report.layers} == learned
    assert len(set(learned.values())) > 1


def altered(kept: dict[str, Any]) -> dict[str, Any]:
    """What a run kept, and others: of other shapes and types, with arrays missing or too many, and of no arrays."""
    state = next(key for key in kept if key != "fit")
    return {
        "shape": {**kept, state: np.zeros((3, 3), np.float32)},
        "type": {**kept, state: kept[state].astype(np.float64)},
        "objects": {**kept, state: np.full(kept[state].shape, None)},
        "less": {"fit": kept["fit"]},
        "more": {**kept, "other": np.zeros(1)},
        "no fit": {key: one for key, one in kept.items() if key != "fit"},
        "short fit": {**kept, "fit": kept["fit"][:2]},
        "numbers": {**kept, state: 3},
        "nothing": None,
    }


def test_arrays_that_another_design_kept_are_refused(unchecked: None):
    design = dataclasses.replace(DESIGN, weights=False, metric="distortion", schedule=Schedule(epochs=1))
    kept: dict[str, Any] = {}
    design(decoder("llama"), WINDOWS[:2], work=Stage("maps"), keep=kept)
    for case, arrays in altered(dict(kept["block 0"])).items():
        model = decoder("llama")
        before = {key: value.clone() for key, value in model.state_dict().items()}
        with pytest.raises(InvalidInputError, match=r"`keep` has .* of 'block 0', where this design has .*; pass"):
            design(model, WINDOWS[:2], work=Stage("maps"), keep={**kept, "block 0": arrays})
        assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items()), case
    wider = dataclasses.replace(design, group=None)
    with pytest.raises(InvalidInputError, match=r"`keep` has float32 \(2, 32, 2\) as .*has float32 \(2, 32, 1\)"):
        wider(decoder("llama"), WINDOWS[:2], work=Stage("maps"), keep=kept)


def test_every_map_is_certified_and_its_condition_measured_once(monkeypatch: pytest.MonkeyPatch):
    seen: dict[str, int] = {}

    def counted(name: str) -> None:
        function = getattr(learned, name)

        def count(*args: Any, **options: Any) -> Any:
            assert options.get("measure") is not True
            seen[name] = seen.get(name, 0) + 1
            return function(*args, **options)

        monkeypatch.setattr(learned, name, count)

    counted("certificate")
    counted("condition")
    design = dataclasses.replace(DESIGN, places=("*.values",), metric="distortion", schedule=Schedule(epochs=1))
    design(decoder("llama"), WINDOWS[:2], work=Stage("maps"), keep={})
    assert seen == {"certificate": 4, "condition": 4}  # two blocks of two heads


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ratio": 1.0}, "rows are strictly dominant for ratios above 0 and below 1"),
        ({"levels": 1}, "levels"),
        ({"group": 0}, "`group` is 0"),
        ({"structures": ("rotation",)}, "`structures` holds 'rotation'"),
        ({"input_levels": 0}, "`input_levels` is 0"),
        ({"levels": "8"}, "`levels` is '8'; pass an integer"),
        ({"levels": 8.5}, "`levels` is 8.5; pass an integer"),
        ({"group": float("nan")}, "`group` is nan; pass an integer"),
        ({"input_levels": "4"}, "`input_levels` is '4'; pass an integer"),
        ({"structures": "heads"}, "`structures` is 'heads'; pass a tuple of names"),
        ({"places": "values"}, "`places` is 'values'; pass a tuple of names"),
        ({"places": (1,)}, "`places` holds 1; pass a tuple of names"),
        ({"schedule": 3}, "`schedule` is 3; pass a Schedule"),
    ],
)
def test_options_out_of_range_are_named(options: dict[str, Any], message: str, unchecked):
    with pytest.raises(InvalidInputError, match=message):
        Trained(**options)


def test_numbers_of_any_type_name_one_design(unchecked):
    options: dict[str, Any] = {"levels": np.int64(8), "group": np.int32(64)}
    assert repr(Trained(**options)) == repr(Trained(levels=8, group=64))


def test_patterns_that_match_no_place_are_refused():
    """Other designs take patterns of whole names, such as "*.values"; here they would train no map at all."""
    with pytest.raises(InvalidInputError, match=r"`places` holds 'values', which matches none of model.layers"):
        dataclasses.replace(DESIGN, places=("values",))(decoder("llama"), WINDOWS, work=Stage("maps"), keep={})


def test_a_design_that_learns_nothing_is_refused():
    nothing = dataclasses.replace(DESIGN, places=("*.keys",), structures=("heads",), weights=False, ranges=False)
    with pytest.raises(InvalidInputError, match=r"none of heads is exact at \*.keys"):
        nothing(decoder("llama"), WINDOWS, work=Stage("maps"), keep={})


def test_a_singular_metric_asks_for_damping():
    """One window of 12 tokens for 32 channels."""
    with pytest.raises(InvalidInputError, match=r"`damping` is 0\.0"):
        dataclasses.replace(DESIGN, damping=0.0)(decoder("llama"), WINDOWS[:1], work=Stage("maps"), keep={})


def test_models_in_half_precision_are_refused():
    model = decoder("llama").bfloat16()
    with pytest.raises(InvalidInputError, match=r"torch.bfloat16.*call `model.float\(\)` first"):
        DESIGN(model, WINDOWS, work=Stage("maps"), keep={})
