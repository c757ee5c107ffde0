"""The rate–distortion function of a linear layer whose weights are Gaussian.

`sigma` is E[x xᵀ] of the inputs; the distortion is tr((W - Ŵ) Σ (W - Ŵ)ᵀ) / (rows · columns), the rate is bits per
weight. Row r of the weights is N(0, ρ_r K), so that with the eigenvalues λ_i of K^½ Σ K^½ the layer is as hard as
rows · columns independent Gaussians of variance ρ_r λ_i (theory 1.12). Where errors of outputs count by a matrix G, the
eigenvalues of P^½ G P^½, P = diag(ρ), take the place of the ρ_r (theory 15.4).
"""

from typing import Any

import numpy as np
from jaxtyping import Float

from lattq._array import Array
from lattq._metric import Metric
from lattq.bounds._checks import Number, non_negative, positive, scalar_or_vector
from lattq.bounds._matrix import eigenvalues, square_root, symmetric
from lattq.bounds.waterfilling import waterfill_product
from lattq.errors import InvalidInputError

__all__ = ["layer_distortion", "layer_rate", "layer_spectrum"]


def layer_spectrum(
    sigma: Float[Array, "n n"],
    column_variance: Float[Array, " n"] | Number = 1.0,
    covariance: Float[Array, "n n"] | None = None,
) -> Float[np.ndarray, " n"]:
    """Return the eigenvalues of K^½ Σ K^½, ascending: the variances a layer asks to be coded.

    With them a whole rate–distortion curve costs one eigendecomposition:
    ``waterfill_product(row_variance, layer_spectrum(sigma), distortion=d)``.

    Parameters
    ----------
    sigma : second moment of the inputs; may be singular.
    column_variance : diagonal of K, or one number for all of it.
    covariance : K itself, if the weights of a row are correlated; `column_variance` then stays 1.

    Raises
    ------
    InvalidInputError : if an argument is not finite, a matrix not symmetric or shapes disagree.
    NotPositiveSemidefiniteError : if a matrix has a negative eigenvalue beyond rounding.

    Examples
    --------
    >>> layer_spectrum(np.diag([1.0, 3.0]), column_variance=np.array([4.0, 1.0])).round(12)
    array([3., 4.])
    """
    matrix, tolerance = symmetric("sigma", sigma)
    if covariance is not None:
        return _correlated_spectrum(matrix, tolerance, column_variance, covariance)
    columns = scalar_or_vector("column_variance", column_variance)
    if columns.size not in (1, len(matrix)):
        msg = f"`column_variance` has {columns.size} entries; `sigma` has {len(matrix)} columns"
        raise InvalidInputError(msg)
    scale = np.sqrt(columns)
    return eigenvalues("sigma", scale[:, None] * matrix * scale, tolerance * float(columns.max()))


def _correlated_spectrum(
    matrix: np.ndarray, tolerance: float, column_variance: Array | Number, covariance: Array
) -> np.ndarray:
    if np.ndim(column_variance) != 0 or column_variance != 1.0:
        msg = "got `column_variance` and `covariance`; put the column variances on the diagonal of `covariance`"
        raise InvalidInputError(msg)
    other, other_tolerance = symmetric("covariance", covariance)
    if other.shape != matrix.shape:
        msg = f"`covariance` has shape {other.shape}; `sigma` has shape {matrix.shape}"
        raise InvalidInputError(msg)
    # Fᵀ Σ F has the eigenvalues of K^½ Σ K^½ for every F with F Fᵀ = K.
    root = square_root("covariance", other, other_tolerance)
    norm = float(np.abs(root).sum(axis=0).max() * np.abs(root).sum(axis=1).max())  # bounds the largest eigenvalue of K
    return eigenvalues("sigma", root.T @ matrix @ root, tolerance * norm)


def output_spectrum(metric: Metric, row_variance: Float[Array, " rows"] | Number = 1.0) -> Float[np.ndarray, " rows"]:
    """Return the eigenvalues of P^½ G P^½, P = diag(row_variance); the variances themselves where G is the identity.

    Raises
    ------
    InvalidInputError : if the variances are not finite, or not one or as many as the metric has rows.

    Examples
    --------
    >>> output_spectrum(Metric(np.eye(1), np.array([[2.0, 1.0], [1.0, 2.0]]))).round(12)
    array([1., 3.])
    """
    rows = scalar_or_vector("row_variance", row_variance)
    if metric.outputs is None:
        return rows
    if rows.size not in (1, metric.rows):
        msg = f"`row_variance` has {rows.size} entries; the metric has {metric.rows} rows"
        raise InvalidInputError(msg)
    scale = np.sqrt(np.broadcast_to(rows, len(metric.outputs) * metric.height)).reshape(-1, metric.height)
    blocks = zip(metric.outputs, scale, strict=True)
    found = [
        eigenvalues("outputs", s[:, None] * g * s, 1e-6 * float(np.trace(g)) * float(np.max(s)) ** 2) for g, s in blocks
    ]
    return np.concatenate(found)


def layer_rate(
    sigma: Float[Array, "n n"] | Metric,
    distortion: Number,
    row_variance: Float[Array, " rows"] | Number = 1.0,
    column_variance: Float[Array, " n"] | Number = 1.0,
    covariance: Float[Array, "n n"] | None = None,
) -> float:
    """Return R(D) of a layer of Gaussian weights of known variances: no code of fewer bits per weight does as well.

    Weight (r, j) has variance ``row_variance[r] * column_variance[j]``, independent of the others, or row r has the
    covariance ``row_variance[r] * covariance``. Encoder and decoder both know `sigma` and the variances.

    Parameters
    ----------
    sigma : second moment of the inputs, which may be singular; or a `Metric`, which also weighs the outputs.
    distortion : squared error of the outputs per weight, tr(G (W - Ŵ) Σ (W - Ŵ)ᵀ) / (rows · columns).
    row_variance : one per row, or one number for rows that are all alike.
    column_variance : one per column, or one number.
    covariance : of a row of weights, instead of `column_variance`.

    Returns
    -------
    Bits per weight.

    Raises
    ------
    InvalidInputError : if `distortion` is not positive, an argument is not finite or shapes disagree.
    NotPositiveSemidefiniteError : if `sigma` or `covariance` has a negative eigenvalue beyond rounding.

    References
    ----------
    Lifar, Savkin, Ordentlich and Polyanskiy 2026 (WaterSIC), section 3.1, with equal variances.

    Examples
    --------
    >>> sigma = np.array([[2.0, 1.0], [1.0, 2.0]])
    >>> round(layer_rate(sigma, distortion=0.5), 6)
    0.896241
    """
    distortion = positive("distortion", distortion)
    rows, spectrum = _spectra(sigma, row_variance, column_variance, covariance)
    return waterfill_product(rows, spectrum, distortion=distortion).rate


def layer_distortion(
    sigma: Float[Array, "n n"] | Metric,
    rate: Number,
    row_variance: Float[Array, " rows"] | Number = 1.0,
    column_variance: Float[Array, " n"] | Number = 1.0,
    covariance: Float[Array, "n n"] | None = None,
) -> float:
    """Return D(R) of a layer of Gaussian weights, the inverse of `layer_rate`.

    Parameters
    ----------
    sigma : second moment of the inputs; may be singular.
    rate : bits per weight.
    row_variance, column_variance, covariance : as for `layer_rate`.

    Returns
    -------
    Squared error of the outputs per weight.

    Raises
    ------
    InvalidInputError : if `rate` is negative, an argument is not finite or shapes disagree.
    NotPositiveSemidefiniteError : if `sigma` or `covariance` has a negative eigenvalue beyond rounding.

    Examples
    --------
    >>> sigma = np.array([[2.0, 1.0], [1.0, 2.0]])
    >>> round(layer_distortion(sigma, rate=2.0), 6)  # sqrt(det sigma) / 16
    0.108253
    """
    rate = non_negative("rate", rate)
    rows, spectrum = _spectra(sigma, row_variance, column_variance, covariance)
    return waterfill_product(rows, spectrum, rate=rate).distortion


def _spectra(sigma: Any, row_variance: Any, column_variance: Any, covariance: Any) -> tuple[np.ndarray, np.ndarray]:
    """Variances whose products the weights of a layer ask to be coded, of rows and of columns."""
    if not isinstance(sigma, Metric):
        return scalar_or_vector("row_variance", row_variance), layer_spectrum(sigma, column_variance, covariance)
    if sigma.guides is not None:
        return np.ones(1), _guided_spectrum(sigma, row_variance, column_variance, covariance)
    return output_spectrum(sigma, row_variance), layer_spectrum(sigma.inputs, column_variance, covariance)


def _guided_spectrum(metric: Metric, row_variance: Any, column_variance: Any, covariance: Any) -> np.ndarray:
    """Variances of all weights where groups of rows have second moments of their own: as many as weights, or groups."""
    spectra = np.stack([layer_spectrum(guide, column_variance, covariance) for guide in metric.guides])
    rows = output_spectrum(metric, row_variance)
    if rows.size == 1:
        return (rows * spectra).reshape(-1)
    return (rows.reshape(len(spectra), -1, 1) * spectra[:, None, :]).reshape(-1)
