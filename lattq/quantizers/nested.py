"""Nested lattices along the rows (NestQuant): adjacent columns are a vector, coded at one of a few scales."""

import dataclasses

import numpy as np
from jaxtyping import Float, Int, Num

from lattq import lattices
from lattq._array import Array, array_namespace, from_host, require_finite, short_repr, to_host
from lattq._options import as_flag, as_integer, normalize
from lattq.coding.schema import SCALE, Choice, Integer, Record, Series, checked
from lattq.errors import DamagedFileError, InvalidInputError
from lattq.lattices import NestedCode, VoronoiCode
from lattq.lattices.packing import NestedCoder
from lattq.lattices.voronoi import ANY_NAME, LARGEST, any_named
from lattq.parts import register
from lattq.parts.forms import NestedForm
from lattq.quantizers.base import BaseDesign, BaseQuantizer
from lattq.quantizers.entries import Entries
from lattq.quantizers.integers import check_group, half_precision
from lattq.quantizers.nested_codes import gaussian_scales, rest_code
from lattq.quantizers.nested_form import nested_form
from lattq.quantizers.steps import GROUP, HALVES, HEIGHT, SMALLEST_STEP, alike, half, spread, stored_halves

__all__ = ["Nested", "NestedQuantizer"]

ROUNDING = 1e-9  # coordinates below it, in units of the lattice, are 0 that a frame has rounded


@register("quantizer", "nested")
@short_repr
@dataclasses.dataclass(frozen=True, eq=False)
class NestedQuantizer(BaseQuantizer):
    """Vectors of n adjacent columns as digits of a nested code, times a scale of each row and group.

    Columns are taken `block` at a time, as the feedback does. Of each block, n columns after n columns are a vector;
    fewer than n that are left over are a vector of the cubic lattice, with a cell of the same volume and the same q and
    scales. A code is a digit; that of the first column of a vector is digit + q · index of the scale.

    Lattices of n + 1 coordinates get vectors of n columns in an orthonormal basis of their hyperplane, see
    `VoronoiCode.frame`.

    Attributes
    ----------
    scale : root mean square of each row and group, (rows or 1, groups); 0 decodes to zeros
    code : lattice, q, scales for vectors of unit mean square, and rule
    block : columns that are quantized together
    group : columns per entry of `scale` where there are several
    index : how the coder stores the indices of scales, see `NestedCoder`

    Examples
    --------
    >>> code = NestedCode(VoronoiCode(lattices.D(4), 8), (0.25, 0.5))
    >>> quantizer = NestedQuantizer(np.array([[2.0]]), code, block=5)
    >>> codes = quantizer.encode(np.array([[0.4, -1.8, 2.4, 0.2, -0.8]]))
    >>> codes, quantizer.decode(codes).round(1)  # at the second scale, as 8 is 0 + 1 · 8, then at the first
    (array([[8, 6, 2, 0, 7]], dtype=int32), array([[ 0. , -2. ,  2. ,  0. , -0.6]]))
    """

    scale: Float[Array, "rows groups"]
    code: NestedCode
    block: int
    group: int = 1
    index: str = "coded"

    schema = Record(
        name=ANY_NAME,
        q=Integer(2, LARGEST),
        shaping=Choice("voronoi", "simplified"),
        scales=Series(SCALE, 1, 256),
        rule=Choice("best", "first"),
        block=Integer(1, lambda at: at.columns),
        group=GROUP,
        index=Choice("packed", "raw", "coded"),
        height=HEIGHT,
        values=HALVES,
    )

    @property
    def coder(self) -> NestedCoder:
        """Packs digits, and stores the indices of scales as `index` says."""
        code = self.code.code
        return NestedCoder(code.dimension, code.q, len(self.code.scales), self.block, self.index)

    def encode(self, x: Float[Array, "rows block"]) -> Int[Array, "rows block"]:
        """Codes of the reconstructions that the rule chooses; raises `InvalidInputError` for NaN.

        The search runs on the host.
        """
        require_finite("x", x)
        scaled, codes = self._scaled(x), np.empty(x.shape, dtype=np.int32)
        for part, code in self._parts(x.shape[1]):
            digits, index = code.encode(self._vectors(scaled[:, part], code))
            digits[:, 0] += index * code.code.q
            codes[:, part] = digits.reshape(len(codes), -1)
        return from_host(codes, like=x)

    def decode(self, codes: Num[Array, "rows block"]) -> Float[Array, "rows block"]:
        """Reconstructions, in the dtype of `scale`; raises `InvalidInputError` for points that are no codes."""
        host = to_host(codes)
        if not np.issubdtype(host.dtype, np.integer):
            msg = f"codes of {host.dtype} name no digits; pass integers"
            raise InvalidInputError(msg)
        values = np.empty(host.shape)
        for part, code in self._parts(host.shape[1]):
            digits = host[:, part].reshape(-1, code.code.dimension).astype(np.int32)
            index = digits[:, 0] // code.code.q
            digits[:, 0] %= code.code.q
            vectors = code.decode(digits, index) @ code.code.frame.T
            vectors[np.abs(vectors) < ROUNDING * code.scales[0]] = 0.0  # an LMMSE gain would blow its rounding up
            values[:, part] = vectors.reshape(len(host), -1)
        found = from_host(values, like=codes)
        return array_namespace(codes).astype(found, self.scale.dtype) * spread(self.scale, self.group, codes)

    def check_codes(self, codes: Num[Array, "rows columns"]) -> None:
        """Raise `InvalidInputError` unless all codes are digits, with the index of a scale in the first of a vector."""
        host, q = to_host(codes), self.code.code.q
        first = np.arange(host.shape[1]) % self.block % self.code.code.dimension == 0
        if (host < 0).any() or (host >= np.where(first, q * len(self.code.scales), q)).any():
            msg = f"codes {host.min()} ... {host.max()} are not digits below {q} with {len(self.code.scales)} scales"
            raise InvalidInputError(msg)

    def overload(self, x: Float[Array, "rows block"]) -> int:
        """Entries of vectors that overload at every scale, and so are pulled in."""
        scaled, count = self._scaled(x), 0
        for part, code in self._parts(x.shape[1]):
            vectors = self._vectors(scaled[:, part], code)
            count += code.code.dimension * int(np.sum(code.overload(vectors)))
        return count

    def underflow(self) -> int:
        """Stored scales that float16 holds only as its smallest number."""
        scale = to_host(self.scale)
        return int(np.sum((scale > 0) & (scale <= SMALLEST_STEP)))

    def stored(self) -> "NestedQuantizer":
        """Scales in float16; raises `InvalidInputError` for what is beyond it."""
        scale = half("scale", self.scale, zero=True)
        return self if scale is self.scale else dataclasses.replace(self, scale=scale)

    def packed_form(self, codes: np.ndarray, shifts: np.ndarray | None = None) -> NestedForm:
        """Digits and the matrix that takes them to cosets; raises `InvalidInputError` for others than E8 of odd q."""
        return nested_form(self.code, codes, to_host(self.scale).astype(np.float64), self.block, self.group)

    def _scaled(self, x: Array) -> np.ndarray:
        """Rows over their scales, on the host in float64; zeros where the scale is 0."""
        scale = to_host(spread(self.scale, self.group, x)).astype(np.float64)
        return np.where(scale > 0, to_host(x).astype(np.float64) / np.where(scale > 0, scale, 1.0), 0.0)

    def _vectors(self, x: np.ndarray, code: NestedCode) -> np.ndarray:
        """Vectors in the coordinates of the lattice."""
        return x.reshape(-1, code.code.dimension) @ code.code.frame

    def _parts(self, columns: int) -> list[tuple[slice | np.ndarray, NestedCode]]:
        """Columns of whole vectors and their code, and those left over in blocks and theirs."""
        n, place = self.code.code.dimension, np.arange(columns) % self.block
        left = self.block % n
        whole = place < self.block - left
        parts: list[tuple[slice | np.ndarray, NestedCode]] = []
        if whole.any():
            parts.append((slice(None) if whole.all() else np.flatnonzero(whole), self.code))
        if left and not whole.all():
            parts.append((np.flatnonzero(~whole), rest_code(self.code, left)))
        return parts

    def to_state(self) -> list:
        """Lattice, q, shaping, scales, rule, block, group and row scales as float16, for the container."""
        scale, code = to_host(self.scale), self.code.code
        names = [code.lattice.name, code.q, code.shaping, list(self.code.scales), self.code.rule]
        return [*names, self.block, self.group, self.index, scale.shape[0], scale.astype("<f2").tobytes()]

    @staticmethod
    def from_state(state: list, shape: tuple[int, int]) -> "NestedQuantizer":
        """Inverse of `to_state` for a matrix of this shape, on the host in float64."""
        found = checked(NestedQuantizer.schema, state, "nested quantizer", rows=shape[0], columns=shape[1])
        name, q, shaping, scales, rule, block, group, index, height, values = found
        scale = stored_halves(values, (height, -(-shape[1] // group)), zero=True)
        if shape[1] % block or (group < shape[1] and group % block):
            msg = f"blocks of {block} columns in {shape[1]}, and groups of {group}; the file is damaged"
            raise DamagedFileError(msg)
        code = NestedCode(VoronoiCode(any_named(name), q, shaping), tuple(scales), rule)
        if code.code.dimension > block and block < shape[1]:
            msg = f"vectors of {code.code.dimension} columns in blocks of {block}; the file is damaged"
            raise DamagedFileError(msg)
        return NestedQuantizer(scale, code, block, group, index)

    @classmethod
    def concatenate(cls, parts: "list[NestedQuantizer]", group: int) -> "NestedQuantizer | None":
        """One quantizer for the whole matrix from those of its groups, in column order, on the host in float64."""
        if not alike(parts, ("code", "block", "index")):
            return None
        scale = np.concatenate([to_host(part.scale).astype(np.float64) for part in parts], axis=1)
        return dataclasses.replace(parts[0], scale=scale, group=group)


@dataclasses.dataclass(frozen=True)
class Nested(BaseDesign):
    """Design of nested lattices whose scales for rows are their root mean squares: a fixed rate of about log2 q bits.

    Vectors lie along the rows, where the decoded block meets an inner product. So the feedback has to take a multiple
    of n columns at once, or all: `Cholesky(block=8)`, `OpenLoop(block=8)`. Scales are made for Gaussian numbers: rotate
    the weights first, or leave room with `NESTQUANT_SCALES`.

    Parameters
    ----------
    lattice : of `lattq.lattices`
    q : digits of each dimension
    scales : how many scales, the best for independent Gaussian numbers; or the scales for vectors of unit mean square,
        in rising order
    rule : "best" or "first", see `NestedCode`
    index : how indices of scales are stored, see `NestedCoder`
    shaping : see `VoronoiCode`
    group : columns that share a float16 scale of a row, a multiple of the block and of n; None for whole rows
    shrink : scale each column by its LMMSE gain, inside the loop

    References
    ----------
    Savkin, Porat, Ordentlich, Polyanskiy 2025 (NestQuant).

    Examples
    --------
    >>> from lattq.lattices import E8
    >>> kind = Nested(E8, 14, scales=(0.25, 0.5))
    >>> kind(Entries(np.full((1, 8), 2.0), pivots=np.eye(8)[None])).scale
    array([[2.]])
    """

    lattice: lattices.Lattice = lattices.E8
    q: int = 14
    scales: int | tuple[float, ...] = 4
    rule: str = "best"
    index: str = "coded"
    shaping: str = "voronoi"
    group: int | None = None
    shrink: bool = False

    array_generic = True

    def __post_init__(self) -> None:
        normalize(self, as_integer, "q", optional=("group",))
        normalize(self, as_flag, "shrink")
        check_group(self.group)
        code = VoronoiCode(self.lattice, self.q, self.shaping)
        any_named(self.lattice.name)
        if isinstance(self.scales, tuple | list):
            object.__setattr__(self, "scales", NestedCode(code, tuple(self.scales), self.rule).scales)
        else:
            normalize(self, as_integer, "scales")
            NestedCode(code, (1.0,), self.rule)
            if not 1 <= self._count <= 16:
                msg = f"`scales` is {self.scales}; pass how many, 1 to 16, or the scales themselves"
                raise InvalidInputError(msg)
        NestedCoder(code.dimension, code.q, self._count, code.dimension, self.index)

    @property
    def _count(self) -> int:
        return len(self.scales) if isinstance(self.scales, tuple) else self.scales

    @property
    def code(self) -> NestedCode:
        """The nested code, for vectors of unit mean square."""
        scales = self.scales
        if not isinstance(scales, tuple):
            scales = gaussian_scales(self.lattice, self.q, scales, self.rule, self.index == "coded", self.shaping)
        return NestedCode(VoronoiCode(self.lattice, self.q, self.shaping), scales, self.rule)

    def __call__(self, entries: Entries) -> NestedQuantizer:
        """Scales from the mean squares of the rows of the entries."""
        targets, block, n = entries.values, entries.block, self.lattice.dimension
        part = len(entries.pivots) > 1 or block == self.group  # of the row; a row that is one block may be of any width
        if (block % n and part) or (np.diff(entries.columns.reshape(-1, block), axis=1) != 1).any():
            msg = (
                f"vectors of {n} adjacent columns do not fit blocks of {block} columns in this order; pass feedback "
                f'with block={n} or a multiple of it, and order="natural"'
            )
            raise InvalidInputError(msg)
        xp = array_namespace(targets)
        largest = xp.max(xp.abs(targets), axis=1, keepdims=True)
        unit = targets / xp.where(largest > 0, largest, xp.ones_like(largest))  # squares of tiny targets would be 0
        deviation = xp.astype(largest, xp.float64) * xp.sqrt(
            xp.mean(xp.astype(unit, xp.float64) ** 2, axis=1, keepdims=True)
        )
        scale = xp.astype(half_precision(deviation), targets.dtype) * xp.astype(largest > 0, targets.dtype)
        return NestedQuantizer(scale, self.code, block, index=self.index)
