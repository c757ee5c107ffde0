"""Invertible maps of an activation, as they act on the layers around it: made from arrays, checked against a place.

Each is two actions on matrices whose rows are channels: `left`, which multiplies by T, and that of its `dual` T⁻ᵀ. A
layer with more channels than the map has, such as queries and outputs of grouped attention, takes a copy for each head
of a group. Torch differentiates through both.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from lattq._array import Array, as_array, epsilon, host_reals, require_integers, to_host
from lattq.errors import InvalidInputError
from lattq.llm.source.place import STRUCTURES, Place

__all__ = ["Blocks", "Diagonal", "Map", "Order", "centred", "map_of"]


class Diagonal(NamedTuple):
    """One number for each channel.

    >>> Diagonal(torch.tensor([[2.0, 4.0]])).dual.scale
    tensor([[0.5000, 0.2500]])
    """

    scale: Float[Tensor, "heads size"]

    def left(self, x: Float[Tensor, "rows columns"]) -> Float[Tensor, "rows columns"]:
        """T x."""
        scale = self.scale.to(x)
        copies = len(x) // scale.numel()
        return x * scale.repeat_interleave(copies, dim=0).reshape(-1, 1)

    @property
    def dual(self) -> "Diagonal":
        """T⁻ᵀ."""
        return Diagonal(1 / self.scale)

    @property
    def transposed(self) -> "Diagonal":
        """Tᵀ, which is T."""
        return self


class Blocks(NamedTuple):
    """One matrix for each head, and its inverse.

    >>> Blocks(2 * torch.eye(2)[None], 0.5 * torch.eye(2)[None]).left(torch.ones(4, 1)).ravel()
    tensor([2., 2., 2., 2.])
    """

    matrix: Float[Tensor, "heads size size"]
    inverse: Float[Tensor, "heads size size"]

    def left(self, x: Float[Tensor, "rows columns"]) -> Float[Tensor, "rows columns"]:
        """T x."""
        matrix = self.matrix.to(x)
        heads, size = matrix.shape[:2]
        copies = len(x) // (heads * size)
        parts = x.reshape(heads, copies, size, -1)
        return (matrix[:, None] @ parts).reshape(x.shape)

    @property
    def dual(self) -> "Blocks":
        """T⁻ᵀ."""
        return Blocks(self.inverse.mT, self.matrix.mT)

    @property
    def transposed(self) -> "Blocks":
        """Tᵀ."""
        return Blocks(self.matrix.mT, self.inverse.mT)


class Order(NamedTuple):
    """A permutation: x → x[order].

    >>> Order(torch.tensor([1, 0])).left(torch.tensor([[3.0], [4.0]])).ravel()
    tensor([4., 3.])
    """

    order: Int[Tensor, " n"]

    def left(self, x: Float[Tensor, "rows columns"]) -> Float[Tensor, "rows columns"]:
        """T x."""
        return x[self.order.to(x.device)]

    @property
    def dual(self) -> "Order":
        """T⁻ᵀ, which is T."""
        return self

    @property
    def transposed(self) -> "Order":
        """Tᵀ."""
        return Order(self.order.argsort())


Map = Diagonal | Blocks | Order


def map_of(place: Place, structure: str, values: Any) -> Map:
    """The map of a structure at a place, in float64.

    Parameters
    ----------
    place : of a model
    structure : one of `place.structures`
    values : array of numbers: `channels` for "diagonal", "positive" and "permutation", `heads × size × size` for
        "heads", complex or real `heads × pairs` for "rotary", real `pairs` for "pairs", `channels × channels` for
        rotations

    Raises
    ------
    InvalidInputError : for a structure that is not exact at the place, another shape, numbers that are not finite,
        zeros in a diagonal, a singular matrix, one that is not orthogonal, and what is no permutation

    Examples
    --------
    >>> from lattq.llm.source.place import Location, Site
    >>> place = Place("hidden", ("diagonal",), (), (), heads=1, size=2)
    >>> map_of(place, "diagonal", np.array([2.0, 4.0]))
    Diagonal(scale=tensor([[2., 4.]], dtype=torch.float64))
    """
    if structure not in place.structures:
        what = STRUCTURES.get(structure, "unknown")
        msg = f"`structure` is {structure!r} ({what}); exact at {place.name} are {', '.join(place.structures)}"
        raise InvalidInputError(msg)
    return _MAKERS[structure](place, structure, values)


def centred(rotation: Float[Array, "n n"]) -> Float[np.ndarray, "n n"]:
    """A rotation followed by the reflection that takes R 1 back to 1: what LayerNorm lets through.

    LayerNorm subtracts the mean, the part along the vector of ones, which only a map that keeps this vector leaves
    alone. To subtract the mean in the layers before, as SliceGPT (arXiv 2401.15024) does, helps where the class of the
    norm may become RMSNorm; a LayerNorm would subtract it once more, along ones again.

    >>> found = centred(np.array([[0.6, -0.8], [0.8, 0.6]]))
    >>> np.allclose(found @ np.ones(2), 1), np.allclose(found @ found.T, np.eye(2))
    (True, True)
    """
    matrix = host_reals("rotation", rotation)
    ones = np.full(len(matrix), len(matrix) ** -0.5)
    axis = matrix @ ones - ones
    length = axis @ axis
    return matrix if length == 0 else matrix - np.outer(axis, 2 / length * (axis @ matrix))


def _diagonal(place: Place, structure: str, values: Any) -> Diagonal:
    scale = _nonzero(structure, _shaped(structure, host_reals(structure, values), (place.channels,)))
    return Diagonal(torch.from_numpy(scale.reshape(place.heads, place.size)))


def _positive(place: Place, structure: str, values: Any) -> Diagonal:
    scale = _diagonal(place, structure, values)
    if not (scale.scale > 0).all():
        msg = f"`{structure}` holds {float(scale.scale.min()):.3g}; {place.name} lets positive numbers through alone"
        raise InvalidInputError(msg)
    return scale


def _permutation(place: Place, structure: str, values: Any) -> Order:
    if place.per_head:
        msg = f'`{structure}` of {place.name} would leave its heads; pass matrices of permutations as "heads"'
        raise InvalidInputError(msg)
    require_integers(structure, values)
    order = _shaped(structure, to_host(as_array(structure, values)).astype(np.int64), (place.channels,))
    if not np.array_equal(np.sort(order), np.arange(place.channels)):
        msg = f"`{structure}` is no order of 0, ..., {place.channels - 1}: it holds {len(np.unique(order))} numbers"
        raise InvalidInputError(msg)
    return Order(torch.from_numpy(order))


def _heads(place: Place, structure: str, values: Any) -> Blocks:
    shape = (place.heads, place.size, place.size)
    matrix = _shaped(structure, host_reals(structure, values), shape)
    for head, one in enumerate(matrix):
        condition = np.linalg.cond(one, 1)
        if not condition < 1 / (place.size * epsilon(matrix)):
            msg = (
                f"`{structure}` is singular at head {head} (condition number {condition:.3g}); pass invertible matrices"
            )
            raise InvalidInputError(msg)
    return Blocks(torch.from_numpy(matrix), torch.from_numpy(np.linalg.inv(matrix)))


def _rotary(place: Place, structure: str, values: Any) -> Blocks:
    """Pair i of a head is its channels i and i + pairs, as one complex number; channels behind the pairs stay."""
    numbers = as_array(structure, values)
    parts = [getattr(to_host(numbers), part) for part in ("real", "imag")]
    shape = (place.heads, place.pairs)
    real, imag = (_shaped(structure, host_reals(structure, part), shape) for part in parts)
    number = _nonzero(structure, real + 1j * imag)
    first = np.arange(place.pairs)
    second = first + place.pairs

    def matrix(number: np.ndarray) -> Tensor:
        found = np.tile(np.eye(place.size), (place.heads, 1, 1))
        found[:, first, first] = found[:, second, second] = np.real(number)
        found[:, second, first], found[:, first, second] = np.imag(number), -np.imag(number)
        return torch.from_numpy(found)

    return Blocks(matrix(number), matrix(1 / number))


def _pairs(place: Place, structure: str, values: Any) -> Diagonal:
    numbers = _nonzero(structure, _shaped(structure, host_reals(structure, values), (place.pairs,)))
    rest = np.ones(place.size - 2 * place.pairs)
    return Diagonal(torch.from_numpy(np.concatenate([numbers, numbers, rest])[None]))


def _rotation(place: Place, structure: str, values: Any) -> Blocks:
    n = place.channels
    matrix = _shaped(structure, host_reals(structure, values), (n, n))
    error = np.abs(matrix @ matrix.T - np.eye(n)).max()
    if error > n * epsilon(as_array(structure, values)):
        msg = f"`{structure}` is not orthogonal: R Rᵀ differs from the identity by {error:.2g}; orthogonalize it"
        raise InvalidInputError(msg)
    return Blocks(torch.from_numpy(matrix[None]), torch.from_numpy(matrix.T[None].copy()))


def _centred_rotation(place: Place, structure: str, values: Any) -> Blocks:
    found = _rotation(place, structure, values)
    ones = found.matrix[0].sum(dim=1)
    error = float((ones - ones.mean().sign()).abs().max())
    if error > place.channels * epsilon(as_array(structure, values)):
        msg = (
            f"`{structure}` maps the vector of ones to another (off by {error:.2g}), so that LayerNorm would subtract "
            "another mean; pass it through `lattq.llm.tune.maps.centred`"
        )
        raise InvalidInputError(msg)
    return found


_MAKERS: dict[str, Callable[[Place, str, Any], Map]] = {
    "diagonal": _diagonal,
    "positive": _positive,
    "permutation": _permutation,
    "heads": _heads,
    "rotary": _rotary,
    "pairs": _pairs,
    "rotation": _rotation,
    "centred_rotation": _centred_rotation,
}


def _shaped(name: str, values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if values.shape != shape:
        msg = f"`{name}` has shape {values.shape}; this place takes {shape}"
        raise InvalidInputError(msg)
    return values


def _nonzero(name: str, values: np.ndarray) -> np.ndarray:
    """The values, each of which has an inverse that float64 holds."""
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        wrong = np.argwhere(~np.isfinite(1 / values))
    if len(wrong):
        at = tuple(int(i) for i in wrong[0])
        msg = f"`{name}` holds {values[at]} at index {at}; it must be invertible, so no number may be 0"
        raise InvalidInputError(msg)
    return values
