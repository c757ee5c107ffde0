"""One number that scales a whole matrix: what formats with scales of little range need first."""

import dataclasses

import numpy as np

from lattq._array import Array, array_namespace
from lattq._options import as_float, normalize
from lattq.errors import DamagedFileError, InvalidInputError
from lattq.parts import register
from lattq.transforms.base import BaseTransform

__all__ = ["Gain", "Normalize"]


@register("transform", "gain")
@dataclasses.dataclass(frozen=True)
class Gain(BaseTransform):
    """The weight times one positive number, inputs divided by it; rounded to float32, and charged as that.

    >>> Gain(2.0).forward(np.ones((1, 2)))
    array([[2., 2.]])
    """

    scale: float

    def __post_init__(self) -> None:
        normalize(self, as_float, "scale")
        with np.errstate(over="ignore"):
            rounded = float(np.float32(self.scale))
        if not 0.0 < rounded < np.inf:
            msg = f"`scale` is {self.scale}; a gain is a positive number within float32"
            raise InvalidInputError(msg)
        object.__setattr__(self, "scale", rounded)

    def forward(self, weight: Array) -> Array:
        """Weight times scale."""
        return weight * self.scale

    def inverse(self, weight: Array) -> Array:
        """Weight divided by scale."""
        return weight / self.scale

    def congruence(self, sigma: np.ndarray) -> np.ndarray:
        """Second moment divided by the square of scale."""
        return sigma / self.scale / self.scale

    def on_inputs(self, x: Array) -> Array:
        """As `inverse`: a diagonal is its own transpose."""
        return self.inverse(x)

    def to_state(self) -> list:
        """The scale as float32."""
        return [np.float32(self.scale).astype("<f4").tobytes()]

    @staticmethod
    def from_state(state: list, size: int) -> "Gain":
        """Inverse of `to_state`."""
        if len(state[0]) != 4:
            msg = f"a gain of {len(state[0])} bytes, not 4; the file is damaged"
            raise DamagedFileError(msg)
        return Gain(float(np.frombuffer(state[0], dtype="<f4")[0]))


@dataclasses.dataclass(frozen=True)
class Normalize:
    """Design of the gain that takes the largest magnitude of the weight to `largest`.

    NVFP4 takes it to 448 · 6 = 2688: then no scale of a block is beyond E4M3.

    >>> Normalize(6.0)(np.array([[0.5, -3.0]]), np.eye(2))
    Gain(scale=2.0)
    """

    largest: float = 2688.0

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
