"""Voronoi codes: every coset has one leader, the shortest; bytes and numbers; the same on every array library."""

import dataclasses
import itertools
from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lattq._array import to_host
from lattq.errors import DamagedFileError, InvalidInputError
from lattq.lattices import BW16, E8, A, A_dual, D, D_dual, HierarchicalCode, Lattice, Leech24, VoronoiCode, Z
from lattq.lattices.products import integer_product, small_leaders
from lattq.lattices.voronoi import any_named
from tests.helpers import assert_same
from tests.strategies import seeds

SMALL = [Z(1), Z(3), A(2), A(3), A_dual(2), D(2), D(4), D_dual(3)]
SIMPLE = [Z(3), A(2), D(4), E8]


def all_digits(code: VoronoiCode) -> np.ndarray:
    return np.array(list(itertools.product(range(code.q), repeat=code.dimension)), dtype=np.int32)


def check_leaders(code: VoronoiCode, digits: np.ndarray) -> None:
    """Leaders are lattice points of their cosets that do not overload."""
    leaders = code.decode(digits)
    assert_same(code.encode(leaders), digits)
    assert not code.overload(leaders).any()
    assert_same(code.lattice.nearest(leaders), leaders)


@pytest.mark.parametrize("lattice", SMALL, ids=repr)
@pytest.mark.parametrize("q", [2, 3, 4, 5])
def test_every_coset_has_one_leader(lattice: Lattice, q: int):
    for shaping in ("voronoi", "simplified") if lattice in SIMPLE else ("voronoi",):
        code = VoronoiCode(lattice, q, shaping)
        digits = all_digits(code)
        check_leaders(code, digits)
        assert len(np.unique(code.leaders(digits), axis=0)) == q**lattice.dimension


@pytest.mark.parametrize(("lattice", "q", "count"), [(E8, 2, 256), (E8, 3, 6561), (E8, 4, 65536)])
def test_every_coset_of_e8_has_one_leader(lattice: Lattice, q: int, count: int):
    code = VoronoiCode(lattice, q)
    check_leaders(code, all_digits(code))
    assert len(np.unique(code.leaders(all_digits(code)), axis=0)) == count


@pytest.mark.parametrize(
    ("lattice", "q", "rows"), [(E8, 14, 1_000_000), (E8, 13, 100_000), (BW16, 6, 20_000), (Leech24, 7, 5000)], ids=repr
)
def test_random_digits_come_back(lattice: Lattice, q: int, rows: int):
    code = VoronoiCode(lattice, q)
    check_leaders(code, np.random.default_rng(q).integers(0, q, (rows, code.dimension), dtype=np.int32))


@pytest.mark.parametrize("lattice", [*SMALL, E8], ids=repr)
def test_leaders_are_the_shortest_of_their_cosets(lattice: Lattice):
    """Against q times all short vectors, the negative control a leader moved by one of them."""
    code = VoronoiCode(lattice, 3)
    steps = np.array(list(itertools.product((-1, 0, 1), repeat=lattice.dimension)))
    moves = 3 * steps @ code.basis
    moves = moves[np.sum(moves**2, axis=1) <= 4 * (3 * lattice.covering_radius * lattice.integer_scale) ** 2]
    leaders = code.leaders(np.random.default_rng(0).integers(0, 3, (40, lattice.dimension)).astype(np.int32))
    norms = np.sum((leaders[:, None] + moves) ** 2, axis=-1)
    assert (np.sum(leaders**2, axis=-1) == norms.min(axis=1)).all()
    assert (norms.max(axis=1) > norms.min(axis=1)).all()


@given(seed=seeds, lattice=st.sampled_from([A(2), D(4), E8, Leech24]), q=st.sampled_from([2, 6, 13, 64, 256]))
def test_compiled_and_generic_leaders_agree_on_ties(seed: int, lattice: Lattice, q: int):
    """Ties are common: halves of lattice points. The vector that decides them leaves nothing to rounding."""
    digits = np.random.default_rng(seed).integers(0, q, (50, lattice.dimension), dtype=np.int32)
    if q % 2 == 0:
        digits[::2] = q // 2 * (digits[::2] % 2)
    plain = VoronoiCode(dataclasses.replace(lattice, kernel=None), q)
    assert_same(plain.leaders(digits), VoronoiCode(lattice, q).leaders(digits))


@pytest.mark.parametrize("lattice", [A(2), D(4), E8], ids=repr)
@pytest.mark.parametrize("shaping", ["voronoi", "simplified"])
def test_every_array_library_gives_the_same_codes(xp: ModuleType, lattice: Lattice, shaping: str):
    code = VoronoiCode(lattice, 6, shaping)
    x = 3 * np.random.default_rng(0).standard_normal((60, 2, lattice.generator.shape[1]))
    digits = code.encode(xp.asarray(x))
    assert_same(to_host(digits), code.encode(x))
    assert_same(to_host(code.decode(digits)), code.decode(code.encode(x)))
    assert_same(to_host(code.overload(xp.asarray(x))), code.overload(x))


@given(seed=seeds, scale=st.floats(0.1, 10))
def test_overload_is_what_does_not_come_back(seed: int, scale: float):
    code = VoronoiCode(E8, 5)
    x = scale * np.random.default_rng(seed).standard_normal((100, 8))
    assert_same(code.overload(x), (code.decode(code.encode(x)) != E8.nearest(x)).any(axis=1))
    assert_same(code.encode(x + 5 * E8.generator[3]), code.encode(E8.nearest(x)))


@given(seed=seeds, q=st.sampled_from([2, 3, 13, 14, 256]))
def test_numbers_and_bytes_hold_the_digits(seed: int, q: int):
    code = VoronoiCode(E8, q)
    digits = np.random.default_rng(seed).integers(0, q, (7, 8), dtype=np.int32)
    digits[0] = q - 1
    index = code.to_index(digits)
    assert int(index[0]) == q**8 - 1
    assert int(index[1]) == sum(int(digit) * q**place for place, digit in enumerate(digits[1]))
    assert_same(code.from_index(index), digits)
    assert_same(code.unpack(code.pack(digits), 7), digits)
    with pytest.raises(DamagedFileError):
        code.unpack(code.pack(digits)[:-1], 7)


def test_frames_are_isometries():
    for lattice in (A(2), A(5), A_dual(3), E8):
        frame = VoronoiCode(lattice, 4).frame
        np.testing.assert_allclose(frame @ frame.T, np.eye(lattice.dimension), atol=1e-12)
        np.testing.assert_allclose(lattice.generator @ frame.T @ frame, lattice.generator, atol=1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: VoronoiCode(E8, 1), "`q` is 1"),
        (lambda: VoronoiCode(E8, 257), "`q` is 257"),
        (lambda: VoronoiCode(E8, 4, "round"), "`shaping` is 'round'"),
        (lambda: VoronoiCode(BW16, 4, "simplified"), "not BW16"),
        (lambda: VoronoiCode(dataclasses.replace(E8, integer_scale=1.0), 4), "no integer coordinates"),
        (lambda: VoronoiCode(E8, 4).decode(np.full((2, 8), 4, dtype=np.int32)), "`digits` hold 4 ... 4"),
        (lambda: VoronoiCode(E8, 4).decode(np.zeros((2, 7), dtype=np.int32)), "`digits` have shape"),
        (lambda: VoronoiCode(Leech24, 14).to_index(np.zeros((1, 24), dtype=np.int32)), "do not fit 64 bits"),
        (lambda: VoronoiCode(D(4), 4).from_index(np.array([256])), "`index` holds"),
        (lambda: small_leaders(VoronoiCode(E8, 256), np.full(8, 77, dtype=np.int32)), "beyond int8"),
        (lambda: HierarchicalCode(E8, 4, 0), "`layers` is 0"),
        (lambda: HierarchicalCode(E8, 16, 1).table, "beyond 2\\^24"),
    ],
)
def test_what_is_no_code(call, message: str):
    with pytest.raises(InvalidInputError, match=message):
        call()


LAYERS = HierarchicalCode(D(4), 4, 2)
ZEROS = np.zeros((3, 2, 4), dtype=np.int32)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: VoronoiCode("E8", 4), "`lattice` is 'E8'"),  # pyright: ignore[reportArgumentType]
        (lambda: VoronoiCode(E8, 4).decode(np.full(8, 0.5)), "`digits` holds numbers of float64"),
        (lambda: VoronoiCode(E8, 4).to_index(np.full(8, 0.5)), "`digits` holds numbers of float64"),
        (lambda: VoronoiCode(E8, 4).from_index(1.5), "`index` holds numbers of float64"),  # pyright: ignore[reportArgumentType]
        (lambda: HierarchicalCode(Z(1), 4, 10000), "`layers` is 10000"),
        (lambda: HierarchicalCode(Z(1), 4, 9), "`layers` is 9"),
        (lambda: LAYERS.decode(ZEROS, drop=None), "`drop` is None"),  # pyright: ignore[reportArgumentType]
        (lambda: LAYERS.decode(ZEROS, drop=0.5), "`drop` is 0.5"),  # pyright: ignore[reportArgumentType]
        (lambda: LAYERS.decode(ZEROS, drop=2), "`drop` is 2"),
        (lambda: LAYERS.decode(ZEROS + 0.5), "`digits` holds numbers of float64"),
        (lambda: LAYERS.products(ZEROS[:2], ZEROS), "do not broadcast"),
        (lambda: LAYERS.query_products(ZEROS, np.ones(4**4 + 1)), r"`table` has shape \(257,\)"),
        (lambda: LAYERS.query_products(ZEROS, np.ones((1, 4**4))), r"`table` has shape \(1, 256\)"),
    ],
)
def test_what_no_code_can_use_is_named(call: Callable[[], object], message: str):
    """Some of it used to give wrong numbers, the rest the errors of Python."""
    with pytest.raises(InvalidInputError, match=message):
        call()


def test_names_are_lattices():
    for lattice in (*SMALL, E8, Leech24):
        assert any_named(lattice.name) == lattice
    with pytest.raises(InvalidInputError):
        any_named("B(2)")


@given(seed=seeds, lattice=st.sampled_from([A(2), D(4), E8]), q=st.sampled_from([3, 14]))
def test_integer_products_are_products(seed: int, lattice: Lattice, q: int):
    """With dyadic scales both are exact."""
    code, rng = VoronoiCode(lattice, q), np.random.default_rng(seed)
    digits = rng.integers(0, q, (2, 6, 3, lattice.dimension), dtype=np.int32)
    scales = 2.0 ** rng.integers(-3, 3, (2, 6, 3))
    points = code.decode(digits) * scales[..., None]
    small = small_leaders(code, digits)
    found = integer_product(small[0], scales[0], small[1], scales[1], lattice.integer_scale)
    assert_same(found, np.sum(points[0] * points[1], axis=(-1, -2)))


def test_scales_in_half_precision_do_not_overflow():
    """Products of leaders beyond 65504 used to be infinite."""
    small, scales = np.full((1, 30, 8), 100, dtype=np.int8), np.full((1, 30), 0.5, dtype=np.float16)
    with np.errstate(over="raise"):
        found = integer_product(small, scales, small, scales, 1.0)
    assert (found.dtype, found.tolist()) == (np.float32, [30 * 8 * 100**2 / 4])


@pytest.mark.usefixtures("unchecked")
def test_products_of_numbers_that_are_no_leaders_are_refused():
    small, scales = np.ones((1, 8), dtype=np.int8), np.ones(1)
    for pair in ((small + 0.5, small), (small, small + 0.5)):
        with pytest.raises(InvalidInputError, match="pass integers"):
            integer_product(pair[0], scales, pair[1], scales, 1.0)


LAYERED = [(Z(1), 4, 3), (A(2), 5, 2), (D(4), 3, 2), (D(4), 4, 2), (E8, 2, 2)]


@pytest.mark.parametrize(("lattice", "q", "layers"), LAYERED, ids=repr)
def test_layers_add_up_to_the_point(lattice: Lattice, q: int, layers: int):
    """Unless it overloads; every sum of leaders comes back as its layers."""
    code, rng = HierarchicalCode(lattice, q, layers), np.random.default_rng(q)
    x = 0.3 * q**layers * rng.standard_normal((300, lattice.generator.shape[1]))
    fine = ~code.overload(x)
    assert 0 < fine.sum() < len(x)
    assert_same(code.decode(code.encode(x))[fine], lattice.nearest(x)[fine])
    digits = rng.integers(0, q, (200, layers, lattice.dimension), dtype=np.int32)
    assert_same(code.encode(code.decode(digits)), digits)
    assert not code.overload(code.decode(digits)).any()


@pytest.mark.parametrize(("lattice", "q", "layers"), [case for case in LAYERED if case[0] != E8], ids=repr)
def test_tables_hold_the_products_of_decoded_points(lattice: Lattice, q: int, layers: int):
    code, rng = HierarchicalCode(lattice, q, layers), np.random.default_rng(1)
    digits = rng.integers(0, q, (2, 50, layers, lattice.dimension), dtype=np.int32)
    y = rng.standard_normal(lattice.generator.shape[1])
    for drop in range(layers):
        points = code.points(digits, drop).astype(np.int64)
        exact = np.sum(points[0] * points[1], axis=-1) / lattice.integer_scale**2
        assert_same(code.products(digits[0], digits[1], drop), exact)
        one_sided = code.query_products(digits[0], code.query(y), drop)
        np.testing.assert_allclose(one_sided, code.decode(digits[0], drop) @ y, atol=1e-12 * q**layers)


def test_dropping_fine_layers_costs_at_most_their_range():
    code = HierarchicalCode(D(4), 8, 2)
    digits = np.random.default_rng(0).integers(0, 8, (500, 2, 4), dtype=np.int32)
    error = np.linalg.norm(code.decode(digits) - code.decode(digits, drop=1), axis=-1)
    assert error.max() <= 8 * D(4).covering_radius
    assert error.mean() > 1
