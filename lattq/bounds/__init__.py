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
from lattq.bounds.block_formats import BLOCK_FORMATS, BlockFormat, block_distortion, block_loss, block_scales
from lattq.bounds.format_error import (
    best_format_scale,
    floating_point_distortion,
    floating_point_loss,
    format_distortion,
    format_loss,
    product_point_density,
)
from lattq.bounds.formats import (
    E2M1FN,
    E2M3FN,
    E3M2FN,
    E4M3,
    E4M3FN,
    E5M2,
    E8M0,
    NF4,
    NumberFormat,
    float_format,
    int_format,
    normal_float,
    number_format,
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
from lattq.bounds.product import (
    PRODUCT_CRITICAL_RATE,
    high_rate_product_distortion,
    one_sided_product_distortion,
    product_bits,
    product_distortion,
    product_rate,
    two_rate_product_distortion,
    unbiased_product_distortion,
    universal_product_error,
)
from lattq.bounds.scalar import EntropyCodedScalar, Reconstruction, entropy_coded_scalar
from lattq.bounds.two_way import two_way_variances
from lattq.bounds.vector import ball_second_moment, fixed_rate_constant, random_coding_second_moment
from lattq.bounds.waterfilling import (
    ProductWaterfilling,
    Waterfilling,
    distortion_rate,
    rate_distortion,
    waterfill,
    waterfill_product,
)

__all__ = [
    "BLOCK_FORMATS",
    "CUBIC_GAP",
    "E2M1FN",
    "E2M3FN",
    "E3M2FN",
    "E4M3",
    "E4M3FN",
    "E5M2",
    "E8M0",
    "NF4",
    "PRODUCT_CRITICAL_RATE",
    "BlockFormat",
    "EntropyCodedScalar",
    "Grid",
    "NumberFormat",
    "ProductWaterfilling",
    "Reconstruction",
    "Waterfilling",
    "absmax_asymptotic_loss",
    "absmax_distortion",
    "absmax_loss",
    "ball_second_moment",
    "best_format_scale",
    "block_distortion",
    "block_loss",
    "block_scales",
    "cancellation_loss",
    "distortion_rate",
    "entropy_coded_scalar",
    "expected_squared_maximum",
    "fixed_rate_constant",
    "float_format",
    "floating_point_distortion",
    "floating_point_loss",
    "format_distortion",
    "format_loss",
    "gaussian_distortion",
    "gaussian_entropy",
    "gaussian_rate",
    "high_rate_distortion",
    "high_rate_product_distortion",
    "high_rate_rate",
    "int_format",
    "layer_distortion",
    "layer_rate",
    "layer_spectrum",
    "normal_float",
    "number_format",
    "one_sided_product_distortion",
    "product_bits",
    "product_distortion",
    "product_point_density",
    "product_rate",
    "random_coding_second_moment",
    "rate_distortion",
    "shannon_lower_bound",
    "space_filling_gap",
    "two_rate_product_distortion",
    "two_way_variances",
    "unbiased_product_distortion",
    "universal_product_error",
    "waterfill",
    "waterfill_product",
]
