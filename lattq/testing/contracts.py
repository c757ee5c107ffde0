"""Contract suites: the laws that every quantizer, transform and coder obeys.

A concrete test class inherits a suite and supplies instances; the laws come with it::

    class TestUniform(QuantizerContract):
        def quantizer(self, xp):
            return UniformQuantizer(step=xp.asarray([[0.5]]))

`check_quantizer` and its like run the same suites on one part, without pytest.
"""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import array_api_compat.numpy as numpy_namespace
import numpy as np
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from scipy.special import log_ndtr

from lattq._array import to_host
from lattq.errors import InvalidInputError
from lattq.quantized import Quantized
from lattq.quantizers.groups import join
from lattq.testing.assertions import assert_close, assert_same
from lattq.testing.strategies import seeds, well_conditioned_moments
from lattq.testing.streams import must_refuse, stream_bits, through_file
from lattq.transforms.chains import from_state, to_state
from lattq.transforms.maps import Identity

__all__ = ["CoderContract", "QuantizerContract", "TransformContract", "law", "stream_bits"]

# One law serves many classes, on purpose; hypothesis asks to be told.
law = settings(suppress_health_check=[HealthCheck.differing_executors], deadline=None, database=None)


class QuantizerContract(ABC):
    """Laws of ``encode(x: rows × b) -> integer codes``, ``decode(codes) -> x`` and ``overload(x) -> count``."""

    columns: int = 1
    """b, the columns that the quantizer takes at once."""
    spread: float = 4.0
    """Standard deviation of the test inputs: several cells wide, inside the range of a finite code."""
    code_range: tuple[int, int] | None = None
    """Smallest and largest code; None is unbounded."""
    nearest: bool = True
    """Whether `encode` finds the closest reconstruction (not so for a decoder that shrinks, for example)."""

    @abstractmethod
    def quantizer(self, xp: ModuleType) -> Any:
        """Return the instance under test, its arrays in this namespace and in float64."""

    def inputs(self, seed: int, rows: int) -> np.ndarray:
        """Gaussian inputs, float64."""
        return np.random.default_rng(seed).standard_normal((rows, self.columns)) * self.spread

    @law
    @given(seed=seeds, rows=st.integers(1, 24))
    def test_reconstructions_are_fixed_points(self, seed: int, rows: int) -> None:
        """decode ∘ encode ∘ decode = decode."""
        quantizer = self.quantizer(numpy_namespace)
        reconstruction = quantizer.decode(quantizer.encode(self.inputs(seed, rows)))
        assert_close(quantizer.decode(quantizer.encode(reconstruction)), reconstruction, atol=1e-12 * self.spread)

    @law
    @given(seed=seeds, rows=st.integers(1, 24))
    def test_codes_are_integers_in_range(self, seed: int, rows: int) -> None:
        codes = self.quantizer(numpy_namespace).encode(self.inputs(seed, rows))
        assert np.issubdtype(codes.dtype, np.integer), f"codes have dtype {codes.dtype}"
        if self.code_range is not None:
            low, high = self.code_range
            inside = (low <= codes) & (codes <= high)
            assert inside.all(), f"codes {codes[~inside]} outside the range {self.code_range}"

    @law
    @given(seed=seeds, rows=st.integers(1, 24))
    def test_no_neighbouring_code_is_nearer(self, seed: int, rows: int) -> None:
        """Changing any one code by one never brings the reconstruction closer.

        Squared distances are compared up to their rounding error, 8 n ε (‖x‖ + ‖y‖)².
        """
        if not self.nearest:
            return  # not promised
        quantizer, x = self.quantizer(numpy_namespace), self.inputs(seed, rows)
        assume(not quantizer.overload(x))
        codes = quantizer.encode(x)
        reconstruction = quantizer.decode(codes)
        distance = np.sum((x - reconstruction) ** 2)
        slack = 8 * x.size * np.finfo(np.float64).eps * (np.linalg.norm(x) + np.linalg.norm(reconstruction)) ** 2
        for index in np.ndindex(codes.shape):
            for change in (-1, 1):
                other = codes.copy()
                other[index] += change
                if self.code_range is not None and not self.code_range[0] <= other[index] <= self.code_range[1]:
                    continue
                rival = np.sum((x - quantizer.decode(other)) ** 2)
                assert distance <= rival + slack, f"code {codes[index]} at {index}: {other[index]} is nearer"

    @law
    @given(seed=seeds, rows=st.integers(1, 24))
    def test_every_array_library_gives_the_same_codes(self, xp: ModuleType, seed: int, rows: int) -> None:
        host, here, x = self.quantizer(numpy_namespace), self.quantizer(xp), self.inputs(seed, rows)
        codes = here.encode(xp.asarray(x))
        np.testing.assert_array_equal(to_host(codes), host.encode(x))
        assert_close(here.decode(codes), xp.asarray(host.decode(host.encode(x))))
        assert here.overload(xp.asarray(x)) == host.overload(x)

    @law
    @given(seed=seeds, rows=st.integers(1, 24))
    def test_no_reconstruction_is_overloaded(self, seed: int, rows: int) -> None:
        quantizer = self.quantizer(numpy_namespace)
        reconstruction = quantizer.decode(quantizer.encode(self.inputs(seed, rows)))
        assert quantizer.overload(reconstruction) == 0

    def test_nan_is_refused(self, xp: ModuleType) -> None:
        x = self.inputs(0, 8)
        x[3, 0] = np.nan
        must_refuse(lambda: self.quantizer(xp).encode(xp.asarray(x)), "NaN")

    @law
    @given(seed=seeds, rows=st.integers(1, 24))
    def test_what_is_measured_is_what_is_stored(self, seed: int, rows: int) -> None:
        """A file gives back the codes, every bit of the reconstruction, and writes the same bytes again."""
        part, x = self.quantizer(numpy_namespace).stored(), self.inputs(seed, rows)
        codes = part.encode(x)
        whole = join([part], x.shape[1], x.shape)
        layer = Quantized(np.ascontiguousarray(codes, dtype=np.int32), whole, Identity(), whole.coder)
        assert_same(layer.dequantize(np.float64), np.asarray(part.decode(codes), dtype=np.float64))
        again = Quantized.from_bytes(layer.to_bytes())
        np.testing.assert_array_equal(again.codes, codes)
        assert_same(again.dequantize(np.float64), layer.dequantize(np.float64))
        assert dataclasses.replace(again).to_bytes() == layer.to_bytes()


class TransformContract(ABC):
    """Laws of ``forward(weight)``, ``inverse(weight)`` and ``congruence(sigma)``."""

    columns: Sequence[int] = range(1, 13)
    """Numbers of columns tried."""

    @abstractmethod
    def transform(self, sigma: np.ndarray, seed: int) -> Any:
        """Return a transform for inputs with second moment `sigma`."""

    def draw(self, data: Any) -> np.ndarray:
        """A second moment of inputs."""
        n = data.draw(st.sampled_from(self.columns))
        return data.draw(well_conditioned_moments(n, n))

    @law
    @given(data=st.data(), seed=seeds, rows=st.integers(1, 6))
    def test_inverse_undoes_forward(self, xp: ModuleType, data: Any, seed: int, rows: int) -> None:
        sigma = self.draw(data)
        transform = self.transform(sigma, seed)
        weight = np.random.default_rng(seed).standard_normal((rows, sigma.shape[0]))
        returned = transform.inverse(transform.forward(xp.asarray(weight)))
        assert_close(returned, xp.asarray(weight), atol=4 * np.finfo(np.float64).eps ** 0.5)

    @law
    @given(data=st.data(), seed=seeds, rows=st.integers(1, 6))
    def test_distortion_is_invariant(self, data: Any, seed: int, rows: int) -> None:
        """tr((W - V) Σ (W - V)ᵀ) is the same in the new coordinates."""
        sigma = self.draw(data)
        transform = self.transform(sigma, seed)
        weight, other = np.random.default_rng(seed).standard_normal((2, rows, sigma.shape[0]))
        error = weight - other
        moved = transform.forward(weight) - transform.forward(other)
        before = np.einsum("ri,ij,rj->", error, sigma, error)
        after = np.einsum("ri,ij,rj->", moved, transform.congruence(sigma), moved)
        assert_close(float(after), float(before))

    @law
    @given(data=st.data(), seed=seeds, rows=st.integers(1, 6))
    def test_a_file_gives_back_the_same_transform(self, data: Any, seed: int, rows: int) -> None:
        """Every bit of what it undoes."""
        sigma = self.draw(data)
        transform, n = self.transform(sigma, seed), sigma.shape[0]
        weight = np.random.default_rng(seed).standard_normal((rows, n))
        restored = from_state(through_file(to_state(transform)), n)
        assert_same(restored.inverse(weight), transform.inverse(weight))

    @law
    @given(data=st.data(), seed=seeds, rows=st.integers(1, 6))
    def test_products_with_inputs_are_invariant(self, data: Any, seed: int, rows: int) -> None:
        """(W T⁻¹)(T x) = W x, where the transform says how it acts on vectors."""
        sigma = self.draw(data)
        transform, rng = self.transform(sigma, seed), np.random.default_rng(seed)
        weight, x = rng.standard_normal((rows, len(sigma))), rng.standard_normal((3, len(sigma)))
        try:
            moved = transform.on_inputs(x)
        except InvalidInputError:
            return
        size = float(np.linalg.norm(weight) * np.linalg.norm(x))
        assert_close(transform.forward(weight) @ moved.T, weight @ x.T, rtol=0.0, atol=1e-7 * size)


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
