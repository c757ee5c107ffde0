"""How the points of a lattice fall into cosets, and frozen probabilities of a sampled Gaussian on it.

A point is r + M k: r is a word of residues mod M, and the sum of the integers k has a parity that the word knows; in Z
and the dual of D it is free. Let u be the probability that one k is odd, and ρ = 1 - 2u. Then a sum of k has the parity
w with probability (1 + (-1)^w R) / 2, where R is the product of the ρ. Residues above M/2 are those of the negative
number, and M/2 itself has ρ = 0; so all that is left of R is one ρ to the power of the coordinates that are not M/2.

Words with as many such coordinates are equally likely: a kind. From (theory 4.10) to (4.12) follow the probability of
each kind, and of each parity given those before it; the product over a point is its exact probability.
"""

import dataclasses
import functools
import hashlib
import math
import re

import numpy as np

from lattq._array import short_repr
from lattq.coding.alphabets import bit_kinds
from lattq.coding.cosets import MOST, log_partition, on_grid, scale
from lattq.coding.schema import Text
from lattq.coding.tables import TOTAL
from lattq.errors import InvalidInputError, LattqError, shown
from lattq.lattices import catalogue
from lattq.lattices.codes import code_words, golay, reed_muller
from lattq.lattices.lattice import Lattice

__all__ = [
    "LARGEST_DIMENSION",
    "NAME",
    "Words",
    "cell_side",
    "check_fingerprint",
    "named",
    "tail_step",
    "words_of_lattice",
]

FAMILIES = {"Z": catalogue.Z, "D": catalogue.D, "D_dual": catalogue.D_dual}
SINGLE = {lattice.name: lattice for lattice in (catalogue.E8, catalogue.BW16, catalogue.Leech24)}
LARGEST_DIMENSION = 32  # of a family in a file: its tables grow with it, and no cell there is rounder
NAME = Text(r"E8|BW16|Leech24|(Z|D|D_dual)\([1-9]\d?\)")
PINNED = ("D(4)", "D_dual(3)", *SINGLE)
FINGERPRINT = "898358c50c06e469"


def named(name: str) -> Lattice:
    """The lattice of this name, if it has as many coordinates as dimensions.

    >>> named("D(4)"), named("E8")
    (Lattice(D(4)), Lattice(E8))
    """
    text = name if isinstance(name, str) else ""
    if text in SINGLE:
        return SINGLE[text]
    found = re.fullmatch(r"(Z|D|D_dual)\((\d{1,2})\)", text)
    if not found or int(found[2]) > LARGEST_DIMENSION:
        msg = (
            f"`name` is {shown(name)}; n integers in n dimensions are points of Z(n), D(n), D_dual(n), n up to "
            f"{LARGEST_DIMENSION}, E8, BW16, Leech24"
        )
        raise InvalidInputError(msg)
    return FAMILIES[found[1]](int(found[2]))


def cell_side(lattice: Lattice) -> float:
    """Side of a cube of the volume of a cell, in integer coordinates.

    >>> cell_side(catalogue.E8)
    2.0
    """
    return lattice.volume ** (1 / lattice.dimension) * lattice.integer_scale


def tail_step(lattice: Lattice) -> int:
    """The power of two nearest to the side of a cell: spacing of codes that belong to no point.

    >>> tail_step(catalogue.E8), tail_step(catalogue.D(4)), tail_step(catalogue.Leech24)
    (2, 1, 2)
    """
    return 2 ** math.ceil(math.log2(cell_side(lattice)) - 0.5 - 1e-9)


@short_repr
@dataclasses.dataclass(frozen=True, eq=False)
class Words:
    """Cosets of a lattice, sorted by kind, and probabilities for the scale classes 1 ... MOST of integer coordinates.

    Attributes
    ----------
    modulus : M
    residues : of each word; shape (words, n)
    kinds : kind of each word
    parities : of the sum of k of each word, where coordinates with residues above M/2 count as their negatives
    constrained : whether the sum of k has that parity
    """

    modulus: int
    residues: np.ndarray
    kinds: np.ndarray
    parities: np.ndarray
    constrained: bool

    @functools.cached_property
    def counts(self) -> np.ndarray:
        """Number of words of each kind."""
        return np.bincount(self.kinds)

    @functools.cached_property
    def starts(self) -> np.ndarray:
        """First word of each kind."""
        return np.cumsum(self.counts) - self.counts

    @functools.cached_property
    def signs(self) -> np.ndarray:
        """-1 where the residue is above M/2; shape (words, n)."""
        return np.where(2 * self.residues > self.modulus, -1, 1)

    @functools.cached_property
    def folded(self) -> np.ndarray:
        """Residues of the coordinates times their signs."""
        return np.minimum(self.residues, self.modulus - self.residues)

    @functools.cached_property
    def fair(self) -> np.ndarray:
        """Where the residue is M/2: odd and even k are mirror images."""
        return 2 * self.folded == self.modulus

    @functools.cached_property
    def skews(self) -> np.ndarray:
        """The folded residue of a word that is not M/2."""
        return np.where(self.fair, 0, self.folded).max(axis=1)

    @functools.cached_property
    def states(self) -> np.ndarray:
        """Row of `chances` of each coordinate of each word: skew, fair or not, and what is left after it."""
        size = self.residues.shape[1]
        left, fair_left = (_after(x) for x in (~self.fair, self.fair))
        return (2 * self.skews[:, None] + self.fair) * (size + 1) + np.where(fair_left > 0, size, left)

    @functools.cached_property
    def chances(self) -> np.ndarray:
        """Probability that k is odd: shape (states, parity of the sum from here on, classes)."""
        size = self.residues.shape[1]
        found = []
        for skew in range(int(self.skews.max()) + 1):
            odd = self._odd(skew)
            more, less = self._sums(skew, np.arange(size + 1)[:, None])
            skewed = np.stack([odd * less[:-1] / more[1:], odd * more[:-1] / less[1:]], axis=1)
            fair = np.stack([less[:-1], more[:-1]], axis=1) / 2
            for table, free in ((skewed, odd), (fair, np.full(MOST, 0.5))):
                found += [table, np.broadcast_to(free, (1, 2, MOST))]
        return on_grid(np.concatenate(found))

    @functools.cached_property
    def parity_kinds(self) -> np.ndarray:
        """What an entropy coder takes for `chances`, see `lattq.coding.alphabets.bits`."""
        return bit_kinds(np.rint(65536 * self.chances).astype(np.int64))

    @functools.cached_property
    def logs(self) -> np.ndarray:
        """log2 of the part of the partition function of each kind; shape (kinds, classes)."""
        found = []
        for count, word in zip(self.counts, self.starts, strict=True):
            skew, parity, fair = int(self.skews[word]), int(self.parities[word]), int(self.fair[word].sum())
            skewed = self.residues.shape[1] - fair
            log = math.log2(count) + skewed * log_partition(skew, self.modulus)[1:]
            if fair:
                log = log + fair * log_partition(self.modulus // 2, self.modulus)[1:]
            if self.constrained:
                sums = 1.0 if fair else self._sums(skew, np.array([[skewed]]))[parity][0]
                log = log + np.log2(sums) - 1
            found.append(log)
        return np.array(found)

    @functools.cached_property
    def log_partition(self) -> np.ndarray:
        """log2 Z for the classes 0 ... MOST; class 0 holds zeros only."""
        return np.append(0.0, np.maximum(np.logaddexp2.reduce(self.logs, axis=0), 0.0))

    @functools.cached_property
    def kind_counts(self) -> np.ndarray:
        """Integer probabilities of the kinds out of 2^24; shape (classes, kinds)."""
        shares = np.exp2(self.logs - self.log_partition[1:]).T
        found = np.maximum(np.rint(shares * TOTAL).astype(np.int64), 1)
        found[np.arange(MOST), found.argmax(axis=1)] += TOTAL - found.sum(axis=1)
        return found

    def find(self, points: np.ndarray) -> np.ndarray:
        """Word of each point, a column of integer coordinates; raises `InvalidInputError` for what is no point."""
        weights = np.cumprod(np.append(1, np.full(len(points) - 1, self.modulus)))
        keys = self.residues @ weights
        order = np.argsort(keys)
        place = np.searchsorted(keys[order], weights @ (points & (self.modulus - 1)))
        word = order[np.minimum(place, len(order) - 1)]
        wrong = (points & (self.modulus - 1) != self.residues[word].T).any(axis=0)
        if self.constrained:
            k = (points * self.signs[word].T) // self.modulus
            wrong |= (k.sum(axis=0) & 1) != self.parities[word]
        if wrong.any():
            msg = f"{points[:, wrong.argmax()].tolist()} is not a point of the lattice; pass codes of its quantizer"
            raise InvalidInputError(msg)
        return word

    def _odd(self, residue: int) -> np.ndarray:
        """u, the probability that k is odd, for each class: at most 1/2."""
        even, odd = (log_partition(residue + shift, 2 * self.modulus)[1:] for shift in (0, self.modulus))
        return np.minimum(1 / (1 + np.exp2(even - odd)), 0.5)

    def _sums(self, residue: int, power: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """1 + ρ^power and 1 - ρ^power, to all digits."""
        with np.errstate(divide="ignore", invalid="ignore"):
            less = np.where(power > 0, -np.expm1(power * np.log1p(-2 * self._odd(residue))), 0.0)
        return 2 - less, less


def _after(marks: np.ndarray) -> np.ndarray:
    """How many marks follow each place of a row."""
    return np.cumsum(marks[:, ::-1], axis=1)[:, ::-1] - marks


@functools.cache
def words_of_lattice(lattice: Lattice) -> Words:
    """The cosets of a lattice that `named` knows.

    >>> words_of_lattice(catalogue.Leech24).counts.tolist()
    [1, 759, 2576, 759, 1, 4096]
    """
    n, family = lattice.dimension, lattice.name.split("(")[0]
    zeros = np.zeros((1, n), dtype=np.int64)
    parities = None
    if family in ("Z", "D"):
        modulus, residues = 1, zeros
    elif family in ("D_dual", "E8"):
        modulus, residues = 2, np.concatenate([zeros, zeros + 1])
    elif family == "BW16":
        modulus, residues = 2, code_words(reed_muller())
    else:
        words = 2 * code_words(golay())
        modulus, residues = 4, np.concatenate([words, words + 1])
        parities = residues[:, 0] & 1  # an even number of coordinates 3 changes nothing
    folded = np.minimum(residues, modulus - residues)
    fair = 2 * folded == modulus
    keys = np.where(fair, 0, folded).max(axis=1) * (n + 1) + fair.sum(axis=1)
    kinds = np.unique(keys, return_inverse=True)[1]
    order = np.argsort(kinds, kind="stable")
    parities = np.zeros(len(kinds), dtype=np.int64) if parities is None else parities
    return Words(modulus, residues[order], kinds[order], parities[order], family not in ("Z", "D_dual"))


def expected_gains(lattice: Lattice) -> np.ndarray:
    """LMMSE gains 1 - (noise of the cell) / s² for the classes 0 ... MOST, in 128ths; 128 for class 0."""
    if lattice.nsm is None:
        msg = f"{lattice.name} has no known second moment"
        raise InvalidInputError(msg)
    noise = lattice.nsm * cell_side(lattice) ** 2
    gains = np.rint(128 * np.maximum(1 - noise / np.square(scale(np.arange(MOST + 1))), 0.25)).astype(np.int64)
    gains[0] = 128
    return gains


@functools.cache
def check_fingerprint() -> None:
    """Raise if this platform computes other tables than those that wrote the files."""
    digest = hashlib.blake2b(digest_size=8)
    for name in PINNED:
        words = words_of_lattice(named(name))
        digest.update(words.residues.astype("<i8").tobytes() + words.kind_counts.astype("<i8").tobytes())
        digest.update(words.chances.astype("<f8").tobytes() + expected_gains(named(name)).astype("<i8").tobytes())
    if digest.hexdigest() != FINGERPRINT:
        msg = f"lattice tables come out as {digest.hexdigest()} here, files are written with {FINGERPRINT}; report it"
        raise LattqError(msg)
