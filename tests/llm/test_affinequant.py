"""The published recipe, a baseline: what it folds, and what it leaves to be applied at run time."""

import copy
from typing import Any

import numpy as np
import pytest
import torch

from lattq.errors import InvalidInputError
from lattq.llm.tune.affinequant import AffineQuant
from lattq.llm.tune.rounded_block import Rounding
from lattq.progress import Stage
from tests.llm.decoders import decoder
from tests.llm.training import WINDOWS, block_of


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
