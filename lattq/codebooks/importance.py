"""Weights of the squared errors of numbers, such as a Fisher diagonal."""

import dataclasses
import hashlib
from typing import Any

import numpy as np

from lattq._array import as_reals, to_host
from lattq.errors import InvalidInputError

__all__ = ["Importance"]


@dataclasses.dataclass(frozen=True, eq=False)
class Importance:
    """Weights of squared errors, compared and printed by a digest of their bytes.

    >>> Importance.of(np.ones((2, 2))) == Importance.of(np.ones((2, 2)))
    True
    """

    values: np.ndarray
    digest: str

    @staticmethod
    def of(values: Any) -> "Importance":
        """From a matrix of any array library; raises `InvalidInputError` unless all are zero or above, and finite."""
        if isinstance(values, Importance):
            return values
        host = to_host(as_reals("importance", values)).astype(np.float64)
        if host.ndim != 2:
            msg = f"`importance` has shape {host.shape}; pass a matrix with a weight for each row and column"
            raise InvalidInputError(msg)
        if not (np.isfinite(host) & (host >= 0)).all():
            msg = "`importance` holds a negative or infinite number; weights of squared errors are zero or above"
            raise InvalidInputError(msg)
        return Importance(host, hashlib.blake2b(host.tobytes(), digest_size=8).hexdigest())

    def __eq__(self, other: object) -> bool:
        """Whether the digests agree."""
        return isinstance(other, Importance) and self.digest == other.digest

    def __hash__(self) -> int:
        """Of the digest."""
        return hash(self.digest)

    def __repr__(self) -> str:
        """Shape and digest."""
        return f"<{self.values.shape[0]} x {self.values.shape[1]} weights {self.digest}>"
