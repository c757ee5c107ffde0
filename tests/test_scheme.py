"""quantize: what it refuses, what it accepts, and the same bytes every time."""

import dataclasses
import functools
import inspect
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

import lattq as lq
from lattq._array import to_host
from lattq.errors import InvalidInputError, NotPositiveSemidefiniteError
from lattq.lattices import E8
from lattq.quantizers import AbsMax, Lattice, Trellis, Uniform
from lattq.scheme import Scheme
from lattq.transforms import Equalize
from tests.helpers import assert_same
from tests.schemes import FIXED_RATE, NAMES, entropy_coded, every_scheme
from tests.strategies import Layer, gaussian_layer, layers, moderate, rank_deficient_moments, seeds

EPS = float(np.finfo(np.float64).eps)

quantize = inspect.unwrap(lq.quantize)  # without the shape checks that only the tests have
refit = inspect.unwrap(lq.refit)
plain = lq.recipes.watersic(0.3)
few = settings(max_examples=settings().max_examples // 3)  # one law for many schemes


@pytest.mark.parametrize("name", NAMES)
@few
@given(layer=layers())
def test_any_layer_is_quantized(name: str, layer: Layer):
    """Dead inputs, any rank, heavy tails, constants, zeros: a finite reconstruction that knows its distortion."""
    weight, sigma = moderate(layer)
    found = lq.quantize(weight, sigma, every_scheme(len(sigma))[name])
    assert found.codes.shape == weight.shape
    assert np.isfinite(found.dequantize()).all()
    assert found.distortion(weight, sigma) >= -4 * EPS**0.5 * np.trace(sigma)
    assert found.to_bytes() == lq.quantize(weight, sigma, every_scheme(len(sigma))[name]).to_bytes()


@given(layer=layers(), step=st.floats(0.02, 1))
def test_distortion_is_a_twelfth_of_the_squared_step_at_most(layer: Layer, step: float):
    """Every rounding error is at most half a step in equalized coordinates: D <= step² / 4 by the pivots."""
    weight, sigma = layer
    scheme = lq.recipes.watersic(step, mmse=0.0, sweeps=0, shrink=False)
    found = lq.quantize(weight, sigma, scheme)
    scale = np.square(np.abs(weight - found.dequantize(np.float64)) @ np.sqrt(np.diag(sigma))).sum() / weight.size
    factor = scheme.feedback.factor(weight, sigma)
    left = np.mean(factor.pivots / np.square(found.transform.scale[factor.order]))  # scales lie on a grid
    assert found.distortion(weight, sigma) <= left * step**2 / 4 * (1 + 1e-9) + 4 * EPS**0.5 * scale


def test_distortion_at_high_rate_is_a_twelfth_of_the_squared_step():
    """Uniform errors times the mean pivot, which is 1 where they are equalized.

    n squares of uniform numbers have a relative standard error of √(0.8 / n), 0.35 % here; the grid of scales moves
    each pivot by up to 1/16 octave, 4.4 %, whose mean over 64 columns scatters by 0.3 %.
    """
    weight, sigma = gaussian_layer(1024, 64)
    reversed_pivots = lq.linalg.ldl(sigma[::-1, ::-1].copy()).pivots
    for name, pivot in (("watersic plain", 1.0), ("huffman_gptq", reversed_pivots.mean())):
        found = lq.quantize(weight, sigma, entropy_coded(0.02)[name])
        assert found.distortion(weight, sigma) == pytest.approx(pivot * 0.02**2 / 12, rel=0.02)


@pytest.mark.parametrize("name", ["weight", "sigma"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("scheme", [plain, lq.recipes.gptq()])
def test_values_that_are_not_finite_are_refused(xp: ModuleType, name: str, value: float, scheme: Scheme):
    arrays = {"weight": np.ones((3, 4)), "sigma": np.eye(4)}
    arrays[name][2, 2] = value
    with pytest.raises(InvalidInputError, match=rf"`{name}` holds .*\(2, 2\)"):
        lq.quantize(xp.asarray(arrays["weight"]), xp.asarray(arrays["sigma"]), scheme)


@pytest.mark.parametrize(
    ("weight", "sigma", "message"),
    [
        (np.ones(4), np.eye(4), r"`weight` has shape \(4,\)"),
        (np.ones((2, 3, 4)), np.eye(4), r"`weight` has shape \(2, 3, 4\)"),
        (np.ones((0, 4)), np.eye(4), r"`weight` has shape \(0, 4\)"),
        (np.ones((4, 0)), np.zeros((0, 0)), r"`weight` has shape \(4, 0\)"),
        (np.ones((2, 4)), np.eye(3), "weight has 4 columns"),
        (np.ones((2, 4)), np.ones((4, 3)), r"`sigma` has shape \(4, 3\)"),
        (np.ones((2, 4), dtype=np.int64), np.eye(4), "int64.*floating"),
        (np.ones((2, 4), dtype=bool), np.eye(4), "bool.*floating"),
        (np.ones((2, 4), dtype=complex), np.eye(4), "complex.*floating"),
        (np.ones((2, 2)), np.array([[1.0, 0.5], [0.2, 1.0]]), "not symmetric"),
    ],
)
def test_wrong_shapes_and_types_are_refused(weight: np.ndarray, sigma: np.ndarray, message: str):
    with pytest.raises(InvalidInputError, match=message):
        quantize(weight, sigma, plain)
    with pytest.raises(InvalidInputError, match=message):
        refit(lq.quantize(np.ones((2, 4)), np.eye(4), plain), weight, sigma)


@pytest.mark.parametrize("scheme", [plain, lq.recipes.gptq(damping=0.0), lq.recipes.huffman_gptq(0.3)])
def test_indefinite_moments_are_refused_by_column(scheme: Scheme):
    sigma = np.diag([1.0, 2.0, 0.5])
    sigma[0, 2] = sigma[2, 0] = 5.0
    with pytest.raises(NotPositiveSemidefiniteError) as caught:
        lq.quantize(np.ones((2, 3)), sigma, scheme)
    assert caught.value.pivot < 0
    with pytest.raises(NotPositiveSemidefiniteError, match="column 1"):
        lq.quantize(np.ones((2, 3)), np.diag([1.0, -1.0, 1.0]), scheme)


@pytest.mark.parametrize(
    "scheme", [Scheme(quantizer=Uniform(1e-12)), Scheme(equalize=Equalize(), quantizer=Uniform(1e-12))]
)
def test_codes_that_overflow_are_refused(scheme: Scheme):
    with pytest.raises(InvalidInputError, match="larger step"):
        lq.quantize(np.ones((2, 3)), np.eye(3), scheme)


@pytest.mark.parametrize("name", NAMES)
def test_layers_without_inputs_have_no_distortion(name: str):
    weight, sigma = np.ones((8, 16)), np.zeros((16, 16))
    assert lq.quantize(weight, sigma, every_scheme(16)[name]).distortion(weight, sigma) == 0.0


@pytest.mark.parametrize("name", ["watersic", "watersic plain", "huffman_gptq"])
def test_dead_layers_cost_a_header(name: str):
    """No input, or no weight, is ever active."""
    for weight, sigma in ((np.ones((64, 64)), np.zeros((64, 64))), (np.zeros((64, 64)), np.eye(64))):
        found = lq.quantize(weight, sigma, every_scheme(64)[name])
        assert found.nbytes <= 250
        assert not found.dequantize().any()


@given(sigma=rank_deficient_moments(2, 16), seed=seeds, step=st.sampled_from([1.0, 0.1, 1e-3]))
def test_singular_moments_cost_no_rate_and_no_distortion(sigma: np.ndarray, seed: int, step: float):
    """Columns that the others determine get no bits, and the distortion is that of the rest.

    Steps are relative to the least deviation that a column has of its own: a coarser one may round all of it to 0.
    """
    weight = np.random.default_rng(seed).standard_normal((50, len(sigma)))
    pivots = lq.linalg.ldl(sigma, order="pivoted").pivots
    step *= float(np.sqrt(pivots[pivots > 0].min(initial=np.inf))) if pivots.any() else 1.0
    found = lq.quantize(weight, sigma, lq.recipes.watersic(step, mmse=0.0, shrink=False))
    rank = np.linalg.matrix_rank(sigma)
    assert found.stats["idle_columns"] == len(sigma) - rank
    assert (found.codes != 0).any(axis=0).sum() <= rank
    assert found.distortion(weight, sigma) <= rank / len(sigma) * 2 ** (1 / 16) * step**2 / 4 + 1e-9


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_torch_weights_of_any_precision(dtype: torch.dtype):
    """Half precision is lifted to float32 exactly; the result is that of the same numbers in NumPy."""
    weight, sigma = gaussian_layer(20, 12, np.float32)
    tensor = torch.tensor(weight, dtype=dtype)
    host = tensor.to(torch.float32 if dtype != torch.float64 else dtype).numpy()
    for scheme in (plain, lq.recipes.gptq(8, group=4)):
        found = lq.quantize(tensor, torch.tensor(sigma), scheme)
        assert_same(found.codes, lq.quantize(host, sigma, scheme).codes)
        assert found.distortion(tensor, torch.tensor(sigma)) == pytest.approx(found.distortion(host, sigma))


@pytest.mark.parametrize("name", NAMES)
def test_every_array_library_gives_the_same_bytes(xp: ModuleType, name: str):
    weight, sigma = gaussian_layer(17, 12)
    here = lq.quantize(xp.asarray(weight), xp.asarray(sigma), every_scheme(12)[name])
    assert isinstance(here.codes, np.ndarray)
    assert here.to_bytes() == lq.quantize(weight, sigma, every_scheme(12)[name]).to_bytes()


@pytest.mark.parametrize("library", [np, torch])
@pytest.mark.parametrize(
    "recipe", [lq.recipes.watersic(0.1), lq.recipes.gptq(16, group=64), lq.recipes.huffman_gptq(0.1)]
)
def test_bytes_do_not_depend_on_the_number_of_threads(library: Any, recipe: Scheme):
    weight, sigma = gaussian_layer(96, 192, np.float32)
    blobs = set()
    for threads in (1, 2):
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        with threadpool_limits(threads):
            blobs.add(lq.quantize(library.asarray(weight), library.asarray(sigma), recipe).to_bytes())
        torch.set_num_threads(before)
    assert len(blobs) == 1


def test_the_inputs_stay_as_they_are(xp: ModuleType):
    weight, sigma = gaussian_layer(6, 8)
    arrays = xp.asarray(weight.copy()), xp.asarray(sigma.copy())
    for scheme in every_scheme(8).values():
        lq.refit(lq.quantize(*arrays, scheme), *arrays)
    assert_same(to_host(arrays[0]), weight)
    assert_same(to_host(arrays[1]), sigma)


def test_schemes_are_values():
    assert lq.recipes.watersic(0.1) == lq.recipes.watersic(0.1)
    assert lq.recipes.watersic(0.1) != lq.recipes.watersic(0.2)
    assert len({lq.recipes.gptq(), lq.recipes.gptq(), lq.recipes.rtn()}) == 2
    for scheme in [*FIXED_RATE.values(), *entropy_coded(0.3).values()]:
        assert scheme == dataclasses.replace(scheme)
        assert type(scheme.quantizer).__name__ in repr(scheme)
    with pytest.raises(dataclasses.FrozenInstanceError):
        Scheme().sweeps = 3  # pyright: ignore[reportAttributeAccessIssue]


def test_the_default_coder_follows_the_quantizer():
    weight, sigma = gaussian_layer(4, 8)
    assert isinstance(lq.quantize(weight, sigma, Scheme(quantizer=Uniform(0.1))).coder, lq.coding.TwoWay)
    coder = lq.quantize(weight, sigma, Scheme(quantizer=AbsMax(5, None))).coder
    assert coder == lq.coding.FixedLength(levels=5, low=-2)


def test_overload_and_idle_columns_are_counted():
    found = lq.quantize(np.ones((3, 4)), np.diag([1.0, 0.0, 1.0, 0.0]), lq.recipes.huffman_gptq(0.5))
    assert found.stats["idle_columns"] == 2
    assert found.stats["overload"] == 0


@pytest.mark.parametrize("power", [150, -150, 300, -300])
@pytest.mark.parametrize(
    "cell",
    [Uniform(), Uniform(dither=1), Uniform(shrink=True), Trellis(8), Lattice(E8)],
    ids=lambda cell: str(cell)[:30],
)
def test_moments_of_any_scale_are_quantized_in_float64_or_refused(power: int, cell: Any):
    """Beyond the range of float32, which used to end in codes of size nan, the error says what to do."""
    weight = np.random.default_rng(0).standard_normal((64, 8))
    recipe = functools.partial(lq.recipes.watersic, quantizer=cell)
    expected = lq.quantize(weight, np.eye(8), recipe(0.25))
    sigma, step = np.eye(8) * 4.0**power, 0.25 * 2.0**power
    assert_same(lq.quantize(weight, sigma, recipe(step)).codes, expected.codes)
    with pytest.raises(InvalidInputError, match="multiply `sigma` or the weights by a constant, or pass"):
        lq.quantize(weight.astype(np.float32), sigma, recipe(step))


def test_gains_whose_squares_overflow_are_refused():
    weight = np.full((8, 4), 1e19, dtype=np.float32)
    scheme = lq.recipes.huffman_gptq(1e18)
    assert np.isfinite(lq.quantize(weight, np.eye(4), scheme).dequantize()).all()
    with pytest.raises(InvalidInputError, match=r"reach 1e\+19, but float32 holds up to 6.52e\+18 here"):
        lq.quantize(weight, np.eye(4), lq.recipes.huffman_gptq(1e18, shrink=True))
