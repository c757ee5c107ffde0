"""Coders of format 1: what they stored, as codes."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from lattq._format_1.streams import coder_of, coset, integers, model_of, require_end, stack, symbols
from lattq.coding import cosets
from lattq.coding.column_blocks import wanted_blocks
from lattq.coding.packing import unpack
from lattq.coding.schema import WORDS, Inner, Integer, Octets, Record, Series, checked
from lattq.coding.squares import square_classes
from lattq.coding.tables import TOTAL, expected_gain
from lattq.coding.twoway import WIDEST, TwoWayModel
from lattq.errors import DamagedFileError
from lattq.feedback.loop import GAIN_GRID
from lattq.lattices.layout import Layout
from lattq.lattices.words import expected_gains, tail_step, words_of_lattice
from lattq.trellis.coder import square_gains
from lattq.trellis.codes import POLYNOMIALS, segments

__all__ = ["READERS"]

TWO_WAY = Record(
    noise=Integer(-1000, WIDEST), of_rows=Inner(), of_columns=Inner(), streams=Series(Inner(), 1, lambda at: at.columns)
)
POOLED = Record(
    low=Integer(-(1 << 31), (1 << 31) - 1), size=Integer(1, 1 << 16), widths=Octets(), counts=Octets(), words=WORDS
)
NESTED = Record(words=WORDS, frequencies=Series(Integer(1, 1 << 12), 0, 256))
OLD_POLYNOMIALS = {
    **POLYNOMIALS, 16: (0o23, 0o4), 32: (0o45, 0o10), 64: (0o103, 0o24), 128: (0o235, 0o126), 256: (0o515, 0o362),
    512: (0o1751, 0o564),
}  # fmt: skip
FAIR = 35  # scale class from which on the path bits of a trellis were stored as they are


def _scales(data: Any, shape: tuple[int, int], prior: Any) -> tuple[TwoWayModel, list]:
    noise, rows, columns, streams = checked(TWO_WAY, data, "coded data", columns=shape[1])
    model = TwoWayModel(integers(rows, shape[0]), integers(columns, shape[1]) + prior, noise)
    if not (np.abs(model.rows).max() <= WIDEST and 0 <= model.columns.min() <= model.columns.max() <= WIDEST):
        msg = "scale classes beyond those that there are; the file is damaged"
        raise DamagedFileError(msg)
    return model, streams


Read = tuple[np.ndarray, Any, dict[str, Any]]  # codes, gains that the coder expects, what it stores for a quantizer


def _of_blocks(
    model: TwoWayModel, streams: list, shape: tuple[int, int], block: int
) -> Iterator[tuple[slice, Any, np.ndarray]]:
    """The blocks of columns, their streams, and which of their columns hold anything."""
    for one, stream, *_ in wanted_blocks(streams, shape, block, None):
        yield one, stream, model.live(one)


def _read_two_way(coder: Any, data: Any, shape: tuple[int, int], prior: Any, options: list) -> Read:
    model, streams = _scales(data, shape, prior)
    codes = np.zeros(shape, dtype=np.int64)
    for block, stream, _ in _of_blocks(model, streams, shape, coder.block):
        codes[:, block] = symbols(stream, model.classes(block).ravel()).reshape(shape[0], -1)
    return codes, np.array([expected_gain(int(k)) for k in model.columns]), {}


def _read_trellis(coder: Any, data: Any, shape: tuple[int, int], prior: Any, options: list) -> Read:
    model, streams = _scales(data, shape, prior)
    codes, cuts = np.zeros(shape, dtype=np.int64), segments(shape[0], coder.segment)
    h0, h1 = OLD_POLYNOMIALS[coder.states]
    for _, (raw, words, *rest), live in _of_blocks(model, streams, shape, coder.block):
        classes = square_classes(model, live)
        fair = (classes.min(axis=0, initial=0 if not live.size else 1 << 10) >= FAIR) | bool(options[2])
        bits = np.unpackbits(np.frombuffer(raw, dtype=np.uint8), bitorder="little")
        if len(raw) != -(-shape[0] * int(fair.sum()) // 8):
            msg = f"{len(raw)} bytes of path bits; the file is damaged"
            raise DamagedFileError(msg)
        path = bits[: shape[0] * int(fair.sum())].reshape(shape[0], -1).astype(np.int64)
        reader, residues = coder_of(words), np.empty(classes.shape, dtype=np.int64)
        state = np.zeros((len(cuts), live.size), dtype=np.int64)
        for t in range(max(cut.stop - cut.start for cut in cuts)):
            order = [i for i in np.argsort([c.start - c.stop for c in cuts], kind="stable") if _goes_on(cuts[i], t)]
            rows, now = np.array([cuts[i].start + t for i in order]), state[order]
            parity = _parity(2 * now & h1)
            upper = np.empty(now.shape, dtype=np.int64)
            upper[:, fair] = path[rows] ^ _parity(2 * now[:, fair] & h0)
            chance = np.where(parity, 0.5, cosets.upper_half()[classes[rows]])[:, ~fair]
            bit = stack().model.Bernoulli(perfect=False)
            if chance.size:
                upper[:, ~fair] = reader.decode(bit, chance.ravel()).reshape(chance.shape)
            residues[rows] = parity + 2 * upper
            state[order] = (2 * now + (upper ^ _parity(2 * now & h0))) & (coder.states - 1)
        require_end(reader, f"{len(words)} bytes of path bits")
        index = cosets.coset_index(residues, 4, classes.astype(np.int64))
        quotient = symbols(rest, index.ravel(), coset).reshape(index.shape)
        codes[:, live] = 4 * np.where(residues == 3, -1 - quotient, quotient) + residues
    return codes, square_gains(model.columns), {}


def _goes_on(cut: slice, time: int) -> bool:
    return cut.start + time < cut.stop


def _parity(register: np.ndarray) -> np.ndarray:
    return np.bitwise_count(register).astype(np.int64) & 1


def _read_lattice(coder: Any, data: Any, shape: tuple[int, int], prior: Any, options: list) -> Read:
    model, streams = _scales(data, shape, prior)
    layout, words = Layout(model.rows, coder.lattice.dimension), words_of_lattice(coder.lattice)
    grouped, codes = TwoWayModel(layout.classes, model.columns, model.noise), np.zeros(shape, dtype=np.int64)
    for _, (first, *rest), live in _of_blocks(model, streams, shape, coder.block):
        classes, whole = square_classes(grouped, live).astype(np.int64), layout.whole // layout.dimension
        of_points, of_alone = classes[:whole], classes[whole:]
        reader, step = coder_of(first), tail_step(coder.lattice)
        word = _words(reader, words, of_points.ravel())
        residues = words.folded[word].T
        if words.constrained:
            residues = residues + words.modulus * _parities(reader, words, word, of_points.ravel())
        require_end(reader, f"{len(first)} bytes of cosets")
        period = words.modulus * (1 + words.constrained)
        index = cosets.coset_index(residues, period, of_points.ravel())
        places = symbols(rest, np.append(index, cosets.coset_index(0 * of_alone, step, of_alone)), coset)
        quotients, alone = places[: index.size].reshape(index.shape), places[index.size :].reshape(of_alone.shape)
        folded = period * np.where(2 * residues > period, -1 - quotients, quotients) + residues
        points = (folded * words.signs[word].T).reshape(layout.dimension, whole, live.size).transpose(1, 0, 2)
        rows = np.concatenate([points.reshape(layout.whole, live.size), step * alone])
        codes[layout.order[:, None], live] = rows
    gains = expected_gains(coder.lattice)[np.minimum(model.columns, cosets.MOST)]
    return codes, gains, {"row_classes": model.rows if model.rows.any() else None}


def _words(reader: Any, words: Any, classes: np.ndarray) -> np.ndarray:
    """The word of each point: its kind, and which of the kind."""
    kinds, uniform = np.zeros(classes.shape, dtype=np.int64), stack().model.Uniform
    for index in np.unique(classes).tolist() if len(words.counts) > 1 else ():
        members = np.flatnonzero(classes == index)
        model = stack().model.Categorical(np.ascontiguousarray(words.kind_counts[index - 1] / TOTAL), perfect=False)
        kinds[members] = reader.decode(model, len(members))
    found = words.starts[kinds]
    for kind, count in enumerate(words.counts.tolist()):
        members = np.flatnonzero(kinds == kind)
        if count > 1:
            found[members] += reader.decode(uniform(count), len(members))
    return found


def _parities(reader: Any, words: Any, word: np.ndarray, classes: np.ndarray) -> np.ndarray:
    odd = np.empty((words.residues.shape[1], len(word)), dtype=np.int64)
    bit, wanted = stack().model.Bernoulli(perfect=False), words.parities[word]
    for i in range(len(odd) - 1):
        odd[i] = reader.decode(bit, words.chances[words.states[word, i], wanted, classes - 1])
        wanted = wanted ^ odd[i]
    odd[-1] = wanted
    return odd


def _read_pooled(coder: Any, data: Any, shape: tuple[int, int], prior: Any, options: list) -> Read:
    low, size, widths, stored, words = checked(POOLED, data, "histogram")
    ends = np.cumsum(unpack(widths, 9, size))
    counts = np.array([int.from_bytes(stored[a:b], "little") for a, b in zip([0, *ends[:-1]], ends, strict=True)])
    if counts.sum() != shape[0] * shape[1] or len(stored) != ends[-1]:
        msg = f"the histogram counts {counts.sum()} codes of {shape[0]} x {shape[1]}; the file is damaged"
        raise DamagedFileError(msg)
    reader = coder_of(words)
    codes = reader.decode(model_of(np.append(counts, [0] * (size == 1)), int(counts.sum())), shape[0] * shape[1])
    require_end(reader, f"{len(words)} bytes")
    return (codes.astype(np.int64) + low).reshape(shape), GAIN_GRID, {}


def _read_indices(coder: Any, data: Any, shape: tuple[int, int], prior: Any, options: list) -> Read:
    if not coder.coded:
        return _read_same(coder, data, shape, prior, options)
    indices = _read_pooled(coder, data, coder.places(shape), prior, options)[0]
    return np.repeat(indices, coder.dimension, axis=0 if coder.down else 1), GAIN_GRID, {}


def _read_nested(coder: Any, data: Any, shape: tuple[int, int], prior: Any, options: list) -> Read:
    if coder.index == "packed":
        return _read_same(coder, data, shape, prior, options)
    words, frequencies = checked(NESTED, data, "stream")
    reader, first, uniform = coder_of(words), coder.first_columns(shape[1]), stack().model.Uniform
    codes = reader.decode(uniform(coder.q), shape[0] * shape[1]).astype(np.int64).reshape(shape)
    if coder.scales > 1:
        model = model_of(np.array(frequencies), 1 << 12) if frequencies else uniform(coder.scales)
        index = reader.decode(model, shape[0] * int(first.sum()))
        codes[:, first] += coder.q * index.astype(np.int64).reshape(shape[0], -1)
    require_end(reader, f"{len(words)} bytes of digits")
    return codes, GAIN_GRID, {}


def _read_same(coder: Any, data: Any, shape: tuple[int, int], prior: Any, options: list) -> Read:
    """Coders whose bytes are what they were."""
    return coder.decode(data, shape, prior), GAIN_GRID, {}


READERS = {
    "two-way": _read_two_way,
    "trellis": _read_trellis,
    "lattice": _read_lattice,
    "pooled": _read_pooled,
    "indices": _read_indices,
    "nested": _read_nested,
    "fixed": _read_same,
}
