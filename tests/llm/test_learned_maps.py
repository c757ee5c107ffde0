"""Maps with numbers to learn: the identity at first, certified at every step."""

import functools

import numpy as np
import pytest
import torch

from lattq.llm.source.place import Place
from lattq.llm.tune.affinequant import GradualBlocks
from lattq.llm.tune.learned import LearnedBlocks, LearnedDiagonal, LearnedMap, LearnedPairs
from lattq.llm.tune.maps import map_of


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
