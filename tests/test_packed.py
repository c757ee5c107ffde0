"""Products of packed matrices are those of the dequantized ones."""

import dataclasses
import functools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import lattq as lq
from lattq.bounds import number_format
from lattq.bounds.formats import NF4, NumberFormat
from lattq.errors import InvalidInputError
from lattq.feedback import OpenLoop
from lattq.lattices import E8, D, HierarchicalCode
from lattq.least_squares.alternate import PARAMETERS
from lattq.packed import PackedMatrix
from lattq.packed.packers import packers
from lattq.parts.forms import NumberForm
from lattq.quantizers import AbsMax, Format, MinMax, Nested, Trellis, Uniform
from lattq.scheme import Scheme
from lattq.transforms import BaseTransform, Diagonal, Fixed, Hadamard, Normalize, then
from lattq.transforms.chains import Chain, Folded
from lattq.transforms.gain import Gain
from lattq.transforms.maps import Permutation
from tests.strategies import seeds

COLUMNS = 96
EPS = np.finfo(np.float32).eps
OWN = NumberFormat("thirds", np.array([-1.0, -0.3, 0.0, 1.0]), 2)

SCHEMES = {
    "int4": lq.recipes.rtn(16, group=32),
    "ternary": lq.recipes.rtn(3, group=None),
    "min-max": lq.recipes.rtn(16, symmetric=False, group=24),
    "gptq": lq.recipes.gptq(8, group=40, order="sorted"),
    "shared step": Scheme(quantizer=AbsMax(16, 8, shared=True)),
    "shared column steps": Scheme(quantizer=AbsMax(16, 1, shared=True)),
    "shared zeros": Scheme(quantizer=MinMax(16, 32, shared=True)),
    "one step": Scheme(quantizer=Uniform(0.4, levels=7)),
    "entropy coded, few values": Scheme(quantizer=Uniform(0.6, offset=0.5)),
    "centroids and gains": Scheme(quantizer=MinMax(4, 48, shrink=True), refit=PARAMETERS),
    "nf4": Scheme(quantizer=Format(NF4, 96)),
    "mxfp4": lq.recipes.block_format("mxfp4"),
    "nvfp4": lq.recipes.block_format("nvfp4"),
    "own format": Scheme(quantizer=Format(OWN, 10)),
    "nested": Scheme(quantizer=Nested(E8, 13, index="packed"), feedback=OpenLoop(COLUMNS)),
    "nested in blocks": Scheme(quantizer=Nested(E8, 9, 2, shrink=True), feedback=OpenLoop(8)),
    "rotated": Scheme(transform=Hadamard(3), quantizer=AbsMax(16, 32)),
    "permuted": Scheme(transform=Fixed(Permutation(np.arange(COLUMNS)[::-1].copy())), quantizer=AbsMax(16, 16)),
    "normalized": Scheme(transform=Normalize(3.0), quantizer=AbsMax(16, None)),
    "folded": Scheme(transform=Fixed(Diagonal(1.0 + np.arange(COLUMNS) % 3), folded=True), quantizer=AbsMax(16, 16)),
    "chain": Scheme(
        transform=then(Fixed(Diagonal(2.0 ** (np.arange(COLUMNS) % 4))), Hadamard(1)),
        quantizer=Nested(E8, 13, index="packed"),
        feedback=OpenLoop(COLUMNS),
    ),
}


def quantized(scheme: Scheme, rows: int, seed: int, columns: int = COLUMNS) -> lq.Quantized:
    return lq.quantize(np.random.default_rng(seed).standard_normal((rows, columns)), np.eye(columns), scheme)


@functools.cache
def prepared(name: str) -> tuple[lq.Quantized, PackedMatrix, np.ndarray]:
    """Quantized once, packed, and dequantized."""
    layer = quantized(SCHEMES[name], 9, 0)
    return layer, PackedMatrix.from_quantized(layer), layer.dequantize(np.float64)


def tolerance(layer: lq.Quantized, x: np.ndarray) -> np.ndarray:
    """First-order bound of the rounding: of weights (values, scale, gains), of T x, and of a sum of n in float32.

    T x loses at most log2 n + 4 roundings of sums of |T||x|; where zeros are subtracted values are exact in float32.
    """
    weight = np.abs(layer.decoded())
    n = layer.shape[1]
    matrix = np.abs(layer.transform.inverse(np.eye(n)))
    return (n + np.log2(n) + 16) * EPS / 2 * (weight @ (matrix @ np.abs(x).astype(float)))


@pytest.mark.parametrize("name", SCHEMES)
@given(seed=seeds, sides=st.integers(1, 6), dtype=st.sampled_from([np.float32, np.float64]))
def test_products_are_those_of_the_dequantized_matrix(name: str, seed: int, sides: int, dtype: type):
    layer, packed, weight = prepared(name)
    x = np.random.default_rng(seed).standard_normal((COLUMNS, sides)).astype(dtype)
    found, wanted = packed.matmul(x), weight @ x.astype(np.float64)
    assert found.shape == (len(weight), sides)
    assert found.dtype == np.float32
    assert (np.abs(found - wanted) <= tolerance(layer, x)).all()
    one = packed.matvec(x[:, 0])
    assert (np.abs(one - wanted[:, 0]) <= tolerance(layer, x)[:, 0]).all()


def test_a_changed_code_is_seen():
    layer = quantized(SCHEMES["int4"], 4, 0)
    codes = layer.codes.copy()
    codes[2, 5] += 1 if codes[2, 5] < 0 else -1
    other = dataclasses.replace(layer, codes=codes)
    x = np.ones((COLUMNS, 1), dtype=np.float32)
    error = np.abs(PackedMatrix.from_quantized(other).matmul(x) - layer.dequantize(np.float64) @ x)
    assert list(np.flatnonzero(error > tolerance(layer, x))) == [2]


@pytest.mark.parametrize("name", ["int4", "nested", "rotated"])
@pytest.mark.parametrize("sides", [1, 5])
def test_threads_change_nothing(name: str, sides: int):
    packed = PackedMatrix.from_quantized(quantized(SCHEMES[name], 37, 1))
    x = np.random.default_rng(2).standard_normal((COLUMNS, sides))
    alone = packed.matmul(x)
    for threads in (2, 3, 50):
        np.testing.assert_array_equal(packed.matmul(x, threads=threads), alone)


def test_rows_of_several_blocks_and_groups_of_nested_codes():
    columns = 1536
    scheme = Scheme(quantizer=Nested(E8, 13, group=512, index="packed"), feedback=OpenLoop(512))
    weight = np.random.default_rng(0).standard_normal((3, columns)) * np.repeat([1.0, 5.0, 0.2], 512)
    layer = lq.quantize(weight, np.eye(columns), scheme)
    x = np.random.default_rng(1).standard_normal((columns, 1))
    error = np.abs(PackedMatrix.from_quantized(layer).matmul(x) - layer.dequantize(np.float64) @ x)
    assert (error <= tolerance(layer, x)).all()


def test_sizes_are_those_of_four_bits_and_scales():
    layer = quantized(lq.recipes.rtn(16, group=128), 8, 0, columns=1024)
    weights = layer.codes.size
    assert PackedMatrix.from_quantized(layer).nbytes == weights // 2 + weights // 128 * 5 + 64
    nested = quantized(Scheme(quantizer=Nested(E8, 13), feedback=OpenLoop(8)), 8, 0, columns=1024)
    assert PackedMatrix.from_quantized(nested).nbytes == weights // 2 + 8 * 4 + 16


@given(seed=seeds, group=st.sampled_from([None, 8, 20, 32]), shared=st.booleans(), size=st.integers(1, 16))
def test_tables_of_rows_and_groups(seed: int, group: int | None, shared: bool, size: int):
    rng, rows = np.random.default_rng(seed), 5
    index = rng.integers(0, size, (rows, COLUMNS))
    places = np.arange(COLUMNS) // (group or COLUMNS)
    tables = rng.standard_normal((1 if shared else rows, places[-1] + 1, size))
    weight = np.broadcast_to(tables, (rows, *tables.shape[1:]))[np.arange(rows)[:, None], places, index]
    x = rng.standard_normal(COLUMNS)
    found = PackedMatrix.from_tables(index, tables, group).matvec(x)
    assert (np.abs(found - weight @ x) <= (COLUMNS + 3) * EPS / 2 * (np.abs(weight) @ np.abs(x))).all()


def test_hierarchical_codes():
    rng, code = np.random.default_rng(0), HierarchicalCode(D(4), 4, 2)
    digits, scale = code.encode(3 * rng.standard_normal((20, 24, 4))), rng.random(20)
    packed = PackedMatrix.from_hierarchical(code, digits, scale)
    weight = code.decode(digits).reshape(20, COLUMNS) * scale[:, None]
    x = rng.standard_normal((COLUMNS, 3))
    largest = np.abs(code.code.decode(code.code.from_index(np.arange(256)))).max()
    limit = 5 * largest * scale[:, None] * np.abs(x).sum(axis=0)  # of what is added up, for any leaders
    assert (np.abs(packed.matmul(x, threads=2) - weight @ x) <= (24 + 8) * EPS * limit).all()
    assert packed.nbytes == 20 * 64 * 2 + 20 * 4  # 24 vectors in a block of 64


@pytest.mark.parametrize(
    ("scheme", "named"),
    [
        (Scheme(quantizer=AbsMax(32, None)), "values"),
        (Scheme(quantizer=Uniform(0.5, dither=1, levels=8)), "dither of seed 1"),
        (Scheme(quantizer=AbsMax(16, 4)), "groups of 4 columns"),
        (Scheme(quantizer=Format(number_format("e4m3fn"), 32)), "tables of 253 values"),
        (Scheme(quantizer=Trellis(4)), "TrellisQuantizer"),
        (Scheme(quantizer=Nested(E8, 14), feedback=OpenLoop(COLUMNS)), "q = 14"),
        (Scheme(quantizer=Nested(D(4), 9), feedback=OpenLoop(COLUMNS)), "D\\(4\\)"),
        (Scheme(quantizer=Nested(E8, 13, 5), feedback=OpenLoop(COLUMNS)), "5 scales"),
        (Scheme(quantizer=Nested(E8, 13, 2, shaping="simplified"), feedback=OpenLoop(COLUMNS)), "simplified"),
        (Scheme(quantizer=Nested(E8, 13, 2, group=48), feedback=OpenLoop(48)), "group of 48"),
    ],
)
def test_what_is_not_supported_is_named(scheme: Scheme, named: str):
    layer = quantized(scheme, 60, 0)
    with pytest.raises(InvalidInputError, match=named):
        PackedMatrix.from_quantized(layer)


def test_vectors_left_over_are_named():
    layer = quantized(SCHEMES["nested"], 2, 0)
    other = dataclasses.replace(layer, quantizer=dataclasses.replace(layer.quantizer, block=12))
    with pytest.raises(InvalidInputError, match="block of 12"):
        PackedMatrix.from_quantized(other)


class Mirror(BaseTransform):
    """A transform that no file can hold."""

    def forward(self, weight: np.ndarray) -> np.ndarray:
        return weight[:, ::-1]

    def inverse(self, weight: np.ndarray) -> np.ndarray:
        return weight[:, ::-1]

    def congruence(self, sigma: np.ndarray) -> np.ndarray:
        return sigma[::-1, ::-1]


def test_an_unknown_transform_is_named():
    layer = quantized(SCHEMES["int4"], 2, 0)
    assert PackedMatrix.from_quantized(dataclasses.replace(layer, transform=Chain((Folded(), Gain(2.0)))))
    unknown = dataclasses.replace(layer)
    object.__setattr__(unknown, "transform", Mirror())
    with pytest.raises(InvalidInputError, match="not known to act on vectors"):
        PackedMatrix.from_quantized(unknown)


def test_bad_arguments_are_named():
    packed = PackedMatrix.from_quantized(quantized(SCHEMES["int4"], 2, 0))
    with pytest.raises(InvalidInputError, match="95"):
        packed.matvec(np.ones(95))
    with pytest.raises(InvalidInputError, match="`threads` is 0"):
        packed.matvec(np.ones(COLUMNS), threads=0)
    with pytest.raises(InvalidInputError, match="`tables`"):
        PackedMatrix.from_tables(np.zeros((2, 8), int), np.zeros((2, 3, 4)))
    with pytest.raises(InvalidInputError, match="indices 0"):
        PackedMatrix.from_tables(np.arange(5)[None], np.zeros((1, 1, 4)))
    code = HierarchicalCode(D(4), 5, 1)
    with pytest.raises(InvalidInputError, match="625 leaders"):
        PackedMatrix.from_hierarchical(code, np.zeros((1, 2, 1, 4), int), np.ones(1))


def test_forms_may_lie_in_memory_in_any_order():
    """Column after column, as transposed products leave them: the products are the same to the last bit."""
    rng = np.random.default_rng(0)
    index, scales = rng.integers(0, 4, (9, 96)), rng.uniform(1, 2, (9, 12))
    which, tables = rng.integers(0, 3, (9, 12)), rng.normal(size=(3, 4))
    one = NumberForm(index, tables, which, scales, 8)
    turned = [np.asfortranarray(part) for part in (index, tables, which, scales)]
    other = NumberForm(turned[0], turned[1], turned[2], turned[3], 8)
    x, found = rng.normal(size=(96, 2)).astype(np.float32), []
    for form in (one, other):
        packed = PackedMatrix((9, 96), packers["numbers"](form, form.index, None).codes)
        found.append(packed.matmul(x))
    np.testing.assert_array_equal(*found)
    np.testing.assert_allclose(found[0], one.dense() @ x, rtol=0, atol=96 * EPS * 2 * np.abs(tables).max() * 20)
