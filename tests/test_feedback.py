"""The loop: the identity behind every distortion, whatever the second moment, order, blocks, groups and library."""

import dataclasses
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lattq._array import to_host
from lattq.errors import InvalidInputError
from lattq.feedback import MMSE, Cholesky, OpenLoop, successive_cancellation
from lattq.feedback.cancellation import Cancellation
from lattq.feedback.rules import Feedback, NoisyInputs, column_scale
from lattq.linalg import ldl
from lattq.linalg.ldl import LDL
from lattq.quantizers import AbsMax, Entries, MinMax, Uniform, UniformQuantizer
from tests.helpers import assert_same
from tests.strategies import layers, moment, second_moments, seeds, weights

EPS = float(np.finfo(np.float64).eps)
Layer = tuple[np.ndarray, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Grouped:
    """One fixed step, chosen anew for each group."""

    group: int | None
    step: float = 0.3
    shrink: bool = False

    def __call__(self, entries: Entries) -> Any:
        return Uniform(self.step)(entries)


@dataclasses.dataclass(frozen=True)
class Narrow:
    """Codes -1, 0 and 1, whatever the targets."""

    group: int | None = None
    shrink: bool = False

    def __call__(self, entries: Entries) -> UniformQuantizer:
        return UniformQuantizer(np.ones((1, 1)), 0.0, -1, 1)


def check_identities(weight: np.ndarray, sigma: np.ndarray, factor: LDL, found: Cancellation):
    """(W - Ŵ) U is the noise, and D is the noise weighted by the pivots.

    The first sums n products of errors and entries of U; the errors carry the rounding of targets and of Ŵ. The second
    also carries the rounding of the factor, where a dropped pivot may leave the square root of n ε.
    """
    error, order = weight - found.reconstruction, factor.order
    noise, n = found.noise[:, order], len(order)
    rounding = 8 * n * EPS * (np.abs(error[:, order]) + np.abs(weight).max())
    room = rounding @ np.abs(factor.unit)
    assert (np.abs(error[:, order] @ factor.unit - noise) <= room).all()
    tiles = factor.pivots.reshape(len(factor.pivots), -1, n // len(factor.pivots))
    split = noise.reshape(len(noise), len(tiles), -1)
    predicted = np.einsum("rbi,bij,rbj->", split, tiles, split)
    root = np.sqrt(np.diag(sigma))
    size, unsure = np.abs(error) @ root, room @ root[order]
    atol = 4 * EPS**0.5 * np.sum(size**2) + np.sum((size + unsure) * unsure)
    np.testing.assert_allclose(predicted, np.sum((error @ sigma) * error), rtol=0, atol=atol)


ORDERS = ["natural", "reversed", "sorted", "pivoted"]


@pytest.mark.parametrize("order", ORDERS)
@given(layer=layers(), step=st.floats(0.05, 2), shrink=st.booleans(), dither=st.booleans())
def test_noise_and_distortion_of_a_fixed_step(order: str, layer: Layer, step: float, shrink: bool, dither: bool):
    weight, sigma = layer
    factor = Cholesky(order).factor(weight, sigma)
    design = Uniform(step, shrink=shrink, dither=3 if dither else None)
    check_identities(weight, sigma, factor, successive_cancellation(weight, factor, design))


@pytest.mark.parametrize("design", [AbsMax(16, 2), AbsMax(5, 3, shrink=True), MinMax(8, 4), MinMax(4, None)], ids=str)
@given(layer=layers(), order=st.sampled_from(["natural", "reversed"]))
def test_noise_and_distortion_of_groups(design: Any, layer: Layer, order: str):
    weight, sigma = layer
    factor = Cholesky(order).factor(weight, sigma)
    found = successive_cancellation(weight, factor, design)
    check_identities(weight, sigma, factor, found)
    assert len(found.quantizers) == -(-len(sigma) // (design.group or len(sigma)))


@pytest.mark.parametrize("block", [2, 4])
@given(data=st.data(), blocks=st.integers(1, 3), order=st.sampled_from(["natural", "reversed", "pivoted"]))
def test_noise_and_distortion_of_blocks(block: int, data: st.DataObject, blocks: int, order: str):
    n = block * blocks
    sigma, weight = data.draw(second_moments(n, n)), data.draw(weights(columns=n))
    factor = Cholesky(order, block=block).factor(weight, sigma)
    check_identities(weight, sigma, factor, successive_cancellation(weight, factor, Uniform(0.3)))


def test_a_permuted_factor_breaks_the_identity():
    """Negative control: errors fed back through the wrong columns."""
    sigma = moment(np.logspace(0, 2, 8), 3)
    weight = np.random.default_rng(0).standard_normal((50, 8))
    factor = ldl(sigma)
    found = successive_cancellation(weight, factor, Uniform(0.3))
    check_identities(weight, sigma, factor, found)
    shuffled = np.roll(np.arange(8), 1)
    wrong = LDL(np.tril(factor.unit[np.ix_(shuffled, shuffled)], -1) + np.eye(8), factor.pivots, factor.order)
    with pytest.raises(AssertionError):
        check_identities(weight, sigma, wrong, found)
    with pytest.raises(AssertionError):
        check_identities(weight, sigma, wrong, successive_cancellation(weight, wrong, Uniform(0.3)))


@given(layer=layers(), group=st.integers(1, 13), order=st.sampled_from(["natural", "reversed"]))
def test_groups_do_not_change_the_codes_of_a_fixed_step(layer: Layer, group: int, order: str):
    weight, sigma = layer
    factor = Cholesky(order).factor(weight, sigma)
    grouped, whole = (successive_cancellation(weight, factor, Grouped(size)) for size in (group, None))
    near_tie = np.abs(np.abs(whole.noise) / 0.3 - 0.5).min(initial=1) < 1e-6
    if not near_tie:  # the sums of the feedback are taken in another order
        assert_same(grouped.codes, whole.codes)


@given(data=st.data(), order=st.sampled_from(ORDERS), n=st.integers(1, 12))
def test_uncorrelated_inputs_feed_nothing_back(data: st.DataObject, order: str, n: int):
    variances = np.array(data.draw(st.lists(st.floats(0.01, 100), min_size=n, max_size=n)))
    weight = data.draw(weights(columns=n))
    results = [
        successive_cancellation(weight, feedback.factor(weight, np.diag(variances)), Uniform(0.1))
        for feedback in (Cholesky(order), OpenLoop())
    ]
    assert_same(results[0].codes, results[1].codes)
    assert_same(results[1].codes, Uniform(0.1)(Entries(weight)).encode(weight))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("sweeps", [0, 2])
def test_every_array_library_gives_the_same_codes(xp: ModuleType, dtype: str, order: str, sweeps: int):
    rng = np.random.default_rng(4)
    inputs = rng.standard_normal((40, 24)) @ rng.standard_normal((24, 24))
    sigma, weight = inputs.T @ inputs / 40, rng.standard_normal((17, 24)).astype(dtype)
    factor = Cholesky(order).factor(weight, sigma)
    design = Uniform(0.3, shrink=True)
    here = successive_cancellation(xp.asarray(weight), factor, design, sweeps=sweeps)
    host = successive_cancellation(weight, factor, design, sweeps=sweeps)
    assert_same(to_host(here.codes), host.codes)
    assert_same(here.gains, host.gains)
    assert here.reconstruction.dtype == getattr(xp, dtype)
    np.testing.assert_allclose(to_host(here.reconstruction), host.reconstruction, atol=1e-5)


@pytest.mark.parametrize("design", [AbsMax(8, 5), MinMax(16, 4), Uniform(0.2, dither=1)], ids=str)
def test_every_array_library_gives_the_same_groups(xp: ModuleType, design: Any):
    rng = np.random.default_rng(5)
    weight, sigma = rng.standard_normal((9, 14)), moment(np.logspace(-1, 1, 14), 1)
    factor = Cholesky("reversed").factor(weight, sigma)
    here = successive_cancellation(xp.asarray(weight), factor, design)
    host = successive_cancellation(weight, factor, design)
    assert_same(to_host(here.codes), host.codes)
    assert here.overload == host.overload


DESIGNS = [
    *(Uniform(0.3), Uniform(0.3, shrink=True), Uniform(0.3, offset=0.4, shrink=True), Uniform(0.3, dither=1)),
    *(AbsMax(4, 3), AbsMax(256, None, shrink=True), MinMax(3, 2), MinMax(16, None)),
]


@pytest.mark.parametrize("design", DESIGNS, ids=str)
@given(layer=layers(), sweeps=st.integers(0, 1))
def test_reconstructions_are_what_the_quantizers_decode(design: Any, layer: Layer, sweeps: int):
    """In free columns too: what a decoder makes of their codes is what was fed back."""
    weight, sigma = layer
    found = successive_cancellation(weight, Cholesky().factor(weight, sigma), design, sweeps=sweeps)
    parts: list[Any] = found.quantizers
    quantizer: Any = UniformQuantizer.concatenate(parts, design.group or len(sigma))
    decoded = quantizer.decode(found.codes) * found.gains / 128
    room = 8 * EPS * (np.abs(weight).max() + np.abs(decoded).max())  # Ŵ is what the errors leave of W
    np.testing.assert_allclose(found.reconstruction, decoded, rtol=0, atol=room)


def test_gains_are_least_squares():
    """<x, q> / <q, q> of a column, in 128ths; open loop, so the target is the column."""
    weight = 0.4 * np.random.default_rng(0).standard_normal((500, 3))
    weight[:, 2] *= 1e-3
    found = successive_cancellation(weight, OpenLoop().factor(weight, np.eye(3)), Uniform(1.0, shrink=True))
    rounded = np.round(weight)
    expected = [np.rint(128 * (weight[:, i] @ rounded[:, i]) / (rounded[:, i] @ rounded[:, i])) for i in range(2)]
    assert found.gains.tolist() == [*expected, 128]


def test_idle_columns_get_code_0_and_overload_is_counted():
    sigma = np.diag([1.0, 0.0, 2.0, 0.0])
    weight = np.ones((3, 4))
    found = successive_cancellation(weight, ldl(sigma), Uniform(0.5))
    np.testing.assert_array_equal(found.codes, [[2, 0, 2, 0]] * 3)
    assert successive_cancellation(np.array([[0.1, 9.0, -9.0]]), ldl(np.eye(3)), Narrow()).overload == 2


@pytest.mark.parametrize("order", ["sorted", "pivoted"])
def test_torn_groups_are_refused(order: str):
    weight, sigma = np.ones((2, 4)), np.diag([1.0, 3.0, 2.0, 4.0])
    factor = Cholesky(order).factor(weight, sigma)
    for group in (1, None, 4):
        successive_cancellation(weight, factor, Grouped(group))
    with pytest.raises(InvalidInputError, match="groups of 2 columns are torn apart"):
        successive_cancellation(weight, factor, Grouped(2))


def test_groups_must_hold_whole_blocks():
    with pytest.raises(InvalidInputError, match="group of 3 columns is not a multiple of the block of 2"):
        successive_cancellation(np.ones((2, 6)), ldl(np.eye(6), block=2), Grouped(3))


def test_shapes_must_agree():
    with pytest.raises(InvalidInputError, match="`weight` has 3 columns, the factor 2"):
        successive_cancellation(np.ones((2, 3)), ldl(np.eye(2)), Uniform(1.0))


@pytest.mark.parametrize("feedback", [Cholesky("random"), MMSE(0.1, order="")])
def test_unknown_orders_are_refused(feedback: Any):
    with pytest.raises(InvalidInputError, match='choose "natural"'):
        feedback.factor(np.ones((1, 2)), np.eye(2))


@given(layer=layers(), order=st.sampled_from(ORDERS), damping=st.sampled_from([0.0, 0.01, 1.0]))
def test_factors_multiply_to_the_damped_moment(layer: Layer, order: str, damping: float):
    weight, sigma = layer
    factor = Cholesky(order, damping).factor(weight, sigma)
    wanted = sigma + damping * np.diag(sigma).mean() * np.eye(len(sigma))
    product = (factor.unit * factor.pivots) @ factor.unit.T
    scale = np.sqrt(np.outer(np.diag(wanted), np.diag(wanted)))
    error = np.abs(product - wanted[np.ix_(factor.order, factor.order)])
    assert (error <= 4 * EPS**0.5 * scale[np.ix_(factor.order, factor.order)]).all()
    if order == "sorted":
        assert (np.diff(np.diag(wanted)[factor.order]) >= 0).all()  # the last is coded first


@given(layer=layers(), seed=seeds)
def test_the_pivoted_order_does_not_depend_on_units(layer: Layer, seed: int):
    weight, sigma = layer
    weight = weight + np.random.default_rng(seed).standard_normal(weight.shape)
    scale = 2.0 ** np.random.default_rng(seed).integers(-2, 3, len(sigma))
    for feedback in (Cholesky("pivoted"), MMSE(0.1)):
        one = feedback.factor(weight, sigma)
        other = feedback.factor(weight * scale, sigma / scale / scale[:, None])
        floored = column_scale(weight * scale) != column_scale(weight) * scale
        if not floored.any():
            assert_same(one.order, other.order)


@pytest.mark.parametrize("feedback", [OpenLoop(), Cholesky(), MMSE(0.1)])
def test_the_protocol_holds(feedback: Any):
    assert isinstance(feedback, Feedback)


def test_column_scales_have_a_floor():
    assert_same(column_scale(np.zeros((2, 3))), np.ones(3))
    scale = column_scale(np.array([[10.0, 0.0, 1e-9]] * 10**6))  # so many rows that nothing is drawn together
    np.testing.assert_allclose(scale, [10.0, 0.1 / np.sqrt(3), 0.1 / np.sqrt(3)], rtol=1e-4)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("kind", "options", "named"),
    [
        (OpenLoop, {"block": None}, "`block` is None"),
        (OpenLoop, {"block": 2.0}, "`block` is 2.0"),
        (OpenLoop, {"block": "a"}, "`block` is 'a'"),
        (Cholesky, {"damping": None}, "`damping` is None"),
        (Cholesky, {"damping": "x"}, "`damping` is 'x'"),
        (Cholesky, {"damping": np.nan}, "`damping` is nan"),
        (Cholesky, {"block": 2.0}, "`block` is 2.0"),
        (MMSE, {"noise": None}, "`noise` is None"),
        (MMSE, {"noise": 0.1, "ratio": -1.0}, "`ratio` is -1.0"),
        (NoisyInputs, {"noise": None}, "`noise` is None"),
        (NoisyInputs, {"noise": "a"}, "`noise` is 'a'"),
    ],
)
def test_options_that_are_no_numbers_are_named(kind: Any, options: dict, named: str):
    with pytest.raises(InvalidInputError, match=named):
        kind(**options)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    ("feedback", "named"),
    [
        (lambda order: NoisyInputs(1e300, order), r"`noise` is 1e\+300"),
        (lambda order: MMSE(1e300, order=order), r"`noise` is 1e\+300"),
        (lambda order: Cholesky(order, 1e300), r"`damping` is 1e\+300"),
        (lambda order: ldl(np.eye(2) * 1e30, damping=1e300), r"`damping` is 1e\+300"),
    ],
)
def test_a_diagonal_beyond_float64_is_blamed_on_the_option(feedback: Any, named: str, order: str):
    """Noise and damping are finite, but not what they add."""
    with pytest.raises(InvalidInputError, match=named):
        feedback(order).factor(np.full((1, 2), 1e-8), np.eye(2) * 1e30)
