"""Nearest points: against slow oracles, translated exactly, on every array library, compiled and generic."""

import dataclasses
import math
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lattq._array import to_host
from lattq.errors import InvalidInputError
from lattq.lattices import BW16, E8, A, A_dual, D, D_dual, Lattice, Leech24, Z
from lattq.lattices.codes import code_words, golay, reed_muller
from tests.lattices.test_catalogue import ALL
from tests.oracles.lattice_points import nearest_by_enumeration, nearest_in_box, nearest_in_cosets
from tests.strategies import seeds

COMPILED = [E8, BW16, Leech24]
BOXED = {
    A(2): lambda h: h.sum(axis=-1) == 0,
    A(3): lambda h: h.sum(axis=-1) == 0,
    A_dual(2): lambda h: (h.sum(axis=-1) == 0) & ((h - h[..., :1]) % 3 == 0).all(axis=-1),
    D(3): lambda h: h.sum(axis=-1) % 2 == 0,
    D(4): lambda h: h.sum(axis=-1) % 2 == 0,
    D_dual(3): lambda h: ((h - h[..., :1]) % 2 == 0).all(axis=-1),
    D_dual(4): lambda h: ((h - h[..., :1]) % 2 == 0).all(axis=-1),
}


def generic(lattice: Lattice) -> Lattice:
    """The lattice without compiled code."""
    return dataclasses.replace(lattice, kernel=None)


def squared(x: np.ndarray, points: np.ndarray) -> np.ndarray:
    return ((x - points) ** 2).sum(axis=-1)


def oracle(lattice: Lattice, x: np.ndarray) -> np.ndarray:
    """Squared distances in integer coordinates, over all cosets."""
    if lattice is E8:
        return nearest_in_cosets(x, np.array([[0] * 8, [1] * 8]), 2, False)
    if lattice is BW16:
        return nearest_in_cosets(x, code_words(reed_muller()), 2, False)
    words = code_words(golay())
    return np.minimum(nearest_in_cosets(x, 2 * words, 4, False), nearest_in_cosets(x, 2 * words + 1, 4, True))


def dyadic(seed: int, lattice: Lattice, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Vectors with many ties, and lattice points, in integer coordinates."""
    rng = np.random.default_rng(seed)
    grid = 2 ** int(rng.integers(0, 8))
    x = rng.integers(-8 * grid, 8 * grid + 1, (rows, lattice.generator.shape[1])) / grid
    points = rng.integers(-9, 10, (rows, lattice.dimension)) @ (lattice.integer_scale * lattice.generator)
    return x, np.rint(points)


@given(seed=seeds, index=st.integers(0, len(ALL) - 1))
def test_translations_by_lattice_points_are_exact(seed: int, index: int):
    lattice = ALL[index]
    x, points = dyadic(seed, lattice, 30)
    for form in (lattice, generic(lattice)):
        for dtype in (np.float32, np.float64):
            moved = form.nearest_integer((x + points).astype(dtype))
            np.testing.assert_array_equal(moved, form.nearest_integer(x.astype(dtype)) + points)


@given(seed=seeds, index=st.integers(0, len(COMPILED) - 1))
def test_compiled_points_are_the_generic_ones_ties_included(seed: int, index: int):
    lattice = COMPILED[index]
    x, _ = dyadic(seed, lattice, int(seed % 40))
    for dtype in (np.float32, np.float64):
        found = lattice.nearest_integer(x.astype(dtype))
        assert found.dtype == np.int32
        np.testing.assert_array_equal(found, generic(lattice).nearest_integer(x.astype(dtype)))
        one, other = lattice.nearest(x.astype(dtype)), generic(lattice).nearest(x.astype(dtype))
        assert one.dtype == other.dtype == dtype
        assert np.allclose(squared(x, one), squared(x, other), rtol=1e-5)


@pytest.mark.parametrize("lattice", COMPILED, ids=str)
def test_no_coset_is_nearer(lattice: Lattice, rng: np.random.Generator):
    x = 3 * rng.standard_normal((100_000 if lattice.dimension < 24 else 1000, lattice.dimension))
    least = np.concatenate([oracle(lattice, block) for block in np.array_split(x, max(1, len(x) // 500))])
    np.testing.assert_allclose(squared(x, lattice.nearest_integer(x)), least, rtol=0, atol=1e-9)
    single = lattice.nearest_integer(x.astype(np.float32))
    np.testing.assert_allclose(squared(x, single), least, rtol=0, atol=1e-4)


@pytest.mark.parametrize("lattice", BOXED, ids=str)
def test_no_vector_of_a_box_is_nearer(lattice: Lattice, rng: np.random.Generator):
    x = 4 * rng.standard_normal((30_000 if lattice.dimension < 4 else 6_000, lattice.generator.shape[1]))
    if lattice.name.startswith("A"):
        x -= x.mean(axis=1, keepdims=True)
    least = nearest_in_box(x, BOXED[lattice], math.ceil(lattice.covering_radius * lattice.integer_scale))
    np.testing.assert_allclose(squared(x, lattice.nearest_integer(x)), least, rtol=0, atol=1e-9)


@pytest.mark.parametrize("lattice", [Z(5), A(6), A_dual(6), D(6), D_dual(6), *COMPILED], ids=str)
def test_no_point_of_the_basis_is_nearer(lattice: Lattice, rng: np.random.Generator):
    """From nothing but the generator."""
    for x in rng.standard_normal((100 if lattice.dimension < 16 else 8, lattice.generator.shape[1])):
        flat = x - x.mean() if lattice.name.startswith("A") else x
        distance = squared(flat, lattice.nearest(x))
        least = nearest_by_enumeration(flat, lattice.generator, math.sqrt(distance))
        np.testing.assert_allclose(distance, least, rtol=0, atol=1e-9)


def test_a_bounded_distance_decoder_is_caught(rng: np.random.Generator):
    """Negative control: E8 from one coset where that is within the packing radius, the other one else."""
    x = rng.standard_normal((2000, 8))
    even = D(8).nearest(x)
    other = 0.5 + D(8).nearest(x - 0.5)
    found = np.where(squared(x, even)[:, None] <= 0.5, even, other)
    assert not np.allclose(4 * squared(x, found), oracle(E8, 2 * x))


@pytest.mark.parametrize("lattice", [Z(3), A(3), A_dual(3), D(4), D_dual(3), *COMPILED], ids=str)
def test_every_array_library(lattice: Lattice, xp: ModuleType, rng: np.random.Generator):
    x = rng.integers(-40, 40, (2, 3, lattice.generator.shape[1])) / 8
    form = generic(lattice)
    for dtype in (np.float32, np.float64):
        array = xp.asarray(x.astype(dtype))
        found = form.nearest_integer(array)
        assert found.dtype == xp.int32
        np.testing.assert_array_equal(to_host(found), form.nearest_integer(x.astype(dtype)))
        assert form.nearest(array).dtype == array.dtype
        assert form.nearest(array[:, :0, :]).shape == (2, 0, x.shape[-1])


@pytest.mark.parametrize("lattice", [D(4), *COMPILED], ids=str)
def test_shapes_and_narrow_types(lattice: Lattice, rng: np.random.Generator):
    x = rng.standard_normal((5, 7, lattice.dimension))
    one = np.stack([[lattice.nearest(row) for row in rows] for rows in x])
    np.testing.assert_array_equal(lattice.nearest(x), one)
    np.testing.assert_array_equal(lattice.nearest(np.asfortranarray(x[:, ::2])), one[:, ::2])
    assert lattice.nearest(x.astype(np.float16)).dtype == np.float32
    assert lattice.nearest(x[:0]).shape == (0, 7, lattice.dimension)


@pytest.mark.parametrize("lattice", [D(4), *COMPILED], ids=str)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e12])
def test_values_without_a_nearest_point(lattice: Lattice, bad: float):
    x = np.zeros((40, lattice.dimension))
    x[33, 2] = bad
    for form in (lattice, generic(lattice)):
        with pytest.raises(InvalidInputError, match=r"at index \(33, 2\)"):
            form.nearest(x)
        with pytest.raises(InvalidInputError, match=r"at index \(33, 2\)"):
            form.nearest_integer(x.astype(np.float32))


def test_a_wrong_number_of_coordinates():
    with pytest.raises(InvalidInputError, match=r"shape \(3, 9\); points of E8 have 8 coordinates"):
        E8.nearest(np.zeros((3, 9)))
    with pytest.raises(InvalidInputError, match="points of A\\(2\\) have 3 coordinates"):
        A(2).nearest(np.zeros(2))
