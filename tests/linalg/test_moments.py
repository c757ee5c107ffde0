"""Streaming moments: exact sums, resuming to the same bits, and clear errors."""

from types import ModuleType

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lattq.errors import InvalidInputError
from lattq.linalg import SecondMoment, ldl
from tests.helpers import assert_same
from tests.strategies import seeds


def filled(*batches: np.ndarray) -> SecondMoment:
    """Return an accumulator that has seen the batches."""
    moment = SecondMoment(batches[0].shape[-1])
    for batch in batches:
        moment.update(batch)
    return moment


@st.composite
def streams(draw: st.DrawFn) -> list[np.ndarray]:
    """Batches of one width, some of them empty."""
    n = draw(st.integers(1, 6))
    sizes = draw(st.lists(st.integers(0, 5), min_size=2, max_size=5))
    rng = np.random.default_rng(draw(seeds))
    return [rng.standard_normal((size, n)) * np.exp(rng.standard_normal(n)) for size in [1, *sizes]]


def test_integers_are_summed_exactly(xp: ModuleType, rng: np.random.Generator):
    x, y = rng.integers(-99, 100, size=(2, 3, 5)), rng.integers(-99, 100, size=(2, 3, 4))
    moment, cross = SecondMoment(5), SecondMoment(5, 4)
    for _ in range(2):
        moment.update(xp.asarray(x.astype(np.float32)))
        cross.update(xp.asarray(x.astype(np.float32)), xp.asarray(y.astype(np.float32)))
    rows, others = x.reshape(-1, 5), y.reshape(-1, 4)
    assert moment.count == cross.count == 12
    assert_same(moment.matrix, rows.T @ rows * 2 / 12)
    assert_same(cross.matrix, rows.T @ others * 2 / 12)


def test_float32_batches_are_summed_in_float64(xp: ModuleType, rng: np.random.Generator):
    # A large mean and a small spread: what float32 sums lose is larger than the variance itself.
    x = (1000 + rng.standard_normal((4096, 3))).astype(np.float32)
    moment = SecondMoment(3)
    for batch in np.split(x, 8):
        moment.update(xp.asarray(batch))
    exact = np.array([[sum(map(int, np.rint(a * 2.0**28))) for a in (x.astype(float)[:, [i]] * x).T] for i in range(3)])
    wanted = exact.astype(np.float64) / 2.0**28 / 4096
    bound = 4096 * np.finfo(np.float64).eps * np.max(wanted)
    np.testing.assert_allclose(moment.matrix, wanted, atol=bound)
    assert np.max(np.abs(x.T @ x / np.float32(4096) - wanted)) > 100 * bound


@given(batches=streams(), cut=st.integers(1, 3))
def test_resuming_gives_the_same_bits(batches: list[np.ndarray], cut: int):
    first = filled(*batches[:cut]).to_arrays()
    resumed = SecondMoment.from_arrays({name: value.copy() for name, value in first.items()})
    for batch in batches[cut:]:
        resumed.update(batch)
    whole = filled(*batches)
    assert_same(resumed.matrix, whole.matrix)
    assert resumed.count == whole.count


def test_resuming_gives_the_same_bits_in_every_library(xp: ModuleType, rng: np.random.Generator):
    first, second = (xp.asarray(rng.standard_normal((7, 4)).astype(np.float32)) for _ in range(2))
    whole, half = SecondMoment(4), SecondMoment(4)
    whole.update(first)
    half.update(first)
    resumed = SecondMoment.from_arrays(half.to_arrays())
    for moment in (whole, resumed):
        moment.update(second)
    assert_same(resumed.matrix, whole.matrix)


@given(batches=streams())
def test_merging_adds(batches: list[np.ndarray]):
    left, right = filled(*batches[:2]), filled(*batches[2:])
    state = right.to_arrays()
    left.merge(right)
    whole = filled(*batches)
    assert left.count == whole.count
    scale = sum(np.sum(batch**2) for batch in batches) / whole.count
    np.testing.assert_allclose(left.matrix, whole.matrix, atol=32 * np.finfo(np.float64).eps * scale)
    for name, value in right.to_arrays().items():
        assert_same(value, state[name])


@given(batches=streams(), seed=seeds)
def test_integer_weights_repeat_samples(batches: list[np.ndarray], seed: int):
    x = np.concatenate(batches)
    repeats = np.random.default_rng(seed).integers(0, 4, size=len(x))
    repeats[0] = 1
    moment = SecondMoment(x.shape[1])
    moment.update(x, weights=repeats.astype(np.float32))
    repeated = filled(np.repeat(x, repeats, axis=0))
    assert moment.count == repeated.count
    scale = np.sum(x**2 * repeats[:, None]) / repeats.sum()
    np.testing.assert_allclose(moment.matrix, repeated.matrix, atol=64 * np.finfo(np.float64).eps * scale)


def test_weights_in_every_library(xp: ModuleType, rng: np.random.Generator):
    x, y, weights = rng.standard_normal((2, 5, 3)), rng.standard_normal((2, 5, 4)), rng.random((2, 5))
    cross = SecondMoment(3, 4)
    cross.update(xp.asarray(x), xp.asarray(y), weights=xp.asarray(weights))
    wanted = np.einsum("abi,abj,ab->ij", x, y, weights) / weights.sum()
    np.testing.assert_allclose(cross.matrix, wanted, atol=1e-14)


@given(batches=streams())
def test_a_moment_is_a_second_moment(batches: list[np.ndarray]):
    matrix = filled(*batches).matrix
    assert np.array_equal(matrix, matrix.T)
    assert np.all(ldl(matrix).pivots >= 0)


def test_libraries_may_alternate(xp: ModuleType, rng: np.random.Generator):
    x = rng.standard_normal((3, 6, 4))
    mixed = SecondMoment(4)
    for batch, move in zip(x, (np.asarray, xp.asarray, np.asarray), strict=True):
        mixed.update(move(batch))
    np.testing.assert_allclose(mixed.matrix, filled(*x).matrix, rtol=1e-13, atol=1e-14)


def test_a_saved_state_is_a_copy(rng: np.random.Generator):
    x = rng.standard_normal((5, 2))
    moment = filled(x)
    state = moment.to_arrays()
    kept = state["sum"].copy()
    restored = SecondMoment.from_arrays(state)
    matrix = moment.matrix.copy()
    restored.update(x)
    moment.update(x)
    assert_same(state["sum"], kept)
    np.testing.assert_allclose(moment.matrix, matrix)


def test_torch_batches_leave_no_graph_and_keep_bfloat16():
    x = torch.ones((3, 2), requires_grad=True)
    moment = SecondMoment(2)
    moment.update(2 * x)
    moment.update(torch.ones((3, 2), dtype=torch.bfloat16))
    assert_same(moment.matrix, np.full((2, 2), 2.5))


def test_one_vector_is_one_sample():
    moment = SecondMoment(2)
    moment.update(np.array([1.0, 2.0]))
    assert moment.count == 1


def test_no_sample_no_mean():
    moment = SecondMoment(2)
    moment.update(np.zeros((0, 2)))
    with pytest.raises(InvalidInputError, match="no mean of 0 samples"):
        _ = moment.matrix


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_named(xp: ModuleType, value: float):
    x = np.ones((2, 3))
    x[1, 2] = value
    moment = SecondMoment(3)
    with pytest.raises(InvalidInputError, match=rf"`x` holds {value} at index \(1, 2\)"):
        moment.update(xp.asarray(x))
    assert moment.count == 0


def test_what_does_not_fit_is_named():
    x = np.ones((2, 3))
    with pytest.raises(InvalidInputError, match=r"`x` has shape \(2, 3\); its last axis must be 4"):
        SecondMoment(4).update(x)
    with pytest.raises(InvalidInputError, match=r"`y` has shape \(2, 3\); its last axis must be 5"):
        SecondMoment(3, 5).update(x, x)
    with pytest.raises(InvalidInputError, match="needs `y`"):
        SecondMoment(3, 3).update(x)
    with pytest.raises(InvalidInputError, match="takes no `y`"):
        SecondMoment(3).update(x, x)
    with pytest.raises(InvalidInputError, match=r"`weights` holds -1\.0"):
        SecondMoment(3).update(x, weights=np.array([1.0, -1.0]))
    with pytest.raises(InvalidInputError, match="`n` = 0"):
        SecondMoment(0)
    with pytest.raises(InvalidInputError, match="cannot merge"):
        SecondMoment(3).merge(SecondMoment(3, 3))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("sum", np.zeros((2, 3))),
        ("sum", np.zeros((2, 2), dtype=np.float32)),
        ("sum", np.full((2, 2), np.nan)),
        ("count", np.asarray(-1.0)),
        ("count", np.zeros(2)),
        ("powers", np.zeros(3)),
        ("squares", np.asarray(-1.0)),
    ],
)
def test_a_damaged_state_is_refused(name: str, value: np.ndarray):
    state = filled(np.ones((1, 2))).to_arrays()
    with pytest.raises(InvalidInputError, match="`arrays`"):
        SecondMoment.from_arrays(state | {name: value})
    with pytest.raises(InvalidInputError, match=f"`{name}`"):
        SecondMoment.from_arrays({key: entry for key, entry in state.items() if key != name})
