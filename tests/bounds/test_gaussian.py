"""One Gaussian: closed forms, inverses, refusals."""

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from lattq.bounds import gaussian_distortion, gaussian_rate, shannon_lower_bound
from lattq.bounds.gaussian import gaussian_entropy
from lattq.errors import InvalidInputError

variances = st.floats(1e-100, 1e100)


@given(variances, st.floats(0.0, 200.0))
def test_distortion_inverts_rate(variance: float, rate: float):
    # log2 of numbers up to 1e220 is rounded to 2^-43 at worst.
    assert gaussian_rate(variance, gaussian_distortion(variance, rate)) == pytest.approx(rate, abs=1e-12)


@given(variances, variances)
def test_rate_is_zero_exactly_from_the_variance_on(variance: float, distortion: float):
    assert (gaussian_rate(variance, distortion) == 0.0) == (distortion >= variance)


def test_one_bit_is_six_decibels():
    assert 10.0 * math.log10(1.0 / gaussian_distortion(1.0, 1.0)) == pytest.approx(6.0206, abs=1e-4)


def test_entropy_against_an_independent_library():
    for variance in (1e-3, 1.0, 40.0):
        nats = scipy.stats.norm(scale=math.sqrt(variance)).entropy()
        assert gaussian_entropy(variance) == pytest.approx(nats / math.log(2.0), rel=1e-14)


@given(variances, variances)
def test_shannon_bound_is_tight_for_a_gaussian(variance: float, distortion: float):
    bound = shannon_lower_bound(gaussian_entropy(variance), distortion)
    assert bound == pytest.approx(gaussian_rate(variance, distortion), abs=1e-12)


def test_shannon_bound_is_below_the_gaussian_for_any_other_density_of_that_variance():
    laplace = scipy.stats.laplace(scale=math.sqrt(0.5)).entropy() / math.log(2.0)  # variance 1
    assert shannon_lower_bound(laplace, 0.01) < gaussian_rate(1.0, 0.01)


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: gaussian_rate(-1.0, 1.0), "`variance` is -1.0"),
        (lambda: gaussian_rate(math.nan, 1.0), "`variance` is nan"),
        (lambda: gaussian_rate(1.0, 0.0), "`distortion` is 0.0"),
        (lambda: gaussian_rate(1.0, math.inf), "`distortion` is inf"),
        (lambda: gaussian_distortion(1.0, -0.5), "`rate` is -0.5"),
        (lambda: gaussian_distortion(1.0, math.nan), "`rate` is nan"),
        (lambda: gaussian_entropy(0.0), "`variance` is 0.0"),
        (lambda: shannon_lower_bound(math.nan, 1.0), "`entropy` is nan"),
        (lambda: shannon_lower_bound(0.0, -1.0), "`distortion` is -1.0"),
    ],
)
def test_refusals_name_the_value(call, named: str):
    with pytest.raises(InvalidInputError, match=named):
        call()


def test_numpy_scalars_and_integers_are_numbers():
    assert gaussian_rate(np.float32(1.0), 1) == 0.0
    assert gaussian_distortion(1, np.int64(1)) == 0.25
