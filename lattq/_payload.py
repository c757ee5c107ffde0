"""What a payload holds at its top, and how many weights it may have."""

from typing import Any

from lattq._parts import CODERS, QUANTIZERS
from lattq.coding.schema import Choice, Inner, Integer, Record, checked
from lattq.errors import DamagedFileError

__all__ = ["FORMAT", "MOST_LIVE", "MOST_SHIFT", "MOST_WEIGHTS", "PER_BYTE", "payload_fields", "require_few"]

FORMAT = 1
MOST_SHIFT = 1 << 20  # of a centroid, in 128ths of a cell
SIDE = Integer(1, 1 << 20)  # rows or columns: no layer has more
PAYLOAD = Record(
    version=Integer(0, 255),
    shape=Record(rows=SIDE, columns=SIDE),
    quantizer=Record(kind=Choice(*QUANTIZERS), state=Inner()),
    transform=Inner(),
    row_gains=Inner(),
    column_gains=Inner(),
    coder=Record(kind=Choice(*CODERS), state=Inner()),
    data=Inner(),
)
MOVED = Record(**PAYLOAD.fields, shifts=Integer(1, 255), centroids=Inner())  # with centroids
# Without a shape to expect, what a file may hold: these many weights, or so many for each of its bytes.
MOST_WEIGHTS, MOST_LIVE, PER_BYTE = 1 << 24, 1 << 19, 1 << 10


def payload_fields(state: Any, expected: tuple[int, int] | None, size: int) -> tuple:
    """Shape and states of the parts of a payload of `size` bytes; raises `DamagedFileError`.

    >>> payload_fields([1, [2, 3], ["uniform", []], ["identity", []], None, None, ["fixed", []], b""], (2, 3), 30)[0]
    (2, 3)
    """
    schema = MOVED if type(state) is list and len(state) > len(PAYLOAD.fields) else PAYLOAD
    version, shape, *parts = checked(schema, state, "payload")
    if version != FORMAT:
        msg = f"format version {version}; this lattq reads version {FORMAT}: use the release that wrote the file"
        raise DamagedFileError(msg)
    rows, columns = shape
    if expected is None:
        require_few(rows * columns, size, MOST_WEIGHTS)
    elif (rows, columns) != tuple(expected):
        msg = f"a matrix of {rows} x {columns} weights where {expected[0]} x {expected[1]} belong; the file is damaged"
        raise DamagedFileError(msg)
    return (rows, columns), *parts


def require_few(weights: int, size: int, most: int) -> None:
    """Raise `DamagedFileError` for more weights than `size` bytes may hold where nobody knows the shape.

    >>> require_few(4096 * 4096, 100, MOST_WEIGHTS)
    """
    if weights > max(most, PER_BYTE * size):
        msg = (
            f"{size} bytes hold {weights} weights, which is more than {most} and than {PER_BYTE} a byte; "
            "the file is damaged, or pass the shape of its matrix"
        )
        raise DamagedFileError(msg)
