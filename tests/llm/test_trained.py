"""Training maps, ranges and weights: certified at every step, never worse than plain rounding, resumed alike."""

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
from lattq.llm.measure.hidden_states import BlockStream
from lattq.llm.measure.sensitivity import state_sensitivities
from lattq.llm.source import find_blocks
from lattq.llm.source.place import Place
from lattq.llm.tune.affinequant import AffineQuant, GradualBlocks
from lattq.llm.tune.learned import LearnedBlocks, LearnedDiagonal, LearnedMap, LearnedPairs
from lattq.llm.tune.mapped_block import MappedBlock
from lattq.llm.tune.maps import map_of
from lattq.llm.tune.rounded_block import RoundedBlock, Rounding
from lattq.llm.tune.straight_through import integers
from lattq.llm.tune.trained import Trained, train_blocks
from lattq.llm.tune.training import Schedule, fit
from lattq.progress import Stage
from tests.llm.conftest import TEXT
from tests.llm.decoders import decoder

WINDOWS = torch.randint(2, 64, (9, 12), generator=torch.Generator().manual_seed(3))
SHORT = Schedule(epochs=2, batch=1, held_out=3)
DESIGN = Trained(levels=4, group=16, schedule=SHORT)


def place_of(structure: str) -> Place:
    return Place("some", (structure,), (), (), heads=2, size=6, pairs=2)


LEARNED = {
    "diagonal": functools.partial(LearnedDiagonal, 2, 6),
    "rotary": functools.partial(LearnedPairs, 2, 6, 2),
    "heads": functools.partial(LearnedBlocks, 2, 6, 0.7),
}


def disturbed(learned: LearnedMap, seed: int = 0) -> LearnedMap:
    """Far away from where training begins, and put back into its set."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for number in learned.parameters():
            number.add_(torch.randn(number.shape, generator=generator))
    learned.constrain(10, 10)
    return learned


@pytest.mark.parametrize("structure", LEARNED)
def test_learned_maps_begin_at_the_identity_and_say_what_they_are(structure: str):
    learned, x = LEARNED[structure](), torch.eye(12, dtype=torch.float64)
    assert torch.equal(learned.map().left(x), x)
    assert learned.condition() == pytest.approx(1.0)
    disturbed(learned)
    given = map_of(place_of(structure), structure, learned.values())
    for ours, theirs in ((learned.map(), given), (learned.map().dual, given.dual)):
        assert torch.allclose(ours.left(x), theirs.left(x), atol=1e-5)  # float32 times conditions of order 100
    whole = given.left(x).numpy()
    blocks = [whole[head : head + 6, head : head + 6] for head in (0, 6)]
    worst = max(np.linalg.cond(block) for block in blocks) if structure == "heads" else np.linalg.cond(whole)
    assert learned.condition() == pytest.approx(worst, rel=1e-3)
    learned.reset()
    assert torch.equal(learned.map().left(x), x)


def test_channels_without_rotation_count_in_the_condition_of_pairs():
    learned = LearnedPairs(2, 6, 2)
    with torch.no_grad():
        learned.logarithm.fill_(1.0)
    assert learned.condition() == pytest.approx(np.e)


def test_matrices_of_heads_are_dominant_whatever_the_step(rng: np.random.Generator):
    for step in range(11):
        learned = LearnedBlocks(2, 6, 0.7)
        with torch.no_grad():
            learned.off.copy_(torch.from_numpy(rng.standard_normal((2, 6, 6))))
            learned.logarithm.copy_(torch.from_numpy(rng.standard_normal((2, 6))))
        learned.constrain(step, 10)
        ratio = max(one.row_ratio for one in learned.certificates())
        assert ratio <= min(0.7, 0.14 * step) * (1 + 1e-6)  # entries are float32
        assert (learned.certified() or {})["dominant_rows"] == 1.0


def test_the_published_mask_makes_nothing_dominant():
    """Negative control: the same steps under the gradual mask."""
    learned = disturbed(GradualBlocks(torch.ones(2, 6), 1.0, 5))
    assert (learned.certified() or {})["dominant_rows"] < 1.0
    assert min(float(one.detach().abs().min()) for one in learned.parameters()) >= 1e-2


def block_of(kind: str = "llama", index: int = 0) -> tuple[Any, list[torch.Tensor], list[torch.Tensor], MappedBlock]:
    model = decoder(kind)
    stream = BlockStream(model, [block for _, block in find_blocks(model)], list(WINDOWS.split(1)))
    block = MappedBlock(model, stream, index)
    with torch.no_grad():
        wanted = [block(block.parameters, one, window) for window, one in enumerate(stream.hidden)]
    return model, stream.hidden, wanted, block


@pytest.mark.parametrize("kind", ["llama", "opt", "qwen3", "gemma", "phi3"])
def test_a_block_ends_no_worse_than_it_began(kind: str):
    _, hidden, wanted, block = block_of(kind)
    learned = DESIGN.prepared(block)
    result = fit(learned, hidden, wanted, SHORT, Stage("fit"))
    assert result.end <= min(result.plain, result.start)
    assert result.end < 0.95 * result.plain  # it learns
    assert result.rejected == 0
    held = range(2, 9, 3)
    with torch.no_grad():
        errors = sum(float((learned(hidden[w], w) - wanted[w]).square().sum()) for w in held)
    assert result.end == pytest.approx(errors / sum(float(wanted[w].square().sum()) for w in held), rel=1e-5)


def test_steps_with_numbers_that_are_not_finite_are_taken_back(monkeypatch: pytest.MonkeyPatch):
    _, hidden, wanted, block = block_of()
    learned = DESIGN.prepared(block)
    wrong = [one.clone() for one in wanted]
    wrong[0][0, 0, 0] = float("nan")
    result = fit(learned, hidden, wrong, dataclasses.replace(SHORT, patience=1), Stage("fit"))
    assert result.rejected == 2  # once more than it has patience for
    assert all(bool(number.isfinite().all()) for number in learned.parameters() if not number.isinf().any())
    assert result.end <= result.plain


def test_the_last_state_that_is_taken_is_one_with_numbers():
    """A single step whose weights overflow: the state is that before it, and so is what is told."""
    _, hidden, wanted, block = block_of()
    learned = DESIGN.prepared(block)
    wild = Schedule(epochs=1, batch=1, held_out=0, weight_rate=1e30, rate=1e30)
    result = fit(learned, hidden[:1], wanted[:1], wild, Stage("fit"))
    assert result.end == result.start
    assert result.best_epoch == 0
    assert all(bool(number.isfinite().all()) for number in learned.parameters())


def test_training_that_only_does_harm_leaves_plain_rounding():
    _, hidden, wanted, block = block_of()
    learned = DESIGN.prepared(block)
    harmful = dataclasses.replace(SHORT, rate=3.0, clip_rate=30.0, weight_rate=3.0)
    result = fit(learned, hidden, wanted, harmful, Stage("fit"))
    assert result.end <= result.plain
    if result.best_epoch == 0 and result.end == result.plain:
        plain = integers(block.parameters[f"{next(iter(learned.layers))}.weight"], 4, 16)
        assert torch.equal(learned.rounded()[f"{next(iter(learned.layers))}.weight"], plain)


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


def test_sensitivities_of_states_are_those_of_gradients_one_by_one():
    model = decoder("llama")
    blocks = [block for _, block in find_blocks(model)]
    found = state_sensitivities(model, blocks, [WINDOWS[:2]], seed=5)
    generator, states = torch.Generator().manual_seed(5), []
    hooks = [block.register_forward_hook(lambda m, a, out: states.append(out)) for block in blocks]
    logits = model(WINDOWS[:2], use_cache=False).logits
    for hook in hooks:
        hook.remove()
    logs = torch.log_softmax(logits, -1).reshape(-1, logits.shape[-1])
    drawn = torch.multinomial(logs.detach().exp(), 1, generator=generator)
    states = [one[0] if isinstance(one, tuple) else one for one in states]
    gradients = torch.autograd.grad(logs.gather(-1, drawn).sum(), states)
    for gradient, moment in zip(gradients, found, strict=True):
        slow = torch.stack([torch.outer(g, g) for g in gradient.reshape(-1, gradient.shape[-1]).double()]).sum(0) / 24
        assert torch.allclose(moment, slow, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("part", ["", "model.embed_tokens"])
def test_sensitivities_of_a_frozen_model_are_those_of_the_model(part: str):
    model = decoder("llama")
    blocks = [block for _, block in find_blocks(model)]
    wanted = state_sensitivities(model, blocks, [WINDOWS[:2]])
    model.get_submodule(part).requires_grad_(False)
    before = [one.requires_grad for one in model.parameters()]
    for one, two in zip(wanted, state_sensitivities(model, blocks, [WINDOWS[:2]]), strict=True):
        assert torch.equal(one, two)
    with pytest.raises(InvalidInputError, match="vocabulary of 64"):
        state_sensitivities(model, blocks, [WINDOWS[:2], WINDOWS + 64])
    assert [one.requires_grad for one in model.parameters()] == before
    assert all(one.grad is None for one in model.parameters())
    assert not any(block._forward_hooks for block in blocks)


def test_the_metric_decides_what_training_spares():
    """A metric of one direction: its error falls further than with all alike."""
    _, hidden, wanted, block = block_of()
    root = torch.zeros(32, 32)
    root[3, 3] = 1.0
    ends = []
    for metric in (root, None):
        learned = DESIGN.prepared(block)
        fit(learned, hidden, wanted, dataclasses.replace(SHORT, epochs=6), Stage("fit"), metric)
        with torch.no_grad():
            errors = [(learned(one, w) - wanted[w])[..., 3].square().sum() for w, one in enumerate(hidden)]
        ends.append(float(sum(errors)))
    assert ends[0] < 0.8 * ends[1]


def test_the_published_recipe_runs_both_ways(rng: np.random.Generator):
    model = decoder("llama")
    before = copy.deepcopy(model)
    rows = AffineQuant(levels=4, group=16, epochs=2)(model, WINDOWS, work=Stage("maps"), keep={})
    stay = [row for row in rows if row.values]
    assert [row.place.rpartition(".")[2] for row in stay] == ["attention_input", "mlp_input"] * 2
    assert all(row.values == 32**2 and row.certificate is not None for row in stay)
    folded = AffineQuant(levels=16, group=None, input_levels=16, epochs=1)(before, WINDOWS, work=Stage("maps"), keep={})
    assert not any(row.values for row in folded)


def test_maps_that_stay_leave_a_block_as_it_is_before_rounding():
    _, hidden, wanted, block = block_of()
    fine = Rounding(256, 1)
    design = AffineQuant(epochs=2)
    starts = {
        place.name: torch.linspace(0.5, 2, place.channels).view(place.heads, -1) for place in block.places.values()
    }
    learned = design.prepared(block, starts)
    learned.rounding = fine
    learned.clip = {}
    learned.constrain(1, 2)
    with torch.no_grad():
        error = (learned(hidden[0], 0) - wanted[0]).abs().max() / wanted[0].abs().max()
    assert error < 0.02  # steps of 1/255 of the largest weight, in the coordinates of the maps


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
        ({"places": (1,)}, "`places` is a tuple; pass a tuple of names"),
        ({"schedule": 3}, "`schedule` is 3; pass a Schedule"),
    ],
)
def test_options_out_of_range_are_named(options: dict[str, Any], message: str, unchecked):
    with pytest.raises(InvalidInputError, match=message):
        Trained(**options)


def test_numbers_of_any_type_name_one_design(unchecked):
    options: dict[str, Any] = {"levels": np.int64(8), "group": np.int32(64)}
    assert repr(Trained(**options)) == repr(Trained(levels=8, group=64))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"levels": "8"}, "`levels` is '8'"),
        ({"levels": 1}, "`levels` is 1"),
        ({"group": 0}, "`group` is 0"),
        ({"input_levels": 0}, "`input_levels` is 0"),
        ({"epochs": 1.5}, "`epochs` is 1.5"),
        ({"seed": -1}, "`seed` is -1"),
    ],
)
def test_options_of_the_published_recipe_are_named(options: dict[str, Any], message: str, unchecked):
    with pytest.raises(InvalidInputError, match=message):
        AffineQuant(**options)


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


def test_gradients_do_not_stay_behind_training():
    _, hidden, wanted, block = block_of()
    learned = DESIGN.prepared(block)
    fit(learned, hidden, wanted, SHORT, Stage("fit"))
    assert all(number.grad is None for number in learned.parameters())


@pytest.mark.parametrize(
    "options", [{"epochs": 0}, {"rate": -1.0}, {"rate": float("nan")}, {"held_out": -1}, {"held_out": 1}]
)
def test_schedules_out_of_range_are_named(options: dict[str, Any]):
    with pytest.raises(InvalidInputError, match=f"`{next(iter(options))}` is"):
        Schedule(**options)


def test_blocks_follow_each_other_rounded():
    """The second block is trained for what the first one gives when it is rounded."""
    model = decoder("llama")
    seen: list[torch.Tensor] = []

    def build(block: MappedBlock) -> RoundedBlock:
        found = DESIGN.prepared(block)
        found.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
        return found

    blocks = list(train_blocks(model, WINDOWS, build, SHORT, Stage("maps"), {}))
    first = blocks[0][0]
    with torch.no_grad():
        after = first(BlockStream(model, [first.block._stream.blocks[0]], [WINDOWS[:1]]).hidden[0], 0)
    assert any(torch.allclose(one, after, atol=1e-6) for one in seen)
