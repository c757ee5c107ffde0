"""Palettes: what they store, what they lose, and that rounding is part of the fit."""

from itertools import product
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from lattq.codebooks import PaletteDesign, kmeans_1d
from lattq.coding.packing import pack
from lattq.errors import InvalidInputError


def error(design: PaletteDesign, weight: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Weighted mean squared error of encoding a matrix with its own palette."""
    palette = design.fit(weight, weights)
    squares = (weight - palette.decode(palette.encode(weight))) ** 2
    return float(np.mean(squares if weights is None else weights * squares))


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 6, 8])
def test_numbers_get_the_best_table_but_for_float16(bits: int, rng: np.random.Generator):
    weight, weights = rng.standard_normal((8, 96)), rng.uniform(0.1, 2, (8, 96))
    found = error(PaletteDesign(bits), weight, weights)
    best = kmeans_1d(weight.ravel(), 1 << bits, weights.ravel()).distortion * weights.mean()
    assert best * (1 - 1e-12) <= found <= best + weights.max() * (4 * 2.0**-11) ** 2 + 2 * np.sqrt(best) * 4 * 2.0**-11


LAYOUTS = list(product([None, 2], [1, 2, 4], [False, True], [None, 8, 4]))


@pytest.mark.parametrize("change", LAYOUTS)
def test_every_layout_holds_what_it_says(change: tuple, rng: np.random.Generator):
    group, dimension, scaled, entry_bits = change
    weight = rng.standard_normal((6, 64)) * np.array([1, 1, 1e-2, 1e-2, 30, 30])[:, None]
    design = PaletteDesign(3, group, dimension, scaled, entry_bits)
    palette = design.fit(weight)
    codes = palette.encode(weight)
    assert codes.shape == (6, 64 // dimension)
    assert 0 <= codes.min() <= codes.max() < 8
    assert palette.tables.shape == (3 if group else 1, 8, dimension)
    if entry_bits is None:
        assert np.array_equal(palette.tables, palette.tables.astype(np.float16))
    else:
        assert palette.steps is not None
        assert np.array_equal(palette.steps, palette.steps.astype(np.float16))
        integers = np.rint(palette.tables / palette.steps[:, None, None])
        assert np.abs(integers).max() <= (1 << (entry_bits - 1)) - 1
        assert np.allclose(integers * palette.steps[:, None, None], palette.tables, rtol=1e-14)
    side = palette.tables.size * (entry_bits or 16) + (16 * len(palette.tables) if entry_bits else 0)
    stored = 8 * len(pack(codes.ravel().astype(np.int64), 8)) + side + (96 if scaled else 0)
    assert palette.bits(6, 64) * weight.size == stored
    vectors, tables = (
        palette.decode(codes).reshape(6, -1, dimension),
        np.repeat(palette.tables, 6 // len(palette.tables), 0),
    )
    scale = np.ones(6) if palette.scale is None else palette.scale
    assert np.allclose(vectors, scale[:, None, None] * np.stack([t[c] for t, c in zip(tables, codes, strict=True)]))


def test_groups_scales_and_vectors_lose_less(rng: np.random.Generator):
    gaussian = rng.standard_normal((16, 512))
    uneven = gaussian * np.exp(rng.standard_normal((16, 1)))
    one, grouped, scaled = (
        error(design, uneven) for design in (PaletteDesign(2), PaletteDesign(2, 1), PaletteDesign(2, scaled=True))
    )
    assert grouped < one
    assert scaled < one
    assert error(PaletteDesign(4, dimension=2), gaussian) < error(PaletteDesign(2), gaussian)


@pytest.mark.parametrize(("entry_bits", "dimension"), [(8, 1), (4, 1), (8, 2), (4, 2)])
def test_rounding_inside_the_fit_is_better_than_after_it(entry_bits: int, dimension: int, rng: np.random.Generator):
    weight = rng.standard_normal((16, 256))
    free = PaletteDesign(4, dimension=dimension).fit(weight)
    largest = (1 << (entry_bits - 1)) - 1
    step = float(np.float16(np.abs(free.tables).max() / largest))
    after = np.rint(free.tables / step) * step
    vectors = weight.reshape(-1, 1, dimension)
    kept = np.mean((vectors[:, 0] - after[0][free.encode(weight).ravel()]) ** 2)  # as peers do: no new cells
    nearest = np.square(vectors - after[0]).sum(axis=2).min(axis=1).mean() / dimension
    found = error(PaletteDesign(4, dimension=dimension, entry_bits=entry_bits), weight)
    assert found <= nearest * (1 + 1e-6) <= kept * (1 + 2e-6)
    assert found < 0.995 * kept or entry_bits == 8


def test_few_values_and_zeros_are_kept_exactly():
    weight = np.array([[0.0, 0.0, 0.0, 0.0], [1.0, -2.0, 1.0, 1.0]])
    for dimension in (1, 2):
        for scaled in (False, True):
            palette = PaletteDesign(3, 1, dimension, scaled).fit(weight)
            assert np.allclose(palette.decode(palette.encode(weight)), weight, rtol=2.0**-10)
    palette = PaletteDesign(2, entry_bits=4).fit(np.zeros((2, 4)))
    assert not palette.tables.any()


def test_runs_on_every_backend(xp: ModuleType, rng: np.random.Generator):
    weight = rng.standard_normal((4, 8))
    palette = PaletteDesign(2, scaled=True).fit(xp.asarray(weight))
    codes = palette.encode(xp.asarray(weight))
    assert type(palette.decode(codes)) is type(xp.asarray(weight))
    assert np.array_equal(np.asarray(codes), PaletteDesign(2, scaled=True).fit(weight).encode(weight))


@pytest.mark.parametrize(
    ("options", "weight", "words"),
    [
        ({"bits": 5}, np.ones((2, 2)), "`bits` is 5"),
        ({"dimension": 9}, np.ones((2, 2)), "`dimension` is 9"),
        ({"entry_bits": 7}, np.ones((2, 2)), "`entry_bits` is 7"),
        ({"group": 0}, np.ones((2, 2)), "`group` is 0"),
        ({"group": 2}, np.ones((3, 2)), "must divide"),
        ({"dimension": 2}, np.ones((2, 3)), "must divide"),
        ({}, np.array([[np.nan, 1.0]]), "index"),
        ({}, np.array([[1e6, 1.0]]), "65504"),
        ({"entry_bits": 4}, np.array([[1e7, 1.0]]), "65504"),
    ],
)
def test_bad_input_is_named(options: dict[str, Any], weight: np.ndarray, words: str):
    with pytest.raises(InvalidInputError, match=words):
        PaletteDesign(**options).fit(weight)


def test_weights_are_for_indices():
    with pytest.raises(InvalidInputError, match="shape"):
        PaletteDesign(2, dimension=2).fit(np.ones((2, 4)), np.ones((2, 4)))
