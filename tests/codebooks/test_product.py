"""Products and sums of codebooks, against all combinations."""

from itertools import product
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lattq.codebooks import kmeans
from lattq.codebooks.product import ResidualCodebook, fit_product, fit_residual
from lattq.errors import InvalidInputError
from tests.strategies import seeds


@given(seeds, st.integers(1, 3), st.booleans())
def test_a_wide_beam_finds_the_best_sum(seed: int, stages: int, metric: bool):
    rng = np.random.default_rng(seed)
    books, x = rng.standard_normal((stages, 4, 3)), rng.standard_normal((20, 3))
    root = rng.standard_normal((3, 3)) if metric else None
    codes = ResidualCodebook(books, root, 4**stages).encode(x)
    sums = np.array([sum(books[i, j] for i, j in enumerate(way)) for way in product(range(4), repeat=stages)])
    offsets = x[:, None] - sums if root is None else (x[:, None] - sums) @ root
    least = np.square(offsets).sum(axis=2).min(axis=1)
    found = x - ResidualCodebook(books, root).decode(codes)
    errors = np.square(found if root is None else found @ root).sum(axis=1)
    assert np.allclose(errors, least, rtol=1e-10)
    narrow = x - ResidualCodebook(books, root, 1).decode(ResidualCodebook(books, root, 1).encode(x))
    assert np.all(np.square(narrow if root is None else narrow @ root).sum(axis=1) >= least * (1 - 1e-10))


@given(seeds, st.booleans())
def test_rounds_never_raise_the_error(seed: int, weighted: bool):
    rng = np.random.default_rng(seed)
    x, basis = rng.standard_normal((200, 4)), rng.standard_normal((4, 4))
    weights = rng.uniform(0.1, 3, 200) if weighted else None
    book = fit_residual(x, 8, 3, weights, metric=basis @ basis.T, beam=4, rounds=4)
    history = np.array(book.history)
    assert np.all(np.diff(history) <= 1e-12 * history[0])
    mass = np.ones(200) if weights is None else weights
    errors = np.square((x - book.decode(book.encode(x))) @ basis).mean(axis=1)
    assert mass @ errors / mass.sum() < 1.2 * history[0]


def test_beams_and_rounds_are_worth_it(rng: np.random.Generator):
    x = rng.standard_normal((4000, 4))
    plain = fit_residual(x, 16, 2, beam=1, rounds=0)
    beam = ResidualCodebook(plain.codebooks, None, 8)
    fitted = fit_residual(x, 16, 2, beam=8)
    errors = [np.mean((x - book.decode(book.encode(x))) ** 2) for book in (fitted, beam, plain)]
    assert abs(errors[2] - plain.history[0]) < 1e-12
    assert errors[0] < errors[1] < errors[2]
    assert kmeans(x, 256).distortion < errors[0]
    assert fitted.index_bits == 2.0


def test_a_product_is_k_means_of_each_part(rng: np.random.Generator):
    x, weights = rng.standard_normal((300, 6)), rng.uniform(0.5, 2, 300)
    metric = np.arange(1.0, 7.0)
    book = fit_product(x, 8, 3, weights, metric=metric)
    codes = book.encode(x)
    for part in range(3):
        columns = slice(2 * part, 2 * part + 2)
        alone = kmeans(x[:, columns], 8, weights, metric=metric[columns])
        assert np.array_equal(codes[:, part], alone.assignment)
        assert np.array_equal(book.decode(codes)[:, columns], alone.decode())
    assert book.index_bits == 1.5


def test_runs_on_every_backend(xp: ModuleType, rng: np.random.Generator):
    x = rng.standard_normal((60, 4))
    for fit, count in ((fit_product, 2), (fit_residual, 2)):
        book, same = fit(xp.asarray(x), 4, count), fit(x, 4, count)
        codes = book.encode(xp.asarray(x))
        assert type(codes) is type(xp.asarray(x))
        assert np.array_equal(np.asarray(codes), same.encode(x))
        assert type(book.decode(codes)) is type(xp.asarray(x))


def test_few_different_samples_fill_later_stages_with_what_is_left():
    x = np.repeat(np.array([[0.0, 1.0], [2.0, 3.0], [5.0, 5.0]]), 4, axis=0)
    book = fit_residual(x, 4, 2)
    assert book.codebooks.shape == (2, 4, 2)
    assert book.history[-1] < 1e-28


@pytest.mark.usefixtures("unchecked")
def test_bad_input_is_named(rng: np.random.Generator):
    x = rng.standard_normal((20, 6))
    with pytest.raises(InvalidInputError, match="does not divide"):
        fit_product(x, 4, 4)
    with pytest.raises(InvalidInputError, match="diagonal"):
        fit_product(x, 4, 3, metric=np.ones(5))
    with pytest.raises(InvalidInputError, match="`stages` is 0"):
        fit_residual(x, 4, 0)
    with pytest.raises(InvalidInputError, match="`beam` is 0"):
        fit_residual(x, 4, 2, beam=0)
    with pytest.raises(InvalidInputError, match="6 numbers"):
        fit_residual(x, 4, 2).encode(x[:, :5])
    with pytest.raises(InvalidInputError, match="holds nan"):
        fit_product(np.where(x > 1.5, np.nan, x) * [np.nan, 1, 1, 1, 1, 1], 4, 3)
