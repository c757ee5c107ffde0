"""Integers with gradients: the values of `MinMax`, the gradients of what rounding leaves smooth."""

import hypothesis.extra.numpy as npst
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lattq.llm.tune.straight_through import integers, rounded, token_integers
from lattq.quantizers import MinMax
from lattq.quantizers.entries import Entries

SHAPES = npst.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9)
WEIGHTS = npst.arrays(np.float32, SHAPES, elements=st.integers(-64, 64).map(lambda i: i / 64))


def of_quantizer(weight: np.ndarray, levels: int, group: int | None) -> np.ndarray:
    """What `MinMax` makes of each group by itself."""
    size = weight.shape[1] if group is None else group
    parts = [weight[:, start : start + size] for start in range(0, weight.shape[1], size)]
    rounding = MinMax(levels=levels, group=None, fit="range")
    found = []
    for part in parts:
        quantizer = rounding(Entries(part.astype(np.float64)))
        found.append(quantizer.decode(quantizer.encode(part.astype(np.float64))))
    return np.concatenate(found, axis=1)


@given(WEIGHTS, st.sampled_from([2, 3, 4, 8, 16]), st.sampled_from([None, 1, 3, 4]))
def test_values_are_those_of_min_max_integers(weight: np.ndarray, levels: int, group: int | None):
    """On a grid: both round halves in their own way, and then are equally near."""
    found = integers(torch.from_numpy(weight), levels, group).numpy()
    wanted = of_quantizer(weight, levels, group)
    errors = np.abs(found - weight), np.abs(wanted - weight)
    assert np.allclose(
        *errors, atol=2e-3
    )  # steps in float16: 2⁻¹¹ of a range of 2 at most, and twice of the zero point


@given(WEIGHTS, st.sampled_from([3, 8]), st.sampled_from([None, 4]), st.floats(-3, 6), st.floats(-3, 6))
def test_plain_rounding_finds_what_learned_ranges_gave(
    weight: np.ndarray, levels: int, group: int | None, low: float, high: float
):
    """The ends of a range are among the rounded weights: they span it."""
    x = torch.from_numpy(weight)
    groups = 1 if group is None else -(-weight.shape[1] // group)
    found = integers(x, levels, group, torch.stack([torch.full((len(x), groups), one) for one in (low, high)]))
    assert torch.allclose(integers(found, levels, group), found, rtol=1e-6, atol=1e-9)


def test_a_group_of_zeros_stays_zero_and_has_a_gradient():
    x = torch.zeros(2, 6, requires_grad=True)
    clip = torch.zeros(2, 2, 2, requires_grad=True)
    found = integers(x, 8, 3, clip)
    found.square().sum().backward()
    assert not found.any()
    for number in (x, clip):
        assert number.grad is not None
        assert number.grad.isfinite().all()


@pytest.mark.parametrize("group", [None, 4])
def test_gradients_are_those_with_the_parts_that_rounding_adds_held_fixed(group: int | None, rng: np.random.Generator):
    """Rounding adds a number that gradients take for constant: hold it, and differences must agree."""
    x = torch.from_numpy(rng.standard_normal((3, 8)))
    clip = torch.from_numpy(rng.uniform(0.5, 2, (2, 3, 2 if group else 1)))
    probe = torch.from_numpy(rng.standard_normal((3, 8)))

    def value(x: torch.Tensor, clip: torch.Tensor) -> torch.Tensor:
        return (integers(x, 8, group, clip) * probe).sum()

    x.requires_grad_()
    clip.requires_grad_()
    gradients = torch.autograd.grad(value(x, clip), (x, clip))
    size = 8 if group is None else group

    def by_hand(x: torch.Tensor, clip: torch.Tensor, held: list[torch.Tensor]) -> tuple[torch.Tensor, list]:
        """What rounding adds, and which codes are inside, are held if given."""
        parts = x.view(3, -1, size)
        low, high = parts.amin(-1).clamp(max=0) * clip[0].sigmoid(), parts.amax(-1).clamp(min=0) * clip[1].sigmoid()
        raw = (high - low) / 7
        added = held[:1] or [raw.half().to(raw) - raw]
        step = (raw + added[0])[..., None]
        zero, code = -low[..., None] / step, parts / step
        added = held or [*added, zero.round() - zero, code.round() - code]
        zero, code = zero + added[1], code + added[2]
        added = held or [*added, (code + zero).round().clamp(0, 7), (code + zero).round()]
        inside = torch.where(added[3] == added[4], code + zero, added[3])
        return ((inside - zero) * step).view(3, 8), added

    with torch.no_grad():
        found, held = by_hand(x, clip, [])
        assert torch.allclose(found, integers(x, 8, group, clip))
    for which, (number, gradient) in enumerate(zip((x, clip), gradients, strict=True)):
        direction = torch.from_numpy(rng.standard_normal(tuple(number.shape)))
        moved = []
        for sign in (1, -1):
            with torch.no_grad():
                one, other = (
                    start + sign * 1e-6 * direction if which == i else start for i, start in enumerate((x, clip))
                )
                moved.append((by_hand(one, other, held)[0] * probe).sum())
        # Central differences of a smooth function: 10⁻¹² of its third derivative, and 10⁻¹⁶ / 10⁻⁶ of its values.
        assert torch.isclose((moved[0] - moved[1]) / 2e-6, (gradient * direction).sum(), rtol=1e-6, atol=1e-8)


def test_a_scale_of_a_column_acts_through_the_range_of_its_group():
    """Negative control: with the range held fixed, the gradient of the largest weight is another."""
    x = torch.tensor([[0.3, -1.0, 2.0, 0.9]], dtype=torch.float64, requires_grad=True)
    probe = torch.tensor([1.0, 0.0, 0.0, 0.0], dtype=torch.float64)
    (ranged,) = torch.autograd.grad((integers(x, 4, None) * probe).sum(), x)
    (plain,) = torch.autograd.grad((rounded(x) * probe).sum(), x)
    assert plain[0, 2] == 0
    assert ranged[0, 2] != 0


@given(WEIGHTS, st.sampled_from([4, 16]))
def test_tokens_are_rounded_one_by_one(x: np.ndarray, levels: int):
    whole = token_integers(torch.from_numpy(x), levels)
    for row, found in zip(x, whole, strict=True):
        assert torch.equal(token_integers(torch.from_numpy(row), levels), found)
    steps = (x.max(axis=1).clip(0) - x.min(axis=1).clip(max=0)) / (levels - 1)
    assert (np.abs(whole.numpy() - x) <= steps[:, None] * (1 + 1e-5) + 1e-7).all()
