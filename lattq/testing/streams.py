"""What a file makes of a state or a stream, and what must be refused."""

from collections.abc import Callable
from typing import Any

from lattq.coding.messages import packed, unpacked
from lattq.errors import InvalidInputError

__all__ = ["must_refuse", "stream_bits", "through_file"]


def through_file(state: Any) -> Any:
    """What a file gives back for a state or a stream; raises `AssertionError` for what a file cannot hold."""
    try:
        return unpacked(packed(state, f"{state!r}"))
    except InvalidInputError as error:
        raise AssertionError(str(error)) from error


def must_refuse(call: Callable[[], Any], what: str) -> None:
    """Assert that a call raises `InvalidInputError`."""
    try:
        call()
    except InvalidInputError:
        return
    msg = f"{what} must be refused with InvalidInputError"
    raise AssertionError(msg)


def stream_bits(stream: Any) -> int:
    """Size of a stream: its bytes, its numbers in whole bytes, and one byte for each item of a list."""
    if isinstance(stream, bytes):
        return 8 * len(stream)
    if isinstance(stream, int):
        return 8 * (stream.bit_length() // 8 + 1)
    if isinstance(stream, float):
        return 64
    return sum(8 + stream_bits(item) for item in stream)
