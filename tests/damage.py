"""Damage to files and streams, and a ceiling on the memory that reading them may take."""

import contextlib
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from lattq.errors import DamagedFileError

Place = tuple[int, ...]

# Lengths, centres and classes that a careless reader would index or allocate with.
ODD_NUMBERS = [-1, 0, 1, 255, 1000, 10**6, 2**31 - 1, 2**31, 2**40, -(2**31), 2**63, 2**64 - 1]


@contextlib.contextmanager
def memory_limit(extra: int = 1 << 30) -> Iterator[None]:
    """Turn any allocation beyond `extra` bytes into a MemoryError, where the platform can."""
    statm = Path("/proc/self/statm")
    if not statm.exists():
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    used = int(statm.read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + extra, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@contextlib.contextmanager
def refusal_allowed() -> Iterator[None]:
    """What damage may do to a reader: nothing that shows, or `DamagedFileError`, in bounded memory."""
    with memory_limit(), contextlib.suppress(DamagedFileError):
        yield


@st.composite
def damaged_bytes(draw: st.DrawFn, blob: bytes) -> bytes:
    """Other bytes: one altered, the end cut off, or some added."""
    kinds = ["flip", "cut", "append"] if blob else ["append"]
    kind = draw(st.sampled_from(kinds))
    if kind == "append":
        return blob + draw(st.binary(min_size=1, max_size=9))
    position = draw(st.integers(0, len(blob) - 1))
    if kind == "cut":
        return blob[:position]
    return blob[:position] + bytes([blob[position] ^ draw(st.integers(1, 255))]) + blob[position + 1 :]


def items(stream: Any, path: Place = ()) -> Iterator[Place]:
    """Where every part of a nested list is, the lists themselves included."""
    yield path
    if isinstance(stream, list):
        for index, item in enumerate(stream):
            yield from items(item, (*path, index))


def replace(stream: Any, path: Place, value: Any) -> Any:
    """A copy of a nested list with one part replaced."""
    if not path:
        return value
    return [replace(item, path[1:], value) if index == path[0] else item for index, item in enumerate(stream)]


@st.composite
def damaged_streams(draw: st.DrawFn, stream: Any) -> Any:
    """A copy of a stream (bytes, or a nested list of bytes and numbers) with one part altered; its type stays."""
    path = draw(st.sampled_from(list(items(stream))))
    part = stream
    for index in path:
        part = part[index]
    if isinstance(part, bytes):
        return replace(stream, path, draw(damaged_bytes(part)))
    if isinstance(part, int):
        near = st.sampled_from([part - 1, part + 1, -part])
        return replace(stream, path, draw(near | st.sampled_from(ODD_NUMBERS)))
    if isinstance(part, list):
        shorter = part[: draw(st.integers(0, max(len(part) - 1, 0)))]
        return replace(stream, path, draw(st.sampled_from([shorter, part + part[-1:]])))
    return replace(stream, path, draw(st.floats()) if isinstance(part, float) else None)
