"""Laws of transforms."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lattq.coding import TwoWay
from lattq.errors import InvalidInputError
from lattq.quantized import Quantized
from lattq.quantizers import UniformQuantizer
from lattq.testing.assertions import assert_close, assert_same
from lattq.testing.damage import refuse_damage
from lattq.testing.strategies import law, moment, seeds, well_conditioned_moments
from lattq.testing.streams import through_file
from lattq.transforms.chains import from_state, split_last, split_unit, to_state

__all__ = ["TransformContract"]


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

    @law
    @given(data=st.data(), seed=seeds, rows=st.integers(1, 6))
    def test_what_was_done_to_inputs_can_be_undone(self, data: Any, seed: int, rows: int) -> None:
        """T⁻¹ (T x) = x, where the transform says how it acts on vectors; where it does not, it undoes nothing."""
        sigma = self.draw(data)
        transform, x = self.transform(sigma, seed), np.random.default_rng(seed).standard_normal((rows, len(sigma)))
        try:
            moved = transform.on_inputs(x)
        except InvalidInputError as error:
            try:
                found = transform.inverse_on_inputs(x)
            except InvalidInputError:
                return
            msg = f"`inverse_on_inputs` returns {found.shape} numbers, and `on_inputs` refuses: {error}"
            raise AssertionError(msg) from None
        assert_close(transform.inverse_on_inputs(moved), x, rtol=0.0, atol=1e-7 * float(np.linalg.norm(x)))

    def test_operations_are_counted(self) -> None:
        """As an integer from 0 to those of a dense matrix, or of as many as there are parts."""
        for transform, weight in self.examples():
            n = weight.shape[1]
            found = transform.operations(n)
            most = n * n * max(1, len(transform.components))
            assert type(found) is int, f"`operations` returns {found!r}"
            assert 0 <= found <= most + n, f"`operations` returns {found} for {n} columns"

    def examples(self) -> Iterator[tuple[Any, np.ndarray]]:
        """Transforms of several numbers of columns, and weights for them."""
        for seed, n in enumerate(self.columns):
            weight = np.random.default_rng(seed).standard_normal((4, n))
            yield self.transform(moment(np.geomspace(1.0, 10.0, n), seed), seed), weight

    def test_dtypes_are_kept(self) -> None:
        for transform, weight in self.examples():
            for dtype in (np.float32, np.float64):
                for name in ("forward", "inverse"):
                    found = getattr(transform, name)(weight.astype(dtype)).dtype
                    assert found == dtype, f"`{name}` turns {np.dtype(dtype)} into {found}"

    def test_a_plain_transform_has_nothing_to_undo(self) -> None:
        for transform, weight in self.examples():
            if transform.plain:
                assert_same(transform.inverse(weight), weight)

    def test_entries_that_are_not_kept_do_not_count(self) -> None:
        """Those that `kept` says no to; the others are as they were, if the transform keeps entries."""
        for transform, weight in self.examples():
            kept, moved = transform.kept(weight.shape), transform.forward(weight)
            counted = np.ones(weight.shape, dtype=bool) if kept is None else kept
            assert (counted.shape, counted.dtype) == (weight.shape, np.dtype(bool)), f"`kept` returns {kept!r}"
            assert_same(transform.inverse(np.where(counted, moved, moved + 1.0)), transform.inverse(moved))
            if transform.keeps_entries:
                assert_same(moved[counted], weight[counted])

    def test_a_sparse_part_is_undone_last(self) -> None:
        """The two of `split` one after the other, where there are two; else the second alone."""
        for transform, weight in self.examples():
            sparse, rest = transform.split()
            found = rest.inverse(weight)
            assert_close(found if sparse is None else sparse.inverse(found), transform.inverse(weight))

    def test_columns_grow_by_their_exponents(self) -> None:
        """2^(k/16), up to one factor for all: the last of several transforms."""
        for transform, weight in self.examples():
            exponents = transform.exponents
            if exponents is not None:
                assert np.shape(exponents) == weight.shape[1:], (
                    f"{np.shape(exponents)} exponents for {weight.shape[1]} columns"
                )
                last = split_last(split_unit(transform)[0])[1]
                found = last.forward(weight) / weight * np.exp2(-exponents / 16)
                assert_close(found, np.full_like(weight, found[0, 0]))

    def test_a_damaged_state_is_refused(self) -> None:
        """Or it is read as the numbers that it holds: no other error, no NaN."""
        *_, (transform, weight) = self.examples()
        codes = np.rint(4 * weight).astype(np.int32)
        refuse_damage(Quantized(codes, UniformQuantizer(np.array([[0.25]])), transform, TwoWay()), "transform")
