"""What is measured is what is stored: every quantizer decodes before its bytes what it decodes after, or is refused."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import lattq as lq
from lattq.bounds.formats import E2M1FN, NF4
from lattq.coding import TwoWay
from lattq.errors import InvalidInputError
from lattq.lattices import E8, NestedCode, VoronoiCode
from lattq.quantizers import UniformQuantizer
from lattq.quantizers.bitshift import BitshiftQuantizer
from lattq.quantizers.codebook import CodebookQuantizer
from lattq.quantizers.formats import FormatQuantizer
from lattq.quantizers.lattice import LatticeQuantizer
from lattq.quantizers.logarithmic import LogScales
from lattq.quantizers.nested import NestedQuantizer
from lattq.quantizers.trellis import TrellisQuantizer
from lattq.transforms.maps import Identity
from lattq.transforms.outliers import Sparse
from lattq.trellis.bitshift import BitshiftCode
from tests.strategies import gaussian_layer, seeds

ROWS, COLUMNS = 6, 8

# Sides of cells that no file format holds as they are, from far below float16 to far beyond it.
sizes = st.one_of(
    st.floats(1e-9, 1e9), st.sampled_from([0.3, 1 / 3, 5.96e-8, 2.9e-8, 65504.0, 65519.9, 65520.0, 1e-300, 1e300])
)


def scales(draw: Any, shape: tuple[int, int]) -> np.ndarray:
    one, seed = draw(sizes), draw(seeds)
    return one * np.random.default_rng(seed).uniform(0.5, 2.0, shape)


def uniform(draw: Any, group: int) -> UniformQuantizer:
    step = scales(draw, draw(st.sampled_from([(1, 1), (1, -(-COLUMNS // group)), (ROWS, -(-COLUMNS // group))])))
    kind = draw(st.sampled_from(["free", "offset", "zeros"]))
    if kind == "zeros":
        zero = np.random.default_rng(draw(seeds)).uniform(-0.4, 15.4, (ROWS, -(-COLUMNS // group)))
        return UniformQuantizer(step, zero, 0, 15, group)
    return UniformQuantizer(step, draw(st.floats(-1, 1)) if kind == "offset" else 0.0, None, None, group)


def codebook(draw: Any, group: int) -> CodebookQuantizer:
    tables = scales(draw, (1, 1))[0, 0] * np.random.default_rng(draw(seeds)).normal(size=(1, 1, 4, 1))
    bits = draw(st.sampled_from([None, 4, 8]))
    steps = None if bits is None else np.abs(tables).max(axis=(2, 3)) / 7
    runs = None
    if draw(st.booleans()):
        low, step = (np.random.default_rng(draw(seeds)).uniform(0, 9, 4) for _ in range(2))
        runs = LogScales(np.arange(ROWS * 4).reshape(ROWS, 4) % 16, low, step, 2)
    return CodebookQuantizer(tables, ROWS, 1, steps, bits, scale=runs)


KINDS: dict[str, Any] = {
    "uniform": uniform,
    "format": lambda draw, group: FormatQuantizer(
        scales(draw, (ROWS, -(-COLUMNS // group))),
        draw(st.sampled_from([E2M1FN, NF4])),
        draw(st.sampled_from(["float16", "e4m3", "e8m0"])),
        group,
    ),
    "bitshift": lambda draw, group: BitshiftQuantizer(
        scales(draw, (draw(st.sampled_from([1, ROWS])), -(-COLUMNS // group))), BitshiftCode(2, 4), group=group
    ),
    "nested": lambda draw, group: NestedQuantizer(
        scales(draw, (ROWS, 1)), NestedCode(VoronoiCode(E8, 6), (1 / 3, 0.7)), COLUMNS, COLUMNS
    ),
    "lattice": lambda draw, group: LatticeQuantizer(scales(draw, (1, 1)), E8),
    "trellis": lambda draw, group: TrellisQuantizer(scales(draw, (1, 1)), 4),
    "codebook": codebook,
}


@pytest.mark.parametrize("name", KINDS)
@given(data=st.data())
def test_files_give_back_what_was_measured_or_nothing_is_made(name: str, data: st.DataObject):
    quantizer = KINDS[name](data.draw, data.draw(st.sampled_from([1, 3, COLUMNS])))
    try:
        stored = quantizer.stored()
    except InvalidInputError:
        return
    assert stored.stored() is stored
    rng = np.random.default_rng(data.draw(seeds))
    side = next(getattr(stored, field) for field in ("step", "tables", "scale") if hasattr(stored, field))
    size = 2 * float(np.abs(side).max())
    codes = stored.encode(size * rng.normal(size=(ROWS, COLUMNS)))
    layer = lq.Quantized(codes, quantizer, Identity(), stored.coder)
    again = lq.Quantized.from_bytes(layer.to_bytes())
    np.testing.assert_array_equal(again.dequantize(np.float64), layer.dequantize(np.float64))


@dataclasses.dataclass(frozen=True)
class Steps(lq.quantizers.BaseDesign):
    """A design of others: float64 steps for rows, one for each group of columns."""

    scale_free = False

    size: float = 0.3
    group: int | None = 3
    shrink: bool = False
    shared: bool = False

    def __call__(self, entries: lq.quantizers.Entries) -> UniformQuantizer:
        rows = 1 if self.shared else len(entries.values)
        return UniformQuantizer(self.size * (1 + np.arange(rows)[:, None] / 7 + entries.columns[0] / 3))


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("group", [None, 3, 1])
def test_a_design_of_others_is_measured_as_it_is_stored(group: int | None, shared: bool):
    weight, sigma = gaussian_layer(ROWS, COLUMNS)
    layer = lq.quantize(weight, sigma, lq.Scheme(quantizer=Steps(group=group, shared=shared)))
    again = lq.Quantized.from_bytes(layer.to_bytes())
    np.testing.assert_array_equal(again.dequantize(np.float64), layer.dequantize(np.float64))
    assert again.distortion(weight, sigma) == layer.distortion(weight, sigma)


@pytest.mark.parametrize("size", [1e5, 1e-9])
def test_steps_of_rows_beyond_float16_are_refused_at_once(size: float):
    weight, sigma = gaussian_layer(ROWS, COLUMNS)
    with pytest.raises(InvalidInputError, match=r"`step` holds .* stored as float16"):
        lq.quantize(size * weight, sigma, lq.Scheme(quantizer=Steps(size)))


def test_zeros_that_no_file_holds_are_refused():
    for zero, low, high in ((np.full((ROWS, 1), 16.0), 0, 15), (np.full((ROWS, 1), 1.0), None, None)):
        with pytest.raises(InvalidInputError, match="`zero` holds"):
            UniformQuantizer(np.ones((ROWS, 1)), zero, low, high).stored()


@given(seed=seeds, size=sizes)
def test_sparse_values_are_float16_from_the_start(seed: int, size: float):
    values = size * np.random.default_rng(seed).normal(size=3)
    try:
        sparse = Sparse(np.array([0, 3, 7]), values, 4)
    except InvalidInputError:
        assert np.abs(values).max() > 65504
        return
    assume(np.abs(sparse.values).max() < 1e30)
    layer = lq.Quantized(np.zeros((2, 4), dtype=np.int32), UniformQuantizer(np.ones((1, 1))), sparse, TwoWay())
    again = lq.Quantized.from_bytes(layer.to_bytes())
    np.testing.assert_array_equal(again.dequantize(np.float64), layer.dequantize(np.float64))
