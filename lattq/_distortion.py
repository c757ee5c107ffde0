"""The squared error of outputs as a norm, and bits above the Gaussian reference at that error."""

from typing import Any

import numpy as np
from jaxtyping import Float

from lattq import bounds
from lattq.linalg.checks import require_root
from lattq.transforms import chains
from lattq.transforms.base import Transform

__all__ = ["reference_rate", "rounding", "squared_error", "where_measured"]


def where_measured(
    transform: Transform, weight: Float[np.ndarray, "rows columns"], sigma: Float[np.ndarray, "n n"]
) -> tuple[Float[np.ndarray, "rows columns"], Float[np.ndarray, "n rank"]]:
    """Weight, and F with F Fᵀ = Σ, where errors are measured: behind a folded transform if there is one.

    >>> from lattq.transforms.maps import Identity
    >>> where_measured(Identity(), np.ones((1, 1)), np.array([[4.0]]))
    (array([[1.]]), array([[2.]]))
    """
    folded = chains.folded(transform)
    if folded is not None and folded.inner is not None:
        weight, sigma = folded.forward(weight), folded.congruence(sigma)
    return weight, require_root(sigma)


def squared_error(error: Float[np.ndarray, "rows columns"], root: Float[np.ndarray, "columns rank"]) -> float:
    """‖E F‖² / (rows columns), which is tr(E Σ Eᵀ) / (rows columns) for Σ = F Fᵀ, and never negative.

    >>> squared_error(np.array([[1.0, 3.0]]), np.eye(2))
    5.0
    """
    with np.errstate(over="ignore"):  # beyond float64 it is infinite
        return float(np.sum(np.square(error @ root))) / error.size


def rounding(error: Float[np.ndarray, "rows columns"], root: Float[np.ndarray, "columns rank"]) -> float:
    """What rounding alone makes of a squared error of zero: each entry of E F is off by n eps |E| |F| at most.

    >>> rounding(np.zeros((1, 2)), np.eye(2))
    0.0
    """
    eps = max(len(root), 8) * float(np.finfo(np.float64).eps)
    return float(np.sum(np.square(error)) * np.sum(np.square(root))) * eps**2 / error.size


def reference_rate(
    weight: Any,
    sigma: Any,
    distortion: float,
    row_variance: Any,
    column_variance: Any,
    covariance: Any,
) -> float:
    """`lattq.bounds.layer_rate` with the two-way variances of the weight for those that are None; with K, rows alike.

    >>> reference_rate(np.ones((1, 1)), np.eye(1), 0.25, None, None, None)
    1.0
    """
    if covariance is not None:
        row_variance = 1.0 if row_variance is None else row_variance
        column_variance = 1.0 if column_variance is None else column_variance
    elif row_variance is None or column_variance is None:
        rows, columns = bounds.two_way_variances(weight)
        row_variance = rows if row_variance is None else row_variance
        column_variance = columns if column_variance is None else column_variance
    return bounds.layer_rate(sigma, distortion, row_variance, column_variance, covariance)
