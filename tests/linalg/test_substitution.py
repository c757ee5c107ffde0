"""Triangular systems and blocks: the residual is rounding, whatever library holds the right-hand sides."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lattq._array import to_host
from lattq.linalg.substitution import LEAF, divide_blocks, substitute, triangle_times
from tests.strategies import seeds


def lower(seed: int, n: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.tril(rng.uniform(-1, 1, (n, n)), -1) / max(n, 2) ** 0.5 + np.eye(n)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@given(seed=seeds, n=st.sampled_from([1, 2, 7, LEAF, 2 * LEAF + 3]), m=st.integers(1, 4))
def test_the_residual_is_rounding(xp, dtype: type, seed: int, n: int, m: int):
    unit = lower(seed, n)
    right = np.random.default_rng(seed + 1).standard_normal((n, m)).astype(dtype)
    for found_unit in (unit.astype(dtype), np.asfortranarray(unit.astype(dtype))):
        found = xp.asarray(right.copy())
        substitute(xp.asarray(found_unit), found, unit)
        solved = to_host(found).astype(np.float64)
        allowed = 4 * n * np.finfo(dtype).eps * (np.abs(unit) @ np.abs(solved) + np.abs(right))
        assert (np.abs(unit @ solved - right) <= allowed).all()


@pytest.mark.parametrize("below", [True, False], ids=["lower", "upper"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@given(seed=seeds, n=st.integers(1, 9), m=st.integers(1, 4))
def test_a_triangle_times_a_matrix_is_their_product(xp, dtype: type, below: bool, seed: int, n: int, m: int):
    """In any layout of memory; neither factor is written to."""
    triangle = lower(seed, n) if below else lower(seed, n).T
    right = np.random.default_rng(seed + 1).standard_normal((n, m)).astype(dtype)
    for layout in (np.ascontiguousarray, np.asfortranarray):
        given_triangle, given_right = (xp.asarray(layout(x.astype(dtype))) for x in (triangle, right))
        found = to_host(triangle_times(given_triangle, given_right, lower=below)).astype(np.float64)
        allowed = (n + 2) * np.finfo(dtype).eps * (np.abs(triangle) @ np.abs(right))
        assert (np.abs(found - triangle @ right) <= allowed).all()
        np.testing.assert_array_equal(to_host(given_right), right)


@given(seed=seeds, blocks=st.integers(1, 4), size=st.integers(1, 3))
def test_blocks_are_divided_by_their_tiles(xp, seed: int, blocks: int, size: int):
    rng = np.random.default_rng(seed)
    root = rng.standard_normal((blocks, size, size))
    tiles = root @ root.transpose(0, 2, 1) + np.eye(size)
    tiles[0] = 0.0
    x = rng.standard_normal((blocks * size, 3))
    found = to_host(divide_blocks(xp.asarray(x), tiles)).reshape(blocks, size, 3)
    assert not found[0].any()
    for one, tile, part in zip(found[1:], tiles[1:], x.reshape(blocks, size, 3)[1:], strict=True):
        np.testing.assert_allclose(one, np.linalg.solve(tile, part), rtol=1e-9, atol=1e-9)


def test_numbers_are_tiles_of_one():
    x = np.random.default_rng(0).standard_normal((3, 2))
    pivots = np.array([2.0, 0.0, 0.5])
    np.testing.assert_allclose(divide_blocks(x.copy(), pivots), divide_blocks(x, pivots[:, None, None]), rtol=1e-15)
