"""Trellis codes of fixed rate: a register into which a few bits shift for each value, read as a Gaussian number."""

import dataclasses
import functools
import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int
from scipy.special import ndtri

from lattq._array import as_floats
from lattq._options import among, as_integer, normalize
from lattq.errors import InvalidInputError, shown

__all__ = ["CODES", "LONGEST", "MOST_BITS", "MOST_MEMORY", "BitshiftCode", "best_states"]

MOST_BITS, MOST_MEMORY = 4, 16
LONGEST = 2048  # values of a sequence: the search holds 2^(memory - bits) numbers for each
TURNS = 6  # of the register in a tile
FARTHEST = 32.0  # of a code whose largest values are near 4; float32 still tells paths apart that far out

# Scales of the tables for the least squared error on N(0, 1), at 1, 2, 3 and 4 bits: from errors of 60 to 150 tiles of
# 256 values at four scales, memory 12 and 16. Another 2 % moves the error by less than 1 %.
SCALES = {
    "latin": (0.88, 1.0, 1.04, 1.06),
    "lut": (0.87, 1.0, 1.06, 1.07),
    "1mad": (0.87, 1.02, 1.1, 1.12),
    "3inst": (0.88, 1.02, 1.06, 1.1),
}
CODES = tuple(SCALES)


@dataclasses.dataclass(frozen=True)
class BitshiftCode:
    """Sequences of numbers, each a function of the `memory` bits that end in its own symbol (QTIP).

    A symbol has `bits` bits, so does each number. The register is a window of a ring of symbols: before the first one
    stand the last ones. No state is stored, and any window of the ring decodes alone.

    Parameters
    ----------
    bits : per value, 1 to 4
    memory : bits of the register, from `bits` to 16; a search takes time in proportion to 2^memory
    code : how the register becomes a number of variance near 1. "latin" and "lut" are the quantiles of a Gaussian, in
        an order that keeps states apart or in a scrambled one; "1mad" and "3inst" are the published ones that a
        processor computes without a table.

    References
    ----------
    Tseng, Sun, Hou and De Sa, "QTIP", arXiv 2406.11235 (2024), section 3; Ungerboeck, "Channel coding with
    multilevel/phase signals", IEEE Trans. Inf. Theory 28 (1982), for the rules behind "latin".

    Examples
    --------
    >>> code = BitshiftCode(bits=2, memory=4)
    >>> symbols = code.encode(np.array([0.2, -0.9, 1.2, 0.1, -0.4]))
    >>> symbols, code.decode(symbols).round(1)
    (array([2, 2, 1, 3, 3], dtype=int32), array([-0.1, -1. ,  1.3,  0.1, -0.8]))
    """

    bits: int = 2
    memory: int = 16
    code: str = "latin"

    def __post_init__(self) -> None:
        normalize(self, as_integer, "bits", "memory")
        if not 1 <= self.bits <= MOST_BITS:
            msg = f"`bits` is {self.bits}; a symbol has 1 to {MOST_BITS} bits"
            raise InvalidInputError(msg)
        if not self.bits <= self.memory <= MOST_MEMORY:
            msg = f"`memory` is {self.memory}; with `bits` = {self.bits} it is {self.bits} to {MOST_MEMORY}"
            raise InvalidInputError(msg)
        if not among(self.code, SCALES):
            msg = f"`code` is {shown(self.code)}; choose one of {', '.join(SCALES)}"
            raise InvalidInputError(msg)

    @property
    def values(self) -> Float[np.ndarray, " states"]:
        """The number that each of the 2^memory states stands for, scaled for the least squared error on N(0, 1)."""
        return _values(self.bits, self.memory, self.code)

    @property
    def shortest(self) -> int:
        """The fewest values of a sequence: together they fill the register."""
        return -(-self.memory // self.bits)

    def fitting(self, length: int) -> "BitshiftCode":
        """This code for sequences of `length` values, with so little memory that they fill the register six times.

        Where they fill it fewer times, closing the ring costs more than the memory saves: measured at 2 bits, where 32
        values have a squared error of 0.082 with 8 or 10 bits of memory, 0.086 with 12 and 0.103 with 16.

        >>> BitshiftCode(bits=2, memory=12).fitting(24)
        BitshiftCode(bits=2, memory=8, code='latin')
        """
        fitting = max(self.bits, self.bits * length // TURNS)
        return self if fitting >= self.memory else dataclasses.replace(self, memory=fitting)

    def encode(self, x: Float[np.ndarray, "*batch length"]) -> Int[np.ndarray, "*batch length"]:
        """Symbols of a ring close to each sequence of `x`, which has variance 1.

        The ring is opened opposite to the ends of the sequence, where the cheapest open path tells what the register
        holds between the last value and the first; the cheapest path from there to there follows. It is not always the
        cheapest ring, and for rings of a few registers far from it (see `fitting`). What lies beyond 32 counts as 32.

        Raises `InvalidInputError` for a value that is not finite or a length that the register does not fit.
        """
        x = as_floats("x", x)
        flat = np.clip(self._sequences(x), -FARTHEST, FARTHEST)
        half = flat.shape[1] // 2
        open_path = self._search(np.roll(flat, -half, axis=1), None)
        seam = open_path[:, flat.shape[1] - half - 1] % (1 << (self.memory - self.bits))
        return (self._search(flat, seam) % (1 << self.bits)).reshape(x.shape)

    def states(self, symbols: Int[np.ndarray, "*batch length"]) -> Int[np.ndarray, "*batch length"]:
        """What the register holds at each symbol, the latest symbol lowest.

        >>> BitshiftCode(bits=1, memory=3).states(np.array([1, 0, 0, 1]))
        array([3, 6, 4, 1])
        """
        ring = self._sequences(symbols)
        if ((ring < 0) | (ring >> self.bits > 0)).any():
            msg = f"symbols run from {ring.min()} to {ring.max()}; those of {self.bits} bits are below {1 << self.bits}"
            raise InvalidInputError(msg)
        register = np.zeros_like(ring)
        for age in range(self.shortest):
            register |= np.roll(ring, age, axis=1) << (age * self.bits)
        return (register % (1 << self.memory)).reshape(symbols.shape)

    def decode(self, symbols: Int[np.ndarray, "*batch length"]) -> Float[np.ndarray, "*batch length"]:
        """Values of sequences of symbols; raises `InvalidInputError` for a symbol that has more bits."""
        return self.values[self.states(symbols)]

    def _sequences(self, x: np.ndarray) -> np.ndarray:
        """`x` as (sequences, length), if the length is one that the register can go around."""
        length = x.shape[-1] if x.ndim else 0
        if not self.shortest <= length <= LONGEST:
            msg = (
                f"`x` has shape {x.shape}; a sequence has {self.shortest} to {LONGEST} values: use `fitting` or cut it"
            )
            raise InvalidInputError(msg)
        return x.reshape(-1, length)

    def _search(self, x: np.ndarray, ends: np.ndarray | None) -> np.ndarray:
        if self.memory < 2 * self.bits:
            return best_states(x, self.values, self.bits, ends)
        from lattq.kernels import bitshift  # numba takes long to import, and few need it

        return bitshift.best_states(x, self.values, self.bits, ends)


def best_states(
    x: Float[np.ndarray, "batch length"],
    values: Float[np.ndarray, " states"],
    bits: int,
    ends: Int[np.ndarray, " batch"] | None = None,
) -> Int[np.ndarray, "batch length"]:
    """States of the path whose values have the least squared distance from `x`; the plain form of a kernel.

    Parameters
    ----------
    x : sequences
    values : of the states; from state s with symbol b the register goes to (2^bits s + b) mod states
    bits : of a symbol
    ends : all but the oldest symbol of the register before the first value, and again after the last; None leaves both
        free

    Examples
    --------
    >>> best_states(np.array([[0.9, -1.8]]), np.array([-2.0, -1.0, 1.0, 2.0]), 1)
    array([[2, 0]], dtype=int32)
    """
    fan, pasts, each = 1 << bits, len(values) >> bits, np.arange(len(x))
    cost = np.zeros((len(x), pasts))
    if ends is not None:
        cost[:] = np.inf
        cost[each, ends] = 0.0
    oldest = np.empty((x.shape[1], len(x), pasts), dtype=np.int32)
    for t in range(x.shape[1]):
        into = np.repeat(cost, fan, axis=1) + (x[:, t, None] - values) ** 2
        ways = into.reshape(-1, fan, pasts)
        oldest[t], cost = ways.argmin(axis=1), ways.min(axis=1)
    past = cost.argmin(axis=1) if ends is None else ends
    found = np.empty(x.shape, dtype=np.int32)
    for t in reversed(range(x.shape[1])):
        found[:, t] = oldest[t, each, past] * pasts + past
        past = found[:, t] >> bits
    return found


@functools.lru_cache(maxsize=16)
def _values(bits: int, memory: int, code: str) -> np.ndarray:
    found = SCALES[code][bits - 1] * _TABLES[code](bits, memory)
    found.flags.writeable = False
    return found


def _latin(bits: int, memory: int) -> np.ndarray:
    """Quantiles in an order such that states with a common successor or predecessor are far apart.

    Cut the Gaussian into 2^bits parts of equal probability. With the oldest symbol j, the latest b and those between h,
    the state lies in part j ^ b ^ hash(h): the branches that leave a state go to one part each, and so do those that
    enter one. Ungerboeck's rules; with 12 bits of memory at 2 bits they save as much as two more in scrambled order.
    """
    state, rest = np.arange(1 << memory), memory - bits
    past, between = state >> bits, max(rest - bits, 0)
    hashed = _scrambled(past % (1 << between), between) >> max(between - bits, 0)
    part = (past >> between) ^ (state % (1 << bits)) ^ hashed
    return _quantiles((part << rest) | _scrambled(past, rest), memory)


def _lut(bits: int, memory: int) -> np.ndarray:
    return _quantiles(_scrambled(np.arange(1 << memory), memory), memory)


def _one_mad(bits: int, memory: int) -> np.ndarray:
    """Sum of the four bytes of a congruential generator: algorithm 1 of the paper."""
    drawn = (np.arange(1 << memory, dtype=np.int64) * 34038481 + 76625530) % 2**32
    octets = (drawn[:, None] >> np.array([0, 8, 16, 24])) % 256
    return (octets.sum(axis=1) - 510) / 147.800537109375


def _three_instructions(bits: int, memory: int) -> np.ndarray:
    """Sum of two half-precision numbers whose exponents are drawn too: algorithm 2, over its deviation."""
    drawn = (np.arange(1 << memory, dtype=np.int64) * 89226354 + 64248484) % 2**32
    halves = ((drawn & 0x8FFF8FFF) ^ 0x3B603B60).astype("<u4").view("<f2").reshape(-1, 2)
    return (halves[:, 0] + halves[:, 1]).astype(np.float64) / 1.2444


_TABLES: dict[str, Callable[[int, int], np.ndarray]] = {
    "latin": _latin,
    "lut": _lut,
    "1mad": _one_mad,
    "3inst": _three_instructions,
}


def _quantiles(ranks: np.ndarray, memory: int) -> np.ndarray:
    """Quantiles of N(0, 1) in multiples of 2^-20, the same on every platform."""
    return np.rint(ndtri((ranks + 0.5) / (1 << memory)) * 2.0**20) / 2.0**20


def _scrambled(x: np.ndarray, bits: int) -> np.ndarray:
    """A permutation of the integers of this many bits; part of the format of files."""
    x, size = x.astype(np.int64), 1 << bits
    for factor, shift in ((0x9E3779B1, 2), (0x85EBCA6B, 3), (0xC2B2AE35, 2)):
        x = (x * factor + 0x7F4A7C15) % size
        x ^= x >> max(math.ceil(bits / shift), 1)
    return x
