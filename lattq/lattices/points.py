"""The bits of lattice points: the point x costs -log2 of exp(-|x|² / 2s²) / Z(s), no more.

First comes the word that names the coset: its kind, then one of equally likely words. Then the parity of k of each
coordinate, given what the lattice still wants of the sum; the last is known. With its residue modulo 2 M
each coordinate has its place in a coset of the integers, whose tables are frozen. One scale serves all of a point.
Numbers that are in no point are multiples of `tail_step`, each with its own scale.
"""

import functools

import constriction
import numpy as np

from lattq.coding.ans import BIT, COSETS, coder_of, decode_classes, encode_classes, require_codes, words_of
from lattq.coding.cosets import coset_index, log_partition
from lattq.coding.schema import WORDS, Inner, Record, checked
from lattq.coding.tables import TOTAL
from lattq.errors import DamagedFileError, InvalidInputError
from lattq.lattices.lattice import Lattice
from lattq.lattices.words import Words, tail_step, words_of_lattice

__all__ = ["decode_points", "encode_points", "partitions"]

Coder = constriction.stream.stack.AnsCoder
STREAM = Record(cosets=WORDS, words=Inner(), escapes=Inner())  # the last two are of `encode_classes`


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
) -> list:
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
    word, coder = words.find(points), Coder()
    folded = points * words.signs[word].T
    period = _period(words)
    if words.constrained:
        _encode_parities(coder, words, word, folded // words.modulus & 1, of_points)
    _encode_words(coder, words, word, of_points)
    if (alone % step).any():
        msg = f"{alone[alone % step != 0][0]} in a row that is in no point is not a multiple of {step}"
        raise InvalidInputError(msg)
    residues = folded & (period - 1)
    quotients = np.where(2 * residues > period, -1 - folded // period, folded // period)
    index = coset_index(residues, period, of_points)
    places = np.append(quotients, alone // step)
    indices = np.append(index, coset_index(alone * 0, step, of_alone))
    return [words_of(coder), *encode_classes(places, indices, COSETS)]


def decode_points(
    lattice: Lattice, stream: list, of_points: np.ndarray, of_alone: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Inverse of `encode_points`; raises `DamagedFileError`."""
    first, *rest = checked(STREAM, stream, "stream")
    words, step = words_of_lattice(lattice), tail_step(lattice)
    coder = coder_of(first)
    word, period = _decode_words(coder, words, of_points), _period(words)
    residues = words.folded[word].T
    if words.constrained:
        residues = residues + words.modulus * _decode_parities(coder, words, word, of_points)
    if not coder.is_empty():
        msg = f"{len(first)} bytes of cosets hold more than {word.size} of them; the file is damaged"
        raise DamagedFileError(msg)
    index = coset_index(residues, period, of_points)
    places = decode_classes(rest, np.append(index, coset_index(of_alone * 0, step, of_alone)), COSETS)
    quotients, alone = np.split(places, [index.size])
    quotients = quotients.reshape(index.shape)
    folded = period * np.where(2 * residues > period, -1 - quotients, quotients) + residues
    return require_codes(folded * words.signs[word].T), require_codes(step * alone)


def _period(words: Words) -> int:
    """What residues are known modulo: parities of k come first where the lattice knows their sum."""
    return 2 * words.modulus if words.constrained else words.modulus


def _kind_models(words: Words, classes: np.ndarray) -> list[tuple[np.ndarray, constriction.stream.model.Categorical]]:
    """Points of each class that occurs, and the model of their kinds; nothing to code where there is one kind."""
    if len(words.counts) == 1:
        return []
    models = np.ascontiguousarray(words.kind_counts / TOTAL)  # dyadic, so exact
    return [
        (np.flatnonzero(classes == index), constriction.stream.model.Categorical(models[index - 1], perfect=False))
        for index in np.unique(classes)
    ]


def _members(words: Words, kinds: np.ndarray) -> list[tuple[np.ndarray, constriction.stream.model.Uniform]]:
    """Points of each kind that has several words, and the model of which it is."""
    return [
        (np.flatnonzero(kinds == kind), constriction.stream.model.Uniform(int(count)))
        for kind, count in enumerate(words.counts)
        if count > 1
    ]


def _encode_words(coder: Coder, words: Words, word: np.ndarray, classes: np.ndarray) -> None:
    """The coder is a stack: what is decoded last goes in first."""
    kinds = words.kinds[word]
    places = (word - words.starts[kinds]).astype(np.int32)
    for members, model in reversed(_members(words, kinds)):
        coder.encode_reverse(places[members], model)
    for members, model in reversed(_kind_models(words, classes)):
        coder.encode_reverse(kinds[members].astype(np.int32), model)


def _decode_words(coder: Coder, words: Words, classes: np.ndarray) -> np.ndarray:
    """Inverse of `_encode_words`."""
    kinds = np.zeros(classes.shape, dtype=np.int64)
    for members, model in _kind_models(words, classes):
        kinds[members] = coder.decode(model, len(members))
    found = words.starts[kinds]
    for members, model in _members(words, kinds):
        found[members] += coder.decode(model, len(members))
    return found


def _encode_parities(coder: Coder, words: Words, word: np.ndarray, odd: np.ndarray, classes: np.ndarray) -> None:
    """All but the last, each given the parity of the sum from it on."""
    wanted = np.cumsum(odd[::-1], axis=0)[::-1] & 1
    for i in reversed(range(len(odd) - 1)):
        chance = words.chances[words.states[word, i], wanted[i], classes - 1]
        coder.encode_reverse(odd[i].astype(np.int32), BIT, chance)


def _decode_parities(coder: Coder, words: Words, word: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Inverse of `_encode_parities`: one coordinate after the other, of all points at once."""
    odd = np.empty((words.residues.shape[1], len(word)), dtype=np.int64)
    wanted = words.parities[word]
    for i in range(len(odd) - 1):
        odd[i] = coder.decode(BIT, words.chances[words.states[word, i], wanted, classes - 1])
        wanted = wanted ^ odd[i]
    odd[-1] = wanted
    return odd
