"""The entropy coder of lattice points down the rows: the point x costs -log2 of exp(-|x|² / 2s²) / Z(s), no more.

First comes the word that names the coset: its kind, then one of equally likely words. Then the parity of k of each
coordinate, given what the lattice still wants of the sum; the last is known. With its residue modulo 2 M
each coordinate has its place in a coset of the integers, whose tables are frozen. Scales are those of columns times
those of rows, as in `TwoWay`; rows of like scale stand together in a point, and one scale serves all of it.
"""

import dataclasses
import functools

import constriction
import numpy as np

from lattq._options import as_integer, normalize
from lattq.coding import BaseCoder
from lattq.coding.ans import BIT, COSETS, coder_of, decode_classes, encode_classes, require_codes, words_of
from lattq.coding.column_blocks import BLOCK, check_block, column_blocks, wanted_blocks
from lattq.coding.cosets import MOST, coset_index, log_partition
from lattq.coding.damage import reading
from lattq.coding.schema import WORDS, Inner, Record, checked
from lattq.coding.squares import fit_squares, square_classes
from lattq.coding.tables import TOTAL
from lattq.coding.twoway import DATA, TwoWayModel, live_codes, read_scales, stored_scales
from lattq.errors import DamagedFileError, InvalidInputError
from lattq.lattices.lattice import Lattice
from lattq.lattices.layout import Layout
from lattq.lattices.words import NAME, Words, check_fingerprint, expected_gains, named, tail_step, words_of_lattice
from lattq.parts import register

__all__ = ["EntropyCodedLattice"]

Coder = constriction.stream.stack.AnsCoder
STREAM = Record(cosets=WORDS, words=Inner(), escapes=Inner())  # the last two are of `encode_classes`


@register("coder", "lattice")
@dataclasses.dataclass(frozen=True)
class EntropyCodedLattice(BaseCoder):
    """Coder of columns that are made of lattice points: `encode(codes)` and `decode(data, shape)`.

    In the order of the row classes, n rows after n rows are a point in integer coordinates. Rows that are left over at
    the end are multiples of `tail_step`, and coded one by one.

    Parameters
    ----------
    name : of the lattice: Z(n), D(n), D_dual(n), E8, BW16 or Leech24
    block : codes per independent stream, rounded up to whole columns; each costs some 20 bytes

    Examples
    --------
    >>> x = np.random.default_rng(0).normal(size=(5, 3, 24)) * 9
    >>> codes = named("Leech24").nearest_integer(x).transpose(0, 2, 1).reshape(120, 3)
    >>> coder = EntropyCodedLattice("Leech24")
    >>> bool((coder.decode(coder.encode(codes), codes.shape) == codes).all())
    True
    """

    name: str = "E8"
    block: int = 1 << 22

    carries = ("row_classes",)
    schema = Record(name=NAME, block=BLOCK)

    def __post_init__(self) -> None:
        normalize(self, as_integer, "block")
        check_block(self.block)
        _ = self.lattice

    @functools.cached_property
    def lattice(self) -> Lattice:
        """The lattice, which checks `name`."""
        return named(self.name)

    def encode(self, codes: np.ndarray, prior: np.ndarray | int = 0, row_classes: np.ndarray | None = None) -> list:
        """Streams and model of a (rows, columns) integer array; `prior` as in `TwoWay`.

        Parameters
        ----------
        row_classes : scale classes of the rows, which decide which rows make up a point; None where all are equal

        Raises
        ------
        InvalidInputError : for a column that is not made of lattice points
        """
        check_fingerprint()
        rows = np.zeros(len(codes), dtype=np.int64) if row_classes is None else row_classes
        layout = Layout(rows, self.lattice.dimension)
        ordered, alone = codes[layout.order], np.arange(len(codes)) >= layout.whole
        model = fit_squares(ordered, alone[:, None], self.partitions, np.repeat(layout.classes, layout.repeats), prior)
        grouped = dataclasses.replace(model, rows=layout.classes)
        blocks = column_blocks(codes.shape, self.block)
        streams = [self._encode_block(ordered[:, block], layout, square_classes(grouped, block)) for block in blocks]
        return [*stored_scales(dataclasses.replace(model, rows=rows), prior), streams]

    @reading("entropy-coded lattice")
    def decode(
        self, data: list, shape: tuple[int, int], prior: np.ndarray | int = 0, columns: slice | None = None
    ) -> np.ndarray:
        """Codes of all columns, or of the blocks that cover `columns` only; raises `DamagedFileError`."""
        check_fingerprint()
        model, streams = self._read(data, shape, prior)
        layout = Layout(model.rows, self.lattice.dimension)
        grouped = dataclasses.replace(model, rows=layout.classes)
        codes = np.zeros((shape[0], len(range(*(columns or slice(None)).indices(shape[1])))), dtype=np.int32)
        for block, stream, places, inside in wanted_blocks(streams, shape, self.block, columns):
            live = grouped.live(block)
            decoded = np.zeros((shape[0], block.stop - block.start), dtype=np.int32)
            decoded[:, live - block.start] = self._decode_block(stream, layout, square_classes(grouped, live))
            codes[layout.order[:, None], places] = decoded[:, inside]
        return codes

    def _read(self, data: list, shape: tuple[int, int], prior: np.ndarray | int) -> tuple[TwoWayModel, list]:
        *scales, streams = checked(DATA, data, "coded data", columns=shape[1])
        return read_scales(scales, shape, prior), streams

    def live(self, data: list, shape: tuple[int, int], prior: np.ndarray | int = 0) -> int:
        """How many codes `decode` has to find: those of columns that are not all zeros."""
        return live_codes(data, shape, prior)

    def to_state(self) -> list:
        """Name of the lattice and size of a block, for the container."""
        return [self.name, self.block]

    @staticmethod
    def from_state(state: list, shape: tuple[int, int]) -> "EntropyCodedLattice":
        """Inverse of `to_state`."""
        return EntropyCodedLattice(*checked(EntropyCodedLattice.schema, state, "coder"))

    def gains(self, data: list, shape: tuple[int, int], prior: np.ndarray | int = 0) -> np.ndarray:
        """LMMSE gains, in 128ths, that the column classes predict: 1 - (noise of a cell) / variance."""
        return expected_gains(self.lattice)[np.minimum(self._read(data, shape, prior)[0].columns, MOST)]

    def context(self, data: list, shape: tuple[int, int], prior: np.ndarray | int = 0) -> dict:
        """The row classes, which say where points lie."""
        return {"row_classes": self.row_classes(data, shape, prior)}

    def row_classes(self, data: list, shape: tuple[int, int], prior: np.ndarray | int = 0) -> np.ndarray | None:
        """Scale classes of the rows, as `encode` was given them; None where all are equal."""
        rows = self._read(data, shape, prior)[0].rows
        return rows if rows.any() else None

    @functools.cached_property
    def partitions(self) -> np.ndarray:
        """log2 Z of a row in a point, and of one by itself, for each class."""
        points = words_of_lattice(self.lattice).log_partition / self.lattice.dimension
        return np.stack([points, log_partition(0, tail_step(self.lattice))])

    def _encode_block(self, codes: np.ndarray, layout: Layout, classes: np.ndarray) -> list:
        """Rows of `codes` in order, classes of points and of the rows left over."""
        live = classes.max(axis=0) > 0
        points, alone = self._split(codes[:, live], layout)
        of_points, of_alone = np.split(classes[:, live], [layout.whole // layout.dimension])
        words, step = words_of_lattice(self.lattice), tail_step(self.lattice)
        word, coder = words.find(points), Coder()
        folded = points * words.signs[word].T
        period = _period(words)
        if words.constrained:
            _encode_parities(coder, words, word, folded // words.modulus & 1, of_points.ravel())
        _encode_words(coder, words, word, of_points.ravel())
        if (alone % step).any():
            msg = f"{alone[alone % step != 0][0]} in a row that is in no point is not a multiple of {step}"
            raise InvalidInputError(msg)
        residues = folded & (period - 1)
        quotients = np.where(2 * residues > period, -1 - folded // period, folded // period)
        index = coset_index(residues, period, of_points.ravel())
        places = np.append(quotients, alone // step)
        indices = np.append(index, coset_index(alone * 0, step, of_alone))
        return [words_of(coder), *encode_classes(places, indices, COSETS)]

    def _decode_block(self, stream: list, layout: Layout, classes: np.ndarray) -> np.ndarray:
        """Rows in order, of columns that hold anything."""
        first, *rest = checked(STREAM, stream, "stream")
        of_points, of_alone = np.split(classes, [layout.whole // layout.dimension])
        words, step = words_of_lattice(self.lattice), tail_step(self.lattice)
        coder = coder_of(first)
        word, period = _decode_words(coder, words, of_points.ravel()), _period(words)
        residues = words.folded[word].T
        if words.constrained:
            residues = residues + words.modulus * _decode_parities(coder, words, word, of_points.ravel())
        if not coder.is_empty():
            msg = f"{len(first)} bytes of cosets hold more than {word.size} of them; the file is damaged"
            raise DamagedFileError(msg)
        index = coset_index(residues, period, of_points.ravel())
        places = decode_classes(rest, np.append(index, coset_index(of_alone * 0, step, of_alone)), COSETS)
        quotients, alone = np.split(places, [index.size])
        quotients = quotients.reshape(index.shape)
        folded = period * np.where(2 * residues > period, -1 - quotients, quotients) + residues
        return require_codes(self._joined(folded * words.signs[word].T, step * alone.reshape(of_alone.shape), layout))

    def _split(self, codes: np.ndarray, layout: Layout) -> tuple[np.ndarray, np.ndarray]:
        """Points as columns, point after point and for each of them column after column; and the rows left over."""
        n = layout.dimension
        points = codes[: layout.whole].astype(np.int64).reshape(layout.whole // n, n, codes.shape[1])
        return points.transpose(1, 0, 2).reshape(n, -1), codes[layout.whole :].astype(np.int64)

    def _joined(self, points: np.ndarray, alone: np.ndarray, layout: Layout) -> np.ndarray:
        """Inverse of `_split`."""
        rows = points.reshape(layout.dimension, layout.whole // layout.dimension, alone.shape[1]).transpose(1, 0, 2)
        return np.concatenate([rows.reshape(layout.whole, alone.shape[1]), alone])


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
