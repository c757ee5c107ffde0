"""Where errors are measured, and bits above the Gaussian reference at that error."""

from typing import Any

import numpy as np
from jaxtyping import Float

from lattq import bounds
from lattq._metric import Metric
from lattq.transforms import chains
from lattq.transforms.base import Transform

__all__ = ["reference_rate", "where_measured"]


def where_measured(
    transform: Transform, weight: Float[np.ndarray, "rows columns"], metric: Metric
) -> tuple[Float[np.ndarray, "rows columns"], Metric]:
    """Weight and metric where errors are measured: behind a folded transform if there is one.

    >>> from lattq.transforms.maps import Identity
    >>> where_measured(Identity(), np.ones((1, 1)), Metric(np.array([[4.0]])))[1].root
    array([[2.]])
    """
    folded = chains.folded(transform)
    if folded is not None and folded.inner is not None:
        weight, metric = folded.forward(weight), metric.moved(folded)
    return weight, metric


def reference_rate(
    weight: Any,
    metric: Metric,
    distortion: float,
    row_variance: Any,
    column_variance: Any,
    covariance: Any,
) -> float:
    """`lattq.bounds.layer_rate` with the two-way variances of the weight for those that are None; with K, rows alike.

    >>> reference_rate(np.ones((1, 1)), Metric(np.eye(1)), 0.25, None, None, None)
    1.0
    """
    if covariance is not None:
        row_variance = 1.0 if row_variance is None else row_variance
        column_variance = 1.0 if column_variance is None else column_variance
    elif row_variance is None or column_variance is None:
        rows, columns = bounds.two_way_variances(weight)
        row_variance = rows if row_variance is None else row_variance
        column_variance = columns if column_variance is None else column_variance
    return bounds.layer_rate(metric, distortion, row_variance, column_variance, covariance)
