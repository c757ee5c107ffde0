"""The two seams of quantization: a quantizer is a frozen value, a design chooses one from data."""

import dataclasses
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np

from lattq._array import Array
from lattq.coding import TwoWay
from lattq.coding.scaling import Scaling
from lattq.errors import InvalidInputError
from lattq.parts.forms import NestedForm, NumberForm, TableForm
from lattq.quantizers.entries import Entries
from lattq.quantizers.strips import Strip

__all__ = ["BaseDesign", "BaseQuantizer", "Design", "Given", "Quantizer"]


@runtime_checkable
class Quantizer(Protocol):
    """A map from reals to integers and back, for blocks of columns, shape (rows, block).

    `BaseQuantizer` answers all but the first three.
    """

    @property
    def coder(self) -> Any:
        """The coder that is made for its codes: fixed length for finite ranges, entropy coding otherwise."""
        ...

    def encode(self, x: Array) -> Array:
        """Codes (int32, of the shape and the array library of `x`) of the reconstruction that it chooses for `x`."""
        ...

    def decode(self, codes: Array) -> Array:
        """Reconstruction of codes, floating-point numbers of the same shape."""
        ...

    def overload(self, x: Array) -> int:
        """How many entries of `x` lie outside the range that the quantizer covers."""
        ...

    @property
    def idle_zeros(self) -> bool:
        """Whether blocks whose errors cost nothing are coded as zeros."""
        ...

    def in_block(self, start: int, metric: np.ndarray) -> Any:
        """The quantizer of the block whose columns begin at `start`, where errors e cost e · metric · eᵀ."""
        ...

    def strip(self, strip: Strip) -> int | None:
        """Code a few columns in one go and return how many were overload; None for one by one."""
        ...


class BaseQuantizer:
    """Answers of a quantizer that most do not need to give themselves, for classes to inherit and to override.

    A class of its own writes `encode` and `decode` (see `Quantizer`), and for files ``to_state() -> list`` (of numbers,
    strings, bytes and lists) and a static ``from_state(state, shape)``, which reads it with `lattq.coding.schema` or
    otherwise refuses what no `to_state` returns, and registers itself: `lattq.register`.
    What `encode` and `decode` do must be what the state says: a number that is stored as float16 is one from the start,
    or becomes one in `stored`.

    Examples
    --------
    >>> BaseQuantizer().coder, BaseQuantizer().overload(np.ones((2, 2)))
    (TwoWay(block=1048576), 0)
    """

    components: Any = ()
    """Parts that it is made of, which have kinds of their own."""
    ordered = False
    """Whether codes between two codes decode to what lies between: then centroids may be fitted to the codes."""
    idle_zeros = True
    """Whether blocks whose errors cost nothing (zero pivots) are coded as zeros; else as they are, like all others."""
    steps: Any = None
    """Sizes of cells, rows (or 1) x groups of columns, that may take other values; None where there are none."""
    scaling: Scaling | None = None
    """Step and zero where every code k decodes to (k - zero) * step, and every integer is a code; else None."""
    carried: ClassVar[tuple[str, ...]] = ()
    """Names of fields that a coder may store for it (see `lattq.coding.BaseCoder.carries`) and files give back."""

    @property
    def coder(self) -> Any:
        """An entropy coder of integers around 0."""
        return TwoWay()

    def overload(self, x: Array) -> int:
        """0: no range is covered only in part."""
        return 0

    def in_block(self, start: int, metric: np.ndarray) -> Any:
        """Itself: it does not mind where in its group a block begins, nor what errors in it cost."""
        return self

    def strip(self, strip: Strip) -> int | None:
        """Code a few columns in one go, as `encode` and `decode` would one by one; how many entries were overload.

        None, with nothing done, where the class has no compiled code for it: then they are coded one by one.
        """
        return None

    def in_front(self, rows: np.ndarray, columns: np.ndarray, variance: np.ndarray) -> Any:
        """The quantizer of entries of these rows and columns, one in each row, where weights have these variances.

        Columns are counted in the order of the loop, in its blocks.

        Raises `InvalidInputError` where the class does not say: it may hold numbers of its own for each row or column.
        """
        msg = (
            f"{type(self).__name__} does not say how to code entries of several columns at once, which a metric asks "
            "for whose `outputs` are no diagonal; pass their diagonal, or write `in_front(rows, columns, variance)`"
        )
        raise InvalidInputError(msg)

    def along(self, height: int) -> Any:
        """The quantizer of a matrix that was coded front by front, in groups of so many rows: itself.

        Those whose codes form sequences or points say it to their coder.
        """
        return self

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

    @classmethod
    def stacked(cls, parts: list, height: int) -> Any:
        """One quantizer for rows one below the other, from those of groups of so many rows, for the same columns.

        None where the class does not say how.
        """
        return None

    def packed_form(
        self, codes: np.ndarray, shifts: np.ndarray | None = None
    ) -> NumberForm | TableForm | NestedForm | None:
        """The codes as plain arrays that packed products take; None where there are none.

        `shifts` moves what the codes -K ... K decode to, in cells; only quantizers of ordered codes get one.
        """
        return self.table_form()

    def with_steps(self, steps: np.ndarray) -> Any:
        """The same quantizer with other `steps`; raises `InvalidInputError` for what a file does not hold."""
        raise NotImplementedError

    def table_form(self) -> TableForm | None:
        """The tables that codes are indices into, for exports and least squares; None where there are none."""
        return None

    def with_tables(self, tables: np.ndarray) -> Any:
        """The same quantizer with other entries of `table_form`, rounded as they are stored."""
        raise NotImplementedError


@runtime_checkable
class Design(Protocol):
    """A rule that chooses a quantizer for a group of columns, called when feedback into the group is complete.

    This is what the loop asks; a scheme takes a `BaseDesign`.
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


class BaseDesign:
    """Answers of a design, for classes to inherit; those that are options of a class are fields of it.

    A class of its own writes ``__call__(entries: Entries)``, which returns a quantizer.

    Examples
    --------
    >>> from lattq.quantizers import Entries, UniformQuantizer
    >>> class OneStep(BaseDesign):
    ...     def __call__(self, entries):
    ...         return UniformQuantizer(np.array([[abs(entries.values).max() / 7]]))
    >>> isinstance(OneStep(), Design), OneStep().scale_free
    (True, True)
    """

    group: Any = None
    """Columns per call; None for all columns at once."""
    shrink: Any = False
    """Whether each column's reconstruction is scaled by its LMMSE gain <x, q> / <q, q>."""
    array_generic: Any = False
    """Whether it and its quantizers compute with arrays of any library; else the loop runs in NumPy, on the host."""
    scale_free: Any = True
    """Whether its quantizers follow their targets into any unit: targets times g give reconstructions times g.

    Weights then come to it with a largest magnitude in [1, 2), by a power of two that `quantize` stores, so that
    float16 holds what is in proportion to them. One with numbers in the unit of the weights, as a step is, says False.
    """
    in_rounds: Any = False
    """Whether codes and quantizers may be found again in turns: `rounds` of a scheme."""
    importance: Any = None
    """Weights of squared errors of the entries of the matrix itself, which no transform may move; None for none."""
    sequences: Any = False
    """Whether its codes form sequences or points that a decoder must follow, down the columns or along fronts."""
    slope: Any = 0.0
    """Squared error that a bit is worth: above 0 it trades distortion for bits."""
    sweeps: Any = 0
    """Passes of coordinate descent after the first that recipes take unless they are told otherwise."""

    def __call__(self, entries: Entries) -> Any:
        """The quantizer; raises `InvalidInputError` where the class does not say."""
        msg = f"{type(self).__name__} chooses no quantizer; write `__call__(self, entries)`, which returns one"
        raise InvalidInputError(msg)


@dataclasses.dataclass(frozen=True)
class Given(BaseDesign):
    """Design that returns a quantizer that is known already, for all columns.

    >>> from lattq.quantizers import Entries, UniformQuantizer
    >>> known = UniformQuantizer(np.ones((1, 1)))
    >>> Given(known)(Entries(np.eye(2))) is known
    True
    """

    quantizer: Quantizer
    group: None = None
    shrink: bool = False

    array_generic, scale_free = True, False

    def __call__(self, entries: Entries) -> Quantizer:
        """The quantizer."""
        return self.quantizer
