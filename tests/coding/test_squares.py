"""Scale classes from mean squares: no class is cheaper, rows have classes where they pay."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lattq.coding.cosets import MOST, log_partition, scale
from lattq.coding.integers import encode_integers, stored_bits
from lattq.coding.squares import NOISE, fit_squares, square_classes
from lattq.coding.tables import scale_class
from lattq.coding.twoway import NO_NOISE, TwoWayModel
from tests.helpers import assert_same
from tests.strategies import seeds

PARTITIONS = np.array([log_partition(z0, 2) for z0 in (0, 1)])


def exact_bits(codes: np.ndarray, kinds: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Bits of each code of a class above 0, one by one; zeros of class 0 cost nothing, other codes everything."""
    kinds = np.broadcast_to(kinds, codes.shape)
    found = codes.astype(float) ** 2 / (2 * scale(classes) ** 2 * np.log(2)) + PARTITIONS[kinds, classes]
    return np.where(classes > 0, found, np.where(codes == 0, 0.0, np.inf))


def scaled(seed: int, rows: int, columns: int, low: float = -3, high: float = 6) -> np.ndarray:
    """Rounded Gaussians of columns of many scales, and zeros."""
    rng = np.random.default_rng(seed)
    codes = np.rint(rng.standard_normal((rows, columns)) * np.exp2(rng.uniform(low, high, columns))).astype(np.int32)
    codes[:, rng.random(columns) < 0.1] = 0
    return codes


@given(seed=seeds, rows=st.integers(1, 30), columns=st.integers(1, 6), by_row=st.booleans())
def test_no_class_of_a_column_is_cheaper(seed: int, rows: int, columns: int, by_row: bool):
    """Given equal rows, every class is tried with every code; what is not the best is cheaper to store.

    Nothing but zeros has class 0.
    """
    codes = scaled(seed, rows, columns)
    kinds = np.random.default_rng(seed).integers(0, 2, (rows, 1)) if by_row else codes & 1
    codes += (codes + kinds) & 1  # the parity that the kind says
    kinds = codes & 1
    model = fit_squares(codes, kinds[:, :1] if by_row else kinds, PARTITIONS, np.zeros(rows, dtype=np.int64))
    every = np.array([
        exact_bits(codes, kinds, np.full(codes.shape, k)).sum(axis=0) for k in range(MOST + 1)
    ])  # fmt: skip
    found = every[model.columns, np.arange(columns)]
    lost, best = found.sum() - every.min(axis=0).sum(), every.argmin(axis=0)
    assert -1e-9 <= lost <= stored_bits(best) - stored_bits(model.columns) + 1e-9
    if columns == 1:
        assert lost <= 1e-9
    assert not codes[:, model.columns == 0].any()


@given(seed=seeds, rows=st.integers(2, 30), noise=st.sampled_from(NOISE))
def test_known_rows_are_kept_and_columns_are_the_best_given_them(seed: int, rows: int, noise: int):
    codes = scaled(seed, rows, 4)
    known = np.random.default_rng(seed).integers(-12, 13, rows)
    model = fit_squares(codes, codes & 1, PARTITIONS, known)
    assert_same(model.rows, known)

    def bits(model: TwoWayModel) -> float:
        return float(exact_bits(codes, codes & 1, square_classes(model)).sum())

    mine = bits(model)
    for j in range(4):
        for change in (-3, -1, 1, 3):
            columns = model.columns.copy()
            columns[j] += change
            if columns[j] > 0 and model.columns[j] > 0:
                rival = bits(TwoWayModel(known, columns, model.noise)) + stored_bits(columns)
                assert mine <= rival + 1e-9 * (1 + abs(mine))
    assert mine <= bits(TwoWayModel(known, model.columns, noise)) + 1e-9 * (1 + abs(mine))


def two_way(noise: float, spread: float = 0.7, lowest: float = 3) -> tuple[np.ndarray, np.ndarray]:
    """Even codes of variance noise² + (row times column)², in logs of deviation `spread`."""
    rng = np.random.default_rng(1)
    rows, columns = np.exp(spread * rng.standard_normal((300, 1))), np.exp2(rng.uniform(lowest, lowest + 4, 60))
    deviation = np.sqrt(noise**2 + (rows * columns) ** 2)
    return 2 * np.rint(rng.standard_normal((300, 60)) * deviation / 2).astype(np.int32), deviation


def total(codes: np.ndarray, model: TwoWayModel) -> float:
    return float(exact_bits(codes, codes & 1, square_classes(model)).sum())


def test_row_classes_where_they_pay():
    """The model comes within the price of its classes of the true deviations."""
    codes, deviation = two_way(0.0)
    model = fit_squares(codes, codes & 1, PARTITIONS)
    true = np.clip(scale_class(deviation), 1, MOST)
    assert total(codes, model) <= exact_bits(codes, codes & 1, true).sum() + 0.006 * codes.size
    plain = fit_squares(codes, codes & 1, PARTITIONS, np.zeros(300, dtype=np.int64))
    assert total(codes, plain) > total(codes, model) + 0.1 * codes.size  # negative control: equal rows
    assert total(codes, plain) > total(codes, model) + 8 * len(encode_integers(model.rows)[2])
    # Sixty columns tell the logarithm of a row to 1 / √120 = 0.09, which is 0.7 wide; a class is 0.087 wide.
    assert np.corrcoef(model.rows, np.log(deviation[:, 0]))[0, 1] > 0.975


@pytest.mark.parametrize("seed", range(3))
def test_equal_rows_have_no_classes(seed: int):
    codes = scaled(seed, 600, 20, 0, 4)
    assert not fit_squares(codes, codes & 1, PARTITIONS).rows.any()
    assert not fit_squares(codes[:1], codes[:1] & 1, PARTITIONS).rows.any()


def test_noise_without_row_factor_has_a_class():
    """Its floor is found near the true one, and beats the model without noise."""
    floor = scale(NOISE[-1])
    codes, _ = two_way(floor, spread=0.9, lowest=0)
    model = fit_squares(codes, codes & 1, PARTITIONS)
    assert model.noise == NOISE[-1]
    plain, _ = two_way(0.0)
    assert fit_squares(plain, plain & 1, PARTITIONS).noise == NO_NOISE
    whole = fit_squares(codes, codes & 1, PARTITIONS, model.rows)
    assert total(codes, whole) <= total(codes, model) + 1e-6
    assert total(codes, TwoWayModel(model.rows, model.columns, NO_NOISE)) > total(codes, model) + 0.01 * codes.size


def test_zeros_and_the_largest_codes():
    codes = np.zeros((5, 4), dtype=np.int32)
    codes[:, 1] = -(2**31)
    codes[3, 2] = 1
    model = fit_squares(codes, codes & 1, PARTITIONS)
    assert_same(model.columns == 0, np.array([True, False, False, True]))
    assert not square_classes(model)[:, 0].any()
    assert square_classes(model).max() == MOST
    assert square_classes(TwoWayModel(np.array([500]), np.array([MOST, 0]), NO_NOISE)).tolist() == [[MOST, 0]]
