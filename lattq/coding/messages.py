"""States and streams as `msgpack` messages, which are all that a file holds of them."""

from typing import Any

import msgpack

from lattq.errors import DamagedFileError, InvalidInputError

__all__ = ["packed", "unpacked"]


def packed(value: Any, what: str) -> bytes:
    """A `msgpack` message of the value that `what` is; raises `InvalidInputError` for a value that no file can hold.

    >>> packed([1, b"a"], "a state")
    b'\\x92\\x01\\xc4\\x01a'
    """
    try:
        return bytes(msgpack.packb(value) or b"")
    except (TypeError, ValueError, OverflowError) as error:
        msg = f"{what} is what no file can hold ({error}); return Python's own integers, floats, strings, bytes, lists"
        raise InvalidInputError(msg) from error


def unpacked(body: bytes) -> Any:
    """The value of a `msgpack` message, in memory of less than a hundred times its length.

    Lengths of lists are believed only after all their items have been found, so that nobody asks for more.

    >>> unpacked(b"\\x92\\x01\\xc4\\x01a")
    [1, b'a']
    """
    try:
        whole = msgpack.Unpacker(max_buffer_size=max(len(body), 1))  # 0 is 4 GiB there
        whole.feed(body)
        whole.skip()
        return msgpack.unpackb(body, max_map_len=0, max_ext_len=0, max_str_len=256)
    except (ValueError, msgpack.UnpackException) as error:
        msg = f"{len(body)} bytes are no message ({type(error).__name__}); the file is damaged"
        raise DamagedFileError(msg) from None
