"""Bitshift codes: paths and rings against brute force, windows, tables against slow arithmetic, errors on Gaussians."""

import hashlib
import itertools
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lattq.errors import InvalidInputError
from lattq.kernels import bitshift as kernel
from lattq.trellis.bitshift import LONGEST, SCALES, BitshiftCode, best_states
from tests.strategies import seeds

CODES = sorted(SCALES)
EPS = float(np.finfo(np.float32).eps)


def every_path(states: int, bits: int, length: int) -> np.ndarray:
    """States of all paths from all states, the one before the first value in front: (paths, 1 + length)."""
    symbols = np.array(list(itertools.product(range(1 << bits), repeat=length)))
    paths = np.empty((states * len(symbols), 1 + length), dtype=np.int64)
    paths[:, 0] = np.repeat(np.arange(states), len(symbols))
    for t in range(length):
        paths[:, t + 1] = ((paths[:, t] << bits) | np.tile(symbols[:, t], states)) % states
    return paths


def distance(x: np.ndarray, values: np.ndarray, states: np.ndarray) -> np.ndarray:
    return np.sum((x - values[states]) ** 2, axis=-1)


def small_cases() -> st.SearchStrategy:
    return st.sampled_from(
        [(1, 1, 3), (1, 2, 5), (1, 3, 4), (1, 4, 4), (2, 2, 3), (2, 3, 2), (2, 4, 3), (2, 5, 3), (3, 6, 2)]
    )


@given(seed=seeds, case=small_cases(), form=st.sampled_from([best_states, kernel.best_states]))
def test_no_path_is_nearer(seed: int, case: tuple[int, int, int], form):
    """Open, and from every past to the same; on dyadic numbers, so that float32 is exact too."""
    bits, memory, length = case
    if form is kernel.best_states and memory < 2 * bits:
        return
    rng = np.random.default_rng(seed)
    x, values = rng.integers(-32, 32, length) / 8, rng.integers(-32, 32, 1 << memory) / 8
    paths, pasts = every_path(len(values), bits, length), len(values) >> bits
    cost = distance(x, values, paths[:, 1:])
    found = form(x[None], values, bits)[0]
    assert distance(x, values, found) == cost.min()
    assert (found[1:] >> bits == found[:-1] % pasts).all()
    for past in range(pasts):
        closed = (paths[:, 0] % pasts == past) & (paths[:, -1] % pasts == past)
        if not closed.any():  # too short to fill the register
            continue
        found = form(x[None], values, bits, np.array([past]))[0]
        assert distance(x, values, found) == cost[closed].min()
        assert found[0] >> bits == found[-1] % pasts == past


@given(seed=seeds, bits=st.integers(1, 4), memory=st.integers(2, 9), length=st.integers(1, 40), closed=st.booleans())
def test_the_kernel_is_as_good_as_the_plain_form(seed: int, bits: int, memory: int, length: int, closed: bool):
    """A sum of so many terms in float32 is wrong by length + 3 rounding errors."""
    memory = max(memory, 2 * bits)
    length = max(length, -(-memory // bits))
    rng = np.random.default_rng(seed)
    x, values = rng.standard_normal((3, length)), rng.standard_normal(1 << memory)
    ends = rng.integers(0, len(values) >> bits, 3) if closed else None
    plain, native = best_states(x, values, bits, ends), kernel.best_states(x, values, bits, ends)
    limit = distance(x, values, plain) * (1 + 4 * (length + 3) * EPS) + 1e-12
    assert (distance(x, values, native) <= limit).all()


@given(
    seed=seeds, bits=st.integers(1, 2), memory=st.integers(2, 4), length=st.integers(4, 5), code=st.sampled_from(CODES)
)
def test_no_ring_is_nearer_than_the_best(seed: int, bits: int, memory: int, length: int, code: str):
    """Open path <= best ring <= ring found, and the ring found is a ring."""
    coder = BitshiftCode(bits, memory, code)
    x = np.random.default_rng(seed).standard_normal((4, length))
    rings = np.array(list(itertools.product(range(1 << bits), repeat=length)))
    best = np.array([((row - coder.decode(rings)) ** 2).sum(axis=1).min() for row in x])
    symbols = coder.encode(x)
    assert symbols.min() >= 0
    assert symbols.max() < 1 << bits
    found = ((x - coder.decode(symbols)) ** 2).sum(axis=1)
    opened = distance(x, coder.values, best_states(x, coder.values, bits))
    assert (opened <= best + 1e-12).all()
    assert (best <= found + 1e-12).all()


def test_long_rings_cost_little_more_than_the_best_ring():
    """All 16 seams tried, at 40 registers' length: the two passes lose below 1 %, and an open path is nearer.

    A search that leaves the ends to chance (any seam) loses more: the negative control.
    """
    coder = BitshiftCode(bits=2, memory=6)
    x = np.random.default_rng(4).standard_normal((200, 120))

    def loss(states: np.ndarray) -> np.ndarray:
        return distance(x, coder.values, states)

    seams = [loss(kernel.best_states(x, coder.values, 2, np.full(len(x), past))) for past in range(16)]
    best, found = np.min(seams, axis=0), ((x - coder.decode(coder.encode(x))) ** 2).sum(axis=1)
    assert (found >= best - 1e-3).all()
    assert found.mean() < 1.01 * best.mean()
    assert np.mean(seams) > 1.01 * best.mean()
    assert loss(kernel.best_states(x, coder.values, 2)).mean() < best.mean()


@given(
    seed=seeds, bits=st.integers(1, 4), memory=st.integers(1, 16), extra=st.integers(0, 9), code=st.sampled_from(CODES)
)
def test_windows_decode_alone(seed: int, bits: int, memory: int, extra: int, code: str):
    """The value at t is a function of `memory` bits that end there; a ring has no first value."""
    coder = BitshiftCode(bits, max(memory, bits), code)
    length = coder.shortest + extra
    symbols = np.random.default_rng(seed).integers(0, 1 << bits, (2, length))
    decoded = coder.decode(symbols)
    for row, values in zip(symbols, decoded, strict=True):
        text = "".join(f"{symbol:0{bits}b}" for symbol in row)
        for t in range(length):
            window = (text + text)[: (length + t + 1) * bits][-coder.memory :]
            assert values[t] == coder.values[int(window, 2)]
    np.testing.assert_array_equal(coder.decode(np.roll(symbols, 3, axis=1)), np.roll(decoded, 3, axis=1))


@given(
    seed=seeds,
    bits=st.integers(1, 4),
    memory=st.integers(1, 10),
    length=st.integers(1, 60),
    code=st.sampled_from(["lut", "latin"]),
)
def test_what_was_decoded_is_found_again(seed: int, bits: int, memory: int, length: int, code: str):
    """All values of these tables differ, so a ring has one path."""
    coder = BitshiftCode(bits, max(bits, memory), code).fitting(length)
    symbols = np.random.default_rng(seed).integers(0, 1 << bits, (2, length))
    np.testing.assert_array_equal(coder.encode(coder.decode(symbols)), symbols)


def slow_value(state: int, code: str) -> float:
    """The published codes in integers of any size, one state at a time."""
    if code == "1mad":
        word = (34038481 * state + 76625530) % 2**32
        return (sum(word.to_bytes(4, "little")) - 510) / 147.800537109375
    word = ((89226354 * state + 64248484) % 2**32 & 0x8FFF8FFF) ^ 0x3B603B60
    one, other = struct.unpack("<2e", word.to_bytes(4, "little"))
    return float(np.float16(one + other)) / 1.2444


@pytest.mark.parametrize("code", ["1mad", "3inst"])
def test_published_codes(code: str):
    """And over all 2^16 states mean and variance are 0 and 1 up to luck: four standard errors of a Gaussian's."""
    coder = BitshiftCode(2, 16, code)
    unit = coder.values / SCALES[code][1]
    for state in [0, 1, 2, 77, 65535, *range(5, 65536, 997)]:
        assert unit[state] == pytest.approx(slow_value(state, code), rel=1e-12, abs=1e-12)
    assert abs(unit.mean()) < 4 / 2**8
    assert abs(unit.var() - 1) < 4 * np.sqrt(2) / 2**8


@pytest.mark.parametrize("code", ["lut", "latin"])
@pytest.mark.parametrize(("bits", "memory"), [(1, 12), (2, 16), (3, 13), (4, 5), (4, 4)])
def test_tables_hold_each_quantile_once(code: str, bits: int, memory: int):
    unit = np.sort(BitshiftCode(bits, memory, code).values) / SCALES[code][bits - 1]
    assert (np.diff(unit) > 0).all()
    np.testing.assert_allclose(unit, -unit[::-1], rtol=1e-12)
    assert 1 - 4 / 2 ** (memory / 2) < unit.var() < 1


def parts(code: str, bits: int, memory: int) -> np.ndarray:
    """Which of 2^bits parts of equal probability the value of each state is in."""
    return np.argsort(np.argsort(BitshiftCode(bits, memory, code).values)) >> (memory - bits)


@pytest.mark.parametrize(("bits", "memory"), [(1, 2), (1, 9), (2, 4), (2, 9), (3, 10), (4, 12)])
def test_branches_that_part_or_meet_are_far_apart(bits: int, memory: int):
    """Those out of one past, and those into one, take one value of each part; in scrambled order they do not."""
    found = parts("latin", bits, memory)
    each = np.arange(1 << bits)
    out, into = found.reshape(-1, 1 << bits), found.reshape(1 << bits, -1).T
    assert (np.sort(out, axis=1) == each).all()
    assert (np.sort(into, axis=1) == each).all()
    if memory > 8:
        assert not (np.sort(parts("lut", bits, memory).reshape(-1, 1 << bits), axis=1) == each).all()


PINNED = {
    "1mad": "b463c86c376747c7",
    "3inst": "555221cd9bd21ebd",
    "latin": "da5a7706aa9d8c5e",
    "lut": "785efb947a2bd9df",
}


@pytest.mark.parametrize("code", CODES)
def test_tables_are_pinned(code: str):
    """Files name the code only, so its values are part of the format."""
    digest = hashlib.sha256(b"".join(BitshiftCode(bits, 11, code).values.tobytes() for bits in (1, 2, 3, 4)))
    assert digest.hexdigest()[:16] == PINNED[code]


def errors(code: BitshiftCode, tiles: int = 120, seed: int = 3) -> np.ndarray:
    """Squared error of each of some tiles of 256 Gaussians."""
    x = np.random.default_rng(seed).standard_normal((tiles, 256))
    return ((x - code.decode(code.encode(x))) ** 2).mean(axis=1)


def standard_error(values: np.ndarray) -> float:
    return float(values.std(ddof=1) / np.sqrt(len(values)))


@pytest.mark.parametrize(("memory", "reported"), [(8, 0.0880), (10, 0.0781), (12, 0.0730)])
def test_scrambled_quantiles_do_as_random_tables(memory: int, reported: float):
    """Three standard errors of a difference: the reported numbers, given to 1e-4, are taken to be as uncertain."""
    found = errors(BitshiftCode(2, memory, "lut"), 400)
    assert abs(found.mean() - reported) < 3 * np.sqrt(2) * standard_error(found) + 0.5e-4
    assert standard_error(found) < 0.01 * reported


@pytest.mark.parametrize("bits", [1, 2, 3, 4])
def test_order_saves_error(bits: int):
    """On the same tiles, by five standard errors of the difference; and nothing beats the bound 4^-R."""
    latin, lut = (errors(BitshiftCode(bits, 9, code), 60) for code in ("latin", "lut"))
    assert (lut - latin).mean() > 5 * standard_error(lut - latin)
    assert latin.mean() > 4.0**-bits


def test_sorted_quantiles_are_no_code():
    """Negative control: in natural order each symbol would have to be near the one before."""
    code = BitshiftCode(2, 8)
    x = np.random.default_rng(0).standard_normal((20, 256))
    found = distance(x, code.values, kernel.best_states(x, code.values, 2)).mean()
    ordered = np.sort(code.values)
    assert distance(x, ordered, kernel.best_states(x, ordered, 2)).mean() > 1.5 * found


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("bits", [1, 2, 3, 4])
def test_scales_are_near_the_best(code: str, bits: int):
    """Neither 8 % more nor 8 % less is better: on the same tiles, by more than two standard errors."""
    coder = BitshiftCode(bits, 10, code)
    x = np.random.default_rng(6).standard_normal((16, 256))

    def cost(factor: float) -> np.ndarray:
        states = kernel.best_states(x, factor * coder.values, bits)
        return distance(x, factor * coder.values, states) / 256

    for factor in (1 / 1.08, 1.08):
        difference = cost(1.0) - cost(factor)
        assert difference.mean() < 2 * standard_error(difference) + 0.02 * cost(1.0).mean()


def test_shapes_and_far_values(rng: np.random.Generator):
    code = BitshiftCode(2, 6)
    x = rng.standard_normal((2, 3, 20))
    symbols = code.encode(x)
    assert symbols.shape == x.shape
    np.testing.assert_array_equal(symbols[1, 2], code.encode(x[1, 2]))
    x[0, 0, 7] = 1e30
    assert code.decode(code.encode(x))[0, 0, 7] > np.sort(code.values)[-16]
    assert code.encode(x[:0]).shape == (0, 3, 20)


@pytest.mark.parametrize("length", [1, 2, 5, 24, 100, 1000])
def test_fitting_fills_the_register_six_times(length: int):
    for bits, memory in ((1, 16), (2, 12), (4, 4)):
        code = BitshiftCode(bits, memory).fitting(length)
        assert bits <= code.memory <= memory
        assert code.memory == bits or 6 * code.memory <= bits * length
        assert code.shortest <= length


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bits": 0}, "`bits` is 0"),
        ({"bits": 5}, "`bits` is 5"),
        ({"memory": 17}, "`memory` is 17"),
        ({"bits": 3, "memory": 2}, "`memory` is 2"),
        ({"code": "hyb"}, "`code` is 'hyb'"),
    ],
)
def test_options_without_a_code(options: dict, message: str):
    with pytest.raises(InvalidInputError, match=message):
        BitshiftCode(**options)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite(value: float):
    with pytest.raises(InvalidInputError, match=r"index \(1, 3\)"):
        BitshiftCode(2, 4).encode(np.array([np.zeros(5), [0, 0, 0, value, 0]]))


@pytest.mark.parametrize("length", [0, 1, 7, LONGEST + 1])
def test_lengths_that_do_not_fit(length: int):
    """Sixteen bits are eight symbols."""
    for work, x in (
        (BitshiftCode().encode, np.zeros((1, length))),
        (BitshiftCode().decode, np.zeros((1, length), int)),
    ):
        with pytest.raises(InvalidInputError, match="8 to 2048 values"):
            work(x)


@pytest.mark.parametrize("symbol", [-1, 4, 1000])
def test_symbols_of_more_bits(symbol: int):
    with pytest.raises(InvalidInputError, match="below 4"):
        BitshiftCode(2, 4).decode(np.array([0, 1, symbol, 2]))
