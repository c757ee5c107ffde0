"""The bits of lattice points: the point x costs -log2 of exp(-|x|² / 2s²) / Z(s), no more.

First comes the word that names the coset: its kind, then one of equally likely words. Then the parity of k of each
coordinate, given what the lattice still wants of the sum; the last is known. With its residue modulo 2 M
each coordinate has its place in a coset of the integers, whose tables are frozen. One scale serves all of a point.
Numbers that are in no point are multiples of `tail_step`, each with its own scale.
"""

import functools

import numpy as np

from lattq.coding.alphabets import bits, distributions, equals
from lattq.coding.cosets import log_partition
from lattq.coding.interleaved import Part, Reader, encode_parts, require_codes
from lattq.coding.slots import SHIFT, SlotTables, cosets_of, residue_kinds
from lattq.errors import DamagedFileError, InvalidInputError
from lattq.lattices.lattice import Lattice
from lattq.lattices.words import Words, tail_step, words_of_lattice

__all__ = ["decode_points", "encode_points", "partitions"]


@functools.cache
def partitions(lattice: Lattice) -> np.ndarray:
    """log2 Z of a number in a point, and of one by itself, for each class.

    >>> from lattq.lattices import E8
    >>> partitions(E8).shape
    (2, 266)
    """
    points = words_of_lattice(lattice).log_partition / lattice.dimension
    return np.stack([points, log_partition(0, tail_step(lattice))])


def encode_points(
    lattice: Lattice, points: np.ndarray, of_points: np.ndarray, alone: np.ndarray, of_alone: np.ndarray
) -> bytes:
    """The stream of points, one in a column, and of numbers in no point, with their scale classes, 1 or more.

    Raises `InvalidInputError` for a column that is no point of the lattice, or a number that is no multiple.

    >>> from lattq.lattices import D
    >>> points, alone = np.array([[1, 0], [1, 2]]), np.array([3])
    >>> stream = encode_points(D(2), points, np.array([25, 33]), alone, np.array([25]))
    >>> decode_points(D(2), stream, np.array([25, 33]), np.array([25]))
    (array([[1, 0],
           [1, 2]], dtype=int32), array([3], dtype=int32))
    """
    words, step = words_of_lattice(lattice), tail_step(lattice)
    word = words.find(points)
    folded = points * words.signs[word].T
    period = _period(words)
    parts = _words(lattice, word, of_points)
    if words.constrained:
        parts += _parities(words, word, folded // words.modulus & 1, of_points)
    if (alone % step).any():
        msg = f"{alone[alone % step != 0][0]} in a row that is in no point is not a multiple of {step}"
        raise InvalidInputError(msg)
    residues = folded & (period - 1)
    quotients = np.where(2 * residues > period, -1 - folded // period, folded // period)
    parts.append((quotients.ravel(), residue_kinds(of_points, residues, period).ravel(), cosets_of(period)))
    parts.append((alone // step, residue_kinds(of_alone, alone * 0, step), cosets_of(step)))
    return encode_parts(parts)


def decode_points(
    lattice: Lattice, stream: bytes, of_points: np.ndarray, of_alone: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Inverse of `encode_points`; raises `DamagedFileError`."""
    words, step, reader = words_of_lattice(lattice), tail_step(lattice), Reader(stream, "points")
    word, period = _read_words(reader, lattice, of_points), _period(words)
    residues = words.folded[word].T
    if words.constrained:
        residues = residues + words.modulus * _read_parities(reader, words, word, of_points)
    kinds = residue_kinds(of_points, residues, period)
    quotients = reader.take(kinds.ravel(), cosets_of(period)).reshape(residues.shape)
    alone = reader.take(residue_kinds(of_alone, of_alone * 0, step), cosets_of(step))
    reader.close()
    folded = period * np.where(2 * residues > period, -1 - quotients, quotients) + residues
    return require_codes(folded * words.signs[word].T), require_codes(step * alone)


def _period(words: Words) -> int:
    """What residues are known modulo: parities of k come first where the lattice knows their sum."""
    return 2 * words.modulus if words.constrained else words.modulus


@functools.cache
def kinds_of_words(lattice: Lattice) -> SlotTables:
    """Tables of the kinds of words, for the classes 1, 2 ..."""
    return distributions(words_of_lattice(lattice).kind_counts)


def members_of(words: Words) -> tuple[SlotTables, np.ndarray]:
    """Tables of the words of each kind that has several, and what a symbol of each kind is; 0 where there is one."""
    several = words.counts > 1
    tables, kinds = equals(tuple(words.counts[several].tolist()))
    return tables, kinds[np.maximum(np.cumsum(several) - 1, 0)]


def _words(lattice: Lattice, word: np.ndarray, classes: np.ndarray) -> list[Part]:
    """The kind of each word, and which of its kind it is; nothing where there is one."""
    words, parts = words_of_lattice(lattice), []
    kinds = words.kinds[word]
    if len(words.counts) > 1:
        parts.append((kinds, (classes - 1 << SHIFT).astype(np.uint32), kinds_of_words(lattice)))
    several = words.counts[kinds] > 1
    if several.any():
        tables, of_kinds = members_of(words)
        parts.append(((word - words.starts[kinds])[several], of_kinds[kinds[several]], tables))
    return parts


def _read_words(reader: Reader, lattice: Lattice, classes: np.ndarray) -> np.ndarray:
    """Inverse of `_words`."""
    words, kinds = words_of_lattice(lattice), np.zeros(classes.shape, dtype=np.int64)
    if len(words.counts) > 1:
        kinds = reader.take((classes - 1 << SHIFT).astype(np.uint32), kinds_of_words(lattice))
    several, found = words.counts[kinds] > 1, words.starts[kinds]
    if several.any():
        tables, of_kinds = members_of(words)
        place = reader.take(of_kinds[kinds[several]], tables)
        if (place >= words.counts[kinds[several]]).any():
            msg = f"word {place.max()} of a kind that has fewer; the file is damaged"
            raise DamagedFileError(msg)
        found[several] += place
    return found


def _parities(words: Words, word: np.ndarray, odd: np.ndarray, classes: np.ndarray) -> list[Part]:
    """All but the last, each given the parity of the sum from it on."""
    wanted = np.cumsum(odd[::-1], axis=0)[::-1] & 1
    kinds = (words.parity_kinds[words.states[word, i], wanted[i], classes - 1] for i in range(len(odd) - 1))
    return [(one, kind, bits()) for one, kind in zip(odd, kinds, strict=False)]


def _read_parities(reader: Reader, words: Words, word: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Inverse of `_parities`: one coordinate after the other, of all points at once."""
    odd = np.empty((words.residues.shape[1], len(word)), dtype=np.int64)
    wanted = words.parities[word]
    for i in range(len(odd) - 1):
        odd[i] = reader.take(words.parity_kinds[words.states[word, i], wanted, classes - 1], bits())
        wanted = wanted ^ odd[i]
    odd[-1] = wanted
    return odd
