"""Entries of tables as files hold them: float16, or small integers times a float16 step."""

import math
from typing import Any

import numpy as np

from lattq.errors import InvalidInputError
from lattq.quantizers.steps import GROWN, half

__all__ = ["rounded_entries", "stored_tables"]

HALF_DIGITS = 11  # binary digits of a float16


def rounded_entries(entries: np.ndarray, bits: int | None) -> tuple[np.ndarray, np.ndarray | None]:
    """Entries in float16, or as integers times a step that takes the largest to about the end of the range.

    The step has as few digits as make the products float16 numbers too, which tables of other systems hold.

    Raises `InvalidInputError` for entries beyond float16.

    >>> rounded_entries(np.array([[0.5], [-127.0]]), 8)
    (array([[   0.],
           [-127.]]), array(1.))
    """
    top, half = float(np.abs(entries).max()), np.finfo(np.float16)
    if top > float(half.max):
        msg = f"the largest entry of a table is {top:.3g}, beyond float16; {GROWN}"
        raise InvalidInputError(msg)
    if bits is None:
        return entries.astype(np.float16).astype(np.float64) + 0.0, None
    largest = (1 << (bits - 1)) - 1
    exponent = math.frexp(top / largest)[1]
    unit = max(math.ldexp(1.0, exponent - (HALF_DIGITS - bits + 1)), float(half.smallest_subnormal))
    step = max(math.ceil(top / largest / unit), 1) * unit
    most = min(largest, math.floor(float(half.max) / step))
    return np.clip(np.rint(entries / step), -most, most) * step + 0.0, np.array(step)  # integers know no -0


def stored_tables(
    tables: np.ndarray, steps: np.ndarray | None, bits: int | None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Entries and steps of tables, (row groups, column groups, size, dimension), as a file gives them back.

    Raises `InvalidInputError` for what is beyond float16, or beyond integers of so many bits.

    >>> stored_tables(np.array([[[[0.3]]]]), None, None)[0]
    array([[[[0.30004883]]]])
    """
    if steps is None:
        with np.errstate(over="ignore"):
            found = tables.astype(np.float16).astype(np.float64)
        lost = ~np.isfinite(found)
    else:
        own: Any = half("steps", steps)
        steps, sides = own, own[..., None, None]
        integers = np.rint(tables / sides)
        lost = ~(np.abs(integers + 0.5) < 1 << ((bits or 8) - 1))
        found = integers * sides
    if lost.any():
        msg = f"`tables` holds {tables[lost][0]:.3g}, which entries of {bits or 16} bits do not hold; "
        raise InvalidInputError(msg + "multiply the weights by a constant first")
    return tables if np.array_equal(found, tables) else found, steps
