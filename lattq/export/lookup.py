"""From quantized matrices to the tables that other systems read."""

import math

import numpy as np

from lattq.errors import InvalidInputError
from lattq.export.tables import LookupTable
from lattq.parts.forms import TableForm
from lattq.quantized import Quantized
from lattq.transforms.chains import split_unit

__all__ = ["lookup_table"]


def lookup_table(quantized: Quantized) -> LookupTable:
    """The same weights as indices into tables, element for element in float16.

    Where the last group of rows or columns is smaller than the others, tables stand several times, for groups that
    divide evenly.

    Raises
    ------
    InvalidInputError : for weights that are not plain entries of tables: other quantizers, transforms, gains, scales of
        runs; entries that float16 does not hold; or sizes that Core ML lacks

    Examples
    --------
    >>> import lattq as lq
    >>> layer = lq.quantize(np.array([[0.0, 1.0], [1.0, 3.0]]), np.eye(2), lq.recipes.palettize(bits=1))
    >>> lookup_table(layer).dense()
    array([[0.6665, 0.6665],
           [0.6665, 3.    ]], dtype=float16)
    """
    name, form = type(quantized.quantizer).__name__, quantized.quantizer.table_form()
    if form is None:
        msg = (
            f"a {name} has no tables; quantize with palettize, pq or gptvq of `lattq.recipes`, "
            f"or write `table_form` in {name}"
        )
        raise InvalidInputError(msg)
    obstacle = _obstacle(quantized, form)
    if obstacle:
        msg = f"{obstacle} cannot stand in a table; quantize without it"
        raise InvalidInputError(msg)
    rows, columns = quantized.shape
    groups, across, _, d = form.tables.shape
    row_step, column_step = _step(form.rows, groups, rows), _step(form.group, across, columns)
    down = np.minimum(np.arange(0, rows, row_step) // form.rows, groups - 1)
    along = np.minimum(np.arange(0, columns, column_step) // (form.group if across > 1 else columns), across - 1)
    indices = quantized.codes[::d] if form.down else quantized.codes[:, ::d]
    entries = _in_weights(form.tables, split_unit(quantized.transform)[1])
    return LookupTable(indices, entries[np.ix_(down, along)], axis=0 if form.down else 1)


def _in_weights(tables: np.ndarray, exponent: int) -> np.ndarray:
    """Entries in units of the weights, in float16: rounded where they are small enough to be subnormal there."""
    entries = np.ldexp(tables, -exponent)
    largest, half = float(np.abs(entries).max()), np.finfo(np.float16)
    if largest > float(half.max) or 0.0 < largest < float(half.smallest_normal):
        msg = f"the largest entry of the tables is {largest:.3g}; float16 goes from 6.1e-05 to 65504: scale the weights"
        raise InvalidInputError(msg)
    return entries.astype(np.float16).astype(np.float64)


def _obstacle(quantized: Quantized, form: TableForm) -> str | None:
    """What a table cannot say, in words."""
    transform, _ = split_unit(quantized.transform)
    checks = (
        (not transform.plain, f"the transform {type(transform).__name__}"),  # pyright: ignore[reportAttributeAccessIssue]
        (quantized.row_gains is not None or quantized.column_gains is not None, "a gain of rows or columns"),
        (form.scales is not None, "a scale of runs of columns"),
    )
    return next((text for wrong, text in checks if wrong), None)


def _step(size: int, groups: int, length: int) -> int:
    """The largest groups that divide evenly and lie inside those of `size`."""
    return length if groups == 1 else math.gcd(size, length)
