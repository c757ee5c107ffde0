"""Constants against independent computations: determinants, shells, holes, simulated second moments."""

import itertools
import math
from typing import Any

import numpy as np
import pytest

from lattq import lattices
from lattq.errors import InvalidInputError
from lattq.lattices import BW16, E8, A, A_dual, D, D_dual, Lattice, Leech24, Z
from lattq.lattices.catalogue import LEECH_NSM_ERROR
from lattq.lattices.rounding import checkerboard

SMALL = [
    Z(1),
    Z(3),
    A(1),
    A(2),
    A(3),
    A(5),
    A_dual(2),
    A_dual(4),
    D(2),
    D(3),
    D(4),
    D(5),
    *map(D_dual, (2, 3, 4, 5, 7)),
]
ALL = [*SMALL, E8, BW16, Leech24]


@pytest.mark.parametrize("lattice", ALL, ids=str)
def test_determinant_is_the_volume(lattice: Lattice):
    gram = lattice.generator @ lattice.generator.T
    assert math.isclose(math.sqrt(np.linalg.det(gram)), lattice.volume, rel_tol=1e-9)
    scaled = lattice.integer_scale * lattice.generator
    np.testing.assert_allclose(scaled, np.rint(scaled), atol=1e-12)


@pytest.mark.parametrize("lattice", ALL, ids=str)
def test_basis_and_its_sums_are_their_own_nearest_points(lattice: Lattice):
    rng = np.random.default_rng(0)
    points = np.concatenate([lattice.generator, rng.integers(-5, 6, (200, lattice.dimension)) @ lattice.generator])
    np.testing.assert_allclose(lattice.nearest(points), points, rtol=0, atol=1e-12)


@pytest.mark.parametrize("lattice", ALL, ids=str)
def test_first_shell_is_the_kissing_number_at_twice_the_packing_radius(lattice: Lattice):
    (zero, one), (norm, kissing) = list(lattice.theta(2).items())
    assert (zero, one) == (0.0, 1)
    assert kissing == lattice.kissing_number
    assert math.isclose(norm, (2 * lattice.packing_radius) ** 2, rel_tol=1e-12)


@pytest.mark.parametrize("lattice", [A(1), A(3), A_dual(3), D(4), D_dual(5), Z(3)], ids=str)
def test_shells_count_points_of_a_box(lattice: Lattice):
    reach = 4
    box = np.array(list(itertools.product(range(-reach, reach + 1), repeat=lattice.generator.shape[1])))
    points = box[(lattice.nearest_integer(box.astype(float)) == box).all(axis=1)]
    norms, counts = np.unique((points**2).sum(axis=1), return_counts=True)
    inside = norms <= reach**2
    wanted = dict(zip(norms[inside] / lattice.integer_scale**2, counts[inside].tolist(), strict=True))
    found = lattice.theta(int(inside.sum()))
    assert list(found.values()) == list(wanted.values())
    np.testing.assert_allclose(list(found), list(wanted), rtol=1e-12)


def test_published_shells():
    assert list(E8.theta(4).items()) == [(0.0, 1), (2.0, 240), (4.0, 2160), (6.0, 6720)]
    assert list(BW16.theta(3).items()) == [(0.0, 1), (4.0, 4320), (6.0, 61440)]
    assert list(Leech24.theta(4).items()) == [(0.0, 1), (4.0, 196560), (6.0, 16773120), (8.0, 398034000)]


@pytest.mark.parametrize("lattice", ALL, ids=str)
def test_simulated_second_moment_is_that_of_the_table(lattice: Lattice):
    """Within three standard errors of the simulation: that of Leech24 is a simulation too, of 30 million vectors."""
    samples = 60_000 if lattice.dimension > 8 else 100_000
    found, table = lattices.measure_nsm(lattice, samples, seed=7), lattice.nsm
    assert table is not None
    own = LEECH_NSM_ERROR if lattice == Leech24 else 0.0
    assert abs(found.value - table) < 3 * math.hypot(found.standard_error, own)


def test_the_second_moment_of_the_leech_lattice_agrees_with_other_simulations():
    """Of four and of two million vectors, and the table of Conway and Sloane."""
    for value, error in ((0.0657483, 0.0000034), (0.0657555, 0.0000041), (0.065771, 0.000074)):
        assert abs((Leech24.nsm or 0.0) - value) < 3 * math.hypot(error, LEECH_NSM_ERROR)


def test_published_second_moments():
    assert round(BW16.nsm or 0.0, 12) == 0.068297622489  # Pook-Kolb, Allen and Agrell 2023
    assert round(E8.nsm or 0.0, 7) == 0.0716821
    published = {A(2): 0.0801875, A_dual(3): 0.0785433, D_dual(3): 0.0785433, D(4): 0.0766032, D_dual(5): 0.0756254}
    for lattice, value in {**published, A(3): 0.0787451, A_dual(4): 0.0775588, D_dual(4): 0.0766032}.items():
        assert round(lattice.nsm or 0.0, 7) == value
    assert math.isclose(A_dual(1).nsm or 0.0, 1 / 12)
    assert math.isclose(A_dual(2).nsm or 0.0, A(2).nsm or 1.0)


@pytest.mark.parametrize("lattice", ALL, ids=str)
def test_no_error_exceeds_the_covering_radius(lattice: Lattice):
    x = 50 * np.random.default_rng(1).standard_normal((5000, lattice.generator.shape[1]))
    if lattice.name.startswith("A"):
        x -= x.mean(axis=1, keepdims=True)
    distance = np.sqrt(((x - lattice.nearest(x)) ** 2).sum(axis=1))
    assert distance.max() <= lattice.covering_radius + 1e-9


@pytest.mark.parametrize(
    ("lattice", "hole"),
    [
        (Z(3), np.full(3, 0.5)),
        (D(4), np.full(4, 0.5)),
        (D(5), np.full(5, 0.5)),
        (D(2), np.array([1.0, 0.0])),
        (D_dual(4), np.array([0.5, 0.5, 0, 0])),
        (D_dual(5), np.array([0.5, 0.5, 0.25, 0, 0])),
        (A(2), np.array([1, 1, -2]) / 3),
        (A_dual(3), np.array([-3, -1, 1, 3]) / 8),
        (E8, np.eye(8)[0]),
        (Leech24, np.eye(24)[0] * 4 / math.sqrt(8)),
    ],
    ids=lambda value: value.name if isinstance(value, Lattice) else "",
)
def test_deep_holes_are_at_the_covering_radius(lattice: Lattice, hole: np.ndarray):
    distance = math.sqrt(np.sum((hole - lattice.nearest(hole)) ** 2))
    assert math.isclose(distance, lattice.covering_radius, rel_tol=1e-9)


def test_a_wrong_glue_vector_is_caught():
    """Negative control: D8 with a half in only seven coordinates is no lattice, and has a larger second moment."""

    def nearest(x: np.ndarray) -> np.ndarray:
        glue = np.array([0.5] * 7 + [0.0])
        even = np.zeros(8, dtype=np.int32)
        points = [glue * j + checkerboard(x - glue * j, even, 1, 0) for j in (0, 1)]
        errors = [((x - point) ** 2).sum(axis=1, keepdims=True) for point in points]
        return np.where(errors[1] < errors[0], points[1], points[0])

    x = np.random.default_rng(2).random((20_000, 8)) @ E8.generator
    errors = ((x - nearest(x)) ** 2).sum(axis=1) / 8
    assert abs(errors.mean() - 929 / 12960) > 5 * errors.std() / math.sqrt(len(x))
    point = E8.generator[-1]
    assert not np.allclose(nearest(x + point), nearest(x) + point)


def test_many_dimensions():
    """Cells tend to cubes, slowly; nothing overflows."""
    found = [12 * (family(1024).nsm or 0.0) for family in (Z, D, A, D_dual, A_dual)]
    np.testing.assert_allclose(found, [1.0, 0.99865, 0.99519, 0.97973, 0.96865], rtol=1e-5)
    x = np.random.default_rng(3).standard_normal((4, 1024))
    assert (squares := (x - D(1024).nearest(x)) ** 2).max() <= 1
    assert abs(squares.mean() - 1 / 12) < 0.01


def test_lattices_are_values():
    with pytest.raises(ValueError, match="read-only"):
        E8.generator[0, 0] = 1
    assert D(4) is D(4)
    assert D(4) == D(4) != D(5)
    assert repr(E8) == "Lattice(E8)"
    assert len({E8, BW16, Leech24, D(4), D(4)}) == 4


@pytest.mark.parametrize(("family", "n"), [(Z, 0), (A, 0), (A_dual, -1), (D, 1), (D_dual, 1), (Z, 2000)])
def test_dimensions_out_of_range(family, n: int):
    with pytest.raises(InvalidInputError, match=f"`n` is {n}"):
        family(n)


def test_shells_of_nothing():
    with pytest.raises(InvalidInputError, match="`count` is 0"):
        E8.theta(0)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("count", [np.nan, 2.0, None, "two"])
def test_shells_are_counted_in_integers(count: Any):
    with pytest.raises(InvalidInputError, match=r"`count` is .*; pass an integer"):
        E8.theta(count)
