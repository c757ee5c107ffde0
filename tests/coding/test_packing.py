"""Fixed-length packing: against big integers, to the last byte, for every base."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lattq.coding import FixedLength
from lattq.coding.packing import pack, packed_size, unpack
from lattq.errors import DamagedFileError, InvalidInputError
from tests.contracts import CoderContract
from tests.damage import damaged_bytes
from tests.helpers import assert_same
from tests.strategies import seeds

bases = st.integers(1, 256)


def words(base: int) -> tuple[int, int]:
    """Digits and bytes of the word of at most eight bytes that spends the fewest bits on a digit, in exact integers."""
    fits = [(max(k for k in range(65) if base**k <= 256**width), width) for width in range(1, 9)]
    return min(((k, width) for k, width in fits if k), key=lambda word: word[1] / word[0])


def big_integer_packing(digits: list[int], base: int) -> bytes:
    """Each word as one integer, low digit first; the last in the bytes that its largest value needs."""
    if base == 1:
        return b""
    count, _ = words(base)
    stored = b""
    for start in range(0, len(digits), count):
        word = digits[start : start + count]
        largest = base ** len(word) - 1
        size = words(base)[1] if len(word) == count else -(-largest.bit_length() // 8)
        stored += sum(digit * base**i for i, digit in enumerate(word)).to_bytes(size, "little")
    return stored


@given(base=bases, size=st.integers(0, 150), seed=seeds)
def test_packing_is_that_of_big_integers(base: int, size: int, seed: int):
    digits = np.random.default_rng(seed).integers(0, base, size)
    stored = pack(digits, base)
    assert stored == big_integer_packing(digits.tolist(), base)
    assert len(stored) == packed_size(size, base)
    assert_same(unpack(stored, base, size), digits)


@pytest.mark.parametrize("base", [2, 3, 5, 7, 16, 100, 255, 256])
def test_the_largest_digits_fit(base: int):
    for size in range(1, 2 * words(base)[0] + 2):
        digits = np.full(size, base - 1)
        assert_same(unpack(pack(digits, base), base, size), digits)


def test_every_base_comes_close_to_its_logarithm():
    """Exact for powers of two that divide a word; else as many digits as fit, which never wastes a whole digit."""
    for base in range(1, 257):
        count, width = words(base) if base > 1 else (1, 0)
        assert packed_size(1000 * count, base) == 1000 * width
        assert base ** (count + 1) > 256**width or width == 0
    assert [packed_size(64, base) for base in (2, 4, 16, 256)] == [8, 16, 32, 64]
    assert packed_size(40, 3) == 8


def test_one_level_takes_no_bytes():
    coder, codes = FixedLength(levels=1, low=7), np.full((3, 4), 7, dtype=np.int32)
    assert coder.encode(codes) == b""
    assert_same(coder.decode(b"", (3, 4)), codes)


@given(base=bases, size=st.integers(0, 80), seed=seeds, data=st.data())
def test_damaged_bytes_are_found_or_are_other_digits(base: int, size: int, seed: int, data: st.DataObject):
    stored = pack(np.random.default_rng(seed).integers(0, base, size), base)
    damaged = data.draw(damaged_bytes(stored))
    if len(damaged) != len(stored):
        with pytest.raises(DamagedFileError, match="bytes"):
            unpack(damaged, base, size)
        return
    digits = unpack(damaged, base, size)
    assert digits.shape == (size,)
    assert digits.min(initial=0) >= 0
    assert digits.max(initial=0) < base


class FixedLengthContract(CoderContract):
    levels: int
    low = -2

    @property
    def high(self) -> int:
        return self.low + self.levels - 1

    def coder(self) -> FixedLength:
        return FixedLength(self.levels, self.low)

    def ideal_bits(self, codes: np.ndarray) -> float:
        return codes.size * math.log2(self.levels)

    def overhead_bits(self, codes: np.ndarray) -> float:
        """What a word leaves unused, and the rest of the last byte."""
        count, width = words(self.levels)
        return (8 * width / count - math.log2(self.levels)) * codes.size + 8


class TestTernary(FixedLengthContract):
    levels, low = 3, -1


class TestSixteenLevels(FixedLengthContract):
    levels, low = 16, -8


class TestOddLevels(FixedLengthContract):
    levels, low = 11, -5
    spread = 30.0


class TestBytes(FixedLengthContract):
    levels, low = 256, -128
    spread = 100.0


def test_pinned_bytes():
    codes = np.array([[-2, -1, 0, 1, 2], [2, 2, 2, 2, -2]], dtype=np.int32)
    assert FixedLength(levels=5, low=-2).encode(codes).hex() == "a2cc1d"
    assert FixedLength(levels=16, low=-8).encode(codes).hex() == "7698aaaa6a"


@pytest.mark.parametrize("code", [-3, 3])
def test_codes_out_of_range_are_refused(code: int):
    with pytest.raises(InvalidInputError, match=rf"code {code} is outside -2 \.\.\. 2"):
        FixedLength(levels=5, low=-2).encode(np.array([[0, code]]))


@pytest.mark.parametrize("levels", [0, -1, 257])
def test_levels_out_of_range_are_refused(levels: int):
    with pytest.raises(InvalidInputError, match=f"`levels` is {levels}"):
        FixedLength(levels=levels)
