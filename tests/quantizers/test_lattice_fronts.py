"""Lattice points along fronts: cells, what they save, the bound, real files, and damage to them."""

import dataclasses
import functools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lattq as lq
from lattq.coding.fronts import Fronts
from lattq.errors import InvalidInputError
from lattq.feedback import Cholesky, successive_cancellation
from lattq.lattices import BW16, E8, D, D_dual, Leech24, Z
from lattq.lattices.fronts import FrontLattice
from lattq.lattices.words import cell_side, tail_step
from lattq.quantizers import Entries, Lattice
from lattq.testing.damage import refuse_damage
from tests.helpers import assert_same
from tests.strategies import moment, seeds

ALL = [Z(1), D(4), D_dual(3), E8, BW16, Leech24]
PLAIN = functools.partial(lq.recipes.watersic, mmse=0.0, sweeps=0)


def named(lattice: Any) -> str:
    return lattice.name


def layer(seed: int, shape: tuple[int, int], height: int, octaves: float = 1.0) -> tuple[np.ndarray, lq.Metric]:
    """Gaussian weights of variance 1, and a metric whose spectra span so many factors of ten on both sides."""
    rng = np.random.default_rng(seed)
    inputs = moment(10.0 ** rng.uniform(0, octaves, shape[1]), seed)
    blocks = [moment(10.0 ** rng.uniform(0, octaves, height), seed + k) for k in range(shape[0] // height)]
    return rng.standard_normal(shape), lq.Metric(inputs, np.stack(blocks))


def left_over(shape: tuple[int, int], height: int, n: int) -> float:
    """Share of the entries that are in no point: fewer than n of each front."""
    fronts = Fronts(*shape, height)
    return sum(fronts.size(k) % n for k in range(fronts.number)) / (shape[0] * shape[1])


def cubic(lattice: Any) -> float:
    """Squared error of an entry in no point over that of one in a point."""
    return (tail_step(lattice) / cell_side(lattice)) ** 2 / 12 / Lattice(lattice).second_moment


@pytest.mark.parametrize("lattice", ALL, ids=named)
@pytest.mark.parametrize("height", [48, 16])
def test_the_distortion_is_that_of_the_cell(lattice: Any, height: int):
    """At high rate N is uniform in the cell: D = Σ c_i d_j N_ij², and E N_ij² is the second moment, or that of a cube.

    To four standard errors of independent numbers, which coordinates of a point nearly are.
    """
    weight, metric = layer(1, (96, 80), height)
    step, factor = 0.02, Cholesky("natural").factor(weight, metric.inputs)
    outputs = metric.output_factor
    assert outputs is not None
    found = successive_cancellation(weight, factor, Lattice(lattice, step), outputs=outputs)
    price = np.outer(outputs.pivots.reshape(-1), factor.pivots)
    direct = metric.squared_error(weight - found.reconstruction) * weight.size
    assert direct == pytest.approx(float(np.sum(price * found.noise**2)), rel=1e-9)
    share = left_over(weight.shape, height, lattice.dimension)
    squares = np.square(found.noise / step).reshape(-1)
    expected = Lattice(lattice).second_moment * (1 - share + share * cubic(lattice))
    assert abs(squares.mean() - expected) < 4 * squares.std() / np.sqrt(squares.size)


@pytest.mark.parametrize("lattice", [D(4), E8, BW16, Leech24], ids=named)
def test_points_save_what_their_cells_do(lattice: Any):
    """Against cubes in the same order, at 4 bits: the difference of the space-filling gaps on the share in points.

    A share p of entries whose squared error is r times that of others loses ½ log2(1 - p + p r) - ½ p log2 r beside.
    A hundredth is for scales of a point that differ, the grid of scales and the luck of 2^14 errors.
    """
    weight, metric = layer(2, (128, 128), 128)
    gap, cubes = (
        lq.at_rate(4.0, functools.partial(PLAIN, quantizer=Lattice(x)), weight, metric).gap(weight, metric)
        for x in (lattice, Z(1))
    )
    share, r = left_over(weight.shape, 128, lattice.dimension), cubic(lattice)
    saved = (1 - share) * (Z(1).space_filling_gap - lattice.space_filling_gap)
    unequal = 0.5 * (np.log2(1 - share + share * r) - share * np.log2(r))
    assert cubes - gap == pytest.approx(saved - unequal, abs=0.01)
    assert cubes - gap > 0.02


@pytest.mark.parametrize("lattice", [E8, Leech24], ids=named)
@pytest.mark.parametrize("step", [0.3, 1.0, 3.0, 30.0])
def test_no_rate_is_below_the_bound(lattice: Any, step: float):
    """For the variances that the weights were drawn with, from 4 bits to next to nothing."""
    weight, metric = layer(3, (64, 64), 32)
    for recipe in (PLAIN, lq.recipes.two_sided):
        found = lq.quantize(weight, metric, recipe(step, quantizer=Lattice(lattice)))
        assert found.rate > lq.bounds.layer_rate(metric, found.distortion(weight, metric), 1.0, 1.0)


@settings(max_examples=25)
@given(
    seed=seeds,
    lattice=st.sampled_from(ALL),
    groups=st.integers(1, 3),
    height=st.integers(1, 9),
    columns=st.integers(1, 17),
    step=st.floats(0.05, 20),
    sweeps=st.integers(0, 1),
)
def test_files_restore_layers_of_any_shape(
    seed: int, lattice: Any, groups: int, height: int, columns: int, step: float, sweeps: int
):
    """Single rows and columns too, whose fronts have one entry each; and the same bytes again."""
    weight, metric = layer(seed, (groups * height, columns), height)
    found = lq.quantize(weight, metric, lq.recipes.two_sided(step, quantizer=Lattice(lattice), sweeps=sweeps))
    again = lq.Quantized.from_bytes(found.to_bytes())
    assert_same(again.codes, found.codes)
    assert_same(again.dequantize(np.float64), found.dequantize(np.float64))
    assert again.to_bytes() == found.to_bytes()
    assert type(found.coder) is (FrontLattice if height > 1 else type(Lattice(lattice)(Entries(weight)).coder))
    if height > 1:
        assert_same(again.quantizer.column_classes, found.quantizer.column_classes)


def test_scales_of_rows_and_columns_are_worth_their_order():
    """A negative control: points in the order of the rows, whatever the scales, cost more in the same loop."""
    rng = np.random.default_rng(4)
    weight, metric = layer(4, (96, 96), 96)
    weight *= np.exp(0.7 * rng.standard_normal((96, 1))) * np.exp(0.7 * rng.standard_normal(96))
    mixed = dataclasses.replace(PLAIN(0.1), quantizer=_Unordered(E8, 0.1))
    gaps = [
        lq.quantize(weight, metric, scheme).gap(weight, metric) for scheme in (PLAIN(0.1, quantizer=Lattice(E8)), mixed)
    ]
    assert gaps[1] - gaps[0] > 0.2


class _Unordered(Lattice):
    """A design that knows no scales."""

    def __call__(self, entries: Entries) -> Any:
        return dataclasses.replace(super().__call__(entries), row_classes=None, column_classes=None)


@pytest.mark.parametrize("field", ["quantizer", "transform", "coder", "data"])
def test_damage_to_files_is_refused(field: str):
    weight, metric = layer(5, (18, 10), 9)
    weight *= np.exp(np.random.default_rng(5).standard_normal((18, 1)))
    refuse_damage(lq.quantize(weight, metric, lq.recipes.two_sided(0.5, quantizer=Lattice(D(4)))), field)


def test_blocks_of_columns_are_refused():
    """A decoder knows fronts of single entries only."""
    weight, metric = layer(6, (32, 32), 32)
    scheme = lq.Scheme(feedback=Cholesky("natural", block=2), quantizer=Lattice(E8, 0.1), outputs=True)
    with pytest.raises(InvalidInputError, match="is not a point of the lattice"):
        _ = lq.quantize(weight, metric, scheme).payload


def test_a_quantizer_of_another_matrix_is_refused():
    quantizer = Lattice(E8, 0.1)(Entries(np.random.default_rng(0).standard_normal((8, 4))))
    with pytest.raises(InvalidInputError, match="`column_classes` are 4, but there is a place 7"):
        quantizer.in_front(np.array([0]), np.array([7]), np.ones(1))
