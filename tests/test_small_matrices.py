"""Matrices of a few rows: side information is there only where it pays, and a wanted rate is reached."""

import functools
import math
import types
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import lattq as lq
from lattq._options import power_of_two
from lattq._step_search import GRID, TOLERANCE, Octaves, search_step
from lattq.coding import TwoWay
from lattq.coding.integers import cheapest, encode_integers
from lattq.coding.interleaved import decode_symbols, encode_symbols, packed_words, read_words
from lattq.coding.slots import gaussians, kinds_of_codes
from lattq.feedback.rules import column_scale
from lattq.linalg import ldl
from lattq.transforms import Diagonal, Equalize
from lattq.transforms.chains import from_state, to_state
from tests.damage import refusal_allowed
from tests.helpers import assert_same

TRELLIS = functools.partial(lq.recipes.watersic, quantizer=lq.quantizers.Trellis(8))
LATTICE = functools.partial(lq.recipes.watersic, quantizer=lq.quantizers.Lattice(lq.lattices.E8))
SHRUNK = functools.partial(lq.recipes.huffman_gptq, shrink=True)


def gaussian(rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """White weights of standard deviation 0.02, inputs of twice as many samples as columns."""
    rng = np.random.default_rng(rows)
    weight, inputs = 0.02 * rng.standard_normal((rows, columns)), rng.standard_normal((2 * columns, columns))
    return weight, inputs.T @ inputs / len(inputs)


@pytest.mark.parametrize(
    ("rows", "recipe"),
    [
        (1, lq.recipes.watersic),
        (1, LATTICE),
        (2, SHRUNK),
        (4, lq.recipes.huffman_gptq),
        (4, TRELLIS),
    ],
)
def test_a_few_rows_of_1024_columns_reach_two_bits(rows: int, recipe: Any):
    """Within 0.005 bit or one byte, and not below the bound for the variances that they were drawn with."""
    weight, sigma = gaussian(rows, 1024)
    found = lq.at_rate(2.0, recipe, weight, sigma)
    assert abs(found.rate - 2.0) <= max(TOLERANCE, 8 / weight.size)
    bound = lq.bounds.layer_rate(sigma, found.distortion(weight, sigma), 4e-4 * np.ones(rows), np.ones(1024))
    assert found.rate > bound


@pytest.mark.parametrize("rows", [1, 2, 4])
@pytest.mark.parametrize("quantizer", [lq.quantizers.Uniform(), lq.quantizers.Trellis(8), lq.quantizers.Lattice()])
def test_white_weights_pay_for_no_scales(rows: int, quantizer: Any):
    """What is no code, gain or class is a header: the same for 64 and for 256 columns, to 8 bytes."""
    sizes = []
    for columns in (64, 256):
        weight, sigma = gaussian(rows, columns)
        found = lq.quantize(weight, sigma, lq.recipes.watersic(0.02, quantizer=quantizer))
        *scales, _ = found.coded
        sizes.append(sum(len(part[2]) for part in scales if isinstance(part, list)))
        sizes.append(sum(len(part) for part in found.transform.to_state() if isinstance(part, bytes)))
    assert sizes == [0] * 4


def test_columns_that_differ_keep_their_own_scales():
    """A factor of 16 between columns is worth 2 bits a code; in a hundred rows that pays for any class."""
    rng = np.random.default_rng(0)
    scales = np.repeat([1.0, 16.0], 32)
    codes = np.rint(rng.standard_normal((100, 64)) * rng.permutation(scales)).astype(np.int64)
    own = sum(len(TwoWay().encode(codes[:, [j]])[-1][0]) for j in range(64))
    _, _, columns, streams = TwoWay().encode(codes)
    assert len(columns[2]) > 0
    assert len(streams[0]) + len(columns[2]) < own + 64 * 2


@given(seed=st.integers(0, 2**32 - 1), columns=st.integers(1, 40), rows=st.sampled_from([0.1, 1.0, 100.0]))
def test_the_choice_of_integers_is_never_dearer_than_each_alone_or_one_for_all(seed: int, columns: int, rows: float):
    rng = np.random.default_rng(seed)
    bits = rows * np.square(np.arange(20) - rng.normal(8, 3, (columns, 1)))
    values, prior = np.broadcast_to(np.arange(20), bits.shape), rng.integers(-3, 3, columns)
    found, total = cheapest(bits, values, prior)

    def real(chosen: np.ndarray) -> float:
        return float(np.take_along_axis(bits, chosen[:, None], axis=1).sum()) + 8 * len(
            encode_integers(chosen - prior)[2]
        )

    slack = 8 * 4 + 1e-9  # a coder ends in whole bytes, four at most
    assert abs(real(found) - total) <= slack
    assert real(found) <= real(bits.argmin(axis=1)) + slack
    assert (
        real(found)
        <= min(real(np.clip(prior + c, 0, 19)) for c in range(20) if (prior + c >= 0).all() and (prior + c < 20).all())
        + slack
    )


@given(seed=st.integers(0, 2**32 - 1), size=st.integers(0, 60))
def test_streams_end_at_their_last_byte(seed: int, size: int):
    rng = np.random.default_rng(seed)
    symbols, classes = rng.integers(-3, 4, size), rng.integers(1, 40, size)
    kinds = kinds_of_codes()[classes]
    stream = encode_symbols(symbols, kinds, gaussians())
    assert_same(decode_symbols(stream, kinds, gaussians()), symbols)
    if size:
        assert packed_words(*read_words(stream)) == stream
    for more in (b"\0", b"\0\0"):
        with refusal_allowed():
            assert (decode_symbols(stream + more, kinds, gaussians()) != symbols).any()


def test_fewer_rows_have_coarser_scales():
    """With one row one scale serves all; with very many the grid is the finest, and pivots are within 1/32 octave."""
    factor = ldl(np.diag(np.exp2(np.random.default_rng(0).uniform(-1, 1, 200))))
    sizes = [len(Equalize()(factor, rows).to_state()[3]) for rows in (1, 16, 256, 1 << 20)]
    assert sizes[0] == 0
    assert sizes == sorted(sizes)
    fine = Equalize()(factor, 1 << 20).scale[factor.order] / np.sqrt(factor.pivots)
    assert np.abs(np.log2(fine)).max() <= 1 / 32 + 1e-12


@given(
    first=st.integers(-2000, 2000),
    stride=st.sampled_from([1, 2, 3, 4, 64, 128]),
    places=st.lists(st.integers(-40, 40), min_size=1),
)
def test_scales_on_any_grid_are_restored(first: int, stride: int, places: list[int]):
    scale = Diagonal(np.array([2.0 ** ((first + stride * k) / 16) for k in places]))
    state = to_state(scale)
    restored: Any = from_state(state, len(places))
    assert restored.scale.tobytes() == scale.scale.tobytes()


def test_scales_of_columns_are_drawn_together_where_rows_are_few():
    """Of equal variances, the estimates of one row scatter by 4 octaves and more; shrunk ones by less than a tenth."""
    rng = np.random.default_rng(3)
    for rows, most in ((1, 0.4), (4, 0.3), (1000, 0.05)):
        assert np.log2(column_scale(rng.standard_normal((rows, 500)))).std() < most
    different = np.exp2(rng.uniform(-3, 3, 500))
    found = column_scale(different * rng.standard_normal((64, 500)))
    assert np.abs(np.log2(found / different)).max() < 1.0


@given(offset=st.floats(-3, 3), target=st.floats(0.5, 8), noise=st.floats(-1e-6, 1e-6))
def test_searched_steps_lie_on_a_grid_that_rounding_does_not_move(offset: float, target: float, noise: float):
    """Rates that differ in their last digits, as on another processor, give the same step but at ties."""
    paths = []
    for moved in (0.0, noise):
        tried: list[float] = []

        def encode(step: float, moved: float = moved, tried: list[float] = tried) -> Any:
            tried.append(step)
            return types.SimpleNamespace(rate=offset + moved - math.log2(step) + 0.1 * math.sin(math.log2(step)))

        search_step(target, 1.0 + moved, encode, Octaves(), encodes=12)
        paths.append(tried)
    assert all(step == power_of_two(round(GRID * math.log2(step)), GRID) for step in paths[0])
    assert abs(math.log2(paths[0][-1] / paths[1][-1])) <= 1.001 / GRID
