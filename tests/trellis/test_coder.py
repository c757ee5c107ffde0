"""The entropy coder of trellis codes: exact for every sequence of a code, close to the entropy given the superset."""

import hashlib
import math

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lattq.coding.cosets import coset_index, counts, limit, scale, shift, shifted
from lattq.coding.integers import encode_integers
from lattq.coding.interleaved import encode_symbols
from lattq.coding.slots import cosets_of, residue_kinds
from lattq.coding.squares import square_classes
from lattq.coding.tables import TOTAL
from lattq.coding.twoway import TwoWayModel, read_scales
from lattq.errors import DamagedFileError, InvalidInputError
from lattq.trellis import EntropyCodedTrellis, TrellisCode
from lattq.trellis.coder import square_gains
from lattq.trellis.codes import segments
from tests.contracts import CoderContract, law, stream_bits
from tests.damage import damaged_streams, refusal_allowed
from tests.helpers import assert_same
from tests.strategies import seeds


def sampled(seed: int, rows: int, scales: np.ndarray, coder: EntropyCodedTrellis) -> tuple[np.ndarray, float]:
    """Sequences whose codes are Gaussians sampled on the superset that the past allows, and their information in bits.

    Columns have these scales in codes; no table is used.
    """
    rng, code = np.random.default_rng(seed), TrellisCode(coder.states)
    columns, reach = np.arange(len(scales)), int(8 * max(scales)) + 2
    grid = np.arange(2)[:, None, None] + 2 * np.arange(-reach, reach + 1)  # (z0, 1, place)
    chance = np.exp(-((grid / np.reshape(scales, (-1, 1))) ** 2) / 2)
    chance /= chance.sum(axis=2, keepdims=True)
    below = np.cumsum(chance, axis=2)[:, :, :-1]
    codes, information = np.zeros((rows, len(scales)), dtype=np.int32), 0.0
    for cut in segments(rows, coder.segment):
        state = np.zeros(len(scales), dtype=np.int64)
        for t in range(cut.start, cut.stop):
            label = code.labels[state, 0]
            place = np.sum(below[label & 1, columns] < rng.random((len(scales), 1)), axis=1)
            codes[t] = grid[label & 1, 0, place]
            information -= float(np.log2(chance[label & 1, columns, place]).sum())
            state = (2 * state + ((codes[t] >> 1 & 1) ^ label >> 1)) % coder.states
    return codes, information


def model_of(coder: EntropyCodedTrellis, codes: np.ndarray) -> TwoWayModel:
    """Scale classes as a decoder reads them."""
    return read_scales(coder.encode(codes)[:-1], codes.shape, 0)


def coset_bits(quotients: np.ndarray, index: np.ndarray) -> float:
    """Bits under the frozen tables of counts out of 2^24; an escape is a number of at most five bytes beside them."""
    bits = 0.0
    for i in np.unique(index):
        low, table = shift(int(i)), shifted(int(i))
        group = quotients[index == i] >> low
        bound, found = limit(table), counts(table)
        outside = np.abs(group) > bound
        lengths = -np.log2(np.where(outside, found[-1], found[np.where(outside, 0, group) + bound]) / TOTAL)
        bits += float(np.sum(low + lengths)) + 48 * int(outside.sum())
    return bits


def table_bits(codes: np.ndarray, classes: np.ndarray) -> float:
    """Codes given their parity, under the tables of their supersets; columns of zeros take nothing."""
    live = np.broadcast_to(classes.max(axis=0) > 0, codes.shape)
    return coset_bits(codes[live] >> 1, coset_index(codes[live] & 1, 2, np.maximum(classes[live], 1)))


SLOTS = 0.002
"""Bits a code, at most, that 2^13 slots lose, and states of 32 bits."""


class TrellisContract(CoderContract):
    """Sequences of the code; extreme and constant codes are replaced by those nearest to them that a sequence has."""

    spread = 3.0
    states, segment, block = 8, 7, 1 << 20

    def coder(self) -> EntropyCodedTrellis:
        return EntropyCodedTrellis(self.states, self.segment, self.block)

    def codes(self, seed: int, rows: int, columns: int) -> tuple[np.ndarray, float]:
        """Columns of 0.4 to 8 codes."""
        scales = self.spread * np.exp2(np.random.default_rng(seed).uniform(-3, 1.5, columns))
        return sampled(seed, rows, scales, self.coder())

    def ideal_bits(self, codes: np.ndarray) -> float:
        return table_bits(codes, square_classes(model_of(self.coder(), codes))) * (1 + SLOTS)

    def overhead_bits(self, codes: np.ndarray) -> float:
        """Of each stream 9 bytes: markers, how many lanes, a state and a word; of the model its integers."""
        model = model_of(self.coder(), codes)
        streams = self.coder().encode(codes)[-1]
        sides = [encode_integers(model.rows), encode_integers(model.columns)]
        return 72 * len(streams) + stream_bits([model.noise, *sides]) + 16

    @law
    @given(seed=seeds, data=st.data())
    def test_extreme_values_survive(self, seed: int, data: st.DataObject) -> None:
        """Any integer of the same residue is as good a member; the extremes are those nearest to the ends of int32."""
        codes, _ = self.codes(seed, 9, 5)
        for sign in (1, -1):
            place = data.draw(st.integers(0, 8)), data.draw(st.integers(0, 4))
            end = self.high if sign > 0 else self.low
            codes[place] = end - sign * ((sign * (end - int(codes[place]))) % 4)
            assert abs(int(codes[place])) >= 2**31 - 4
        self.check_round_trip(codes)

    @pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1), (3, 200)])
    @pytest.mark.parametrize("value", [0, 1, -1, 4, -(2**20)])
    def test_constant_codes_survive(self, shape: tuple[int, int], value: int) -> None:
        """Multiples of four are sequences; near other constants the nearest ones are taken."""
        parts = [
            TrellisCode(self.states).nearest(np.full((shape[1], cut.stop - cut.start), float(value))).T
            for cut in segments(shape[0], self.segment)
        ]
        codes = np.concatenate(parts)
        assert value % 4 or np.all(codes == value)
        self.check_round_trip(codes)


class TestJoint(TrellisContract):
    pass


class TestBlocks(TrellisContract):
    states, segment, block = 64, 5, 300


def targets(seed: int, rows: int, columns: int, low: float = -2, high: float = 3) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((rows, columns)) * np.exp2(rng.uniform(low, high, columns))


def members(x: np.ndarray, coder: EntropyCodedTrellis) -> np.ndarray:
    """Nearest sequences down the columns."""
    return np.concatenate([coder.code.nearest(x[cut].T).T for cut in segments(len(x), coder.segment)])


@given(
    seed=seeds,
    rows=st.integers(1, 40),
    columns=st.integers(1, 9),
    states=st.sampled_from([4, 16, 256, 2048]),
    segment=st.integers(1, 17),
)
def test_quantized_sequences_survive(seed: int, rows: int, columns: int, states: int, segment: int):
    """Of unequal segments, scales from 1/4 code to thousands, and rows of other scales."""
    coder = EntropyCodedTrellis(states, segment)
    x = targets(seed, rows, columns, -2, 12) * np.exp(np.random.default_rng(seed).standard_normal((rows, 1)))
    codes = members(x, coder)
    assert_same(coder.decode(coder.encode(codes), codes.shape), codes)


@pytest.mark.parametrize("log", [-3.0, 0.0, 1.0, 4.0, 10.0, 28.0])
@pytest.mark.parametrize("blocks", [False, True])
def test_any_scale_costs_what_the_model_says(log: float, blocks: bool):
    contract = TestBlocks() if blocks else TestJoint()
    codes = members(2.0**log * np.random.default_rng(1).standard_normal((60, 30)), contract.coder())
    size = stream_bits(contract.check_round_trip(codes))
    assert size <= contract.ideal_bits(codes) + contract.overhead_bits(codes)


@pytest.mark.parametrize("shape", [(1, 500), (500, 1), (40, 30), (1000, 1000)])
def test_all_zero_costs_a_few_bytes(shape: tuple[int, int]):
    coder = EntropyCodedTrellis(256)
    stream = coder.encode(np.zeros(shape, dtype=np.int32))
    assert stream_bits(stream) <= 8 * 30
    assert not coder.decode(stream, shape).any()


@pytest.mark.parametrize("segment", [1, 4096])
def test_columns_of_zeros_take_no_walk_down_the_rows(monkeypatch: pytest.MonkeyPatch, segment: int):
    """A few forged bytes may claim a million rows; walking down them took a quarter of a minute."""
    coder = EntropyCodedTrellis(8, segment, block=1 << 21)
    stream = coder.encode(np.zeros((4, 2), dtype=np.int32))
    monkeypatch.setattr(TrellisCode, "labels", None)
    assert not coder.decode(stream, (1 << 20, 2)).any()
    *model, _ = stream
    with pytest.raises(DamagedFileError, match="columns that hold nothing"):
        coder.decode([*model, [b"\0"]], (1 << 20, 2))


def test_idle_columns_cost_nothing_beside_others():
    coder = EntropyCodedTrellis(16, 20)
    codes = members(targets(0, 200, 8, 1, 1), coder)
    among = np.zeros((200, 80), dtype=np.int32)
    among[:, ::10] = codes
    more = stream_bits(coder.encode(among)) - stream_bits(coder.encode(codes))
    assert more <= 8 * 80  # the classes of the columns, which are far apart
    assert_same(coder.decode(coder.encode(among), among.shape), among)


@given(seed=seeds, data=st.data(), block=st.sampled_from([1, 13, 40, 1 << 18]), rows=st.integers(1, 20))
def test_random_access_is_a_part_of_the_whole(seed: int, data: st.DataObject, block: int, rows: int):
    coder = EntropyCodedTrellis(16, 6, block)
    codes = members(targets(seed, rows, 17), coder)
    stream, columns = coder.encode(codes), data.draw(st.slices(17))
    assert_same(coder.decode(stream, codes.shape, columns=columns), codes[:, columns])


def test_random_access_reads_only_the_blocks_it_needs():
    coder = EntropyCodedTrellis(16, 6, block=40)  # two columns a block
    codes = members(targets(0, 20, 16), coder)
    *model, blocks = coder.encode(codes)
    spoilt = [*model, [blocks[0], b"\0\1", *blocks[2:]]]
    assert_same(coder.decode(spoilt, codes.shape, columns=slice(4, 9)), codes[:, 4:9])
    with pytest.raises(DamagedFileError):
        coder.decode(spoilt, codes.shape, columns=slice(3, 9))


@given(seed=seeds, prior=st.lists(st.integers(-40, 40), min_size=9, max_size=9))
def test_a_prior_changes_the_size_and_nothing_else(seed: int, prior: list[int]):
    coder, guess = EntropyCodedTrellis(8, 5), np.array(prior)
    codes = members(targets(seed, 15, 9), coder)
    stream = coder.encode(codes, guess)
    assert_same(coder.decode(stream, codes.shape, guess), codes)
    assert stream[3] == coder.encode(codes)[3]
    assert_same(coder.gains(stream, codes.shape, guess), square_gains(model_of(coder, codes).columns))


@given(seed=seeds, data=st.data(), heavy=st.booleans())
def test_damaged_streams_are_refused_or_give_the_right_shape(seed: int, data: st.DataObject, heavy: bool):
    coder = EntropyCodedTrellis(8, 4, block=20)
    x = targets(seed, 9, 7)
    codes = members(100 * np.tan(x).clip(-100, 100) if heavy else x, coder)
    damaged = data.draw(damaged_streams(coder.encode(codes)))
    with refusal_allowed():
        found = coder.decode(damaged, (9, 7))
        assert found.shape == (9, 7)
        assert found.dtype == np.int32


@pytest.mark.parametrize("longer", [False, True])
@pytest.mark.parametrize("size", range(1, 9))
def test_streams_that_end_inside_a_segment_or_go_on(size: int, longer: bool):
    """A decoder that runs dry makes up codes, and does not come to where the encoder began."""
    coder = EntropyCodedTrellis(8, 10)
    x = np.random.default_rng(2).standard_normal((40, 6)) * np.array([1, 9, 1, 9, 1, 9])
    *model, [stream] = coder.encode(members(x, coder))
    broken = stream + b"\1" * size if longer else stream[:-size]
    with pytest.raises(DamagedFileError):
        coder.decode([*model, [broken]], (40, 6))


@given(seed=seeds, row=st.integers(0, 28), column=st.integers(0, 6), block=st.sampled_from([1, 60, 1 << 20]))
def test_what_is_no_sequence_is_refused_with_its_place(seed: int, row: int, column: int, block: int):
    coder = EntropyCodedTrellis(16, 8, block=block)
    codes = members(targets(seed, 29, 7), coder)
    codes[row, column] += 1
    cut = next(cut for cut in segments(29, 8) if cut.start <= row < cut.stop)
    width = 7 if block == 1 << 20 else -(-block // 29)
    start = column // width * width
    place = (
        f"rows {cut.start} to {cut.stop - 1} .* from {start}: .* index {row - cut.start} of sequence {column - start} "
    )
    with pytest.raises(InvalidInputError, match=place):
        coder.encode(codes)


def test_other_segments_are_other_sequences():
    """Negative control: a trellis that does not start anew knows other parities."""
    codes = members(targets(3, 64, 4, 2, 2), EntropyCodedTrellis(16, 8))
    for coder in (EntropyCodedTrellis(16, 64), EntropyCodedTrellis(16, 7), EntropyCodedTrellis(32, 8)):
        with pytest.raises(InvalidInputError, match="parity"):
            coder.encode(codes)


def test_what_a_decoder_knows_is_worth_a_bit():
    """Codes of one scale, by real coders: given the superset, by no knowledge, and given the subset.

    No knowledge costs log2 Z(1) - log2 Z(2) more, one bit to all digits. Without the path bits a bit is missing: codes
    cannot be told from what such a coder stores, and the rate would lie below the rate-distortion function.
    """
    coder, s = EntropyCodedTrellis(256, 4096), float(scale(43))
    x = np.random.default_rng(5).standard_normal((4096, 12)) * s
    codes = members(x, coder)
    real = stream_bits(coder.encode(codes)) / codes.size
    index = int(np.rint(8 * np.log2(codes.std()))) + 25
    classes, residues = np.full(codes.shape, index), codes & 3
    unconditioned = encode_symbols(codes.ravel(), residue_kinds(classes, 0 * codes, 1).ravel(), cosets_of(1))
    quotients = np.where(residues == 3, -1 - (codes >> 2), codes >> 2)
    given_subset = encode_symbols(quotients.ravel(), residue_kinds(classes, residues, 4).ravel(), cosets_of(4))
    assert abs(stream_bits(unconditioned) / codes.size - real - 1) < 0.004
    assert abs(real - stream_bits(given_subset) / codes.size - 1) < 0.004
    error = np.mean((x - codes) ** 2)
    bound = 0.5 * math.log2(s * s / error)
    assert real - 1 < bound < real < bound + 0.05


@pytest.mark.parametrize(("states", "segment"), [(4, 64), (64, 512), (256, 4096)])
@pytest.mark.parametrize("s", [0.5, 0.8, 1.2, 2.0, 4.0, 9.0])
def test_no_gap_is_below_zero(states: int, segment: int, s: float):
    """Real bytes of Gaussians with the best gain, against R(D) = ½ log2 (1 / D) of the sample's own power.

    A sample's power can be known; then R(D) holds up to about log2(N) / N bits, far below the gaps.
    """
    coder = EntropyCodedTrellis(states, segment)
    x = np.random.default_rng(int(10 * s)).standard_normal((4096, 4)) * s
    codes = members(x, coder)
    gain = np.sum(x * codes) / np.sum(codes**2)
    gap = stream_bits(coder.encode(codes)) / x.size - 0.5 * math.log2(np.mean(x**2) / np.mean((x - gain * codes) ** 2))
    assert 0 < gap < 0.2 if s > 1 else gap > 0


def test_gains_are_those_of_noise_of_a_quarter():
    """In columns of a bit or more; x of the variance s² - D with D nearly ¼ gives codes of scale s."""
    coder = EntropyCodedTrellis(64, 4096)
    for s in (1.2, 2.0, 5.0):
        x = np.random.default_rng(1).standard_normal((4096, 4)) * s
        codes = members(x, coder)
        gains = np.sum(x * codes, axis=0) / np.sum(codes.astype(float) ** 2, axis=0)
        found = coder.gains(coder.encode(codes), codes.shape)
        np.testing.assert_allclose(found / 128, gains, rtol=0, atol=0.02)


def test_pinned_bytes():
    """Classes of rows, escapes and low bits: what files hold for good."""
    coder = EntropyCodedTrellis(8, 9, block=1000)
    i, j = np.arange(60)[:, None], np.arange(50)
    x = ((7 * i * i + 3 * j * j + 5 * i * j) % 23 - 11) * (1.0 + i % 7) * np.where(j == 9, 3000, (1 + j % 5) / 16)
    codes = members(x, coder)
    codes[5, 3] += 4 * 10**5
    stream = coder.encode(codes)
    assert stream[1][2]
    assert_same(coder.decode(stream, codes.shape), codes)
    digest = hashlib.blake2b(bytes(msgpack.packb(stream) or b""), digest_size=8).hexdigest()
    assert digest == "b32e02b1c4364f15"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"states": 5}, "`states` is 5"),
        ({"segment": 0}, "`segment` is 0"),
        ({"block": 0}, "`block` is 0"),
        ({"block": 1 << 40}, "`block` is 1099511627776"),
    ],
)
def test_options_that_no_coder_has(options: dict, message: str):
    with pytest.raises(InvalidInputError, match=message):
        EntropyCodedTrellis(**options)
