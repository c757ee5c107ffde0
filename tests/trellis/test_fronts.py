"""The entropy coder of trellis codes along fronts: exact, of the size that its tables say, and safe to read."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lattq.coding.fronts import Fronts
from lattq.coding.squares import square_classes
from lattq.coding.twoway import read_scales
from lattq.errors import DamagedFileError, InvalidInputError
from lattq.trellis import EntropyCodedTrellis, TrellisCode
from lattq.trellis.coder import square_gains
from lattq.trellis.codes import segments
from lattq.trellis.fronts import FrontTrellis
from tests.contracts import stream_bits
from tests.damage import damaged_streams, refusal_allowed
from tests.helpers import assert_same
from tests.strategies import seeds
from tests.trellis.test_coder import SLOTS, table_bits


def members(seed: int, shape: tuple[int, int], coder: FrontTrellis, low: float = -2, high: float = 5) -> np.ndarray:
    """Nearest sequences along the fronts, for Gaussians whose rows and columns have scales of their own."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shape) * np.exp2(rng.uniform(low, high, shape[1]))
    x *= np.exp(0.5 * rng.standard_normal((shape[0], 1)))
    fronts, codes = Fronts(*shape, coder.height), np.zeros(shape[0] * shape[1], dtype=np.int32)
    for k in range(fronts.number):
        places = fronts.places(k, k + 1)
        for cut in segments(len(places), coder.segment):
            codes[places[cut]] = coder.code.nearest(x.reshape(-1)[places[cut]])
    return codes.reshape(shape)


@given(
    seed=seeds,
    groups=st.integers(1, 4),
    height=st.integers(1, 12),
    columns=st.integers(1, 12),
    states=st.sampled_from([4, 256, 2048]),
    segment=st.integers(1, 17),
    block=st.sampled_from([1, 30, 1 << 22]),
)
def test_sequences_along_fronts_survive(
    seed: int, groups: int, height: int, columns: int, states: int, segment: int, block: int
):
    coder = FrontTrellis(states, segment, height, block)
    codes = members(seed, (groups * height, columns), coder)
    assert_same(coder.decode(coder.encode(codes), codes.shape), codes)


@pytest.mark.parametrize("height", [1, 20, 60])
def test_the_size_is_what_the_tables_say(height: int):
    """Codes given their parity under the frozen tables, and nothing for the layout."""
    coder = FrontTrellis(16, 50, height)
    codes = members(0, (60, 80), coder, -1, 3)
    stream = coder.encode(codes)
    ideal = table_bits(codes, square_classes(read_scales(stream[:-1], codes.shape, 0)))
    assert ideal - 8 <= stream_bits(stream[-1]) <= ideal * (1 + SLOTS) + 72 * len(stream[-1])


def test_fronts_of_one_row_are_columns():
    """Then the stream is as long as that of the coder of columns, and the classes are the same."""
    codes = members(1, (64, 30), FrontTrellis(8, 20, 1))
    along, down = FrontTrellis(8, 20, 1).encode(codes), EntropyCodedTrellis(8, 20).encode(codes)
    assert along[:3] == down[:3]
    assert abs(stream_bits(along) - stream_bits(down)) <= 64


@given(seed=seeds, data=st.data())
def test_damaged_streams_are_refused_or_give_the_right_shape(seed: int, data: st.DataObject):
    coder = FrontTrellis(8, 4, 3, block=20)
    damaged = data.draw(damaged_streams(coder.encode(members(seed, (9, 7), coder))))
    with refusal_allowed():
        found = coder.decode(damaged, (9, 7))
        assert found.shape == (9, 7)
        assert found.dtype == np.int32


@given(seed=seeds, prior=st.lists(st.integers(-40, 40), min_size=9, max_size=9))
def test_a_prior_changes_the_size_and_nothing_else(seed: int, prior: list[int]):
    coder, guess = FrontTrellis(8, 5, 5), np.array(prior)
    codes = members(seed, (15, 9), coder)
    stream = coder.encode(codes, guess)
    assert_same(coder.decode(stream, codes.shape, guess), codes)
    assert_same(
        coder.gains(stream, codes.shape, guess), square_gains(read_scales(stream[:-1], codes.shape, guess).columns)
    )


def test_zeros_cost_a_few_bytes_and_other_sequences_are_refused():
    coder = FrontTrellis(256, height=20)
    assert stream_bits(coder.encode(np.zeros((40, 30), dtype=np.int32))) <= 8 * 40
    with pytest.raises(InvalidInputError, match="fronts of 20 rows are no sequences of this code: code 1 at index 0"):
        coder.encode(np.ones((40, 30), dtype=np.int32))
    with pytest.raises(InvalidInputError, match="`height` is 7, which does not divide 40 rows"):
        FrontTrellis(8, height=7).encode(np.zeros((40, 30), dtype=np.int32))
    with pytest.raises(DamagedFileError, match="`height` is 7"):
        FrontTrellis.from_state(FrontTrellis(8, height=7).to_state(), (40, 30))


def test_inputs_ignore_what_lies_behind_an_end():
    code = TrellisCode(4)
    codes = np.array([[0, 2, -1, 3], [0, 2, 1, 1]])
    with pytest.raises(InvalidInputError, match="parity"):
        code.inputs(codes)
    found = code.inputs(codes, np.array([4, 2]))
    assert_same(found[0], code.inputs(codes[0]))
    assert_same(found[1, :2], code.inputs(codes[1, :2]))
