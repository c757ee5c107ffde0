"""Dense and sparse: what leaves the matrix comes back, bytes are those of places and values, damage is seen."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lattq as lq
from lattq.errors import DamagedFileError, InvalidInputError
from lattq.feedback import Cholesky, OpenLoop, successive_cancellation
from lattq.packed import PackedMatrix
from lattq.quantizers import AbsMax, Codebook, Uniform
from lattq.transforms import Normalize, Outliers, then
from lattq.transforms.chains import Chain, from_state, to_state
from lattq.transforms.designs import Sort
from lattq.transforms.outliers import Sparse
from tests.contracts import TransformContract
from tests.damage import damaged_streams, refusal_allowed
from tests.strategies import gaussian_layer, seeds


def exceptions(columns: int, seed: int, size: int) -> Sparse:
    """A few float16 numbers at random places of `size` weights."""
    rng = np.random.default_rng(seed)
    places = np.unique(rng.integers(0, size, 3))
    return Sparse(places, rng.standard_normal(len(places)).astype(np.float16) * 1.0, columns)


class TestSparse(TransformContract):
    def transform(self, sigma: np.ndarray, seed: int) -> Sparse:
        return exceptions(len(sigma), seed, len(sigma))

    test_inverse_undoes_forward = None  # pyright: ignore[reportAssignmentType]  # its entries come back as they are


@given(seed=seeds, rows=st.integers(1, 5), columns=st.integers(1, 9))
def test_entries_replace_what_the_rest_decodes_to(seed: int, rows: int, columns: int):
    transform = exceptions(columns, seed, rows * columns)
    weight, rest = np.random.default_rng(seed).standard_normal((2, rows, columns))
    kept = transform.kept(weight.shape)
    assert (~kept).sum() == transform.places.size
    np.testing.assert_array_equal(transform.inverse(rest)[kept], rest[kept])
    np.testing.assert_array_equal(transform.inverse(rest)[~kept], transform.values)
    np.testing.assert_allclose(transform.inverse(transform.forward(weight))[kept], weight[kept])


SCHEMES = {
    "squeezellm": lq.recipes.squeezellm(3, outliers=0.05),
    "feedback": lq.Scheme(Outliers(0.03), Cholesky(), AbsMax(8, 8)),
    "fitted steps, permuted": lq.Scheme(then(Outliers(0.03), Sort()), Cholesky(), AbsMax(8, 8, fit="error")),
    "refitted": lq.Scheme(Outliers(0.03), Cholesky(block=2), Codebook(16, 2, group=None), refit=("tables",), sweeps=1),
    "gains": lq.Scheme(Outliers(0.03), Cholesky(), AbsMax(8, 8, shrink=True), refit=("rows",)),
    "normalized": lq.Scheme(then(Outliers(0.03), Normalize(3.0)), Cholesky(), AbsMax(8, 8)),
}


@pytest.mark.parametrize("name", SCHEMES)
@settings(max_examples=8)
@given(seed=seeds)
def test_values_are_what_is_restored_in_every_form(name: str, seed: int):
    """Reconstruction, bytes, and the product of the packed form; the dense part at their places does not count."""
    weight, sigma = gaussian_layer(16, 24)
    weight = weight + 5 * (np.random.default_rng(seed).random(weight.shape) < 0.02)
    layer = lq.quantize(weight, sigma, SCHEMES[name])
    sparse: Any = layer.transform.parts[0] if isinstance(layer.transform, Chain) else layer.transform
    found = layer.dequantize(np.float64)
    np.testing.assert_array_equal(found.reshape(-1)[sparse.places], sparse.values)
    np.testing.assert_array_equal(lq.Quantized.from_bytes(layer.to_bytes()).dequantize(np.float64), found)
    x = np.random.default_rng(seed).standard_normal(24).astype(np.float32)
    product = PackedMatrix.from_quantized(layer).matvec(x)
    np.testing.assert_allclose(product, found @ x, atol=1e-5 * np.abs(found).max() * 24)


@given(seed=seeds)
def test_the_loop_feeds_back_no_error_of_replaced_weights(seed: int):
    """With a matrix that is replaced as a whole nothing is left to feed back; in general D is that of the errors."""
    weight, sigma = gaussian_layer(12, 10)
    kept = np.random.default_rng(seed).random(weight.shape) < 0.7
    factor = Cholesky().factor(weight, sigma)
    loop = successive_cancellation(np.where(kept, weight, 0.0), factor, Uniform(0.5), kept=kept)
    error = np.where(kept, weight, 0.0) - loop.reconstruction
    np.testing.assert_array_equal(loop.reconstruction[~kept], 0.0)
    blind = successive_cancellation(np.where(kept, weight, 0.0), factor, Uniform(0.5))
    worse = np.where(kept, np.where(kept, weight, 0.0) - blind.reconstruction, 0.0)
    if (~kept).sum() > 20:
        assert np.sum((error @ sigma) * error) < 1.3 * np.sum((worse @ sigma) * worse)


def test_removed_weights_do_not_enter_the_tables():
    """Each row has two values and outliers: a table of two entries is exact once the outliers are away."""
    rng = np.random.default_rng(0)
    weight = np.where(rng.random((8, 64)) < 0.5, 1.0, 2.0)
    weight[:, ::16] = 50.0
    layer = lq.quantize(weight, np.eye(64), lq.Scheme(Outliers(4 / 64, 0.0), OpenLoop(), row_tables()))
    assert layer.distortion(weight, np.eye(64)) == 0.0


def row_tables() -> Codebook:
    """A table of two float16 numbers for each row."""
    return Codebook(2, rows=1, group=None, entry_bits=None)


def test_importance_chooses_outliers():
    """Weights of little magnitude that matter most leave the matrix; against the second moment they would not."""
    rng = np.random.default_rng(1)
    weight = rng.standard_normal((8, 16))
    importance = np.ones((8, 16))
    importance[3, 5] = importance[6, 2] = 1e6
    found = lq.quantize(weight, np.eye(16), lq.recipes.squeezellm(2, importance=importance, outliers=9 * 2 / 128))
    assert {3 * 16 + 5, 6 * 16 + 2} <= set(found.transform.places.tolist())
    plain = Outliers(0.0, 2 / 128)(weight, np.eye(16))
    assert not {3 * 16 + 5, 6 * 16 + 2} & set(plain.places.tolist())
    with pytest.raises(InvalidInputError, match="`importance` has shape"):
        Outliers(importance=np.ones((2, 2)))(weight, np.eye(16))


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
    count = sparse.transform.split()[0].places.size
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
    beyond = Outliers(0.5)(np.array([[1e5, 1.0]]), np.eye(2))  # of float16, but for their power of two
    np.testing.assert_allclose(beyond.values, 1e5, rtol=2.0**-11)
    with pytest.raises(InvalidInputError, match="do not fit the shape"):
        Sparse(np.array([3]), np.array([1.0]), 4).forward(np.ones((2, 3)))
    weight, sigma = gaussian_layer(4, 4)
    scheme = lq.Scheme(transform=Outliers(0.1), quantizer=Uniform(0.5))
    again = lq.Quantized.from_bytes(lq.quantize(weight, sigma, scheme).to_bytes())
    assert isinstance(again.transform, Sparse)
