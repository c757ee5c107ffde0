"""Products of packed words: both forms against the matrix, and leaders of E8 against the search."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lattq.kernels import packed, packed_e8, packed_layers
from lattq.lattices import E8, D, HierarchicalCode, VoronoiCode
from tests.strategies import seeds


def tolerance(weight: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Of sums of n products in float32, each with two more roundings: (n + 2) u sum |w x|, u = eps / 2."""
    n = weight.shape[1]
    return (n + 2) * np.finfo(np.float32).eps / 2 * (np.abs(x.astype(float)) @ np.abs(weight).T)


@given(
    seed=seeds,
    group=st.sampled_from([16, 32, 64, 128, 256]),
    sides=st.integers(1, 6),
    rows=st.integers(1, 5),
    plain=st.booleans(),
    kind=st.sampled_from([np.uint8, np.uint16, np.uint32]),
)
def test_words_and_tables(seed: int, group: int, sides: int, rows: int, plain: bool, kind: type):
    rng, columns = np.random.default_rng(seed), 512
    index = rng.integers(0, 16, (rows, columns))
    tables = rng.standard_normal((3, 16)).astype(np.float32)
    which = rng.integers(0, 3, (rows, columns // group)).astype(kind)
    scales = rng.random(which.shape).astype(np.float32)
    x = rng.standard_normal((sides, columns)).astype(np.float32)
    out = np.full((sides, rows), 7.0, dtype=np.float32)
    packed.product(packed.pack(index), tables, which, scales, x, out, range(1, rows), plain=plain)
    weight = tables[np.repeat(which, group, 1), index].astype(float) * np.repeat(scales, group, 1)
    wanted = x.astype(float) @ weight.T
    assert (np.abs(out - wanted) <= tolerance(weight, x))[:, 1:].all()
    assert (out[:, 0] == 7.0).all()  # a row that was not asked for


def test_another_processor_gets_the_plain_form(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(packed.binding, "get_host_cpu_features", lambda: {"avx512f": False})
    assert not packed.runs_permutations.__wrapped__()
    monkeypatch.setattr(packed, "runs_permutations", lambda: False)
    called = []
    monkeypatch.setattr(packed, "_plain", lambda *args: called.append(args))
    zeros = np.zeros((1, 1), np.float32)
    packed.product(zeros, zeros, zeros, zeros, np.zeros((1, 128), np.float32), zeros, range(1))
    assert called


@pytest.mark.parametrize("q", [5, 7, 9, 11, 13])
def test_leaders_are_those_of_the_search(q: int):
    code = VoronoiCode(E8, q)
    digits = np.random.default_rng(q).integers(0, q, (64 * 800, 8)).astype(np.int32)
    wanted = code.leaders(digits)
    assert len(np.unique(np.sum(wanted**2, axis=1))) > 1
    found = packed_e8.leaders(packed_e8.pack(cosets(wanted, q)[None], np.zeros((1, len(digits)), int), q), q)
    np.testing.assert_array_equal(found, wanted)


def test_equally_short_points_are_decided_as_in_the_search():
    """Vectors on the boundary of the cell: half the way to a point of q E8 that is nearest to another one."""
    q, rng = 13, np.random.default_rng(0)
    code = VoronoiCode(E8, q)
    all_digits = rng.integers(0, q, (400_000, 8)).astype(np.int32)
    leaders = code.leaders(all_digits).astype(np.int64)
    roots = E8.nearest_integer(np.sqrt(2) * _directions(rng, 4000) / np.sqrt(1.9))
    roots = np.unique(roots[np.sum(roots**2, axis=1) == 8], axis=0)
    assert len(roots) == 240
    ties = np.zeros(len(leaders), dtype=bool)
    for root in roots:
        ties |= leaders @ root == q * 4  # |r - q root| = |r|
    chosen = np.flatnonzero(ties)[: np.sum(ties) // 64 * 64]
    assert len(chosen) > 10_000
    packed_words = packed_e8.pack(cosets(leaders[chosen], q)[None], np.zeros((1, len(chosen)), int), q)
    np.testing.assert_array_equal(packed_e8.leaders(packed_words, q), leaders[chosen])


def _directions(rng: np.random.Generator, count: int) -> np.ndarray:
    """Points near the sphere of the shortest vectors of E8."""
    x = rng.standard_normal((count, 8))
    return 1.9 * x / np.linalg.norm(x, axis=1, keepdims=True)


def cosets(points: np.ndarray, q: int) -> np.ndarray:
    """What `pack` wants: c with 2 c the point modulo q, from 0 on."""
    return (points * ((q + 1) // 2) + q // 2) % q


@pytest.mark.parametrize("q", [5, 7, 9, 11, 13])
def test_quotients_are_exact(q: int):
    number = np.arange(q**4, dtype=np.int64)
    assert ((number * int(packed_e8.reciprocal(q)) >> 18) == number // q).all()
    assert packed_e8.reciprocal(q) < 1 << 16


@given(seed=seeds, sides=st.integers(1, 3), blocks=st.sampled_from([1, 2, 4]), groups=st.sampled_from([1, 2]))
def test_products_of_leaders(seed: int, sides: int, blocks: int, groups: int):
    rng, q, rows = np.random.default_rng(seed), 13, 3
    groups = min(groups, blocks)
    residues, index = rng.integers(0, q, (rows, 64 * blocks, 8)), rng.integers(0, 4, (rows, 64 * blocks))
    words = packed_e8.pack(residues, index, q)
    factors, scales = rng.random(4).astype(np.float32), rng.random((rows, groups)).astype(np.float32)
    x = rng.standard_normal((sides, blocks, 64, 8)).astype(np.float32)
    out = np.empty((sides, rows), np.float32)
    packed_e8.product(words, q, factors, scales, np.ascontiguousarray(x.swapaxes(2, 3)), out, range(rows))
    points = packed_e8.leaders(words, q).reshape(rows, -1, 8) * factors[index][..., None].astype(float)
    weight = points.reshape(rows, -1) * np.repeat(scales, 512 * blocks // groups, axis=1)
    flat = x.reshape(sides, -1)
    assert (np.abs(out - flat.astype(float) @ weight.T) <= tolerance(weight, flat)).all()


@given(seed=seeds, vectors=st.integers(1, 70), sides=st.integers(1, 3), layers=st.integers(1, 3))
def test_layers(seed: int, vectors: int, sides: int, layers: int):
    rng, code = np.random.default_rng(seed), HierarchicalCode(D(4), 4, layers)
    digits = rng.integers(0, 4, (3, vectors, layers, 4)).astype(np.int32)
    weight = code.decode(digits).reshape(3, -1)
    x = rng.standard_normal((sides, 4 * vectors))
    tables = np.stack([[code.query(part) for part in side.reshape(-1, 4)] for side in x]).astype(np.float32)
    index = code.code.to_index(digits).astype(np.uint8).swapaxes(1, 2)
    out = np.empty((sides, 3), np.float32)
    packed_layers.product(packed_layers.pack(index), np.float32(4), tables, np.ones(3, np.float32), out, range(3))
    largest = sum(4**i for i in range(layers)) * np.abs(tables).max(axis=2).sum(axis=1)
    assert (np.abs(out - x @ weight.T) <= (layers * vectors + 4) * np.finfo(np.float32).eps * largest[:, None]).all()
