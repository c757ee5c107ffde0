"""Tables of sampled Gaussians: every count, partition functions by three ways, what huge codes cost."""

import hashlib
import math
from typing import Any

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lattq.coding import cosets
from lattq.coding.cosets import (
    LARGEST,
    LOWEST,
    MOST,
    MOST_INDEX,
    OFFSETS,
    TABLES,
    coset_index,
    counts,
    limit,
    log_partition,
    on_grid,
    scale,
    upper_half,
)
from lattq.coding.interleaved import decode_symbols, encode_symbols
from lattq.coding.slots import cosets_of, residue_kinds
from lattq.coding.tables import TAIL, TOTAL
from lattq.errors import LattqError
from tests.contracts import stream_bits
from tests.helpers import assert_same
from tests.strategies import seeds

MODULI = (1, 2, 4, 8)
COSETS_OF_Z = [(residue, modulus) for modulus in MODULI for residue in range(modulus)]


def table(residue: int, modulus: int, index: int) -> int:
    """Index of the table for one code."""
    return int(coset_index(np.array([residue]), modulus, np.array([index]))[0])


def squares(index: int, terms: int) -> list:
    """((m + offset) / s)² / 2 to 30 digits."""
    s = mpmath.mpf(2) ** (mpmath.mpf(index // OFFSETS + LOWEST - 1) / 8 - 3)
    offset = mpmath.mpf(index % OFFSETS) / 8
    return [((m + offset) / s) ** 2 / 2 for m in range(-terms, terms + 1)]


@pytest.mark.parametrize("index", [*range(0, TABLES, 37), TABLES - 1])
def test_counts_are_the_gaussian_at_the_points_of_the_coset(index: int):
    """Each within half a count of 2^24 P, at least 1; the likeliest takes what rounding leaves."""
    bound, found = limit(index), counts(index)
    with mpmath.workdps(30):
        terms = [mpmath.exp(-x) for x in squares(index, bound)]
        exact = np.array([float(TOTAL * term / mpmath.fsum(terms)) for term in terms])
    largest = int(exact.argmax())
    rest = np.arange(len(exact)) != largest
    assert np.all(np.abs(found[:-1] - np.maximum(exact, 1))[rest] <= 0.5 + 1e-6)
    assert abs(found[largest] - exact[largest]) <= 0.5 * len(exact) + 1 + np.sum(exact < 1)
    assert found[-1] == 1


def test_every_table_is_complete():
    for index in range(TABLES):
        found = counts(index)
        assert len(found) == 2 * limit(index) + 2
        assert found.sum() == TOTAL
        assert found.min() >= 1


@pytest.mark.parametrize("index", [*range(0, TABLES, 23), TABLES - 1])
def test_escapes_are_rarer_than_a_table_entry(index: int):
    bound = limit(index)
    with mpmath.workdps(30):
        terms = [mpmath.exp(-x) for x in squares(index, 2 * bound)]
        inside = mpmath.fsum(terms[bound:-bound])
        assert (mpmath.fsum(terms) - inside) / mpmath.fsum(terms) < mpmath.mpf(2) ** -24


def test_zero_is_symmetric_and_half_is_its_own_mirror_image():
    """But for the one entry that takes what rounding leaves."""
    for index in range(0, TABLES, OFFSETS):
        assert_same(counts(index)[:-1], counts(index)[-2::-1])
        half = counts(index + OFFSETS - 1)[:-1]  # m and -1 - m
        assert np.sum(half[:-1] != half[-2::-1]) in (0, 2)


@given(modulus=st.sampled_from(MODULI), residue=st.integers(0, 7), index=st.integers(1, MOST))
def test_mirrored_residues_share_a_table(modulus: int, residue: int, index: int):
    """A table is an offset in eighths, up to a half, and a scale in units of the modulus."""
    residue %= modulus
    found = table(residue, modulus, index)
    assert found == table(-residue % modulus, modulus, index)
    assert (found % OFFSETS) / 8 == min(residue, modulus - residue) / modulus
    assert scale(found // OFFSETS + LOWEST) == pytest.approx(scale(index) / modulus, rel=1e-14)
    assert 0 <= found <= MOST_INDEX


@pytest.mark.parametrize(("residue", "modulus"), COSETS_OF_Z)
def test_partition_functions_are_theta_series(residue: int, modulus: int):
    """Term by term, and as Poisson's transform of the sum, where the next term is below the tolerance."""
    found = log_partition(residue, modulus)
    for index in range(1, MOST + 1):
        s = float(scale(index))
        wave = mpmath.exp(-2 * (mpmath.pi * s / modulus) ** 2)
        if s <= 6:
            k = residue + modulus * np.arange(-100, 101)
            direct = mpmath.fsum(mpmath.exp(-(mpmath.mpf(int(x)) ** 2) / (2 * mpmath.mpf(s) ** 2)) for x in k)
            assert found[index] == pytest.approx(float(mpmath.log(direct, 2)), abs=1e-11, rel=1e-12)
        if wave**4 < 1e-12:
            poisson = 1 + 2 * float(wave) * math.cos(2 * math.pi * residue / modulus)
            expected = math.log2(s * math.sqrt(2 * math.pi) / modulus) + math.log2(poisson)
            assert found[index] == pytest.approx(expected, abs=1e-10)
    assert found[0] == (0 if residue == 0 else -np.inf)


@pytest.mark.parametrize("modulus", [2, 4, 8])
def test_cosets_partition_the_integers(modulus: int):
    parts = np.array([log_partition(residue, modulus) for residue in range(modulus)])
    np.testing.assert_allclose(np.logaddexp2.reduce(parts, axis=0), log_partition(0, 1), rtol=0, atol=1e-10)
    np.testing.assert_allclose(parts[1:], parts[:0:-1], rtol=0, atol=1e-12)


def test_the_chance_of_the_upper_half():
    """A part of even codes, on the grid of 2^-16 and never certain."""
    found, exact = upper_half(), np.exp2(log_partition(2, 4) - log_partition(0, 2))
    assert np.all(np.abs(found - exact) <= 2.0**-16)
    assert np.all(np.rint(found * 65536) == found * 65536)
    assert found.min() == 1 / 65536
    assert np.all(np.diff(found) >= 0)
    assert found[-1] == 0.5
    with np.errstate(over="raise"):
        assert np.all(on_grid(np.array([0.0, 1.0])) == [1 / 65536, 65535 / 65536])


@given(seed=seeds, modulus=st.sampled_from(MODULI), log=st.floats(6.5, 30), data=st.data())
def test_huge_codes_cost_their_information(seed: int, modulus: int, log: float, data: st.DataObject):
    """Within 0.01 bit: 0.003 are the grid of scales, the rest is the staircase that low bits make of the Gaussian.

    The ideal is -log2 of the density of each code, times the spacing of the coset.
    """
    residue = data.draw(st.integers(0, modulus // 2))  # a coder mirrors the others
    rng = np.random.default_rng(seed)
    deviation = 2.0**log
    m = np.rint((deviation * rng.standard_normal(2000) - residue) / modulus).astype(np.int64)
    codes = residue + modulus * m
    nearest = int(np.rint((log + 3) * 8)) + 1
    kinds = residue_kinds(np.full(m.shape, min(nearest, MOST)), np.full(m.shape, residue), modulus)
    stream = encode_symbols(m, kinds, cosets_of(modulus))
    assert_same(decode_symbols(stream, kinds, cosets_of(modulus)), m)
    ideal = np.sum(codes / deviation * (codes / deviation)) / (2 * math.log(2))
    ideal += len(m) * math.log2(deviation * math.sqrt(2 * math.pi) / modulus)
    # The mean of (x / s)² scatters by √(2 / N); a scale off by 1/16 octave counts it wrong by 4^(1/16) - 1 = 0.0905.
    scatter = 0.0905 / (2 * math.log(2)) * math.sqrt(2 * len(m))
    assert abs(stream_bits(stream) - ideal) <= 0.01 * len(m) + 4 * scatter + 80


@pytest.mark.parametrize("modulus", MODULI)
@pytest.mark.parametrize("index", [LARGEST, LARGEST + 1, LARGEST + 16, LARGEST + 32, MOST])
def test_the_largest_codes_survive(modulus: int, index: int):
    """Every modulus and class that there is, codes of 32 bits."""
    m = np.array([-(2**31), 2**31 - 1, 0, 1, -1, 12345]) // modulus
    kinds = residue_kinds(np.full(m.shape, index), 0 * m, modulus)
    stream = encode_symbols(m, kinds, cosets_of(modulus))
    assert_same(decode_symbols(stream, kinds, cosets_of(modulus)), m)


def test_low_bits_of_a_wrong_table_cost_more():
    """Negative control of the 0.01 bit: the offset 0 in place of a half, where 2 low bits are cut."""
    rng = np.random.default_rng(0)
    index = table(0, 1, LARGEST + 16)
    m = np.rint(scale(LARGEST + 16) * rng.standard_normal(20_000)).astype(np.int64)
    right = table(0, 1, LARGEST) + OFFSETS - 1
    assert cosets.shifted(index) == right
    assert cosets.shift(index) == 2
    low = m >> 2
    lengths = [-np.log2(counts(i)[np.clip(low, -limit(i), limit(i)) + limit(i)] / TOTAL).mean() for i in (right, 160)]
    assert lengths[1] - lengths[0] > 0.01


def test_tables_reach_the_tail():
    for index in range(0, TABLES, 7):
        assert limit(index) >= TAIL * scale(index // OFFSETS + LOWEST)


def test_the_fingerprint_is_pinned():
    """Files hold these tables' codes for good: a new value means a new format version."""
    digest = hashlib.blake2b(upper_half().astype("<f8").tobytes(), digest_size=8)
    for index in range(TABLES):
        digest.update(counts(index).astype("<i8").tobytes())
    assert digest.hexdigest() == "970e0cc3b395d5ac" == cosets.FINGERPRINT


def test_other_tables_are_refused(monkeypatch: pytest.MonkeyPatch):
    cosets.check_fingerprint.cache_clear()
    monkeypatch.setattr(cosets, "FINGERPRINT", "0" * 16)
    with pytest.raises(LattqError, match="0000000000000000"):
        cosets.check_fingerprint()
    monkeypatch.undo()
    cosets.check_fingerprint()


def test_the_first_tables_check_them(monkeypatch: pytest.MonkeyPatch):
    calls: list[Any] = []
    monkeypatch.setattr(cosets, "check_fingerprint", lambda: calls.append(1))
    cosets_of.cache_clear()
    cosets_of(1)
    assert calls
