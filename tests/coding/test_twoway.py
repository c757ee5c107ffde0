"""The two-way entropy coder: exact for any integers, close to the ideal code where its model holds."""

import hashlib

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_ndtr

from lattq.coding import TwoWay
from lattq.coding.integers import encode_integers
from lattq.coding.tables import CLASSES, SHARE, TOTAL, gaussian_counts, limit
from lattq.coding.twoway import TwoWayModel
from tests.contracts import CoderContract, stream_bits
from tests.damage import damaged_streams, refusal_allowed
from tests.helpers import assert_same
from tests.strategies import seeds

LARGEST = 2**31 - 1


def model_bits(codes: np.ndarray, classes: np.ndarray) -> float:
    """Bits of codes under the frozen tables; an escape is a number of at most five bytes beside them."""
    bits = 0.0
    for index in np.unique(classes):
        shift = min(max(0, -((CLASSES - 1 - index) // 8)), 24)
        group = np.abs(codes[classes == index] >> shift)
        counts, bound = gaussian_counts(int(index - 8 * shift)), limit(int(index - 8 * shift))
        outside = group > bound
        found = np.where(outside, counts[-1], counts[np.where(outside, 0, group) + bound])
        bits += np.sum(shift - np.log2(found / TOTAL)) + 48 * np.sum(outside)
    return float(bits)


class TwoWayContract(CoderContract):
    low, high = -LARGEST, LARGEST
    block = 1 << 20

    def coder(self) -> TwoWay:
        return TwoWay(self.block)

    def model(self, codes: np.ndarray) -> tuple[TwoWayModel, list]:
        return self.coder().read_model(self.coder().encode(codes), codes.shape)

    def ideal_bits(self, codes: np.ndarray) -> float:
        return model_bits(codes, self.model(codes)[0].classes())

    def overhead_bits(self, codes: np.ndarray) -> float:
        """Ten bytes for each stream, and what the model's own integers take."""
        model, streams = self.model(codes)
        sides = [encode_integers(model.rows), encode_integers(model.columns)]
        return 80 * len(streams) + stream_bits([model.noise, *sides]) + 16


class TestTwoWay(TwoWayContract):
    pass


class TestSmallBlocks(TwoWayContract):
    block = 16


@pytest.mark.parametrize("spread", [0.0, 0.2, 1e3, 1e6, 1e8])
def test_any_scale_costs_what_the_model_says(spread: float):
    contract = TestTwoWay()
    codes = np.rint(spread * np.random.default_rng(1).standard_normal((40, 30))).astype(np.int32)
    size = stream_bits(contract.check_round_trip(codes))
    assert size <= contract.ideal_bits(codes) + contract.overhead_bits(codes)


@given(seed=seeds, rows=st.integers(1, 30), columns=st.integers(1, 12), kind=st.integers(0, 4), log=st.floats(-3, 28))
def test_any_distribution_survives(seed: int, rows: int, columns: int, kind: int, log: float):
    """Heavy tails that escape, two-way scales over many octaves, sparse outliers, bits, and everything huge."""
    rng = np.random.default_rng(seed)
    normal = rng.standard_normal((rows, columns))
    codes = [
        lambda: 2.0**log * rng.standard_cauchy((rows, columns)),
        lambda: normal * np.exp2(rng.uniform(-3, log, columns)) * np.exp2(rng.uniform(-2, 2, (rows, 1))),
        lambda: 2.0**log * normal * (rng.random((rows, columns)) < 0.1),
        lambda: rng.integers(0, 2, (rows, columns)) * 2.0**log,
        lambda: rng.integers(-LARGEST, LARGEST, (rows, columns)),
    ][kind]()
    TestTwoWay().check_round_trip(np.clip(np.rint(codes), -LARGEST, LARGEST).astype(np.int32))


@pytest.mark.parametrize("shape", [(1, 500), (500, 1), (40, 30)])
def test_all_zero_costs_a_few_bytes(shape: tuple[int, int]):
    assert stream_bits(TestTwoWay().check_round_trip(np.zeros(shape, dtype=np.int32))) <= 8 * 25


def two_way_codes(seed: int, rows: int, columns: int, noise: float) -> tuple[np.ndarray, float]:
    """Rounded N(0, noise² + (r c)²) with row and column scales, and their information content in bits."""
    rng = np.random.default_rng(seed)
    r, c = np.exp2(0.5 * rng.standard_normal((rows, 1))), np.exp2(1.5 + rng.standard_normal(columns))
    scale = np.sqrt(noise**2 + (r * c) ** 2)
    codes = np.rint(rng.standard_normal((rows, columns)) * scale)
    far = -np.abs(codes)
    upper, lower = log_ndtr((far + 0.5) / scale), log_ndtr((far - 0.5) / scale)
    information = -(upper + np.log1p(-np.exp(lower - upper))) / np.log(2)
    return codes.astype(np.int32), float(information.sum())


@pytest.mark.parametrize("noise", [0.0, 0.5])
@pytest.mark.parametrize("shape", [(300, 200), (64, 512), (512, 64)])
def test_two_way_gaussians_cost_their_information(shape: tuple[int, int], noise: float):
    """The grid of scales costs 0.003 bit a symbol; a class costs the entropy of the scale it stands for.

    Scales are lognormal with 4 and 8 classes a standard deviation, so the classes have log2(4.13 · 4) and
    log2(4.13 · 8) bits; then there are lists, models and the states of five coders.
    """
    codes, information = two_way_codes(3, *shape, noise)
    size = stream_bits(TestTwoWay().check_round_trip(codes))
    allowed = 0.003 * codes.size + 4.05 * shape[0] + 5.05 * shape[1] + 5 * 64 + 8 * 20
    assert information - 40 <= size <= information + allowed


def test_row_scales_are_worth_their_classes():
    """Negative control: rows without their scales cost far more than the bound above leaves room for."""
    codes, information = two_way_codes(3, 300, 200, 0.0)
    shuffled = np.random.default_rng(0).permuted(codes, axis=0)  # each column keeps its histogram
    excess = (stream_bits(TwoWay().encode(shuffled)) - information) / codes.size
    assert excess > 0.05


def test_equal_rows_cost_no_classes():
    codes = np.rint(np.random.default_rng(5).standard_normal((2000, 30)) * 3).astype(np.int32)
    model, _ = TestTwoWay().model(codes)
    assert not model.rows.any()


def test_shares_are_the_formula():
    """16 (1 - 4^(-i/8)) rounded: what a column keeps of the row factor i eighths of an octave above the noise."""
    formula = 16 * (1 - 4.0 ** (-np.arange(len(SHARE)) / 8))
    np.testing.assert_allclose(SHARE, formula, atol=0.5)
    assert (SHARE[0], SHARE[-1]) == (0, 16)


@given(seed=seeds, data=st.data(), block=st.sampled_from([1, 13, 40, 1 << 18]), rows=st.integers(1, 20))
def test_random_access_is_a_part_of_the_whole(seed: int, data: st.DataObject, block: int, rows: int):
    codes = two_way_codes(seed, rows, 17, 0.3)[0]
    coder = TwoWay(block)
    stream = coder.encode(codes)
    columns = data.draw(st.slices(17))
    assert_same(coder.decode(stream, codes.shape, columns=columns), codes[:, columns])


def test_random_access_reads_only_the_blocks_it_needs():
    codes = two_way_codes(0, 20, 16, 0.3)[0]
    coder = TwoWay(block=40)  # two columns a block
    stream = coder.encode(codes)
    noise, rows, columns, blocks = stream
    spoilt = [noise, rows, columns, [blocks[0], b"", *blocks[2:]]]
    assert_same(coder.decode(spoilt, codes.shape, columns=slice(4, 9)), codes[:, 4:9])


@given(seed=seeds, prior=st.lists(st.integers(-40, 40), min_size=9, max_size=9))
def test_codes_come_back_with_any_prior(seed: int, prior: list[int]):
    codes, guess = two_way_codes(seed, 15, 9, 0.3)[0], np.array(prior)
    stream = TwoWay().encode(codes, guess)
    assert_same(TwoWay().decode(stream, codes.shape, guess), codes)


def test_a_good_prior_saves_the_column_classes():
    codes = two_way_codes(1, 30, 300, 0.0)[0]
    found = TestTwoWay().model(codes)[0].columns
    saved = stream_bits(TwoWay().encode(codes)) - stream_bits(TwoWay().encode(codes, found))
    assert saved >= 3 * 300


def test_pinned_bytes():
    codes = np.array([[0, 5, -1, 40], [1, -9, 0, 33], [0, 2, 0, -1000], [-1, 7, 0, 12]], dtype=np.int32)
    columns = [33, 66, bytes.fromhex("0056cbb033")]
    blocks = [bytes.fromhex(words) for words in ("005df301689e", "00550004745001fb")]
    pinned = [-1000, [0, 0, b""], columns, blocks]
    assert TwoWay(block=8).encode(codes) == pinned
    assert_same(TwoWay(block=8).decode(pinned, (4, 4)), codes)


def test_pinned_bytes_of_row_and_column_scales():
    """A message that uses every part of the format: noise, classes of rows and columns, escapes, low bits."""
    i, j = np.arange(60)[:, None], np.arange(50)
    codes = ((7 * i * i + 3 * j * j + 5 * i * j) % 23 - 11) * (1 + i % 7) * np.where(j == 9, 3000, 1 + j % 5) // 4
    codes[5, 3] = 10**6
    stream = TwoWay(block=1000).encode(codes.astype(np.int32))
    assert stream[1][2]
    digest = hashlib.blake2b(bytes(msgpack.packb(stream) or b""), digest_size=8).hexdigest()
    assert digest == "9df52beceab2686a"


@given(seed=seeds, data=st.data(), heavy=st.booleans())
def test_damaged_streams_are_refused_or_give_the_right_shape(seed: int, data: st.DataObject, heavy: bool):
    rng = np.random.default_rng(seed)
    raw = rng.standard_t(1, (9, 7)) if heavy else rng.standard_normal((9, 7))
    coder = TwoWay(block=20)
    damaged = data.draw(damaged_streams(coder.encode(np.rint(5 * raw).astype(np.int32))))
    with refusal_allowed():
        assert coder.decode(damaged, (9, 7)).shape == (9, 7)
