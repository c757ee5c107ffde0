"""One number that scales a whole matrix: what formats with scales of little range need first."""

import dataclasses
import math
from typing import Any

import numpy as np

from lattq._array import Array, array_namespace
from lattq._options import as_float, normalize
from lattq.coding.damage import reading
from lattq.coding.schema import Integer, Octets, Record, checked
from lattq.errors import InvalidInputError, shown
from lattq.parts import register
from lattq.transforms.base import BaseTransform

__all__ = ["LARGEST", "Gain", "Normalize", "to_unit"]

LARGEST = 2688.0  # of NVFP4: the largest number of E2M1 times that of E4M3

LARGEST_EXPONENT = 400  # squares of numbers so scaled, times second moments of any sensible unit, are within float64
EXPONENT = Integer(-LARGEST_EXPONENT, LARGEST_EXPONENT)


@register("transform", "gain")
@dataclasses.dataclass(frozen=True)
class Gain(BaseTransform):
    """The weight times one positive number, inputs divided by it.

    A power of two is charged as its exponent, a byte or two; others are rounded to float32, and charged as that.

    >>> Gain(2.0).forward(np.ones((1, 2)))
    array([[2., 2.]])
    """

    scale: float

    schema = Record(scale=Octets(4))

    def __post_init__(self) -> None:
        normalize(self, as_float, "scale")
        if self.exponent is not None:
            return
        with np.errstate(over="ignore"):
            rounded = float(np.float32(self.scale))
        if not 0.0 < rounded < np.inf:
            msg = f"`scale` is {self.scale}; a gain is a positive number within float32, or a power of two"
            raise InvalidInputError(msg)
        object.__setattr__(self, "scale", rounded)

    @property
    def exponent(self) -> int | None:
        """k where the scale is 2^k, within ± `LARGEST_EXPONENT`, else None."""
        if not 0.0 < self.scale < np.inf:
            return None
        fraction, exponent = math.frexp(self.scale)
        return exponent - 1 if fraction == 0.5 and abs(exponent - 1) <= LARGEST_EXPONENT else None

    def forward(self, weight: Array) -> Array:
        """Weight times scale."""
        return _times_power(weight, self.exponent) if self.exponent is not None else weight * self.scale

    def inverse(self, weight: Array) -> Array:
        """Weight divided by scale."""
        return _times_power(weight, -self.exponent) if self.exponent is not None else weight / self.scale

    def congruence(self, sigma: np.ndarray) -> np.ndarray:
        """Second moment divided by the square of scale."""
        return sigma / self.scale / self.scale

    def kept(self, shape: tuple[int, int], found: Any = None) -> Any:
        """As before: no entry is moved."""
        return found

    def on_inputs(self, x: Array) -> Array:
        """As `inverse`: a diagonal is its own transpose."""
        return self.inverse(x)

    def inverse_on_inputs(self, x: Array) -> Array:
        """As `forward`."""
        return self.forward(x)

    def operations(self, columns: int) -> int:
        """None for a power of two, which steps carry; else one for each column."""
        return 0 if self.exponent is not None else columns

    def to_state(self) -> list:
        """The exponent of a power of two, or the scale as float32."""
        if self.exponent is not None:
            return [self.exponent]
        return [np.float32(self.scale).astype("<f4").tobytes()]

    @staticmethod
    def from_state(state: list, size: int) -> "Gain":
        """Inverse of `to_state`."""
        if type(state) is list and state and type(state[0]) is int:
            return Gain.power_of_two(*checked(Record(exponent=EXPONENT), state, "gain"))
        (data,) = checked(Gain.schema, state, "gain")
        with reading("a gain"):
            return Gain(float(np.frombuffer(data, dtype="<f4")[0]))

    @staticmethod
    def power_of_two(exponent: int) -> "Gain":
        """The gain 2^exponent; raises `InvalidInputError` for an exponent beyond `LARGEST_EXPONENT`."""
        if not (type(exponent) is int and abs(exponent) <= LARGEST_EXPONENT):
            msg = f"`exponent` is {shown(exponent)}; a power of two has an integer within ± {LARGEST_EXPONENT}"
            raise InvalidInputError(msg)
        return Gain(math.ldexp(1.0, exponent))


def to_unit(weight: Array) -> Gain:
    """The power of two that takes the largest magnitude of the weight into [1, 2); 1 for a weight of zeros.

    Then numbers in float16 have 14 octaves of full precision below it and as many above for what feedback adds, and
    weights in another unit give the same codes (theory 2.9).

    Raises `InvalidInputError` for a weight so small or large that squares leave float64.

    >>> to_unit(np.array([[0.5, -3.0]]))
    Gain(scale=0.5)
    """
    xp = array_namespace(weight)
    found = float(xp.max(xp.abs(weight)))
    exponent = math.frexp(found)[1] - 1 if found > 0.0 else 0
    if abs(exponent) > LARGEST_EXPONENT:
        msg = f"the largest magnitude of `weight` is {found:.3g}; multiply the weights by a constant first"
        raise InvalidInputError(msg)
    return Gain.power_of_two(-exponent)


def _times_power(x: Array, exponent: int) -> Array:
    """x 2^exponent, in two steps, as the power itself may be beyond the dtype of x."""
    half = exponent // 2
    return x * math.ldexp(1.0, half) * math.ldexp(1.0, exponent - half)


@dataclasses.dataclass(frozen=True)
class Normalize:
    """Design of the gain that takes the largest magnitude of the weight to `largest`.

    NVFP4 takes it to 448 · 6 = 2688: then no plain scale of a block is beyond E4M3.

    >>> Normalize(6.0)(np.array([[0.5, -3.0]]), np.eye(2))
    Gain(scale=2.0)
    """

    largest: float = LARGEST

    def __post_init__(self) -> None:
        normalize(self, as_float, "largest")
        if not 0.0 < self.largest < np.inf:
            msg = f"`largest` is {self.largest}; pass a finite number above zero"
            raise InvalidInputError(msg)

    def __call__(self, weight: Array, sigma: np.ndarray) -> Gain:
        """The gain; 1 for a weight of zeros."""
        xp = array_namespace(weight)
        found = float(xp.max(xp.abs(weight)))
        try:
            return Gain(self.largest / found if found > 0.0 else 1.0)
        except InvalidInputError:
            msg = (
                f"the largest magnitude of `weight` is {found:.3g}, and no gain within float32 takes it to "
                f"{self.largest:g}; multiply the weights by a constant first"
            )
            raise InvalidInputError(msg) from None
