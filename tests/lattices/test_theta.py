"""Partition functions against sums over shells and differences; entropies against those of probabilities."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lattq.errors import InvalidInputError
from lattq.lattices import BW16, E8, A, A_dual, D, D_dual, Lattice, Leech24, Z, theta

CLOSED = [Z(1), Z(3), D(2), D(4), D_dual(3), D_dual(4), E8, BW16, Leech24]


@pytest.mark.parametrize("lattice", CLOSED, ids=str)
def test_sums_over_shells(lattice: Lattice):
    """At scales at which the shells beyond the last one weigh nothing."""
    norms = np.arange(160)
    counts = np.array(lattice.series.shells(len(norms)), dtype=np.float64)
    scales = np.array([0.05, 0.3, 0.7, 1.0, 1.1])
    weights = counts * np.exp(-norms / (2 * scales[:, None] ** 2))
    totals = weights.sum(axis=1)
    np.testing.assert_allclose(theta.log_partition(lattice, scales), np.log(totals), rtol=1e-9, atol=1e-14)
    wanted = weights @ norms / totals
    np.testing.assert_allclose(theta.mean_norm(lattice, scales), wanted, rtol=1e-8, atol=1e-14)


@pytest.mark.parametrize("lattice", CLOSED, ids=str)
def test_mean_norm_is_the_derivative(lattice: Lattice):
    scales = np.array([0.8, 1.5, 1.7, 4.0, 30.0])
    above, below = (theta.log_partition(lattice, scales * factor) for factor in (1.0001, 0.9999))
    slope = scales**2 * (above - below) / 0.0002
    np.testing.assert_allclose(theta.mean_norm(lattice, scales), slope, rtol=1e-5)


@pytest.mark.parametrize("lattice", CLOSED, ids=str)
def test_fine_lattices_are_gaussians(lattice: Lattice):
    """Volume times partition function is the integral; the entropy that of a density less that of cells."""
    scale = 1e4
    n, volume = lattice.dimension, lattice.volume * lattice.integer_scale**lattice.dimension
    integral = n * math.log(math.sqrt(2 * math.pi) * scale) - math.log(volume)
    np.testing.assert_allclose(theta.log_partition(lattice, scale), integral, rtol=1e-12)
    bits = math.log2(math.sqrt(2 * math.pi * math.e) * scale) - math.log2(volume) / n
    np.testing.assert_allclose(theta.entropy(lattice, scale), bits, rtol=1e-12)


@given(scale=st.floats(0.2, 2.0))
def test_entropy_is_that_of_the_probabilities(scale: float):
    box = np.array(list(itertools.product(range(-12, 13), repeat=3)))
    points = box[box.sum(axis=1) % 2 == 0]
    p = np.exp(-(points**2).sum(axis=1) / (2 * scale**2))
    p /= p.sum()
    wanted = -np.sum(p * np.log2(np.maximum(p, 1e-300))) / 3
    np.testing.assert_allclose(theta.entropy(D(3), scale), wanted, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("scale", [0.7, 1.3, 40.0, 1000.0])
def test_scale_of_norm_inverts_the_mean_norm(scale: float):
    norm = float(theta.mean_norm(Leech24, scale))
    assert math.isclose(theta.scale_of_norm(Leech24, norm), scale, rel_tol=1e-6)


def test_shapes():
    scales = np.array([[1.0, 2.0], [3.0, 4.0]])
    assert theta.entropy(E8, scales).shape == (2, 2)
    assert theta.log_partition(E8, 1.0).shape == ()
    np.testing.assert_array_equal(theta.log_partition(E8, [1.0, 2.0]), theta.log_partition(E8, scales)[0])


def test_without_signs_odd_sums_are_counted():
    """Negative control: the partition function of Z is not that of D."""
    assert abs(float(theta.log_partition(Z(4), 1.0) - theta.log_partition(D(4), 1.0))) > 0.1


@pytest.mark.parametrize("scale", [0.0, -1.0, math.nan, math.inf, 1e10])
def test_scales_out_of_range(scale: float):
    with pytest.raises(InvalidInputError, match=f"`scale` holds {scale}"):
        theta.log_partition(E8, np.array([1.0, scale]))


@pytest.mark.parametrize("lattice", [A(2), A_dual(2)], ids=str)
def test_no_closed_form(lattice: Lattice):
    with pytest.raises(InvalidInputError, match="no partition function in closed form"):
        theta.log_partition(lattice, 1.0)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("value", ["wide", [[1.0], [1.0, 2.0]], 1j])
def test_scales_and_norms_that_are_no_numbers(value: Any):
    for function in (theta.log_partition, theta.mean_norm, theta.entropy):
        with pytest.raises(InvalidInputError, match="`scale` is"):
            function(E8, value)
    with pytest.raises(InvalidInputError, match="`norm` is"):
        theta.scale_of_norm(E8, value)
    with pytest.raises(InvalidInputError, match="`lattice` is 'E8'"):
        theta.entropy("E8", 1.0)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("norm", [-1.0, 1e30, math.nan])
def test_norms_out_of_range(norm: float):
    with pytest.raises(InvalidInputError, match="`norm` is"):
        theta.scale_of_norm(E8, norm)
