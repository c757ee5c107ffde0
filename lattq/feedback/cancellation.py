"""What the loop returns."""

import dataclasses
import functools
import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int

from lattq._array import Array, short_repr
from lattq.quantizers.base import Quantizer

__all__ = ["Cancellation"]


@short_repr
@dataclasses.dataclass(frozen=True, eq=False)
class Cancellation:
    """What the loop returns; all arrays in the original column order.

    Attributes
    ----------
    codes : integers, one per weight
    gains : LMMSE gain of each column in 128ths (128 where nothing is shrunk)
    quantizers : the quantizer of each group, in column order
    overload : weights outside the range of their quantizer
    bound : what tr(E Σ Eᵀ) of the errors does not exceed; infinite where the loop has nothing to tell it from

    Examples
    --------
    >>> from lattq.feedback import successive_cancellation
    >>> from lattq.linalg import ldl
    >>> from lattq.quantizers import Uniform
    >>> found = successive_cancellation(np.array([[0.6, 1.2]]), ldl(np.eye(2)), Uniform(1.0))
    >>> found.codes, found.noise.round(1)
    (array([[1, 1]], dtype=int32), array([[-0.4,  0.2]]))
    """

    codes: Int[Array, "rows columns"]
    gains: Int[np.ndarray, " columns"]
    quantizers: list[Quantizer]
    overload: int
    _reconstruct: Callable[[], Array]
    _subtract: Callable[[], Array]
    bound: float = math.inf

    @functools.cached_property
    def reconstruction(self) -> Float[Array, "rows columns"]:
        """Ŵ."""
        return self._reconstruct()

    @functools.cached_property
    def noise(self) -> Float[Array, "rows columns"]:
        """The plain rounding errors target - Ŵ of the last pass; up to the order (W - Ŵ) U, if nothing else moves it.

        What moves it are sweeps and a penalty.
        """
        return self._subtract()
