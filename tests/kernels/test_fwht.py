"""The compiled transform gives the bits of the generic one."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lattq.kernels import fwht as native
from lattq.linalg import hadamard
from lattq.linalg.hadamard import fwht, hadamard_matrix, hadamard_transform
from tests.strategies import seeds


@given(
    seed=seeds,
    power=st.integers(0, 13),
    rows=st.integers(1, 3),
    divisor=st.sampled_from([1.0, math.sqrt(2), math.sqrt(12), 64.0]),
    dtype=st.sampled_from([np.float32, np.float64]),
)
def test_bits_are_those_of_the_generic_form(seed: int, power: int, rows: int, divisor: float, dtype: type):
    x = np.random.default_rng(seed).standard_normal((rows, 1 << power)).astype(dtype)
    found = native.transform(x, divisor)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, hadamard._generic_sums(x) / divisor)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rows_beyond_the_cache_too(dtype: type):
    x = np.random.default_rng(0).standard_normal((2, 1 << 17)).astype(dtype)
    kept = x.copy()
    np.testing.assert_array_equal(native.transform(x, 1.0), hadamard._generic_sums(x))
    np.testing.assert_array_equal(x, kept)


def test_integers_are_exact_against_the_matrix():
    x = np.random.default_rng(1).integers(-9, 10, (256, 256)).astype(np.float32)
    np.testing.assert_array_equal(native.transform(x, 1.0), x @ hadamard_matrix(256).astype(np.float32))
    turned = native.transform(x[:, np.arange(256) ^ 1].copy(), 1.0)  # the order of the entries matters
    assert not np.array_equal(turned, native.transform(x, 1.0))


@pytest.mark.parametrize("shape", [(40, 2, 2048), (3, 12 * 2048), (70, 28 * 64)])
@pytest.mark.parametrize("axis", [0, -1])
@pytest.mark.parametrize("inverse", [False, True])
def test_public_functions_use_it_without_a_trace(
    shape: tuple[int, ...], axis: int, inverse: bool, monkeypatch: pytest.MonkeyPatch
):
    x = np.moveaxis(np.random.default_rng(2).standard_normal(shape), -1, axis)
    found = hadamard_transform(x, axis=axis, inverse=inverse)
    calls = []
    monkeypatch.setattr(native, "transform", lambda *args: calls.append(args))
    for name in ("NATIVE", "NATIVE_LOADED"):
        monkeypatch.setattr(hadamard, name, 1 << 40)
    np.testing.assert_array_equal(found, hadamard_transform(x, axis=axis, inverse=inverse))
    assert not calls


def test_it_is_used_where_it_pays(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(native, "transform", lambda x, divisor: np.zeros_like(x))
    assert not fwht(np.ones((64, 1024), dtype=np.float32)).any()
    assert fwht(np.ones((64, 1024), dtype=np.int32)).any()
    assert fwht(np.ones((2, 4))).any()
