"""The yardsticks: rates and distortions that no code can beat, and those of the simplest codes.

Pure functions of host float64 numbers; arrays of any library are accepted. Rates are in bits per sample or weight,
distortions in squared error per sample or weight. Derivations: theory/01_rate_distortion.py.
"""

from lattq.bounds.absmax import absmax_distortion, absmax_loss
from lattq.bounds.block_formats import BLOCK_FORMATS, BlockFormat, block_distortion
from lattq.bounds.format_error import format_distortion, format_loss
from lattq.bounds.formats import number_format
from lattq.bounds.gaussian import gaussian_distortion, gaussian_rate, shannon_lower_bound
from lattq.bounds.high_rate import CUBIC_GAP, cancellation_loss, space_filling_gap
from lattq.bounds.layer import layer_distortion, layer_rate
from lattq.bounds.product import (
    one_sided_product_distortion,
    product_distortion,
    product_rate,
    unbiased_product_distortion,
)
from lattq.bounds.scalar import entropy_coded_scalar
from lattq.bounds.two_way import two_way_variances
from lattq.bounds.waterfilling import rate_distortion, waterfill

__all__ = [
    "BLOCK_FORMATS",
    "CUBIC_GAP",
    "BlockFormat",
    "absmax_distortion",
    "absmax_loss",
    "block_distortion",
    "cancellation_loss",
    "entropy_coded_scalar",
    "format_distortion",
    "format_loss",
    "gaussian_distortion",
    "gaussian_rate",
    "layer_distortion",
    "layer_rate",
    "number_format",
    "one_sided_product_distortion",
    "product_distortion",
    "product_rate",
    "rate_distortion",
    "shannon_lower_bound",
    "space_filling_gap",
    "two_way_variances",
    "unbiased_product_distortion",
    "waterfill",
]
