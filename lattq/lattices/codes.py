"""The two binary codes behind the lattices in 16 and 24 dimensions, and systematic encoding."""

import functools

import numpy as np
from jaxtyping import Int

__all__ = ["code_words", "golay", "information_positions", "octets", "reed_muller"]


def code_words(generator: Int[np.ndarray, "k n"]) -> Int[np.ndarray, "words n"]:
    """All sums mod 2 of rows; word m has row j where bit j of m is set.

    Examples
    --------
    >>> code_words(np.array([[1, 1, 0], [0, 1, 1]])).tolist()
    [[0, 0, 0], [1, 1, 0], [0, 1, 1], [1, 0, 1]]
    """
    messages = (np.arange(2 ** len(generator))[:, None] >> np.arange(len(generator))) & 1
    return messages @ generator % 2


def information_positions(
    generator: Int[np.ndarray, "k n"],
) -> tuple[Int[np.ndarray, " k"], Int[np.ndarray, "k n"]]:
    """Positions that determine a word, as far to the right as can be, and the generator that is the identity there.

    Examples
    --------
    >>> positions, systematic = information_positions(np.array([[1, 1, 0], [0, 1, 1]]))
    >>> positions.tolist(), systematic.tolist()
    ([2, 1], [[1, 0, 1], [1, 1, 0]])
    """
    rows, positions = generator % 2, []
    for column in reversed(range(rows.shape[1])):
        done = len(positions)
        pivots = done + np.flatnonzero(rows[done:, column])
        if len(pivots):
            rows[[done, pivots[0]]] = rows[[pivots[0], done]]
            others = (rows[:, column] == 1) & (np.arange(len(rows)) != done)
            rows[others] ^= rows[done]
            positions.append(column)
    return np.array(positions), rows


@functools.cache
def reed_muller() -> Int[np.ndarray, "5 16"]:
    """Generator of RM(1, 4), the affine functions of four bits: 32 words, of weights 0, 8 and 16.

    Examples
    --------
    >>> np.unique(code_words(reed_muller()).sum(axis=1), return_counts=True)[1].tolist()
    [1, 30, 1]
    """
    place = np.arange(16)
    return np.stack([np.ones(16, dtype=np.int64), *((place >> bit) & 1 for bit in range(4))])


def _hamming(taps: tuple[int, ...]) -> np.ndarray:
    """All-ones and three more rows that generate an extended cyclic Hamming code of length 8."""
    cyclic = np.isin(np.arange(7), taps).astype(np.int64)
    rows = np.stack([np.roll(cyclic, shift) for shift in range(3)])
    return np.concatenate([np.ones((1, 8), dtype=np.int64), np.insert(rows, 0, rows.sum(axis=1) % 2, axis=1)])


@functools.cache
def octets() -> Int[np.ndarray, "words eight"]:
    """The 128 words of even weight on 8 places, index ``16 glue + 2 inner + complement``.

    A word is h + k, with h in one Hamming code and k in another that shares with it only 0 and the all-ones word. Both
    are linear in their index up to complements: inner says which h, glue which k.
    """
    one, other = _hamming((0, 1, 3)), _hamming((0, 2, 3))
    return code_words(np.concatenate([one, other[1:]]))


@functools.cache
def golay() -> Int[np.ndarray, "12 24"]:
    """Generator of the Golay code as Turyn found it: words (a + x, b + x, a + b + x), a and b in one Hamming code, x in
    the other. Weights 0, 8, 12, 16, 24.

    References
    ----------
    MacWilliams and Sloane, "The Theory of Error-Correcting Codes" (1977), chapter 18, theorem 12.

    Examples
    --------
    >>> np.unique(code_words(golay()).sum(axis=1), return_counts=True)[1].tolist()
    [1, 759, 2576, 759, 1]
    """
    one, other = _hamming((0, 1, 3)), _hamming((0, 2, 3))
    zero = np.zeros_like(one)
    return np.block([[one, zero, one], [zero, one, one], [other, other, other]])
