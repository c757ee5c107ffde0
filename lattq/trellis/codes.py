"""Ungerboeck's one-dimensional trellis codes over the partition Z / 4Z, as sets of integer sequences."""

import dataclasses
import functools
import itertools
import math

import numpy as np
from jaxtyping import Float, Int, Integer

from lattq._array import as_reals, to_host
from lattq._options import as_integer, normalize
from lattq.errors import InvalidInputError

__all__ = ["TrellisCode", "segment_ends", "segments"]

# Parity polynomials (h0, h1), bit i the coefficient of D^i; for 4 and 8 states from Ungerboeck, "Channel coding with
# multilevel/phase signals", IEEE Trans. Inf. Theory 28 (1982). Those for 16 to 256 have the least second moments of all
# with the taps that `lattq.kernels.viterbi` needs, in segments of 512, that for 512 of forty thousand, and larger
# ones of a few. His have 0.06398, 0.06306, 0.06241, 0.06175, 0.06130: made for distances of sequences, not for cells.
POLYNOMIALS = {
    4: (0o5, 0o2),
    8: (0o13, 0o4),
    16: (0o33, 0o2),
    32: (0o61, 0o12),
    64: (0o127, 0o42),
    128: (0o251, 0o106),
    256: (0o625, 0o242),
    512: (0o1211, 0o406),
    1024: (0o3357, 0o1450),
    2048: (0o7711, 0o3032),
    4096: (0o12457, 0o3534),
}
# Squared errors of two million uniform samples (thirty for 16 to 512, 200 thousand for 4096), far from the ends, over
# the squared spacing of the supersets; standard errors are at most 3 units of the last digit.
SECOND_MOMENTS = {
    4: 0.06626,
    8: 0.06492,
    16: 0.06386,
    32: 0.06293,
    64: 0.06221,
    128: 0.06163,
    256: 0.06117,
    512: 0.06082,
    1024: 0.06064,
    2048: 0.06037,
    4096: 0.06021,
}
LARGEST = 2.0**30
LONGEST = 1 << 12  # rows of a segment: decoding takes a step for each, and longer ones save nothing that shows


@dataclasses.dataclass(frozen=True)
class TrellisCode:
    """The integer sequences k whose residues mod 4 are the labels of a path through a shift register.

    With the input bits u, the residue of k_t is ``z0 + 2 z1``, where z0 = h1(D) u and z1 = h0(D) u mod 2 at time t.
    h1 has no constant term: z0, which tells even k from odd ones, depends on the past alone. So a decoder knows at each
    time whether k is even or odd, and an entropy coder loses nothing against integers of twice the spacing.

    Parameters
    ----------
    states : 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048 or 4096

    Examples
    --------
    >>> code = TrellisCode(4)
    >>> code.nearest(np.array([0.2, 0.9, -1.2, 2.4]))
    array([ 0,  2, -1,  3], dtype=int32)
    """

    states: int

    def __post_init__(self) -> None:
        normalize(self, as_integer, "states")
        if self.states not in POLYNOMIALS:
            known = ", ".join(map(str, POLYNOMIALS))
            msg = f"`states` is {self.states}, for which there is no code; choose one of {known}"
            raise InvalidInputError(msg)

    @functools.cached_property
    def labels(self) -> Int[np.ndarray, "states two"]:
        """Residue mod 4 on the branch from each state (the last bits, the latest lowest) with each input bit."""
        h0, h1 = POLYNOMIALS[self.states]
        register = 2 * np.arange(self.states)[:, None] + np.arange(2)
        return _parity(register & h1) + 2 * _parity(register & h0)

    @property
    def polynomials(self) -> tuple[int, int]:
        """h0 of z1 and h1 of z0, bit i the coefficient of D^i."""
        return POLYNOMIALS[self.states]

    @property
    def second_moment(self) -> float:
        """Squared error per weight of unbounded sequences, where the supersets have spacing 1."""
        return SECOND_MOMENTS[self.states]

    def nearest(
        self,
        x: Float[np.ndarray, "*batch length"],
        *,
        odd: Float[np.ndarray, "*#batch #length"] | None = None,
        weight: Float[np.ndarray, "*#batch #length"] | None = None,
    ) -> Int[np.ndarray, "*batch length"]:
        """The sequence of the code nearest to each sequence of `x`, starting in state 0.

        Costs are searched in multiples of 1/256 (1/128 beyond 256 states), which makes the squared error of a sequence
        larger by at most its length times that (by 1e-4 of it in practice).

        Parameters
        ----------
        odd : price of an odd code, in squares of the spacing of the integers; prices beyond 4 count as 4
        weight : of each squared error, 0 to 1; like `odd` broadcast to the shape of `x`

        Raises
        ------
        InvalidInputError : for a value that is not finite or beyond 2^30, or a weight that is not between 0 and 1
        """
        x = to_host(as_reals("x", x))
        largest = max(np.max(x, initial=0.0), -np.min(x, initial=0.0))  # NaN if any is
        if x.ndim < 1 or not largest <= LARGEST:
            msg = f"`x` has shape {x.shape} and values up to {largest:.3g}; pass sequences of values below 2^30"
            raise InvalidInputError(msg)
        if weight is not None and not np.all((weight >= 0) & (weight <= 1)):
            msg = f"`weight` goes from {np.min(weight):.3g} to {np.max(weight):.3g}; scale it to 0 ... 1"
            raise InvalidInputError(msg)
        if odd is not None and not np.all(np.isfinite(odd)):
            msg = "`odd` has entries that are not finite; a price is a number"
            raise InvalidInputError(msg)
        if not x.size:
            return np.zeros(x.shape, dtype=np.int32)
        flat = x.reshape(-1, x.shape[-1])
        lengths = np.full(len(flat), x.shape[-1])
        extra = [None if v is None else np.broadcast_to(v, x.shape).reshape(flat.shape) for v in (odd, weight)]
        return self.search(flat, lengths, *extra).reshape(x.shape)

    def search(
        self, x: np.ndarray, lengths: np.ndarray, odd: np.ndarray | None = None, weight: np.ndarray | None = None
    ) -> Int[np.ndarray, "sequences longest"]:
        """`nearest` for sequences of unequal lengths, unchecked; what lies beyond their ends is ignored."""
        from lattq.kernels import viterbi  # numba takes long to import, and few need it

        extra = [None if v is None else np.ascontiguousarray(v, dtype=np.float32) for v in (odd, weight)]
        x = np.ascontiguousarray(x, dtype=np.promote_types(x.dtype, np.float32))
        return viterbi.nearest_codes(x, lengths, self.polynomials, *extra)

    def inputs(
        self, codes: Integer[np.ndarray, "*batch length"], lengths: Integer[np.ndarray, " sequences"] | None = None
    ) -> Integer[np.ndarray, "*batch length"]:
        """The input bits u of each sequence of the code; the feed-forward form goes back with `residues`.

        Where `lengths` are given, what lies beyond the end of a sequence is ignored.

        Raises
        ------
        InvalidInputError : for a sequence that is not in the code, naming the place

        Examples
        --------
        >>> code = TrellisCode(4)
        >>> code.inputs(np.array([0, 2, -1, 3]))
        array([0, 1, 1, 0], dtype=uint8)
        """
        residue = _time_first(codes) & 3
        found = _divided((residue >> 1).astype(np.uint8), self.polynomials[0])
        differ = _filtered(found, self.polynomials[1]) != (residue & 1)
        if lengths is not None:
            differ &= np.arange(len(differ))[:, None] < lengths
        wrong = np.argwhere(differ)
        if len(wrong):
            t, row = wrong[np.lexsort((wrong[:, 0], wrong[:, 1]))[0]]
            code = codes.reshape(-1, codes.shape[-1])[row, t]
            msg = f"code {code} at index {t} of sequence {row} has a parity that this trellis cannot reach"
            raise InvalidInputError(msg)
        return _time_last(found, codes.shape)

    def residues(self, inputs: Integer[np.ndarray, "*batch length"]) -> Integer[np.ndarray, "*batch length"]:
        """z0 + 2 z1, the codes mod 4, from the input bits: any window of log2(states) + 1 bits gives its last one.

        >>> TrellisCode(4).residues(np.array([0, 1, 1, 0]))
        array([0, 2, 3, 3], dtype=uint8)
        """
        bits = _time_first(inputs).astype(np.uint8)
        one, zero = (_filtered(bits, h) for h in self.polynomials)
        return _time_last(zero + 2 * one, inputs.shape)

    def parities(self, path: Integer[np.ndarray, "*batch length"]) -> Integer[np.ndarray, "*batch length"]:
        """z0 from the path z1 alone: the systematic form, in which h1(D) z1 = h0(D) z0 gives each z0 from the past.

        >>> TrellisCode(4).parities(np.array([0, 1, 1, 1]))
        array([0, 0, 1, 1], dtype=uint8)
        """
        bits = _time_first(path).astype(np.uint8)
        return _time_last(_divided(_filtered(bits, self.polynomials[1]), self.polynomials[0]), path.shape)


def segments(rows: int, length: int) -> list[slice]:
    """Cuts `rows` into sequences of at least `length`, if there are so many, that differ by at most one.

    Raises `InvalidInputError` for a length that no sequence has.

    >>> segments(10, 4), segments(3, 4)
    ([slice(0, 5, None), slice(5, 10, None)], [slice(0, 3, None)])
    """
    if not 1 <= length <= LONGEST:
        msg = f"`segment` is {length}; a sequence has 1 to {LONGEST} rows"
        raise InvalidInputError(msg)
    return [slice(a, b) for a, b in itertools.pairwise(segment_ends(rows, length).tolist())]


def segment_ends(rows: int, length: int) -> Int[np.ndarray, " ends"]:
    """Where segments begin and end.

    >>> segment_ends(10, 4)
    array([ 0,  5, 10])
    """
    return np.linspace(0, rows, max(1, rows // length) + 1).astype(np.int64)


def _ages(polynomial: int) -> list[int]:
    return [age for age in range(polynomial.bit_length()) if polynomial >> age & 1]


def _filtered(bits: np.ndarray, polynomial: int) -> np.ndarray:
    """h(D) u mod 2; time comes first."""
    found = np.zeros_like(bits)
    for age in _ages(polynomial):
        if age < len(bits):
            found[age:] ^= bits[: len(bits) - age]
    return found


def _divided(bits: np.ndarray, polynomial: int) -> np.ndarray:
    """u with h(D) u = `bits` mod 2, where h has a constant term: the inverse of `_filtered`, one time after the other.

    >>> _divided(_filtered(np.array([1, 1, 0, 1]), 0b1011), 0b1011)
    array([1, 1, 0, 1])
    """
    found = bits.copy()
    ages = _ages(polynomial >> 1)
    for t in range(len(found)):
        for age in ages:
            if age < t:
                found[t] ^= found[t - 1 - age]
    return found


def _time_first(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(x.reshape(math.prod(x.shape[:-1]), x.shape[-1]).T)


def _time_last(x: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return x.T.reshape(shape)  # a view where sequences are columns


def _parity(x: np.ndarray) -> np.ndarray:
    """Number of ones mod 2."""
    for shift in (16, 8, 4, 2, 1):
        x = x ^ (x >> shift)
    return x & 1
