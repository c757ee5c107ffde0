"""What a coder answers beside `encode` and `decode`."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from lattq.coding.narrow import in_cells
from lattq.coding.scaling import Scaling

__all__ = ["BaseCoder"]


class BaseCoder:
    """Answers of a coder that is a frozen dataclass of plain options, for classes to inherit and to override.

    A coder writes ``encode(codes, prior=0) -> data``, which is bytes or a nested list of bytes and numbers, and
    ``decode(data, shape, prior=0) -> codes``, which restores the codes exactly. `prior` is a guess of the columns'
    scale classes, up to a constant, that the decoder knows too; it may be ignored. Data come from files: what is read
    from them is checked with `lattq.coding.schema`, and other errors become `DamagedFileError`.

    Examples
    --------
    >>> @dataclasses.dataclass(frozen=True)
    ... class Raw(BaseCoder):
    ...     width: int = 4
    ...     def encode(self, codes, prior=0):
    ...         return codes.astype(f"<i{self.width}").tobytes()
    ...     def decode(self, data, shape, prior=0):
    ...         return np.frombuffer(data, dtype=f"<i{self.width}").astype(np.int32).reshape(shape)
    >>> Raw.from_state(Raw(2).to_state(), (4, 4))
    Raw(width=2)
    """

    components: Any = ()
    """Parts that it is made of, which have kinds of their own."""
    carries: ClassVar[tuple[str, ...]] = ()
    """What it stores for quantizers that name it (`carried`): keywords of `encode`, which may be left out."""

    fused: ClassVar[bool] = False
    """Whether `values` takes less than `decode`: then files are decoded when somebody asks, and codes where needed."""

    def values(self, data: Any, shape: tuple[int, int], scaling: Scaling, out: np.ndarray, prior: Any = 0) -> float:
        """Write what codes decode to into an array of floats, or of their bits; returns what no value exceeds.

        See `lattq.coding.narrow` for the bits: ``out[:] = in_cells(values, out.dtype)`` writes any.
        """
        codes = self.decode(data, shape, prior)  # pyright: ignore[reportAttributeAccessIssue]
        out[:] = in_cells(scaling.apply(codes), out.dtype)
        return scaling.bound(int(codes.min()), int(codes.max()))

    def context(self, data: Any, shape: tuple[int, int], prior: Any = 0) -> Mapping[str, Any]:
        """Values of `carries`, read from the data; the restored quantizer is given them."""
        return {}

    def gains(self, data: Any, shape: tuple[int, int], prior: Any = 0) -> np.ndarray | None:
        """Gains of columns, in 128ths, that the data predict; only differences from them are stored. None for 1."""
        return None

    def to_state(self) -> list:
        """The options, for the container."""
        return list(dataclasses.astuple(self))  # pyright: ignore[reportArgumentType]

    def live(self, data: Any, shape: tuple[int, int], prior: Any = 0) -> int:
        """How many codes `decode` has to find, for files whose shape nobody knows: all."""
        return shape[0] * shape[1]

    def fixed(self, data: Any) -> int:
        """How many bytes of the data more rows would add nothing to."""
        return 0

    @classmethod
    def from_state(cls, state: list, shape: tuple[int, int]) -> Any:
        """Inverse of `to_state`, for a matrix of this shape."""
        return cls(*state)
