"""Hierarchical nested codes (Kaplan and Ordentlich 2025): layers of a small Voronoi code, with tables of products."""

import dataclasses
import functools

import numpy as np
from jaxtyping import Bool, Float, Int

from lattq._array import Array, array_namespace, host_reals
from lattq._options import as_integer, normalize
from lattq.errors import InvalidInputError
from lattq.lattices.lattice import Lattice
from lattq.lattices.voronoi import VoronoiCode

__all__ = ["HierarchicalCode"]

LARGEST_TABLE = 2**24


@dataclasses.dataclass(frozen=True)
class HierarchicalCode:
    """M layers of the Voronoi code of ratio q: rate M log2 q, with codebooks of q^n leaders.

    The nearest point g is split as r_0 + q r_1 + ... + q^(M-1) r_(M-1): r is the leader of the coset of g, and g turns
    into (g - r) / q, M times. What is then left is 0 unless the point overloads. An inner product of two codes is a sum
    of M² products of leaders, so that one table of q^(2n) integers serves all layers.

    Parameters
    ----------
    lattice : see `VoronoiCode`
    q : digits of each dimension and layer; below 8 the range that layers span is ragged, and costs 0.13 bit and more
    layers : M, 1 or more
    shaping : see `VoronoiCode`

    References
    ----------
    Kaplan, Ordentlich 2025, "High-rate nested-lattice quantized matrix multiplication with small lookup tables".

    Examples
    --------
    >>> from lattq.lattices import D
    >>> code = HierarchicalCode(D(4), 4, 2)
    >>> x = np.array([[3.9, -1.2, 3.1, 0.8], [0.2, 2.1, 0.9, -1.1]])
    >>> layers = code.encode(x)
    >>> code.decode(layers)[0], code.decode(layers, drop=1)[0]
    (array([ 4., -2.,  3.,  1.]), array([4., 0., 4., 0.]))
    >>> float(code.products(layers[0], layers[1]))
    -2.0
    """

    lattice: Lattice
    q: int
    layers: int
    shaping: str = "voronoi"

    def __post_init__(self) -> None:
        normalize(self, as_integer, "q", "layers")
        VoronoiCode(self.lattice, self.q, self.shaping)
        if not 1 <= self.layers <= 16 or self.q**self.layers > 2**16:
            msg = f"`layers` is {self.layers}; pass 1 or more, with {self.q}^layers up to 65536"
            raise InvalidInputError(msg)

    @functools.cached_property
    def code(self) -> VoronoiCode:
        """The code of each layer."""
        return VoronoiCode(self.lattice, self.q, self.shaping)

    @property
    def dimension(self) -> int:
        """Digits of a vector in each layer."""
        return self.lattice.dimension

    @property
    def rate(self) -> float:
        """Bits per dimension."""
        return self.layers * self.code.rate

    def encode(self, x: Float[Array, "*batch dim"]) -> Int[Array, "*batch layers n"]:
        """Digits (int32), the finest layer first; raises `InvalidInputError` as `Lattice.nearest`."""
        return self._split(x)[0]

    def overload(self, x: Float[Array, "*batch dim"]) -> Bool[Array, "*batch"]:
        """Whether the layers of a vector do not add up to its nearest point."""
        left = self._split(x)[1]
        return array_namespace(left).any(left != 0, axis=-1)

    def decode(self, digits: Int[Array, "*batch layers n"], drop: int = 0) -> Float[Array, "*batch dim"]:
        """Points, in float64; without the `drop` finest layers, coarser ones."""
        xp = array_namespace(digits)
        return xp.astype(self.points(digits, drop), xp.float64) / self.lattice.integer_scale

    def points(self, digits: Int[Array, "*batch layers n"], drop: int = 0) -> Int[Array, "*batch dim"]:
        """The same in integer coordinates, int32; raises `InvalidInputError` for other digits or more layers."""
        self._check(digits, drop)
        leaders = self.code.leaders(digits)
        found = leaders[..., drop, :] * self.q**drop
        for layer in range(drop + 1, self.layers):
            found = found + leaders[..., layer, :] * self.q**layer
        return found

    @functools.cached_property
    def table(self) -> Int[np.ndarray, "leaders leaders"]:
        """Inner products of all leaders in integer coordinates; raises `InvalidInputError` for more than 2^24."""
        self._require_table(2)
        leaders = self._all_leaders().astype(np.int32)
        return leaders @ leaders.T

    def products(
        self, x: Int[Array, "*batch layers n"], y: Int[Array, "*batch layers n"], drop: int = 0
    ) -> Float[np.ndarray, "*batch"]:
        """Inner products of decoded points, from the table, on the host: exact integers over `integer_scale` squared.

        Without the `drop` finest layers of both.
        """
        self._check(x, drop)
        self._check(y, drop)
        one, other = self.code.to_index(x).astype(np.int64), self.code.to_index(y).astype(np.int64)
        try:
            found = np.zeros(np.broadcast_shapes(one.shape, other.shape)[:-1], dtype=np.int64)
        except ValueError:
            msg = (
                f"`x` {tuple(x.shape)} and `y` {tuple(y.shape)} do not broadcast; pass as many vectors of each, or one"
            )
            raise InvalidInputError(msg) from None
        for i in range(drop, self.layers):
            for j in range(drop, self.layers):
                found += self.q ** (i + j) * self.table[one[..., i], other[..., j]].astype(np.int64)
        return np.asarray(found / self.lattice.integer_scale**2)

    def query(self, y: Float[Array, " dim"]) -> Float[np.ndarray, " leaders"]:
        """Inner products of one real vector with all leaders, for `query_products`."""
        self._require_table(1)
        host = host_reals("y", y)
        if host.shape != (self.lattice.generator.shape[1],):
            msg = f"`y` has shape {host.shape}; a query is one vector of {self.lattice.generator.shape[1]} numbers"
            raise InvalidInputError(msg)
        return self._all_leaders() @ host / self.lattice.integer_scale

    def query_products(
        self, x: Int[Array, "*batch layers n"], table: Float[np.ndarray, " leaders"], drop: int = 0
    ) -> Float[np.ndarray, "*batch"]:
        """Inner products of decoded points and the vector of a `query`: one look-up for each layer.

        Raises `InvalidInputError` for a table of another code.

        >>> from lattq.lattices import Z
        >>> code = HierarchicalCode(Z(1), 4, 2)
        >>> code.query_products(code.encode(np.array([[5.0], [-3.0]])), code.query(np.array([2.0])))
        array([10., -6.])
        """
        self._check(x, drop)
        if table.shape != (self.q**self.dimension,):
            msg = (
                f"`table` has shape {table.shape}; pass the {self.q**self.dimension} numbers of a `query` of this code"
            )
            raise InvalidInputError(msg)
        index = self.code.to_index(x).astype(np.int64)
        found = np.zeros(index.shape[:-1])
        for layer in range(self.layers - 1, drop - 1, -1):
            found = found * self.q + table[index[..., layer]]
        return np.asarray(found * float(self.q) ** drop)

    def _split(self, x: Array) -> tuple[Array, Array]:
        """Digits of each layer, and what is left."""
        points, digits = self.lattice.nearest_integer(x * self.lattice.integer_scale), []
        xp = array_namespace(points)
        for _ in range(self.layers):
            digits.append(self.code.digits(points))
            points = (points - self.code.leaders(digits[-1])) // self.q
        return xp.stack(digits, axis=-2), points

    def _all_leaders(self) -> np.ndarray:
        return self.code.leaders(self.code.from_index(np.arange(self.q**self.dimension)))

    def _require_table(self, sides: int) -> None:
        size = self.q ** (self.dimension * sides)
        if size > LARGEST_TABLE:
            msg = f"a table of {self.q}^{self.dimension * sides} = {size} products is beyond 2^24; take a smaller `q`"
            raise InvalidInputError(msg)

    def _check(self, digits: Array, drop: int) -> None:
        if digits.ndim < 2 or digits.shape[-2] != self.layers:
            msg = f"`digits` have shape {tuple(digits.shape)}; pass (..., {self.layers}, {self.dimension})"
            raise InvalidInputError(msg)
        if not 0 <= as_integer("drop", drop) < self.layers:
            msg = f"`drop` is {drop}; of {self.layers} layers 0 to {self.layers - 1} can be dropped"
            raise InvalidInputError(msg)
