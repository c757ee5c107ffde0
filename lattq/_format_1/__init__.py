"""Files of format 1, as commit 3371c62 wrote them: read in this release, and no longer in the next.

Streams were those of the library `constriction`: symbols of one scale class were coded together, symbols beyond a table
stood beside as numbers, and trellises of 16 to 512 states had other polynomials. So the codes of such a trellis cannot
be coded again: a file that was read stays as it is, and is saved as it is.
"""

from typing import Any

import numpy as np

from lattq._format_1.coders import READERS
from lattq._format_1.streams import integers
from lattq._payload import SIDE, class_prior, require_shape
from lattq.coding.interleaved import require_codes
from lattq.coding.schema import KIND, Inner, Integer, Octets, Record, checked
from lattq.errors import DamagedFileError
from lattq.feedback.loop import GAIN_GRID
from lattq.parts.registry import find
from lattq.transforms import chains
from lattq.transforms.grid import grid_scale
from lattq.transforms.maps import Diagonal
from lattq.transforms.outliers import Sparse

__all__ = ["payload_fields_1"]

PART = Record(kind=KIND, state=Inner())
PAYLOAD = {
    "version": Integer(1, 1),
    "shape": Record(rows=SIDE, columns=SIDE),
    "quantizer": PART,
    "transform": PART,
    "row_gains": Inner(),
    "column_gains": Inner(),
    "coder": PART,
    "data": Inner(),
}
MOVED = {**PAYLOAD, "shifts": Integer(1, 255), "centroids": Inner()}


def payload_fields_1(state: Any, expected: tuple[int, int] | None, size: int) -> dict[str, Any]:
    """Fields of `Quantized` from the state of a payload of `size` bytes; `DamagedFileError`.

    Raises
    ------
    MissingPartError : without `constriction`, if an entropy coder wrote the file
    """
    fields = MOVED if type(state) is list and len(state) > len(PAYLOAD) else PAYLOAD
    _, shape, quantizer, transform, rows, columns, coder, data, *centroids = checked(Record(**fields), state, "payload")
    height, width = shape = require_shape(tuple(shape), expected, size)
    transform: Any = _transform(transform, width)
    transform.check_rows(height)
    kind, options = coder
    if kind == "trellis":
        options = [*options[:2], options[3]]
    made: Any = find("coder", kind).from_state(options, shape)
    if kind not in READERS:
        msg = f"a coder `{kind}`, which format 1 did not have; the file is damaged"
        raise DamagedFileError(msg)
    codes, gains, context = READERS[kind](made, data, shape, class_prior(transform), coder[1])
    if quantizer[0] == "format":
        scales, packed, own_rows, group, number = quantizer[1]
        quantizer = ["format", [scales, group, own_rows, packed, number]]
    found: Any = find("quantizer", quantizer[0]).from_state(quantizer[1], shape)
    found.check_coder(made)
    found = _with(found, context)
    codes = require_codes(np.asarray(codes, dtype=np.int64))
    found.check_codes(codes)
    if centroids and not found.ordered:
        msg = f"centroids for a {type(found).__name__}, whose codes have no places; the file is damaged"
        raise DamagedFileError(msg)
    return {
        "codes": codes,
        "quantizer": found,
        "transform": transform,
        "coder": made,
        "row_gains": None if rows is None else integers(rows, height) + GAIN_GRID,
        "column_gains": None if columns is None else integers(columns, width) + gains,
        "centroids": integers(centroids[1], centroids[0]) if centroids else None,
    }


def _with(quantizer: Any, context: dict[str, Any]) -> Any:
    known = {name: value for name, value in context.items() if name in quantizer.carried}
    return type(quantizer)(**{**vars(quantizer), **known}) if known else quantizer


def _transform(state: list, size: int) -> Any:
    """A transform; chains in chains are one chain."""
    kind, own = checked(PART, state, "transform")
    if kind == "chain":
        return find("transform", "chain")(tuple(_transform(part, size) for part in own))
    if kind == "diagonal" and len(own) > 1:
        return Diagonal(grid_scale(integers(own, size)))
    if kind == "sparse":
        count, gaps, values = own
        halves = np.frombuffer(checked(Octets(2 * count), values, "values"), dtype="<f2").astype(np.float64)
        return Sparse(np.cumsum(integers(gaps, count, 0) + 1) - 1, halves, size)
    return chains.from_state([kind, own], size)
