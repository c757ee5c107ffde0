"""Projections against a solver of the least distance problem, and against Dykstra's alternation."""

from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lattq.affine import certificate, project
from lattq.affine.projections import from_ball, onto_cone, onto_l1_ball, to_ball
from lattq.errors import InvalidInputError
from tests.affine.strategies import ratios, square_matrices
from tests.oracles.dykstra import dykstra
from tests.oracles.least_distance import nearest_dominant
from tests.strategies import seeds

EPS = float(np.finfo(np.float64).eps)
sides = st.sampled_from(["rows", "columns", "both"])
usual = st.floats(0.05, 0.95)


def ratio_of(matrix: np.ndarray, side: str) -> float:
    """The largest dominance ratio of the sides that count."""
    found = certificate(matrix, measure=False)
    return {"rows": found.row_ratio, "columns": found.column_ratio}.get(side, max(found.row_ratio, found.column_ratio))


@given(matrix=square_matrices(max_n=4), ratio=usual, side=sides, floor=st.sampled_from([1e-3, 0.5]))
def test_the_projection_is_that_of_a_solver(matrix: np.ndarray, ratio: float, side: str, floor: float):
    scale = np.abs(matrix).max() or 1.0
    found = project(matrix, ratio, sides=side, floor=floor * scale)
    wanted = nearest_dominant(matrix / scale, ratio, side, floor=floor) * scale
    assert np.abs(found - wanted).max() <= 1e-8 * scale


@given(matrix=square_matrices(max_n=4), ratio=usual, side=sides)
def test_without_a_floor_too(matrix: np.ndarray, ratio: float, side: str):
    scale = np.abs(matrix).max() or 1.0
    matrix = matrix + scale * 0.01 * np.eye(len(matrix))
    if (np.diag(matrix) == 0).any():
        return
    found = project(matrix, ratio, sides=side)
    assert np.abs(found - nearest_dominant(matrix / scale, ratio, side) * scale).max() <= 1e-8 * scale


@given(matrix=square_matrices(max_n=4), ratio=usual, side=sides)
def test_a_kept_diagonal_leaves_the_balls(matrix: np.ndarray, ratio: float, side: str):
    scale = np.abs(matrix).max() or 1.0
    matrix = matrix + scale * 0.05 * np.eye(len(matrix))
    if (np.diag(matrix) == 0).any():
        return
    found = project(matrix, ratio, sides=side, keep_diagonal=True)
    np.testing.assert_array_equal(np.diag(found), np.diag(matrix))
    wanted = nearest_dominant(matrix / scale, ratio, side, keep_diagonal=True) * scale
    assert np.abs(found - wanted).max() <= 1e-8 * scale


def test_the_solver_sees_a_wrong_threshold():
    # the negative control: rows scaled into the cone are dominant too, and farther away
    matrix = np.array([[1.0, 1.0, 0.2], [0.3, 2.0, 0.0], [0.0, 0.0, 1.0]])
    scaled = matrix.copy()
    scaled[0, 1:] *= 0.4999 / 1.2
    wanted = nearest_dominant(matrix, 0.5, "rows")
    assert ratio_of(scaled, "rows") <= 0.5
    assert np.abs(scaled - wanted).max() > 0.1
    assert np.abs(project(matrix, 0.5) - wanted).max() < 1e-12


@pytest.mark.parametrize("n", [6, 12])
@pytest.mark.parametrize("ratio", [0.3, 0.9])
@pytest.mark.parametrize("keep", [False, True])
def test_rows_and_columns_together_are_the_limit_of_alternation(n: int, ratio: float, keep: bool):
    rng = np.random.default_rng(n)
    matrix = rng.standard_normal((n, n)) * 0.3 + np.diag(1 + rng.random(n))
    found = project(matrix, ratio, sides="both", keep_diagonal=keep)
    assert np.abs(found - dykstra(matrix, ratio, keep=keep)).max() < 1e-8
    assert ratio_of(found, "both") <= ratio * (1 + 4 * n * EPS)


@pytest.mark.parametrize("keep", [False, True])
def test_a_large_dense_matrix_meets_the_conditions_of_least_distance(keep: bool):
    # multipliers λ of rows and μ of columns, read off at the diagonal or at two kept entries, explain every entry
    n, ratio = 96, 0.9
    matrix = np.random.default_rng(0).standard_normal((n, n))
    np.fill_diagonal(matrix, 1 + np.abs(np.diag(matrix)))
    found = project(matrix, ratio, sides="both", keep_diagonal=keep)
    kept = (np.abs(found) > 0) & ~np.eye(n, dtype=bool)
    taken = np.abs(matrix) - np.abs(found)
    row, column = np.nonzero(kept)
    design = np.zeros((len(row), 2 * n))
    design[np.arange(len(row)), row] = design[np.arange(len(row)), n + column] = 1
    multipliers = np.linalg.lstsq(design, taken[kept], rcond=None)[0]
    total = multipliers[:n, None] + multipliers[n:]
    assert np.abs(total - taken)[kept].max() < 1e-9
    gone = ~kept & ~np.eye(n, dtype=bool)
    assert (np.abs(matrix) <= total + 1e-9)[gone].all()
    if not keep:
        np.testing.assert_allclose(np.diag(found - matrix), ratio * np.diag(total), atol=1e-9)


@given(matrix=square_matrices(max_n=12), ratio=ratios, side=sides, dtype=st.sampled_from([np.float32, np.float64]))
def test_the_result_is_certified_keeps_signs_and_projects_to_itself(
    matrix: np.ndarray, ratio: float, side: str, dtype: Any
):
    matrix, n = matrix.astype(dtype), len(matrix)
    floor = 1e-3 * float(np.abs(matrix).max() or 1.0)
    found = project(matrix, ratio, sides=side, floor=floor)
    eps = float(np.finfo(dtype).eps)
    assert found.dtype == dtype
    assert ratio_of(found, side) <= ratio * (1 + 4 * n * EPS + 2 * eps)
    off = ~np.eye(n, dtype=bool)
    assert (found * matrix >= 0)[off].all()
    assert (np.abs(found) <= np.abs(matrix) * (1 + eps))[off].all()
    again = project(found, ratio, sides=side, floor=floor * (1 - 1e-6))
    assert np.abs(again - found).max() <= 16 * n * eps * np.abs(found).max() + 1e-12 * np.abs(found).max()


@given(seed=seeds, side=sides)
def test_projections_bring_points_no_farther_apart(seed: int, side: str):
    rng = np.random.default_rng(seed)
    one, other = rng.standard_normal((2, 6, 6)) + 2 * np.eye(6)
    for matrix in (one, other):
        np.fill_diagonal(matrix, np.abs(np.diag(matrix)) + 0.01)
    near, before = project(one, 0.7, sides=side) - project(other, 0.7, sides=side), one - other
    assert np.linalg.norm(near) <= np.linalg.norm(before) * (1 + 1e-12)


def test_a_dominant_matrix_stays():
    matrix = np.array([[-2.0, 0.5], [0.25, 1.0]])
    for side in ("rows", "columns", "both"):
        np.testing.assert_array_equal(project(matrix, 0.9, sides=side), matrix)


def test_small_sums_become_exact_zeros():
    found = project(np.array([[1.0, 3.0, 0.1], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]), 0.5, keep_diagonal=True)
    assert found[0, 2] == 0.0
    assert found[0, 1] == 0.5


def test_batches_are_projected_one_by_one():
    rng = np.random.default_rng(0)
    batch = rng.standard_normal((2, 3, 4, 4))
    for side in ("rows", "columns", "both"):
        found = project(batch, 0.8, sides=side)
        for place in np.ndindex(2, 3):
            np.testing.assert_allclose(found[place], project(batch[place], 0.8, sides=side), atol=1e-12)


@pytest.mark.parametrize("side", ["rows", "columns", "both"])
def test_every_array_library_gives_the_same(xp: ModuleType, side: str):
    from lattq._array import to_host

    matrix = np.random.default_rng(1).standard_normal((6, 6))
    for keep in (False, True):
        found = project(xp.asarray(matrix), 0.8, sides=side, keep_diagonal=keep)
        wanted = project(matrix, 0.8, sides=side, keep_diagonal=keep)
        np.testing.assert_allclose(to_host(found), wanted, atol=1e-13)


def test_huge_and_tiny_matrices_are_projected():
    matrix = np.random.default_rng(2).standard_normal((4, 4))
    for unit in (2.0**1020, 2.0**-1000):
        np.testing.assert_allclose(project(matrix * unit, 0.5), project(matrix, 0.5) * unit, rtol=1e-12)


def test_one_row_has_nothing_to_shrink():
    np.testing.assert_array_equal(project(np.array([[-3.0]])), [[-3.0]])
    np.testing.assert_array_equal(project(np.array([[0.0]]), floor=0.5), [[0.5]])


@given(seed=seeds, n=st.integers(1, 20), radius=st.sampled_from([0.0, 0.5, 100.0]))
def test_the_l1_ball_is_met_by_a_condition_of_least_distance(seed: int, n: int, radius: float):
    # x − p is normal to the ball: its largest entries are those of p, all equal
    x = np.random.default_rng(seed).standard_normal(n)
    found = onto_l1_ball(x, np.array(radius))
    left = x - found
    assert np.abs(found).sum() <= radius * (1 + 4 * n * EPS) + 4 * n * EPS
    assert np.isclose(left @ found, np.abs(left).max() * np.abs(found).sum(), atol=1e-12)


def test_below_the_dual_cone_lies_the_apex():
    head, tail = onto_cone(np.array([-3.0]), np.array([[0.5, -1.0]]), 0.5)
    assert head[0] == 0.0
    assert not tail.any()


@given(seed=seeds, n=st.integers(1, 20), ratio=st.floats(0.05, 0.95))
def test_the_smooth_map_is_undone(seed: int, n: int, ratio: float):
    free = np.random.default_rng(seed).standard_normal((3, n)) * 10
    inside = to_ball(free, ratio)
    assert (np.abs(inside).sum(axis=-1) < ratio).all()
    np.testing.assert_allclose(from_ball(inside, ratio), free, rtol=1e-10)


def test_the_smooth_map_has_the_slope_it_must():
    # d to_ball / dv = ρ (I (1 + s) − v sign(v)ᵀ) / (1 + s)²
    v, step = np.array([0.5, -1.0, 2.0]), 1e-6
    total = 1 + np.abs(v).sum()
    slope = 0.9 * (np.eye(3) * total - np.outer(v, np.sign(v))) / total**2
    measured = [(to_ball(v + step * e, 0.9) - to_ball(v - step * e, 0.9)) / (2 * step) for e in np.eye(3)]
    np.testing.assert_allclose(np.array(measured).T, slope, atol=1e-9)


@pytest.mark.parametrize(
    ("matrix", "options", "says"),
    [
        (np.eye(2), {"ratio": 1.0}, "`ratio` is 1.0"),
        (np.eye(2), {"ratio": 0.0}, "`ratio` is 0.0"),
        (np.eye(2), {"ratio": -0.5}, "`ratio` is -0.5"),
        (np.eye(2), {"ratio": float("nan")}, "`ratio` is nan"),
        (np.eye(2), {"ratio": "much"}, "`ratio` is 'much'"),
        (np.eye(2), {"sides": "diagonals"}, "choose one of rows"),
        (np.eye(2), {"floor": -1.0}, "`floor` is -1.0"),
        (np.ones((2, 3)), {}, "square"),
        (np.ones((0, 0)), {}, "at least one row"),
        (np.ones(3), {}, "square"),
        (np.array([[1.0, np.inf], [0.0, 1.0]]), {}, "inf"),
        (np.array([[0.0, 1.0], [0.0, 1.0]]), {"keep_diagonal": True}, r"entry 0 at \(0,\)"),
        (np.array([[0.1, 1.0], [0.0, 1.0]]), {"keep_diagonal": True, "floor": 0.5}, "below the floor"),
        (np.array([[1.0, 1.0], [0.0, 0.0]]), {}, r"at \(1,\).*give a `floor`"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_what_cannot_be_projected_is_named(matrix: np.ndarray, options: dict, says: str):
    with pytest.raises(InvalidInputError, match=says):
        project(matrix, **options)


def test_the_smooth_inverse_names_a_row_outside():
    with pytest.raises(InvalidInputError, match=r"sum to 1\.2"):
        from_ball(np.array([[0.1], [1.2]]), 0.9)
