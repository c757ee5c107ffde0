"""Steps as arrays, in files, and over groups of columns."""

from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lattq._array import to_host
from lattq.coding.schema import SCALE, Record, checked
from lattq.errors import DamagedFileError, InvalidInputError
from lattq.lattices import E8
from lattq.quantizers import Entries, Lattice, Trellis, Uniform
from lattq.quantizers.lattice import LatticeQuantizer
from lattq.quantizers.steps import GROUP, HALVES, HEIGHT, spread, step_like, stored_halves
from lattq.quantizers.trellis import TrellisQuantizer
from tests.helpers import assert_same


@given(log=st.floats(-1000, 1000))
def test_steps_are_rounded_once_or_refused(log: float):
    """Between the ends of the normal numbers of a dtype a step has its full precision."""
    step = 2.0**log
    for dtype in (np.float32, np.float64):
        limits = np.finfo(dtype)
        targets = np.zeros((2, 2), dtype=dtype)
        if float(limits.smallest_normal) <= step <= float(limits.max):
            assert abs(float(step_like(step, targets)[0, 0]) / step - 1) <= limits.eps / 2
        else:
            with pytest.raises(InvalidInputError, match=r"`step` is .* or pass the weights as float64"):
                step_like(step, targets)


@pytest.mark.parametrize("step", [1e-45, 1e-39, 1e39])
@pytest.mark.parametrize("kind", [Uniform, Trellis, lambda step: Lattice(E8, step)])
def test_no_design_takes_a_step_beyond_the_dtype(xp: ModuleType, kind: Any, step: float):
    design = kind(step=step)
    with pytest.raises(InvalidInputError, match=r"float32 go from 1.18e-38 to 3.4e\+38"):
        design(Entries(xp.zeros((8, 1), dtype=xp.float32)))
    assert float(design(Entries(xp.zeros((8, 1), dtype=xp.float64))).step[0, 0]) == step


@pytest.mark.parametrize(
    "quantizer",
    [TrellisQuantizer(np.full((1, 1), 0.5, np.float32)), LatticeQuantizer(np.full((1, 1), 0.5, np.float32), E8)],
)
def test_one_step_is_that_of_the_whole_matrix(quantizer: Any):
    whole = type(quantizer).concatenate([quantizer], 3)
    assert type(whole) is type(quantizer)
    assert (whole.step.dtype, float(whole.step[0, 0])) == (np.float64, 0.5)
    assert (whole.overload(np.full((8, 1), 1e30)), whole.underflow()) == (0, 0)
    assert type(quantizer).from_state(whole.to_state(), (8, 1)).to_state() == whole.to_state()


SCALES = Record(group=GROUP, height=HEIGHT, scales=HALVES)


@given(
    height=st.sampled_from([-1, 0, 1, 2, 3, 4, None, True, 3.0]),
    group=st.sampled_from([1, 3, 8, 1 << 40, 0, -8, 1 << 64, 2.0, None]),
    size=st.integers(0, 30),
)
def test_scales_of_a_file_belong_to_one_row_or_all_and_to_groups_of_columns(height: Any, group: Any, size: int):
    good = type(height) is type(group) is int and height in (1, 3) and 1 <= group < 1 << 63
    if good and size == height * -(-8 // group):
        assert checked(SCALES, [group, height, bytes(2 * size)], rows=3, columns=8)[:2] == [group, height]
    else:
        with pytest.raises(DamagedFileError, match=r"`(group|height|scales)` is"):
            checked(SCALES, [group, height, bytes(2 * size)], rows=3, columns=8)


@pytest.mark.parametrize("step", [0.0, -1.0, np.inf, np.nan, 1e308, 1e-300, 1, None, b"", [0.5]])
def test_one_step_of_a_file_is_a_positive_float(step: Any):
    with pytest.raises(DamagedFileError, match="`step` is"):
        checked(SCALE, step, "step")


@given(bad=st.sampled_from([None, 0.0, -0.0, -1.0, np.inf, np.nan]), rows=st.integers(1, 4), zero=st.booleans())
def test_scales_of_a_file_are_positive_and_finite(bad: float | None, rows: int, zero: bool):
    steps = np.ones((rows, 2), dtype="<f2")
    steps[-1:, 1] = 1.0 if bad is None else bad
    if bad is None or (zero and bad == 0):
        assert_same(stored_halves(steps.tobytes(), (rows, 2), zero=zero), steps.astype(np.float64))
    else:
        with pytest.raises(DamagedFileError, match="scales that are"):
            stored_halves(steps.tobytes(), (rows, 2), zero=zero)


@given(columns=st.integers(1, 12), group=st.integers(1, 12), rows=st.integers(1, 3))
def test_each_column_has_the_value_of_its_group(columns: int, group: int, rows: int):
    values = np.random.default_rng(columns).random((rows, -(-columns // group)))
    found = spread(values, group, np.zeros((rows, columns)))
    every = np.broadcast_to(to_host(found), (rows, columns))
    for j in range(columns):
        np.testing.assert_array_equal(every[:, j], values[:, j // group])
