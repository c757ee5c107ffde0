"""The certificate of dominance against exact inverses and determinants."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lattq.affine import certificate
from lattq.affine.dominance import certify
from lattq.affine.gaps import InverseBounds, gaps, inverse_bounds
from lattq.errors import InvalidInputError
from tests.affine.strategies import dominant_matrices, mixing, ratios, square_matrices
from tests.oracles.elimination import rational_inverse
from tests.strategies import seeds

EPS = float(np.finfo(np.float64).eps)


def exact_norms(matrix: np.ndarray) -> tuple[Fraction, Fraction, float, Fraction]:
    """Row sum and column sum norms of the inverse, exactly, its 2-norm, and |det|."""
    inverse, determinant = rational_inverse(matrix)
    rows = max(sum(map(abs, row), Fraction(0)) for row in inverse)
    columns = max(sum(map(abs, column), Fraction(0)) for column in zip(*inverse, strict=True))
    two = float(np.linalg.norm(np.array([[float(x) for x in row] for row in inverse]), 2))
    return rows, columns, two, abs(determinant)


@given(matrix=dominant_matrices(max_n=6))
def test_bounds_hold_for_the_exact_inverse_of_ill_conditioned_matrices(matrix: np.ndarray):
    found = certificate(matrix, measure=False)
    rows, columns, two, determinant = exact_norms(matrix)
    n = len(matrix)
    assert found.dominant
    assert found.certified
    assert found.dominant_rows == 1.0
    last = 1 + 8 * n * EPS  # rounding of a difference, a quotient and a norm
    assert rows <= Fraction(found.inverse_inf) * Fraction(last)
    assert columns <= Fraction(found.inverse_one) * Fraction(last) if found.column_ratio < 1 else True
    assert two <= found.inverse_two * last
    low, high = found.log_determinant
    logs = [math.log(part) for part in (determinant.numerator, determinant.denominator)]
    slack = 8 * n * EPS * (1 + sum(logs) + np.abs(np.log(np.abs(np.diag(matrix)))).sum())
    assert low - slack <= logs[0] - logs[1] <= high + slack


@given(matrix=dominant_matrices(max_n=6, both=True))
def test_dominance_on_both_sides_bounds_the_two_norm_better(matrix: np.ndarray):
    found = certificate(matrix, measure=False)
    rows, columns, two, _ = exact_norms(matrix)
    assert rows <= Fraction(found.inverse_inf) * (1 + Fraction(1, 10**13))
    assert columns <= Fraction(found.inverse_one) * (1 + Fraction(1, 10**13))
    assert two <= found.inverse_two * (1 + 1e-13)
    assert found.inverse_two <= math.sqrt(found.inverse_inf) * math.sqrt(found.inverse_one) * (1 + 1e-13)


def test_two_thousand_matrices_keep_every_bound():
    rng, n = np.random.default_rng(0), 8
    for k in range(2_000):  # the benchmark runs 10⁴, to n = 24
        ratio = float(rng.choice([0.1, 0.5, 0.9, 0.99]))
        core = mixing(n, ratio, k, both=bool(k % 2), kind=("dense", "sparse", "signed")[k % 3])
        found, inverse = certify(core), np.linalg.inv(core)
        room = 1 + 4 * n * EPS * found.condition_inf
        assert np.abs(inverse).sum(axis=1).max() <= found.inverse_inf * room
        assert np.linalg.norm(inverse, 2) <= found.inverse_two * room
        assert np.linalg.cond(core, np.inf) <= found.scaled_condition * room
        if found.column_ratio < 1:
            assert np.abs(inverse).sum(axis=0).max() <= found.inverse_one * room


def test_varahs_bound_is_reached():
    # I − ρ/(n − 1) off the diagonal: the row sums of the inverse are 1 / (1 − ρ)
    n, ratio = 6, 0.75
    matrix = np.eye(n) - ratio / (n - 1) * (1 - np.eye(n))
    found = certificate(matrix)
    assert math.isclose(np.abs(np.linalg.inv(matrix)).sum(axis=1).max(), found.inverse_inf, rel_tol=1e-12)
    assert math.isclose(found.inverse_two, np.linalg.norm(np.linalg.inv(matrix), 2), rel_tol=1e-12)


def test_a_bound_from_a_smaller_sum_is_broken():
    # the negative control: leaving out one off-diagonal must fail on the matrix that reaches the bound
    n, ratio = 6, 0.75
    matrix = np.eye(n) - ratio / (n - 1) * (1 - np.eye(n))
    found = gaps(matrix)
    too_small = found._replace(rows=found.rows * (n - 2) / (n - 1))
    assert np.abs(np.linalg.inv(matrix)).sum(axis=1).max() > inverse_bounds(too_small).inf * 1.01


@given(matrix=dominant_matrices(max_n=8), seed=seeds)
def test_left_scaling_leaves_row_ratios(matrix: np.ndarray, seed: int):
    scale = np.exp2(np.random.default_rng(seed).integers(-30, 30, len(matrix)))
    before, after = certify(matrix), certify(scale[:, None] * matrix)
    assert before.row_ratio == after.row_ratio
    assert before.dominant_rows == after.dominant_rows


@given(n=st.integers(1, 8), ratio=ratios, seed=seeds, both=st.booleans())
def test_rows_and_columns_change_places_by_transposing(n: int, ratio: float, seed: int, both: bool):
    matrix = mixing(n, ratio, seed, both=both)
    one, other = certify(matrix), certify(np.ascontiguousarray(matrix.T))
    assert math.isclose(one.row_ratio, other.column_ratio, rel_tol=1e-14)
    assert math.isclose(one.inverse_inf, other.inverse_one, rel_tol=1e-9 / (1 - ratio) if ratio > 0.99 else 1e-12)
    assert math.isclose(one.log_determinant[1], other.log_determinant[1], abs_tol=1e-12)


@given(n=st.integers(2, 8), ratio=st.floats(0.05, 0.95), seed=seeds)
def test_a_reference_multiplies_norms_and_adds_determinants(n: int, ratio: float, seed: int):
    rng = np.random.default_rng(seed)
    core, reference = mixing(n, ratio, seed), rng.standard_normal((n, n)) + 3 * np.eye(n)
    condition = np.linalg.cond(reference)
    if condition > 1e4:
        return
    around, alone = certificate(core @ reference, reference), certificate(core)
    room = 1e-13 * condition * n / (1 - ratio)  # A T0⁻¹ is solved for
    assert abs(around.row_ratio - alone.row_ratio) < room
    assert math.isclose(around.inverse_inf, alone.inverse_inf, rel_tol=room / (1 - ratio))
    shift = np.linalg.slogdet(reference)[1]
    assert np.allclose(around.log_determinant, np.array(alone.log_determinant) + shift, atol=n * room / (1 - ratio))
    assert around.reference_condition == pytest.approx(condition)
    assert np.linalg.cond(core @ reference) <= around.condition_two * condition * (1 + room)
    assert alone.measured_condition == pytest.approx(np.linalg.cond(core))


@given(matrix=square_matrices())
def test_any_matrix_can_be_measured(matrix: np.ndarray):
    found = certificate(matrix)
    diagonal = np.abs(np.diag(matrix))
    off = np.abs(matrix).sum(axis=1) - diagonal
    assert found.dominant_rows == pytest.approx(np.mean(diagonal > off), abs=1e-12) or np.isclose(diagonal, off).any()
    assert (found.inverse_inf < math.inf) == (found.row_ratio < 1)
    if found.inverse_two < math.inf:  # certified invertible, if only by Johnson's bound
        assert np.linalg.norm(np.linalg.inv(matrix), 2) <= found.inverse_two * (1 + 1e-9)


def test_a_hadamard_matrix_is_perfect_and_nowhere_dominant():
    from lattq.linalg.hadamard import hadamard_matrix

    found = certificate(hadamard_matrix(64) / 8.0)
    assert found.dominant_rows == 0.0
    assert found.row_ratio == pytest.approx(63)
    assert found.inverse_two == math.inf
    assert found.measured_condition == pytest.approx(1)
    assert found.error is not None
    assert found.error < 1e-13
    assert not found.dominant


def test_the_error_is_that_of_the_dtype():
    matrix = mixing(64, 0.9, 0)
    errors = [certificate(matrix.astype(dtype)).error or 0.0 for dtype in (np.float32, np.float64)]
    assert 1e-8 < errors[0] < 1e-5
    assert 0 < errors[1] < 1e-13


@pytest.mark.parametrize("library", ["strict", "torch"])
def test_arrays_of_other_libraries_have_the_same_certificate(library: str):
    module = pytest.importorskip({"strict": "array_api_strict", "torch": "torch"}[library])
    matrix = mixing(5, 0.5, 0)
    assert certificate(module.asarray(matrix)) == certificate(matrix)


def test_one_row_is_dominant():
    found = certificate(np.array([[-2.0]]))
    assert (found.row_ratio, found.inverse_inf, found.condition_two) == (0.0, 0.5, 1.0)
    assert found.log_determinant == (math.log(2), math.log(2))
    assert certificate(np.zeros((1, 1))).row_ratio == math.inf


def test_a_singular_matrix_has_an_infinite_error():
    found = certificate(np.ones((3, 3)))
    assert found.error == math.inf or (found.measured_condition or 0) > 1e15
    assert certificate(np.zeros((2, 2))).error == math.inf
    assert certificate(np.zeros((2, 2))).log_determinant == (-math.inf, -math.inf)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((np.ones((2, 3)),), "square"),
        ((np.ones((0, 0)),), "at least one row"),
        ((np.array([[1.0, np.nan], [0.0, 1.0]]),), "nan"),
        ((np.ones((2, 2, 2)),), "one matrix at a time"),
        ((np.eye(2), np.ones((2, 2))), "singular"),
        ((np.eye(2), np.eye(3)), "one size"),
        ((np.eye(2), np.zeros((2, 2))), "singular"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_what_cannot_be_certified_is_named(arguments: tuple, says: str):
    with pytest.raises(InvalidInputError, match=says):
        certificate(*arguments)


def test_strict_names_the_worst_row():
    with pytest.raises(InvalidInputError, match=r"row 1 .* sum 3"):
        certificate(np.array([[1.0, 0.5], [3.0, 1.0]]), strict=True)
    certificate(np.array([[1.0, 0.5], [3.0, 4.0]]), strict=True)


def test_bounds_of_products_multiply():
    assert InverseBounds(1.0, 2.0, 3.0).times(InverseBounds(2.0, 2.0, 2.0)) == (2.0, 4.0, 6.0)
