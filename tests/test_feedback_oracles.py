"""The loop against other people's algorithms: GPTQ, WaterSIC, coordinate descent, and the closest lattice point."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lattq.feedback import MMSE, Cholesky, successive_cancellation
from lattq.linalg import ldl
from lattq.quantizers import AbsMax, MinMax, Uniform, UniformQuantizer
from lattq.transforms import Equalize
from tests.helpers import assert_same
from tests.oracles.brute_force import closest_point, quadratic_error
from tests.oracles.cancellation import cancellation, descent, watersic
from tests.oracles.textbook_gptq import textbook_gptq
from tests.strategies import layers, moment, second_moments, seeds, weights, well_conditioned_moments

EPS = float(np.finfo(np.float64).eps)
ORDERS = ["natural", "reversed", "sorted", "pivoted"]


def gaussian(seed: int, rows: int, columns: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, columns))


def rounding(step: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda target: np.round(target / step) * step


def is_near_a_tie(noise: np.ndarray, step: float) -> bool:
    """Whether a target is within rounding of a cell's boundary, where two correct programs may differ."""
    return bool((np.abs(np.abs(noise) / step - 0.5) < 1e-5).any())


@pytest.mark.parametrize("order", ORDERS)
@given(layer=layers(), step=st.floats(0.1, 2))
def test_the_loop_is_its_definition(order: str, layer: tuple[np.ndarray, np.ndarray], step: float):
    """Halving, matrix products and transposes give what one column at a time gives; free columns stay 0."""
    weight, sigma = layer
    factor = Cholesky(order).factor(weight, sigma)
    found = successive_cancellation(weight, factor, Uniform(step))
    if not is_near_a_tie(found.noise, step) and (factor.pivots > 0).all():
        expected = cancellation(weight, factor.unit, factor.order, rounding(step))
        np.testing.assert_allclose(found.reconstruction, expected, rtol=0, atol=4 * EPS * (1 + np.abs(weight).max()))


def gptq_design(levels: int, symmetric: bool) -> Callable:
    """GPTQ's quantizers: absmax or min-max of a group's current targets, steps in half precision."""

    def design(targets: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        if symmetric:
            span, low = 2 * np.abs(targets).max(axis=1), -(levels // 2)
        else:
            span = np.maximum(targets.max(axis=1), 0) - np.minimum(targets.min(axis=1), 0)
            low = 0
        step = (span / (levels - 1)).astype(np.float16).astype(np.float64)
        zero = 0.0 if symmetric else np.clip(np.round(-np.minimum(targets.min(axis=1), 0) / step), 0, levels - 1)
        return lambda column: (np.round(np.clip(column / step + zero, low, low + levels - 1)) - zero) * step

    return design


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("group", [None, 1, 3, 4, 100])
@given(sigma=well_conditioned_moments(min_n=2), seed=seeds, data=st.data())
def test_reversed_columns_are_textbook_gptq(
    symmetric: bool, group: int | None, sigma: np.ndarray, seed: int, data: st.DataObject
):
    """Codes and reconstruction bit for bit: same steps of every group, same roundings.

    A step of float16 and a code are each the nearest of their kind to numbers that agree to 1e-9 here, so they are
    equal unless such a number lies within that distance of a boundary.
    """
    levels, damping = data.draw(st.sampled_from([2, 3, 8, 16])), data.draw(st.sampled_from([0.0, 0.01, 0.1]))
    weight = gaussian(seed, 5, len(sigma))
    hessian = sigma + damping * np.diag(sigma).mean() * np.eye(len(sigma))
    expected = textbook_gptq(weight, hessian, gptq_design(levels, symmetric), group)
    design = (AbsMax if symmetric else MinMax)(levels, group)
    found = successive_cancellation(weight, Cholesky("reversed", damping).factor(weight, sigma), design)
    parts: list[Any] = found.quantizers
    quantizer: Any = UniformQuantizer.concatenate(parts, group or len(sigma))
    assert_same(quantizer.decode(found.codes), expected)


@pytest.mark.parametrize("order", ["natural", "sorted"])
def test_other_orders_are_gptq_on_permuted_columns(order: str):
    """Act-order: columns by decreasing diagonal first, then the textbook."""
    sigma, weight = moment(np.logspace(0, 2, 12), 3), gaussian(3, 30, 12)
    coded = np.argsort(-np.diag(sigma), kind="stable") if order == "sorted" else np.arange(12)[::-1]
    expected = textbook_gptq(weight[:, coded], sigma[np.ix_(coded, coded)], gptq_design(16, True))
    found = successive_cancellation(weight, Cholesky(order).factor(weight, sigma), AbsMax(16, None))
    assert_same(found.quantizers[0].decode(found.codes)[:, coded], expected)


def grid_gain(target: np.ndarray, found: np.ndarray) -> float:
    """LMMSE gain in 128ths."""
    power = found @ found
    return float(np.rint(128 * (target @ found) / power)) / 128 if power > 0 else 1.0


@pytest.mark.parametrize("shrink", [False, True])
@given(sigma=well_conditioned_moments(min_n=1), seed=seeds, side=st.floats(0.05, 2))
def test_equalized_cancellation_is_watersic(shrink: bool, sigma: np.ndarray, seed: int, side: float):
    """One step in equalized coordinates is the spacing side / l_ii in the original ones."""
    sigma = sigma / np.diag(sigma).mean()
    weight = gaussian(seed, 9, len(sigma))
    codes, expected = watersic(weight, sigma, side, grid_gain if shrink else None)
    factor = Cholesky().factor(weight, sigma)
    diagonal = Equalize(exact=True)(factor)
    design = Uniform(side, shrink=shrink)
    found = successive_cancellation(diagonal.forward(weight), factor.rescaled(1 / diagonal.scale), design)
    if not shrink and is_near_a_tie(found.noise, side):
        return
    assert_same(found.codes, codes)
    np.testing.assert_allclose(
        diagonal.inverse(found.reconstruction), expected, atol=1e-9 * (1 + np.abs(expected).max())
    )


def cost(weight: np.ndarray, found: np.ndarray, hessian: np.ndarray) -> float:
    return float(quadratic_error(weight - found, hessian).sum())


@pytest.mark.parametrize("order", ORDERS)
@given(layer=layers(), step=st.floats(0.1, 2))
def test_sweeps_never_raise_the_distortion(order: str, layer: tuple[np.ndarray, np.ndarray], step: float):
    weight, sigma = layer
    factor = Cholesky(order).factor(weight, sigma)
    costs = [
        cost(weight, successive_cancellation(weight, factor, Uniform(step), sweeps=sweeps).reconstruction, sigma)
        for sweeps in range(4)
    ]
    slack = 4 * EPS**0.5 * np.square((np.abs(weight) + step) @ np.sqrt(np.diag(sigma))).sum()
    assert (np.diff(costs) <= slack).all()


@pytest.mark.parametrize("order", ORDERS)
@given(sigma=well_conditioned_moments(), seed=seeds, sweeps=st.integers(1, 3), step=st.floats(0.1, 1))
def test_sweeps_are_coordinate_descent(order: str, sigma: np.ndarray, seed: int, sweeps: int, step: float):
    weight = gaussian(seed, 6, len(sigma))
    factor = Cholesky(order).factor(weight, sigma)
    expected = successive_cancellation(weight, factor, Uniform(step)).reconstruction
    for _ in range(sweeps):
        expected = descent(weight, sigma, expected, factor.order, rounding(step))
    found = successive_cancellation(weight, factor, Uniform(step), sweeps=sweeps)
    if not is_near_a_tie(found.noise, step):
        np.testing.assert_allclose(found.reconstruction, expected, rtol=0, atol=1e-9)


def block_descent(
    weight: np.ndarray, hessian: np.ndarray, start: np.ndarray, order: np.ndarray, block: int, step: float
) -> np.ndarray:
    """Blocks of columns, each rounded at its best real values given all others."""
    found = start.copy()
    for lo in range(len(order) - block, -1, -block):
        inside, others = order[lo : lo + block], np.delete(order, np.s_[lo : lo + block])
        pull = (weight[:, others] - found[:, others]) @ hessian[np.ix_(others, inside)]
        best = weight[:, inside] + np.linalg.solve(hessian[np.ix_(inside, inside)], pull.T).T
        found[:, inside] = rounding(step)(best)
    return found


@pytest.mark.parametrize("block", [2, 4])
@given(data=st.data(), blocks=st.integers(1, 3), seed=seeds)
def test_sweeps_of_blocks(block: int, data: st.DataObject, blocks: int, seed: int):
    n = block * blocks
    sigma, weight = data.draw(well_conditioned_moments(n, n)), gaussian(seed, 5, n)
    factor = Cholesky("pivoted", block=block).factor(weight, sigma)
    start = successive_cancellation(weight, factor, Uniform(0.3)).reconstruction
    found = successive_cancellation(weight, factor, Uniform(0.3), sweeps=1)
    if not is_near_a_tie(found.noise, 0.3):
        expected = block_descent(weight, sigma, start, factor.order, block, 0.3)
        np.testing.assert_allclose(found.reconstruction, expected, rtol=0, atol=1e-9)


@given(layer=layers(), ratio=st.floats(0.1, 1))
def test_sweeps_with_mmse_descend_its_functional(layer: tuple[np.ndarray, np.ndarray], ratio: float):
    weight, sigma = layer
    factor = MMSE(0.1, ratio).factor(weight, sigma)
    inverse = np.argsort(factor.order)
    hessian = ((factor.unit * factor.pivots) @ factor.unit.T)[np.ix_(inverse, inverse)]
    target = weight - (weight * factor.penalty) @ np.linalg.inv(hessian)
    costs = [
        cost(target, successive_cancellation(weight, factor, Uniform(0.5), sweeps=sweeps).reconstruction, hessian)
        for sweeps in range(3)
    ]
    slack = 4 * EPS**0.5 * np.square((np.abs(target) + 0.5) @ np.sqrt(np.diag(hessian))).sum()
    assert (np.diff(costs) <= slack).all()


@pytest.mark.parametrize("order", ORDERS)
@given(n=st.integers(1, 3), seed=seeds, data=st.data())
def test_nothing_beats_the_closest_point(order: str, n: int, seed: int, data: st.DataObject):
    """Open loop, feedback and sweeps come ever nearer to the optimum and never below it."""
    sigma = data.draw(second_moments(n, n))
    row = 2 * gaussian(seed, 1, n)
    factor = Cholesky(order).factor(row, sigma)
    best = quadratic_error(row - closest_point(row[0], sigma, radius=4), sigma)[0]
    for sweeps in range(3):
        found = successive_cancellation(row, factor, Uniform(1.0), sweeps=sweeps)
        reach = np.abs(found.codes - np.round(row)).max()
        if reach <= 4:  # inside the box that was searched
            assert quadratic_error(row - found.codes, sigma)[0] >= best * (1 - 1e-9) - 1e-12 * np.diag(sigma).max()


def test_sweeps_approach_the_optimum_on_average():
    sigma, rows = 0.9 * np.ones((4, 4)) + 0.1 * np.eye(4), 3 * gaussian(0, 300, 4)
    factor = ldl(sigma)
    costs: list[Any] = [
        quadratic_error(
            rows - successive_cancellation(rows, factor, Uniform(1.0), sweeps=k).reconstruction, sigma
        ).mean()
        for k in (0, 1, 2)
    ]
    optimum = np.mean([quadratic_error((row - closest_point(row, sigma, radius=2))[None], sigma)[0] for row in rows])
    assert optimum <= costs[2] <= costs[1] < costs[0]


@given(data=st.data(), shrink=st.booleans())
def test_free_columns_stay_free_in_sweeps(data: st.DataObject, shrink: bool):
    sigma = np.diag([1.0, 0.0, 3.0])
    weight = data.draw(weights(columns=3))
    found = successive_cancellation(weight, ldl(sigma), Uniform(0.2, shrink=shrink), sweeps=2)
    assert not found.codes[:, 1].any()
    assert not found.reconstruction[:, 1].any()
