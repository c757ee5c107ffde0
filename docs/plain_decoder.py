"""Files of interleaved streams, decoded in plain Python and NumPy: slow, and short enough to check by eye.

`codes_of(payload)` gives the codes of any file. Of lattq it takes what is no stream: the frozen tables, polynomials of
trellis codes, cosets of lattices, transforms, the order of fronts, and codes of fixed length.
"""

import collections
import functools
import itertools

import msgpack
import numpy as np

from lattq.coding import cosets, tables
from lattq.coding.fronts import Fronts
from lattq.coding.packing import unpack
from lattq.lattices.layout import Layout
from lattq.lattices.words import named, tail_step, words_of_lattice
from lattq.parts.registry import find
from lattq.transforms import chains
from lattq.trellis.codes import POLYNOMIALS

WIDTH, SLOTS, SIXTEEN = 64, 1 << 13, 1 << 16


def table(names, slots):
    """[(symbol, or None for an escape; slots; first slot)]."""
    return list(zip(names, slots, itertools.accumulate(slots, initial=0), strict=False))


def frozen(counts, low):
    """The table of integers from `low` on with counts out of 2^24, the escape's last."""
    kept = np.flatnonzero(counts[:-1] >= 1 << 10)
    counted = [int(n) for n in counts[kept[0] : kept[-1] + 1]]
    slots = [max((n + (1 << 10)) >> 11, 1) for n in [*counted, (1 << 24) - sum(counted)]]
    slots[slots.index(max(slots))] += SLOTS - sum(slots)
    return table([*range(low + int(kept[0]), low + int(kept[-1]) + 1), None], slots)


def proportional(counts):
    """The table of 0, 1 ... with such counts: whole slots, one at least, then by the largest remainders."""
    counts = np.array(counts, dtype=np.int64)
    whole, rest = np.divmod(SLOTS * counts, counts.sum())
    slots = np.maximum(whole, counts > 0)
    left = SLOTS - int(slots.sum())
    slots[np.argsort(-np.where(slots == whole, rest, -1), kind="stable")[: max(left, 0)]] += 1
    slots[slots.argmax()] += min(left, 0)
    return table(range(len(slots)), slots.tolist())


@functools.cache
def equal(size):
    """Table and low bits of integers below `size`."""
    low = max(0, (size - 1).bit_length() - 9)
    return proportional([min(1 << low, size - i) for i in range(0, size, 1 << low)]), low


def bit(chance):
    """Table and low bits of a bit that is 1 with this chance."""
    one = (1 + sum(8 * i * i + 8 * i + 2 <= SIXTEEN * min(chance, 1 - chance) for i in range(1, 64))) ** 2
    return table([0, 1], [one, SLOTS - one] if chance > 0.5 else [SLOTS - one, one]), 0


@functools.cache
def code(scale_class, parity=0):
    """Table and low bits of a scalar code."""
    low = max(0, -((62 - scale_class) // 8))
    rest = scale_class - 8 * low
    return frozen(tables.gaussian_counts(rest), -tables.limit(rest)) if rest else table([0, None], [SLOTS - 1, 1]), low


@functools.cache
def coset(scale_class, residue, modulus):
    """Table and low bits of m, where a code is `residue` + `modulus` m or minus that."""
    low, residue = max(0, -((62 + 8 * (modulus.bit_length() - 1) - scale_class) // 8)), min(residue, modulus - residue)
    if scale_class == residue == 0:
        return table([0, None], [SLOTS - 1, 1]), 0
    rest, half = max(scale_class, 1) - 8 * low, 4 * (low > 0)  # half a cell further, where there are low bits
    index = int(cosets.coset_index(np.array([0 if low else residue]), modulus, np.array([rest]))[0]) + half
    return frozen(cosets.counts(index), -cosets.limit(index)), low


half = functools.partial(coset, modulus=2)


class Stream:
    """States of lanes and words that they share."""

    def __init__(self, data):
        lanes, body = 1 << data[0] if data else 1, data[1:] or b"\1"
        size = 4 * lanes if lanes > 1 else min(len(body), 4 - len(body) % 2)
        self.states = [int(x) for x in np.frombuffer(body[:size] + bytes(-size % 4), "<u4")]
        self.words, self.number = [int(x) for x in np.frombuffer(body, "<u2", offset=size)], 0

    def refilled(self, lane, state):
        """Put a state back, with the next word as its last digits if it has become small."""
        self.states[lane] = state << 16 | self.words.pop(0) if state < SIXTEEN and self.words else state

    def bits(self, lane, size):
        """The last bits of a state."""
        state = self.states[lane]
        self.refilled(lane, state >> size)
        return state & ((1 << size) - 1)

    def symbol(self, lane, table):
        """The symbol whose slot the last 13 bits of a state name."""
        high, slot = divmod(self.states[lane], SLOTS)
        name, slots, first = next(one for one in table if one[2] <= slot < one[2] + one[1])
        self.refilled(lane, slots * high + slot - first)
        return name

    def escaped(self, lane, table):
        """An integer that the table does not hold."""
        below, length = self.bits(lane, 1), 0
        while length < 59 and not self.bits(lane, 1):
            length += 1
        far = sum(self.bits(lane, min(16, length - place)) << place for place in range(0, length, 16)) + (1 << length)
        return table[0][0] - far if below else table[-2][0] + far

    def step(self, kinds):
        """Integers of (table, low bits), one for each lane in turn: first all symbols, then what is left of each."""
        lanes = [(self.number + i) % len(self.states) for i in range(len(kinds))]
        self.number += len(kinds)
        found = [self.symbol(lane, table) for lane, (table, _) in zip(lanes, kinds, strict=True)]
        for i, (lane, (table, low)) in enumerate(zip(lanes, kinds, strict=True)):
            found[i] = self.escaped(lane, table) if found[i] is None else found[i]
            for size in (min(low, 16), low - min(low, 16)):
                found[i] = found[i] << size | self.bits(lane, size)
        return found

    def take(self, kinds):
        """A part: integers of (table, low bits), in steps of 64."""
        kinds = list(kinds)
        steps = (kinds[i : i + WIDTH] for i in range(0, len(kinds), WIDTH))
        return np.array([m for step in steps for m in self.step(step)], dtype=np.int64)

    def close(self):
        """Raise `ValueError` unless the stream has come to its end."""
        if self.words or set(self.states) != {1 if len(self.states) == 1 else SIXTEEN}:
            raise ValueError("the stream holds other than its symbols")  # noqa: EM101


def integers(stored, size):
    """Side information."""
    centre, index, data = stored
    return centre + (Stream(data).take([code(index)] * size) if index else np.zeros(size, dtype=np.int64))


def classes_of(rows, columns, noise):
    """Scale class of every code from those of rows, of columns and of the noise."""
    share = tables.SHARE[np.clip(columns - noise, 0, len(tables.SHARE) - 1)]
    return np.where(columns > 0, np.clip(columns + (rows[:, None] * share + 8 >> 4), 1, 265), 0)


def cut(length, segment):
    """Where the sequences begin and end that something of this length is cut into."""
    return np.linspace(0, length, max(1, length // segment) + 1).astype(int).tolist()


def blocks(live, rows, block):
    """For each stream the columns that hold anything."""
    width = max(1, -(-block // rows))
    return [[j for j in range(i, min(i + width, len(live))) if live[j]] for i in range(0, len(live), width)]


def steps_of_columns(columns, ends):
    """Places that are decoded side by side, each with the sequence that it belongs to."""
    for low, high in itertools.pairwise(ends):
        for left, r in itertools.product(range(0, len(columns), WIDTH), range(low, high)):
            yield [((r, j), (low, j)) for j in columns[left : left + WIDTH]]


def steps_of_fronts(run, rows, segment, fronts):
    """As `steps_of_columns`, along fronts: entries (r, j) with the same (r mod height) + j."""
    places = {k: list(zip(*(one.tolist() for one in fronts.entries(k)), strict=True)) for k in run}
    cuts = {k: itertools.pairwise(cut(len(places[k]), segment)) for k in run}
    sequence = {place: (k, low) for k in run for low, high in cuts[k] for place in places[k][low:high]}
    for left, r in itertools.product(range(run.start, run.stop, WIDTH), range(rows)):
        row = [(r, k - r % fronts.height) for k in range(left, min(left + WIDTH, run.stop))]
        yield [(one, sequence[one]) for one in row if one in sequence]


def decode_stream(data, steps, classes, polynomials, codes):
    """Write scalar codes, or those of a trellis."""
    stream, states = Stream(data), collections.defaultdict(int)  # of the trellis, by sequence
    (high, low), table_of = (polynomials, half) if polynomials else ((1, 0), code)
    for step in steps:
        parities = [(2 * states[one] & low).bit_count() % 2 for _, one in step]
        kinds = [table_of(int(classes[place]), z) for (place, _), z in zip(step, parities, strict=True)]
        for (place, one), m, z in zip(step, stream.step(kinds), parities, strict=True):
            states[one] = (
                2 * states[one] + (m & 1 ^ (2 * states[one] & high).bit_count() % 2) & (1 << high.bit_length() - 1) - 1
            )
            codes[place] = 2 * m + z if polynomials else m
    stream.close()


def decode_points(data, name, of_points, of_alone):
    """Lattice points, as columns, and numbers in none."""
    stream, words, step = Stream(data), words_of_lattice(named(name)), tail_step(named(name))
    of_kinds = ((proportional(words.kind_counts[k - 1]), 0) for k in of_points)
    kinds = stream.take(of_kinds) if len(words.counts) > 1 else np.zeros(len(of_points), dtype=np.int64)
    word, several = words.starts[kinds], words.counts[kinds] > 1
    word[several] += stream.take(equal(int(words.counts[k])) for k in kinds[several])
    residues, wanted, period = words.folded[word].T.copy(), words.parities[word], words.modulus << words.constrained
    for i in range(len(residues) if words.constrained else 0):
        chances = words.chances[words.states[word, i], wanted, of_points - 1]
        odd = stream.take(map(bit, chances)) if i < len(residues) - 1 else wanted
        wanted, residues[i] = wanted ^ odd, residues[i] + words.modulus * odd
    every = zip(np.tile(of_points, len(residues)).tolist(), residues.ravel().tolist(), strict=True)
    m = stream.take(coset(k, r, period) for k, r in every).reshape(residues.shape)
    alone = step * stream.take(coset(int(k), 0, step) for k in of_alone)
    stream.close()
    return (period * np.where(2 * residues > period, -1 - m, m) + residues) * words.signs[word].T, alone


def decode_histogram(stored, number):
    """Integers with one histogram."""
    low, size, widths, counted, data = stored
    ends, stream = np.cumsum([0, *unpack(widths, 9, size)]), Stream(data)
    counts = [int.from_bytes(counted[a:b], "little") for a, b in itertools.pairwise(ends)]
    symbols = np.flatnonzero(counts)
    bits = max(0, (len(symbols) - 1).bit_length() - 11)
    cells = [sum(counts[s] for s in symbols[i : i + (1 << bits)]) for i in range(0, len(symbols), 1 << bits)]
    found, places, left = np.zeros(number, dtype=np.int64), np.arange(number), list(range(len(cells)))
    while len(left) > 1:
        held = [i for i in left if SLOTS * cells[i] >= sum(cells[j] for j in left)]
        rare = [i for i in left if i not in held]
        shared = proportional([cells[i] for i in held] + [sum(cells[i] for i in rare)] * bool(rare))
        names = np.array([*held, -1])[stream.take([(shared, 0)] * len(places))]
        found[places], places, left = names, places[names < 0], rare
    found[places] = left[0] if left else 0
    found = found << bits | (stream.take([equal(1 << bits)] * number) if bits else 0)
    stream.close()
    return low + symbols[found]


def codes_of(payload):
    """Codes of a payload."""
    _, shape, _, transform, _, _, (kind, options), data, *_ = msgpack.unpackb(payload[:-8])
    exponents = chains.from_state(transform, shape[1]).exponents  # pyright: ignore[reportAttributeAccessIssue]
    prior = np.zeros(shape[1], dtype=np.int64) if exponents is None else exponents * 8 // 16
    return codes_of_coder(kind, options, data, tuple(shape), prior)


def codes_of_coder(kind, options, data, shape, prior):
    """Codes that a coder wrote."""
    coder, codes = find("coder", kind).from_state(options, shape), np.zeros(shape, dtype=np.int32)
    if kind == "groups":
        width, parts = options
        for i, ((name, own), stored) in enumerate(zip(parts, data, strict=True)):
            span = slice(i * width, min((i + 1) * width, shape[1]))
            codes[:, span] = codes_of_coder(name, own, stored, codes[:, span].shape, prior[span])
    elif kind == "pooled":
        codes[:] = decode_histogram(data, codes.size).reshape(shape)
    elif kind == "indices" and coder.coded:
        indices = decode_histogram(data, codes.size // coder.dimension).reshape(coder.places(shape))
        codes[:] = indices.repeat(coder.dimension, axis=0 if coder.down else 1)
    elif kind == "nested" and coder.index != "packed":
        stream, first = Stream(data[0]), coder.first_columns(shape[1])
        codes[:] = stream.take([equal(coder.q)] * codes.size).reshape(shape)
        if coder.scales > 1:
            index = (proportional(data[1]), 0) if data[1] else equal(coder.scales)
            codes[:, first] += coder.q * stream.take([index] * codes[:, first].size).reshape(shape[0], -1)
        stream.close()
    elif kind in ("two-way", "trellis", "trellis-fronts", "lattice", "lattice-fronts"):
        decode_scaled(kind, coder, data, codes, prior)
    else:
        codes[:] = coder.decode(data, shape)
    return codes


def decode_scaled(kind, coder, data, codes, prior):
    """Codes with scale classes of rows and of columns."""
    noise, rows, known, *differences, streams = data
    rows, known = integers(rows, codes.shape[0]), integers(known, codes.shape[1]) + prior
    columns = known + integers(differences[0], len(known)) if differences else known
    classes, sequence = classes_of(rows, columns, noise), getattr(coder, "segment", len(rows))
    polynomials = POLYNOMIALS[coder.states] if kind.startswith("trellis") else None
    if kind == "lattice-fronts":
        for stream, layout in zip(streams, coder.layouts(rows, known), strict=True):
            points, of_points, alone, of_alone = layout.live(classes.reshape(-1))
            found, codes.reshape(-1)[alone] = decode_points(stream, coder.name, of_points, of_alone)
            codes.reshape(-1)[points] = found.T
    elif kind == "trellis-fronts":
        fronts = Fronts(len(codes), codes.shape[1], coder.height)
        for stream, run in zip(streams, fronts.runs(coder.block), strict=True):
            decode_stream(stream, steps_of_fronts(run, len(codes), coder.segment, fronts), classes, polynomials, codes)
    elif kind == "lattice":
        layout, n = Layout(rows, coder.lattice.dimension), coder.lattice.dimension
        classes, whole = classes_of(layout.classes, columns, noise), layout.whole
        for stream, some in zip(streams, blocks(columns > 0, len(rows), coder.block), strict=True):
            of_points, of_alone = np.split(classes[:, some], [whole // n])
            points, alone = decode_points(stream, coder.name, of_points.ravel(), of_alone.ravel())
            points = points.reshape(n, whole // n, len(some)).transpose(1, 0, 2).reshape(whole, len(some))
            codes[layout.order[:, None], some] = np.concatenate([points, alone.reshape(of_alone.shape)])
    else:
        for stream, some in zip(streams, blocks(columns > 0, len(rows), coder.block), strict=True):
            decode_stream(stream, steps_of_columns(some, cut(len(rows), sequence)), classes, polynomials, codes)
