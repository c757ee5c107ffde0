"""Hypothesis strategies for matrices that are dominant, and for those that are not."""

from typing import Any

import numpy as np
from hypothesis import strategies as st

from tests.strategies import seeds

__all__ = ["dominant_matrices", "mixing", "ratios", "square_matrices"]

ratios = st.one_of(st.floats(0.05, 0.95), st.sampled_from([1e-6, 0.5, 0.9, 1 - 1e-6, 1 - 1e-12]))


def mixing(n: int, ratio: float, seed: int, *, both: bool = False, kind: str = "dense") -> np.ndarray:
    """I + N, each row of N (each column too with `both`) of absolute sum `ratio`, or below it for some."""
    rng = np.random.default_rng(seed)
    off = rng.standard_normal((n, n)) * (1 - np.eye(n))
    if kind == "sparse":
        off *= rng.random((n, n)) < 0.3
    if kind == "signed":  # the worst case of the bounds on inverses: all off-diagonals of the other sign
        off = -np.abs(off)
    sums = np.abs(off).sum(axis=1, keepdims=True)
    off *= ratio / np.where(sums > 0, sums, 1)
    if both:
        off *= ratio / max(np.abs(off).sum(axis=0).max(), ratio)
    return np.eye(n) + off


@st.composite
def dominant_matrices(draw: Any, max_n: int = 12, *, both: bool = False, spread: float = 8.0) -> np.ndarray:
    """Matrices D (I + N) with diagonals of either sign and over many octaves: condition numbers to 1e16 and beyond."""
    n, ratio, seed = draw(st.integers(1, max_n)), draw(ratios), draw(seeds)
    kind = draw(st.sampled_from(["dense", "sparse", "signed"]))
    rng = np.random.default_rng(seed)
    diagonal = 10.0 ** rng.uniform(-spread, spread, n) * rng.choice([-1.0, 1.0], n)
    diagonal = np.ones(n) if both else diagonal
    return diagonal[:, None] * mixing(n, ratio, seed, both=both, kind=kind)


@st.composite
def square_matrices(draw: Any, min_n: int = 1, max_n: int = 5) -> np.ndarray:
    """Any square matrix: Gaussian, heavy-tailed, with zeros, nearly dominant, of any scale."""
    n, rng = draw(st.integers(min_n, max_n)), np.random.default_rng(draw(seeds))
    kind = draw(st.sampled_from(["gaussian", "heavy", "sparse", "nearly", "integer"]))
    found = rng.standard_normal((n, n))
    if kind == "heavy":
        found = rng.standard_t(2, (n, n))
    if kind == "sparse":
        found *= rng.random((n, n)) < 0.5
    if kind == "nearly":
        found = np.eye(n) * n * np.sign(rng.standard_normal(n)) + found
    if kind == "integer":
        found = rng.integers(-2, 3, (n, n)).astype(float)
    return found * draw(st.sampled_from([1.0, 1e-6, 1e6]))
