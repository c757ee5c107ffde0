"""Factors without exchanges, solves and series, against exact inverses and derived bounds."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lattq.affine.inverses import (
    factor,
    inverse,
    neumann,
    neumann_error,
    neumann_terms,
    newton_schulz,
    newton_schulz_error,
    newton_schulz_steps,
    solve_error,
)
from lattq.errors import InvalidInputError
from tests.affine.strategies import dominant_matrices, mixing
from tests.oracles.elimination import eliminate, rational_inverse
from tests.strategies import seeds

EPS = float(np.finfo(np.float64).eps)
kinds = st.sampled_from(["dense", "sparse", "signed"])


@given(matrix=dominant_matrices(max_n=12, spread=3))
def test_elimination_of_a_dominant_matrix_never_exchanges(matrix: np.ndarray):
    found = factor(matrix)
    assert found.pivot_free
    assert found.growth <= 2
    lower, upper, growth, _ = eliminate(matrix)
    assert growth <= 2 * (1 + 1e-12)
    scale = np.abs(lower) @ np.abs(upper)
    ours = found.packed.T
    # `packed` is the transpose of L, with the pivots, and of U, with ones
    whole = np.tril(ours) @ (np.triu(ours, 1) + np.eye(len(ours)))
    assert (np.abs(whole - matrix) <= 4 * len(matrix) * EPS * scale + 1e-300).all()


@given(seed=seeds, n=st.integers(2, 12), ratio=st.floats(0.05, 0.999), kind=kinds)
def test_schur_complements_are_no_less_dominant_and_factors_bounded(seed: int, n: int, ratio: float, kind: str):
    matrix = mixing(n, ratio, seed, kind=kind)
    lower, upper, _, met = eliminate(matrix)
    for rest in met:
        off = np.abs(rest).sum(axis=1) - np.abs(np.diag(rest))
        assert (off <= (ratio + 1e-12) * np.abs(np.diag(rest))).all()
    largest = (np.abs(lower) @ np.abs(upper)).sum(axis=1).max()
    assert largest <= (1 + ratio) / (1 - ratio) * np.abs(matrix).sum(axis=1).max() * (1 + 1e-12)


def test_growth_of_a_matrix_that_is_not_dominant_is_larger():
    # the negative control: Wilkinson's matrix grows by 2^(n − 1)
    n = 8
    matrix = np.eye(n) - np.tril(np.ones((n, n)), -1)
    matrix[:, -1] = 1
    assert eliminate(matrix)[2] == 2 ** (n - 1)


@given(matrix=dominant_matrices(max_n=6, spread=3))
def test_inverse_and_solves_are_those_of_rational_arithmetic(matrix: np.ndarray):
    exact, determinant = rational_inverse(matrix)
    exact = np.array([[float(x) for x in row] for row in exact])
    condition = np.abs(matrix).sum(axis=1).max() * np.abs(exact).sum(axis=1).max()
    if condition > 1e10:
        return
    room = 16 * len(matrix) * EPS * condition * np.abs(exact).max()
    found = factor(matrix)
    assert np.abs(inverse(matrix) - exact).max() <= room
    assert np.abs(found.solve_rows(np.eye(len(matrix))) - exact).max() <= room
    assert np.abs(found.solve_transposed(np.eye(len(matrix))) - exact.T).max() <= room
    assert math.isclose(found.logabsdet(), math.log(abs(determinant)), abs_tol=1e-4 * condition * 1e-10 + 1e-10)


@pytest.mark.parametrize("n", [3, 32, 200])
@pytest.mark.parametrize("ratio", [0.5, 0.9])
def test_float32_is_enough(n: int, ratio: float):
    # the bound is that of theory 12.5; errors that do not conspire are √n / n of it
    rng = np.random.default_rng(n)
    for seed, kind in enumerate(("dense", "sparse", "signed")):
        exact = mixing(n, ratio, seed, kind=kind)
        matrix = exact.astype(np.float32)
        x = rng.choice([-1.0, 1.0], (8, n)).astype(np.float32)
        found = factor(matrix).solve_rows(x).astype(np.float64)
        wanted = factor(matrix.astype(np.float64)).solve_rows(x.astype(np.float64))
        bound = solve_error(n, ratio)
        error = np.abs(found - wanted).sum(axis=1) / np.abs(wanted).sum(axis=1)
        residual = np.abs(found @ matrix.astype(np.float64) - x).sum(axis=1) / n
        assert max(error.max(), residual.max()) <= bound
        assert max(error.max(), residual.max()) <= 4 * bound / math.sqrt(n)
        assert residual.max() < 2e-6


@given(seed=seeds, n=st.integers(1, 12), ratio=st.floats(0.05, 0.95), terms=st.integers(1, 12), kind=kinds)
def test_series_end_within_their_bounds(seed: int, n: int, ratio: float, terms: int, kind: str):
    matrix = mixing(n, ratio, seed, kind=kind)
    off, exact = matrix - np.eye(n), np.linalg.inv(matrix)
    series = neumann(np.eye(n), off, terms)
    room = 32 * n * EPS / (1 - ratio) ** 2
    assert np.abs(series - exact).sum(axis=1).max() <= neumann_error(ratio, terms) + room
    steps = min(terms, 6)
    found = newton_schulz(off, steps)
    assert np.abs(found - exact).sum(axis=1).max() <= newton_schulz_error(ratio, steps) + room
    powers = np.linalg.matrix_power(-off, 2**steps)  # the residual, squared at each step
    np.testing.assert_allclose(np.eye(n) - matrix @ found, powers, atol=room)


def test_bounds_of_series_are_reached():
    # N ≥ 0 with equal row sums ρ: (−N)^K has row sums ρ^K, and the rest of the series is at least ρ^K / (1 + ρ)
    off = np.full((4, 4), 0.9 / 3) * (1 - np.eye(4))
    error = np.abs(np.linalg.inv(np.eye(4) - off) - neumann(np.eye(4), -off, 10)).sum(axis=1).max()
    assert math.isclose(error, neumann_error(0.9, 10), rel_tol=1e-12)


@given(ratio=st.floats(0.01, 0.99), error=st.floats(1e-12, 0.5))
def test_numbers_of_steps_are_the_least(ratio: float, error: float):
    terms, steps = neumann_terms(ratio, error), newton_schulz_steps(ratio, error)
    assert neumann_error(ratio, terms) <= error * (1 + 1e-9)
    assert terms == 1 or neumann_error(ratio, terms - 1) > error * (1 - 1e-9)
    assert newton_schulz_error(ratio, steps) <= error * (1 + 1e-9)
    assert steps == 0 or newton_schulz_error(ratio, steps - 1) > error * (1 - 1e-9)


def test_a_start_near_the_inverse_saves_steps():
    off = mixing(16, 0.5, 0) - np.eye(16)
    near = np.linalg.inv(np.eye(16) + 0.99 * off)
    assert np.abs(newton_schulz(off, 1, near) - np.linalg.inv(np.eye(16) + off)).max() < 1e-3
    assert np.abs(newton_schulz(off, 3, near) - np.linalg.inv(np.eye(16) + off)).max() < 1e-12


def test_batches_and_dtypes_are_kept():
    batch = np.stack([mixing(5, 0.5, seed) for seed in range(3)]).astype(np.float32)
    found = inverse(batch)
    assert (found.dtype, found.shape) == (np.float32, batch.shape)
    np.testing.assert_allclose(found @ batch, np.broadcast_to(np.eye(5), batch.shape), atol=1e-6)
    np.testing.assert_allclose(newton_schulz(batch - np.eye(5, dtype=np.float32), 5), found, atol=1e-6)


def test_series_run_on_torch():
    import torch

    off = mixing(6, 0.5, 0) - np.eye(6)
    np.testing.assert_allclose(newton_schulz(torch.asarray(off), 4).numpy(), newton_schulz(off, 4), atol=1e-14)
    np.testing.assert_allclose(neumann(torch.eye(6).double(), torch.asarray(off), 4), neumann(np.eye(6), off, 4))


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: inverse(np.ones((2, 2))), "singular"),
        (lambda: inverse(np.zeros((1, 1))), "singular"),
        (lambda: inverse(np.ones((2, 3))), "square"),
        (lambda: inverse(np.array([[np.nan]])), "nan"),
        (lambda: factor(np.eye(2)).solve_rows(np.ones((1, 3))), "does not fit"),
        (lambda: neumann_terms(1.0, 0.1), "`ratio` is 1.0"),
        (lambda: neumann_terms(0.5, 0.0), "`error` is 0.0"),
        (lambda: newton_schulz_steps(0.5, float("inf")), "`error` is inf"),
        (lambda: neumann(np.eye(1), np.zeros((1, 1)), 0), "`terms` is 0"),
        (lambda: newton_schulz(np.zeros((1, 1)), -1), "`steps` is -1"),
        (lambda: solve_error(4, 0.0), "`ratio` is 0.0"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_what_has_no_inverse_is_named(call, says: str):
    with pytest.raises(InvalidInputError, match=says):
        call()
