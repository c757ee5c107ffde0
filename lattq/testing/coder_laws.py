"""Laws of coders."""

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_ndtr

from lattq.quantized import Quantized
from lattq.quantizers import UniformQuantizer
from lattq.testing.assertions import assert_same
from lattq.testing.damage import refuse_damage
from lattq.testing.strategies import law, seeds
from lattq.testing.streams import stream_bits, through_file
from lattq.transforms.maps import Identity

__all__ = ["CoderContract"]


class CoderContract(ABC):
    """Laws of ``encode(codes: rows × columns, int32) -> stream`` and ``decode(stream, shape) -> codes``.

    A stream is bytes, or a nested list of bytes and numbers.
    """

    low: int = -(2**31)
    high: int = 2**31 - 1
    """Smallest and largest code that the coder takes."""
    spread: float = 4.0
    """Standard deviation of the test codes."""

    @abstractmethod
    def coder(self) -> Any:
        """Return the instance under test."""

    @abstractmethod
    def ideal_bits(self, codes: np.ndarray) -> float:
        """Return the bits that the coder's own model assigns to `codes`."""

    @abstractmethod
    def overhead_bits(self, codes: np.ndarray) -> float:
        """Return the stated bits beyond the model: headers, tables, padding, coder state."""

    def codes(self, seed: int, rows: int, columns: int) -> tuple[np.ndarray, float]:
        """Rounded Gaussians clipped to the range, and their information content −log2 P in bits."""
        normal = np.random.default_rng(seed).standard_normal((rows, columns)) * self.spread
        codes = np.clip(np.round(normal), self.low, self.high)
        upper = np.where(codes < self.high, codes + 0.5, np.inf) / self.spread
        lower = np.where(codes > self.low, codes - 0.5, -np.inf) / self.spread
        # The left tail of both ends, where log Φ is accurate.
        flip = lower + upper > 0
        lower, upper = np.where(flip, -upper, lower), np.where(flip, -lower, upper)
        log_upper, log_lower = log_ndtr(upper), log_ndtr(lower)
        information = -(log_upper + np.log1p(-np.exp(log_lower - log_upper))) / np.log(2)
        return codes.astype(np.int32), float(information.sum())

    def check_round_trip(self, codes: np.ndarray) -> Any:
        """Assert that `codes` come back exactly, as int32, and return the stream."""
        coder = self.coder()
        stream = coder.encode(codes)
        assert_same(coder.decode(through_file(stream), codes.shape), codes)
        return stream

    def test_a_file_gives_back_the_same_coder(self) -> None:
        coder = self.coder()
        assert type(coder).from_state(through_file(coder.to_state()), (9, 5)) == coder

    @law
    @given(seed=seeds, rows=st.integers(1, 40), columns=st.integers(1, 12))
    def test_round_trip_is_exact(self, seed: int, rows: int, columns: int) -> None:
        self.check_round_trip(self.codes(seed, rows, columns)[0])

    @law
    @given(seed=seeds, data=st.data())
    def test_extreme_values_survive(self, seed: int, data: Any) -> None:
        codes, _ = self.codes(seed, 9, 5)
        for value in (self.low, self.high):
            codes[data.draw(st.integers(0, 8)), data.draw(st.integers(0, 4))] = value
        self.check_round_trip(codes)

    def test_constant_codes_survive(self) -> None:
        for shape in ((1, 1), (1, 7), (7, 1), (3, 200)):
            for value in (0, 1, -1):
                value = min(max(value, self.low), self.high)
                self.check_round_trip(np.full(shape, value, dtype=np.int32))

    def test_single_rows_and_columns_survive(self) -> None:
        for shape in ((1, 1), (1, 300), (300, 1)):
            self.check_round_trip(self.codes(0, *shape)[0])

    @law
    @given(seed=seeds, rows=st.integers(1, 40), columns=st.integers(1, 12))
    def test_bytes_are_reproducible(self, seed: int, rows: int, columns: int) -> None:
        codes, _ = self.codes(seed, rows, columns)
        assert self.coder().encode(codes) == self.coder().encode(codes)

    @law
    @given(seed=seeds, rows=st.integers(20, 200), columns=st.integers(1, 12))
    def test_no_code_beats_the_source(self, seed: int, rows: int, columns: int) -> None:
        """A lossless code cannot be shorter than the information content by more than luck.

        For every prefix code P(length < information − t) ≤ 2⁻ᵗ (Barron 1985); a length that is known from outside adds
        log2 of the number of lengths. With t = 40 a failure is a proof that bits went missing.
        """
        codes, information = self.codes(seed, rows, columns)
        size = stream_bits(self.check_round_trip(codes))
        assert size >= information - 40 - np.log2(size + 8)

    @law
    @given(seed=seeds, rows=st.integers(1, 200), columns=st.integers(1, 12))
    def test_size_is_the_ideal_plus_the_stated_overhead(self, seed: int, rows: int, columns: int) -> None:
        codes, _ = self.codes(seed, rows, columns)
        size = stream_bits(self.coder().encode(codes))
        assert size <= self.ideal_bits(codes) + self.overhead_bits(codes)

    def test_damage_is_refused(self) -> None:
        """In options and in streams; or they are read as what they hold: no other error."""
        codes, _ = self.codes(0, 8, 3)
        layer = Quantized(codes, UniformQuantizer(np.array([[0.5]])), Identity(), self.coder())
        refuse_damage(layer, "coder")
        refuse_damage(layer, "data")
