"""Nearest points of Z, A, D and their duals in integer coordinates: leaders of cosets, and remainders decoded.

The leader of a vector of integers f is a lattice point: f, changed as little as makes it one. For every lattice point p
the leader of f + p is that of f plus p. So f and f + p leave the same remainder, and ties there may go any way.
"""

from jaxtyping import Float, Int

from lattq._array import Array, array_namespace, device

__all__ = [
    "checkerboard",
    "first_coordinate",
    "leader_of_a",
    "leader_of_a_dual",
    "leader_of_d",
    "leader_of_d_dual",
    "leader_of_z",
    "nearer",
    "round_a",
    "round_a_dual",
    "round_d",
    "round_d_dual",
    "round_z",
]


def places(x: Array) -> Int[Array, " n"]:
    """0, 1, ..., n - 1 where `x` is."""
    return array_namespace(x).arange(x.shape[-1], dtype=array_namespace(x).int32, device=device(x))


def first_coordinate(amount: Int[Array, "*batch"], like: Int[Array, "*batch n"]) -> Int[Array, "*batch n"]:
    """Vectors with `amount` as their first coordinate, and else zeros."""
    xp = array_namespace(like)
    return xp.where(places(like) == 0, amount[..., None], xp.asarray(0, dtype=like.dtype, device=device(like)))


def integers(x: Array) -> Int[Array, "..."]:
    """Whole numbers as int32."""
    xp = array_namespace(x)
    return xp.astype(x, xp.int32)


def total(x: Int[Array, "*batch n"]) -> Int[Array, "*batch"]:
    """Sum over a vector, as int32."""
    xp = array_namespace(x)
    return xp.sum(x, axis=-1, dtype=xp.int32)


def checkerboard(
    x: Float[Array, "*batch n"], start: Int[Array, "*#batch n"], modulus: int, odd: Int[Array, "*#batch"] | int
) -> Int[Array, "*batch n"]:
    """Nearest start + modulus k with a sum of k that is odd or even.

    Round each coordinate; if the sum is wrong, take the other neighbour where that costs least, first of equals.
    """
    xp = array_namespace(x)
    offset = x - xp.astype(start, x.dtype)
    k = xp.floor(offset / modulus + 0.5)
    error = offset - modulus * k
    k = integers(k)
    wrong = (total(k) + odd) & 1
    worst = places(x) == xp.argmax(xp.abs(error), axis=-1)[..., None]
    way = xp.where(error >= 0, wrong[..., None], -wrong[..., None])
    return start + modulus * xp.where(worst, k + way, k)


def nearer(x: Float[Array, "*batch n"], *points: Int[Array, "*batch n"]) -> Int[Array, "*batch n"]:
    """That one of the points which is nearest to x, the first of equals."""
    xp = array_namespace(x)
    best, *others = points
    least = _squared(x, best)
    for other in others:
        distance = _squared(x, other)
        better = distance < least
        best, least = xp.where(better[..., None], other, best), xp.where(better, distance, least)
    return best


def _squared(x: Array, point: Array) -> Array:
    """Squared distances."""
    xp = array_namespace(x)
    return xp.sum((x - xp.astype(point, x.dtype)) ** 2, axis=-1)


def leader_of_z(floors: Int[Array, "*batch n"]) -> Int[Array, "*batch n"]:
    """Every integer vector is in Z."""
    return floors


def round_z(x: Float[Array, "*batch n"]) -> Int[Array, "*batch n"]:
    """Nearest integers."""
    return integers(array_namespace(x).floor(x + 0.5))


def leader_of_d(floors: Int[Array, "*batch n"]) -> Int[Array, "*batch n"]:
    """Even sum: the first coordinate less one where it is odd."""
    return floors - first_coordinate(total(floors) & 1, floors)


def round_d(x: Float[Array, "*batch n"]) -> Int[Array, "*batch n"]:
    """Nearest integers with an even sum."""
    return checkerboard(x, places(x) * 0, 1, 0)


def leader_of_d_dual(floors: Int[Array, "*batch n"]) -> Int[Array, "*batch n"]:
    """Coordinates of the parity of the first, in units of ½."""
    return floors - ((floors - floors[..., :1]) & 1)


def round_d_dual(x: Float[Array, "*batch n"]) -> Int[Array, "*batch n"]:
    """Nearest vector of even, or of odd, integers."""
    return nearer(x, 2 * round_z(x / 2), 1 + 2 * round_z((x - 1) / 2))


def leader_of_a(floors: Int[Array, "*batch dim"]) -> Int[Array, "*batch dim"]:
    """Sum zero: the first coordinate takes it all."""
    return floors - first_coordinate(total(floors), floors)


def round_a(x: Float[Array, "*batch dim"]) -> Int[Array, "*batch dim"]:
    """Nearest integers with sum zero."""
    return _round_to_sum(x, 0)


def leader_of_a_dual(floors: Int[Array, "*batch dim"]) -> Int[Array, "*batch dim"]:
    """Coordinates that are equal modulo their number, with sum zero, in units of one over that number."""
    classes = floors.shape[-1]
    return leader_of_a(floors - array_namespace(floors).remainder(floors - floors[..., :1], classes))


def round_a_dual(x: Float[Array, "*batch dim"]) -> Int[Array, "*batch dim"]:
    """Nearest of the classes i + (n + 1) k with the sum of k equal to -i."""
    classes = x.shape[-1]
    return nearer(x, *(i + classes * _round_to_sum((x - i) / classes, -i) for i in range(classes)))


def _round_to_sum(x: Float[Array, "*batch dim"], wanted: int) -> Int[Array, "*batch dim"]:
    """Nearest integers with a given sum.

    x is moved to the hyperplane and rounded; then the coordinates that were rounded up most come down by one, or those
    rounded down most up, as many as the sum is off.
    """
    xp = array_namespace(x)
    size = x.shape[-1]
    x = x + (wanted - xp.sum(x, axis=-1, keepdims=True)) / size
    rounded = xp.floor(x + 0.5)
    order = xp.argsort(x - rounded, axis=-1, stable=True)
    rank = integers(xp.argsort(order, axis=-1, stable=True))
    whole = integers(rounded)
    excess = (total(whole) - wanted)[..., None]
    one, zero = (xp.asarray(value, dtype=xp.int32, device=device(x)) for value in (1, 0))
    return whole - xp.where(rank < excess, one, zero) + xp.where(rank >= size + excess, one, zero)
