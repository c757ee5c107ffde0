"""Second moments from few samples, pulled towards what few samples can tell (theory 11.3)."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from lattq.errors import InvalidInputError
from lattq.linalg.checks import check_second_moment

__all__ = ["Shrunk", "intensity", "shrink"]


class Shrunk(NamedTuple):
    """A second moment that was shrunk.

    Attributes
    ----------
    matrix : positive definite as soon as a column varies
    variances : from 0 to 1, how far the variances went to their mean
    correlations : from 0 to 1, how far the correlations went to zero
    """

    matrix: Float[np.ndarray, "n n"]
    variances: float
    correlations: float


def shrink(
    sigma: Float[np.ndarray, "n n"], count: float | int, fourth: Float[np.ndarray, " columns"] | None = None
) -> Shrunk:
    """Shrink E[x xᵀ] of `count` samples: variances towards their mean, correlations towards zero.

    Both go as far as minimises the expected squared error of the variances, and of the correlations. From one sample
    the identity remains, times the mean variance; from many the second moment as it was, up to O(1 / count).

    Parameters
    ----------
    sigma : mean of x xᵀ over the samples
    count : of samples; if they are weighted, (Σ w)² / Σ w²
    fourth : mean of the fourth powers of each column; by default those of a Gaussian, 3 sigma[i, i]²

    Raises
    ------
    InvalidInputError : if `count` is not positive, `fourth` does not fit, or as `check_second_moment`

    References
    ----------
    Ledoit and Wolf, "A well-conditioned estimator for large-dimensional covariance matrices", 2004; Schäfer and
    Strimmer, "A shrinkage approach to large-scale covariance matrix estimation", 2005; Chen et al., "Shrinkage
    algorithms for MMSE covariance estimation", 2010.

    Examples
    --------
    >>> x = np.array([3.0, 4.0])
    >>> shrink(np.outer(x, x), 1).matrix
    array([[12.5,  0. ],
           [ 0. , 12.5]])
    >>> shrink(np.array([[2.0, 1.0], [1.0, 2.0]]), 1e6).matrix.round(3)
    array([[2., 1.],
           [1., 2.]])
    """
    sigma = check_second_moment(sigma)
    if not 0 < count < np.inf:
        msg = f"`count` is {count}; pass how many samples `sigma` is the mean of"
        raise InvalidInputError(msg)
    found = np.diag(sigma)
    fourth = 3 * found**2 if fourth is None else fourth
    if fourth.shape != found.shape or not np.isfinite(fourth).all():
        msg = f"`fourth` has shape {fourth.shape} for {len(found)} columns; pass one finite number for each"
        raise InvalidInputError(msg)
    alive = found > 0
    if not alive.any():
        return Shrunk(sigma, 1.0, 1.0)
    pull = _pull_of_variances(found, fourth, count)
    root = np.sqrt((1 - pull) * found + pull * found.mean())
    unit = np.sqrt(np.where(alive, found, 1.0))
    correlations = sigma / np.outer(unit, unit)
    np.fill_diagonal(correlations, 0.0)
    entries = float(len(found)) * (len(found) - 1)
    shrunk = intensity(float(np.sum(correlations**2)), entries, float(count))
    correlations *= 1 - shrunk
    np.fill_diagonal(correlations, 1.0)
    return Shrunk(correlations * np.outer(root, root), pull, shrunk)


def intensity(power: float, entries: float, count: float) -> float:
    """How far to pull correlations of Gaussians towards zero, from the sum of their squares.

    A correlation ρ that was measured on `count` samples has the variance (1 + ρ²) / count. Of a measured sum of
    squares, P + (entries + P) / count is expected, P the true one; the squared error of what is shrunk by α,
    (1 - α)² (entries + P) / count + α² P, is least at α = (entries + P) / (entries + P + count P) (theory 11.5).

    >>> intensity(power=2.0, entries=2.0, count=1.0)
    1.0
    >>> intensity(power=0.5, entries=2.0, count=100.0)
    0.0495...
    """
    if not power > 0:
        return 1.0
    true = max(0.0, (count * power - entries) / (count + 1))
    return min(1.0, (entries + true) / (count * power))


def _pull_of_variances(found: np.ndarray, fourth: np.ndarray, count: float | int) -> float:
    """How far to pull variances to their mean; all the way from one sample, whose fourth powers say nothing."""
    spread = float(np.sum((found - found.mean()) ** 2))
    if count <= 1 or not spread > 0:
        return 1.0
    noise = float(np.sum(np.maximum(fourth - found**2, 0.0))) / (count - 1)
    return min(1.0, noise / spread)
