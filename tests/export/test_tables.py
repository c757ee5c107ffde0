"""Look-up-table weights: which are refused, and what a weight costs."""

from types import ModuleType
from typing import Any

import numpy as np
import pytest

from lattq._array import from_host
from lattq.errors import InvalidInputError
from lattq.export.coreml import LookupTable

INDICES = np.array([[0, 1, 2, 3], [3, 2, 1, 0]])
TABLES = np.arange(4.0).reshape(1, 1, 4, 1)


def changed(array: np.ndarray, place: tuple[int, ...], value: float) -> np.ndarray:
    """A copy with one entry replaced."""
    other = array.copy()
    other[place] = value
    return other


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("indices", "tables", "axis", "message"),
    [
        (INDICES, TABLES, 2, "`axis` is 2"),
        (INDICES, TABLES, -1, "`axis` is -1"),
        (INDICES, TABLES, 0.5, "`axis` is 0.5"),
        (INDICES[0], TABLES, 1, r"`indices` has shape \(4,\)"),
        (INDICES[:0], TABLES, 1, r"`indices` has shape \(0, 4\)"),
        (INDICES + 0.0, TABLES, 1, "dtype float64"),
        (INDICES > 1, TABLES, 1, "dtype bool"),
        (changed(INDICES, (1, 2), 4), TABLES, 1, r"`indices` holds 4 at index \(1, 2\)"),
        (changed(INDICES, (0, 1), -1), TABLES, 1, r"`indices` holds -1 at index \(0, 1\)"),
        (changed(INDICES, (0, 1), 256), TABLES, 1, r"`indices` holds 256 at index \(0, 1\)"),
        (INDICES, np.tile(TABLES, (3, 1, 1, 1)), 1, "2 rows, which do not split into the 3 groups"),
        (INDICES, np.tile(TABLES, (1, 3, 1, 1)), 1, "4 columns, which do not split into the 3 groups"),
        (INDICES, np.tile(TABLES, (4, 1, 1, 2)), 0, "2 rows, which do not split into the 4 groups"),
        (INDICES, TABLES[0], 1, r"`tables` has shape \(1, 4, 1\)"),
        (INDICES, TABLES[..., :0], 1, r"`tables` has shape \(1, 1, 4, 0\)"),
        (INDICES, TABLES + 0j, 1, "dtype complex128"),
        (INDICES, changed(TABLES, (0, 0, 2, 0), 0.1), 1, r"holds 0\.1 at index \(0, 0, 2, 0\), which is no float16"),
        (INDICES, changed(TABLES, (0, 0, 3, 0), 65520.0), 1, r"holds 65520\.0 .* no float16"),
        (INDICES, changed(TABLES, (0, 0, 3, 0), 2.0**-25), 1, "no float16"),
        (INDICES, changed(TABLES, (0, 0, 1, 0), np.nan), 1, "`tables` holds nan"),
        (INDICES, changed(TABLES, (0, 0, 1, 0), -np.inf), 1, "`tables` holds -inf"),
    ],
)
def test_bad_input_is_refused(indices: Any, tables: Any, axis: Any, message: str):
    with pytest.raises(InvalidInputError, match=message):
        LookupTable(indices, tables, axis)


@pytest.mark.parametrize(
    ("size", "advice"),
    [(1, "to 2$"), (3, "to 4$"), (5, "to 8$"), (32, "to 64$"), (128, "to 256$"), (512, "at most 256$")],
)
def test_a_width_that_core_ml_lacks_names_the_next(size: int, advice: str):
    with pytest.raises(InvalidInputError, match=f"have {size} entries.*{advice}"):
        LookupTable(np.zeros((2, 2), int), np.zeros((1, 1, size, 1)))


def test_arrays_of_any_library(xp: ModuleType):
    like = xp.zeros(1)
    layer = LookupTable(from_host(INDICES, like=like), from_host(TABLES, like=like))
    assert isinstance(layer.indices, np.ndarray)
    assert isinstance(layer.tables, np.ndarray)
    assert np.array_equal(layer.dense(), [[0, 1, 2, 3], [3, 2, 1, 0]])


def test_what_was_given_is_copied():
    indices, tables = INDICES.astype(np.uint8), TABLES.astype(np.float16)
    layer = LookupTable(indices, tables)
    before = layer.dense()
    tables += 1
    indices[:] = 0
    assert np.array_equal(layer.dense(), before)
    with pytest.raises(ValueError, match="read-only"):
        layer.tables[0, 0, 0, 0] = 1


def test_shape_and_bits():
    layer = LookupTable(INDICES, np.zeros((2, 1, 8, 4)), 1)
    assert layer.shape == layer.dense().shape == (2, 16)
    assert layer.bits == (8 * 3 + 16 * 64) / 32
    layer = LookupTable(INDICES, np.zeros((2, 1, 8, 4)), 0)
    assert layer.shape == layer.dense().shape == (8, 4)
