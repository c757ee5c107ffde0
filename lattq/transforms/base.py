"""What a transform answers beside its maps."""

from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int

from lattq._array import Array, array_namespace, from_host
from lattq.errors import InvalidInputError

__all__ = ["BaseTransform", "Divisors", "Transform"]


class Divisors(NamedTuple):
    """What an inverse divides columns by, and then rows; None for 1.

    >>> Divisors(np.array([2.0])).after(Divisors(rows=np.array([4.0])))
    Divisors(columns=array([2.]), rows=array([4.]))
    """

    columns: Float[np.ndarray, " columns"] | None = None
    rows: Float[np.ndarray, " rows"] | None = None

    def after(self, other: "Divisors | None") -> "Divisors | None":
        """Both divisions, these first; None where that is not columns and then rows, once each."""
        if other is None or (self.rows is not None and any(one is not None for one in other)):
            return None
        if self.columns is not None and other.columns is not None:
            return None
        columns = self.columns if other.columns is None else other.columns
        return Divisors(columns, self.rows if other.rows is None else other.rows)


@runtime_checkable
class Transform(Protocol):
    """An invertible map of input coordinates."""

    def forward(self, weight: Array) -> Array:
        """W T⁻¹."""
        ...

    def inverse(self, weight: Array) -> Array:
        """W T; undoes `forward`."""
        ...

    def congruence(self, sigma: np.ndarray) -> np.ndarray:
        """T Σ Tᵀ, the second moment of the transformed inputs."""
        ...


class BaseTransform:
    """Answers of a transform that most do not need to give themselves, for classes to inherit and to override.

    A class of its own writes `forward`, `inverse` and `congruence` (see `Transform`), and for files
    ``to_state() -> list`` and a static ``from_state(state, columns)``, which reads it with `lattq.coding.schema`, and
    registers itself: `lattq.register`. Arrays are of any library, and come back in their own and in their dtype.

    Examples
    --------
    >>> class Reversed(BaseTransform):
    ...     def forward(self, weight):
    ...         return weight[:, ::-1]
    ...     inverse = forward
    ...     def congruence(self, sigma):
    ...         return sigma[::-1, ::-1]
    >>> Reversed().split()[0] is None
    True
    """

    components: Any = ()
    """Parts that it is made of, which have kinds of their own."""
    plain = False
    """Whether what is stored are the weights as they are used: there is nothing to undo."""
    keeps_entries = False
    """Whether all entries stay in their places and in their unit, though some may leave the matrix."""
    exponents: Int[np.ndarray, " n"] | None = None
    """k where the transform multiplies columns by 2^(k/16): it tells coders how the codes of columns scale."""

    divisors: Divisors | None = None
    """What `inverse` divides columns by, and then rows, where that is all it does; None where it does other things."""

    def output_congruence(self, outputs: np.ndarray) -> np.ndarray:
        """Blocks of the metric of the outputs, in the coordinates of the transformed weight: as they are.

        Transforms that scale rows say otherwise.
        """
        return outputs

    row_factors: Float[np.ndarray, " rows"] | None = None
    """What `inverse` multiplies rows by, before or after all that it does to columns; None for 1."""

    def on_inputs(self, x: Array) -> Array:
        """T x for rows x: what vectors become before products with the transformed weights.

        Raises `InvalidInputError` where the class does not say.
        """
        msg = f"{self!r} is not known to act on vectors; write `on_inputs(x)` in {type(self).__name__}"
        raise InvalidInputError(msg)

    def inverse_on_inputs(self, x: Array) -> Array:
        """T⁻¹ x for rows x: undoes `on_inputs`, by a dense matrix unless the class knows better.

        Raises `InvalidInputError` where `on_inputs` does.
        """
        self.on_inputs(x)  # refuses what it does not know
        inverse: Any = self.forward(np.eye(x.shape[-1]))  # pyright: ignore[reportAttributeAccessIssue]
        xp = array_namespace(x)
        return xp.matmul(x, xp.astype(from_host(np.ascontiguousarray(inverse.T), like=x), x.dtype))

    def operations(self, columns: int) -> int:
        """Multiplications and additions with one vector that `on_inputs` takes, a pair counted once.

        Those of a dense matrix unless the class knows better; a power of two or another order costs none.
        """
        return columns * columns

    def kept(self, shape: tuple[int, int], found: Any = None) -> Any:
        """Which entries of the transformed matrix count, from which counted before; None where all do.

        Sparse parts replace entries, which then do not count. Maps that mix columns make all of them count.
        """
        return None

    def split(self) -> tuple[Any, Any]:
        """The sparse part that is undone last, or None, and the transform of what is left."""
        return None, self

    def check_rows(self, rows: int) -> None:
        """Raise `InvalidInputError` unless the transform belongs to a matrix of so many rows; to any."""
