"""Products of packed codebooks, and of sparse parts, are those of the dequantized matrices."""

import dataclasses
import functools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lattq as lq
from lattq.errors import InvalidInputError
from lattq.feedback import OpenLoop
from lattq.kernels import packed_tables
from lattq.packed import PackedMatrix
from lattq.packed.forms import Tables
from lattq.packed.vectors import VectorTables
from lattq.quantizers import AbsMax, Codebook
from lattq.quantizers.codebook import CodebookQuantizer
from lattq.recipes import gptvq, palettize, pq, squeezellm
from lattq.scheme import Scheme
from lattq.transforms import Hadamard, Outliers, then
from lattq.transforms.chains import Chain
from lattq.transforms.gain import Gain
from lattq.transforms.maps import Identity
from lattq.transforms.outliers import Sparse
from tests.strategies import seeds

EPS = np.finfo(np.float32).eps
MOMENT = np.diag(np.linspace(1.0, 3.0, 96))

few = settings(max_examples=settings().max_examples // 4)  # one law for many schemes
SCHEMES = {  # with rows, and the form that holds them
    "palette": (palettize(4), 9, Tables),
    "palettes of rows": (palettize(3, rows=4), 9, Tables),
    "palette of pairs": (palettize(2, dimension=2), 600, VectorTables),  # enough rows to make products before
    "palette of 32": (palettize(5), 7, VectorTables),
    "fours for rows": (palettize(2, dimension=4, rows=5), 13, VectorTables),
    "product quantization": (pq(1, dimension=4), 300, VectorTables),
    "numbers of four columns": (Scheme(quantizer=Codebook(8, 1, group=4)), 9, VectorTables),
    "threes in groups": (Scheme(quantizer=Codebook(20, 3, 24), feedback=OpenLoop(3)), 10, VectorTables),
    "squeezellm": (squeezellm(3, outliers=0.05), 9, Tables),
    "squeezellm of 32": (squeezellm(5, outliers=0.05), 9, VectorTables),
    "gptvq": (gptvq(2), 20, VectorTables),
    "gptvq of numbers with scales": (gptvq(3, dimension=1, scale=8), 9, Tables),
    "gptvq with scales": (gptvq(2, scale=16), 20, VectorTables),
    "gptvq with short scales": (gptvq(2, scale=2, overhead=4.0), 20, VectorTables),
    "gptvq down the rows": (gptvq(2, dimension=3, down=True, overhead=2.0), 21, VectorTables),
    "gains": (palettize(5), 9, VectorTables),
    "gains of a palette": (palettize(3), 9, Tables),
    "outliers, then a rotation": (
        Scheme(transform=then(Outliers(0.02, 0.0), Hadamard(1)), quantizer=AbsMax(16, 32)),
        9,
        Tables,
    ),
}


def quantized(scheme: Scheme, rows: int, seed: int = 0) -> lq.Quantized:
    return lq.quantize(np.random.default_rng(seed).standard_normal((rows, 96)), MOMENT, scheme)


@functools.cache
def prepared(name: str) -> tuple[Any, Any, np.ndarray]:
    """Quantized once, packed, and dequantized."""
    layer = quantized(*SCHEMES[name][:2])
    if "gains" in name:
        rng = np.random.default_rng(3)
        layer = dataclasses.replace(layer, row_gains=rng.integers(90, 160, 9), column_gains=rng.integers(90, 160, 96))
    return layer, PackedMatrix.from_quantized(layer), layer.dequantize(np.float64)


def tolerance(layer: lq.Quantized, x: np.ndarray) -> np.ndarray:
    """As in `test_packed`: of weights, of T x, and of a sum of n in float32, to first order; and the sparse part."""
    sparse, transform = layer.transform.split()
    n = layer.shape[1]
    sizes = np.abs(layer.decoded()) @ np.abs(transform.inverse(np.eye(n)))
    if sparse is not None:
        sizes += np.abs(sparse.inverse(np.zeros(layer.shape)))
    return (n + np.log2(n) + 16) * EPS / 2 * (sizes @ np.abs(x).astype(float))


@pytest.mark.parametrize("name", SCHEMES)
@few
@given(seed=seeds, sides=st.sampled_from([1, 2, 5, 17]), dtype=st.sampled_from([np.float32, np.float64]))
def test_products_are_those_of_the_dequantized_matrix(name: str, seed: int, sides: int, dtype: type):
    layer, packed, weight = prepared(name)
    assert isinstance(packed.codes, SCHEMES[name][2])
    x = np.random.default_rng(seed).standard_normal((96, sides)).astype(dtype)
    found = packed.matmul(x)
    assert found.dtype == np.float32
    assert (np.abs(found - weight @ x.astype(np.float64)) <= tolerance(layer, x)).all()


@pytest.mark.parametrize("name", ["palette of pairs", "fours for rows", "gptvq down the rows", "squeezellm"])
@pytest.mark.parametrize("sides", [1, 5])
def test_threads_change_nothing(name: str, sides: int):
    packed = prepared(name)[1]
    x = np.random.default_rng(2).standard_normal((96, sides))
    alone = packed.matmul(x)
    for threads in (2, 3, 50):
        np.testing.assert_array_equal(packed.matmul(x, threads=threads), alone)


def test_products_are_made_before_where_enough_rows_share_a_table():
    packed = prepared("palette of pairs")[1]
    assert [packed.codes.mode(sides) for sides in (1, 5)] == [packed_tables.MADE] * 2
    few = prepared("fours for rows")[1]
    assert [few.codes.mode(sides) for sides in (1, 5)] == [packed_tables.ALONG] * 2


@pytest.mark.parametrize("name", ["gptvq with scales", "gptvq with short scales", "threes in groups", "palette of 32"])
@pytest.mark.parametrize("mode", [packed_tables.ALONG, packed_tables.MADE])
@pytest.mark.parametrize("sides", [1, 5, 17])
def test_both_ways_of_products_along_the_rows(name: str, mode: int, sides: int, monkeypatch: pytest.MonkeyPatch):
    layer, packed, weight = prepared(name)
    monkeypatch.setattr(VectorTables, "mode", lambda self, sides: mode)
    x = np.random.default_rng(4).standard_normal((96, sides))
    for threads in (1, 3):
        assert (np.abs(packed.matmul(x, threads=threads) - weight @ x) <= tolerance(layer, x)).all()


def test_a_changed_index_is_seen():
    for name, changed in (("fours for rows", [5]), ("gptvq down the rows", [3, 4, 5])):
        layer, _, weight = prepared(name)
        codes, x = layer.codes.copy(), np.ones((96, 1))
        place = (slice(5, 6), slice(8, 12)) if name == "fours for rows" else (slice(3, 6), slice(8, 9))
        codes[place] = (codes[place] + 1) % layer.quantizer.tables.shape[2]
        other = PackedMatrix.from_quantized(dataclasses.replace(layer, codes=codes))
        error = np.abs(other.matmul(x) - weight @ x)
        assert list(np.flatnonzero(error > tolerance(layer, x))) == changed


def test_a_lost_outlier_is_seen():
    layer, _, weight = prepared("squeezellm")
    sparse = layer.transform
    fewer = Sparse(sparse.places[1:], sparse.values[1:], 96)
    x = np.ones((96, 1))
    error = np.abs(PackedMatrix.from_quantized(dataclasses.replace(layer, transform=fewer)).matmul(x) - weight @ x)
    assert list(np.flatnonzero(error > tolerance(layer, x))) == [sparse.places[0] // 96]


@given(
    seed=seeds,
    size=st.sampled_from([2, 20, 64, 256]),
    dimension=st.sampled_from([1, 2, 5, 8]),
    height=st.integers(1, 4),
    rows=st.integers(1, 9),
    vectors=st.sampled_from([1, 7, 64, 67, 150]),
)
def test_packed_indices_of_any_size_and_shape(
    seed: int, size: int, dimension: int, height: int, rows: int, vectors: int
):
    rng = np.random.default_rng(seed)
    index = rng.integers(0, size, (rows, vectors)).astype(np.int32)
    tables = rng.standard_normal((-(-rows // height), 1, size, dimension))
    book = CodebookQuantizer(tables, height)
    codes = np.repeat(index, dimension, axis=1)
    layer = lq.Quantized(codes, book, Identity(), book.coder)
    packed: Any = PackedMatrix.from_quantized(layer)
    x = rng.standard_normal((codes.shape[1], 1))
    assert (np.abs(packed.matmul(x) - layer.decoded() @ x) <= tolerance(layer, x)).all()
    if dimension > 1:
        bits = max((size - 1).bit_length(), 1)
        assert packed.codes.index.nbytes == rows * -(-vectors // 8) * bits + 8


def test_sizes_are_those_of_bits_tables_and_outliers():
    layer, packed, _ = prepared("palette of pairs")
    of_vectors = 48 * (4 + 4)  # places of tables and runs of scales
    assert packed.nbytes == layer.codes.size // 2 // 2 + 8 + 16 * 2 * 4 + of_vectors
    layer, packed, _ = prepared("squeezellm of 32")
    entries = layer.transform.places.size
    assert packed.nbytes == layer.codes.size * 5 // 8 + 8 + 9 * 32 * 4 + 96 * (4 + 4) + entries * (4 + 4) + 10 * 8


def test_what_is_not_supported_is_named():
    def refused(tables: np.ndarray, named: str, rows: int = 8, **options: Any):
        book = CodebookQuantizer(tables, rows, **options)
        layer = lq.Quantized(np.zeros((8, 96), np.int32), book, Identity(), book.coder)
        with pytest.raises(InvalidInputError, match=named):
            PackedMatrix.from_quantized(layer)

    refused(np.zeros((1, 1, 257, 2)), "257 entries")
    refused(np.zeros((1, 1, 4, 12)), "12 weights")
    refused(np.zeros((1, 32, 4, 2)), "group of 3 columns", group=3)
    refused(np.zeros((1, 5, 4, 2)), "do not fit", group=16)
    refused(np.zeros((3, 1, 4, 2)), "table of 3 rows", rows=3, down=True)
    layer = prepared("gptvq with scales")[0]
    book = dataclasses.replace(layer.quantizer, scale=dataclasses.replace(layer.quantizer.scale, run=5))
    with pytest.raises(InvalidInputError, match="scale of 5 columns"):
        PackedMatrix.from_quantized(dataclasses.replace(layer, quantizer=book))


def test_a_sparse_part_after_others_is_named():
    layer = prepared("squeezellm")[0]
    late = dataclasses.replace(layer, transform=Chain((Gain(2.0), layer.transform)))
    with pytest.raises(InvalidInputError, match="after other transforms"):
        PackedMatrix.from_quantized(late)
    nested = dataclasses.replace(layer, transform=Chain((Chain((layer.transform, Gain(2.0))), Gain(0.5))))
    x = np.ones((96, 1))
    error = np.abs(PackedMatrix.from_quantized(nested).matmul(x) - nested.dequantize(np.float64) @ x)
    assert (error <= tolerance(nested, x)).all()
    narrow = dataclasses.replace(layer, transform=Sparse(np.array([1]), np.array([9.0]), 95))
    with pytest.raises(InvalidInputError, match="do not fit"):
        PackedMatrix.from_quantized(narrow)
