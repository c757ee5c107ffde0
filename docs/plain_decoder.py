"""Files of interleaved streams, decoded in plain Python and NumPy: slow, and short enough to check by eye.

`codes_of(payload)` gives the codes of a file whose coder is "two-way", "trellis" or "trellis-fronts". Of lattq it takes
the frozen tables, polynomials of trellis codes, and readers of side information and of transforms.
"""

import collections
import itertools

import msgpack
import numpy as np

from lattq.coding import cosets, tables
from lattq.coding.integers import decode_integers
from lattq.transforms import chains
from lattq.trellis.codes import POLYNOMIALS

WIDTH, SLOT_BITS, SIXTEEN = 64, 13, 1 << 16


def slots_of(counts, low):
    """[(integer, or None for an escape; slots; first slot)] from counts out of 2^24, the escape's last."""
    kept = np.flatnonzero(counts[:-1] >= 1 << 10)
    counted = [int(n) for n in counts[kept[0] : kept[-1] + 1]]
    counted.append((1 << 24) - sum(counted))
    slots = [max((n + (1 << 10)) >> 11, 1) for n in counted]
    slots[slots.index(max(slots))] += (1 << SLOT_BITS) - sum(slots)
    names = [*range(low + int(kept[0]), low + int(kept[0]) + len(slots) - 1), None]
    return list(zip(names, slots, np.cumsum([0, *slots[:-1]]).tolist(), strict=True))


CERTAIN = [(0, (1 << SLOT_BITS) - 1, 0), (None, 1, (1 << SLOT_BITS) - 1)]
made = {}


def table_of_code(scale_class):
    """Table and low bits of a scalar code."""
    low = max(0, -((62 - scale_class) // 8))
    rest = scale_class - 8 * low
    if ("code", rest) not in made:
        made["code", rest] = slots_of(tables.gaussian_counts(rest), -tables.limit(rest)) if rest else CERTAIN
    return made["code", rest], low


def table_of_half(scale_class, parity):
    """Table and low bits of m, where a code of a trellis is 2 m + parity."""
    low = max(0, -((70 - scale_class) // 8))
    if scale_class == parity == 0:
        return CERTAIN, 0
    name = "half", scale_class - 8 * low, 2 if low else parity
    if name not in made:
        rest, half = max(scale_class, 1) - 8 * low, 4 * (low > 0)  # half a cell further, where there are low bits
        index = int(cosets.coset_index(np.array([0 if low else parity]), 2, np.array([rest]))[0]) + half
        made[name] = slots_of(cosets.counts(index), -cosets.limit(index))
    return made[name], low


class Stream:
    """States of lanes and words that they share."""

    def __init__(self, data):
        lanes = 1 << data[0]
        body = data[1:] + bytes(max(0, 5 - len(data)))  # a single state may be short
        self.states = [int(x) for x in np.frombuffer(body, "<u4", lanes)]
        self.words = [int(x) for x in np.frombuffer(body, "<u2", offset=4 * lanes)]
        self.number = 0

    def refilled(self, lane, state):
        """Put a state back, with the next word as its last digits if it has become small."""
        if state < SIXTEEN and self.words:
            state = state << 16 | self.words.pop(0)
        self.states[lane] = state

    def bits(self, lane, size):
        """The last bits of a state."""
        state = self.states[lane]
        self.refilled(lane, state >> size)
        return state & ((1 << size) - 1)

    def symbol(self, lane, table):
        """The symbol whose slot the last 13 bits of a state name."""
        high, slot = divmod(self.states[lane], 1 << SLOT_BITS)
        name, slots, first = next(one for one in table if one[2] <= slot < one[2] + one[1])
        self.refilled(lane, slots * high + slot - first)
        return name

    def escaped(self, lane, table):
        """An integer that the table does not hold."""
        below, length = self.bits(lane, 1), 0
        while length < 59 and not self.bits(lane, 1):
            length += 1
        far = 1 << length
        for place in range(0, length, 16):
            far |= self.bits(lane, min(16, length - place)) << place
        return table[0][0] - far if below else table[-2][0] + far

    def step(self, kinds):
        """Integers of (table, low bits), one for each lane in turn: first all symbols, then what is left of each."""
        lanes = [(self.number + i) % len(self.states) for i in range(len(kinds))]
        self.number += len(kinds)
        found = [self.symbol(lane, table) for lane, (table, _) in zip(lanes, kinds, strict=True)]
        for i, (lane, (table, low)) in enumerate(zip(lanes, kinds, strict=True)):
            if found[i] is None:
                found[i] = self.escaped(lane, table)
            for size in (min(low, 16), low - min(low, 16)):
                found[i] = found[i] << size | self.bits(lane, size)
        return found


def classes_of(scales, shape, prior, largest=265):
    """Scale class of every code from the noise class and the coded classes of rows and columns."""
    noise, rows, columns = scales[0], decode_integers(scales[1], shape[0]), decode_integers(scales[2], shape[1])
    columns = columns + prior
    share = tables.SHARE[np.clip(columns - noise, 0, len(tables.SHARE) - 1)]
    shifted = columns + (rows[:, None] * share + 8 >> 4)
    return np.where(columns > 0, np.clip(shifted, 1, largest), 0)


def cut(length, segment):
    """Where the sequences begin and end that something of this length is cut into."""
    return np.linspace(0, length, max(1, length // segment) + 1).astype(int).tolist()


def steps_of_columns(shape, live, segment, block):
    """For each stream its steps: places that are decoded side by side, each with the sequence that it belongs to."""
    rows, columns = shape
    width = max(1, -(-block // rows))
    ends = cut(rows, segment) if segment else [0, rows]
    for start in range(0, columns, width):
        some = [j for j in range(start, min(start + width, columns)) if live[j]]
        yield [
            [((r, j), (low, j)) for j in some[left : left + WIDTH]]
            for low, high in itertools.pairwise(ends)
            for left in range(0, len(some), WIDTH)
            for r in range(low, high)
        ]


def steps_of_fronts(shape, segment, height, block):
    """As `steps_of_columns`, along fronts: entries (r, j) with the same (r mod height) + j."""
    rows, columns = shape
    fronts = [
        [(r, k - r % height) for r in range(rows) if 0 <= k - r % height < columns] for k in range(height + columns - 1)
    ]
    sequence = {
        place: (k, low)
        for k, front in enumerate(fronts)
        for low, high in itertools.pairwise(cut(len(front), segment))
        for place in front[low:high]
    }
    first = 0
    for last in range(1, len(fronts) + 1):
        if sum(map(len, fronts[first:last])) >= block or last == len(fronts):
            strips = (range(left, min(left + WIDTH, last)) for left in range(first, last, WIDTH))
            places = ([(r, k - r % height) for k in strip] for strip in strips for r in range(rows))
            yield [step for row in places if (step := [(one, sequence[one]) for one in row if one in sequence])]
            first = last


def decode_stream(data, steps, classes, polynomials, codes):
    """Write the codes of one stream."""
    stream, states = Stream(data), collections.defaultdict(int)  # of the trellis, by sequence
    for step in steps:
        if polynomials is None:
            found = stream.step([table_of_code(int(classes[place])) for place, _ in step])
        else:
            high, low = polynomials
            parities = [(2 * states[one] & low).bit_count() % 2 for _, one in step]
            kinds = [table_of_half(int(classes[place]), z) for (place, _), z in zip(step, parities, strict=True)]
            halves = stream.step(kinds)
            for (_, one), m in zip(step, halves, strict=True):
                bit = m & 1 ^ (2 * states[one] & high).bit_count() % 2
                states[one] = (2 * states[one] + bit) % (1 << high.bit_length() - 1)
            found = [2 * m + z for m, z in zip(halves, parities, strict=True)]
        for (place, _), code in zip(step, found, strict=True):
            codes[place] = code
    if stream.words or set(stream.states) != {1 if len(stream.states) == 1 else SIXTEEN}:
        msg = "the stream holds other than its symbols"
        raise ValueError(msg)


def codes_of(payload):
    """Codes of a payload."""
    _, shape, _, transform, _, _, (kind, options), (*scales, streams), *_ = msgpack.unpackb(payload[:-8])
    exponents = chains.from_state(transform, shape[1]).exponents  # pyright: ignore[reportAttributeAccessIssue]
    classes = classes_of(scales, shape, 0 if exponents is None else exponents * 8 // 16)
    polynomials = None
    if kind == "two-way":
        streamed = steps_of_columns(shape, classes.any(axis=0), None, *options)
    elif kind == "trellis":
        states, segment, block = options
        polynomials, streamed = POLYNOMIALS[states], steps_of_columns(shape, classes.any(axis=0), segment, block)
    else:
        states, segment, height, block = options
        polynomials, streamed = POLYNOMIALS[states], steps_of_fronts(shape, segment, height, block)
    codes = np.zeros(shape, dtype=np.int32)
    for data, steps in zip(streams, streamed, strict=True):
        if data:
            decode_stream(data, steps, classes, polynomials, codes)
    return codes
