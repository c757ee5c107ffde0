"""Products of factors quantized apart: the estimate, its error, and what no pair of encoders can beat."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lattq import Scheme, bounds, matmul, quantize, recipes
from lattq.errors import InvalidInputError
from lattq.feedback import OpenLoop
from lattq.quantizers import Trellis, Uniform
from lattq.transforms import Hadamard
from tests.helpers import assert_same
from tests.strategies import seeds

FINE = Scheme(feedback=OpenLoop(), quantizer=Uniform(1e-6))


def factors(seed: int, n: int, p: int, q: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, p)), rng.standard_normal((n, q))


def rounded(step: float, rotated: bool = False) -> Scheme:
    return (
        Scheme(transform=Hadamard(3), feedback=OpenLoop(), quantizer=Uniform(step))
        if rotated
        else Scheme(feedback=OpenLoop(), quantizer=Uniform(step))
    )


@given(seed=seeds, n=st.sampled_from([1, 4, 24]), p=st.integers(1, 5), q=st.integers(1, 5), rotated=st.booleans())
def test_the_estimate_is_the_product_of_what_is_decoded(seed: int, n: int, p: int, q: int, rotated: bool):
    a, b = factors(seed, n, p, q)
    found = matmul.approximate(a, b, rounded(0.5, rotated), rounded(0.25, rotated))
    assert found.a is not None
    assert found.b is not None
    expected = found.a.dequantize(np.float64) @ found.b.dequantize(np.float64).T
    np.testing.assert_allclose(found.estimate, expected, rtol=0, atol=1e-12 * n)
    assert found.rate_a == 8 * found.a.nbytes / a.size
    assert found.rate_b == 8 * found.b.nbytes / b.size


@given(seed=seeds, p=st.integers(1, 4), q=st.integers(1, 4))
def test_gains_are_those_of_least_squares_and_of_no_bias(seed: int, p: int, q: int):
    """Per column <x, q> / <q, q>, and <x, x> / <x, q>, in 128ths."""
    a, b = factors(seed, 64, p, q)
    plain = matmul.approximate(a, b, rounded(1.5), scaling="none").a
    assert plain is not None
    rows = plain.dequantize(np.float64)
    for scaling, gains in (
        ("wiener", np.sum(a.T * rows, axis=1) / np.sum(rows**2, axis=1)),
        ("unbiased", np.sum(a.T**2, axis=1) / np.sum(a.T * rows, axis=1)),
    ):
        found = matmul.approximate(a, b, rounded(1.5), scaling=scaling).a
        assert found is not None
        np.testing.assert_allclose(
            found.dequantize(np.float64), rows * (np.rint(128 * gains) / 128)[:, None], rtol=0, atol=1e-12
        )


def test_errors_of_the_factors_combine_as_derived():
    """1 - 2 c_a c_b + s_a s_b with c = <x, q> / <x, x> and s = <q, q> / <x, x>; all entries are one sample."""
    a, b = factors(0, 512, 256, 256)
    for scaling in matmul.SCALINGS:
        found = matmul.approximate(a, b, rounded(1.8), rounded(1.2), scaling=scaling)
        parts = []
        for x, quantized in ((a.T, found.a), (b.T, found.b)):
            assert quantized is not None
            decoded = quantized.dequantize(np.float64)
            parts.append((np.sum(x * decoded) / np.sum(x**2), np.sum(decoded**2) / np.sum(x**2)))
        (c_a, s_a), (c_b, s_b) = parts
        expected = 1 - 2 * c_a * c_b + s_a * s_b
        # 65 536 products of which each has a relative variance of 2, and is correlated with those in its row and column
        assert abs(found.error(a, b) / expected - 1) < 4 * math.sqrt(2 / 65536 + 4 / 512 / 256)
    assert matmul.approximate(a, b, rounded(1.8), scaling="wiener").error(a, b) < matmul.approximate(
        a, b, rounded(1.8), scaling="unbiased"
    ).error(a, b)


def test_one_factor_known_exactly():
    a, b = factors(1, 256, 64, 300)
    found = matmul.approximate(a, b, rounded(1.0, rotated=True), exact_b=True)
    assert found.b is None
    assert found.rate_b == math.inf
    assert found.a is not None
    error = a.T - found.a.dequantize(np.float64)
    np.testing.assert_allclose(found.estimate, (a.T - error) @ b, rtol=0, atol=1e-10)
    both = matmul.approximate(a, b, rounded(1.0, rotated=True))
    assert found.error(a, b) < 0.6 * both.error(a, b)


@pytest.mark.parametrize("step", [0.3, 0.9, 2.0])
def test_no_product_beats_the_bound(step: float):
    a, b = factors(2, 1024, 256, 256)
    for quantizer in (Uniform(step), Trellis(256, step)):
        found = matmul.approximate(a, b, Scheme(feedback=OpenLoop(), quantizer=quantizer))
        rate = (found.rate_a + found.rate_b) / 2
        assert found.error(a, b) > bounds.product_distortion(rate)
        assert found.gap(a, b) > 0


def test_a_sketch_below_the_critical_rate_beats_all_coordinates():
    a, b = factors(3, 1024, 512, 512)
    scheme = Scheme(feedback=OpenLoop(), quantizer=Trellis(256, 2.05))
    part = matmul.approximate(a, b, scheme, keep=0.25)
    rate = (part.rate_a + part.rate_b) / 2
    coarse = matmul.approximate(a, b, Scheme(feedback=OpenLoop(), quantizer=Trellis(256, 4.6)))
    assert (coarse.rate_a + coarse.rate_b) / 2 >= rate  # it has more bits
    assert part.error(a, b) < coarse.error(a, b)
    assert bounds.product_distortion(rate) < part.error(a, b) < 1.05 * bounds.product_distortion(rate)


@given(seed=seeds, n=st.sampled_from([1, 8, 12, 20]))
def test_a_whole_sketch_is_a_rotation(seed: int, n: int):
    a, b = factors(seed, n, 3, 2)
    left, right = matmul.sketch(a, n, seed=seed), matmul.sketch(b, n, seed=seed)
    np.testing.assert_allclose(left.T @ right, a.T @ b, rtol=0, atol=1e-12 * n)


@pytest.mark.parametrize("kind", matmul.SKETCHES)
def test_sketched_products_have_the_variance_of_theory(kind: str):
    x, y = factors(4, 64, 1, 1)
    y -= x * (x.T @ y) / np.sum(x**2)  # orthogonal
    size, power, draws = 16, float(np.sum(x**2) * np.sum(y**2)), 4000
    found = np.array(
        [
            (matmul.sketch(x, size, kind=kind, seed=seed).T @ matmul.sketch(y, size, kind=kind, seed=seed))[0, 0]
            for seed in range(draws)
        ]
    )
    derived = power * (1 / size - (1 / 64 if kind == "hadamard" else 0.0))
    assert abs(found.mean()) < 4 * math.sqrt(derived / draws)
    # Coordinates of a transform of signs, or signs, are not quite independent: terms of order 1 / n.
    assert abs(np.mean(found**2) / derived - 1) < 4 * math.sqrt(2.5 / draws) + 4 / 64


def test_sketches_of_every_array_library(xp):
    x = np.random.default_rng(5).standard_normal((24, 3)).astype(np.float32)
    for kind in matmul.SKETCHES:
        found = matmul.sketch(xp.asarray(x), 8, kind=kind, seed=1)
        np.testing.assert_allclose(np.asarray(found), matmul.sketch(x, 8, kind=kind, seed=1), rtol=0, atol=1e-5)


def test_the_same_seed_gives_the_same_product():
    a, b = factors(6, 64, 8, 8)
    one, two = (matmul.approximate(a, b, recipes.nestquant(feedback=False), keep=0.5, seed=7) for _ in range(2))
    assert_same(one.estimate, two.estimate)
    other = matmul.approximate(a, b, recipes.nestquant(feedback=False), keep=0.5, seed=8)
    assert (one.estimate != other.estimate).any()


def test_a_column_of_zeros_stays_zero():
    a, b = factors(7, 32, 3, 2)
    a[:, 1] = 0.0
    for scaling in matmul.SCALINGS:
        assert not matmul.approximate(a, b, rounded(0.5), scaling=scaling).estimate[1].any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scaling": "best"}, "'best'"),
        ({"keep": 0.0}, "`keep` is 0.0"),
        ({"keep": 1.5}, "`keep` is 1.5"),
        ({"a": np.ones((4, 2))}, "4 rows and `b` 8"),
        ({"a": np.full((8, 2), np.nan)}, "`a` holds nan"),
        ({"b": np.ones((8, 2), dtype=np.int32)}, "int32"),
        ({"a": np.ones(8)}, r"shape \(8,\)"),
        ({"scheme_a": rounded(4.0), "scaling": "unbiased"}, "below 1/2"),
    ],
)
def test_bad_input_is_named(change: dict, message: str, unchecked):
    a, b = factors(8, 8, 2, 2)
    with pytest.raises(InvalidInputError, match=message):
        matmul.approximate(**{"a": a, "b": b, "scheme_a": rounded(0.5), **change})


def test_bad_sketches_are_named():
    x = np.ones((22, 2))
    for size, kind, message in ((0, "signs", "`size` is 0"), (23, "signs", "`size` is 23"), (4, "dct", "'dct'")):
        with pytest.raises(InvalidInputError, match=message):
            matmul.sketch(x, size, kind=kind)
    with pytest.raises(InvalidInputError, match="nearest sizes are 20 and 24"):
        matmul.sketch(x, 4)
    found = matmul.approximate(np.ones((4, 2)), np.ones((4, 3)), FINE)
    with pytest.raises(InvalidInputError, match="factors give"):
        found.error(np.ones((4, 3)), np.ones((4, 3)))
    with pytest.raises(InvalidInputError, match="zeros"):
        found.error(np.zeros((4, 2)), np.ones((4, 3)))


def test_gains_are_compared_with_those_before(monkeypatch: pytest.MonkeyPatch):
    """A gain that comes back to 1 is stored: here the weight was decoded at half of what it is."""
    rows = np.array([[2.0, -4.0, 6.0, 8.0]])
    exact = quantize(rows, np.eye(4), Scheme(feedback=OpenLoop(), quantizer=Uniform(1.0)))
    halved = exact.revalued(row_gains=np.array([64]))
    monkeypatch.setattr(matmul, "quantize", lambda *_: halved)  # as a refit may leave it
    found = matmul.approximate(rows.T, rows.T, FINE)
    assert found.a is not None
    np.testing.assert_array_equal(found.a.dequantize(np.float64), rows)


@pytest.mark.parametrize("size", [1e-200, 1e-90, 1e100])
def test_errors_do_not_depend_on_the_unit(size: float):
    a, b = factors(9, 32, 4, 4)
    unit = matmul.approximate(a, b, rounded(0.5))
    error = matmul.Product(unit.estimate * size, unit.a, unit.b, 4.0, 4.0).error(a * size, b)
    assert error == pytest.approx(unit.error(a, b), rel=1e-12)


def test_an_exact_factor_has_no_gap_and_no_scheme():
    a, b = factors(10, 32, 3, 2)
    with pytest.raises(InvalidInputError, match="known exactly"):
        matmul.approximate(a, b, rounded(0.5), exact_b=True).gap(a, b)
    with pytest.raises(InvalidInputError, match="one of the two"):
        matmul.approximate(a, b, rounded(0.5), rounded(0.5), exact_b=True)


def test_a_size_that_the_scheme_refuses_comes_with_one_that_it_takes():
    a, b = factors(11, 256, 3, 2)
    scheme = recipes.nestquant(feedback=False)
    with pytest.raises(InvalidInputError, match=r"leaves 77 of 256 coordinates; `keep=80 / 256`"):
        matmul.approximate(a, b, scheme, keep=0.3)
    found = matmul.approximate(a, b, scheme, keep=80 / 256)
    assert found.a is not None
    assert found.a.codes.shape == (3, 80)
    with pytest.raises(InvalidInputError, match="below 1/2") as refusal:
        matmul.approximate(a, b, rounded(9.0), keep=0.25, scaling="unbiased")
    assert "coordinates" not in str(refusal.value)  # a fitting size is not blamed


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"keep": None}, "`keep` is None"),
        ({"keep": "1"}, "`keep` is '1'"),
        ({"seed": -1}, "`seed` is -1"),
        ({"seed": 1.5}, "`seed` is 1.5"),
        ({"seed": None}, "`seed` is None"),
        ({"scheme_a": None}, "`scheme_a` is None"),
        ({"scheme_b": "same"}, "`scheme_b` is 'same'"),
        ({"a": [[1.0]]}, "`a` is a list"),
        ({"exact_b": "no"}, "`exact_b` is 'no'"),
        ({"a": np.full((8, 2), 1e158), "b": np.full((8, 2), 1e158), "scheme_a": rounded(1e153)}, "beyond float64"),
    ],
)
def test_options_of_other_types_are_named(change: dict, message: str, unchecked):
    a, b = factors(8, 8, 2, 2)
    with pytest.raises(InvalidInputError, match=message):
        matmul.approximate(**{"a": a, "b": b, "scheme_a": rounded(0.5), **change})


@pytest.mark.parametrize(
    ("x", "seed", "message"),
    [
        (np.ones(8), 0, r"shape \(8,\)"),
        (np.ones((8, 2), dtype=np.int64), 0, "int64"),
        (np.full((8, 2), np.nan), 0, "`x` holds nan"),
        (np.ones((8, 2)), -1, "`seed` is -1"),
    ],
)
def test_sketches_of_what_is_no_matrix_are_refused(x: np.ndarray, seed: int, message: str, unchecked):
    for kind in matmul.SKETCHES:
        with pytest.raises(InvalidInputError, match=message):
            matmul.sketch(x, 4, kind=kind, seed=seed)
