"""Scales of blocks in formats of their own, and as bytes."""

from typing import Any

import numpy as np

from lattq.bounds.formats import E4M3FN, E8M0
from lattq.errors import DamagedFileError
from lattq.quantizers.steps import stored_halves

__all__ = ["byte_values", "packed_scales", "positive_scales", "unpacked_scales"]


def positive_scales(kind: str) -> np.ndarray:
    """Scales of a format of eight bits, rising."""
    return E8M0.values if kind == "e8m0" else E4M3FN.values[E4M3FN.values > 0.0]


def packed_scales(scale: np.ndarray, kind: str) -> bytes:
    """Scales in their own format: half precision, or the bytes of E4M3 and E8M0."""
    if kind == "float16":
        return scale.astype("<f2").tobytes()
    return np.searchsorted(byte_values(kind), scale).astype(np.uint8).tobytes()


def unpacked_scales(data: bytes, kind: str, at: tuple[int, int]) -> np.ndarray:
    """Inverse of `packed_scales`, for scales of this shape."""
    if kind == "float16":
        return stored_halves(data, at)
    values: Any = byte_values(kind)
    index = np.frombuffer(data, dtype=np.uint8)
    if index.max() >= values.size or not values[index.min()] > 0:
        msg = f"bytes {index.min()} ... {index.max()} are not all scales of {kind}; the file is damaged"
        raise DamagedFileError(msg)
    return values[index].reshape(at)


def byte_values(kind: str) -> np.ndarray:
    """What the bytes 0, 1, ... of a scale mean."""
    return E8M0.values if kind == "e8m0" else E4M3FN.values[-E4M3FN.low :]
