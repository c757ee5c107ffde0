"""Files of format 1, as commit 3371c62 wrote them: read in this release, and no longer in the next.

Streams were those of the library `constriction`: symbols of one scale class were coded together, symbols beyond a table
stood beside as numbers, and trellises of 16 to 512 states had other polynomials. So the codes of such a trellis cannot
be coded again, nor are dither and sparse parts what they were: what was read from a file is saved as it is.
"""

from typing import Any

import numpy as np

from lattq._format_1.coders import READERS
from lattq._format_1.parts import PART, quantizer_of, transform_of
from lattq._format_1.streams import integers
from lattq._payload import SIDE, class_prior, require_shape
from lattq.coding.interleaved import require_codes
from lattq.coding.schema import Inner, Integer, Record, checked
from lattq.errors import DamagedFileError
from lattq.feedback.loop import GAIN_GRID
from lattq.parts.registry import find

__all__ = ["payload_fields_1"]

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
    transform: Any = transform_of(transform, width)
    transform.check_rows(height)
    kind, options = coder
    if kind == "trellis":
        options = [*options[:2], options[3]]
    made: Any = find("coder", kind).from_state(options, shape)
    if kind not in READERS:
        msg = f"a coder `{kind}`, which format 1 did not have; the file is damaged"
        raise DamagedFileError(msg)
    codes, gains, context = READERS[kind](made, data, shape, class_prior(transform), coder[1])
    found = quantizer_of(quantizer, made, context, shape)
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
