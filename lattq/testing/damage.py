"""States and streams that nobody wrote, in files whose hash is right: refused, or read as the numbers they hold."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from lattq._payload import sealed
from lattq.coding.messages import packed, unpacked
from lattq.errors import LattqError
from lattq.quantized import Quantized

__all__ = ["another", "refuse_damage"]

FIELDS = {"quantizer": (2, 1), "transform": (3, 1), "coder": (6, 1), "data": (7,)}  # where a payload has them
MOST = 100  # files tried
ODD = (None, -1, 0, 1 << 40, 0.5, float("nan"), 1e308, "x", b"", b"\xff", [])


def refuse_damage(layer: Quantized, field: str) -> None:
    """Assert that damage to a field of a payload is a `LattqError`, or decodes to numbers."""
    fields = unpacked(layer.payload[:-8])
    own = _at(fields, FIELDS[field])
    others = list(another(own))
    for value in others[:: -(-len(others) // MOST)]:
        payload = sealed(packed(_with(fields, FIELDS[field], value), "the payload"))
        try:
            found = Quantized.from_payload(payload, layer.shape)
            with np.errstate(over="ignore", invalid="ignore"):
                values = found.transform.inverse(found.decoded())
        except LattqError:
            continue
        except Exception as error:
            msg = (
                f"{value!r} in place of {own!r} raises {type(error).__name__}: {error}; read it with "
                "`lattq.coding.schema`, or raise `DamagedFileError`"
            )
            raise AssertionError(msg) from error
        assert not np.isnan(values).any(), f"{value!r} in place of {own!r} is read, and decodes to NaN; refuse it"


def another(value: Any) -> Iterator[Any]:
    """Others in the place of a value: odd ones, longer and shorter ones, and for lists those of each item.

    >>> [one for one in another(b"ab") if isinstance(one, bytes)]
    [b'', b'\\xff', b'a', b'abb', b'abab', b'\\xff\\xff', b'\\x00\\x00']
    """
    yield from ODD
    if isinstance(value, bytes) and value:
        yield from (value[:-1], value + value[-1:], 2 * value, b"\xff" * len(value), b"\x00" * len(value))
    if isinstance(value, list) and value:
        yield from (value[:-1], value + value[-1:])
        for index, item in enumerate(value):
            yield from (_with(value, (index,), other) for other in another(item))


def _at(value: Any, path: tuple[int, ...]) -> Any:
    for index in path:
        value = value[index]
    return value


def _with(value: list, path: tuple[int, ...], other: Any) -> list:
    """A list with something else at a place in it."""
    first, *rest = path
    return [*value[:first], _with(value[first], tuple(rest), other) if rest else other, *value[first + 1 :]]
