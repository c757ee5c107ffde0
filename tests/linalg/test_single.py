"""Float32 where it is enough: the same loop, and no matrix called definite that is not."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import lattq as lq
from lattq.errors import NotPositiveSemidefiniteError
from lattq.feedback import rules
from lattq.linalg import ldl
from lattq.linalg.definite import SHIFT, UNIT, clearly_definite
from lattq.linalg.single import LEAST, single_ldl
from lattq.linalg.tolerances import column_scale
from tests.strategies import moment, seeds


@given(seed=seeds, n=st.integers(1, 40), spread=st.floats(0, 3), power=st.integers(-30, 30))
def test_the_factor_is_that_of_float64(seed: int, n: int, spread: float, power: int):
    """|U D Uᵀ - H| <= n u √(h_ii h_jj), in any unit; a power of two is no difference at all."""
    rng = np.random.default_rng(seed)
    sigma = moment(10.0 ** rng.uniform(-spread, 0, n), seed)
    added, scale = 0.01 * np.diag(sigma), np.exp(rng.standard_normal(n))
    found = single_ldl(sigma, scale, added)
    assert found is not None
    h = sigma + np.diag(added)
    product = (found.unit.astype(np.float64) * found.pivots) @ found.unit.T
    size = np.sqrt(np.outer(np.diag(h), np.diag(h)))[np.ix_(found.order, found.order)]
    assert (np.abs(product - h[np.ix_(found.order, found.order)]) <= 4 * (n + 4) * 2 * UNIT * size).all()
    again = single_ldl(sigma * 2.0 ** (2 * power), scale, added * 2.0 ** (2 * power))
    assert again is not None
    np.testing.assert_array_equal(again.unit, found.unit)
    np.testing.assert_array_equal(again.pivots, found.pivots * 2.0 ** (2 * power))


@given(seed=seeds, n=st.integers(2, 30))
def test_what_float32_does_not_resolve_is_left_to_float64(seed: int, n: int):
    spectrum = np.ones(n)
    spectrum[0] = UNIT
    assert single_ldl(moment(spectrum, seed), np.ones(n)) is None
    assert single_ldl(np.zeros((n, n)), np.ones(n)) is None
    assert single_ldl(np.eye(n), np.full(n, 1e200)) is None


CELLS = {"cube": lq.quantizers.Uniform(), "trellis": lq.quantizers.Trellis(states=16)}


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("decay", [0, 1, 2])
def test_the_distortion_is_that_of_float64(monkeypatch: pytest.MonkeyPatch, cell: str, decay: int):
    """Pivots are right to 1 / LEAST, and by the mean over columns the distortion far closer."""
    n = 192
    weight = np.random.default_rng(decay).standard_normal((256, n)).astype(np.float32)
    sigma = moment(np.arange(1.0, n + 1) ** -decay, decay)
    scheme = lq.recipes.watersic(0.1 * np.exp(0.5 * np.linalg.slogdet(sigma)[1] / n), quantizer=CELLS[cell], mmse=0.2)
    factors, original = [], rules.single_ldl
    monkeypatch.setattr(rules, "single_ldl", lambda *given: factors.append(original(*given)) or factors[-1])
    short = lq.quantize(weight, sigma, scheme)
    assert factors[0] is not None
    monkeypatch.setattr(rules, "single_ldl", lambda *given: None)
    long = lq.quantize(weight, sigma, scheme)
    ratio = short.distortion(weight, sigma) / long.distortion(weight, sigma)
    assert abs(ratio - 1) <= min(1e-3, 1 / LEAST)
    assert abs(short.rate - long.rate) <= 1e-3


@given(seed=seeds, n=st.integers(2, 40), less=st.floats(-1, 1))
def test_nothing_indefinite_is_clearly_definite(seed: int, n: int, less: float):
    """However near to definite it is; and what is far enough from singular always is."""
    spectrum = np.random.default_rng(seed).uniform(0.1, 1, n)
    spectrum[0] = less * 4 * SHIFT * n * UNIT
    sigma = moment(spectrum, seed)
    units = column_scale(sigma)
    least = np.linalg.eigvalsh(sigma / units / units[:, None])[0]
    assume(least < 0 or least > 2 * SHIFT * max(n, 8) * UNIT)
    assert clearly_definite(sigma, units) == (least > 0)


def test_what_float32_cannot_tell_float64_decides():
    n = 24
    spectrum = np.ones(n)
    for least, refused in ((1e-9, False), (0.0, False), (-1e-9, True)):
        spectrum[0] = least
        sigma = moment(spectrum, 1)
        assert not clearly_definite(sigma, np.ones(n))
        if refused:
            with pytest.raises(NotPositiveSemidefiniteError):
                lq.Metric(sigma)
        else:
            assert lq.Metric(sigma).root.shape[0] == n


def test_roots_come_when_asked_for():
    sigma = ldl(np.eye(3)).unit + 0.5
    metric, error = lq.Metric(sigma), np.arange(6.0).reshape(2, 3)
    exact = float(np.sum(error @ sigma * error)) / 6
    assert "root" not in vars(metric)
    assert metric.at_least(error, exact * (1 - 1e-9))
    assert "root" not in vars(metric)
    assert not metric.at_least(error, exact * (1 + 1e-9))
