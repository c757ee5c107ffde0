"""Hadamard matrices are exactly orthogonal; the fast transforms equal them."""

import math
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lattq._array import to_host
from lattq.errors import InvalidInputError
from lattq.linalg.hadamard import fwht, hadamard_matrix, hadamard_transform, random_signs, randomized_hadamard
from lattq.linalg.hadamard_bases import base_matrix, has_base
from tests.helpers import assert_same
from tests.strategies import seeds

BASES = [m for m in range(4, 350, 4) if has_base(m)]
# Widths of real models, from a sentence encoder to 70 billion parameters.
WIDTHS = [384, 576, 768, 896, 1024, 1536, 2048, 2560, 3072, 3584, 4096, 4864, 5120, 6144, 6656, 6912, 8192, 8960]
WIDTHS += [9216, 9728, 10240, 11008, 11776, 12288, 13824, 14336, 14848, 18944, 19968, 22016, 25600, 28672, 53248]


def assert_hadamard(matrix: np.ndarray) -> None:
    """Assert entries +-1 and exactly orthogonal rows."""
    n = len(matrix)
    assert np.array_equal(np.abs(matrix), np.ones((n, n)))
    wide = matrix.astype(np.float64)  # integers below 2^53: the product is exact
    assert np.array_equal(wide @ wide.T, n * np.eye(n))


def sylvester(n: int) -> np.ndarray:
    """Return the matrix of signs (-1)^popcount(i & j)."""
    index = np.arange(n)
    return np.array([[1.0 - 2.0 * ((i & j).bit_count() % 2) for j in index.tolist()] for i in index.tolist()])


@pytest.mark.parametrize("m", BASES)
def test_every_base_is_exactly_orthogonal(m: int):
    assert_hadamard(base_matrix(m))


def test_a_flipped_sign_is_noticed():
    matrix = base_matrix(172).copy()
    matrix[3, 100] *= -1
    with pytest.raises(AssertionError):
        assert_hadamard(matrix)


def test_bases_that_paley_alone_lacks():
    assert {92, 116, 156, 172} <= set(BASES)
    assert [m for m in range(4, 240, 4) if m not in BASES and m & (m - 1) and not _doubles(m)] == [188, 236]


def _doubles(m: int) -> bool:
    return m % 8 == 0 and (m // 2 in BASES or _doubles(m // 2))


@pytest.mark.parametrize("n", [1, 2, 4, 12, 24, 40, 52, 100, 184, 344, 576])
def test_matrices(n: int):
    assert_hadamard(hadamard_matrix(n))


def test_powers_of_two_are_sylvesters():
    for n in (1, 2, 8, 64):
        assert_same(hadamard_matrix(n), sylvester(n).astype(np.int8))


@pytest.mark.parametrize("n", WIDTHS)
def test_widths_of_models_rotate_and_return(n: int):
    x = np.random.default_rng(n).standard_normal((2, n)).astype(np.float32)
    y = hadamard_transform(x)
    bound = 16 * math.log2(n) * float(np.finfo(np.float32).eps)
    np.testing.assert_allclose(np.linalg.norm(y, axis=1), np.linalg.norm(x, axis=1), rtol=bound)
    np.testing.assert_allclose(hadamard_transform(y, inverse=True), x, atol=bound * float(np.max(np.abs(x))))
    spike = np.zeros(n)
    spike[n // 3] = math.sqrt(n)
    np.testing.assert_allclose(np.abs(hadamard_transform(spike)), 1.0, rtol=1e-12)


@given(power=st.integers(0, 6), rows=st.integers(0, 3), seed=seeds)
def test_fwht_is_exact_on_integers(power: int, rows: int, seed: int):
    x = np.random.default_rng(seed).integers(-1000, 1000, size=(rows, 2**power))
    assert_same(fwht(x), x @ sylvester(2**power).astype(np.int64))


@pytest.mark.parametrize("axis", [0, 1, -1, -3])
def test_fwht_along_any_axis(xp: ModuleType, axis: int, rng: np.random.Generator):
    x = rng.integers(-8, 9, size=(4, 8, 16)).astype(np.float32)
    matrix = sylvester(x.shape[axis]).astype(np.float32)
    wanted = np.moveaxis(np.moveaxis(x, axis, -1) @ matrix, -1, axis)
    assert_same(fwht(xp.asarray(x), axis=axis), xp.asarray(wanted))
    scaled = fwht(fwht(xp.asarray(x), axis=axis, orthonormal=True), axis=axis, orthonormal=True)
    assert float(xp.max(xp.abs(scaled - xp.asarray(x)))) < 1e-5


@pytest.mark.parametrize("n", [2, 12, 24, 52, 184])
@pytest.mark.parametrize("inverse", [False, True])
def test_the_transform_is_the_matrix(xp: ModuleType, n: int, inverse: bool, rng: np.random.Generator):
    x = rng.standard_normal((2, 3, n))
    matrix = hadamard_matrix(n) / math.sqrt(n)
    wanted = x @ (matrix.T if inverse else matrix)
    bound = 4 * n * np.finfo(np.float64).eps * np.max(np.abs(x))
    got = hadamard_transform(xp.asarray(x), inverse=inverse)
    np.testing.assert_allclose(to_host(got), wanted, atol=bound)
    columns = hadamard_transform(xp.asarray(np.ascontiguousarray(np.moveaxis(x, -1, 0))), axis=0, inverse=inverse)
    np.testing.assert_allclose(np.moveaxis(to_host(columns), 0, -1), wanted, atol=bound)


@pytest.mark.parametrize("n", [16, 20])
def test_randomized_rotation(xp: ModuleType, n: int, rng: np.random.Generator):
    x = rng.standard_normal((5, n)).astype(np.float32)
    rotation = np.diag(random_signs(n, seed=7)) @ hadamard_matrix(n) / math.sqrt(n)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(n), atol=1e-14)
    y = randomized_hadamard(xp.asarray(x), seed=7)
    assert y.dtype == xp.float32
    np.testing.assert_allclose(to_host(y), x @ rotation, atol=1e-5)
    back = randomized_hadamard(y, seed=7, inverse=True)
    np.testing.assert_allclose(to_host(back), x, atol=1e-5)
    assert np.max(np.abs(to_host(randomized_hadamard(y, seed=8, inverse=True)) - x)) > 0.1
    if n == 16:  # additions in one order: the same bits everywhere
        assert_same(y, xp.asarray(randomized_hadamard(x, seed=7)))


def test_signs_are_pinned():
    signs = random_signs(200, seed=12345)
    assert signs.tobytes().hex()[:64] == "010101010101ff01ff0101ffffffff01010101ff010101ff0101010101ffffff"
    assert np.array_equal(signs[:70], random_signs(70, seed=12345))


def test_signs_are_balanced():
    # 2^16 fair signs: the mean has a standard error of 2^-8.
    for seed in range(4):
        assert abs(float(np.mean(random_signs(2**16, seed)))) < 5 / 2**8
    assert not np.array_equal(random_signs(64, 0), random_signs(64, 1))


@pytest.mark.parametrize(
    ("n", "message"),
    [(6, "nearest sizes are 4 and 8"), (188, "nearest sizes are 184 and 192"), (13696, "nearest sizes are 136")],
)
def test_sizes_without_a_matrix_name_their_neighbours(n: int, message: str):
    for function in (
        hadamard_matrix,
        lambda n: hadamard_transform(np.zeros(n)),
        lambda n: randomized_hadamard(np.zeros(n), 0),
    ):
        with pytest.raises(InvalidInputError, match=f"size {n} .*{message}"):
            function(n)


def test_what_does_not_fit_is_named():
    with pytest.raises(InvalidInputError, match="axis 0 of `x` has length 12"):
        fwht(np.zeros((12, 4)), axis=0)
    with pytest.raises(InvalidInputError, match="size 0"):
        hadamard_matrix(0)
    with pytest.raises(InvalidInputError, match="`seed` is -1"):
        random_signs(4, seed=-1)
