"""Training one block: never worse than plain rounding, whatever the numbers do."""

import dataclasses
from typing import Any

import pytest
import torch

from lattq.errors import InvalidInputError
from lattq.llm.measure.hidden_states import BlockStream
from lattq.llm.tune.mapped_block import MappedBlock
from lattq.llm.tune.rounded_block import RoundedBlock
from lattq.llm.tune.straight_through import integers
from lattq.llm.tune.trained import train_blocks
from lattq.llm.tune.training import Schedule, fit
from lattq.progress import Stage
from tests.llm.decoders import decoder
from tests.llm.training import DESIGN, SHORT, WINDOWS, block_of


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
