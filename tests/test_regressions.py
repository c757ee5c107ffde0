"""Defects found by trying to break the library, one test each."""

import contextlib
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

import lattq as lq
from lattq._options import as_float, as_integer
from lattq.bounds import layer as layer_bounds
from lattq.errors import DamagedFileError, InvalidInputError, RateNotReachedError
from lattq.feedback import MMSE, Cholesky, successive_cancellation
from lattq.quantizers import AbsMax, MinMax, Uniform, UniformQuantizer
from lattq.transforms import Diagonal, Equalize, Fixed, Hadamard, then
from lattq.transforms.chains import Chain, Folded
from lattq.transforms.maps import Permutation

COLUMNS = 12


def layer(rank: int = COLUMNS, dtype: Any = np.float64) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    root = rng.standard_normal((COLUMNS, rank))
    return rng.standard_normal((40, COLUMNS)).astype(dtype), root @ root.T


@pytest.mark.parametrize(
    "quantizer", [MinMax(5, None), MinMax(16, 4), Uniform(0.7, offset=0.5), Uniform(0.7, dither=1)], ids=str
)
def test_free_columns_are_fed_back_as_they_are_decoded(quantizer: Any):
    """Code 0 of a column without rate decodes to something; the other columns used to compensate for 0 instead."""
    weight, sigma = layer(rank=5)
    factor = Cholesky().factor(weight, sigma)
    for sweeps in range(3):
        fed_back = successive_cancellation(weight, factor, quantizer, sweeps=sweeps)
        decoded = lq.quantize(weight, sigma, lq.Scheme(quantizer=quantizer, sweeps=sweeps)).dequantize(np.float64)
        np.testing.assert_allclose(decoded, fed_back.reconstruction, atol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "scheme",
    [lq.recipes.watersic_published(0.1), lq.recipes.watersic(0.1, quantizer=Uniform(dither=3))],
    ids=["exact scales", "dither"],
)
def test_the_value_is_what_its_bytes_decode_to(scheme: lq.Scheme, dtype: Any):
    """Scales that the file holds in float32 and dither drawn for float32 weights used to differ in the last bits."""
    weight, sigma = layer(dtype=dtype)
    found = lq.quantize(weight, sigma, scheme)
    again = lq.Quantized.from_bytes(found.to_bytes())
    np.testing.assert_array_equal(again.dequantize(np.float64), found.dequantize(np.float64))


def test_distortion_behind_a_folded_transform_in_a_chain():
    """Weights that stay transformed used to be compared with those that are not."""
    weight, sigma = layer()
    fold = Fixed(Diagonal(np.arange(1.0, COLUMNS + 1)), folded=True)
    found = lq.quantize(
        weight, sigma, lq.Scheme(transform=fold, equalize=Equalize(exact=True), quantizer=Uniform(step=0.1))
    )
    assert found.distortion(weight, sigma) == pytest.approx(0.1**2 / 12, rel=0.2)
    again = lq.Quantized.from_bytes(found.to_bytes())
    moved = fold.transform.forward(weight), fold.transform.congruence(sigma)
    assert again.distortion(*moved) == pytest.approx(found.distortion(weight, sigma))


def test_only_the_first_of_a_chain_may_be_folded():
    with pytest.raises(InvalidInputError, match="not the first of its chain"):
        Chain((Hadamard(1), Folded(Hadamard(2))))


@pytest.mark.parametrize("shape", [(4096, 1), (2000, 3)])
def test_narrow_matrices_reach_their_rate(shape: tuple[int, int]):
    """The header weighs so much on a sample of 512 rows that the search used to start far off."""
    weight = np.random.default_rng(0).standard_normal(shape)
    assert abs(lq.at_rate(3.0, lq.recipes.watersic, weight, np.eye(shape[1])).rate - 3.0) <= 0.005


def test_rounding_of_the_eigenvalues_is_not_a_negative_one():
    """It grows with the largest eigenvalue, here 8 times the largest entry."""
    columns = np.square(np.random.default_rng(0).standard_normal((400, 8))).mean(axis=0)
    assert layer_bounds.layer_spectrum(np.ones((8, 8)), columns)[0] == 0.0


def test_the_search_starts_on_weights_that_have_no_two_way_variances():
    weight = np.zeros((64, 32))
    weight[0, :], weight[:, 0] = 1.0, 2.0
    with contextlib.suppress(RateNotReachedError):
        lq.at_rate(2.0, lq.recipes.watersic, weight, np.eye(32))


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: AbsMax(group=0), "group"),
        (lambda: MinMax(group=-1), "group"),
        (lambda: Uniform(offset=np.nan), "offset"),
        (lambda: Uniform(dither=-1), "dither"),
        (lambda: Uniform(dither=2**70), "dither"),
        (lambda: Hadamard(-1), "seed"),
        (lambda: lq.at_rate(3.0, lq.recipes.watersic, *layer(), seed=-1), "seed"),
        (lambda: lq.coding.TwoWay(block=0), "block"),
        (lambda: lq.coding.TwoWay(block=1 << 40), "block"),
        (lambda: Cholesky(damping=-5.0), "damping"),
        (lambda: Cholesky(damping=np.nan), "damping"),
        (lambda: MMSE(noise=-1.0), "noise"),
        (lambda: MMSE(noise=0.1, ratio=np.nan), "ratio"),
        (lambda: lq.recipes.watersic(1e200), "noise"),
        (lambda: Permutation(np.zeros(3, dtype=np.int64)), "order"),
        (lambda: Diagonal(np.array([1e-50, 1.1])), "float32"),
        (lambda: lq.quantize(*layer(), lq.recipes.watersic(0.1, sweeps=-1)), "sweeps"),
        (lambda: lq.quantize(*layer(), lq.recipes.watersic(0.1, rotation=Fixed(Diagonal(np.ones(5))))), "5 columns"),
    ],
)
def test_options_that_no_computation_can_use(make: Any, named: str):
    with pytest.raises(InvalidInputError, match=named):
        make()


@pytest.mark.parametrize("steps", [[1, 1, float("nan")], [1, 1, -1.0], [4, 3, np.ones(3, "<f2").tobytes()]])
def test_forged_steps_are_refused(steps: list):
    with pytest.raises(DamagedFileError, match="damaged"):
        UniformQuantizer.from_state([*steps, 0.0, None, None, None], (4, 1))


@pytest.mark.parametrize("kind", [Permutation, Diagonal])
def test_forged_transforms_of_another_size_are_refused(kind: Any):
    state = kind(np.array([1, 0, 2]) if kind is Permutation else np.array([1.1, 2.2, 3.3])).to_state()
    with pytest.raises(DamagedFileError, match="damaged"):
        kind.from_state(state, 4)


def test_a_failed_save_names_the_folder(tmp_path: Path):
    """The clean-up used to hide the first error."""
    layer = lq.quantize(np.eye(4), np.eye(4), lq.recipes.rtn())
    with pytest.raises(FileNotFoundError, match="absent"):
        lq.save(tmp_path / "absent" / "layer.lattq", layer)


@pytest.mark.parametrize(
    "sigma",
    [
        np.array([[0.12114, 0.32091, 0.05892], [0.32091, 0.88282, -0.02151], [0.05892, -0.02151, 0.99605]]),
        0.999 ** np.abs(np.subtract.outer(np.arange(24), np.arange(24))),  # all diagonal entries tie
    ],
)  # fmt: skip
def test_the_loop_keeps_the_order_that_was_equalized(sigma: np.ndarray):
    """The order used to be searched again in equalized coordinates; where it came out otherwise, D grew tenfold."""
    step, weight = 1 / 32, np.random.default_rng(0).normal(size=(40, len(sigma)))
    found = lq.quantize(weight, sigma, lq.recipes.watersic(step, mmse=0.0, sweeps=0))
    assert found.distortion(weight, sigma) <= 2 ** (1 / 16) * step**2 / 4


@pytest.mark.parametrize("recipe", [lq.recipes.watersic_published, lq.recipes.huffman_gptq, lq.recipes.watersic])
def test_a_rate_is_found_on_a_singular_sigma(recipe: Any):
    """The bound asks for steps whose codes no coder holds; the search used to end there."""
    _, sigma = layer(rank=3)
    weight = np.random.default_rng(0).normal(size=(2000, COLUMNS))
    assert abs(lq.at_rate(3.0, recipe, weight, sigma).rate - 3.0) <= 0.005


def test_a_rate_beyond_the_rank_is_refused():
    """One live column would need 12 * COLUMNS bits for each of its codes."""
    with pytest.raises(lq.errors.RateNotReachedError):
        lq.at_rate(12.0, lq.recipes.huffman_gptq, *layer(rank=1))


def test_options_of_any_number_type_can_be_stored():
    """NumPy's integers used to fail when the file was written, floats when it was read."""
    assert type(as_integer("group", np.int64(8))) is int
    assert type(as_float("offset", np.float32(0.5))) is float
    with pytest.raises(InvalidInputError, match="pass an integer"):
        as_integer("group", 8.0)


def test_dead_inputs_are_counted_whatever_the_feedback():
    weight, sigma = layer()
    sigma[::2] = sigma[:, ::2] = 0.0
    for recipe in (lq.recipes.watersic, lq.recipes.huffman_gptq):
        assert lq.quantize(weight, sigma, recipe(0.3)).stats["idle_columns"] == COLUMNS // 2


def test_distortion_of_weights_that_are_not_finite():
    weight, sigma = layer()
    with pytest.raises(InvalidInputError, match="nan"):
        lq.quantize(weight, sigma, lq.recipes.rtn()).distortion(np.full_like(weight, np.nan), sigma)


def test_parts_that_no_file_can_hold():
    class Other:
        def forward(self, weight: Any) -> Any:
            return weight

        inverse = congruence = forward

    with pytest.raises(InvalidInputError, match="cannot hold"):
        lq.quantize(*layer(), lq.Scheme(transform=Fixed(cast(Any, Other()))))
    with pytest.raises(InvalidInputError, match="cannot hold the coder 'ans'"):
        lq.quantize(*layer(), lq.recipes.watersic(0.3, coder="ans"))
    with pytest.raises(InvalidInputError, match="equalize"):
        then(Hadamard(1), Equalize())  # pyright: ignore[reportArgumentType]


def test_shrinkage_of_the_given_cell_is_kept():
    assert lq.recipes.watersic(0.1, quantizer=Uniform(shrink=True)).quantizer.shrink


def test_weights_with_gradients():
    weight, sigma = layer()
    tensor = torch.tensor(weight, requires_grad=True)
    found = lq.quantize(tensor, torch.tensor(sigma), lq.recipes.watersic(0.3))
    assert (found.codes == lq.quantize(weight, sigma, lq.recipes.watersic(0.3)).codes).all()


def test_values_beyond_a_dtype_are_refused():
    found = lq.quantize(1e100 * layer()[0], layer()[1], lq.recipes.watersic(1e99))
    with pytest.raises(InvalidInputError, match="float32"):
        found.dequantize()
    assert np.isfinite(found.dequantize(np.float64)).all()
