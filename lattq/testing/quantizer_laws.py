"""Laws of quantizers."""

import contextlib
import dataclasses
from abc import ABC, abstractmethod
from types import ModuleType
from typing import Any

import array_api_compat.numpy as numpy_namespace
import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st

from lattq._array import to_host
from lattq.errors import InvalidInputError
from lattq.parts.forms import NumberForm, TableForm
from lattq.quantized import Quantized
from lattq.quantizers.groups import join
from lattq.testing.assertions import assert_close, assert_same
from lattq.testing.damage import refuse_damage
from lattq.testing.strategies import law, seeds
from lattq.testing.streams import must_refuse
from lattq.transforms.maps import Identity

__all__ = ["QuantizerContract"]


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

    def beside(self) -> Any:
        """Return what the next group of columns may have: one of the class with other numbers, if the class joins them.

        It takes the codes of the instance under test.
        """
        return None

    def layer(self, seed: int = 0, rows: int = 8) -> Quantized:
        """Inputs as the instance encodes them, in numbers as they are stored."""
        part, x = self.quantizer(numpy_namespace).stored(), self.inputs(seed, rows)
        whole = join([part], x.shape[1], x.shape)
        return Quantized(np.ascontiguousarray(part.encode(x), dtype=np.int32), whole, Identity(), whole.coder)

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
        layer = self.layer(seed, rows)
        np.testing.assert_array_equal(layer.codes, part.encode(x))
        assert_same(layer.dequantize(np.float64), np.asarray(part.decode(part.encode(x)), dtype=np.float64))
        again = Quantized.from_bytes(layer.to_bytes())
        np.testing.assert_array_equal(again.codes, layer.codes)
        assert_same(again.dequantize(np.float64), layer.dequantize(np.float64))
        assert dataclasses.replace(again).to_bytes() == layer.to_bytes()

    def test_a_joined_quantizer_is_its_groups_side_by_side(self) -> None:
        """`concatenate` of two that decode the same codes to different numbers, and a file of that."""
        first, other, width = self.quantizer(numpy_namespace).stored(), self.beside(), self.columns
        if other is None:
            name = type(first).__name__
            joined = type(first).concatenate([first, first], width)
            assert joined is None, f"{name} joins groups: give another {name}, with other numbers, as `beside`"
            return
        parts = [first, other.stored()]
        codes = [part.encode(self.inputs(seed, 8)) for seed, part in enumerate(parts)]
        assert (parts[1].decode(codes[0]) != parts[0].decode(codes[0])).any(), "`beside` has the same numbers"
        side_by_side = np.concatenate([part.decode(own) for part, own in zip(parts, codes, strict=True)], axis=1)
        both = np.ascontiguousarray(np.concatenate(codes, axis=1), dtype=np.int32)
        whole = join(parts, width, both.shape)
        layer = Quantized(both, whole, Identity(), whole.coder)
        assert_same(layer.dequantize(np.float64), side_by_side)
        assert_same(Quantized.from_bytes(layer.to_bytes()).dequantize(np.float64), side_by_side)

    def test_codes_decode_to_the_dtype_of_the_quantizer(self) -> None:
        quantizer = self.quantizer(numpy_namespace)
        found = quantizer.decode(quantizer.encode(self.inputs(0, 8))).dtype
        assert found == np.float64, f"codes decode to dtype {found}, though the numbers of the quantizer are float64"

    def test_forms_are_what_the_codes_decode_to(self) -> None:
        """`table_form` and `packed_form`, where there are any, up to the rounding of three products."""
        layer = self.layer()
        decoded, forms = layer.decoded(), [layer.quantizer.table_form()]
        with contextlib.suppress(InvalidInputError):  # a packed form may be of some numbers only
            forms.append(layer.quantizer.packed_form(layer.codes))
        for form in forms:
            if isinstance(form, NumberForm | TableForm):
                dense = form.dense(layer.codes) if isinstance(form, TableForm) else form.dense()
                assert_close(np.asarray(dense, dtype=np.float64), decoded, rtol=8 * np.finfo(np.float64).eps)

    def test_codes_between_two_decode_to_what_lies_between(self) -> None:
        """Where the quantizer says that they are `ordered`: centroids are halves and other parts of a cell."""
        part, codes = self.quantizer(numpy_namespace).stored(), self.layer().codes
        if not part.ordered:
            return
        if self.code_range is not None:
            codes = np.minimum(codes, self.code_range[1] - 1)
            codes = np.maximum(codes, self.code_range[0])
        low, middle, high = (part.decode(codes + shift) for shift in (0.0, 0.5, 1.0))
        between = (np.minimum(low, high) < middle) & (middle < np.maximum(low, high))
        wrong = ~between & (low != high)
        assert not wrong.any(), f"codes k + 1/2 decode to {middle[wrong]}, not between {low[wrong]} and {high[wrong]}"

    def test_a_damaged_state_is_refused(self) -> None:
        """Or it is read as the numbers that it holds: no other error, no NaN."""
        refuse_damage(self.layer(), "quantizer")
