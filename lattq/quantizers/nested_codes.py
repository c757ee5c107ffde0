"""Nested codes of a design: scales for Gaussian numbers, and a cubic code for what is left over."""

import functools
from typing import Any

from lattq import lattices
from lattq.lattices import NestedCode, VoronoiCode, best_scales
from lattq.lattices.words import cell_side

__all__ = ["gaussian_scales", "rest_code"]


@functools.cache
def gaussian_scales(
    lattice: lattices.Lattice, q: int, count: int, rule: str, coded: bool, shaping: str
) -> tuple[float, ...]:
    """`best_scales` for independent Gaussian numbers, computed once."""
    return best_scales(lattice, q, count, rule=rule, coded=coded, shaping=shaping)


@functools.cache
def rest_code(code: NestedCode, size: int) -> NestedCode:
    """The cubic code of `size` columns left over: a cell of the same volume, and the same q and scales.

    >>> rest_code(NestedCode(VoronoiCode(lattices.D(4), 8), (0.5,)), 1).scales
    (0.5946035575013605,)
    """
    lattice = code.code.lattice
    side = cell_side(lattice) / lattice.integer_scale
    scales: Any = tuple(scale * side for scale in code.scales)
    return NestedCode(VoronoiCode(lattices.Z(size), code.code.q), scales, code.rule)
