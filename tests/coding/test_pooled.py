"""One histogram for all codes: the plug-in entropy in real bytes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lattq.coding import Pooled, TwoWay
from lattq.errors import InvalidInputError
from tests.contracts import CoderContract, stream_bits
from tests.damage import damaged_streams, refusal_allowed
from tests.strategies import seeds


def plug_in_bits(codes: np.ndarray) -> float:
    """Size times the entropy of the histogram."""
    counts = np.unique(codes, return_counts=True)[1]
    return float(-(counts * np.log2(counts / codes.size)).sum())


class TestPooled(CoderContract):
    low, high = -(2**11), 2**11

    def coder(self) -> Pooled:
        return Pooled()

    def ideal_bits(self, codes: np.ndarray) -> float:
        return plug_in_bits(codes)

    def overhead_bits(self, codes: np.ndarray) -> float:
        """For each value between the extremes its count in whole bytes and the base-9 digit that says how many.

        The state of the coder is 64 bits; five items of the list, their numbers in at most four bytes.
        """
        values = np.arange(codes.min(), codes.max() + 1)
        counts = (codes.ravel()[None, :] == values[:, None]).sum(axis=1)
        stored = sum(8 * -(-int(count).bit_length() // 8) for count in counts)
        return stored + 3.3 * len(values) + 64 + 8 * 6 + 2 * 32 + 16


@given(seed=seeds, scale=st.sampled_from([0.0, 0.3, 1.0, 20.0, 3000.0]), cauchy=st.booleans())
def test_any_spread_of_codes_survives(seed: int, scale: float, cauchy: bool):
    rng = np.random.default_rng(seed)
    raw = rng.standard_cauchy((17, 9)) if cauchy else rng.standard_normal((17, 9))
    TestPooled().check_round_trip(np.clip(np.rint(scale * raw), -(2**15), 2**15 - 1).astype(np.int32))


@pytest.mark.parametrize("centre", [2**31 - 5, -(2**31) + 4])
def test_codes_far_from_zero_survive(centre: int):
    codes = np.random.default_rng(0).integers(-4, 5, (20, 3)) + centre
    TestPooled().check_round_trip(codes.astype(np.int32))


def test_the_widest_histogram_survives():
    TestPooled().check_round_trip(np.array([[-(2**15), 0, 2**15 - 1]], dtype=np.int32))


def test_more_values_than_a_histogram_holds_are_refused():
    with pytest.raises(InvalidInputError, match=r"span 0 \.\.\. 65536"):
        Pooled().encode(np.array([[0, 65536]], dtype=np.int32))


def test_scales_cost_what_the_histogram_cannot_see():
    """Columns of two scales: a pooled histogram pays for the mixture, the two-way model does not."""
    rng = np.random.default_rng(1)
    codes = np.rint(rng.standard_normal((500, 40)) * np.where(np.arange(40) % 2, 20.0, 1.0)).astype(np.int32)
    pooled, two_way = (stream_bits(coder.encode(codes)) / codes.size for coder in (Pooled(), TwoWay()))
    assert pooled - two_way > 0.3


def test_pinned_bytes():
    codes = np.array([[0, 1, -1, 0, 0, 2], [0, 0, 1, 0, -4, 0]], dtype=np.int32)
    low, size, sizes, counts, words = Pooled().encode(codes)
    assert (low, size, sizes.hex()) == (-4, 7, "7b1c0a")
    assert (counts.hex(), words.hex()) == ("0101070201", "00a6293e81")


@given(seed=seeds, data=st.data())
def test_damaged_streams_are_refused_or_give_the_right_shape(seed: int, data: st.DataObject):
    codes = np.rint(np.random.default_rng(seed).standard_normal((9, 7)) * 5).astype(np.int32)
    damaged = data.draw(damaged_streams(Pooled().encode(codes)))
    with refusal_allowed():
        assert Pooled().decode(damaged, (9, 7)).shape == (9, 7)
