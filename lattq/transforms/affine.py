"""Any invertible matrix as a transform, dense or block-diagonal, and the designs that find it in closed form.

Whoever decodes needs T only, x → T x and Ŵ → Ŵ T; the encoder solves with it. So T is rounded to its stored form first,
and the inverse taken of that: rounding makes the map another one, a little less good, but never inexact.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float

from lattq._array import Array, array_namespace, from_host, host_reals, short_repr, to_host
from lattq._options import as_float, as_integer, as_seed, normalize
from lattq.affine.closed_forms import as_map, balanced, wush
from lattq.coding.damage import reading
from lattq.coding.schema import Either, Integer, Octets, Record, checked
from lattq.errors import InvalidInputError
from lattq.parts import register
from lattq.transforms.base import BaseTransform
from lattq.transforms.gain import EXPONENT, LARGEST_EXPONENT, to_unit

__all__ = ["WUSH", "Affine", "Balanced"]

DTYPES = {"int8": "i1", "float16": "<f2", "float32": "<f4"}
INTEGER_BITS = 6  # the largest magnitude is an integer from 64 to 127


@register("transform", "affine")
@short_repr
@dataclasses.dataclass(frozen=True, eq=False)
class Affine(BaseTransform):
    """An invertible matrix T, dense or the blocks of a block-diagonal one: inputs become T x, the weight W T⁻¹.

    Stored and charged as int8, float16 or float32 numbers times one power of two, `block` of them for each column;
    `Fixed(affine, folded=True)` leaves it to its owner. Eight bits are enough for `WUSH`.

    Parameters
    ----------
    blocks : T, (n, n), or its diagonal blocks, (blocks, size, size); rounded to `dtype` at once
    dtype : of the stored numbers

    Raises
    ------
    InvalidInputError : for NaN, shapes that are no square blocks, another dtype; once the inverse is wanted, if T as
        it is stored is singular

    Examples
    --------
    >>> shear = Affine(np.array([[1.0, 0.5], [0.0, 1.0]]))
    >>> shear.forward(np.array([[1.0, 1.0]])), shear.on_inputs(np.array([[1.0, 2.0]]))
    (array([[1. , 0.5]]), array([[2., 2.]]))
    >>> Affine.of(np.diag([2.0, 1.0])).forward(np.ones((1, 2)))
    array([[2., 1.]])
    """

    blocks: Float[np.ndarray, "..."]
    dtype: str = "float16"

    schema = Record(
        block=Integer(1, lambda at: at.columns),
        exponent=EXPONENT,
        blocks=Either(*(Octets(lambda at, w=width: w * at.columns * at.block) for width in (4, 2, 1))),
    )

    def __post_init__(self) -> None:
        _check_dtype(self.dtype)
        given = host_reals("blocks", self.blocks)
        if given.ndim not in (2, 3) or given.shape[-1] != given.shape[-2] or 0 in given.shape:
            msg = f"`blocks` has shape {given.shape}; pass a square matrix, or (blocks, size, size)"
            raise InvalidInputError(msg)
        given = given.reshape(-1, *given.shape[-2:])
        object.__setattr__(self, "blocks", _rounded(given, self.dtype))

    @staticmethod
    def of(matrix: Float[Array, "_ _"], block: int | None = None, dtype: str = "float16") -> "Affine":
        """The transform of a map of `lattq.affine`, W → W Aᵀ: T = A⁻ᵀ; `block` says how wide its diagonal blocks are.

        Raises `InvalidInputError` for a singular A, or one with entries outside of the blocks.
        """
        shape = tuple(getattr(matrix, "shape", ()))
        new = as_map(matrix, shape[0] if shape else 0)
        size = len(new) if block is None else as_integer("block", block)
        if size < 1 or len(new) % size:
            msg = f"`block` is {size}, which does not divide the {len(new)} columns of `matrix`; choose a divisor"
            raise InvalidInputError(msg)
        runs = [slice(start, start + size) for start in range(0, len(new), size)]
        parts = np.stack([new[run, run] for run in runs])
        if np.count_nonzero(parts) != np.count_nonzero(new):
            msg = f"`matrix` has entries outside of its diagonal blocks of `block` = {size}; pass block=None"
            raise InvalidInputError(msg)
        return Affine(np.linalg.inv(parts).swapaxes(1, 2), dtype)

    @property
    def columns(self) -> int:
        """Of the weights."""
        return self.blocks.shape[0] * self.blocks.shape[1]

    @functools.cached_property
    def inverses(self) -> Float[np.ndarray, "blocks size size"]:
        """T⁻¹ of every block, float64; raises `InvalidInputError` where T as it is stored is singular."""
        with np.errstate(all="ignore"):
            condition = float(np.linalg.cond(self.blocks, 1).max())
        if not condition < 1.0 / np.finfo(np.float64).eps:
            msg = (
                f"T of {self.columns} columns has condition {condition:.3g} as it is stored in {self.dtype}; damp what "
                "it was made from, or store float32 numbers"
            )
            raise InvalidInputError(msg)
        return np.linalg.inv(self.blocks)

    def forward(self, weight: Array) -> Array:
        """W T⁻¹."""
        return self._times(weight, self.inverses)

    def inverse(self, weight: Array) -> Array:
        """W T."""
        return self._times(weight, self.blocks)

    def congruence(self, sigma: np.ndarray) -> np.ndarray:
        """T Σ Tᵀ."""
        moved = self.on_inputs(self.on_inputs(sigma).T)
        return (moved + moved.T) / 2

    def on_inputs(self, x: Array) -> Array:
        """T x for rows x."""
        return self._times(x, self.blocks.swapaxes(1, 2))

    def inverse_on_inputs(self, x: Array) -> Array:
        """T⁻¹ x for rows x."""
        return self._times(x, self.inverses.swapaxes(1, 2))

    def operations(self, columns: int) -> int:
        """The size of a block for each column."""
        return columns * self.blocks.shape[1]

    def _times(self, rows: Array, blocks: np.ndarray) -> Array:
        """Rows times a block-diagonal matrix."""
        if rows.shape[-1] != self.columns:
            msg = f"a transform of {self.columns} columns does not fit an array of shape {tuple(rows.shape)}"
            raise InvalidInputError(msg)
        xp, shape = array_namespace(rows), tuple(rows.shape)
        factors = xp.astype(from_host(np.ascontiguousarray(blocks), like=rows), rows.dtype)
        count, size, _ = blocks.shape
        parts = xp.permute_dims(xp.reshape(rows, (-1, count, size)), (1, 0, 2))
        return xp.reshape(xp.permute_dims(xp.matmul(parts, factors), (1, 0, 2)), shape)

    def to_state(self) -> list:
        """Size of the blocks, exponent, numbers row by row."""
        exponent = _exponent(self.blocks)
        return [self.blocks.shape[1], exponent, _stored(self.blocks, exponent, self.dtype).tobytes()]

    @staticmethod
    def from_state(state: list, size: int) -> "Affine":
        """Inverse of `to_state`."""
        block, exponent, data = checked(Affine.schema, state, "affine", columns=size)
        dtype = next(name for name, code in DTYPES.items() if len(data) == np.dtype(code).itemsize * size * block)
        numbers = np.frombuffer(data, dtype=DTYPES[dtype]).astype(np.float64)
        with reading("a matrix"):
            if size % block or not np.isfinite(numbers).all():
                msg = f"blocks of {block} numbers for {size} columns, {np.isfinite(numbers).sum()} of them finite"
                raise InvalidInputError(msg)
            unit = exponent - INTEGER_BITS if dtype == "int8" else exponent
            return Affine(np.ldexp(numbers, unit).reshape(-1, block, block), dtype)


@dataclasses.dataclass(frozen=True)
class Balanced:
    """Design of the map after which weights and inputs have the same, diagonal second moment (`lattq.affine.balanced`).

    What a fixed number of levels wants, up to crest factors: chain a `Hadamard` to it, or take `WUSH`.

    Parameters
    ----------
    block : columns of a block, which each column is charged numbers for; None for one dense matrix
    damping, share : as in `lattq.affine.balanced`; a share of 0.75 suits Cholesky feedback
    dtype : as in `Affine`

    Examples
    --------
    >>> Balanced(block=2)(np.ones((3, 4)), np.eye(4)).blocks.shape
    (2, 2, 2)
    """

    block: int | None = None
    damping: float = 0.01
    share: float = 0.5
    dtype: str = "float16"

    def __post_init__(self) -> None:
        _normalized(self)

    def __call__(self, weight: Array, sigma: np.ndarray) -> Affine:
        """The map; raises as `lattq.affine.balanced`."""
        return _designed(self, balanced, weight, sigma)


@dataclasses.dataclass(frozen=True)
class WUSH:
    """Design of blocks with equal second moments of weights and inputs, the same for all columns of a block.

    `lattq.affine.wush` in closed form: no training, near the least error for integers and floats of few bits. For one
    block of all columns `then(Balanced(), Hadamard())` is charged the same.

    Parameters
    ----------
    block, damping, share, dtype : as in `Balanced`; 32 or 16 as published
    seed : of the signs

    Examples
    --------
    >>> import lattq as lq
    >>> scheme = lq.Scheme(transform=WUSH(block=2), quantizer=lq.quantizers.AbsMax(levels=8))
    >>> lq.quantize(np.ones((3, 4)), np.eye(4), scheme).shape
    (3, 4)
    """

    block: int | None = 32
    damping: float = 0.01
    share: float = 0.5
    seed: int = 0
    dtype: str = "float16"

    def __post_init__(self) -> None:
        _normalized(self)
        object.__setattr__(self, "seed", as_seed(self.seed))

    def __call__(self, weight: Array, sigma: np.ndarray) -> Affine:
        """The map; raises as `lattq.affine.wush`."""
        return _designed(self, functools.partial(wush, seed=self.seed), weight, sigma)


def _normalized(design: Any) -> None:
    normalize(design, as_float, "damping", "share")
    normalize(design, as_integer, optional=("block",))
    _check_dtype(design.dtype)


def _check_dtype(dtype: str) -> None:
    if dtype not in DTYPES:
        msg = f"`dtype` is {dtype!r}; a stored matrix has numbers of {', '.join(DTYPES)}"
        raise InvalidInputError(msg)


def _designed(design: Any, rule: Callable[..., np.ndarray], weight: Array, sigma: np.ndarray) -> Affine:
    """The closed form for weights and inputs in units of powers of two: others give the same map, bit for bit."""
    rows = to_unit(weight).forward(to_host(weight).astype(np.float64))
    moment = np.ldexp(sigma, -_exponent(sigma)) if sigma.any() else sigma
    matrix = rule(rows, moment, block=design.block, damping=design.damping, share=design.share)
    return Affine.of(matrix, design.block, design.dtype)


def _exponent(values: np.ndarray) -> int:
    """Of the power of two that takes the largest magnitude into [1, 2)."""
    return math.frexp(float(np.abs(values).max()))[1] - 1 if values.any() else 0


def _rounded(values: np.ndarray, dtype: str) -> np.ndarray:
    """The numbers that a file holds; once more where the largest was rounded to a power of two."""
    for _ in range(2):
        exponent = _exponent(values)
        if abs(exponent) > LARGEST_EXPONENT:
            msg = f"`blocks` reach {np.abs(values).max():.3g}, beyond 2^±{LARGEST_EXPONENT}; multiply T by a constant"
            raise InvalidInputError(msg)
        unit = exponent - INTEGER_BITS if dtype == "int8" else exponent
        values = np.ldexp(_stored(values, exponent, dtype).astype(np.float64), unit)
    return values


def _stored(values: np.ndarray, exponent: int, dtype: str) -> np.ndarray:
    """In units of a power of two, and of 1/64 of it for integers."""
    if dtype == "int8":
        return np.clip(np.rint(np.ldexp(values, INTEGER_BITS - exponent)), -127, 127).astype(np.int8)
    return np.ldexp(values, -exponent).astype(DTYPES[dtype])
