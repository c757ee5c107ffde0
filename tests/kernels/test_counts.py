"""Passes over codes: exactly what the operations of NumPy give, one after the other."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lattq.coding.fronts import Fronts
from lattq.kernels import counts
from lattq.trellis import TrellisCode
from lattq.trellis.coder import walk_labels
from lattq.trellis.codes import segments
from lattq.trellis.fronts import _cuts
from tests.helpers import assert_same
from tests.strategies import seeds


def drawn(seed: int) -> tuple[np.random.Generator, np.ndarray, np.ndarray]:
    """Codes, and some of their rows."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(-40, 41, rng.integers(1, 12, 2), dtype=np.int32)
    codes[rng.integers(len(codes)), rng.integers(codes.shape[1])] = -(2**31) + 1
    return rng, codes, np.flatnonzero(rng.random(len(codes)) < 0.7)


@given(seed=seeds)
def test_squares_and_magnitudes_of_some_rows(seed: int):
    rng, codes, rows = drawn(seed)
    sums, shift = np.zeros(codes.shape[1]), rng.integers(0, 5, codes.shape[1])
    counts.squares(codes, rows, sums)
    assert_same(sums, np.square(codes[rows], dtype=np.float64).sum(axis=0))
    found = np.zeros((codes.shape[1], 24), dtype=np.int32)
    counts.magnitudes(codes, rows, shift, 23, found)
    magnitudes = np.minimum(np.abs(codes[rows].astype(np.int64)) >> shift, 23)
    assert_same(found, np.sum(magnitudes[:, :, None] == np.arange(24), axis=0, dtype=np.int32))


@given(seed=seeds)
def test_moments_of_rows(seed: int):
    """Sums in another order differ by at most as many roundings as there are terms, all of one sign."""
    rng, codes, _ = drawn(seed)
    relative, weight, found = *rng.random((2, codes.shape[1])), np.empty((len(codes), 3))
    counts.row_moments(codes, relative, weight, found)
    power = np.square(codes, dtype=np.float64) * relative
    expected = np.stack([power.sum(axis=1), power @ weight, np.square(power).sum(axis=1)], axis=1)
    np.testing.assert_allclose(found, expected, rtol=30 * np.finfo(float).eps)


@given(seed=seeds, centre=st.integers(-9, 9))
def test_the_first_of_the_cheapest_choices(seed: int, centre: int):
    rng = np.random.default_rng(seed)
    bits = rng.integers(0, 4, rng.integers(1, 9, 2)).astype(np.float64)
    bits[rng.random(bits.shape) < 0.2] = np.inf
    differences, lengths = rng.integers(-9, 9, bits.shape), rng.integers(0, 3, 6).astype(np.float64)
    found = np.empty(len(bits), dtype=np.int64)
    counts.cheapest(bits, differences, centre, lengths, 5, found)
    assert_same(found, (bits + lengths[np.minimum(np.abs(differences - centre), 5)]).argmin(axis=1))


@pytest.mark.parametrize("states", [4, 16, 256])
@given(seed=seeds, cut=st.integers(1, 19))
def test_sequences_and_what_differs_from_them_by_one(states: int, seed: int, cut: int):
    rng, code, cuts = np.random.default_rng(seed), TrellisCode(states), np.array([0, cut, 20])
    x = 10 * rng.standard_normal((6, 20))
    codes = np.concatenate([code.nearest(x[:, :cut]), code.nearest(x[:, cut:])], axis=1).T
    assert counts.are_sequences(np.ascontiguousarray(codes), cuts, walk_labels(code))
    broken = np.ascontiguousarray(codes)
    broken[rng.integers(20), rng.integers(6)] += 1
    assert not counts.are_sequences(broken, cuts, walk_labels(code))


@given(seed=seeds, height=st.integers(1, 6), columns=st.integers(1, 9), segment=st.integers(1, 7))
def test_sequences_along_fronts_and_what_differs_from_them_by_one(seed: int, height: int, columns: int, segment: int):
    rng, code, fronts = np.random.default_rng(seed), TrellisCode(16), Fronts(2 * height, columns, height)
    codes = np.zeros(fronts.rows * columns, dtype=np.int32)
    for front in range(fronts.number):
        places = fronts.places(front, front + 1)
        for part in segments(len(places), segment):
            codes[places[part]] = code.nearest(5 * rng.standard_normal(len(places))[part])
    run = range(*np.sort(rng.choice(fronts.number + 1, 2, replace=False)).tolist())
    where = (height, (run.start, run.stop), *_cuts(fronts, run, segment), walk_labels(code))
    assert counts.are_front_sequences(codes.reshape(-1, columns), *where)
    codes[rng.choice(fronts.places(run.start, run.stop))] += 1
    assert not counts.are_front_sequences(codes.reshape(-1, columns), *where)
