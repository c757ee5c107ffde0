"""Dense and sparse: what leaves the matrix comes back, bytes are those of places and values, damage is seen."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import lattq as lq
from lattq.errors import DamagedFileError, InvalidInputError
from lattq.quantizers import Uniform
from lattq.transforms import Outliers, Sparse, from_state, to_state
from tests.contracts import TransformContract
from tests.damage import damaged_streams, refusal_allowed
from tests.strategies import gaussian_layer, seeds


class TestSparse(TransformContract):
    def transform(self, sigma: np.ndarray, seed: int) -> Sparse:
        n = len(sigma)
        places = np.unique(np.random.default_rng(seed).integers(0, n, 3))
        return Sparse(places, np.random.default_rng(seed).standard_normal(len(places)).astype(np.float16) * 1.0, n)


@given(seed=seeds, fraction=st.sampled_from([0.0, 0.01, 0.2]), sensitive=st.sampled_from([0.0, 0.05]))
def test_the_largest_and_the_most_sensitive_leave(seed: int, fraction: float, sensitive: float):
    """Against sorted magnitudes, with no ties among Gaussian numbers."""
    weight, sigma = gaussian_layer(20, 10)
    weight = weight * np.random.default_rng(seed).standard_normal(weight.shape)
    found = Outliers(fraction, sensitive)(weight, sigma)
    scores = np.abs(weight).ravel(), (weight**2 * np.diag(sigma)).ravel()
    expected = np.zeros(200, dtype=bool)
    for share, score in zip((fraction, sensitive), scores, strict=True):
        expected |= score > np.sort(score)[::-1][round(share * 200)]
    np.testing.assert_array_equal(found.places, np.flatnonzero(expected))
    left = found.forward(weight).ravel()[found.places]
    assert (np.abs(left) <= 2.0**-11 * np.abs(weight.ravel()[found.places])).all()  # what float16 cannot hold


def test_outliers_are_exact_and_charged():
    """A weight a hundred times as large in each row takes one of its eight entries, or 16 bits and a place."""
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((256, 64))
    plain = lq.quantize(weight, np.eye(64), lq.recipes.squeezellm(3, outliers=0.0))
    weight[np.arange(256), rng.integers(0, 64, 256)] = 100.0
    dense, sparse = (lq.quantize(weight, np.eye(64), lq.recipes.squeezellm(3, outliers=x)) for x in (0.0, 0.018))
    assert sparse.distortion(weight, np.eye(64)) < 1.1 * plain.distortion(weight, np.eye(64))
    assert sparse.distortion(weight, np.eye(64)) < 0.9 * dense.distortion(weight, np.eye(64))
    assert isinstance(sparse.transform, Sparse)
    count = sparse.transform.places.size
    assert count >= 256
    assert 16 * count < 8 * (sparse.nbytes - plain.nbytes) < (16 + 16) * count


@given(data=st.data())
def test_damage_is_refused(data: st.DataObject):
    transform = Sparse(np.array([3, 9, 14]), np.array([1.0, -2.0, 0.5]), 5)
    again = from_state(to_state(transform), 5)
    np.testing.assert_array_equal(again.forward(np.ones((3, 5))), transform.forward(np.ones((3, 5))))
    state = data.draw(damaged_streams(transform.to_state()))
    with refusal_allowed():
        try:
            Sparse.from_state(state, 5)
        except (TypeError, ValueError) as error:  # `Quantized` words what a reader stumbles over
            raise DamagedFileError(str(error)) from None


def test_bad_fractions_and_shapes_are_named(unchecked):
    with pytest.raises(InvalidInputError, match="`fraction` is 1"):
        Outliers(1.0)
    with pytest.raises(InvalidInputError, match="`sensitive` is 'many'"):
        Outliers(sensitive="many")  # pyright: ignore[reportArgumentType]
    with pytest.raises(InvalidInputError, match="beyond float16"):
        Outliers(0.5)(np.array([[1e5, 1.0]]), np.eye(2))
    with pytest.raises(InvalidInputError, match="do not fit the shape"):
        Sparse(np.array([3]), np.array([1.0]), 4).forward(np.ones((2, 3)))
    weight, sigma = gaussian_layer(4, 4)
    scheme = lq.Scheme(transform=Outliers(0.1), quantizer=Uniform(0.5))
    again = lq.Quantized.from_bytes(lq.quantize(weight, sigma, scheme).to_bytes())
    assert isinstance(again.transform, Sparse)
