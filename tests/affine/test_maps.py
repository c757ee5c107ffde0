"""Affine maps against the dense matrices they stand for."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lattq.affine import certificate, project
from lattq.affine.linear import Dense, Identity, LinearMap, Orthogonal, Permutation
from lattq.affine.maps import AffineMap
from lattq.affine.structures import Band, Blocks, Kronecker
from lattq.errors import InvalidInputError
from lattq.testing import assertions
from tests.affine.strategies import mixing
from tests.strategies import seeds

SIZE = 12  # what every structure below has


def band(ratio: float, seed: int, width: int) -> Band:
    """A dominant band."""
    rng = np.random.default_rng(seed)
    diagonals = rng.uniform(-1, 1, (2 * width + 1, SIZE)) * ratio / (2 * max(width, 1))
    diagonals[width] = 1.0
    for row in range(2 * width + 1):
        columns = np.arange(SIZE) + row - width
        diagonals[row, (columns < 0) | (columns >= SIZE)] = 0.0
    return Band(diagonals)


def structure(kind: str, seed: int, ratio: float = 0.8) -> LinearMap:
    """A structure of each kind, with ones on the diagonal or a reference."""
    rng = np.random.default_rng(seed)
    if kind == "identity":
        return Identity(SIZE)
    if kind == "blocks":
        return Blocks(np.stack([mixing(4, ratio, seed + k) for k in range(3)]))
    if kind == "kronecker":
        return Kronecker(mixing(3, ratio, seed), mixing(4, ratio, seed + 1))
    if kind.startswith("band"):
        return band(ratio, seed, int(kind[-1]))
    if kind == "permutation":
        return Permutation(rng.permutation(SIZE))
    if kind == "orthogonal":
        return Orthogonal(np.linalg.qr(rng.standard_normal((SIZE, SIZE)))[0])
    if kind == "invertible":
        return Dense(rng.standard_normal((SIZE, SIZE)) + 6 * np.eye(SIZE))
    return Dense(mixing(SIZE, ratio, seed))


MIXINGS = ["identity", "blocks", "kronecker", "band0", "band1", "band3", "dense"]
REFERENCES = ["identity", "permutation", "orthogonal", "invertible", "kronecker"]


def affine_map(mixing_kind: str, reference: str, seed: int) -> AffineMap:
    """A map of these parts, with a diagonal of both signs."""
    rng = np.random.default_rng(seed)
    diagonal = np.exp(rng.standard_normal(SIZE)) * rng.choice([-1, 1], SIZE)
    return AffineMap(diagonal, structure(mixing_kind, seed), structure(reference, seed + 7))


@pytest.mark.parametrize("kind", sorted({*MIXINGS, *REFERENCES}))
@given(seed=seeds)
def test_a_structure_does_what_its_matrix_does(kind: str, seed: int):
    found, x = structure(kind, seed % 1000), np.random.default_rng(seed).standard_normal((2, 3, SIZE))
    assert isinstance(found, LinearMap)
    matrix = found.matrix()
    assert (found.size, matrix.shape) == (SIZE, (SIZE, SIZE))
    room = 1e-13 * SIZE * np.linalg.cond(matrix)
    for transposed, whole in ((False, matrix), (True, matrix.T)):
        inverse = np.linalg.inv(whole)
        np.testing.assert_allclose(found.apply(x, transposed=transposed), x @ whole, atol=1e-12)
        np.testing.assert_allclose(found.solve(x, transposed=transposed), x @ inverse, atol=room)
    assert math.isclose(found.logabsdet(), np.linalg.slogdet(matrix)[1], abs_tol=1e-11)
    inverse = np.linalg.inv(matrix)
    norms = np.abs(inverse).sum(axis=1).max(), np.abs(inverse).sum(axis=0).max(), np.linalg.norm(inverse, 2)
    for norm, bound in zip(norms, found.inverse_bounds(), strict=True):
        assert norm <= bound * (1 + 1e-10)


@pytest.mark.parametrize("reference", REFERENCES)
@pytest.mark.parametrize("kind", MIXINGS)
def test_a_layer_is_the_same_behind_every_map(kind: str, reference: str):
    found = affine_map(kind, reference, 5)
    rng = np.random.default_rng(0)
    weight, x = rng.standard_normal((5, SIZE)), rng.standard_normal((7, SIZE))
    matrix = found.matrix()
    room = 1e-13 * SIZE * np.linalg.cond(matrix)
    np.testing.assert_allclose(found.on_weight(weight), weight @ matrix.T, atol=1e-11)
    np.testing.assert_allclose(found.on_inputs(x) @ found.on_weight(weight).T, x @ weight.T, atol=100 * room)
    np.testing.assert_allclose(found.inverse_on_weight(found.on_weight(weight)), weight, atol=room)
    sigma = x.T @ x / len(x)
    mapped = found.on_inputs(x)
    scale = np.abs(found.on_moment(sigma)).max()
    np.testing.assert_allclose(found.on_moment(sigma), mapped.T @ mapped / len(x), atol=100 * room * scale)
    assert math.isclose(found.logabsdet(), np.linalg.slogdet(matrix)[1], abs_tol=1e-10)


@pytest.mark.parametrize("reference", REFERENCES)
@pytest.mark.parametrize("kind", MIXINGS)
def test_every_map_carries_a_certificate_that_holds(kind: str, reference: str):
    found = affine_map(kind, reference, 11)
    core, base = found.diagonal[:, None] * found.mixing.matrix(), found.reference.matrix()
    stated, inverse = found.certificate(), np.linalg.inv(core)
    assert np.abs(inverse).sum(axis=1).max() <= stated.inverse_inf * (1 + 1e-10)
    assert np.linalg.norm(inverse, 2) <= stated.inverse_two * (1 + 1e-10)
    assert np.linalg.cond(core) <= stated.condition_two * (1 + 1e-10)
    assert math.isfinite(stated.inverse_inf)
    assert np.linalg.cond(found.matrix()) <= stated.condition_two * np.linalg.cond(base) * (1 + 1e-9)
    low, high = stated.log_determinant
    assert low - 1e-10 <= found.logabsdet() <= high + 1e-10
    assert stated.error is not None
    assert stated.error < 1e-3
    if kind != "kronecker":
        assert stated.dominant
        assert stated.dominant_rows == 1.0


def test_a_kronecker_product_is_certified_by_its_factors():
    found = AffineMap(np.ones(SIZE), structure("kronecker", 0, 0.8))
    stated = found.certificate()
    assert stated.row_ratio == pytest.approx(1.8**2 - 1)
    assert not stated.dominant
    assert stated.certified
    assert stated.inverse_inf == pytest.approx(25.0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("library", ["numpy", "strict", "torch"])
def test_dtypes_and_libraries_are_kept(dtype: Any, library: str):
    import array_api_strict
    import torch

    convert = {"numpy": np.asarray, "strict": array_api_strict.asarray, "torch": torch.asarray}[library]
    found, x = affine_map("dense", "orthogonal", 1), np.random.default_rng(0).standard_normal((3, SIZE)).astype(dtype)
    for act in (found.on_weight, found.on_inputs, found.inverse_on_weight):
        assertions.assert_same(act(convert(x)), convert(act(x)))
        assert act(x).dtype == dtype


@given(seed=seeds, ratio=st.floats(0.05, 0.95))
def test_a_projected_matrix_is_a_map(seed: int, ratio: float):
    rng = np.random.default_rng(seed)
    rotation = np.linalg.qr(rng.standard_normal((5, 5)))[0]
    core = project(rng.standard_normal((5, 5)) + np.eye(5), ratio)
    found = AffineMap.from_matrix(core @ rotation, rotation)
    np.testing.assert_allclose(found.matrix(), core @ rotation, atol=1e-12)
    assert found.certificate(measure=False).row_ratio <= ratio * (1 + 1e-9) + 1e-12 / np.abs(np.diag(core)).min()


def test_a_map_can_be_the_reference_of_another():
    inner = affine_map("dense", "orthogonal", 2)
    found = AffineMap(np.full(SIZE, 2.0), structure("band1", 3), inner)
    whole = 2.0 * structure("band1", 3).matrix() @ inner.matrix()
    np.testing.assert_allclose(found.matrix(), whole, atol=1e-12)
    x = np.random.default_rng(0).standard_normal((4, SIZE))
    np.testing.assert_allclose(found.on_inputs(x) @ whole, x, atol=1e-10)
    assert np.linalg.norm(np.linalg.inv(whole), 2) <= found.inverse_bounds().two < np.inf


def test_what_is_stored_is_counted():
    counts = {kind: structure(kind, 0).values for kind in MIXINGS}
    assert counts == {
        "identity": 0, "blocks": 3 * 4 * 3, "kronecker": 3 * 2 + 4 * 3, "band0": 0, "band1": 22, "band3": 60,
        "dense": SIZE * (SIZE - 1),
    }  # fmt: skip
    operations = {kind: structure(kind, 0).operations for kind in MIXINGS}
    assert operations["kronecker"] == SIZE * 7
    assert operations["dense"] == SIZE**2
    found = affine_map("dense", "permutation", 0)
    assert found.stored_bytes() == 2 * (SIZE + SIZE * (SIZE - 1) + SIZE)
    assert AffineMap(np.ones(SIZE)).stored_bytes(4) == 4 * SIZE
    sparse = project(np.eye(4) + np.diag([5.0, 5.0, 0.1], 1), 0.5, keep_diagonal=True)
    assert Dense(sparse).values == 3  # zeros of the projection need no numbers


def test_a_map_whose_mixing_breaks_equivalence_is_seen():
    # the negative control: the inverse of another map does not undo this one
    one, other = affine_map("dense", "identity", 0), affine_map("dense", "identity", 1)
    x = np.eye(SIZE)
    assert np.abs(one.on_inputs(x) @ one.matrix() - x).max() < 1e-12
    assert np.abs(other.on_inputs(x) @ one.matrix() - x).max() > 0.1


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: AffineMap(np.array([1.0, 0.0])), "1 zeros"),
        (lambda: AffineMap(np.zeros(0)), "0 zeros"),
        (lambda: AffineMap(np.array([1.0, np.nan])), "nan"),
        (lambda: AffineMap(np.ones((2, 2))), r"shape \(2, 2\)"),
        (lambda: AffineMap(np.ones(2), np.array([[1.0, 2.0], [0.0, 1.0]]) + np.array([[0, 0], [2.0, 0]])), "row 0"),
        (lambda: AffineMap(np.ones(2), 2 * np.eye(2)), "2 on its diagonal"),
        (lambda: AffineMap(np.ones(2), np.eye(3)), "3 rows"),
        (lambda: AffineMap(np.ones(2), None, np.ones((2, 2))), "singular"),
        (lambda: AffineMap(np.ones(2), None, np.ones((2, 3))), "square"),
        (lambda: AffineMap.from_matrix(np.array([[0.0, 1.0], [1.0, 0.0]])), "2 zeros"),
        (lambda: AffineMap.from_matrix(np.array([[1.0, 4.0], [5.0, 1.0]])), "`project` it"),
        (lambda: AffineMap(np.ones(2)).on_inputs(np.ones((1, 3))), "the map has 2 columns"),
        (lambda: AffineMap(np.ones(2)).on_weight(np.full((1, 2), np.inf)), "inf"),
        (lambda: AffineMap(np.ones(2)).on_weight([[1.0, 2.0]]), "no array"),
        (lambda: Orthogonal(2 * np.eye(2)), "not orthogonal"),
        (lambda: Permutation(np.array([0, 0])), "not a permutation"),
        (lambda: Permutation(np.zeros(0, dtype=int)), "not a permutation"),
        (lambda: Identity(0), "`size` is 0"),
        (lambda: Band(np.ones((2, 4))), "odd number"),
        (lambda: Band(np.ones((3, 4))), "corners"),
        (lambda: Band(np.zeros((1, 4))), "singular"),
        (lambda: Blocks(np.ones((2, 2, 2))), "singular"),
        (lambda: Blocks(np.eye(2)), "heads"),
        (lambda: Kronecker(np.eye(2), np.zeros((2, 2))), "singular"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_what_is_no_map_is_named(call, says: str):
    with pytest.raises(InvalidInputError, match=says):
        call()


def test_reprs_are_short():
    assert repr(affine_map("dense", "identity", 0)) == (
        "AffineMap(diagonal=<12 float64>, mixing=Dense(whole=<12 x 12 float64>), reference=Identity(size=12))"
    )
    assert certificate(np.eye(2)).row_ratio == 0.0
