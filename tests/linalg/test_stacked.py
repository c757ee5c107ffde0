"""Sums of squares of products, part by part."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lattq.linalg import stacked
from lattq.linalg.stacked import square_parts
from tests.strategies import seeds

EPS = float(np.finfo(np.float64).eps)


@given(seed=seeds, n=st.integers(1, 9), part=st.integers(1, 7), triangle=st.booleans(), data=st.data())
def test_parts_add_up_to_the_square_of_the_norm(seed: int, n: int, part: int, triangle: bool, data: st.DataObject):
    """Whatever the sizes of parts; L as blocks down a diagonal or none, F a triangle or not."""
    rng = np.random.default_rng(seed)
    groups, blocks, height = (data.draw(st.integers(1, most)) for most in (3, 3, 5))
    rows = groups * blocks * height
    x, roots = rng.standard_normal((rows, n)), rng.standard_normal((groups, n, data.draw(st.integers(1, n))))
    roots = np.tril(roots) if triangle else roots
    own = rng.standard_normal((groups * blocks, height, height)) if data.draw(st.booleans()) else None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stacked, "PART", part)
        parts = list(square_parts(x, roots, own))
    image = np.concatenate([some @ root for some, root in zip(np.split(x, groups), roots, strict=True)])
    if own is not None:
        image = np.concatenate([one.T @ some for one, some in zip(own, np.split(image, len(own)), strict=True)])
    assert min(parts) >= 0
    assert sum(parts) == pytest.approx(float(np.sum(np.square(image))), rel=1e3 * EPS)
