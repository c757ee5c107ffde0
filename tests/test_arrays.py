"""What counts as an array, the same for every public function: exact types, any layout, and names for the rest."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import scipy.sparse
import torch

import lattq as lq
from lattq import bounds, codebooks, linalg, matmul
from lattq._array import as_array, as_floats, as_reals, epsilon
from lattq.bounds import block_formats, high_rate
from lattq.codebooks.product import fit_product, fit_residual
from lattq.errors import InvalidInputError, LattqError
from lattq.export.tables import LookupTable
from lattq.lattices import theta
from lattq.linalg import checks as moment_checks
from lattq.linalg import hadamard
from lattq.linalg.effective import effective_weight
from lattq.packed import PackedMatrix
from lattq.transforms import gain as gains
from lattq.transforms import outliers as sparse_parts
from lattq.transforms.maps import Permutation
from tests.helpers import assert_same, assert_same_bits
from tests.strategies import moment

RNG = np.random.default_rng(5)
WEIGHT, SIGMA = RNG.standard_normal((24, 16)), moment(np.geomspace(1, 30, 16), 1)
LAYER = lq.quantize(WEIGHT, SIGMA, lq.recipes.watersic(0.3))
FORMAT = bounds.number_format("e4m3fn")
NESTED = lq.lattices.NestedCode(lq.lattices.VoronoiCode(lq.lattices.Z(16), 5), (0.5, 1.0))
OWN_PRECISION = ("rotation", "fwht")  # they keep the dtype, and take complex numbers
SMALL = lq.lattices.VoronoiCode(lq.lattices.E8, 5)
NARROW = [ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2, np.float16]


def moments_of(x: Any, **more: Any) -> np.ndarray:
    found = linalg.SecondMoment(16)
    found.update(x, **more)
    return found.matrix


# Each takes a matrix like WEIGHT (24 x 16) and returns something that can be compared.
ENTRIES: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "quantize": ("weight", lambda x: lq.quantize(x, SIGMA, lq.recipes.watersic(0.3)).payload),
    "at_rate": ("weight", lambda x: lq.at_rate(20.0, lq.recipes.rtn, x, SIGMA).payload),
    "refit": ("weight", lambda x: lq.refit(LAYER, x, SIGMA).payload),
    "distortion": ("weight", lambda x: LAYER.distortion(x, SIGMA)),
    "gap": ("weight", lambda x: LAYER.gap(x, SIGMA)),
    "approximate a": ("a", lambda x: matmul.approximate(x, WEIGHT, lq.recipes.rtn()).estimate),
    "approximate b": ("b", lambda x: matmul.approximate(WEIGHT, x, lq.recipes.rtn()).estimate),
    "sketch": ("x", lambda x: matmul.sketch(x, 8, kind="signs")),
    "two-way variances": ("weight", lambda x: np.concatenate(bounds.two_way_variances(x))),
    "effective weight": ("weight", lambda x: effective_weight(x, SIGMA, SIGMA)),
    "second moment": ("x", moments_of),
    "rotation": ("x", lambda x: hadamard.randomized_hadamard(x, 3)),
    "fwht": ("x", hadamard.fwht),
    "nearest": ("x", lq.lattices.BW16.nearest),
    "nearest of a family": ("x", lambda x: lq.lattices.D(16).nearest_integer(x)),
    "voronoi code": ("x", lambda x: lq.lattices.VoronoiCode(lq.lattices.Z(16), 5).encode(x)),
    "nested code": ("x", lambda x: NESTED.encode(x)[0]),
    "trellis": ("x", lambda x: lq.trellis.TrellisCode(8).nearest(x)),
    "kmeans": ("x", lambda x: codebooks.kmeans(x, 3).centroids),
    "nearest entries": ("x", lambda x: codebooks.nearest(x, WEIGHT[:5].copy())),
    "product codebook": ("x", lambda x: fit_product(x, 3, 2).codebooks),
    "residual codebook": ("x", lambda x: fit_residual(x, 3, 2).codebooks),
    "packed": ("x", lambda x: PackedMatrix.from_quantized(lq.quantize(WEIGHT, SIGMA, lq.recipes.rtn())).matmul(x.T)),
}


def bent(x: np.ndarray) -> dict[str, np.ndarray]:
    """The same matrix in other layouts of memory."""
    wide = np.zeros((2 * x.shape[0], 3 * x.shape[1]), dtype=x.dtype)
    wide[::2, 1::3] = x
    return {
        "by columns": np.asfortranarray(x),
        "strided": wide[::2, 1::3],
        "backwards": np.ascontiguousarray(x[::-1, ::-1])[::-1, ::-1],
        "other bytes": x.astype(x.dtype.newbyteorder()),
    }


def compared(x: Any) -> Any:
    return x if isinstance(x, bytes) else np.asarray(x).tobytes()


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("layout", ["by columns", "strided", "backwards", "other bytes"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("entry", ENTRIES)
def test_results_do_not_depend_on_the_layout_of_memory(entry: str, dtype: Any, layout: str):
    call, x = ENTRIES[entry][1], WEIGHT.astype(dtype)
    assert compared(call(bent(x)[layout])) == compared(call(x))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("layout", ["by columns", "strided", "backwards", "other bytes"])
@pytest.mark.parametrize("recipe", [lq.recipes.watersic, lq.recipes.huffman_gptq, lq.recipes.gptq])
def test_the_bytes_of_a_rate_do_not_depend_on_the_layout_of_memory(recipe: Any, layout: str):
    """600 rows, so that a sample of them is searched first; the same for the second moment."""
    weight = np.random.default_rng(0).standard_normal((600, 16)).astype(np.float32)
    plain = lq.at_rate(4.0, recipe, weight, SIGMA)
    assert lq.at_rate(4.0, recipe, bent(weight)[layout], bent(SIGMA)[layout]).to_bytes() == plain.to_bytes()
    tensor = torch.from_numpy(np.asfortranarray(weight))
    assert (
        lq.at_rate(4.0, recipe, tensor, SIGMA).to_bytes()
        == lq.at_rate(4.0, recipe, torch.tensor(weight), SIGMA).to_bytes()
    )


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("dtype", NARROW)
@pytest.mark.parametrize("entry", ENTRIES)
def test_narrow_types_count_as_the_float32_that_they_are(entry: str, dtype: Any):
    if dtype == np.float16 and entry in OWN_PRECISION:
        dtype = ml_dtypes.bfloat16
    call, x = ENTRIES[entry][1], WEIGHT.astype(dtype)
    assert compared(call(x)) == compared(call(x.astype(np.float32)))


@pytest.mark.parametrize("dtype", NARROW)
def test_a_second_moment_of_a_narrow_type(dtype: Any):
    sigma = (np.eye(16) + 0.25 * np.eye(16, k=1) + 0.25 * np.eye(16, k=-1)).astype(dtype)
    wide = sigma.astype(np.float32)
    assert_same(moment_checks.check_second_moment(sigma), moment_checks.check_second_moment(wide))
    assert bounds.layer_rate(sigma, 0.1) == bounds.layer_rate(wide, 0.1)


@pytest.mark.parametrize(
    ("dtype", "digits"),
    [(ml_dtypes.bfloat16, 7), (ml_dtypes.float8_e4m3fn, 3), (ml_dtypes.float8_e5m2, 2), (np.float16, 10), (int, 52)],
)
def test_the_resolution_of_a_type(dtype: Any, digits: int):
    assert epsilon(np.ones(1, dtype=dtype)) == 2.0**-digits


def test_every_number_of_a_narrow_type_is_exact():
    for dtype in (ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2, ml_dtypes.float8_e8m0fnu):
        size = np.dtype(dtype).itemsize
        every = np.arange(256**size, dtype=np.uint8 if size == 1 else np.uint16).view(dtype)
        finite = every[np.isfinite(every.astype(np.float32))]
        assert_same_bits(as_floats("x", finite), finite.astype(np.float32))
        as_tensor = torch.from_numpy(finite.view(np.uint8 if size == 1 else np.int16)).view(
            getattr(torch, np.dtype(dtype).name)
        )
        assert_same_bits(as_floats("x", as_tensor).numpy(), finite.astype(np.float32))


LARGE = np.random.default_rng(1).standard_normal((96, 96))
REFUSED: dict[str, tuple[Callable[[np.ndarray], Any], str]] = {
    "list": (lambda x: x.tolist(), r"is a list, no array; pass one of NumPy, PyTorch or CuPy"),
    "tuple": (lambda x: tuple(x), "is a tuple"),
    "nothing": (lambda x: None, "is None, no array"),
    "matrix": (np.matrix, r"is a matrix of shape .*pass `np.asarray\("),
    "masked": (lambda x: np.ma.masked_array(x, x > 1), r"mask would be lost; pass `\w+.filled\(value\)`"),
    "objects": (lambda x: x.astype(object), "of object; pass numbers"),
    "strings": (lambda x: x.astype(str), "of <U32; pass numbers"),
    "sparse": (scipy.sparse.csr_array, r"pass `\w+.toarray\(\)`"),
    "sparse tensor": (lambda x: torch.from_numpy(x).to_sparse(), r"pass `\w+.to_dense\(\)`"),
    "complex": (lambda x: x + 0j, "has dtype complex128"),
    "longer": (lambda x: x.astype(np.longdouble), "more digits than any part"),
    "integers of four bits": (lambda x: x.astype(ml_dtypes.int4), "of int4; pass numbers"),
}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("kind", REFUSED)
@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")
def test_what_is_no_array_of_numbers_is_named(entry: str, kind: str):
    make, pattern = REFUSED[kind]
    name, call = ENTRIES[entry]
    no_transpose = entry == "packed" and kind in ("list", "tuple", "nothing")
    if no_transpose or (entry in OWN_PRECISION and kind in ("complex", "longer")):
        return
    with pytest.raises(InvalidInputError, match=pattern) as caught:
        call(make(WEIGHT))
    assert f"`{name}`" in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("kind", ["list", "matrix", "masked", "objects", "complex"])
@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")
@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("sigma", lambda x: lq.quantize(LARGE, x, lq.recipes.rtn())),
        ("sigma", linalg.ldl),
        ("sigma", lambda x: bounds.layer_rate(x, 0.1)),
        ("sigma", lambda x: high_rate.high_rate_rate(x, 0.1)),
        ("covariance", lambda x: bounds.layer_rate(np.eye(96), 0.1, covariance=x)),
        ("cross", lambda x: effective_weight(LARGE, x, np.eye(96))),
        ("metric", lambda x: codebooks.kmeans(LARGE, 3, metric=x)),
        ("centroids", lambda x: codebooks.nearest(LARGE, x)),
        ("start", lambda x: codebooks.kmeans(LARGE, 3, start=x)),
        ("importance", lambda x: lq.recipes.squeezellm(importance=x)),
        ("tables", lambda x: LookupTable(np.zeros((2, 2), dtype=np.uint8), x)),
    ],
)
def test_other_arguments_that_are_no_arrays_are_named(name: str, call: Any, kind: str):
    with pytest.raises(InvalidInputError) as caught:
        call(REFUSED[kind][0](LARGE))
    assert f"`{name}`" in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("kind", ["list", "matrix", "masked", "objects", "complex"])
@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")
@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("variances", lambda x: bounds.waterfill(x, distortion=0.1)),
        ("variances", lambda x: bounds.rate_distortion(x, 0.1)),
        ("row_variance", lambda x: bounds.layer_rate(np.eye(4), 0.1, row_variance=x)),
        ("column_variance", lambda x: bounds.layer_rate(np.eye(4), 0.1, column_variance=x)),
        ("weights", lambda x: codebooks.kmeans_1d(np.arange(96.0), 3, x)),
        ("weights", lambda x: moments_of(np.ones((96, 16)), weights=x)),
        ("largest", lambda x: block_formats.block_scales(x, FORMAT, "float16")),
    ],
)
def test_vectors_that_are_no_arrays_are_named(name: str, call: Any, kind: str):
    with pytest.raises(InvalidInputError) as caught:
        call(REFUSED[kind][0](np.abs(LARGE[0])))
    assert f"`{name}`" in str(caught.value)
    assert len(str(caught.value)) < 500


def broken(columns: int) -> dict[str, np.ndarray]:
    """Large arrays with something wrong."""
    nan = np.eye(columns)
    nan[1, 2] = np.nan
    return {
        "nan": nan,
        "negative": -np.eye(columns),
        "asymmetric": np.tril(np.ones((columns, columns))),
        "not square": np.ones((columns, columns + 1)),
        "three axes": np.ones((columns, columns, 1)),
        "empty": np.ones((0, columns)),
        "huge": np.full((columns, columns), 1e300),
        "zero": np.zeros((columns, columns)),
        "integers": np.ones((columns, columns), dtype=int),
    }


MATRIX_CALLS: list[Callable[[Any], Any]] = [
    lambda x: lq.quantize(x, np.eye(96), lq.recipes.watersic(0.1)),
    lambda x: lq.quantize(LARGE, x, lq.recipes.watersic(0.1)),
    lambda x: lq.quantize(LARGE, np.eye(96), x),
    lambda x: lq.at_rate(x, lq.recipes.watersic, LARGE, np.eye(96)),
    lambda x: lq.at_rate(3.0, x, LARGE, np.eye(96)),
    lambda x: lq.at_rate(3.0, lq.recipes.rtn, LARGE, np.eye(96), seed=x),
    lambda x: lq.Scheme(transform=x),
    lambda x: lq.Scheme(quantizer=x),
    lambda x: lq.Scheme(feedback=x),
    lambda x: lq.Scheme(sweeps=x),
    lambda x: lq.recipes.watersic(x),
    lambda x: lq.recipes.watersic(0.1, quantizer=x),
    lambda x: lq.recipes.gptq(x),
    lambda x: lq.recipes.squeezellm(importance=x),
    lambda x: lq.recipes.nestquant(scales=x),
    lambda x: matmul.approximate(x, LARGE, lq.recipes.rtn()),
    lambda x: matmul.approximate(LARGE, LARGE, x),
    lambda x: matmul.approximate(LARGE, LARGE, lq.recipes.rtn(), scaling=x),
    lambda x: matmul.sketch(LARGE, 8, kind=x),
    lambda x: bounds.layer_rate(x, 0.1),
    lambda x: bounds.layer_rate(np.eye(96), x),
    lambda x: bounds.waterfill(x, distortion=0.1),
    lambda x: bounds.waterfill(np.ones(96), distortion=x),
    lambda x: bounds.product_rate(x),
    lambda x: lq.lattices.E8.nearest(x),
    lambda x: lq.lattices.measure_nsm(x, 100),
    lambda x: theta.entropy(lq.lattices.E8, x),
    lambda x: lq.lattices.best_scales(lq.lattices.E8, 5, 2, sample=x),
    lambda x: codebooks.kmeans(x, 3),
    lambda x: codebooks.kmeans(LARGE, x),
    lambda x: codebooks.kmeans_1d(x, 3),
    lambda x: linalg.ldl(x),
    lambda x: linalg.ldl(np.eye(96), order=x),
    lambda x: effective_weight(LARGE, x, x),
    lambda x: hadamard.fwht(x),
    lambda x: hadamard.randomized_hadamard(LARGE, x),
    lambda x: lq.transforms.Diagonal(x),
    lambda x: Permutation(x),
    lambda x: gains.Gain(x),
    lambda x: dataclasses.replace(LAYER, quantizer=x),
    lambda x: dataclasses.replace(LAYER, transform=x),
    lambda x: dataclasses.replace(LAYER, coder=x),
    lambda x: LAYER.distortion(x, SIGMA),
    lambda x: LAYER.gap(WEIGHT, x),
    lambda x: LAYER.gap(WEIGHT, SIGMA, row_variance=x),
    lambda x: lq.refit(LAYER, WEIGHT, SIGMA, x),
]


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("kind", broken(3))
@pytest.mark.parametrize("place", range(len(MATRIX_CALLS)))
def test_no_error_prints_an_array(place: int, kind: str):
    """Whatever argument a large array stands for, and whatever is wrong with it."""
    message = ""
    try:
        MATRIX_CALLS[place](broken(96)[kind])
    except LattqError as error:
        message = str(error)
    assert len(message) < 500


@pytest.mark.parametrize(
    "value",
    [
        LAYER,
        LAYER.quantizer,
        LAYER.transform,
        lq.transforms.Diagonal(np.ones(5000)),
        Permutation(np.arange(5000)),
        sparse_parts.Sparse(np.arange(5000), np.ones(5000), 5000),
        lq.quantize(LARGE, np.eye(96), lq.recipes.gptq(group=8)).quantizer,
        lq.quantize(LARGE, np.eye(96), lq.recipes.palettize()).quantizer,
        lq.recipes.squeezellm(importance=np.ones((96, 96))),
        linalg.ldl(np.eye(96)),
        codebooks.kmeans(LARGE, 32),
        bounds.waterfill(np.ones(5000), distortion=0.1),
        SMALL,
    ],
    ids=lambda value: type(value).__name__,
)
def test_values_that_hold_arrays_have_short_names(value: Any):
    assert len(repr(value)) < 500


def test_arrays_without_copies():
    x = np.ones((3, 4))
    assert as_array("x", x) is x or np.shares_memory(as_array("x", x), x)
    assert np.shares_memory(as_reals("x", x), x)
    assert functools.reduce(lambda y, _: as_array("x", y), range(3), x).flags.c_contiguous
