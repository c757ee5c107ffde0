"""Ungerboeck's one-dimensional trellis codes over the partition Z / 4Z, as sets of integer sequences."""

import dataclasses
import functools

import numpy as np
from jaxtyping import Float, Int

from lattq._options import as_integer, normalize
from lattq.errors import InvalidInputError
from lattq.trellis.viterbi import best_path

__all__ = ["TrellisCode"]

# Parity polynomials (h0, h1), bit i the coefficient of D^i; to 256 states from Ungerboeck, "Channel coding with
# multilevel/phase signals", IEEE Trans. Inf. Theory 28 (1982); larger ones from a search for the least second moment.
POLYNOMIALS = {
    4: (0o5, 0o2),
    8: (0o13, 0o4),
    16: (0o23, 0o4),
    32: (0o45, 0o10),
    64: (0o103, 0o24),
    128: (0o235, 0o126),
    256: (0o515, 0o362),
    512: (0o1751, 0o564),
    1024: (0o3357, 0o1450),
    4096: (0o12457, 0o3534),
}
LARGEST = 2.0**30


@dataclasses.dataclass(frozen=True)
class TrellisCode:
    """The integer sequences k whose residues mod 4 are the labels of a path through a shift register.

    With the input bits u, the residue of k_t is ``z0 + 2 z1``, where z0 = h1(D) u and z1 = h0(D) u mod 2 at time t.
    h1 has no constant term: z0, which tells even k from odd ones, depends on the past alone. So a decoder knows at each
    time whether k is even or odd, and an entropy coder loses nothing against integers of twice the spacing.

    Parameters
    ----------
    states : 4, 8, 16, 32, 64, 128, 256, 512, 1024 or 4096

    Examples
    --------
    >>> code = TrellisCode(4)
    >>> code.nearest(np.array([0.2, 0.9, -1.2, 2.4]))
    array([ 0,  2, -1,  3])
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

    def nearest(self, x: Float[np.ndarray, "*batch length"]) -> Int[np.ndarray, "*batch length"]:
        """The sequence of the code nearest to each sequence of `x`, starting in state 0.

        Raises `InvalidInputError` for a value that is not finite or beyond 2^30.
        """
        if x.ndim < 1 or not np.all(np.abs(x) <= LARGEST):
            largest = np.max(np.abs(x), initial=0.0)
            msg = f"`x` has shape {x.shape} and values up to {largest:.3g}; pass sequences of values below 2^30"
            raise InvalidInputError(msg)
        flat = np.asarray(x, dtype=np.float64).reshape(-1, x.shape[-1])
        residues = np.arange(4)
        found = residues + 4 * np.rint((flat[:, :, None] - residues) / 4)
        path = best_path((flat[:, :, None] - found) ** 2, self.labels)
        label = self.labels.ravel()[self._register(path)]
        return np.take_along_axis(found, label[:, :, None], axis=2)[:, :, 0].astype(np.int64).reshape(x.shape)

    def parities(self, codes: Int[np.ndarray, "*batch length"]) -> Int[np.ndarray, "*batch length"]:
        """z0 at each time: 0 where the code has even integers, 1 where it has odd ones.

        Raises
        ------
        InvalidInputError : for a sequence that is not in the code, naming the place

        Examples
        --------
        >>> code = TrellisCode(4)
        >>> code.parities(np.array([0, 2, -1, 3]))
        array([0, 0, 1, 1])
        """
        flat = codes.reshape(-1, codes.shape[-1])
        state, parity = np.zeros(len(flat), dtype=np.int64), np.empty_like(flat)
        for i in range(flat.shape[1]):
            first = self.labels[state, 0]
            parity[:, i] = first & 1
            if wrong := np.flatnonzero((flat[:, i] - first) & 1).tolist():
                row = wrong[0]
                msg = f"code {flat[row, i]} at index {i} of sequence {row} has a parity that this trellis cannot reach"
                raise InvalidInputError(msg)
            state = (2 * state + (((flat[:, i] - first) >> 1) & 1)) % self.states
        return parity.reshape(codes.shape)

    def _register(self, path: np.ndarray) -> np.ndarray:
        """Shift register at each time of a path of input bits, the latest bit lowest."""
        register = path.copy()
        for age in range(1, self.states.bit_length()):
            register[:, age:] += path[:, :-age] << age
        return register


def _parity(x: np.ndarray) -> np.ndarray:
    """Number of ones mod 2."""
    for shift in (16, 8, 4, 2, 1):
        x = x ^ (x >> shift)
    return x & 1
