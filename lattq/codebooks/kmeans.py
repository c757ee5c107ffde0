"""k-means of weighted vectors in any quadratic metric, on all samples, the same for any number of threads."""

import numpy as np
from jaxtyping import Float, Int
from threadpoolctl import threadpool_limits

from lattq._array import Array, from_host
from lattq._options import as_seed
from lattq.codebooks.clustering import Clustering, at_least_one, check_size, check_weights, finite_floats
from lattq.codebooks.whitened import Samples, Start
from lattq.errors import InvalidInputError

__all__ = ["kmeans", "nearest"]

_STRIDE = 1.8  # entries first move so many times as far as to the means: about half the iterations


def kmeans(
    x: Float[Array, "n dimension"],
    size: int,
    weights: Float[Array, " n"] | None = None,
    *,
    metric: Float[Array, "..."] | None = None,
    seed: int = 0,
    iterations: int = 50,
    tolerance: float = 1e-5,
    start: Start | Float[Array, "size dimension"] = "split",
    jobs: int = 1,
) -> Clustering:
    """A codebook of `size` vectors by Lloyd's algorithm; every iteration uses every sample.

    Distances are compared in float32, in float64 for such samples; sums, entries and errors are float64. An entry that
    no sample takes moves to the sample with the largest weighted squared error, the second such entry to the second
    largest, and so on.

    Parameters
    ----------
    x : samples
    size : entries of the codebook
    weights : of samples, above zero; 1 if not given
    metric : errors e cost eᵀ M e: a symmetric positive semidefinite M, or its diagonal; the identity if not given
    seed : of the starts "plus_plus" and "random"
    iterations : at most so many
    tolerance : stop once an iteration lowers the error by less than this fraction
    start : "split" halves the cell with the largest error until there are enough, and is not random; "plus_plus" draws
        samples by squared distance from those drawn before (n size steps); "random" draws any; or the first entries
    jobs : threads; the result does not depend on it

    Returns
    -------
    Entries, the nearest entry of each sample, the squared error per number in this metric, and that after each
    iteration, before samples move on.

    Raises
    ------
    InvalidInputError : if a number is not finite, a weight not positive, the metric not positive semidefinite or zero,
        or `size` above the number of different samples.

    References
    ----------
    Lloyd 1982; Su and Dy 2007 (splits); Arthur and Vassilvitskii 2007 (k-means++).

    Examples
    --------
    >>> x = np.array([[0.0, 0.0], [0.0, 1.0], [4.0, 4.0], [4.0, 6.0]])
    >>> found = kmeans(x, 2, np.array([1.0, 1.0, 3.0, 1.0]))
    >>> found.centroids
    array([[0. , 0.5],
           [4. , 4.5]])
    >>> float(found.distortion)
    0.2916666666666667
    """
    host, mass = finite_floats("x", x), np.empty(0)
    if host.ndim != 2 or 0 in host.shape:
        msg = f"`x` has shape {host.shape}; pass one sample per row"
        raise InvalidInputError(msg)
    count = check_size("size", size, len(host), "samples")
    iterations, jobs = at_least_one("iterations", iterations), at_least_one("jobs", jobs)
    if weights is not None:
        mass = np.ascontiguousarray(check_weights(weights, (len(host),)))
    samples = Samples.of(host, mass, metric, jobs)
    with threadpool_limits(1):
        entries = samples.start(start, count, as_seed(seed))
        entries, history = _lloyd(samples, entries, iterations, tolerance)
        found, _, _ = samples.cells(entries)
        distortion = samples.error(entries, found)
        centroids = samples.original(entries)
    return Clustering(from_host(centroids, like=x), from_host(found, like=x), distortion, tuple(history))


def _lloyd(samples: Samples, entries: np.ndarray, iterations: int, tolerance: float) -> tuple[np.ndarray, list[float]]:
    """The best means met, and their errors: over-relaxed steps while these help, then plain ones."""
    stride, best, history = _STRIDE, entries, []
    for _ in range(iterations):
        means, error, used = samples.improved(entries)
        gain = history[-1] - error if history else np.inf
        history.append(min(error, history[-1] if history else error))
        best = means if gain > 0 else best
        if gain > tolerance * error:
            entries = np.where(used[:, None], entries + stride * (means - entries), means)
        elif stride > 1:
            stride, entries = 1.0, best
        else:
            break
    return best, history


def nearest(
    x: Float[Array, "n dimension"],
    centroids: Float[Array, "size dimension"],
    *,
    metric: Float[Array, "..."] | None = None,
    jobs: int = 1,
) -> Int[Array, " n"]:
    """The nearest entry of each sample, the first of equally near ones; no table of all distances is kept.

    Parameters
    ----------
    x, metric, jobs : as for `kmeans`
    centroids : entries

    Raises
    ------
    InvalidInputError : if shapes differ or a number is not finite.

    Examples
    --------
    >>> nearest(np.array([[0.0, 1.0], [3.0, 3.0]]), np.array([[0.0, 0.0], [4.0, 4.0]]))
    array([0, 1], dtype=int32)
    """
    host, entries = finite_floats("x", x), finite_floats("centroids", centroids)
    if host.ndim != 2 or host.shape[1:] != entries.shape[1:]:
        msg = f"`x` has shape {host.shape} and `centroids` {entries.shape}; vectors must have one length"
        raise InvalidInputError(msg)
    samples = Samples.of(host, np.empty(0), metric, jobs)
    with threadpool_limits(1):
        return from_host(samples.cells(samples.turned(entries))[0], like=x)
