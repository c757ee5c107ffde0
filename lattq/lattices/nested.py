"""A Voronoi code at several scales: the small one for most vectors, the large ones for what lies beyond (NestQuant)."""

import dataclasses
import math
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from lattq._array import Array, array_namespace, as_reals, from_host, require_finite, require_integers, to_host
from lattq._options import among, as_float, as_integer, normalize
from lattq.errors import InvalidInputError, shown
from lattq.lattices.voronoi import VoronoiCode

__all__ = ["NESTQUANT_SCALES", "NestedCode", "NestedFigures", "cell_dither"]

PULLS = 32

# Published with q = 14 and E8 for vectors of unit mean square, as multiples of 1 / q.
NESTQUANT_SCALES = {
    "weights": (4.0, 5.5, 7.0, 18.0),
    "activations": (3.47, 4.74, 6.90, 18.11),
    "keys": (3.50, 4.58, 6.47, 17.06),
    "values": (3.53, 5.59, 9.62, 29.03),
}


@dataclasses.dataclass(frozen=True)
class NestedFigures:
    """What a nested code makes of a sample.

    Attributes
    ----------
    distortion : squared error per dimension
    shares : of the vectors at each scale
    index_bits : entropy of the index of the scale, bits per vector
    overload : share of the vectors that overload at the scale they have
    rate, coded_rate : bits per dimension with a raw index, and with one that is coded at its entropy

    Examples
    --------
    >>> NestedFigures(0.25, (1.0,), 0.0, 0.0, 1.5, 1.5).gap()
    0.5
    """

    distortion: float
    shares: tuple[float, ...]
    index_bits: float
    overload: float
    rate: float
    coded_rate: float

    def gap(self, variance: float = 1.0, *, coded: bool = True) -> float:
        """Bits per dimension above the rate–distortion function of a Gaussian of this variance."""
        return (self.coded_rate if coded else self.rate) - 0.5 * math.log2(variance / self.distortion)


@dataclasses.dataclass(frozen=True)
class NestedCode:
    """Vectors as digits of a Voronoi code times one of a few scales.

    At scale b a vector x becomes the leader of the coset of Q(x / b), times b. The index of the scale is stored. A
    vector that overloads at all scales would come back anywhere; at the last scale it is first pulled towards 0, in
    steps of a 32nd of its length, until it fits.

    Parameters
    ----------
    code : the Voronoi code
    scales : in rising order, in units of the vectors; NestQuant's are `NESTQUANT_SCALES` / q
    rule : "best" takes the scale with the least error, and may overload; "first" the smallest scale that does not
        overload, or the last
    dither : seed of a subtractive dither, uniform in the cell, another for each vector of an array; None without

    Examples
    --------
    >>> from lattq.lattices import E8
    >>> code = NestedCode(VoronoiCode(E8, 14), tuple(b / 14 for b in NESTQUANT_SCALES["weights"]))
    >>> x = np.random.default_rng(0).standard_normal((1000, 8))
    >>> digits, index = code.encode(x)
    >>> bool(np.mean((x - code.decode(digits, index)) ** 2) < 0.0075)
    True
    """

    code: VoronoiCode
    scales: tuple[float, ...]
    rule: str = "best"
    dither: int | None = None

    def __post_init__(self) -> None:
        if np.ndim(self.scales) != 1:
            msg = f"`scales` is {shown(self.scales)}; pass a tuple of numbers"
            raise InvalidInputError(msg)
        object.__setattr__(self, "scales", tuple(as_float("scales", scale) for scale in self.scales))
        normalize(self, as_integer, optional=("dither",))
        rising = all(one < two for one, two in zip(self.scales[:-1], self.scales[1:], strict=True))
        if not self.scales or not self.scales[0] > 0 or not self.scales[-1] < math.inf or not rising:
            msg = f"`scales` are {self.scales}; pass positive finite numbers in rising order"
            raise InvalidInputError(msg)
        if len(self.scales) > 256:
            msg = f"`scales` are {len(self.scales)}; an index takes at most 256"
            raise InvalidInputError(msg)
        if not among(self.rule, ("best", "first")):
            msg = f'`rule` is {shown(self.rule)}; choose "best" or "first"'
            raise InvalidInputError(msg)
        if self.dither is not None and self.dither < 0:
            msg = f"`dither` is {self.dither}; a seed is at least 0"
            raise InvalidInputError(msg)

    def encode(self, x: Float[Array, "*batch dim"]) -> tuple[Int[Array, "*batch n"], Int[Array, "*batch"]]:
        """Digits, and indices of scales, both int32; raises `InvalidInputError` for NaN or another shape."""
        digits, errors, overload = self.trials(x)
        xp = array_namespace(digits)
        if self.rule == "best":
            index = xp.argmin(errors, axis=0)
        else:
            fits = xp.astype(~overload, xp.int32)
            last = xp.full_like(fits[0, ...], len(self.scales) - 1)
            index = xp.where(xp.any(~overload, axis=0), xp.astype(xp.argmax(fits, axis=0), xp.int32), last)
        index = xp.astype(index, xp.int32)
        found = digits[0, ...]
        for place in range(1, len(self.scales)):
            found = xp.where((index == place)[..., None], digits[place, ...], found)
        return found, index

    def decode(self, digits: Int[Array, "*batch n"], index: Int[Array, "*batch"]) -> Float[Array, "*batch dim"]:
        """Reconstructions, in float64; raises `InvalidInputError` for what is no code."""
        require_integers("index", index)
        if index.shape != digits.shape[:-1]:
            msg = (
                f"`index` has shape {tuple(index.shape)}, `digits` {tuple(digits.shape)}; pass an index for each vector"
            )
            raise InvalidInputError(msg)
        xp = array_namespace(digits)
        last = len(self.scales) - 1
        if math.prod(index.shape) and not (int(xp.min(index)) >= 0 and int(xp.max(index)) <= last):
            msg = f"`index` holds {int(xp.min(index))} ... {int(xp.max(index))}; scales are 0 ... {last}"
            raise InvalidInputError(msg)
        points = self.code.decode(digits)
        scales = from_host(np.array(self.scales)[to_host(index)], like=digits)
        return (points - self._dithers(points)) * scales[..., None]

    def overload(self, x: Float[Array, "*batch dim"]) -> Bool[Array, "*batch"]:
        """Whether a vector overloads at every scale."""
        overload = self.trials(x)[2]
        return array_namespace(overload).all(overload, axis=0)

    def trials(self, x: Float[Array, "*batch dim"]) -> tuple[Array, Array, Array]:
        """Digits, squared errors and overload at each scale; scales come first."""
        x = as_reals("x", x)
        require_finite("x", x)
        xp = array_namespace(x)
        x = xp.astype(x, xp.float64)
        shift = self._dithers(x)
        found = [trial(self.code, x, scale, shift) for scale in self.scales]
        digits, errors, overload = (xp.stack(list(part)) for part in zip(*found, strict=True))
        digits[-1, ...], errors[-1, ...] = pulled(self.code, x, self.scales[-1], found[-1], shift)
        return digits, errors, overload

    def measure(self, x: Float[Array, "count dim"]) -> NestedFigures:
        """Distortion and rates for a sample; raises `InvalidInputError` for one without vectors.

        >>> from lattq.lattices import Z
        >>> NestedCode(VoronoiCode(Z(1), 4), (1.0,)).measure(np.array([[0.5], [3.0]])).distortion
        2.125
        """
        if not len(x):
            msg = f"`x` has shape {tuple(x.shape)}; pass at least one vector"
            raise InvalidInputError(msg)
        _, errors, overload = (to_host(part) for part in self.trials(x))
        index = to_host(self.encode(x)[1])
        chosen = index[None, :]
        shares = np.bincount(index, minlength=len(self.scales)) / len(index)
        bits, n = entropy_bits(shares), self.code.dimension
        return NestedFigures(
            float(np.take_along_axis(errors, chosen, axis=0).mean()) / n,
            tuple(shares.tolist()),
            bits,
            float(np.take_along_axis(overload, chosen, axis=0).mean()),
            self.code.rate + math.log2(len(self.scales)) / n,
            self.code.rate + bits / n,
        )

    def _dithers(self, like: Array) -> Any:
        """A vector of the cell for each vector, in units of the lattice."""
        if self.dither is None:
            return 0.0
        count = math.prod(like.shape[:-1])
        found = cell_dither(self.code.lattice, self.dither, count).reshape(tuple(like.shape))
        return from_host(found, like=like)


def trial(code: VoronoiCode, x: Array, scale: float, shift: Any = 0.0) -> tuple[Array, Array, Array]:
    """Digits, squared errors and overload of vectors at one scale, dithered by `shift`.

    >>> from lattq.lattices import Z
    >>> trial(VoronoiCode(Z(1), 4), np.array([[3.0]]), 1.0)[1:]
    (array([16.]), array([ True]))
    """
    xp = array_namespace(x)
    lattice = code.lattice
    points = lattice.nearest_integer((x / scale + shift) * lattice.integer_scale)
    digits = code.digits(points)
    leaders = code.leaders(digits)
    found = (xp.astype(leaders, xp.float64) / lattice.integer_scale - shift) * scale
    return digits, xp.sum((x - found) ** 2, axis=-1), xp.any(points != leaders, axis=-1)


def pulled(
    code: VoronoiCode, x: Array, scale: float, found: tuple[Array, Array, Array], shift: Any = 0.0
) -> tuple[Array, Array]:
    """Digits and squared errors of a trial, with vectors that overload pulled towards 0 until they fit.

    >>> from lattq.lattices import Z
    >>> code, x = VoronoiCode(Z(1), 4), np.array([[3.0]])
    >>> pulled(code, x, 1.0, trial(code, x, 1.0))
    (array([[1]], dtype=int32), array([4.]))
    """
    xp = array_namespace(x)
    digits, errors, overload = found
    if not bool(xp.any(overload)):
        return digits, errors
    left, offset = x[overload], shift if isinstance(shift, float) else shift[overload]
    codes, still = digits[overload], overload[overload]
    for step in range(1, PULLS + 1):
        closer, _, beyond = trial(code, left * (1 - step / PULLS), scale, offset)
        codes = xp.where(still[:, None], closer, codes)
        still = still & beyond
        if not bool(xp.any(still)):
            break
    points = xp.astype(code.leaders(codes), xp.float64) / code.lattice.integer_scale
    digits, errors = xp.asarray(digits, copy=True), xp.asarray(errors, copy=True)
    digits[overload] = codes
    errors[overload] = xp.sum((left - (points - offset) * scale) ** 2, axis=-1)
    return digits, errors


def cell_dither(lattice: Any, seed: int, count: int) -> Float[np.ndarray, "count dim"]:
    """Vectors uniform in the Voronoi cell of a lattice: those uniform in a cell of its basis, less their nearest point.

    >>> from lattq.lattices import Z
    >>> bool(np.abs(cell_dither(Z(1), 0, 100)).max() <= 0.5)
    True
    """
    inside = np.random.default_rng(seed).random((count, lattice.dimension)) @ lattice.generator
    return inside - lattice.nearest(inside)


def entropy_bits(shares: np.ndarray) -> float:
    """Entropy of frequencies that sum to 1.

    >>> entropy_bits(np.array([0.5, 0.5, 0.0]))
    1.0
    """
    positive = shares[shares > 0]
    return float(-(positive @ np.log2(positive))) + 0.0
