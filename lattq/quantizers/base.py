"""The two seams of quantization: a quantizer is a frozen value, a design chooses one from data."""

import dataclasses
from typing import Any, Protocol, runtime_checkable

import numpy as np

from lattq._array import Array
from lattq.coding import TwoWay
from lattq.parts.forms import NestedForm, NumberForm, TableForm
from lattq.quantizers.entries import Entries

__all__ = ["BaseQuantizer", "BlockQuantizer", "Design", "Given", "Quantizer"]


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


class BaseQuantizer:
    """Answers of a quantizer that most do not need to give themselves, for classes to inherit and to override.

    A class of its own writes `encode` and `decode` (see `Quantizer`), and for files ``to_state() -> list`` (of numbers,
    strings, bytes and lists) and a static ``from_state(state, shape)``, and registers itself: `lattq.register`.
    What `encode` and `decode` do must be what the state says: a number that is stored as float16 is one from the start,
    or becomes one in `stored`.

    Examples
    --------
    >>> BaseQuantizer().coder, BaseQuantizer().overload(np.ones((2, 2)))
    (TwoWay(block=262144), 0)
    """

    components: Any = ()
    """Parts that it is made of, which have kinds of their own."""
    ordered = False
    """Whether codes between two codes decode to what lies between: then centroids may be fitted to the codes."""

    @property
    def coder(self) -> Any:
        """An entropy coder of integers around 0."""
        return TwoWay()

    def overload(self, x: Array) -> int:
        """0: no range is covered only in part."""
        return 0

    def underflow(self) -> int:
        """How many stored numbers are too small for their format to hold well; 0."""
        return 0

    def idle(self, codes: np.ndarray) -> int:
        """How many columns are worth nothing: those whose codes are all 0."""
        return int(np.sum(~codes.any(axis=0)))

    def stored(self) -> Any:
        """The quantizer with all numbers as a file holds them; `InvalidInputError` where it cannot hold one."""
        return self

    def check_codes(self, codes: np.ndarray) -> None:
        """Raise `InvalidInputError` for codes that `decode` does not know; every integer is one."""

    def check_coder(self, coder: Any) -> None:
        """Raise `InvalidInputError` for a coder that cannot be that of these codes; any can."""

    @classmethod
    def concatenate(cls, parts: list, group: int) -> Any:
        """One quantizer for the whole matrix, on the host, from those of its groups of columns, in column order.

        None where there is none of this class: then they are kept side by side.
        """
        return None

    def packed_form(
        self, codes: np.ndarray, shifts: np.ndarray | None = None
    ) -> NumberForm | TableForm | NestedForm | None:
        """The codes as plain arrays that packed products take; None where there are none.

        `shifts` moves what the codes -K ... K decode to, in cells; only quantizers of ordered codes get one.
        """
        return self.table_form()

    def table_form(self) -> TableForm | None:
        """The tables that codes are indices into, for exports and least squares; None where there are none."""
        return None

    def with_tables(self, tables: np.ndarray) -> Any:
        """The same quantizer with other entries of `table_form`, rounded as they are stored."""
        raise NotImplementedError


@runtime_checkable
class BlockQuantizer(Quantizer, Protocol):
    """A quantizer that minds where in its group a block lies, and what errors in it cost."""

    def part(self, start: int, metric: np.ndarray) -> Quantizer:
        """The quantizer of the block whose columns begin at `start`, where errors e cost e · metric · eᵀ."""
        ...


@runtime_checkable
class Design(Protocol):
    """A rule that chooses a quantizer for a group of columns, called when feedback into the group is complete.

    One whose quantizers follow their targets into any unit (targets times g and pivots over g² give reconstructions
    times g), and store numbers in float16, has an attribute `scale_free` that is true: weights then come to it with a
    largest magnitude in [1, 2), by a power of two that `quantize` stores.
    """

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
