"""What is accepted as a second moment."""

from types import ModuleType

import numpy as np
import pytest
import torch

from lattq.errors import InvalidInputError, NotPositiveSemidefiniteError
from lattq.linalg.checks import check_second_moment
from tests.helpers import assert_same


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rounding_is_averaged_out(xp: ModuleType, dtype: str, rng: np.random.Generator):
    inputs = rng.standard_normal((9, 4))
    sigma = (inputs.T @ inputs).astype(dtype)
    noise = np.sqrt(np.finfo(dtype).eps) * rng.standard_normal(sigma.shape).astype(dtype)
    checked = check_second_moment(xp.asarray(sigma + noise), 4)
    assert np.array_equal(checked, checked.T)
    wide = (sigma + noise).astype(np.float64)
    assert_same(checked, (wide + wide.T) / 2)


def test_the_argument_is_not_changed():
    sigma = np.array([[1.0, 1e-9], [0.0, 1.0]])
    before = sigma.copy()
    check_second_moment(sigma)
    assert_same(sigma, before)


def test_bfloat16_has_its_own_rounding():
    sigma = torch.tensor([[1.0, 0.25], [0.5, 1.0]], dtype=torch.bfloat16)
    assert np.array_equal(check_second_moment(sigma), [[1.0, 0.375], [0.375, 1.0]])
    with pytest.raises(InvalidInputError, match="not symmetric"):
        check_second_moment(sigma.to(torch.float32))


def test_asymmetry_is_named():
    sigma = np.eye(3)
    sigma[0, 2] = 0.5
    with pytest.raises(InvalidInputError, match=r"entry \(0, 2\) is 0.5 and entry \(2, 0\) is 0;"):
        check_second_moment(sigma)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_named(value: float):
    sigma = np.eye(3)
    sigma[1, 2] = value
    with pytest.raises(InvalidInputError, match=r"`sigma` holds .* at index \(1, 2\)"):
        check_second_moment(sigma)


@pytest.mark.parametrize("shape", [(2, 3), (0, 0)])
def test_the_shape_is_named(shape: tuple[int, int]):
    with pytest.raises(InvalidInputError, match=rf"shape \({shape[0]}, {shape[1]}\)"):
        check_second_moment(np.zeros(shape))


def test_the_wanted_size_is_named():
    with pytest.raises(InvalidInputError, match="3 x 3 but the weight has 4 columns"):
        check_second_moment(np.eye(3), 4)


def test_a_negative_variance_is_named():
    with pytest.raises(NotPositiveSemidefiniteError, match=r"column 1 has pivot -0\.25") as caught:
        check_second_moment(np.diag([1.0, -0.25, 1.0]))
    assert (caught.value.index, caught.value.pivot) == (1, -0.25)
    check_second_moment(np.diag([1.0, -1e-17]))
