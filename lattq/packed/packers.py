"""What forms of quantized matrices become where vectors are multiplied."""

import dataclasses

import numpy as np

from lattq.errors import InvalidInputError
from lattq.packed.forms import VALUES, VECTORS, Nested8, Tables, aligned
from lattq.packed.vectors import VectorTables, check_fit, scalar_group, vector_tables
from lattq.parts.forms import NestedForm, NumberForm, TableForm

__all__ = ["Packed", "packers"]

LARGEST_Q = 13  # four digits in 15 bits
CHUNK = 1 << 16  # vectors whose digits are turned at once


@dataclasses.dataclass(frozen=True, eq=False)
class Packed:
    """Packed codes, and factors of the columns; None for 1."""

    codes: Tables | VectorTables | Nested8
    factors: np.ndarray | None = None


def number_codes(form: NumberForm, codes: np.ndarray, gains: np.ndarray | None) -> Packed:
    """Indices of four bits; raises `InvalidInputError` for tables of more than 16 values.

    >>> form = NumberForm(np.array([[0, 1]]), np.array([[-1.0, 1.0]]), np.array([[0]]), np.array([[0.5]]), 2)
    >>> number_codes(form, form.index, None).codes.width
    128
    """
    size = form.tables.shape[1]
    if size > VALUES:
        msg = f"tables of {size} values; packed codes have at most {VALUES}"
        raise InvalidInputError(msg)
    rows = len(form.index)
    scales = form.scales if gains is None else form.scales * gains[:, None]
    shape = (rows, scales.shape[1])
    which, scales = np.broadcast_to(form.which, shape), np.broadcast_to(scales, shape)
    return Packed(Tables.packed(form.index, form.tables, which, scales, form.group), form.factors)


def table_codes(form: TableForm, codes: np.ndarray, gains: np.ndarray | None) -> Packed:
    """Tables of 16 numbers where they hold the codebook, and vectors otherwise.

    Raises `InvalidInputError` for more than 256 entries or 8 weights of a vector, and vectors across tables or scales.

    >>> form = TableForm(np.array([[[[0.0], [1.0], [4.0]]]]), rows=1, group=4)
    >>> table_codes(form, np.array([[0, 2, 1, 1]]), None).codes.width
    128
    """
    group = scalar_group(form, codes.shape[1])
    if group is None:
        return Packed(vector_tables(form, codes, gains))
    check_fit(form, codes)
    firsts = np.arange(0, codes.shape[1], group)
    scales = np.ones((len(codes), len(firsts)))
    if form.scales is not None:
        scales = form.scales.factors(codes.shape[1])[:, firsts]
    down, across, size, _ = form.tables.shape
    own = np.minimum(np.arange(len(codes)) // form.rows, down - 1) * across
    which = own[:, None] + (firsts // form.group if across > 1 else firsts * 0)
    numbers = NumberForm(codes, form.tables.reshape(-1, size), which, scales, group)
    return number_codes(numbers, codes, gains)


def nested_codes(form: NestedForm, codes: np.ndarray, gains: np.ndarray | None) -> Packed:
    """Words of cosets; raises `InvalidInputError` for q above 13, more than four scales, and groups of half blocks.

    >>> form = NestedForm(np.zeros((1, 8), dtype=int), np.eye(8, dtype=int), 5, np.ones(1), np.ones((1, 1)), 8)
    >>> nested_codes(form, form.codes, None).codes.words.shape
    (1, 1, 2, 64)
    """
    from lattq.kernels import packed_e8 as native  # numba takes most of a second to import

    rows, columns = codes.shape
    checks = [
        (not 5 <= form.q <= LARGEST_Q, f"q = {form.q}"),
        (len(form.factors) > 4, f"a code of {len(form.factors)} scales"),
        (
            form.scales.shape[1] > 1 and form.group % (8 * VECTORS) != 0,
            f"a group of {form.group} columns, not of 512,",
        ),
    ]
    obstacle = next((text for wrong, text in checks if wrong), None)
    if obstacle:
        msg = f"{obstacle} has no packed product; use E8 with an odd q from 5 to {LARGEST_Q} and whole vectors"
        raise InvalidInputError(msg)
    blocks = -(-columns // (8 * VECTORS))
    words = aligned((rows, blocks, 2, VECTORS), np.uint16)
    step = max(1, CHUNK // (blocks * VECTORS))
    for start in range(0, rows, step):
        digits = codes[start : start + step].astype(np.int64)
        index = digits[:, ::8] // form.q
        digits[:, ::8] %= form.q
        cosets = np.zeros((len(digits), blocks * VECTORS, 8), dtype=np.uint16)
        cosets[:, : columns // 8] = (digits.reshape(len(digits), -1, 8) @ form.turn + form.q // 2) % form.q
        places = np.zeros(cosets.shape[:2], dtype=np.uint8)
        places[:, : columns // 8] = index
        words[start : start + step] = native.pack(cosets, places, form.q)
    scale = form.scales if gains is None else form.scales * gains[:, None]
    scale = np.broadcast_to(scale, (rows, scale.shape[1])).astype(np.float32)
    factors = np.zeros(4, dtype=np.float32)
    factors[: len(form.factors)] = form.factors
    return Packed(Nested8(words, form.q, factors, np.ascontiguousarray(scale)))


packers = {"numbers": number_codes, "tables": table_codes, "nested": nested_codes}
