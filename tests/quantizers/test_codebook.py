"""Codebooks as quantizers: the nearest entry in any metric, tables of groups, scales, real bytes, damage."""

import functools
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import lattq as lq
from lattq.coding.indices import Indices
from lattq.errors import DamagedFileError, InvalidInputError
from lattq.feedback import Cholesky, OpenLoop
from lattq.quantizers import Codebook, Entries, GPTVQCodebook
from lattq.quantizers.base import Design, Quantizer
from lattq.quantizers.codebook import CodebookQuantizer
from lattq.quantizers.logarithmic import LogScales
from lattq.quantizers.rounded import rounded_entries
from lattq.scheme import Scheme
from lattq.transforms.designs import Sort
from tests.contracts import QuantizerContract
from tests.helpers import assert_same
from tests.strategies import gaussian_layer, seeds

ROWS = 24


def design(kind: Codebook, targets: np.ndarray, pivots: np.ndarray | None = None) -> CodebookQuantizer:
    columns = targets.shape[1]
    blocks = columns if kind.down else columns // kind.dimension
    if pivots is None:
        pivots = np.ones(blocks) if kind.down or kind.dimension == 1 else np.stack([np.eye(kind.dimension)] * blocks)
    return kind(Entries(targets, pivots=pivots))


class Tables(QuantizerContract):
    """Tables for groups of rows: always the same number of rows."""

    kind: Codebook

    def inputs(self, seed: int, rows: int) -> np.ndarray:
        return super().inputs(seed, ROWS)

    def quantizer(self, xp: ModuleType) -> CodebookQuantizer:
        return fitted(type(self))

    def beside(self) -> CodebookQuantizer:
        return fitted(type(self), 8)


@functools.cache
def fitted(kind: type[Tables], seed: int = 7) -> CodebookQuantizer:
    """One quantizer for each class: laws draw inputs, not tables."""
    return design(kind.kind, np.random.default_rng(seed).standard_normal((ROWS, kind.columns)) * kind.spread)


class TestNumbers(Tables):
    kind, columns, code_range = Codebook(11, group=None, entry_bits=None), 5, (0, 10)


class TestNumbersInGroups(Tables):
    kind, columns, code_range = Codebook(8, rows=7), 4, (0, 7)


class TestScaledNumbers(Tables):
    kind, columns, code_range = Codebook(8, rows=6, scale=2, entry_bits=4), 4, (0, 7)


class TestVectors(Tables):
    kind, columns, nearest = Codebook(16, 2, rows=9), 6, False  # one code may not change without the other


class TestVectorsDownTheRows(Tables):
    kind, columns, nearest = Codebook(16, 3, rows=6, down=True), 4, False


class TestPublished(Tables):
    kind, columns, nearest = GPTVQCodebook(16, 2, iterations=5), 6, False


def test_they_are_quantizers():
    assert isinstance(design(Codebook(2), np.array([[0.0, 1.0]])), Quantizer)
    assert isinstance(Codebook(), Design)


@given(
    seed=seeds,
    dimension=st.integers(1, 4),
    down=st.booleans(),
    rows=st.sampled_from([None, 4, 8]),
    scale=st.booleans(),
)
def test_every_vector_takes_its_best_entry(seed: int, dimension: int, down: bool, rows: int | None, scale: bool):
    """Brute force over all entries, in the metric of the block, with the scale of the weights."""
    rng = np.random.default_rng(seed)
    height, columns = 4 * dimension * 2, 3 * dimension
    x = rng.standard_normal((height, columns)) * np.exp2(rng.integers(-3, 3, (height, 1)))
    rows = rows and rows * dimension
    kind = Codebook(9, dimension, None, rows, down=down, scale=None if down or not scale else dimension)
    quantizer = design(kind, x)
    root = rng.standard_normal((dimension, dimension))
    metric = root @ root.T + 0.1 * np.eye(dimension)
    start = dimension
    block = x[:, start : start + (1 if down else dimension)]
    part = quantizer.in_block(start, np.full((1, 1), 2.0) if down else metric)
    found = block - part.decode(part.encode(block))
    for index in range(0, height, dimension if down else 1):
        own = slice(index, index + (dimension if down else 1))
        group = min(index // quantizer.rows, len(quantizer.tables) - 1)
        factor = 1.0 if quantizer.scale is None else quantizer.scale.values((height, columns))[index, start]
        rivals = block[own].ravel() - factor * quantizer.tables[group, 0]
        weight = 2.0 * np.eye(dimension) if down else metric
        costs = np.einsum("ki,ij,kj->k", rivals, weight, rivals)
        error = found[own].ravel()
        assert error @ weight @ error <= costs.min() * (1 + 1e-9) + 1e-12 * costs.max()


def test_the_metric_matters():
    """Negative control: the same vector takes another entry where errors along one axis cost more."""
    quantizer = CodebookQuantizer(np.array([[[[0.0, 1.0], [1.0, 0.0]]]]), rows=1)
    x = np.array([[0.4, 0.6]])
    codes = [int(quantizer.in_block(0, np.diag(m)).encode(x)[0, 0]) for m in ([1.0, 1.0], [9.0, 1.0], [1.0, 9.0])]
    assert codes == [0, 0, 0]
    y = np.array([[0.6, 0.55]])
    codes = [int(quantizer.in_block(0, np.diag(m)).encode(y)[0, 0]) for m in ([9.0, 1.0], [1.0, 9.0])]
    assert codes == [1, 0]


def test_where_an_error_is_free_the_nearest_entry_is_taken():
    """Any would do for the distortion, but what it leaves is fed back into columns that must make up for it."""
    quantizer = design(Codebook(4, 2), np.random.default_rng(0).standard_normal((8, 4)))
    x = np.random.default_rng(1).standard_normal((8, 2))
    np.testing.assert_array_equal(quantizer.in_block(2, np.zeros((2, 2))).encode(x), quantizer.encode(x))


def test_equal_weights_know_no_second_moment():
    """Palettes and product codebooks depend on the weights alone, also where inputs are dead."""
    weight = np.random.default_rng(2).standard_normal((64, 16))
    for recipe in (lq.recipes.palettize(2, dimension=2), lq.recipes.palettize(2), lq.recipes.pq(2, dimension=2)):
        plain = lq.quantize(weight, np.eye(16), recipe).to_bytes()
        for sigma in (np.diag([1e4, 1.0] * 8), np.diag([1.0, 0.0] * 8), np.zeros((16, 16))):
            assert lq.quantize(weight, sigma, recipe).to_bytes() == plain


@pytest.mark.parametrize("unit", [2.0**-30, 1e-5, 1e-7, 1.0, 1.9e4])
@pytest.mark.parametrize("bits", [8, 4])
def test_rounded_entries_are_what_files_hold(unit: float, bits: int):
    """In float16 too, whatever their size: a step of few digits, a multiple of the smallest number."""
    entries = unit * np.random.default_rng(3).standard_normal((16, 2))
    found, step = rounded_entries(entries, bits)
    np.testing.assert_array_equal(found.astype(np.float16).astype(np.float64), found)
    assert step is not None
    assert float(np.float16(step)) == step
    assert np.abs(found / step).max() <= 2 ** (bits - 1) - 1
    weight = np.repeat(entries, 4, axis=0)
    layer = lq.quantize(weight, np.eye(2), lq.recipes.palettize(2, dimension=2, entry_bits=bits))
    assert_same(lq.Quantized.from_bytes(layer.to_bytes()).dequantize(np.float64), layer.dequantize(np.float64))


def test_an_order_that_tears_vectors_apart_is_refused():
    weight, sigma = gaussian_layer(8, 4)
    for order in ("sorted", "pivoted"):
        scheme = Scheme(feedback=Cholesky(order, block=2), quantizer=Codebook(4, 2))
        with pytest.raises(InvalidInputError, match="tears vectors of 2"):
            lq.quantize(weight, np.diag([2.0, 1.0, 3.0, 4.0]) + 0 * sigma, scheme)


@pytest.mark.parametrize(
    "kind",
    [
        Codebook(16, 2, group=8, rows=5),
        Codebook(16, 2, group=4, rows=64, entry_bits=None),
        Codebook(5, 4, group=None, entry_bits=4),
        Codebook(16, 2, group=8, rows=6, scale=4),
        Codebook(16, 2, group=1, rows=6, down=True),
        GPTVQCodebook(16, 2, group=8, rows=5, scale=2),
    ],
    ids=repr,
)
def test_files_restore_every_bit(kind: Codebook):
    weight, sigma = gaussian_layer(20, 24)
    feedback = Cholesky("reversed", 0.01, block=1 if kind.down else kind.dimension)
    found = lq.quantize(weight, sigma, Scheme(feedback=feedback, quantizer=kind))
    again = lq.Quantized.from_bytes(found.to_bytes())
    assert_same(again.dequantize(), found.dequantize())
    assert again.to_bytes() == found.to_bytes()


def test_every_byte_is_counted():
    """Indices, entries and steps: what the formula says, and a header that does not grow."""
    weight, sigma = gaussian_layer(256, 64)
    for size, dimension, bits in ((16, 2, 8), (256, 4, 4), (8, 1, None)):
        kind = Codebook(size, dimension, group=32, rows=128, entry_bits=bits)
        found = lq.quantize(weight, sigma, Scheme(feedback=OpenLoop(dimension), quantizer=kind))
        tables = 4 * size * dimension * (bits or 16) + (0 if bits is None else 4 * 16)
        expected = weight.size // dimension * (size - 1).bit_length() + tables
        assert expected <= 8 * len(found.payload) <= expected + 8 * 96


@given(seed=seeds, rows=st.integers(1, 5), columns=st.integers(1, 9), run=st.integers(1, 4))
def test_scales_hold_the_largest_magnitudes(seed: int, rows: int, columns: int, run: int):
    """Within half a step of the grid, itself in float16: factors of 2 from 2^-14 to 2^14 here."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, columns)) * np.exp2(rng.integers(-10, 10, (rows, 1)))
    x[rng.random((rows, columns)) < 0.2] = 0.0
    scales = LogScales.fit(x, run)
    values = scales.values(x.shape)
    again = LogScales.from_state(scales.to_state(), x.shape).values(x.shape)
    np.testing.assert_array_equal(values, again)
    for start in range(0, columns, run):
        largest = np.abs(x[:, start : start + run]).max(axis=1)
        step = scales.step[start // run]
        live = largest > 0
        # low and step are rounded to float16: 2^-11 of up to 15, and 15 times 2^-11 of the step
        slack = step / 2 + 15 * 2.0**-11 + 15 * step * 2.0**-11
        assert (np.abs(np.log2(values[live, start] / largest[live])) <= slack + 1e-9).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 1}, "`size` is 1"),
        ({"size": 2.5}, "`size` is 2.5"),
        ({"dimension": 9}, "`dimension` is 9"),
        ({"rows": 3, "dimension": 2, "down": True}, "`rows` is 3"),
        ({"entry_bits": 5}, "`entry_bits` is 5"),
        ({"group": 6, "dimension": 4}, "`group` is 6"),
        ({"scale": 3, "dimension": 2}, "`scale` is 3"),
        ({"scale": 2, "dimension": 2, "down": True}, "`scale` is 2"),
        ({"slope": -1.0}, "`slope` is -1"),
        ({"down": "no"}, "`down` is 'no'"),
        ({"slope": 0.1, "scale": 2}, "`slope` is 0.1"),
        ({"importance": np.ones((2, 2)), "dimension": 2}, "dimension=1"),
        ({"importance": np.ones((2, 2)), "slope": 0.1}, "no slope"),
        ({"importance": "fisher"}, "`importance` is 'fisher'"),
        ({"importance": -np.ones((5, 12))}, "`importance` holds"),
    ],
)
def test_options_are_checked(options: dict[str, Any], message: str, unchecked):
    with pytest.raises(InvalidInputError, match=message):
        Codebook(**options)


def test_what_does_not_fit_is_refused():
    weight, sigma = gaussian_layer(5, 12)
    for feedback, kind, message in (
        (Cholesky(), Codebook(4, 2), "feedback with block=2"),
        (Cholesky(block=4), Codebook(4, 2), "feedback with block=2"),
        (Cholesky(), Codebook(4, 2, down=True), "5 rows"),
        (Cholesky(), Codebook(4, importance=np.ones((2, 2))), "`importance` has shape"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            lq.quantize(weight, sigma, Scheme(feedback=feedback, quantizer=kind))
    with pytest.raises(InvalidInputError, match="largest magnitude of `weight`"):
        lq.quantize(weight * 1e300, sigma, lq.recipes.palettize(2))
    refused: list[tuple[dict[str, Any], str]] = [
        ({"rounds": 1}, "only codebooks are fitted in rounds"),
        ({"sweeps": -1}, "`sweeps` is -1"),
        ({"rounds": 1, "quantizer": Codebook(4, shrink=True)}, "know no gains"),
        ({"rounds": 1, "quantizer": Codebook(4), "refit": ("rows",)}, "know no gains"),
    ]
    for options, message in refused:
        with pytest.raises(InvalidInputError, match=message):
            Scheme(**options)
    moved = Scheme(quantizer=Codebook(4, importance=np.ones((5, 12))), transform=Sort())
    with pytest.raises(InvalidInputError, match="`importance` weighs"):
        lq.quantize(weight, sigma, moved)
    unpublished: list[dict[str, Any]] = [{"down": True}, {"slope": 0.1}, {"weighted": False}]
    for options in unpublished:
        with pytest.raises(InvalidInputError, match="published codebooks"):
            GPTVQCodebook(4, **options)
    with pytest.raises(InvalidInputError, match="do not belong"):
        design(Codebook(4, rows=2), weight[:4]).encode(weight)


def test_importance_is_compared_by_its_bytes():
    one, two = (lq.recipes.squeezellm(2, importance=np.full((2, 2), x)) for x in (1.0, 2.0))
    assert one == lq.recipes.squeezellm(2, importance=np.ones((2, 2)))
    assert one != two
    assert repr(one) != repr(two)


def test_more_entries_than_vectors_are_padded():
    """A table of a group of few rows has entries that no vector needs: nothing is lost."""
    weight, sigma = gaussian_layer(2, 4)
    found = lq.quantize(weight, sigma, Scheme(feedback=OpenLoop(2), quantizer=Codebook(16, 2, entry_bits=None)))
    np.testing.assert_array_equal(found.dequantize(np.float64), weight.astype(np.float16))


@pytest.mark.parametrize("place", range(9))
def test_forged_sizes_are_refused(place: int):
    quantizer = design(Codebook(4, 2, rows=3), np.random.default_rng(0).standard_normal((6, 8)))
    for value in (-1, 0, 2**31, 2**70, 8.0, 3.5, None):
        state = quantizer.to_state()
        if state[0][place] == value or (place in (7, 8) and not value):
            continue
        state[0][place] = value
        try:
            restored = CodebookQuantizer.from_state(state, (6, 8))
        except DamagedFileError:
            continue
        assert restored.tables.shape == quantizer.tables.shape
    assert isinstance(quantizer.coder, Indices)
