"""Cheaper maps to a lattice than its nearest points: what a decoder of a Voronoi code may use for its leaders.

Any f with f(x + p) = f(x) + p for every lattice point p gives each coset one leader. It fills another fundamental cell,
of the same volume, and the encoder must test for overload with the same f.
"""

import re
from collections.abc import Callable

from jaxtyping import Float, Int

from lattq._array import Array, array_namespace
from lattq.errors import InvalidInputError
from lattq.lattices.rounding import first_coordinate, integers, leader_of_a, nearer, places, round_z, total

__all__ = ["simplified"]


def first_checkerboard(x: Float[Array, "*batch n"], start: Int[Array, "*#batch n"], modulus: int) -> Array:
    """A point start + modulus k with an even sum of k: a wrong sum is repaired at the first coordinate."""
    xp = array_namespace(x)
    offset = (x - xp.astype(start, x.dtype)) / modulus
    k = integers(xp.floor(offset + 0.5))
    wrong = total(k) & 1
    up = offset[..., 0] >= xp.astype(k[..., 0], x.dtype)
    return start + modulus * (k + first_coordinate(xp.where(up, wrong, -wrong), k))


def _d(x: Float[Array, "*batch n"]) -> Int[Array, "*batch n"]:
    return first_checkerboard(x, places(x) * 0, 1)


def _e8(x: Float[Array, "*batch 8"]) -> Int[Array, "*batch 8"]:
    even = places(x) * 0
    return nearer(x, first_checkerboard(x, even, 2), first_checkerboard(x, even + 1, 2))


def _a(x: Float[Array, "*batch dim"]) -> Int[Array, "*batch dim"]:
    xp = array_namespace(x)
    return leader_of_a(round_z(x - xp.mean(x, axis=-1, keepdims=True)))


SIMPLIFIED: dict[str, Callable[[Array], Array]] = {"Z": round_z, "D": _d, "A": _a, "E8": _e8}


def simplified(name: str) -> Callable[[Float[Array, "*batch dim"]], Int[Array, "*batch dim"]]:
    """The map for the lattice of this name, in integer coordinates; raises `InvalidInputError` where there is none.

    >>> import numpy as np
    >>> simplified("D(3)")(np.array([0.1, 0.9, 0.2]))
    array([1, 1, 0], dtype=int32)
    """
    family = re.sub(r"\(\d+\)", "", name)
    if family not in SIMPLIFIED:
        msg = f'`shaping` is "simplified", which Z, D, A and E8 have, not {name}; use "voronoi"'
        raise InvalidInputError(msg)
    return SIMPLIFIED[family]
