"""The least-squares decoder: never worse than any other, for every second moment at once."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lattq.affine import balanced
from lattq.affine.decoders import least_squares_decoder
from lattq.errors import InvalidInputError
from tests.strategies import gaussian_layer, layers, moment, second_moments, seeds


def error(weight: np.ndarray, decoded: np.ndarray, matrix: np.ndarray, sigma: np.ndarray) -> float:
    left = weight - decoded @ matrix
    return float(np.einsum("ri,ij,rj->", left, sigma, left))


@given(layer=layers(), seed=seeds, step=st.floats(0.1, 2.0), data=st.data())
def test_it_is_never_worse_than_the_inverse(layer: tuple, seed: int, step: float, data: st.DataObject):
    """With codes of any quality, weights of any rank, and another second moment than that of the design."""
    weight, sigma = layer
    matrix = balanced(weight, sigma)
    inverse = np.linalg.inv(matrix).T
    decoded = step * np.rint(weight @ matrix.T / step)
    best = least_squares_decoder(weight, decoded)
    for second in (sigma, data.draw(second_moments(len(sigma), len(sigma)))):
        slack = 1e-9 * float(np.trace(second) * max(np.sum(weight**2), 1e-30))
        assert error(weight, decoded, best, second) <= error(weight, decoded, inverse, second) + slack


@given(seed=seeds)
def test_its_normal_equations_hold(seed: int):
    """ŴᵀŴ T = ŴᵀW, and no step away from it lowers the error."""
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal((20, 5))
    decoded, sigma = weight + 0.2 * rng.standard_normal((20, 5)), moment(np.linspace(1, 9, 5), seed)
    best = least_squares_decoder(weight, decoded)
    np.testing.assert_allclose(decoded.T @ decoded @ best, decoded.T @ weight, atol=1e-10)
    moved = best + 1e-3 * rng.standard_normal((5, 5))
    assert error(weight, decoded, best, sigma) < error(weight, decoded, moved, sigma)


def test_errors_of_few_rows_vanish():
    weight, _ = gaussian_layer(6, 8)
    decoded = np.rint(2.0 * weight) / 2.0
    np.testing.assert_allclose(decoded @ least_squares_decoder(weight, decoded), weight, atol=1e-10)


def test_codes_of_zeros_decode_to_zeros():
    np.testing.assert_array_equal(least_squares_decoder(np.ones((3, 2)), np.zeros((3, 2))), np.zeros((2, 2)))


@pytest.mark.parametrize(("weight", "message"), [(np.full((3, 2), np.nan), "holds nan"), (np.ones(3), "two matrices")])
def test_bad_input_is_refused(weight: np.ndarray, message: str):
    with pytest.raises(InvalidInputError, match=message):
        least_squares_decoder(weight, np.ones((3, 2))) if weight.ndim == 2 else least_squares_decoder(
            np.ones((0, 2)), np.ones((0, 2))
        )
