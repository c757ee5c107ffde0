"""Voronoi codes (Conway and Sloane 1983): the cosets of qΛ in a lattice Λ, at exactly log2 q bits per dimension."""

import dataclasses
import functools
import math
import re

import numpy as np
from jaxtyping import Bool, Float, Int, UInt

from lattq._array import Array, array_namespace, as_reals, from_host, require_integers, to_host
from lattq._options import among, as_integer, normalize
from lattq.coding.packing import pack, unpack
from lattq.coding.schema import Text
from lattq.errors import InvalidInputError, shown
from lattq.lattices import catalogue
from lattq.lattices.lattice import Lattice
from lattq.lattices.shaping import simplified
from lattq.lattices.words import LARGEST_DIMENSION, NAME, named

__all__ = ["ANY_NAME", "VoronoiCode", "any_named"]

LARGEST = 256
ANY_NAME = Text(NAME.pattern + r"|(A|A_dual)\([1-9]\d?\)")


@dataclasses.dataclass(frozen=True)
class VoronoiCode:
    """The q^n cosets of Λ / qΛ, each with a leader: its point nearest to 0.

    A point c G, with G the generator and c integers, has the digits c mod q. The leader of digits c is c G - q f(c G /
    q), where f finds the nearest point. Leaders fill q times the Voronoi cell of Λ; points beyond it come back as the
    leaders of their cosets, which is called overload.

    Ties are decided alike everywhere: f sees c G moved by a fixed small vector. Integer coordinates have integer
    squared distances, and the vector changes no difference of two of them by more than a half; its entries are powers
    of a transcendental number, so that no difference of points is orthogonal to it.

    Parameters
    ----------
    lattice : any lattice here; those of n + 1 coordinates, `A` and `A_dual`, have n digits
    q : digits of each dimension, 2 to 256
    shaping : "voronoi"; or "simplified", whose f repairs a wrong parity at the first coordinate instead of the best one
        (for Z, D, E8 and A). Leaders then fill a cell of the same volume that is less round.

    Examples
    --------
    >>> from lattq.lattices import D
    >>> code = VoronoiCode(D(4), 5)
    >>> digits = code.encode(np.array([0.9, -1.2, 3.1, 0.8]))
    >>> digits, code.decode(digits)
    (array([4, 4, 3, 1], dtype=int32), array([ 1., -1.,  3.,  1.]))
    """

    lattice: Lattice
    q: int
    shaping: str = "voronoi"

    def __post_init__(self) -> None:
        if not isinstance(self.lattice, Lattice):
            msg = f"`lattice` is {shown(self.lattice)}; pass one of `lattq.lattices`, such as E8"
            raise InvalidInputError(msg)
        normalize(self, as_integer, "q")
        if not 2 <= self.q <= LARGEST:
            msg = f"`q` is {self.q}; a Voronoi code here has 2 to {LARGEST} digits in each dimension"
            raise InvalidInputError(msg)
        if not among(self.shaping, ("voronoi", "simplified")):
            msg = f'`shaping` is {shown(self.shaping)}; choose "voronoi" or "simplified"'
            raise InvalidInputError(msg)
        if self.shaping == "simplified":
            simplified(self.lattice.name)
        basis = self.lattice.integer_scale * self.lattice.generator
        if np.abs(basis - np.rint(basis)).max() > 1e-9:
            msg = f"the generator of {self.lattice.name} has no integer coordinates; take one of `lattq.lattices`"
            raise InvalidInputError(msg)

    @property
    def dimension(self) -> int:
        """Digits of a vector."""
        return self.lattice.dimension

    @property
    def rate(self) -> float:
        """Bits per dimension."""
        return math.log2(self.q)

    @functools.cached_property
    def basis(self) -> Int[np.ndarray, "n dim"]:
        """The generator in integer coordinates."""
        return np.rint(self.lattice.integer_scale * self.lattice.generator).astype(np.int64)

    @functools.cached_property
    def frame(self) -> Float[np.ndarray, "n dim"]:
        """Orthonormal rows that span the lattice: vectors of n numbers times these have its coordinates.

        The identity where there are as many coordinates as dimensions.
        """
        generator = self.lattice.generator
        if generator.shape[0] == generator.shape[1]:
            return np.eye(len(generator))
        return np.linalg.solve(np.linalg.cholesky(generator @ generator.T), generator)

    @functools.cached_property
    def inverse(self) -> Float[np.ndarray, "dim n"]:
        """From integer coordinates of points to c; exact when rounded, below the 2^29 that a search allows."""
        return np.linalg.pinv(self.basis.astype(np.float64))

    @functools.cached_property
    def offset(self) -> Float[np.ndarray, " dim"]:
        """The vector that decides ties."""
        size = self.basis.shape[1]
        direction = np.exp(-np.arange(size) / size)
        deepest = self.lattice.covering_radius * self.lattice.integer_scale
        return direction / np.linalg.norm(direction) / (8 * self.q * deepest)

    def encode(self, x: Float[Array, "*batch dim"]) -> Int[Array, "*batch n"]:
        """Digits (int32) of the nearest lattice point; raises `InvalidInputError` as `Lattice.nearest`."""
        return self.digits(self._nearest(x))

    def decode(self, digits: Int[Array, "*batch n"]) -> Float[Array, "*batch dim"]:
        """Leaders, in float64."""
        xp = array_namespace(digits)
        return xp.astype(self.leaders(digits), xp.float64) / self.lattice.integer_scale

    def overload(self, x: Float[Array, "*batch dim"]) -> Bool[Array, "*batch"]:
        """Whether the nearest lattice point of each vector is not the leader of its coset."""
        points = self._nearest(x)
        return array_namespace(points).any(points != self.leaders(self.digits(points)), axis=-1)

    def digits(self, points: Int[Array, "*batch dim"]) -> Int[Array, "*batch n"]:
        """Digits of lattice points in integer coordinates."""
        xp = array_namespace(points)
        inverse = from_host(self.inverse, like=points)
        whole = xp.round(xp.matmul(xp.astype(points, xp.float64), inverse))
        return xp.astype(whole - self.q * xp.floor(whole / self.q), xp.int32)

    def leaders(self, digits: Int[Array, "*batch n"]) -> Int[Array, "*batch dim"]:
        """Leaders in integer coordinates: int32, `integer_scale` times what `decode` returns."""
        self._check(digits)
        xp = array_namespace(digits)
        points = xp.matmul(xp.astype(digits, xp.float64), from_host(self.basis.astype(np.float64), like=digits))
        moved = (points + from_host(self.offset, like=digits)) / self.q
        shape = self.lattice.nearest_integer if self.shaping == "voronoi" else simplified(self.lattice.name)
        return xp.astype(points, xp.int32) - self.q * shape(moved)

    def to_index(self, digits: Int[Array, "*batch n"]) -> UInt[np.ndarray, "*batch"]:
        """Numbers 0 ... q^n - 1 whose digits in base q these are, the first lowest; on the host.

        Raises
        ------
        InvalidInputError : for digits that are not of this code, or if q^n is above 2^64
        """
        self._check(digits)
        self._check_index()
        found = np.zeros(digits.shape[:-1], dtype=np.uint64)
        for column in range(self.dimension - 1, -1, -1):
            found = found * np.uint64(self.q) + to_host(digits)[..., column].astype(np.uint64)
        return found

    def from_index(self, index: Int[np.ndarray, "*batch"] | UInt[np.ndarray, "*batch"]) -> Int[np.ndarray, "*batch n"]:
        """Inverse of `to_index`; raises `InvalidInputError` for a number that is none."""
        self._check_index()
        left = np.asarray(index)
        require_integers("index", left)
        if left.size and not 0 <= int(left.min()) <= int(left.max()) < self.q**self.dimension:
            msg = f"`index` holds {left.min()} ... {left.max()}; this code has {self.q**self.dimension} leaders"
            raise InvalidInputError(msg)
        left = left.astype(np.uint64)
        digits = np.empty((*left.shape, self.dimension), dtype=np.int32)
        for column in range(self.dimension):
            left, digits[..., column] = np.divmod(left, np.uint64(self.q))
        return digits

    def pack(self, digits: Int[Array, "*batch n"]) -> bytes:
        """Digits in words of up to eight bytes, see `lattq.coding.packing.pack`."""
        self._check(digits)
        return pack(to_host(digits).ravel().astype(np.int64), self.q)

    def unpack(self, data: bytes, count: int) -> Int[np.ndarray, "count n"]:
        """Inverse of `pack` for this many vectors; raises `DamagedFileError`."""
        return unpack(data, self.q, count * self.dimension).astype(np.int32).reshape(count, self.dimension)

    def _nearest(self, x: Array) -> Array:
        """Nearest points in integer coordinates."""
        return self.lattice.nearest_integer(as_reals("x", x) * self.lattice.integer_scale)

    def _check(self, digits: Array) -> None:
        """Raise `InvalidInputError` for what are no digits."""
        require_integers("digits", digits)
        xp = array_namespace(digits)
        if digits.ndim < 1 or digits.shape[-1] != self.dimension:
            msg = f"`digits` have shape {tuple(digits.shape)}; pass (..., {self.dimension}) for {self.lattice.name}"
            raise InvalidInputError(msg)
        if math.prod(digits.shape) and not (int(xp.min(digits)) >= 0 and int(xp.max(digits)) < self.q):
            msg = f"`digits` hold {int(xp.min(digits))} ... {int(xp.max(digits))}; they are 0 ... {self.q - 1}"
            raise InvalidInputError(msg)

    def _check_index(self) -> None:
        """Raise `InvalidInputError` unless an index fits 64 bits."""
        if self.q**self.dimension > 2**64:
            msg = f"{self.q}^{self.dimension} leaders do not fit 64 bits; pack the digits instead"
            raise InvalidInputError(msg)


def any_named(name: str) -> Lattice:
    """The lattice of this name, those of n + 1 coordinates included.

    >>> any_named("A(2)"), any_named("E8")
    (Lattice(A(2)), Lattice(E8))
    """
    found = re.fullmatch(r"(A|A_dual)\((\d{1,2})\)", name)
    if not found or int(found[2]) > LARGEST_DIMENSION:
        return named(name)
    return getattr(catalogue, found[1])(int(found[2]))
