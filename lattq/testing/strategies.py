"""How laws search for counterexamples: hypothesis strategies for second moments, and settings.

Each draws a seed, sizes and a spectrum, and computes the array from them: a failure shrinks to a small size and a flat
spectrum in a few steps, and the failing example prints as a handful of numbers.
"""

from typing import Any

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

__all__ = ["law", "moment", "seeds", "well_conditioned_moments"]

# One law serves many classes, on purpose; hypothesis asks to be told.
law = settings(suppress_health_check=[HealthCheck.differing_executors], deadline=None, database=None)
seeds = st.integers(0, 2**32 - 1)


def moment(spectrum: np.ndarray, seed: int) -> np.ndarray:
    """Symmetric matrix with the given eigenvalues and a random orthonormal basis (exactly symmetric)."""
    rng = np.random.default_rng(seed)
    basis, _ = np.linalg.qr(rng.standard_normal((len(spectrum), len(spectrum))))
    sigma = (basis * spectrum) @ basis.T
    return (sigma + sigma.T) / 2


@st.composite
def well_conditioned_moments(draw: Any, min_n: int = 1, max_n: int = 16) -> np.ndarray:
    """Second moments with condition number at most 1000, at any scale from 1e-6 to 1e6."""
    n = draw(st.integers(min_n, max_n))
    exponents = draw(st.lists(st.floats(0, 3), min_size=n, max_size=n))
    scale = draw(st.sampled_from([1.0, 1e-6, 1e6]))
    return moment(scale * 10.0 ** np.asarray(exponents), draw(seeds))
