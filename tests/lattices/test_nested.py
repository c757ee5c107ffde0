"""Nested codes: rules, scales against exhaustive search, published figures, dither, bytes and damage."""

import itertools
from collections.abc import Callable
from types import ModuleType

import msgpack
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lattq._array import to_host
from lattq.errors import DamagedFileError, InvalidInputError
from lattq.lattices import E8, A, D, NestedCode, VoronoiCode, Z, best_scales, measure_nsm, scales
from lattq.lattices.nested import NESTQUANT_SCALES, cell_dither
from lattq.lattices.packing import GRID, NestedCoder, _frequencies
from tests.damage import damaged_streams, refusal_allowed
from tests.helpers import assert_same
from tests.strategies import seeds

PUBLISHED = tuple(scale / 14 for scale in NESTQUANT_SCALES["weights"])


def gaussian(rows: int, columns: int = 8) -> np.ndarray:
    return np.random.default_rng(12).standard_normal((rows, columns))


@settings(max_examples=settings().max_examples // 3)
@given(seed=seeds, rule=st.sampled_from(["best", "first"]), dither=st.sampled_from([None, 3]))
def test_rules_choose_what_they_say(seed: int, rule: str, dither: int | None):
    """Each scale alone as the oracle; vectors that fit nowhere belong to the last scale or have a smaller error."""
    x = np.random.default_rng(seed).standard_normal((50, 4)) * 1.5
    code = NestedCode(VoronoiCode(D(4), 6), (0.2, 0.45, 0.8), rule, dither)
    digits, index = code.encode(x)
    errors = np.sum((x - code.decode(digits, index)) ** 2, axis=1)
    alone = [NestedCode(code.code, (scale,), rule, dither) for scale in code.scales]
    beyond = np.array([one.overload(x) for one in alone])
    assert_same(code.overload(x), beyond.all(axis=0))
    if rule == "first":
        expected = np.where(beyond.all(axis=0), 2, beyond.argmin(axis=0))
        assert_same(index, expected.astype(np.int32))
    else:
        wrapped = np.array([np.sum((x - one.decode(*one.encode(x))) ** 2, axis=1) for one in alone])
        assert (errors <= wrapped[2] + 1e-12).all()
        assert (errors <= np.where(beyond, np.inf, wrapped).min(axis=0) + 1e-12).all()


def test_what_fits_nowhere_is_pulled_in_and_not_wrapped():
    code = NestedCode(VoronoiCode(E8, 14), PUBLISHED)
    x = np.linspace(1, 40, 50)[:, None] * gaussian(1) / np.linalg.norm(gaussian(1))
    found = code.decode(*code.encode(x))
    far = code.overload(x)
    assert 0 < far.sum() < 50
    cosine = np.sum(x * found, axis=1) / np.linalg.norm(x, axis=1) / np.linalg.norm(found, axis=1)
    assert cosine[far].min() > 0.97
    assert np.linalg.norm(found[far], axis=1).min() > 10


@pytest.mark.parametrize("coded", [True, False])
def test_dynamic_programming_finds_the_best_cuts(coded: bool):
    """Of all triples of candidates, with the same price of a bit."""
    table = scales._table(VoronoiCode(D(4), 7), gaussian(200, 4))
    price = 0.02 if coded else 0.0
    cuts, last = scales._first(table, 3, price), int(table.fits.max())

    def cost(cuts: np.ndarray) -> float:
        index = np.searchsorted(cuts, table.fits)
        shares = np.bincount(index, minlength=3) / len(index)
        bits = -np.log2(np.maximum(shares, 1e-12))[index]
        return float(np.sum(table.errors[cuts[index], np.arange(200)]) + price * bits.sum() / 4)

    others = [cost(np.array([*pair, last])) for pair in itertools.combinations(range(last), 2)]
    assert cost(cuts) == pytest.approx(min(others), rel=1e-9)
    assert max(others) > 1.1 * min(others)


def test_own_scales_beat_the_published_ones():
    """NestQuant with q = 14 and four scales; standard errors of the gaps are below 0.001 bit."""
    x, code = gaussian(100_000), VoronoiCode(E8, 14)
    published = NestedCode(code, PUBLISHED).measure(x)
    assert published.distortion == pytest.approx(0.00693, rel=0.01)
    assert published.gap() == pytest.approx(0.337, abs=0.003)
    assert published.gap(coded=False) == pytest.approx(0.470, abs=0.003)
    coded, raw = (NestedCode(code, best_scales(E8, 14, 4, coded=kind)).measure(x) for kind in (True, False))
    assert raw.distortion < 0.00584
    assert coded.gap() < 0.30
    assert raw.gap(coded=False) < 0.33
    assert coded.gap() < raw.gap() < coded.gap(coded=False)
    assert coded.rate == pytest.approx(np.log2(14) + 0.25)
    assert coded.coded_rate == pytest.approx(np.log2(14) + coded.index_bits / 8)


def test_more_scales_and_rounder_cells_are_better():
    x, found = gaussian(30_000), []
    for count, shaping in ((4, "voronoi"), (4, "simplified"), (2, "voronoi"), (1, "voronoi")):
        chosen = best_scales(E8, 14, count, samples=2**13, shaping=shaping)
        assert len(chosen) == count
        found.append(NestedCode(VoronoiCode(E8, 14, shaping), chosen).measure(x))
    gaps = [figures.gap() for figures in found]
    assert gaps[0] < gaps[2] < gaps[3]
    assert gaps[0] + 0.1 < gaps[1]


def test_scales_follow_the_sample():
    x = gaussian(2000)
    assert np.allclose(best_scales(E8, 8, 3, 4 * x), 4 * np.array(best_scales(E8, 8, 3, x)))
    assert best_scales(E8, 8, 2, samples=500) == best_scales(E8, 8, 2, samples=500)


def test_dither_is_uniform_in_the_cell_and_makes_errors_independent():
    """Its second moment is the lattice's, to four standard errors; so is the error of any input that fits."""
    draws = cell_dither(E8, 5, 50_000)
    assert not E8.nearest(draws * (1 - 1e-9)).any()
    error = measure_nsm(E8, 50_000).standard_error
    assert E8.nsm is not None
    assert abs(np.mean(draws**2) - E8.nsm) < 4 * error
    x = np.full((50_000, 8), 0.31)
    code = NestedCode(VoronoiCode(E8, 14), (1.0,), dither=5)
    errors = x - code.decode(*code.encode(x))
    assert abs(np.mean(errors**2) - E8.nsm) < 4 * error
    assert np.mean((x - E8.nearest(x)) ** 2) < 0.6 * E8.nsm  # without dither it is that of this one vector


def test_every_array_library_gives_the_same_codes(xp: ModuleType):
    for code in (NestedCode(VoronoiCode(E8, 6), (0.2, 0.4)), NestedCode(VoronoiCode(A(2), 5), (0.3,), "first", 1)):
        x = gaussian(200, code.code.lattice.generator.shape[1])
        digits, index = code.encode(xp.asarray(x))
        assert_same(to_host(digits), code.encode(x)[0])
        assert_same(to_host(index), code.encode(x)[1])
        assert_same(to_host(code.decode(digits, index)), code.decode(*code.encode(x)))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: NestedCode(VoronoiCode(E8, 4), ()), "`scales` are"),
        (lambda: NestedCode(VoronoiCode(E8, 4), (0.0, 1.0)), "`scales` are"),
        (lambda: NestedCode(VoronoiCode(E8, 4), (-1.0,)), "`scales` are"),
        (lambda: NestedCode(VoronoiCode(E8, 4), (2.0, 1.0)), "rising"),
        (lambda: NestedCode(VoronoiCode(E8, 4), (np.inf,)), "finite"),
        (lambda: NestedCode(VoronoiCode(E8, 4), (1.0,), "last"), "`rule` is 'last'"),
        (lambda: NestedCode(VoronoiCode(E8, 4), (1.0,), dither=-1), "`dither` is -1"),
        (lambda: NestedCode(VoronoiCode(Z(1), 4), (1.0,)).encode(np.array([[np.nan]])), "nan at index"),
        (lambda: NestedCode(VoronoiCode(E8, 4), (1.0,)).encode(np.ones((2, 7))), "8 coordinates"),
        (
            lambda: NestedCode(VoronoiCode(Z(1), 4), (1.0,)).decode(
                np.zeros((1, 1), dtype=np.int32), np.ones(1, dtype=np.int32)
            ),
            "`index` holds 1 ... 1",
        ),
        (lambda: best_scales(E8, 4, 0), "`count` is 0"),
        (lambda: best_scales(E8, 4, 2, rule="last"), "`rule` is"),
        (lambda: best_scales(E8, 4, 2, np.zeros((3, 8))), "0 entries"),
        (lambda: NestedCoder(24, 14, 4, 24, "packed"), "64 bits"),
        (lambda: NestedCoder(8, 14, 4, 8, "zip"), "`index` is 'zip'"),
        (lambda: NestedCoder(8, 14, 0, 8), "1 to 256 scales"),
    ],
)
def test_options_that_no_code_has(call, message: str):
    with pytest.raises(InvalidInputError, match=message):
        call()


SMALL = NestedCode(VoronoiCode(D(4), 4), (0.5, 1.0))
DIGITS = np.zeros((3, 4), dtype=np.int32)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: NestedCode(SMALL.code, 0.5), "`scales` is 0.5"),  # pyright: ignore[reportArgumentType]
        (lambda: SMALL.decode(DIGITS, np.zeros(3)), "`index` holds numbers of float64"),
        (lambda: SMALL.decode(DIGITS + 0.5, DIGITS[:, 0]), "`digits` holds numbers of float64"),
        (lambda: SMALL.decode(DIGITS, DIGITS[:2, 0]), r"`index` has shape \(2,\)"),
        (lambda: SMALL.decode(DIGITS, DIGITS[:1, 0]), r"`index` has shape \(1,\)"),
        (lambda: SMALL.measure(np.zeros((0, 4))), "at least one vector"),
        (lambda: NestedCoder(4, 4, 1, 4).encode(np.full((2, 4), 0.5)), "`codes` holds numbers of float64"),  # pyright: ignore[reportArgumentType]
        (lambda: NestedCoder(4, 4, 1, 4).encode(np.zeros((2, 6), dtype=np.int32)), "6 columns are not whole blocks"),
        (lambda: best_scales(E8, 4, 2, samples=-1), "`samples` is -1"),
        (lambda: best_scales(E8, 4, 2, samples=0), "`samples` is 0"),
        (lambda: best_scales(E8, 4, 2, samples=1.5), "`samples` is 1.5"),  # pyright: ignore[reportArgumentType]
        (lambda: best_scales(E8, 4, 2, seed=-1), "`seed` is -1"),
        (lambda: best_scales(E8, 4, 2, np.full((3, 8), 1e-320)), "`sample` reaches 1e-320"),
        (lambda: best_scales(E8, 4, 2, np.full((3, 8), 1e200)), r"`sample` reaches 1e\+200"),
    ],
)
def test_what_no_code_can_use_is_named(call: Callable[[], object], message: str):
    """Some of it used to give wrong numbers, the rest the errors of NumPy."""
    with pytest.raises(InvalidInputError, match=message):
        call()


@pytest.mark.usefixtures("unchecked")
def test_samples_may_be_of_any_kind_and_size():
    x = gaussian(300)
    expected = best_scales(E8, 8, 2, x)
    assert best_scales(E8, 8, 2, np.asfortranarray(x)) == best_scales(E8, 8, 2, torch.asarray(x)) == expected
    for size in (2.0**-300, 2.0**300):
        np.testing.assert_allclose(np.array(best_scales(E8, 8, 2, size * x)) / size, expected, rtol=1e-9)


def codes_of(coder: NestedCoder, rows: int, columns: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    digits = rng.integers(0, coder.q, (rows, columns))
    index = rng.integers(0, coder.scales, (rows, columns)) * coder.first_columns(columns)
    return (digits + coder.q * index).astype(np.int32)


options = st.fixed_dictionaries(
    {  # built in the tests: run-time checks of types draw random numbers
        "dimension": st.sampled_from([1, 2, 4, 8]),
        "q": st.sampled_from([2, 6, 13, 14, 16]),
        "scales": st.sampled_from([1, 2, 3, 4, 8]),
        "block": st.sampled_from([1, 4, 8, 11]),
        "index": st.sampled_from(["packed", "raw", "coded"]),
    }
)


@given(options=options, seed=seeds, rows=st.integers(1, 9), blocks=st.integers(1, 3))
def test_bytes_hold_the_codes(options: dict, seed: int, rows: int, blocks: int):
    coder = NestedCoder(**options)
    codes = codes_of(coder, rows, blocks * coder.block, seed)
    assert_same(coder.decode(coder.encode(codes), codes.shape), codes)


@given(options=options, data=st.data())
def test_damaged_streams_are_refused(options: dict, data: st.DataObject):
    coder = NestedCoder(**options)
    codes = codes_of(coder, 5, 2 * coder.block, 0)
    stream = msgpack.unpackb(msgpack.packb(coder.encode(codes)) or b"")
    with refusal_allowed():
        assert coder.decode(data.draw(damaged_streams(stream)), codes.shape).shape == codes.shape


@pytest.mark.parametrize(("q", "scales", "width"), [(13, 4, 4), (6, 8, 3), (3, 8, 2), (14, 4, 5), (255, 1, 8)])
def test_words_have_the_bytes_of_their_bits(q: int, scales: int, width: int):
    """13^8 < 2^30: with two bits for four scales a uint32 holds eight weights."""
    coder = NestedCoder(8, q, scales, 8, "packed")
    codes = codes_of(coder, 6, 16, 1)
    data = coder.encode(codes)
    assert len(data) == 12 * width
    if width == 4:
        words = np.frombuffer(data, dtype="<u4")
        assert_same(words >> 30, (codes[:, ::8] // 13).ravel().astype(np.uint32))
        number = VoronoiCode(E8, 13).to_index((codes % 13).reshape(12, 8).astype(np.int32))
        assert_same((words & (2**30 - 1)).astype(np.uint64), number)
    with pytest.raises(DamagedFileError):
        coder.decode(data[:-1], codes.shape)
    with pytest.raises(DamagedFileError):
        coder.decode(b"\xff" * len(data), codes.shape)


def test_streams_take_the_bits_of_digits_and_indices():
    """Within two words of 32 bits and the grid of frequencies."""
    rng, shape = np.random.default_rng(0), (500, 64)
    index = rng.choice(4, (500, 8), p=[0.5, 0.3, 0.15, 0.05])
    codes = rng.integers(0, 14, shape).astype(np.int32)
    codes[:, ::8] += 14 * index
    shares = np.bincount(index.ravel()) / index.size
    bits = {"raw": 2.0, "coded": float(-(shares @ np.log2(shares)))}
    for kind, each in bits.items():
        words, frequencies = NestedCoder(8, 14, 4, 8, kind).encode(codes)
        ideal = codes.size * np.log2(14) + index.size * each
        assert ideal - 64 < 8 * len(words) < ideal + 64 + 1e-4 * index.size
        assert len(frequencies) == (4 if kind == "coded" else 0)


@pytest.mark.parametrize("counts", [[166] * 200 + [139] * 56, [1] * 256, [10**6] + [1] * 255, [0] * 255 + [7]])
def test_frequencies_of_many_scales_are_positive(counts: list[int]):
    """Rounding used to be settled with the most frequent index alone, which could go below zero."""
    codes = (2 * np.repeat(np.arange(256), counts)).reshape(-1, 1).astype(np.int32)
    coder = NestedCoder(1, 2, 256, 1)
    assert_same(coder.decode(coder.encode(codes), codes.shape), codes)


@given(counts=st.lists(st.integers(0, 1000), min_size=1, max_size=256))
def test_frequencies_are_rounded_shares(counts: list[int]):
    index = np.repeat(np.arange(len(counts)), counts)
    found = np.array(_frequencies(index, len(counts)))
    ideal = GRID * np.array(counts) / max(sum(counts), 1)
    assert found.sum() == GRID
    assert found.min() >= 1
    if ideal.min() >= 1:
        assert np.abs(found - ideal).max() < 1


@pytest.mark.parametrize("wrong", [-1, 14 * 4, 14])
def test_codes_out_of_range_are_refused(wrong: int):
    codes = np.zeros((2, 8), dtype=np.int32)
    codes[1, 0 if wrong != 14 else 3] = wrong
    for kind in ("raw", "coded"):
        with pytest.raises(InvalidInputError, match="are not digits"):
            NestedCoder(8, 14, 4, 8, kind).encode(codes)
