"""What quantizers and transforms become where vectors are multiplied."""

from typing import Any

import numpy as np

from lattq import transforms
from lattq._array import Array, to_host
from lattq.errors import InvalidInputError
from lattq.feedback import GAIN_GRID
from lattq.lattices import E8
from lattq.packed.forms import VALUES, VECTORS, Nested8, Tables, aligned
from lattq.quantized import Quantized
from lattq.quantizers import FormatQuantizer, NestedQuantizer, UniformQuantizer, table_shift

__all__ = ["nested_codes", "on_inputs", "scalar_codes"]

LARGEST_Q = 13  # four digits in 15 bits
CHUNK = 1 << 16  # vectors whose digits are turned at once

Factors = np.ndarray | None


def on_inputs(transform: transforms.Transform, x: Array) -> Array:
    """T x for rows x: what vectors become before the product with the transformed weights.

    Raises
    ------
    InvalidInputError : for a transform that is not one of this library's, or a sparse part, which adds to the product

    Examples
    --------
    >>> on_inputs(transforms.Diagonal(np.array([2.0, 4.0])), np.array([[1.0, 1.0]]))
    array([[0.5 , 0.25]])
    """
    if isinstance(transform, transforms.Chain):
        for part in transform.parts:
            x = on_inputs(part, x)
        return x
    if isinstance(transform, transforms.Hadamard | transforms.Permutation):
        return transform.forward(x)  # orthogonal: rows times the inverse are rows times the transpose
    if isinstance(transform, transforms.Identity | transforms.Diagonal | transforms.Gain | transforms.Folded):
        return transform.inverse(x)  # diagonal, and so its own transpose; a folded one has happened already
    if isinstance(transform, transforms.Sparse):
        msg = (
            f"a sparse part of {transform.places.size} weights comes after other transforms, which would spread it "
            "over the matrix; take outliers out first"
        )
        raise InvalidInputError(msg)
    msg = f"{transform!r} is not known to act on vectors; pack weights behind the transforms of this library"
    raise InvalidInputError(msg)


def scalar_codes(quantizer: UniformQuantizer | FormatQuantizer, quantized: Quantized) -> tuple[Tables, Factors]:
    """Tables of the values of codes, and factors of columns where all rows share their scales."""
    rows, columns = quantized.shape
    if isinstance(quantizer, FormatQuantizer):
        low, zeros, scales = quantizer.number.low, np.zeros((1, 1)), quantizer.scale
        values = quantizer.number.values
        if values.size > VALUES:
            msg = f"{quantizer.number!r} has {values.size} values; packed codes have at most {VALUES}"
            raise InvalidInputError(msg)
    else:
        low, values = _uniform_values(quantizer, quantized)
        zeros, scales = quantizer.zero, quantizer.step
    scales = to_host(scales).astype(np.float64)
    zeros = np.atleast_2d(to_host(np.asarray(zeros))).astype(np.float64)
    group = quantizer.group if scales.shape[1] > 1 else columns
    factors = None
    if len(scales) == 1 and zeros.size == 1:
        factors, scales = np.repeat(scales[0], group)[:columns], np.ones((1, 1))
        group = columns
    different, which = np.unique(zeros, return_inverse=True)
    tables = values[None] - different[:, None]
    shape = (rows, scales.shape[1])
    if quantized.row_gains is not None:
        scales = scales * (quantized.row_gains[:, None] / GAIN_GRID)
    which = np.broadcast_to(which.reshape(zeros.shape), shape)
    index = quantized.codes - np.int32(low)
    return Tables.packed(index, tables, which, np.broadcast_to(scales, shape), group), factors


def _uniform_values(quantizer: UniformQuantizer, quantized: Quantized) -> tuple[int, np.ndarray]:
    """The smallest code, and what it and those above it stand for, in cells."""
    if quantizer.dither is not None:
        msg = f"a dither of seed {quantizer.dither} moves every weight; packed products need codes without dither"
        raise InvalidInputError(msg)
    low, high = int(quantized.codes.min()), int(quantized.codes.max())
    if high - low >= VALUES:
        msg = f"codes {low} ... {high} are {high - low + 1} values; packed codes have at most {VALUES}"
        raise InvalidInputError(msg)
    codes = np.arange(low, high + 1)
    shift = 0.0 if quantized.centroids is None else table_shift(codes, quantized.centroids / GAIN_GRID)
    return low, codes + shift


def nested_codes(quantizer: NestedQuantizer, quantized: Quantized) -> Nested8:
    """Words of cosets, found from digits by a matrix modulo q: no leader is searched."""
    from lattq.kernels import packed_e8 as native  # numba takes most of a second to import

    nested, code = quantizer.code, quantizer.code.code
    rows, columns = quantized.shape
    scale = to_host(quantizer.scale).astype(np.float64)
    obstacle = _obstacle(quantizer, scale.shape[1])
    if obstacle:
        msg = f"{obstacle} has no packed product; use E8 with an odd q from 5 to {LARGEST_Q} and whole vectors"
        raise InvalidInputError(msg)
    blocks = -(-columns // (8 * VECTORS))
    turn = (code.basis * ((code.q + 1) // 2)) % code.q
    words = aligned((rows, blocks, 2, VECTORS), np.uint16)
    step = max(1, CHUNK // (blocks * VECTORS))
    for start in range(0, rows, step):
        digits = quantized.codes[start : start + step].astype(np.int64)
        index = digits[:, ::8] // code.q
        digits[:, ::8] %= code.q
        cosets = np.zeros((len(digits), blocks * VECTORS, 8), dtype=np.uint16)
        cosets[:, : columns // 8] = (digits.reshape(len(digits), -1, 8) @ turn + code.q // 2) % code.q
        places = np.zeros(cosets.shape[:2], dtype=np.uint8)
        places[:, : columns // 8] = index
        words[start : start + step] = native.pack(cosets, places, code.q)
    if quantized.row_gains is not None:
        scale = scale * (quantized.row_gains[:, None] / GAIN_GRID)
    scale = np.broadcast_to(scale, (rows, scale.shape[1])).astype(np.float32)
    factors = np.zeros(4, dtype=np.float32)
    factors[: len(nested.scales)] = np.array(nested.scales) / code.lattice.integer_scale
    return Nested8(words, code.q, factors, np.ascontiguousarray(scale))


def _obstacle(quantizer: NestedQuantizer, groups: int) -> str | None:
    """What a packed product cannot do with this quantizer, in words."""
    nested, code = quantizer.code, quantizer.code.code
    checks: list[tuple[bool, Any]] = [
        (code.lattice is not E8 and code.lattice.name != E8.name, f"the lattice {code.lattice.name}"),
        (code.q % 2 == 0 or not 5 <= code.q <= LARGEST_Q, f"q = {code.q}"),
        (code.shaping != "voronoi", f"the shaping {code.shaping!r}"),
        (nested.dither is not None, "a dither"),
        (len(nested.scales) > 4, f"a code of {len(nested.scales)} scales"),
        (quantizer.block % 8 != 0, f"a block of {quantizer.block} columns"),
        (groups > 1 and quantizer.group % (8 * VECTORS) != 0, f"a group of {quantizer.group} columns, not of 512,"),
    ]
    return next((text for wrong, text in checks if wrong), None)
