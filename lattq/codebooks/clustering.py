"""What a clustering is, and the checks its functions share."""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from lattq._array import Array, as_floats, from_host, host_reals, short_repr, to_host
from lattq._options import as_integer
from lattq.errors import InvalidInputError

__all__ = ["Clustering", "at_least_one", "check_size", "check_weights", "different_rows", "finite_floats"]


@short_repr
@dataclasses.dataclass(frozen=True, eq=False)
class Clustering:
    """A codebook and which of its entries each sample takes.

    Attributes
    ----------
    centroids : entries in float64; sorted where they are numbers
    assignment : index of the entry of each sample, int32
    distortion : weighted mean squared error per number, not per vector; one for each row where rows have own codebooks
    history : distortion at each iteration; none where no iteration was needed
    excess : proven bound on how far `distortion` is above the least possible, 0 up to rounding for an exact solution;
        None where nothing is known

    Examples
    --------
    >>> from lattq.codebooks import kmeans_1d
    >>> found = kmeans_1d(np.array([0.0, 1.0, 5.0, 6.0]), 2)
    >>> found.decode()
    array([0.5, 0.5, 5.5, 5.5])
    """

    centroids: Float[Array, "*rows size"] | Float[Array, "size dimension"]
    assignment: Int[Array, "*shape"]
    distortion: Any
    history: tuple[float, ...] = ()
    excess: Any = None

    def decode(self) -> Float[Array, "..."]:
        """The entry of each sample, in the library of the input."""
        centroids, indices = to_host(self.centroids), to_host(self.assignment)
        if indices.ndim == 2:  # a codebook for each row
            return from_host(np.take_along_axis(centroids, indices, axis=1), like=self.centroids)
        return from_host(centroids[indices], like=self.centroids)


def finite_floats(name: str, x: Array) -> np.ndarray:
    """A host array of finite real floating-point numbers, at least one."""
    host = to_host(as_floats(name, x))
    if host.size == 0:
        msg = f"`{name}` has shape {host.shape}; there is nothing to fit"
        raise InvalidInputError(msg)
    return host


def check_size(name: str, size: Any, most: int, what: str) -> int:
    """`size` as an integer from 1 to `most`, the number of `what`."""
    found = as_integer(name, size)
    if not 1 <= found <= most:
        msg = f"`{name}` is {found}; give 1 to {most}, the number of {what}"
        raise InvalidInputError(msg)
    return found


def at_least_one(name: str, value: Any) -> int:
    """`value` as an integer above zero."""
    found = as_integer(name, value)
    if found < 1:
        msg = f"`{name}` is {found}; give an integer of at least 1"
        raise InvalidInputError(msg)
    return found


def check_weights(weights: Array, shape: tuple[int, ...]) -> np.ndarray:
    """Positive finite weights of this shape, in float64; those of one row serve all."""
    host = host_reals("weights", weights)
    if host.shape not in (shape, shape[-1:]):
        msg = f"`weights` has shape {host.shape}; the samples have {shape}"
        raise InvalidInputError(msg)
    if not host.min() > 0:
        index = tuple(int(i) for i in np.argwhere(host <= 0)[0])
        msg = f"`weights` holds {host[index]} at index {index}; leave such samples out, or give them a small weight"
        raise InvalidInputError(msg)
    return np.broadcast_to(host, shape)


def different_rows(x: np.ndarray, enough: int) -> int:
    """How many rows differ, counted up to `enough`; the first rows are looked at first."""
    some = len(np.unique(x[: 16 * enough], axis=0))
    return enough if some >= enough else min(enough, len(np.unique(x, axis=0)))
