"""The yardsticks: rates and distortions that no code can beat, and those of the simplest codes.

Pure functions of host float64 numbers; arrays of any library are accepted. Rates are in bits per sample or weight,
distortions in squared error per sample or weight. Derivations: theory/01_rate_distortion.py.
"""

from lattq.bounds.absmax import (
    Grid,
    absmax_asymptotic_loss,
    absmax_distortion,
    absmax_loss,
    expected_squared_maximum,
)
from lattq.bounds.gaussian import gaussian_distortion, gaussian_entropy, gaussian_rate, shannon_lower_bound
from lattq.bounds.high_rate import (
    CUBIC_GAP,
    cancellation_loss,
    high_rate_distortion,
    high_rate_rate,
    space_filling_gap,
)
from lattq.bounds.layer import layer_distortion, layer_rate, layer_spectrum
from lattq.bounds.scalar import EntropyCodedScalar, Reconstruction, entropy_coded_scalar
from lattq.bounds.two_way import two_way_variances
from lattq.bounds.waterfilling import (
    ProductWaterfilling,
    Waterfilling,
    distortion_rate,
    rate_distortion,
    waterfill,
    waterfill_product,
)

__all__ = [
    "CUBIC_GAP",
    "EntropyCodedScalar",
    "Grid",
    "ProductWaterfilling",
    "Reconstruction",
    "Waterfilling",
    "absmax_asymptotic_loss",
    "absmax_distortion",
    "absmax_loss",
    "cancellation_loss",
    "distortion_rate",
    "entropy_coded_scalar",
    "expected_squared_maximum",
    "gaussian_distortion",
    "gaussian_entropy",
    "gaussian_rate",
    "high_rate_distortion",
    "high_rate_rate",
    "layer_distortion",
    "layer_rate",
    "layer_spectrum",
    "rate_distortion",
    "shannon_lower_bound",
    "space_filling_gap",
    "two_way_variances",
    "waterfill",
    "waterfill_product",
]
