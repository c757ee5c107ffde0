"""Nearest points of E8, BW16 and Leech in integer coordinates: codes searched with the parity of a sum.

The points are r + M k with r in a code and the sum of k even or odd. For a part of the coordinates a table holds, for
every pattern of r there, the least squared error with the sum of k even, and with it odd; a join of two parts adds them
up. No nearest point is missed: this is exhaustive search with common terms taken together.
"""

import functools

import numpy as np
from jaxtyping import Float, Int

from lattq._array import Array, array_namespace, from_host, to_host
from lattq.lattices.codes import code_words, golay, information_positions, octets, reed_muller
from lattq.lattices.rounding import checkerboard, first_coordinate, integers, nearer, places, total

__all__ = [
    "golay_basis",
    "leader_of_bw16",
    "leader_of_e8",
    "leader_of_leech",
    "reed_muller_basis",
    "round_bw16",
    "round_e8",
    "round_leech",
    "words_of_bw16",
]


def leader_of_e8(floors: Int[Array, "*batch 8"]) -> Int[Array, "*batch 8"]:
    """Coordinates of the parity of the first, with a sum divisible by 4."""
    return _divisible_by_four(floors - ((floors - floors[..., :1]) & 1))


def _divisible_by_four(x: Int[Array, "*batch n"]) -> Int[Array, "*batch n"]:
    """First coordinate less two where the sum, an even number, is not divisible by 4."""
    return x - first_coordinate(total(x) & 2, x)


def round_e8(x: Float[Array, "*batch 8"]) -> Int[Array, "*batch 8"]:
    """Nearest vector of even, or of odd, integers with a sum divisible by 4."""
    even = places(x) * 0
    return nearer(x, checkerboard(x, even, 2, 0), checkerboard(x, even + 1, 2, 0))


@functools.cache
def reed_muller_basis() -> tuple[np.ndarray, np.ndarray]:
    """Information positions of RM(1, 4) and the generator that is the identity there."""
    return information_positions(reed_muller())


@functools.cache
def golay_basis() -> tuple[np.ndarray, np.ndarray]:
    """Information positions of the Golay code and the generator that is the identity there."""
    return information_positions(golay())


def _encoded(bits: Int[Array, "*batch n"], basis: tuple[np.ndarray, np.ndarray]) -> Int[Array, "*batch n"]:
    """The word of the code that agrees with the bits at its information positions."""
    xp = array_namespace(bits)
    positions, systematic = basis
    chosen = xp.take(bits, from_host(positions, bits), axis=-1)
    powers = from_host(2 ** np.arange(len(positions), dtype=np.int32), bits)
    words = from_host(code_words(systematic).astype(np.int32), bits)
    return _rows(words, total(chosen * powers))


def _rows(table: Array, index: Int[Array, "*batch"]) -> Array:
    """Rows of a table, one for each index."""
    xp = array_namespace(table)
    return xp.reshape(xp.take(table, xp.reshape(index, (-1,)), axis=0), (*index.shape, *table.shape[1:]))


def leader_of_bw16(floors: Int[Array, "*batch 16"]) -> Int[Array, "*batch 16"]:
    """A word of RM(1, 4) modulo 2, with a sum divisible by 4."""
    word = _encoded(floors & 1, reed_muller_basis())
    return _divisible_by_four(floors - ((floors - word) & 1))


def leader_of_leech(floors: Int[Array, "*batch 24"]) -> Int[Array, "*batch 24"]:
    """Parity p of the first coordinate plus twice a Golay word modulo 4, with the sum 4 p modulo 8."""
    parity = floors[..., :1] & 1
    word = _encoded(((floors - parity) >> 1) & 1, golay_basis())
    point = floors - ((floors - parity - 2 * word) & 3)
    return point - first_coordinate((total(point) - 4 * parity[..., 0]) & 4, point)


def _errors(x: Float[Array, "*batch n"], residues: int) -> Float[Array, "*batch n residues 2"]:
    """Least squared error of each coordinate for each residue r and parity of k."""
    xp = array_namespace(x)
    offset = x[..., None] - from_host(np.arange(residues, dtype=to_host(x[..., :0]).dtype), x)
    k = xp.floor(offset / residues + 0.5)
    error = xp.abs(offset - residues * k)
    near, far, odd = error**2, (residues - error) ** 2, integers(k) & 1 == 1
    return xp.stack([xp.where(odd, far, near), xp.where(odd, near, far)], axis=-1)


def _join(one: Float[Array, "*one 2"], other: Float[Array, "*other 2"]) -> Float[Array, "*both 2"]:
    """Least sums of two parts with an even and with an odd sum of k."""
    xp = array_namespace(one)
    even = xp.minimum(one[..., 0] + other[..., 0], one[..., 1] + other[..., 1])
    odd = xp.minimum(one[..., 0] + other[..., 1], one[..., 1] + other[..., 0])
    return xp.stack([even, odd], axis=-1)


def _pairs(parts: Float[Array, "*batch n patterns 2"]) -> Float[Array, "*batch half squared 2"]:
    """Neighbouring parts joined, every pattern with every other; the pattern of the first varies fastest."""
    xp = array_namespace(parts)
    joined = _join(parts[..., 0::2, None, :, :], parts[..., 1::2, :, None, :])
    return xp.reshape(joined, (*joined.shape[:-3], parts.shape[-2] ** 2, 2))


@functools.cache
def words_of_bw16() -> Int[np.ndarray, "32 16"]:
    """Words of RM(1, 4) by (linear part on a quarter, turn, sign of the first half, sign of the second half).

    The quarters of a word are a pattern of two bits, complemented by (first, first + turn, second, second + turn).
    """
    quarters = np.array([[0, 0, 0, 0], [0, 1, 0, 1], [0, 0, 1, 1], [0, 1, 1, 0]])
    signs = np.array([[0, 0, 0, 0], [0, 0, 1, 1], [1, 1, 0, 0], [1, 1, 1, 1]])
    turned = signs ^ np.array([[[0, 0, 0, 0]], [[0, 1, 0, 1]]])
    return (quarters[:, None, None, None, :] ^ turned[None, :, :, :, None]).reshape(32, 16)


def round_bw16(x: Float[Array, "*batch 16"]) -> Int[Array, "*batch 16"]:
    """Nearest vector that is a word of RM(1, 4) modulo 2, with a sum divisible by 4."""
    xp = array_namespace(x)
    quarters = _pairs(_pairs(_errors(x, 2)))
    pattern = from_host(np.array([0, 15, 10, 5, 12, 3, 6, 9]), x)  # of four bits: linear part, sign
    table = xp.reshape(xp.take(quarters, pattern, axis=-2), (*x.shape[:-1], 2, 2, 4, 2, 2))
    left, right = table[..., 0, :, :, :], table[..., 1, :, :, :]  # half, linear part, sign, parity
    halves = xp.stack([_join(left, right), _join(left, xp.flip(right, axis=-2))], axis=-3)  # turn
    first, second = halves[..., 0, :, :, :, None, :], halves[..., 1, :, :, None, :, :]
    cost = _join(first, second)[..., 0]
    best = xp.argmin(xp.reshape(cost, (*x.shape[:-1], 32)), axis=-1)
    word = _rows(from_host(words_of_bw16().astype(np.int32), x), best)
    return checkerboard(x, word, 2, 0)


@functools.cache
def _half_octets() -> tuple[np.ndarray, np.ndarray]:
    """First and last four bits of the words of even weight on eight places, as numbers."""
    halves = octets().reshape(128, 2, 4) @ (1 << np.arange(4))
    return halves[:, 0], halves[:, 1]


def round_leech(x: Float[Array, "*batch 24"]) -> Int[Array, "*batch 24"]:
    """Nearest p + 2 c + 4 k with c in the Golay code and the sum of k of the parity of p, 0 or 1.

    A Golay word is three words of even weight on eight places, h_s + x with one glue x for all and h_1 + h_2 + h_3 = 0
    up to complements; so 2 parities, 8 glues and 8 · 8 choices of h, where a section takes the better complement.
    """
    xp = array_namespace(x)
    batch = x.shape[:-1]
    sections = _sections(x)  # *batch, p, section, glue, inner, complement, parity of k
    second = sections[..., 1, :] < sections[..., 0, :]
    best = xp.reshape(xp.min(sections, axis=-2), (*batch, 2, 3, 8, 16))  # part: 2 inner + parity
    exclusive = np.arange(16)[:, None] ^ np.arange(16)
    other = xp.take(best[..., 1, :, :], from_host(exclusive.ravel(), x), axis=-1)
    sums = best[..., 0, :, None, :] + xp.reshape(other, (*batch, 2, 8, 16, 16))
    last = xp.stack(
        [best[..., 0, 2, :, :], xp.take(best[..., 1, 2, :, :], from_host(exclusive[1], x), axis=-1)], axis=-3
    )
    cost = xp.min(sums, axis=-1) + last
    place = xp.argmin(xp.reshape(cost, (*batch, 256)), axis=-1)[..., None]
    part = xp.take_along_axis(xp.reshape(xp.argmin(sums, axis=-1), (*batch, 256)), place, axis=-1)
    p, glue, joined = place // 128, place // 16 % 8, place % 16
    parts = xp.concat([part, part ^ joined, joined ^ p], axis=-1)
    section = from_host(np.arange(3), x)
    index = ((3 * p + section) * 8 + glue) * 16 + parts
    complement = xp.take_along_axis(xp.reshape(second, (*batch, 768)), index, axis=-1)
    row = 16 * glue + 2 * (parts // 2) + xp.astype(complement, parts.dtype)
    word = xp.reshape(_rows(from_host(octets().astype(np.int32), x), row), x.shape)
    parity = xp.astype(p, xp.int32)
    return checkerboard(x, parity + 2 * word, 4, parity[..., 0])


def _sections(x: Float[Array, "*batch 24"]) -> Float[Array, "*batch p 3 glue inner complement 2"]:
    """Least error of each word on each third of the coordinates."""
    xp = array_namespace(x)
    errors = _errors(x, 4)
    # Residue p + 2 c: first p, then coordinates, then c.
    errors = xp.stack([errors[..., 0::2, :], errors[..., 1::2, :]], axis=-4)
    quads = _pairs(_pairs(errors))
    low, high = _half_octets()
    first = xp.take(quads[..., 0::2, :, :], from_host(low, x), axis=-2)
    last = xp.take(quads[..., 1::2, :, :], from_host(high, x), axis=-2)
    return xp.reshape(_join(first, last), (*x.shape[:-1], 2, 3, 8, 8, 2, 2))
