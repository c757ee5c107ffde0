"""Assertions. They raise; none of them returns a comparison that a caller could forget to check."""

import numpy as np

from lattq.testing.assertions import assert_close, assert_same, default_rtol

__all__ = ["assert_close", "assert_same", "assert_same_bits", "default_rtol"]


def assert_same_bits(actual: np.ndarray, desired: np.ndarray) -> None:
    """Assert that two host arrays hold the same bits: `assert_same`, where -0 is not 0."""
    assert_same(actual, desired)
    differing = np.signbit(actual) != np.signbit(desired)
    assert not differing.any(), f"{differing.sum()} zeros differ in sign, the first at {np.argwhere(differing)[0]}"
