"""The entropy coder of lattice points: exact probabilities, real bytes, random access, damage."""

import hashlib

import msgpack
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from lattq.coding.cosets import coset_index, counts, limit, scale
from lattq.coding.integers import encode_integers
from lattq.coding.twoway import TwoWayModel, read_scales
from lattq.errors import DamagedFileError, InvalidInputError
from lattq.lattices.coder import EntropyCodedLattice
from lattq.lattices.layout import Layout
from lattq.lattices.theta import log_partition
from lattq.lattices.words import cell_side, named, tail_step, words_of_lattice
from tests.contracts import CoderContract, stream_bits
from tests.damage import damaged_streams, refusal_allowed
from tests.helpers import assert_same
from tests.strategies import seeds

LARGEST = 2**31 - 1
NAMES = ["Z(1)", "Z(3)", "D(2)", "D(4)", "D_dual(3)", "E8", "BW16", "Leech24"]


def lattice_codes(name: str, seed: int, rows: int, columns: int, spread: float, row_classes: object = 0) -> np.ndarray:
    """Nearest points of Gaussians whose scale is `spread` sides of a cell; multiples of the tail's step below them."""
    lattice, rng = named(name), np.random.default_rng(seed)
    layout = Layout(np.broadcast_to(np.asarray(row_classes), rows), lattice.dimension)
    x = rng.standard_normal((rows, columns)) * spread * cell_side(lattice)
    x *= np.exp2(layout.rows / 8)[:, None]
    count, codes = layout.whole // lattice.dimension, np.zeros(x.shape, dtype=np.int32)
    vectors = x[layout.order[: layout.whole]].reshape(count, lattice.dimension, columns)
    points = lattice.nearest_integer(vectors.transpose(0, 2, 1)).transpose(0, 2, 1)
    codes[layout.order[: layout.whole]] = points.reshape(layout.whole, columns)
    alone = layout.order[layout.whole :]
    codes[alone] = tail_step(lattice) * np.rint(x[alone] / tail_step(lattice))
    return codes


SLOT_COST = 0.002  # of tables of 2^13 slots in place of counts out of 2^24, a code at most (theory 3.5)


def ideal_bits(name: str, codes: np.ndarray, data: list, row_classes: np.ndarray | None = None) -> float:
    """Logarithms of exp(-|x|² / 2s²) / Z(s) for the scales in the stream: from theta series, not from tables."""
    lattice = named(name)
    model = read_scales(data[:-1], codes.shape, 0)
    layout = Layout(model.rows if row_classes is None else row_classes, lattice.dimension)
    classes = TwoWayModel(layout.classes, model.columns, model.noise).classes()
    live = model.columns > 0
    points, alone = np.split(scale(classes[:, live]), [layout.whole // lattice.dimension])
    ordered = codes[layout.order][:, live].astype(np.float64)
    squares = np.square(ordered[: layout.whole]).reshape(len(points), lattice.dimension, live.sum()).sum(axis=1)
    nats = np.sum(log_partition(lattice, points) + squares / (2 * points**2)) if points.size else 0.0
    if alone.size:
        integers, step = named("Z(1)"), tail_step(lattice)
        nats += np.sum(log_partition(integers, alone / step) + np.square(ordered[layout.whole :]) / (2 * alone**2))
    return float(nats / np.log(2))


def overhead_bits(codes: np.ndarray, data: list) -> float:
    """Ten bytes for each stream, what the model's integers take, and `SLOT_COST` a code.

    A code far beyond its scale takes less than the Gaussian says.
    """
    noise, rows, columns, streams = data
    return 80 * len(streams) + stream_bits([noise, rows, columns]) + 16 + SLOT_COST * codes.size


class TestIntegers(CoderContract):
    """Any codes are points of Z(1)."""

    low, high = -LARGEST, LARGEST

    def coder(self) -> EntropyCodedLattice:
        return EntropyCodedLattice("Z(1)")

    def ideal_bits(self, codes: np.ndarray) -> float:
        small = np.abs(codes) < 2**20  # an escape is a number, not a place in a Gaussian
        data = self.coder().encode(codes)
        return ideal_bits("Z(1)", np.where(small, codes, 0), data)

    def overhead_bits(self, codes: np.ndarray) -> float:
        return overhead_bits(codes, self.coder().encode(codes))


@given(
    seed=seeds,
    name=st.sampled_from(NAMES),
    rows=st.integers(1, 60),
    columns=st.integers(1, 5),
    log=st.floats(-4, 20),
    wide=st.booleans(),
)
def test_round_trips_are_exact_and_cost_the_ideal(
    seed: int, name: str, rows: int, columns: int, log: float, wide: bool
):
    """With rows of any class, rows that fill no point, and columns of zeros."""
    rng = np.random.default_rng(seed)
    classes = rng.integers(-20, 20, rows) if wide else np.zeros(rows, dtype=np.int64)
    codes = lattice_codes(name, seed, rows, columns, 2.0 ** min(log, 12.0), classes)
    codes[:, rng.random(columns) < 0.2] = 0
    coder = EntropyCodedLattice(name)
    data = coder.encode(codes, row_classes=classes)
    assert_same(coder.decode(msgpack.unpackb(bytes(msgpack.packb(data) or b"")), codes.shape), codes)
    assert stream_bits(data) <= ideal_bits(name, codes, data, classes) + overhead_bits(codes, data)
    stored = coder.row_classes(data, codes.shape)
    assert_same(np.zeros(rows, dtype=np.int64) if stored is None else stored, classes)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("spread", [0.25, 0.5, 1.0, 3.0, 100.0])
def test_bytes_are_the_ideal(name: str, spread: float):
    """From both sides: what is not spent on points is a few bytes, whatever the rate."""
    rows = 2400
    codes = lattice_codes(name, 7, rows, 12, spread)
    data = EntropyCodedLattice(name).encode(codes)
    spent = 8 * len(data[-1][0])
    assert -40 <= spent - ideal_bits(name, codes, data) <= 80 + SLOT_COST * codes.size


@given(seed=seeds, name=st.sampled_from(NAMES), k=st.integers(18, 80))
def test_probabilities_multiply_to_that_of_the_point(seed: int, name: str, k: int):
    """Kind, word, parities and places, against exp(-|x|² / 2s²) / Z.

    A count is that of the probability within 1, as it is rounded or at least 1, but one of the largest of a table takes
    what the others leave. Tables end at 5.5 standard deviations, beyond which are 3.8e-8. What is cut off at the least
    count says nothing of its probability.
    """
    lattice, rng = named(name), np.random.default_rng(seed)
    words, s = words_of_lattice(lattice), float(scale(k))
    x = lattice.nearest_integer(rng.standard_normal(lattice.dimension) * s).astype(np.int64)
    word = int(words.find(x[:, None])[0])
    folded, period = x * words.signs[word], words.modulus * (2 if words.constrained else 1)
    kind = words.kinds[word]
    drawn = [(words.kind_counts[k - 1], kind)]
    odd = folded // words.modulus & 1
    for i in range(lattice.dimension - 1 if words.constrained else 0):
        chance = words.chances[words.states[word, i], int(odd[i:].sum() & 1), k - 1]
        drawn.append((np.array([1 - chance, chance]) * 2**16, odd[i]))
    for residue, value in zip(folded % period, folded // period, strict=True):
        index = int(coset_index(np.array([residue]), period, np.array([k]))[0])
        place = int(-1 - value if 2 * residue > period else value)
        assume(abs(place) <= limit(index))  # an escape is a number beside the stream
        drawn.append((counts(index), place + limit(index)))
    assume(all(table[place] > 1 or len(table) == 1 for table, place in drawn))
    found = sum(np.log(table[place] / table.sum()) for table, place in drawn) - np.log(words.counts[kind])
    shares = [(len(t) if t[place] + len(t) >= max(t) else 1) / t[place] + 3.8e-8 for t, place in drawn]
    error = -np.sum(np.log1p(-np.array(shares)))
    assert abs(found + x @ x / (2 * s * s) + float(log_partition(lattice, s))) <= error + 1e-9


@pytest.mark.parametrize("name", NAMES)
def test_partition_functions_are_theta_series(name: str):
    k = np.arange(1, 200)
    found = words_of_lattice(named(name)).log_partition[k]
    np.testing.assert_allclose(found * np.log(2), log_partition(named(name), scale(k)), rtol=1e-12, atol=1e-12)


def test_independent_coordinates_cost_more():
    """Negative control: with the entropies of coordinates alone, E8 would pay a bit more for every point."""
    codes = lattice_codes("E8", 3, 2400, 20, 4.0)
    alone = stream_bits(EntropyCodedLattice("Z(1)").encode(codes))
    together = stream_bits(EntropyCodedLattice("E8").encode(codes))
    assert 0.99 < (alone - together) / codes.size < 1.01  # a cell of E8 has the volume 2^8


def test_equal_columns_of_zeros_are_free():
    for name in NAMES:
        data = EntropyCodedLattice(name).encode(np.zeros((50, 300), dtype=np.int32))
        assert stream_bits(data) <= 8 * 25


def test_rows_of_like_scale_share_points():
    """Points of rows with their classes cost what the rows' scales say; in the order of the rows they could not."""
    classes = np.random.default_rng(0).integers(0, 4, 960) * 8
    codes = lattice_codes("E8", 1, 960, 50, 4.0, classes)
    data = EntropyCodedLattice("E8").encode(codes, row_classes=classes)
    rate = (stream_bits(data) - stream_bits(encode_integers(classes))) / codes.size
    plain = stream_bits(EntropyCodedLattice("E8").encode(lattice_codes("E8", 1, 960, 50, 4.0))) / codes.size
    assert abs(rate - plain - classes.mean() / 8) < 0.02  # the entropy at high rate is that of a Gaussian
    with pytest.raises(InvalidInputError, match="is not a point"):
        EntropyCodedLattice("E8").encode(codes)


@given(seed=seeds, data=st.data(), block=st.sampled_from([1, 60, 200, 1 << 22]), rows=st.integers(1, 40))
def test_random_access_is_a_part_of_the_whole(seed: int, data: st.DataObject, block: int, rows: int):
    classes = np.random.default_rng(seed).integers(-9, 9, rows)
    codes = lattice_codes("E8", seed, rows, 11, 1.5, classes)
    coder = EntropyCodedLattice("E8", block)
    stream = coder.encode(codes, row_classes=classes)
    columns = data.draw(st.slices(11))
    assert_same(coder.decode(stream, codes.shape, columns=columns), codes[:, columns])


def test_random_access_reads_only_the_blocks_it_needs():
    codes = lattice_codes("D(4)", 0, 20, 16, 1.0)
    coder = EntropyCodedLattice("D(4)", block=40)  # two columns a block
    *scales, streams = coder.encode(codes)
    spoilt = [*scales, [streams[0], b"", *streams[2:]]]
    assert_same(coder.decode(spoilt, codes.shape, columns=slice(4, 9)), codes[:, 4:9])


@given(seed=seeds, prior=st.lists(st.integers(-40, 40), min_size=9, max_size=9))
def test_codes_come_back_with_any_prior(seed: int, prior: list[int]):
    codes, guess = lattice_codes("E8", seed, 35, 9, 1.0), np.array(prior)
    coder = EntropyCodedLattice("E8")
    stream = coder.encode(codes, guess)
    assert_same(coder.decode(stream, codes.shape, guess), codes)


def test_gains_are_those_of_noise_in_the_cell():
    codes = lattice_codes("E8", 5, 8000, 4, 1.0)
    coder = EntropyCodedLattice("E8")
    data = coder.encode(codes)
    s2 = scale(read_scales(data[:-1], codes.shape, 0).columns) ** 2
    np.testing.assert_allclose(coder.gains(data, codes.shape) / 128, 1 - 4 * 929 / 12960 / s2, atol=0.5 / 128)


@pytest.mark.parametrize(
    ("name", "digest"),
    [
        ("E8", "5ca8437bfe28d79f"),
        ("BW16", "905572fb657cc07d"),
        ("Leech24", "fb5cfe8083735ddf"),
        ("D(4)", "51366ec377a36d31"),
    ],
)
def test_pinned_bytes(name: str, digest: str):
    """A message with every part of the format: row classes, noise, rows left over, low bits, escapes, dead columns."""
    lattice, (i, j) = named(name), np.ogrid[:53, :24]
    classes = (np.arange(53) % 5 - 2) * 4
    layout = Layout(classes, lattice.dimension)
    x = ((7 * i * i + 3 * j * j + 5 * i * j) % 23 - 11) * np.where(j == 9, 3000.0, j % 6) / 4
    x[5, 3] = 10**6
    codes = np.zeros((53, 24), dtype=np.int32)
    points = x[: layout.whole].reshape(-1, lattice.dimension, 24).transpose(0, 2, 1)
    found = lattice.nearest_integer(points).transpose(0, 2, 1).reshape(layout.whole, 24)
    codes[layout.order[: layout.whole]] = found
    codes[layout.order[layout.whole :]] = tail_step(lattice) * np.rint(x[layout.whole :])
    coder = EntropyCodedLattice(name, block=500)
    stream = coder.encode(codes, row_classes=classes)
    assert_same(coder.decode(stream, codes.shape), codes)
    assert hashlib.blake2b(bytes(msgpack.packb(stream) or b""), digest_size=8).hexdigest() == digest


@given(seed=seeds, data=st.data(), name=st.sampled_from(NAMES), rows=st.sampled_from([7, 26]), wide=st.booleans())
def test_damaged_streams_are_refused_or_give_the_right_shape(
    seed: int, data: st.DataObject, name: str, rows: int, wide: bool
):
    classes = np.random.default_rng(seed).integers(-9, 9, rows) * wide
    codes = lattice_codes(name, seed, rows, 7, 1.5, classes)
    coder = EntropyCodedLattice(name, block=60)
    damaged = data.draw(damaged_streams(coder.encode(codes, row_classes=classes)))
    with refusal_allowed():
        assert coder.decode(damaged, codes.shape).shape == codes.shape


def test_streams_with_more_than_their_points_are_refused():
    codes = lattice_codes("E8", 0, 16, 3, 2.0)
    *scales, (stream,) = EntropyCodedLattice("E8").encode(codes)
    with pytest.raises(DamagedFileError, match="hold other than their"):
        EntropyCodedLattice("E8").decode([*scales, [stream + b"\0\1"]], codes.shape)


@pytest.mark.parametrize("name", ["E7", "A(2)", "A_dual(3)", "D(1)", "Z(0)", "Z(9999)", "D", "", "e8"])
def test_names_without_integer_coordinates(name: str):
    with pytest.raises(InvalidInputError, match=r"`name`|dimensions from"):
        EntropyCodedLattice(name)


@pytest.mark.parametrize("name", ["D(4)", "D_dual(3)", "E8", "BW16", "Leech24"])
def test_what_is_no_point_is_refused(name: str):
    codes = lattice_codes(name, 0, 24, 2, 2.0)
    codes[3, 1] += 1
    with pytest.raises(InvalidInputError, match="is not a point of the lattice"):
        EntropyCodedLattice(name).encode(codes)


def test_rows_left_over_are_multiples():
    codes = lattice_codes("E8", 0, 9, 2, 2.0)
    codes[8, 1] = 3
    with pytest.raises(InvalidInputError, match="3 in a row that is in no point is not a multiple of 2"):
        EntropyCodedLattice("E8").encode(codes)
