"""The entropy coder of lattice points along fronts: exact, of the size that theta series say, and safe to read."""

import hashlib

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lattq.coding.cosets import scale
from lattq.coding.fronts import Fronts
from lattq.coding.squares import square_classes
from lattq.coding.twoway import read_scales
from lattq.errors import DamagedFileError, InvalidInputError
from lattq.lattices.coder import EntropyCodedLattice
from lattq.lattices.fronts import FrontLattice, scale_order, shared_class
from lattq.lattices.theta import log_partition
from lattq.lattices.words import cell_side, named, tail_step
from tests.contracts import CoderContract, stream_bits
from tests.damage import damaged_streams, refusal_allowed
from tests.helpers import assert_same
from tests.lattices.test_coder import LARGEST, NAMES, SLOT_COST
from tests.strategies import seeds


def runs(shape: tuple[int, int], height: int, n: int, rows: np.ndarray, columns: np.ndarray) -> list:
    """Flat places of the points of each front, and then of what is left over: entry by entry, from the definition."""
    found = []
    for front in range(height + shape[1] - 1):
        inside = [
            (-int(rows[r] + columns[front - r % height]), r, r * shape[1] + front - r % height)
            for r in range(shape[0])
            if 0 <= front - r % height < shape[1]
        ]
        places = np.array([place for *_, place in sorted(inside)])
        whole = len(places) // n * n
        found.append([*places[:whole].reshape(-1, n), places[whole:]])
    return found


def members(
    coder: FrontLattice, seed: int, shape: tuple[int, int], spread: float, rows: np.ndarray, columns: np.ndarray
) -> np.ndarray:
    """Nearest points along the fronts, of Gaussians with these classes of rows and columns."""
    lattice, rng = coder.lattice, np.random.default_rng(seed)
    x = rng.standard_normal(shape) * spread * cell_side(lattice) * np.exp2((rows[:, None] + columns) / 8)
    flat, codes = x.reshape(-1), np.zeros(x.size, dtype=np.int32)
    for *points, alone in runs(shape, coder.height, lattice.dimension, rows, columns):
        for point in points:
            codes[point] = lattice.nearest_integer(flat[point])
        codes[alone] = tail_step(lattice) * np.rint(flat[alone] / tail_step(lattice))
    return codes.reshape(shape)


def ideal_bits(coder: FrontLattice, codes: np.ndarray, data: list, rows: np.ndarray, columns: np.ndarray) -> float:
    """Logarithms of exp(-|x|² / 2s²) / Z(s), s² the mean square of the scales of a point: from theta series."""
    known = read_scales(data[:3], codes.shape, 0)
    classes = square_classes(read_scales([*data[:2], data[3]], codes.shape, known.columns)).reshape(-1)
    scales, squares = np.where(classes > 0, scale(classes), 0.0), np.square(codes.reshape(-1).astype(float))
    fronts = runs(codes.shape, coder.height, coder.lattice.dimension, rows, columns)
    points = np.array([point for *points, _ in fronts for point in points], dtype=np.int64)
    alone = np.concatenate([alone for *_, alone in fronts])
    nats = 0.0
    if len(points):
        mean, energy = np.sqrt(np.mean(scales[points] ** 2, axis=1)), squares[points].sum(axis=1)
        s = scale(np.rint(1 + 8 * (np.log2(mean[mean > 0]) + 3)).clip(1))
        nats += np.sum(log_partition(coder.lattice, s) + energy[mean > 0] / (2 * s**2))
    alone = alone[scales[alone] > 0]
    if len(alone):
        s, step = scales[alone], tail_step(coder.lattice)
        nats += np.sum(log_partition(named("Z(1)"), s / step) + squares[alone] / (2 * s**2))
    return float(nats / np.log(2))


def overhead_bits(codes: np.ndarray, data: list) -> float:
    """Ten bytes for each stream, what the model's integers take, and `SLOT_COST` a code."""
    *model, streams = data
    return 80 * len(streams) + stream_bits(model) + 16 + SLOT_COST * codes.size


class TestIntegers(CoderContract):
    """Any codes are points of Z(1), and fronts of one row are columns."""

    low, high = -LARGEST, LARGEST

    def coder(self) -> FrontLattice:
        return FrontLattice("Z(1)")

    def ideal_bits(self, codes: np.ndarray) -> float:
        small = np.where(np.abs(codes) < 2**20, codes, 0)  # an escape is a number, not a place in a Gaussian
        rows, columns = (np.zeros(size, dtype=np.int64) for size in codes.shape)
        return ideal_bits(self.coder(), small, self.coder().encode(codes), rows, columns)

    def overhead_bits(self, codes: np.ndarray) -> float:
        return overhead_bits(codes, self.coder().encode(codes))


shapes = {"groups": st.integers(1, 4), "height": st.integers(1, 30), "columns": st.integers(1, 30)}


@given(seed=seeds, name=st.sampled_from(NAMES), **shapes, log=st.floats(-4, 9), wide=st.booleans(), block=st.booleans())
def test_round_trips_are_exact_and_cost_the_ideal(
    seed: int, name: str, groups: int, height: int, columns: int, log: float, wide: bool, block: bool
):
    """Of all heights and shapes, with classes of any kind, streams of some codes each, and columns of zeros."""
    rng, shape = np.random.default_rng(seed), (groups * height, columns)
    rows, across = (rng.integers(-20 * wide, 20 * wide + 1, size) for size in shape)
    coder = FrontLattice(name, height, 100 if block else 1 << 22)
    across += 40
    codes = members(coder, seed, shape, 2.0 ** (log - 5), rows, across)
    codes[:, rng.random(columns) < 0.1 * (name == "Z(1)")] = 0  # others would be no points
    data = coder.encode(codes, row_classes=rows, column_classes=across)
    through = msgpack.unpackb(bytes(msgpack.packb(data) or b""))
    assert_same(coder.decode(through, shape), codes)
    assert stream_bits(data) <= ideal_bits(coder, codes, data, rows, across) + overhead_bits(codes, data)
    known = coder.context(data, shape)
    assert_same(np.zeros(len(rows), dtype=np.int64) if known["row_classes"] is None else known["row_classes"], rows)
    assert_same(known["column_classes"], across)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("spread", [0.25, 1.0, 30.0])
def test_bytes_are_the_ideal(name: str, spread: float):
    """From both sides: what is not spent on points is a few bytes, whatever the rate."""
    rows, columns = np.arange(60) % 3, 30 + np.arange(40) % 5
    coder = FrontLattice(name, 30)
    codes = members(coder, 7, (60, 40), spread / 2**4, rows, columns)
    data = coder.encode(codes, row_classes=rows, column_classes=columns)
    spent = 8 * len(data[-1][0])
    assert -40 <= spent - ideal_bits(coder, codes, data, rows, columns) <= 80 + SLOT_COST * codes.size


def test_entries_of_like_scale_stand_together():
    """Points that cross all scales cost half the logarithm of the ratio of arithmetic to geometric mean.

    That is the negative control; in order of scales only points on the border between two of them mix any.
    """
    shape, coder = (120, 160), FrontLattice("E8", 120)
    rows, across = np.zeros(120, dtype=np.int64), 32 + 24 * (np.arange(160) % 2)
    squares = np.broadcast_to(np.exp2(across / 4), shape).reshape(-1)
    sizes, losses = [], []
    for known in (across, 0 * across):
        x = np.random.default_rng(0).standard_normal(squares.size) * np.sqrt(squares)
        codes = np.zeros(x.size, dtype=np.int32)
        fronts = runs(shape, 120, 8, rows, known)
        points = np.array([point for *points, _ in fronts for point in points])
        codes[points] = coder.lattice.nearest_integer(x[points])
        alone = np.concatenate([alone for *_, alone in fronts])
        codes[alone] = 2 * np.rint(x[alone] / 2)
        sizes.append(stream_bits(coder.encode(codes.reshape(shape), column_classes=known)[-1]) / x.size)
        own = squares[points]
        losses.append(4 * np.sum(np.log2(own.mean(axis=1)) - np.log2(own).mean(axis=1)) / x.size)
    assert losses[1] > 0.9 > 9 * losses[0]
    assert sizes[1] - sizes[0] == pytest.approx(losses[1] - losses[0], abs=0.01)


@given(seed=seeds, width=st.integers(1, 32), spread=st.integers(0, 60))
def test_a_point_has_the_class_of_its_mean_square(seed: int, width: int, spread: int):
    """Nearest class, at least 1; nothing but zeros has none."""
    rng = np.random.default_rng(seed)
    classes = rng.integers(1, 2 + spread, (50, width))
    classes[rng.random(classes.shape) < 0.2] = 0
    found = shared_class(classes)
    squares = np.mean(np.where(classes > 0, 2.0 ** (classes / 4), 0.0), axis=1)
    exact = 4 * np.log2(np.where(squares > 0, squares, 1.0))
    assert (found[squares == 0] == 0).all()
    live = squares > 0
    # A class 0 beside others counts as 2^-k of them, k its distance in octaves of squares: 32 of them, 8 at the least.
    slack = 0.51 + 4 * np.log2(1 + width * 2.0 ** (-classes.max(axis=1) / 4))
    assert (np.abs(found - np.maximum(exact, 1))[live] <= slack[live]).all()
    assert (found[live] >= 1).all()


def test_fronts_of_one_row_are_columns():
    """Then points and classes are those of the coder of columns, where all rows are alike."""
    coder, rows, columns = FrontLattice("E8"), np.zeros(60, dtype=np.int64), np.full(24, 30)
    codes = members(coder, 1, (60, 24), 0.2, rows, columns)
    along, down = coder.encode(codes, column_classes=columns), EntropyCodedLattice("E8").encode(codes)
    assert abs(stream_bits(along[-1]) - stream_bits(down[-1])) <= 64
    assert_same(coder.gains(along, codes.shape), EntropyCodedLattice("E8").gains(down, codes.shape))


@given(seed=seeds, data=st.data(), name=st.sampled_from(NAMES), wide=st.booleans())
def test_damaged_streams_are_refused_or_give_the_right_shape(seed: int, data: st.DataObject, name: str, wide: bool):
    rng, coder = np.random.default_rng(seed), FrontLattice(name, 13, block=60)
    rows, columns = rng.integers(-9 * wide, 9 * wide + 1, 26), rng.integers(30, 40, 7)
    codes = members(coder, seed, (26, 7), 0.1, rows, columns)
    damaged = data.draw(damaged_streams(coder.encode(codes, row_classes=rows, column_classes=columns)))
    with refusal_allowed():
        found = coder.decode(damaged, (26, 7))
        assert found.shape == (26, 7)
        assert found.dtype == np.int32


@given(seed=seeds, prior=st.lists(st.integers(-40, 40), min_size=9, max_size=9))
def test_a_prior_changes_the_size_and_nothing_else(seed: int, prior: list[int]):
    coder, guess, rows = FrontLattice("D(4)", 5), np.array(prior), np.arange(15) % 4
    columns = np.random.default_rng(seed).integers(20, 50, 9)
    codes = members(coder, seed, (15, 9), 0.1, rows, columns)
    stream = coder.encode(codes, guess, rows, columns)
    assert_same(coder.decode(stream, codes.shape, guess), codes)
    assert stream[3:] == coder.encode(codes, 0, rows, columns)[3:]


def test_zeros_cost_a_few_bytes_and_other_codes_are_refused():
    coder = FrontLattice("Leech24", height=20)
    assert stream_bits(coder.encode(np.zeros((40, 30), dtype=np.int32))) <= 8 * 40
    with pytest.raises(InvalidInputError, match="is not a point of the lattice"):
        coder.encode(np.eye(40, 30, dtype=np.int32))
    alone = np.zeros((40, 30), dtype=np.int32)
    alone[0, 0] = 1
    with pytest.raises(InvalidInputError, match="1 in a row that is in no point is not a multiple of 2"):
        coder.encode(alone)
    with pytest.raises(InvalidInputError, match="`height` is 7, which does not divide 40 rows"):
        FrontLattice("E8", height=7).encode(np.zeros((40, 30), dtype=np.int32))
    with pytest.raises(DamagedFileError, match="`height` is 7"):
        FrontLattice.from_state(FrontLattice("E8", height=7).to_state(), (40, 30))
    with pytest.raises(InvalidInputError, match="classes of 40 rows and 3 columns do not fit codes"):
        coder.encode(alone, column_classes=np.zeros(3, dtype=np.int64))
    data = coder.encode(np.zeros((40, 30), dtype=np.int32))
    with pytest.raises(DamagedFileError, match="2 streams for 1 blocks of fronts"):
        coder.decode([*data[:-1], 2 * data[-1]], (40, 30))


@pytest.mark.parametrize(("name", "digest"), [("E8", "46b7c9923276af8d"), ("Leech24", "9ac6925cc946ddb5")])
def test_pinned_bytes(name: str, digest: str):
    """A message with every part of the format: classes, noise, entries left over, low bits, escapes, many streams."""
    (i, j), coder = np.ogrid[:56, :24], FrontLattice(name, 28, block=500)
    rows, columns = (np.arange(56) % 5 - 2) * 4, 25 + (np.arange(24) % 7) * 3
    lattice = coder.lattice
    x = ((7 * i * i + 3 * j * j + 5 * i * j) % 23 - 11) * np.where(j == 9, 3000.0, j % 6) / 4
    x[5, 3] = 10**6
    flat, codes = x.reshape(-1), np.zeros(x.size, dtype=np.int32)
    for *points, alone in runs(x.shape, 28, lattice.dimension, rows, columns):
        for point in points:
            codes[point] = lattice.nearest_integer(flat[point])
        codes[alone] = tail_step(lattice) * np.rint(flat[alone])
    stream = coder.encode(codes.reshape(x.shape), row_classes=rows, column_classes=columns)
    assert_same(coder.decode(stream, x.shape).reshape(-1), codes)
    assert hashlib.blake2b(bytes(msgpack.packb(stream) or b""), digest_size=8).hexdigest() == digest


def test_the_largest_scales_fill_points():
    """What is left over are the smallest ones, which lose least by cubes."""
    fronts, order = Fronts(3, 5, 3), np.array([9, 1, 5, 7, 3])
    rows, columns = fronts.entries(2)
    sorted_ = np.argsort(scale_order(np.zeros(3, dtype=np.int64)[rows], order[columns]), kind="stable")
    assert order[columns][sorted_].tolist() == [9, 5, 1]
