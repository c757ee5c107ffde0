"""The best scale: against all scales, in any units, with zero weights, and for grids of any shape."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lattq.bounds import number_format
from lattq.bounds.formats import E2M1FN, NF4
from lattq.codebooks import best_scales
from lattq.errors import InvalidInputError
from lattq.kernels import scales as native
from tests.strategies import seeds

GRIDS = {
    **{f"{levels} integers": np.arange(-(levels // 2), levels - levels // 2) * 1.0 for levels in (2, 3, 4, 7, 16, 256)},
    "FP4": E2M1FN.values,
    "NF4": NF4.values,
    "FP8": number_format("e4m3fn").values,
    "signs": np.array([-1.0, 1.0]),
    "no zero": np.array([-1.5, -0.5, 0.5, 2.0]),
    "one sign": np.array([0.0, 1.0, 2.0]),
}


def error_at(scale: float, x: np.ndarray, weights: np.ndarray, values: np.ndarray) -> float:
    """By definition: every number against every value."""
    return float(np.sum(weights * np.min((x[:, None] - scale * values) ** 2, axis=1)))


def least(x: np.ndarray, weights: np.ndarray, values: np.ndarray) -> float:
    """Over all places where codes change, and the best scale between them: slow and exact."""
    middles = (values[1:] + values[:-1]) / 2
    places = np.unique(np.abs([a / m for a in x for m in middles if m and a / m > 0]))
    found = float(np.sum(weights * x * x))
    for scale in [*(places[1:] + places[:-1]) / 2, *places[:1] / 2, *2 * places[-1:], 1.0]:
        q = values[np.argmin(np.abs(x[:, None] - scale * values), axis=1)]
        a, b = np.sum(weights * x * q), np.sum(weights * q * q)
        found = min(found, error_at(a / b, x, weights, values)) if a > 0 else found
    return found


@pytest.mark.parametrize("name", GRIDS)
@given(seed=seeds, heavy=st.booleans(), n=st.integers(1, 9))
def test_no_scale_is_better(name: str, seed: int, heavy: bool, n: int):
    rng, values = np.random.default_rng(seed), GRIDS[name]
    x = rng.standard_t(2, (2, n)) if heavy else rng.standard_normal((2, n))
    weights = np.exp(rng.standard_normal(n)) * (rng.random(n) < 0.9)
    found = best_scales(x, values, weights)
    for row, scale, error in zip(x, found.scale, found.error, strict=True):
        power = np.sum(weights * row**2)
        if scale > 0:
            assert abs(error_at(scale, row, weights, values) - error) <= 1e-9 * power
        tried = np.abs(row).max() * np.exp2(np.linspace(-12, 6, 200))
        assert all(error <= error_at(s, row, weights, values) + 1e-9 * power for s in tried)
        if len(values) <= 16:
            assert abs(error - least(row, weights, values)) <= 1e-9 * power


@given(seed=seeds, power=st.integers(-100, 100))
def test_units_do_not_matter(seed: int, power: int):
    x = np.random.default_rng(seed).standard_normal((3, 20))
    plain, scaled = best_scales(x, GRIDS["16 integers"]), best_scales(np.ldexp(x, power), GRIDS["16 integers"])
    np.testing.assert_array_equal(np.ldexp(plain.scale, power), scaled.scale)
    np.testing.assert_array_equal(np.ldexp(plain.error, 2 * power), scaled.error)


@given(seed=seeds, windows=st.integers(1, 40))
def test_large_groups_are_swept_in_windows(seed: int, windows: int):
    """The same scale, however few places are sorted at once."""
    rng = np.random.default_rng(seed)
    x, values = rng.standard_normal((2, 60)), GRIDS["16 integers"]
    whole = best_scales(x, values)
    # numba keeps globals: a window of 4 million places is left only by more numbers
    tiled = best_scales(np.tile(x, (1, windows)), values)
    np.testing.assert_allclose(tiled.error, windows * whole.error, rtol=1e-9)
    assert native.WINDOW == 1 << 22


@given(seed=seeds, levels=st.sampled_from([2, 4, 8, 16]), skew=st.floats(0, 3))
def test_zero_points_are_the_best_downhill(seed: int, levels: int, skew: float):
    """Never above any scale at the zero point of the range, and in the mean at the best of all zero points."""
    x = np.random.default_rng(seed).standard_normal((40, 24)) + skew
    grids = np.arange(levels) - np.arange(levels)[:, None] * 1.0
    low, high = np.minimum(x.min(axis=1), 0), np.maximum(x.max(axis=1), 0)
    start = np.rint(-low / (high - low) * (levels - 1)).astype(int)
    found = best_scales(x, grids, start=start)
    errors = np.array([best_scales(x, grid).error for grid in grids])
    np.testing.assert_allclose(found.error, errors[found.grid, np.arange(40)], rtol=1e-9)
    assert (found.error <= errors[start, np.arange(40)] * (1 + 1e-9)).all()
    assert found.error.sum() <= 1.005 * errors.min(axis=0).sum()


def test_what_has_no_best_scale_is_named(unchecked):
    """Rows of zeros, rows without weight, and rows on whose side there is no value."""
    values = GRIDS["one sign"]
    found = best_scales(np.array([[0.0, 0.0], [-1.0, -2.0], [1.0, 2.0]]), values)
    np.testing.assert_array_equal(found.scale, [0.0, 0.0, 1.0])
    np.testing.assert_array_equal(found.error, [0.0, 5.0, 0.0])
    np.testing.assert_array_equal(best_scales(np.ones((1, 2)), values, np.zeros(2)).scale, [0.0])
    with pytest.raises(InvalidInputError, match="do not increase"):
        best_scales(np.ones((1, 2)), np.array([1.0, 0.0]))
    with pytest.raises(InvalidInputError, match="`weights` of shape"):
        best_scales(np.ones((1, 2)), values, -np.ones(2))
    with pytest.raises(InvalidInputError, match="`candidates`"):
        best_scales(np.ones((1, 2)), values, candidates=np.zeros(3))
    with pytest.raises(InvalidInputError, match="`x`"):
        best_scales(np.array([[np.nan]]), values)
