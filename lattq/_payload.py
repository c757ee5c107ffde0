"""What a payload holds at its top, how many weights it may have, and the fields of a value from it."""

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from lattq.coding.damage import reading
from lattq.coding.integers import decode_integers
from lattq.coding.messages import unpacked
from lattq.coding.schema import KIND, Inner, Integer, Record, checked
from lattq.coding.tables import CLASSES_PER_OCTAVE
from lattq.errors import DamagedFileError, InvalidInputError, shown
from lattq.feedback.loop import GAIN_GRID
from lattq.parts.registry import find
from lattq.transforms import chains
from lattq.transforms.grid import SCALE_GRID

__all__ = [
    "FORMAT",
    "MOST_LIVE",
    "MOST_WEIGHTS",
    "OLD_FORMAT",
    "PER_BYTE",
    "SIDE",
    "class_prior",
    "decoded_codes",
    "expected_gains",
    "format_version",
    "payload_fields",
    "require_bytes",
    "require_parts",
    "require_shape",
    "sealed",
    "stored_kinds",
]

FORMAT = 4
OLD_FORMAT = 1  # read for one release, see `lattq._format_1`
UNRELEASED = {2: "f5b0757", 3: "4620346"}
HASH = 8  # bytes at the end of a payload
MOST_SHIFT = 1 << 20  # of a centroid, in 128ths of a cell
SIDE = Integer(1, 1 << 20)  # rows or columns: no layer has more
PART = Record(kind=KIND, state=Inner())
PAYLOAD = Record(
    version=Integer(0, 255),
    shape=Record(rows=SIDE, columns=SIDE),
    quantizer=PART,
    transform=Inner(),
    row_gains=Inner(),
    column_gains=Inner(),
    coder=PART,
    data=Inner(),
)
MOVED = Record(**PAYLOAD.fields, shifts=Integer(1, 255), centroids=Inner())  # with centroids
# Without a shape to expect, what a file may hold: these many weights, or so many for each of its bytes.
MOST_WEIGHTS, MOST_LIVE, PER_BYTE = 1 << 24, 1 << 19, 1 << 10


def schema_of(state: Any) -> Record:
    """What a payload holds, with or without centroids."""
    return MOVED if type(state) is list and len(state) > len(PAYLOAD.fields) else PAYLOAD


def payload_fields(state: Any, expected: tuple[int, int] | None, size: int) -> tuple[dict[str, Any], Any, Any]:
    """Fields of `Quantized` from the state of a payload of `size` bytes, its shape and coded data; `DamagedFileError`.

    Codes are not among them where the coder does better without (`BaseCoder.fused`).

    >>> from lattq.coding import FixedLength
    >>> data = FixedLength(4).encode(np.ones((2, 3), dtype=np.int32))
    >>> quantizer = ["uniform", [1, 1, 0.5, 0.0, 0, 3, None]]
    >>> state = [4, [2, 3], quantizer, ["identity", []], None, None, ["fixed", [4, 0]], data]
    >>> payload_fields(state, (2, 3), 30)[0]["codes"]
    array([[1, 1, 1],
           [1, 1, 1]], dtype=int32)
    """
    fields = checked(schema_of(state), state, "payload")
    _, shape, quantizer, transform, rows, columns, coder, data, *centroids = fields
    height, width = shape = require_shape(tuple(shape), expected, size)
    transform: Any = chains.from_state(transform, width)
    transform.check_rows(height)
    prior = class_prior(transform)
    coder = find("coder", coder[0]).from_state(coder[1], shape)
    if expected is None:
        _require_few(coder.live(data, shape, prior), size, MOST_LIVE)
    if columns is not None:
        columns = decode_integers(columns, width) + expected_gains(coder, data, shape, prior)
    found = _quantizer(quantizer, coder, coder.context(data, shape, prior), shape)
    if centroids and not found.ordered:
        msg = f"centroids for a {type(found).__name__}, whose codes have no places; the file is damaged"
        raise DamagedFileError(msg)
    codes = {} if coder.fused and found.scaling is not None else {"codes": decoded_codes(coder, data, shape, prior)}
    if codes:
        found.check_codes(codes["codes"])
    return (
        {
            **codes,
            "quantizer": found,
            "transform": transform,
            "coder": coder,
            "row_gains": None if rows is None else decode_integers(rows, height) + GAIN_GRID,
            "column_gains": columns,
            "centroids": decode_integers(centroids[1], centroids[0], -MOST_SHIFT, MOST_SHIFT) if centroids else None,
        },
        shape,
        data,
    )


def require_shape(shape: tuple[int, int], expected: tuple[int, int] | None, size: int) -> tuple[int, int]:
    """The shape that a payload of `size` bytes gives itself, if it may; raises `DamagedFileError`.

    >>> require_shape((2, 3), None, 30)
    (2, 3)
    """
    if expected is None:
        _require_few(shape[0] * shape[1], size, MOST_WEIGHTS)
    elif shape != tuple(expected):
        msg = f"a matrix of {shape[0]} x {shape[1]} weights where {expected[0]} x {expected[1]} belong"
        raise DamagedFileError(msg + "; the file is damaged")
    return shape


def format_version(state: Any) -> int:
    """The version of a payload that this release reads; raises `DamagedFileError` for others and says what does.

    >>> format_version([4, [2, 3]])
    4
    """
    version = checked(Integer(0, 255), state[0] if type(state) is list and state else None, "format version")
    if version in (OLD_FORMAT, FORMAT):
        return version
    if version in UNRELEASED:
        msg = f"format version {version} was never released; commit {UNRELEASED[version]} of lattq reads it"
    else:
        msg = f"format version {version}; this lattq reads versions {OLD_FORMAT} and {FORMAT}: a later release wrote it"
        msg += ", and reads it (`pip install -U lattq`)"
    raise DamagedFileError(msg)


def decoded_codes(coder: Any, data: Any, shape: tuple[int, int], prior: Any) -> np.ndarray:
    """Codes as a result holds them.

    >>> from lattq.coding import FixedLength
    >>> decoded_codes(FixedLength(2), b"\\x01", (1, 2), 0)
    array([[1, 0]], dtype=int32)
    """
    return np.ascontiguousarray(coder.decode(data, shape, prior), dtype=np.int32)


def require_bytes(name: str, blob: object) -> None:
    """Raise `InvalidInputError` unless something is bytes.

    >>> require_bytes("payload", b"")
    """
    if not isinstance(blob, bytes | bytearray):
        msg = f"`{name}` is {shown(blob)}, no bytes; pass what a file holds"
        raise InvalidInputError(msg)


def sealed(body: bytes) -> bytes:
    """A payload: its body and the hash of that.

    >>> len(sealed(b""))
    8
    """
    return body + hashlib.blake2b(body, digest_size=HASH).digest()


def require_parts(payload: bytes) -> None:
    """Make the parts of a payload, and decode nothing.

    Raises
    ------
    MissingPartError : for a part of a package that is not installed
    DamagedFileError : for a state that no part has

    Examples
    --------
    >>> import lattq as lq
    >>> require_parts(lq.quantize(np.eye(2), np.eye(2), lq.recipes.rtn()).payload)
    """
    with reading("the payload"):
        state = unpacked(payload[:-HASH])
        if format_version(state) == OLD_FORMAT:
            return  # of parts that lattq has itself
        _, shape, quantizer, transform, _, _, coder, *_ = checked(schema_of(state), state, "payload")
        chains.from_state(transform, shape[1])
        for role, (kind, own) in (("quantizer", quantizer), ("coder", coder)):
            find(role, kind).from_state(own, tuple(shape))


def stored_kinds(payload: bytes) -> list[str]:
    """Kinds of quantizer, transform and coder that a payload holds.

    >>> import lattq as lq
    >>> stored_kinds(lq.quantize(np.eye(2), np.eye(2), lq.recipes.rtn()).payload)
    ['uniform', 'identity', 'fixed']
    """
    state = unpacked(payload[:-HASH])
    return [state[place][0] for place in (2, 3, 6)]


def class_prior(transform: Any) -> Any:
    """Guess of the coder's column classes from the scales of an equalizing transform (16ths to 8ths of an octave).

    >>> from lattq.transforms import Diagonal
    >>> class_prior(Diagonal(np.array([1.0, 2.0])))
    array([0, 8])
    """
    exponents = transform.exponents
    return 0 if exponents is None else exponents * CLASSES_PER_OCTAVE // SCALE_GRID


def expected_gains(coder: Any, data: Any, shape: tuple[int, int], prior: Any) -> Any:
    """Column gains that what the coder made of the codes predicts, in 128ths.

    >>> from lattq.coding import FixedLength
    >>> expected_gains(FixedLength(4), b"", (1, 1), 0)
    128
    """
    found = coder.gains(data, shape, prior)
    return GAIN_GRID if found is None else found


def _quantizer(state: Any, coder: Any, context: Mapping[str, Any], shape: tuple[int, int]) -> Any:
    """The quantizer of a file, with what the coder has stored for it."""
    kind, own = state
    found = find("quantizer", kind).from_state(own, shape)
    found.check_coder(coder)
    known = {name: value for name, value in context.items() if name in found.carried}
    return dataclasses.replace(found, **known) if known else found


def _require_few(weights: int, size: int, most: int) -> None:
    """Raise `DamagedFileError` for more weights than `size` bytes may hold where nobody knows the shape."""
    if weights > max(most, PER_BYTE * size):
        msg = (
            f"{size} bytes hold {weights} weights, which is more than {most} and than {PER_BYTE} a byte; "
            "the file is damaged, or pass the shape of its matrix"
        )
        raise DamagedFileError(msg)
