"""Hypothesis strategies for second moments and weights.

Each draws a seed, sizes and a spectrum, and computes the array from them: a failure shrinks to a small size and a flat
spectrum in a few steps, and the failing example prints as a handful of numbers.
"""

from typing import Any

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st

from lattq.testing.strategies import moment, seeds, well_conditioned_moments

__all__ = [
    "Layer",
    "dead_input_moments",
    "gaussian_layer",
    "ill_conditioned_moments",
    "layers",
    "moderate",
    "moment",
    "rank_deficient_moments",
    "second_moments",
    "seeds",
    "weights",
    "well_conditioned_moments",
]

Layer = tuple[np.ndarray, np.ndarray]


@st.composite
def ill_conditioned_moments(draw: st.DrawFn, min_n: int = 2, max_n: int = 16) -> np.ndarray:
    """Positive definite second moments with condition numbers up to 1e10."""
    n = draw(st.integers(min_n, max_n))
    exponents = draw(st.lists(st.floats(-10, 0), min_size=n, max_size=n))
    return moment(10.0 ** np.asarray(exponents), draw(seeds))


@st.composite
def rank_deficient_moments(draw: st.DrawFn, min_n: int = 1, max_n: int = 16) -> np.ndarray:
    """Gram matrices of fewer samples than dimensions, from none (the zero matrix) to n - 1."""
    n = draw(st.integers(min_n, max_n))
    samples = draw(st.integers(0, n - 1))
    inputs = np.random.default_rng(draw(seeds)).standard_normal((samples, n))
    return inputs.T @ inputs / max(samples, 1)


@st.composite
def dead_input_moments(draw: st.DrawFn, min_n: int = 1, max_n: int = 16) -> np.ndarray:
    """Second moments in which some inputs are never active: zero rows and columns."""
    sigma = draw(well_conditioned_moments(min_n, max_n)).copy()
    n = sigma.shape[0]
    dead = draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=n, unique=True))
    sigma[dead, :] = 0.0
    sigma[:, dead] = 0.0
    return sigma


def second_moments(min_n: int = 1, max_n: int = 16) -> st.SearchStrategy[np.ndarray]:
    """Every kind of legal second moment: well and ill conditioned, rank deficient, with dead inputs."""
    return st.one_of(
        well_conditioned_moments(min_n, max_n),
        ill_conditioned_moments(min_n, max_n),
        rank_deficient_moments(min_n, max_n),
        dead_input_moments(min_n, max_n),
    )


@st.composite
def weights(draw: st.DrawFn, rows: int | None = None, columns: int | None = None) -> np.ndarray:
    """Weight matrices, float64: Gaussian, heavy-tailed, with row and column scales, negative and -0, constant or zero.

    Sizes that are not given are drawn from 1 to 12.
    """
    shape = (rows or draw(st.integers(1, 12)), columns or draw(st.integers(1, 12)))
    rng = np.random.default_rng(draw(seeds))
    kind = draw(st.sampled_from(["gaussian", "scaled", "heavy", "negative", "constant", "zero"]))
    if kind == "constant":
        return np.full(shape, draw(st.integers(-4000, 4000)) / 1000)
    if kind == "zero":
        return np.zeros(shape)
    if kind == "heavy":
        return rng.standard_t(3, shape)
    weight = rng.standard_normal(shape)
    if kind == "negative":  # half of them -0
        return np.minimum(weight, -0.0)
    if kind == "scaled":
        weight *= np.exp(rng.standard_normal((shape[0], 1))) * np.exp(rng.standard_normal(shape[1]))
    return weight


@st.composite
def layers(draw: st.DrawFn, max_n: int = 12) -> Layer:
    """A weight matrix and a second moment of its inputs, of matching sizes."""
    sigma = draw(second_moments(max_n=max_n))
    return draw(weights(columns=sigma.shape[0])), sigma


def gaussian_layer(rows: int, columns: int, dtype: Any = np.float64) -> Layer:
    """White weights and a second moment of condition 30, always the same for these sizes."""
    weight = np.random.default_rng(rows).standard_normal((rows, columns)).astype(dtype)
    return weight, moment(np.geomspace(1, 30, columns), 1)


def moderate(layer: Layer) -> Layer:
    """The layer in units in which a step of 0.3 makes sense; no weight so small that its square underflows."""
    weight, sigma = layer
    assume(not weight.any() or np.abs(weight).max() > 1e-100)
    return weight, sigma / max(np.diag(sigma).mean(), 1e-6)
