"""The named lattices and their constants: Conway and Sloane, "Sphere Packings, Lattices and Groups", 3rd ed. (1999)."""

import functools
import math
from fractions import Fraction

import numpy as np
from scipy.special import gammaln

from lattq._options import as_integer
from lattq.errors import InvalidInputError
from lattq.lattices import joins, rounding
from lattq.lattices.lattice import Lattice
from lattq.lattices.series import CodeSeries, Factor, SumZeroSeries

__all__ = ["BW16", "E8", "A", "A_dual", "D", "D_dual", "Leech24", "Z"]


# Mean of 30 146 560 vectors drawn with `benchmarks/leech_moment.py`; table 21.1 has 0.065771 ± 0.000074.
LEECH_NSM, LEECH_NSM_ERROR = 0.0657523, 0.0000011


def Z(n: int) -> Lattice:
    """The integers in n dimensions.

    Examples
    --------
    >>> Z(2).theta(3)
    {0.0: 1, 1.0: 4, 2.0: 4}
    """
    return _z(_at_least("n", n, 1))


@functools.cache
def _z(n: int) -> Lattice:
    return Lattice(
        name=f"Z({n})",
        generator=np.eye(n),
        volume=1.0,
        nsm=1 / 12,
        covering_radius=math.sqrt(n) / 2,
        packing_radius=0.5,
        kissing_number=2 * n,
        integer_scale=1.0,
        leader=rounding.leader_of_z,
        decode=rounding.round_z,
        series=CodeSeries(1, ((1, ((0, False, n),)),)),
        temporaries=4 * n,
    )


def D(n: int) -> Lattice:
    """Integer vectors with an even sum, n >= 2.

    Examples
    --------
    >>> D(4).kissing_number, round(D(4).nsm, 7)
    (24, 0.0766032)
    """
    return _d(_at_least("n", n, 2))


@functools.cache
def _d(n: int) -> Lattice:
    return Lattice(
        name=f"D({n})",
        generator=_checkerboard_basis(n),
        volume=2.0,
        nsm=(1 / 12 + 1 / (2 * n * (n + 1))) / 4 ** (1 / n),  # chapter 21, equation (27)
        covering_radius=max(1.0, math.sqrt(n) / 2),
        packing_radius=math.sqrt(0.5),
        kissing_number=2 * n * (n - 1),
        integer_scale=1.0,
        leader=rounding.leader_of_d,
        decode=rounding.round_d,
        series=CodeSeries(1, ((1, ((0, False, n),)), (1, ((0, True, n),))), denominator=2),
        temporaries=8 * n,
    )


def D_dual(n: int) -> Lattice:
    """Integer vectors, and those moved by a half in every coordinate, n >= 2; the body-centred cubic lattice for n = 3.

    Examples
    --------
    >>> round(D_dual(3).nsm, 7), D_dual(3).volume
    (0.0785433, 0.5)
    """
    return _d_dual(_at_least("n", n, 2))


@functools.cache
def _d_dual(n: int) -> Lattice:
    generator = np.eye(n)
    generator[-1] = 0.5
    return Lattice(
        name=f"D_dual({n})",
        generator=generator,
        volume=0.5,
        nsm=_nsm_of_d_dual(n),
        covering_radius=math.sqrt(n / 8) if n % 2 == 0 else math.sqrt(2 * n - 1) / 4,
        packing_radius=min(0.5, math.sqrt(n) / 4),
        kissing_number=(2**n if n <= 4 else 0) + (2 * n if n >= 4 else 0),
        integer_scale=2.0,
        leader=rounding.leader_of_d_dual,
        decode=rounding.round_d_dual,
        series=CodeSeries(2, ((1, ((0, False, n),)), (1, ((1, False, n),)))),
        temporaries=8 * n,
    )


def _nsm_of_d_dual(n: int) -> float:
    """Theory (4.6): the cell is the half of the cube with sum |x_i| <= n / 4."""
    terms = ((-1) ** k * math.comb(n, k) * (Fraction(n, 2) - k) ** (n + 1) for k in range((n + 1) // 2))
    deviation = 2 * sum(terms, Fraction(0)) / math.factorial(n + 1)  # mean |S - n/2| of the sum of n uniform variables
    return float(Fraction(1, 12) - deviation / (4 * n)) * 4 ** (1 / n)


def A(n: int) -> Lattice:
    """Vectors of n + 1 integers with sum zero: n-dimensional, in a hyperplane; hexagonal for n = 2.

    Keeping the extra coordinate keeps the points integers. `nearest` takes any vector of n + 1 numbers and projects it
    on the hyperplane.

    Examples
    --------
    >>> A(2).nearest(np.array([0.9, -0.1, -0.8]))
    array([ 1., 0., -1.])
    """
    return _a(_at_least("n", n, 1))


@functools.cache
def _a(n: int) -> Lattice:
    half = (n + 1) // 2
    return Lattice(
        name=f"A({n})",
        generator=np.eye(n, n + 1, k=1) - np.eye(n, n + 1),
        volume=math.sqrt(n + 1),
        nsm=(1 / 12 + 1 / (6 * (n + 1))) / (n + 1) ** (1 / n),  # chapter 21, equation (24)
        covering_radius=math.sqrt(half * (n + 1 - half) / (n + 1)),
        packing_radius=math.sqrt(0.5),
        kissing_number=n * (n + 1),
        integer_scale=1.0,
        leader=rounding.leader_of_a,
        decode=rounding.round_a,
        series=SumZeroSeries(n + 1, 1),
        temporaries=8 * (n + 1),
    )


def A_dual(n: int) -> Lattice:
    """The dual of A(n), which is Z(n + 1) projected on sum zero; in the coordinates of `A`.

    Examples
    --------
    >>> round(A_dual(4).nsm, 6), A_dual(4).kissing_number
    (0.077559, 10)
    """
    return _a_dual(_at_least("n", n, 1))


@functools.cache
def _a_dual(n: int) -> Lattice:
    return Lattice(
        name=f"A_dual({n})",
        generator=np.eye(n, n + 1) - 1 / (n + 1),
        volume=1 / math.sqrt(n + 1),
        nsm=_nsm_of_a_dual(n),
        covering_radius=math.sqrt(n * (n + 2) / (12 * (n + 1))),
        packing_radius=math.sqrt(n / (n + 1)) / 2,
        kissing_number=2 * n + 2 if n > 1 else 2,
        integer_scale=n + 1.0,
        leader=rounding.leader_of_a_dual,
        decode=rounding.round_a_dual,
        series=SumZeroSeries(n + 1, n + 1),
        temporaries=8 * (n + 1),
    )


def _nsm_of_a_dual(n: int) -> float:
    """Theory (4.7), with mean norms of permutohedra: each from its facets, which are products of two smaller ones."""
    size = np.arange(n + 1)
    logs = (size - 0.5) * np.log(size + 1)  # of volumes
    means = np.zeros(n + 1)
    for m in range(1, n + 1):
        k = np.arange(1, m + 1)
        square = k * (m + 1 - k) * (m + 1) / 4  # of the distance of the facet
        choices = gammaln(m + 2) - gammaln(k + 1) - gammaln(m + 2 - k)
        share = np.exp(choices + logs[k - 1] + logs[m - k] - logs[m]) * np.sqrt(square) / (m + 2)
        means[m] = share @ (square + means[k - 1] + means[m - k])
    return float(means[n] / (n * math.exp(2 * logs[n] / n)))


def _at_least(name: str, value: int, least: int) -> int:
    """A dimension from `least` to 1024."""
    found = as_integer(name, value)
    if not least <= found <= 1024:
        msg = f"`{name}` is {found}; this family has dimensions from {least}, and here up to 1024"
        raise InvalidInputError(msg)
    return found


def _checkerboard_basis(n: int) -> np.ndarray:
    """Rows 2 e_0 and e_0 + e_i."""
    basis = np.eye(n)
    basis[:, 0] += 1
    return basis


def _e8() -> Lattice:
    generator = 2 * _checkerboard_basis(8)
    generator[-1] = 1
    halves: tuple[tuple[int, tuple[Factor, ...]], ...] = tuple(
        (1, ((residue, alternating, 8),)) for residue in (0, 1) for alternating in (False, True)
    )
    return Lattice(
        name="E8",
        generator=generator / 2,
        volume=1.0,
        nsm=929 / 12960,  # chapter 21, table 21.1
        covering_radius=1.0,
        packing_radius=math.sqrt(0.5),
        kissing_number=240,
        integer_scale=2.0,
        leader=joins.leader_of_e8,
        decode=joins.round_e8,
        series=CodeSeries(2, halves, denominator=2),
        kernel="e8",
    )


def _bw16() -> Lattice:
    positions, systematic = joins.reed_muller_basis()
    generator = 2 * _checkerboard_basis(16)
    generator[positions] = systematic
    words = tuple((count, ((0, False, 16 - w), (1, False, w))) for w, count in ((0, 1), (8, 30), (16, 1)))
    return Lattice(
        name="BW16",
        generator=generator / math.sqrt(2),
        volume=16.0,
        nsm=207049815983 * math.sqrt(2) / 4287303820800,  # Pook-Kolb, Allen and Agrell 2023, exact: 0.068297622...
        covering_radius=math.sqrt(3),
        packing_radius=1.0,
        kissing_number=4320,
        integer_scale=math.sqrt(2),
        leader=joins.leader_of_bw16,
        decode=joins.round_bw16,
        series=CodeSeries(2, (*words, (1, ((0, True, 16),))), denominator=2),
        kernel="bw16",
        temporaries=512,
    )


def _leech() -> Lattice:
    positions, systematic = joins.golay_basis()
    generator = 4 * _checkerboard_basis(24)
    generator[positions] = 2 * systematic
    generator[positions[0]] = [-3] + [1] * 23  # twice this is the sum of all words here and 8 e_0
    terms = []
    for p in (0, 1):
        for w, count in ((0, 1), (8, 759), (12, 2576), (16, 759), (24, 1)):
            terms.append((count, ((p, False, 24 - w), (p + 2, False, w))))
            terms.append(((-1) ** p * count, ((p, True, 24 - w), (p + 2, True, w))))
    return Lattice(
        name="Leech24",
        generator=generator / math.sqrt(8),
        volume=1.0,
        nsm=LEECH_NSM,
        covering_radius=math.sqrt(2),
        packing_radius=1.0,
        kissing_number=196560,
        integer_scale=math.sqrt(8),
        leader=joins.leader_of_leech,
        decode=joins.round_leech,
        series=CodeSeries(4, tuple(terms), denominator=2),
        kernel="leech24",
        temporaries=8192,
    )


E8 = _e8()
BW16 = _bw16()
Leech24 = _leech()
