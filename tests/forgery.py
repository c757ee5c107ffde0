"""Forged and damaged files: small changes to what lattq wrote, most of them with the hash made right again."""

import copy
import dataclasses
import functools
import hashlib
import random
from collections.abc import Iterator
from typing import Any

import msgpack
import numpy as np

import lattq as lq
from lattq._payload import FORMAT
from lattq.coding.alphabets import bits as tables_of_bits
from lattq.coding.slots import cosets_of
from lattq.lattices.points import kinds_of_words, members_of, partitions
from lattq.lattices.words import named, words_of_lattice
from lattq.trellis.bitshift import CODES, BitshiftCode
from tests.schemes import every_scheme
from tests.strategies import moment

SHAPES = [(1, 1), (5, 12), (33, 16), (8, 1)]
NUMBERS = [
    *(-1, 0, 1, 2, 3, 4, 7, 8, 15, 16, 64, 255, 256, 257, 1000, 4096, 65535, 65536, 10**6, 1 << 20, (1 << 20) + 1),
    *(1 << 24, (1 << 31) - 1, 1 << 31, -(1 << 31), 1 << 40, 1 << 53, (1 << 53) + 1, (1 << 63) - 1, -(1 << 63)),
    (1 << 64) - 1,
]
FLOATS = [0.0, -0.0, 1.0, -1.0, 0.5, 1e-308, 5e-324, 1e38, 1e154, 1e308, -1e308, float("inf"), float("nan"), 2.0**511]
WORDS = ["", "uniform", "E8", "Leech24", "D(32)", "D(33)", "Z(99)", "A(9999)", "D_dual(4)", "identity", "chain",
         "coded", "packed", "float16", "e4m3", "int8", "e0m9", "nf9", "latin", "first", "x" * 1000]  # fmt: skip

Place = tuple[int, ...]
File = tuple[str, tuple[int, int], bytes]  # scheme, shape, payload


def seal(body: bytes) -> bytes:
    """A payload with the right hash, as another program, or another mind, might write it."""
    return body + hashlib.blake2b(body, digest_size=8).digest()


def packed(state: Any) -> bytes:
    return seal(bytes(msgpack.packb(state) or b""))


@functools.cache
def corpus() -> list[File]:
    """Name, shape and payload of every scheme on every shape."""
    found = []
    for shape in SHAPES:
        weight = np.random.default_rng(sum(shape)).standard_normal(shape)
        sigma = moment(np.geomspace(1, 30, shape[1]), shape[1])
        for name, scheme in every_scheme(shape[1]).items():
            found.append((name, shape, lq.quantize(weight, sigma, scheme).payload))
        found.append(("zeros", shape, lq.quantize(0 * weight, sigma, lq.recipes.watersic(0.3)).payload))
    return found


@functools.cache
def warm() -> list[File]:
    """The files that cases are made of, with all tables that are computed once for all files."""
    files = corpus()
    for _, shape, payload in files:
        lq.Quantized.from_payload(payload, shape).dequantize(np.float64)
    names = ["E8", "BW16", "Leech24", *(f"{family}({n})" for family in ("Z", "D", "D_dual") for n in range(2, 33))]
    for name in names:
        words = words_of_lattice(named(name))
        _ = (
            partitions(named(name)),
            words.parity_kinds,
            words.kind_counts,
            words.find(np.zeros((len(words.residues[0]), 1), int)),
            kinds_of_words(named(name)) if len(words.counts) > 1 else None,
            members_of(words) if max(words.counts) > 1 else None,
        )
    for bits in range(1, 5):
        for memory in range(bits, 17):
            for code in CODES:
                _ = BitshiftCode(bits, memory, code).values
    tables_of_bits()
    for modulus in (1, 2, 4, 8):
        cosets_of(modulus)
    return files


def places(state: Any, path: Place = ()) -> list[Place]:
    """Where every part of a nested list is, but for the whole."""
    found = [path] if path else []
    if isinstance(state, list):
        for index, item in enumerate(state):
            found += places(item, (*path, index))
    return found


def at(state: Any, path: Place) -> Any:
    for index in path:
        state = state[index]
    return state


def damaged(blob: bytes, rng: random.Random) -> bytes:
    """Bytes altered, cut off, or added."""
    kind = rng.randrange(4)
    place = rng.randrange(len(blob) or 1)
    if kind == 0:
        return blob[:place]
    if kind == 1 or not blob:
        return blob + rng.randbytes(rng.randint(1, 9))
    changed = bytearray(blob)
    for _ in range(rng.randint(1, 3)):
        changed[rng.randrange(len(blob))] = rng.choice([0, 0x7F, 0x80, 0x90, 0xC0, 0xCF, 0xFF, rng.randrange(256)])
    return bytes(changed)


def another(value: Any, rng: random.Random) -> Any:
    """Something else in the place of a value: of its kind, or of any."""
    if rng.random() < 0.3:
        value = rng.choice([None, True, False, 1, 1.0, b"", "x", [], {}])
    if isinstance(value, bool) or value is None:
        return rng.choice([None, True, False, rng.choice(NUMBERS), rng.choice(FLOATS), b"\x01\x02\x03\x04", []])
    if isinstance(value, int):
        return rng.choice([value - 1, value + 1, -value, 2 * value, rng.choice(NUMBERS), float(value), bool(value)])
    if isinstance(value, float):
        return rng.choice([-value, value * 2.0**600, rng.choice(FLOATS), rng.choice(NUMBERS)])
    if isinstance(value, str):
        return rng.choice([*WORDS, value[:-1], value + "1", value.encode()])
    if isinstance(value, bytes):
        return rng.choice([damaged(value, rng), rng.randbytes(len(value)), b"\xff" * len(value), b"\x00" * len(value)])
    if isinstance(value, list):
        nested: Any = value
        for _ in range(rng.choice([1, 2, 400])):
            nested = [nested]
        chain: Any = ["chain", [copy.deepcopy(value)]]
        return rng.choice([value[:-1], value + value[-1:], value[::-1], value * 3, nested, chain, value + [0] * 1000])
    return rng.choice([{}, {"a": 1}, []])


def forged(state: list, other: list, rng: random.Random) -> list:
    """A state with parts of it replaced: by other values, by parts of another file, by another shape."""
    found = copy.deepcopy(state)
    kind = rng.random()
    if kind < 0.2:  # kinds exchanged between files
        for index in rng.sample(range(2, 8), rng.randint(1, 3)):
            found[index] = copy.deepcopy(other[index])
        return found
    if kind < 0.25:
        found[1] = [rng.choice([1, 2, 8, 12, 4096, 1 << 20, rng.choice(NUMBERS)]) for _ in range(2)]
        return found
    for _ in range(rng.choice([1, 1, 2, 3])):
        path = rng.choice(places(found) or [(0,)])
        value = at(found, path)
        if rng.random() < 0.15:
            value = copy.deepcopy(at(other, rng.choice(places(other))))
        elif rng.random() < 0.1 and len(path) < 7:
            value = rng.choice([[x] for x in (value, 0, b"")])
        else:
            value = another(value, rng)
        at(found, path[:-1])[list(path)[-1]] = value
    return found


@dataclasses.dataclass(frozen=True)
class Case:
    """A file to read.

    Attributes
    ----------
    index, kind, name : number, what was done to it, and the scheme that wrote it
    blob : its bytes
    whole : whether they are those of `to_bytes`, or a payload
    shape : to expect, or None
    """

    index: int
    kind: str
    name: str
    blob: bytes
    whole: bool = False
    shape: tuple[int, int] | None = None


def cases(files: list[File], seed: int, start: int, stop: int) -> Iterator[Case]:
    """Files number `start` to `stop`; each depends on the seed and its number only."""
    states = [msgpack.unpackb(payload[:-8]) for _, _, payload in files]
    wholes = [lq.Quantized.from_payload(payload).to_bytes() for _, _, payload in files]
    for index in range(start, stop):
        rng = random.Random(seed * 1_000_003 + index)
        which = rng.randrange(len(files))
        name, shape, payload = files[which]
        expected = shape if rng.random() < 0.5 else None
        kind = rng.random()
        if kind < 0.1:
            yield Case(index, "damaged file", name, damaged(wholes[which], rng), True, expected)
        elif kind < 0.3:
            yield Case(index, "damaged body", name, seal(damaged(payload[:-8], rng)), False, expected)
        else:
            try:
                body = packed(forged(states[which], rng.choice(states), rng))
            except (OverflowError, RecursionError, ValueError):  # more than 64 bits, or than 500 lists in lists
                body = payload
            yield Case(index, "forged state", name, body, False, expected)


def huge() -> Iterator[Case]:
    """Short files of large shapes: zeros, and streams that would take long to find out that they are empty."""
    plain, uniform = [0, 0, b""], ["uniform", [1, 1, 1.0, 0.0, None, None]]
    for rows, columns in [(4096, 4096), (1024, 512), (1 << 18, 2), (1 << 20, 16), (1, 1 << 20), (1 << 20, 1 << 20)]:
        head = [FORMAT, [rows, columns]]
        for index in (0, 1, 25, 200):
            scales = [-1000, plain, [index, 0, b""]]
            coders = {
                "two-way": ([*uniform[1], 7], [1 << 18], b"\0\1"),
                "trellis": ([1.0, 4, 4096], [4, 4096, 1 << 20], b"\0\1"),
                "lattice": ([1.0, "D(4)"], ["D(4)", 1 << 22], b"\0\1"),
            }
            for kind, (quantizer, coder, stream) in coders.items():
                width = max(1, -(-coder[-1] // rows))
                data = [*scales, [stream] * min(-(-columns // width), 1 << 16)]
                name = "uniform" if kind == "two-way" else kind
                state = [*head, [name, quantizer], ["identity", []], None, None, [kind, coder], data]
                yield Case(0, f"{rows} x {columns} in class {index}", kind, packed(state))
        for kind, coder, data in (
            ("fixed", [1, 0], b""),
            ("pooled", [], [0, 1, b"\x08", (rows * columns).to_bytes(8, "little"), b""]),
        ):
            state = [*head, [uniform[0], [*uniform[1], None]], ["identity", []], None, None, [kind, coder], data]
            yield Case(0, f"{rows} x {columns}", kind, packed(state))
