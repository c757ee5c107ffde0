"""Assertions. They raise; none of them returns a comparison that a caller could forget to check."""

from types import ModuleType
from typing import Any

import numpy as np
from array_api_compat import array_namespace, is_array_api_obj

from lattq._array import to_host

__all__ = ["assert_close", "assert_same", "default_rtol"]


def _namespace(x: Any) -> ModuleType | None:
    """Array namespace of `x`; Python numbers belong to none."""
    return array_namespace(x) if is_array_api_obj(x) else None


def default_rtol(dtype: np.dtype) -> float:
    """Four times the square root of the machine epsilon; 0 for integers and booleans."""
    return 4 * float(np.finfo(dtype).eps) ** 0.5 if np.issubdtype(dtype, np.inexact) else 0.0


def assert_close(actual: Any, desired: Any, *, rtol: float | None = None, atol: float = 0.0) -> None:
    """Assert that two arrays of one library, dtype and shape agree to `rtol` relative to `desired`, plus `atol`.

    The default is 4 √eps of the dtype for floats and exact for integers. Python numbers compare with Python numbers
    and NumPy scalars. NaN equals NaN.
    """
    assert _namespace(actual) is _namespace(desired) or isinstance(desired, int | float), (
        f"array libraries differ: {type(actual)} against {type(desired)}"
    )
    host, wanted = np.asarray(to_host(actual)), np.asarray(to_host(desired))
    arrays: list[Any] = [x for x in (actual, desired) if _namespace(x)]
    dtypes = [x.dtype for x in arrays]
    assert len(set(dtypes)) < 2, f"dtypes differ: {dtypes[0]} against {dtypes[1]}"
    assert host.shape == wanted.shape, f"shapes differ: {host.shape} against {wanted.shape}"
    if rtol is None:
        rtol = default_rtol(host.dtype)
    np.testing.assert_allclose(host, wanted, rtol=rtol, atol=atol)


def assert_same(actual: Any, desired: Any) -> None:
    """Assert that two arrays agree in library, dtype, shape and every bit of value."""
    assert_close(actual, desired, rtol=0.0)
