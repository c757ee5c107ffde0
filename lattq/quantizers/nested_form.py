"""Nested E8 codes as plain arrays."""

import numpy as np

from lattq.errors import InvalidInputError
from lattq.lattices import E8, NestedCode
from lattq.parts.forms import NestedForm

__all__ = ["nested_form"]


def nested_form(code: NestedCode, codes: np.ndarray, scales: np.ndarray, block: int, group: int) -> NestedForm:
    """Digits, and the matrix that takes them to cosets modulo q: no leader is searched.

    Raises
    ------
    InvalidInputError : for other lattices than E8, even q, other shapings, a dither, and blocks of parts of vectors

    Examples
    --------
    >>> from lattq.lattices import VoronoiCode
    >>> nested_form(NestedCode(VoronoiCode(E8, 5), (1.0,)), np.zeros((1, 8), dtype=int), np.ones((1, 1)), 8, 8).q
    5
    """
    inner = code.code
    checks = [
        (inner.lattice is not E8 and inner.lattice.name != E8.name, f"the lattice {inner.lattice.name}"),
        (inner.q % 2 == 0, f"q = {inner.q}"),
        (inner.shaping != "voronoi", f"the shaping {inner.shaping!r}"),
        (code.dither is not None, "a dither"),
        (block % 8 != 0, f"a block of {block} columns"),
    ]
    obstacle = next((text for wrong, text in checks if wrong), None)
    if obstacle:
        msg = f"{obstacle} has no packed product; use E8 with an odd q from 5 to 13 and whole vectors"
        raise InvalidInputError(msg)
    turn = (inner.basis * ((inner.q + 1) // 2)) % inner.q
    factors = np.array(code.scales) / inner.lattice.integer_scale
    return NestedForm(codes, turn, inner.q, factors, scales, group)
