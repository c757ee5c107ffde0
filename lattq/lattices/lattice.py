"""A lattice as a value: its constants, its points nearest to given vectors, its shells."""

import dataclasses
import importlib
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from lattq import bounds
from lattq._array import Array, array_namespace, as_reals, to_host
from lattq._options import as_integer
from lattq.errors import InvalidInputError
from lattq.lattices.series import Series

__all__ = ["Lattice"]

BLOCK = 2**22  # numbers in the largest temporary array
LARGEST = {"float32": 2.0**20, "float64": 2.0**29}  # integer coordinates beyond lose their fractions, or overflow


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Lattice:
    """A lattice, its constants, and its point nearest to any vector.

    Ties are decided so that ``nearest(x + p) == nearest(x) + p`` for every lattice point p, wherever x + p is exact in
    the dtype: floor(x) is reduced by a lattice point in integer arithmetic, the remainder decoded, and that point added
    again. Vectors that differ by a lattice point leave the same remainder. This is exact for `nearest_integer`, and for
    `nearest` if points are exact in the dtype: not for BW16, Leech24 and most `A_dual`, whose scales are not dyadic.

    Attributes
    ----------
    name : "E8", "D(4)", ...; lattices are equal if their names are
    generator : rows are basis vectors; one column more than rows for `A` and `A_dual`, whose coordinates sum to zero
    volume : of a cell, in the units of the points
    nsm : normalised second moment, also called quantizer constant or G: squared error per dimension of a cell of unit
        volume, 1/12 for cubes; None where unknown. All are exact but that of Leech24, 0.0657523 ± 0.0000011 (one
        standard error) from a simulation of 30 million vectors; `measure_nsm` estimates it for any lattice
    covering_radius : distance of the deepest hole from the points around it
    packing_radius : half the least distance of two points
    kissing_number : how many points are at that distance from a point
    integer_scale : this times a lattice point is a vector of integers
    leader : the lattice point that reduces a vector of integers, in integer coordinates
    decode : the lattice point nearest to a remainder, in integer coordinates
    series : counts points by squared norm, in integer coordinates
    kernel : name of the compiled form, a module of `lattq.kernels`, which NumPy arrays take; None for no such form
    temporaries : numbers that `decode` holds at a time for one vector

    Examples
    --------
    >>> from lattq.lattices import E8
    >>> E8.nearest(np.array([0.4, 0.6, 0.5, 0.5, 0.5, 0.3, -0.4, -0.7]))
    array([ 0.5,  0.5,  0.5,  0.5,  0.5,  0.5, -0.5, -0.5])
    >>> E8.kissing_number, E8.volume, round(E8.nsm, 7), round(E8.space_filling_gap, 4)
    (240, 1.0, 0.0716821, 0.146)
    """

    name: str
    generator: np.ndarray
    volume: float
    nsm: float | None
    covering_radius: float
    packing_radius: float
    kissing_number: int
    integer_scale: float
    leader: Callable[[Any], Any]
    decode: Callable[[Any], Any]
    series: Series
    kernel: str | None = None
    temporaries: int = 64

    def __post_init__(self) -> None:
        self.generator.setflags(write=False)

    def __repr__(self) -> str:
        return f"Lattice({self.name})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Lattice) and self.name == other.name

    def __hash__(self) -> int:
        return hash(self.name)

    @property
    def dimension(self) -> int:
        """Number of basis vectors."""
        return len(self.generator)

    @property
    def space_filling_gap(self) -> float | None:
        """Bits per dimension above the rate–distortion function at high rate, theory (1.16); None where unknown."""
        return None if self.nsm is None else bounds.space_filling_gap(self.nsm)

    def theta(self, count: int) -> dict[float, int]:
        """Number of points on each of the first `count` shells, by squared norm.

        Examples
        --------
        >>> from lattq.lattices import Leech24
        >>> Leech24.theta(3)
        {0.0: 1, 4.0: 196560, 6.0: 16773120}
        """
        count = as_integer("count", count)
        if count < 1:
            msg = f"`count` is {count}; ask for at least one shell"
            raise InvalidInputError(msg)
        limit, found = 2, []
        while len(found) < count:
            limit *= 2
            found = [(norm, points) for norm, points in enumerate(self.series.shells(limit)) if points]
        square = round(self.integer_scale**2)
        return {norm / square: points for norm, points in found[:count]}

    def nearest(self, x: Float[Array, "*batch dim"]) -> Float[Array, "*batch dim"]:
        """The lattice point nearest to each vector, in the dtype of `x` (float32 for narrower ones).

        Arrays of any library; for `A` and `A_dual` any vector is first projected on the sum zero.

        Raises
        ------
        InvalidInputError : for another number of coordinates, or values that are not finite or above 2^20 (float32)
            or 2^29 (float64) in integer coordinates
        """
        x = self._checked(x)
        if isinstance(x, np.ndarray) and self.kernel:
            return self._compiled(x, self.integer_scale, np.empty(x.shape, dtype=x.dtype))
        point = self._generic(x * self.integer_scale)
        return array_namespace(x).astype(point, x.dtype) / self.integer_scale

    def nearest_integer(self, x: Float[Array, "*batch dim"]) -> Int[Array, "*batch dim"]:
        """The same in integer coordinates: `x` and the points are multiplied by `integer_scale`; int32.

        Raises
        ------
        InvalidInputError : as `nearest`

        Examples
        --------
        >>> from lattq.lattices import D
        >>> D(3).nearest_integer(np.array([0.9, 0.2, 0.4]))
        array([1, 0, 1], dtype=int32)
        """
        x = self._checked(x)
        if isinstance(x, np.ndarray) and self.kernel:
            return self._compiled(x, 1.0, np.empty(x.shape, dtype=np.int32))
        return self._generic(x)

    def _checked(self, x: Array) -> Array:
        """Float32 or float64 vectors of the right length."""
        x, width = as_reals("x", x), self.generator.shape[1]
        if x.ndim < 1 or x.shape[-1] != width:
            msg = f"`x` has shape {tuple(x.shape)}; points of {self.name} have {width} coordinates: pass (..., {width})"
            raise InvalidInputError(msg)
        return x

    def _compiled(self, x: np.ndarray, scale: float, out: np.ndarray) -> np.ndarray:
        """Points in coordinates divided by `scale`, by the kernel."""
        native = importlib.import_module(f"lattq.kernels.{self.kernel}")  # numba takes most of a second to import
        largest = LARGEST[x.dtype.name]
        rows = np.ascontiguousarray(x).reshape(-1, x.shape[-1])
        if not native.nearest(rows, x.dtype.type(scale), x.dtype.type(largest), out.reshape(rows.shape)):
            raise self._too_large(x * x.dtype.type(scale), largest)
        return out

    def _generic(self, x: Array) -> Array:
        """Points in integer coordinates, by the two steps, block by block."""
        xp = array_namespace(x)
        largest = LARGEST[to_host(x[..., :0]).dtype.name]
        if not bool(xp.all(xp.abs(x) <= largest)):
            raise self._too_large(x, largest)
        count, rows = math.prod(x.shape[:-1]), max(1, BLOCK // self.temporaries)
        flat = xp.reshape(x, (count, x.shape[-1]))
        starts = range(0, max(1, count), rows)
        blocks = [self._reduced(flat[i : min(i + rows, count), :]) for i in starts]
        return xp.reshape(xp.concat(blocks, axis=0), x.shape)

    def _reduced(self, x: Array) -> Array:
        """Leader plus decoded remainder."""
        xp = array_namespace(x)
        leader = self.leader(xp.astype(xp.floor(x), xp.int32))
        return leader + self.decode(x - xp.astype(leader, x.dtype))

    def _too_large(self, x: Array, largest: float) -> InvalidInputError:
        """What to say of the first entry that is not finite or too large."""
        host = to_host(x)
        index = tuple(int(i) for i in np.argwhere(~(np.abs(host) <= largest))[0])
        msg = (
            f"`x` holds {host[index]} at index {index}, in integer coordinates; pass finite values up to {largest:.0f}"
        )
        return InvalidInputError(msg)
