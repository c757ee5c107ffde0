"""Soft palettes under autograd: gradients by finite differences, what backward keeps, and hard palettes at the end."""

import copy
import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.autograd.gradcheck import GradcheckError
from torch.nn.utils import parametrize

from lattq.codebooks import kmeans_1d
from lattq.codebooks.differentiable import soft_kmeans
from lattq.errors import InvalidInputError
from lattq.llm import SoftPalette, harden
from lattq.llm.tune import soft_palette
from lattq.llm.tune.soft_palette import soft_palettize
from tests.strategies import seeds

WIDE = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def gaussian(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Weights of a unit Gaussian."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def palettized(*sizes: int, bits: int = 2, dtype: torch.dtype = torch.float32) -> nn.Sequential:
    """Linear layers with soft palettes."""
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Linear(n, m, dtype=dtype) for n, m in pairwise(sizes)))
    for layer in model:
        parametrize.register_parametrization(layer, "weight", SoftPalette(bits))
    return model


@settings(max_examples=25)
@given(seeds, st.integers(1, 3), st.sampled_from([0.02, 0.1, 0.3]), st.booleans())
def test_gradients_are_finite_differences(seed: int, bits: int, softness: float, repeated: bool):
    weight = gaussian(6, 5, seed=seed)
    if repeated:
        weight[3:] = weight[:3]
    first = soft_kmeans(weight.ravel().numpy(), 1 << bits, softness=softness, tolerance=1e-14)
    options = {"temperature": first.temperature, "start": torch.from_numpy(first.centroids)}
    # Central differences of size 1e-6 leave errors of about 1e-6 at the curvature of 0.02, and 1e-9 from rounding.
    assert torch.autograd.gradcheck(
        lambda x: soft_palettize(x, bits, **options), weight.requires_grad_(), atol=1e-4, rtol=1e-3
    )


def test_without_the_entries_moving_it_is_another_gradient(monkeypatch: pytest.MonkeyPatch):
    weight = gaussian(6, 5)
    first = soft_kmeans(weight.ravel().numpy(), 4, tolerance=1e-14)
    options = {"temperature": first.temperature, "start": torch.from_numpy(first.centroids)}
    whole = soft_palette.SoftClustering.gradient_parts

    def only_direct(self: soft_palette.SoftClustering, *args: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        direct, through = whole(self, *args)  # type: ignore[arg-type]
        return direct, np.zeros_like(through)

    monkeypatch.setattr(soft_palette.SoftClustering, "gradient_parts", only_direct)
    with pytest.raises(GradcheckError):
        torch.autograd.gradcheck(
            lambda x: soft_palettize(x, 2, **options), weight.requires_grad_(), atol=1e-4, rtol=1e-3
        )


@pytest.mark.parametrize("shape", [(7, 130), (70_001,), (3, 5, 11, 7), (1, 66_000)])
@pytest.mark.parametrize("dtype", WIDE)
def test_it_is_soft_k_means_of_all_weights(dtype: torch.dtype, shape: tuple[int, ...]):
    weight = gaussian(*shape, dtype=dtype).requires_grad_()
    upper = gaussian(*shape, seed=1, dtype=dtype)
    soft = soft_palettize(weight, 3, table_dtype=torch.float16 if dtype == torch.float64 else None)
    soft.backward(upper)
    kind = {torch.float32: torch.bfloat16, torch.float64: torch.float16}.get(dtype, dtype)
    plain = weight.detach().to(kind).double().numpy().ravel()
    found = soft_kmeans(plain, 8)
    assert soft.dtype == dtype
    assert weight.grad is not None
    assert weight.grad.dtype == dtype
    # Entries of the two start from sums in another order; a number is rounded to float32 and to its type.
    slack = 4 * max(torch.finfo(dtype).eps, 1e-9)
    gradient = found.gradient(upper.double().numpy().ravel())
    assert np.allclose(soft.detach().double().numpy().ravel(), np.asarray(found.output()), atol=slack, rtol=slack)
    scale = np.abs(gradient).max()
    assert np.allclose(weight.grad.double().numpy().ravel(), gradient, atol=slack * scale, rtol=slack)


def test_layouts_and_expanded_gradients_do_not_matter():
    weight = gaussian(300, 400, dtype=torch.float32)
    one, two = weight.clone().requires_grad_(), weight.T.contiguous().requires_grad_()
    soft_palettize(one, 2).sum().backward()  # a gradient that holds one number
    turned = soft_palettize(two.T, 2)
    assert torch.equal(turned, soft_palettize(one, 2))
    turned.sum().backward()
    assert one.grad is not None
    assert two.grad is not None
    assert torch.allclose(one.grad, two.grad.T, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("dtype", "table_dtype"), [(torch.float16, None), (torch.float32, torch.float16)])
def test_backward_keeps_values_and_no_table(dtype: torch.dtype, table_dtype: torch.dtype | None):
    weight = gaussian(1000, 500, dtype=dtype).requires_grad_()
    saved: list[Tensor] = []

    def keep(x: Tensor) -> Tensor:
        saved.append(x)
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        soft = soft_palettize(weight, 4, table_dtype=table_dtype)
    assert [x.data_ptr() for x in saved] == [weight.data_ptr()]
    node = soft.grad_fn
    assert len(node.table.values) <= 1 << 16  # type: ignore[union-attr]
    assert max(x.numel() for x in vars(node.table).values() if isinstance(x, Tensor)) <= 1 << 16  # type: ignore[union-attr]
    assert len(np.asarray(node.found.output())) == len(node.table.values)  # type: ignore[union-attr]


def test_what_is_not_finite_spreads_through_backward():
    weight = gaussian(8, 8).requires_grad_()
    upper = torch.ones(8, 8, dtype=torch.float64)
    upper[0, 0] = math.nan
    soft_palettize(weight, 2).backward(upper)
    assert weight.grad is not None
    assert weight.grad.isnan().any()


def test_a_weight_changed_before_backward_is_noticed():
    weight = gaussian(8, 8).requires_grad_()
    soft = soft_palettize(weight, 2)
    with torch.no_grad():
        weight += 1
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        soft.sum().backward()


@pytest.mark.parametrize("dtype", WIDE)
def test_hard_palettes_have_no_more_values_than_entries(dtype: torch.dtype):
    model = palettized(40, 60, 30, bits=3, dtype=dtype)
    before = [layer.parametrizations.weight.original.detach().clone() for layer in model]  # type: ignore[union-attr]
    parameters = [id(layer.parametrizations.weight.original) for layer in model]  # type: ignore[union-attr]
    entries = harden(model)
    assert list(entries) == ["0.weight", "1.weight"]
    for layer, old, parameter in zip(model, before, parameters, strict=True):
        weight = layer.weight
        assert isinstance(weight, Tensor)
        assert type(layer) is nn.Linear
        assert id(weight) == parameter
        assert weight.dtype == dtype
        assert len(weight.unique()) <= 8
        table = entries["0.weight" if layer is model[0] else "1.weight"]
        assert torch.isin(weight, table).all()
        distance = (old.double()[..., None] - table.double()).abs().amin(-1)
        # Entries and weights were rounded, each by half a unit in the last place of numbers below 1.
        slack = 2 * torch.finfo(torch.bfloat16 if dtype == torch.float32 else dtype).eps
        assert ((old.double() - weight.double()).abs() <= distance + slack).all()


def test_untrained_palettes_are_nearly_the_best_ones():
    model = palettized(100, 200, bits=3)
    old = model[0].parametrizations.weight.original.detach().clone()  # type: ignore[union-attr]
    best = kmeans_1d(old.numpy().ravel(), 8).distortion
    harden(model)
    error = float((model[0].weight.detach() - old).double().square().mean())  # type: ignore[operator]
    assert best <= error < 1.1 * best


def test_hardening_a_copy_leaves_the_model():
    model = palettized(16, 16, 16)
    x = gaussian(3, 16, dtype=torch.float32)
    soft = model(x)
    copied = copy.deepcopy(model)
    harden(copied)
    assert torch.equal(model(x), soft)
    assert not torch.equal(copied(x), soft)
    assert len(harden(model)) == 2
    assert torch.equal(model(x), copied(x))


def test_a_weight_of_two_layers_stays_one():
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    model[1].weight = model[0].weight
    for layer in model:
        parametrize.register_parametrization(layer, "weight", SoftPalette(2))
    harden(model)
    assert model[0].weight is model[1].weight
    assert len(model[0].weight.unique()) == 4  # type: ignore[operator]


def test_training_lowers_the_error_of_hard_palettes():
    x, target = gaussian(256, 24, dtype=torch.float32), gaussian(256, 8, seed=1, dtype=torch.float32)

    def error(model: nn.Module) -> float:
        hard = copy.deepcopy(model)
        harden(hard)
        return float((hard(x).detach() - target).square().mean())

    model = palettized(24, 32, 8, bits=1)
    before = error(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(30):
        optimizer.zero_grad()
        (model(x) - target).square().mean().backward()
        optimizer.step()
    assert error(model) < before


def test_the_same_weight_gives_the_same_mixtures_again():
    model = palettized(30, 30, bits=3, dtype=torch.float64)
    first = model[0].weight
    assert torch.allclose(model[0].weight, first, rtol=0, atol=1e-10)  # type: ignore[arg-type]


def test_entries_are_restored_with_the_model():
    model, fresh = palettized(16, 16), palettized(16, 16)
    with torch.no_grad():
        model[0].parametrizations.weight.original.mul_(3)  # type: ignore[union-attr]
    expected = model[0].weight
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(fresh[0].parametrizations.weight[0].entries, model[0].parametrizations.weight[0].entries)  # type: ignore[index,union-attr]
    assert torch.allclose(fresh[0].weight, expected)  # type: ignore[arg-type]


def test_bad_input_is_named():
    weight = gaussian(4, 4, dtype=torch.float32)
    broken = weight.clone()
    broken[1, 2] = math.nan
    with pytest.raises(InvalidInputError, match=r"nan at index \(1, 2\)"):
        soft_palettize(broken, 2)
    with pytest.raises(InvalidInputError, match=r"`weight` has dtype torch.int64"):
        soft_palettize(torch.arange(9), 2)
    with pytest.raises(InvalidInputError, match=r"2 different values in torch\.bfloat16, fewer than 4"):
        soft_palettize(torch.tensor([1.0, 1.0, 2.0, 2.0 + 1e-6]), 2)
    with pytest.raises(InvalidInputError, match=r"largest of torch\.float16"):
        soft_palettize(1e6 * weight, 2, table_dtype=torch.float16)
    with pytest.raises(InvalidInputError, match=r"`table_dtype` is torch\.float32"):
        soft_palettize(weight, 2, table_dtype=torch.float32)
    with pytest.raises(InvalidInputError, match="`bits` is 9"):
        SoftPalette(9)
    with pytest.raises(InvalidInputError, match="`softness`"):
        soft_palettize(weight, 2, softness=-1.0)
    with pytest.raises(InvalidInputError, match="no soft palettes"):
        harden(nn.Linear(2, 2))


def test_a_model_that_cannot_be_hardened_is_left_alone():
    model = palettized(16, 16, 16)
    with torch.no_grad():
        model[1].parametrizations.weight.original[0, 0] = math.inf  # type: ignore[union-attr,index]
    with pytest.raises(InvalidInputError, match="inf at index"):
        harden(model)
    assert parametrize.is_parametrized(model[0])
    model = palettized(16, 16)
    parametrize.register_parametrization(model[0], "weight", nn.Identity())
    with pytest.raises(InvalidInputError, match=r"`0.weight` has 2 parametrizations"):
        harden(model)
