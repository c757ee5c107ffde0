"""The two seams of quantization: a quantizer is a frozen value, a design chooses one from data."""

import dataclasses
from typing import Any, Protocol, runtime_checkable

import numpy as np

from lattq._array import Array
from lattq.quantizers.entries import Entries

__all__ = ["BlockQuantizer", "Design", "Given", "Quantizer"]


@runtime_checkable
class Quantizer(Protocol):
    """A map from reals to integers and back, for blocks of columns, shape (rows, block)."""

    @property
    def coder(self) -> Any:
        """The coder that is made for its codes: fixed length for finite ranges, entropy coding otherwise."""
        ...

    def encode(self, x: Array) -> Array:
        """Codes (int32) of the reconstruction that the quantizer chooses for `x`."""
        ...

    def decode(self, codes: Array) -> Array:
        """Reconstruction of codes."""
        ...

    def overload(self, x: Array) -> int:
        """How many entries of `x` lie outside the range that the quantizer covers."""
        ...


@runtime_checkable
class BlockQuantizer(Quantizer, Protocol):
    """A quantizer that minds where in its group a block lies, and what errors in it cost."""

    def part(self, start: int, metric: np.ndarray) -> Quantizer:
        """The quantizer of the block whose columns begin at `start`, where errors e cost e · metric · eᵀ."""
        ...


@runtime_checkable
class Design(Protocol):
    """A rule that chooses a quantizer for a group of columns, called when feedback into the group is complete."""

    @property
    def group(self) -> int | None:
        """Columns per call; None for all columns at once."""
        ...

    @property
    def shrink(self) -> bool:
        """Whether each column's reconstruction is scaled by its LMMSE gain <x, q> / <q, q>."""
        ...

    def __call__(self, entries: Entries) -> Quantizer:
        """Quantizer for these entries: a group of columns with the feedback in it."""
        ...


@dataclasses.dataclass(frozen=True)
class Given:
    """Design that returns a quantizer that is known already, for all columns.

    >>> from lattq.quantizers import Entries, UniformQuantizer
    >>> known = UniformQuantizer(np.ones((1, 1)))
    >>> Given(known)(Entries(np.eye(2))) is known
    True
    """

    quantizer: Quantizer
    group: None = None
    shrink: bool = False

    def __call__(self, entries: Entries) -> Quantizer:
        """The quantizer."""
        return self.quantizer
