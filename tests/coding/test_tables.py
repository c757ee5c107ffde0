"""Frozen tables: every count against 30 digits, the gains against exact sums, the price of the grid of scales."""

import hashlib
from typing import Any

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats

from lattq.coding import tables
from lattq.coding.tables import (
    CLASSES,
    CLASSES_PER_OCTAVE,
    TOTAL,
    code_lengths,
    expected_gain,
    gaussian_counts,
    limit,
    scale_class,
)
from lattq.errors import LattqError
from tests.helpers import assert_same

GAUSSIAN = range(1, CLASSES)  # class 0 is the constant 0


def scale(index: int) -> Any:
    return mpmath.mpf(2) ** (mpmath.mpf(index - 1) / 8 - 3)


def upper_tail(x: Any) -> Any:
    return mpmath.erfc(x / mpmath.sqrt(2)) / 2


def exact_tails(index: int) -> list:
    """P(x > k + 1/2) for k = 0 ... limit, x of class `index`."""
    return [upper_tail((k + mpmath.mpf(0.5)) / scale(index)) for k in range(limit(index) + 1)]


@pytest.mark.parametrize("index", [*range(1, CLASSES, 6), CLASSES - 1])
def test_counts_are_exact_probabilities_rounded(index: int):
    """Each symbol and the escape get round(2^24 P), at least 1; the centre takes what is left."""
    with mpmath.workdps(30):
        tails = exact_tails(index)
        cells = [tails[k - 1] - tails[k] for k in range(1, limit(index) + 1)]
        side = [max(1, int(mpmath.nint(TOTAL * cell))) for cell in cells]
        escape = max(1, int(mpmath.nint(TOTAL * 2 * tails[-1])))
    centre = TOTAL - 2 * sum(side) - escape
    assert_same(gaussian_counts(index), np.array([*reversed(side), centre, *side, escape]))


def test_every_table_is_complete():
    """All symbols and the escape have a count, and counts sum to 2^24."""
    for index in range(CLASSES):
        counts = gaussian_counts(index)
        assert len(counts) == 2 * limit(index) + 2
        assert counts.sum() == TOTAL
        assert counts.min() >= 1
        assert_same(counts[:-1], counts[-2::-1])


def test_escapes_are_rarer_than_a_table_entry():
    """The tail beyond the limit is below 2^-24, so its count is the smallest there is."""
    for index in GAUSSIAN:
        assert gaussian_counts(index)[-1] == 1
        with mpmath.workdps(30):
            assert 2 * exact_tails(index)[-1] < mpmath.mpf(2) ** -24


@given(st.floats(-3, 12))
def test_the_class_of_a_scale_is_the_nearest(log: float):
    index = int(scale_class(np.array(2.0**log)))
    assert abs((index - 1) / CLASSES_PER_OCTAVE - 3 - log) <= 0.5 / CLASSES_PER_OCTAVE + 1e-12


def test_scales_at_the_ends():
    assert_same(scale_class(np.array([0.0, 1e-300, 0.124, 0.125, 2.0**6])), np.array([0, 1, 1, 1, CLASSES - 1]))


def cost_of_mismatch(true_scale: float, index: int) -> float:
    """Bits per symbol that the table of class `index` wastes on rounded Gaussians of `true_scale`."""
    bound = limit(index)
    edges = np.arange(bound + 1) + 0.5
    tails = stats.norm.sf(edges / true_scale)
    cells = np.concatenate([[1 - 2 * tails[0]], 2 * (tails[:-1] - tails[1:])])
    pairs = np.maximum(cells, 1e-300)
    true_bits = -np.log2(pairs / np.where(np.arange(bound + 1) > 0, 2, 1))
    return float(cells @ (code_lengths(bound)[index] - true_bits) + 2 * tails[-1] * 60)


def test_the_grid_of_scales_costs_what_it_says():
    """At most 0.003 bit a symbol and 0.0009 on average over scales with a table."""
    logs = np.arange(-3, 6, 1 / 160) + 1 / 320
    costs = [cost_of_mismatch(2.0**log, int(scale_class(np.array(2.0**log)))) for log in logs]
    assert max(costs) <= 0.003
    assert np.mean(costs) <= 0.0009
    assert min(costs) >= -1e-7  # Gibbs


def test_a_scale_off_by_an_octave_costs_more():
    """Negative control of the cost above."""
    assert cost_of_mismatch(1.0, int(scale_class(np.array(2.0)))) > 0.1


def test_code_lengths_are_those_of_the_counts():
    lengths = code_lengths(40)
    for index in (0, 1, 25, CLASSES - 1):
        counts, bound = gaussian_counts(index), limit(index)
        for magnitude in range(41):
            inside = magnitude <= bound
            count = counts[bound + magnitude] if inside else counts[-1]
            assert lengths[index, magnitude] == pytest.approx(-np.log2(count / TOTAL) + (0 if inside else 32))


@pytest.mark.parametrize("index", [*range(1, CLASSES, 9), CLASSES - 1])
def test_gains_are_exact_sums(index: int):
    """E[x q] is Σ q (density moment of the cell), E[q²] is Σ q² P, both summed cell by cell."""
    with mpmath.workdps(30):
        s, tails = scale(index), [*exact_tails(index), mpmath.mpf(0)]
        densities = [mpmath.npdf((k + mpmath.mpf(0.5)) / s) for k in range(limit(index) + 1)]
        cells = range(1, limit(index) + 1)
        product = 2 * sum(q * s * (densities[q - 1] - densities[q]) for q in cells)
        power = 2 * sum(q**2 * (tails[q - 1] - tails[q]) for q in cells)
        gain = 128 * product / power
        assert expected_gain(index) == int(mpmath.nint(gain))


@pytest.mark.parametrize(("index", "s"), [(17, 0.5), (25, 1.0)])
def test_gains_by_quadrature(index: int, s: float):
    cells = [(q, q - 0.5, q + 0.5) for q in range(-9, 10)]
    product = sum(integrate.quad(lambda x, q=q: x * q * stats.norm.pdf(x, 0, s), a, b)[0] for q, a, b in cells)
    power = sum(q**2 * integrate.quad(lambda x: stats.norm.pdf(x, 0, s), a, b)[0] for q, a, b in cells)
    assert expected_gain(index) == round(128 * product / power)


def test_gains_rise_to_one():
    gains = [expected_gain(index) for index in GAUSSIAN]
    assert gains == sorted(gains)
    assert expected_gain(0) == expected_gain(CLASSES) == expected_gain(CLASSES + 500) == 128


def test_the_fingerprint_is_pinned():
    """Files hold these tables' codes for good: a new value means a new format version."""
    digest = hashlib.blake2b(tables.SHARE.astype("<i8").tobytes(), digest_size=8)
    for index in range(CLASSES):
        digest.update(gaussian_counts(index).astype("<i8").tobytes() + bytes([expected_gain(index)]))
    assert digest.hexdigest() == "05e3bb79983fcc8a" == tables.FINGERPRINT


def test_other_tables_are_refused(monkeypatch: pytest.MonkeyPatch):
    tables.check_fingerprint.cache_clear()
    monkeypatch.setattr(tables, "FINGERPRINT", "0" * 16)
    with pytest.raises(LattqError, match="0000000000000000"):
        tables.check_fingerprint()
    monkeypatch.undo()
    tables.check_fingerprint()
