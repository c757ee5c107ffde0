"""High-rate constants of vector quantization."""

import math

import pytest

from lattq import lattices
from lattq.bounds.vector import ball_second_moment, fixed_rate_constant, random_coding_second_moment
from lattq.codebooks.lloyd_max import panter_dite
from lattq.errors import InvalidInputError

LATTICES = [lattices.Z(1), lattices.A(2), lattices.D(4), lattices.E8, lattices.BW16, lattices.Leech24]


@pytest.mark.parametrize("lattice", LATTICES, ids=lambda lattice: lattice.name)
def test_lattices_lie_between_zadors_bounds(lattice: lattices.Lattice):
    assert lattice.nsm is not None
    low, high = ball_second_moment(lattice.dimension), random_coding_second_moment(lattice.dimension)
    assert low * (1 - 1e-12) <= lattice.nsm <= high


def test_constants():
    assert math.isclose(fixed_rate_constant(1, 1 / 12), panter_dite(), rel_tol=1e-12)
    table = {2: 2.0153, 4: 1.6244, 8: 1.3745, 16: 1.2387, 24: 1.1698}
    for lattice in LATTICES[1:]:
        assert lattice.nsm is not None
        assert abs(fixed_rate_constant(lattice.dimension, lattice.nsm) - table[lattice.dimension]) < 6e-5
    assert math.isclose(fixed_rate_constant(2, ball_second_moment(2)), 2.0, rel_tol=1e-12)
    limits = [fixed_rate_constant(n, ball_second_moment(n)) for n in (10**3, 10**5)]
    assert 1 < limits[1] < limits[0] < 1.01
    assert math.isclose(ball_second_moment(10**6), 1 / (2 * math.pi * math.e), rel_tol=1e-4)
    for bad in (0, -1):
        with pytest.raises(InvalidInputError):
            ball_second_moment(bad)
