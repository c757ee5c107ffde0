"""The randomized Hadamard rotation as a transform."""

import dataclasses

import numpy as np

from lattq._array import Array
from lattq._options import as_integer, normalize
from lattq.coding.schema import Integer, Record, checked
from lattq.errors import DamagedFileError, InvalidInputError
from lattq.linalg.hadamard import hadamard_additions, has_hadamard_matrix, randomized_hadamard
from lattq.parts import register
from lattq.transforms.base import BaseTransform

__all__ = ["Hadamard"]


@register("transform", "hadamard")
@dataclasses.dataclass(frozen=True)
class Hadamard(BaseTransform):
    """Random signs, then a Hadamard matrix over √n: an orthogonal map that makes columns alike.

    Raises `InvalidInputError` where no Hadamard matrix of that size is known.

    >>> rotation = Hadamard(seed=1)
    >>> bool(abs(rotation.inverse(rotation.forward(np.eye(4))) - np.eye(4)).max() < 1e-15)
    True
    """

    seed: int = 0

    schema = Record(seed=Integer(0, (1 << 64) - 1))

    def __post_init__(self) -> None:
        normalize(self, as_integer, "seed")
        if not 0 <= self.seed < 2**64:
            msg = f"`seed` is {self.seed}; a seed is an integer of at least 0 and below 2^64"
            raise InvalidInputError(msg)

    def __call__(self, weight: Array, sigma: np.ndarray) -> "Hadamard":
        """Itself: the data do not matter. Raises `InvalidInputError` if there is no rotation of that size."""
        self.forward(sigma[:1])
        return self

    def forward(self, weight: Array) -> Array:
        """Rows rotated."""
        return randomized_hadamard(weight, self.seed)

    def inverse(self, weight: Array) -> Array:
        """Rows rotated back."""
        return randomized_hadamard(weight, self.seed, inverse=True)

    def congruence(self, sigma: np.ndarray) -> np.ndarray:
        """Rows and columns rotated."""
        rotated = self.forward(self.forward(sigma).T)
        return (rotated + rotated.T) / 2

    def on_inputs(self, x: Array) -> Array:
        """As `forward`: the map is orthogonal, so that rows times the inverse are rows times the transpose."""
        return self.forward(x)

    def inverse_on_inputs(self, x: Array) -> Array:
        """As `inverse`."""
        return self.inverse(x)

    def operations(self, columns: int) -> int:
        """Additions of the fast transform: m - 1 + k for each of m 2^k columns."""
        return columns * hadamard_additions(columns)

    def to_state(self) -> list:
        """The seed."""
        return [self.seed]

    @staticmethod
    def from_state(state: list, size: int) -> "Hadamard":
        """Inverse of `to_state`."""
        if not has_hadamard_matrix(size):
            msg = f"a rotation of {size} columns, for which no Hadamard matrix is known; the file is damaged"
            raise DamagedFileError(msg)
        return Hadamard(*checked(Hadamard.schema, state, "rotation"))
