"""Large codebooks from small ones: products (parts of a vector side by side) and sums (stage after stage)."""

import dataclasses
import math
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from threadpoolctl import threadpool_limits

from lattq._array import Array, from_host, short_repr, to_host
from lattq._options import as_integer
from lattq.codebooks.clustering import at_least_one, check_weights, different_rows, finite_floats
from lattq.codebooks.kmeans import kmeans, nearest
from lattq.codebooks.whitened import metric_root
from lattq.errors import InvalidInputError

__all__ = ["ProductCodebook", "ResidualCodebook", "fit_product", "fit_residual"]

_BLOCK = 1 << 22  # sums of a block of the beam search


@short_repr
@dataclasses.dataclass(frozen=True, eq=False)
class ProductCodebook:
    """Each part of a vector has a codebook of its own.

    Attributes
    ----------
    codebooks : entries of each part, (parts, size, dimension / parts), float64
    metric : weights of the squared coordinates, or None

    Examples
    --------
    >>> book = fit_product(np.array([[0.0, 1.0], [0.0, 5.0], [2.0, 1.0]]), 2, 2)
    >>> book.encode(np.array([[2.1, 0.5]])), book.decode(np.array([[1, 0]]))
    (array([[1, 0]], dtype=int32), array([[2., 1.]]))
    """

    codebooks: np.ndarray
    metric: np.ndarray | None = None

    @property
    def index_bits(self) -> float:
        """Bits per number, without the codebook."""
        _, size, width = self.codebooks.shape
        return math.log2(size) / width

    def encode(self, x: Float[Array, "n dimension"]) -> Int[Array, "n parts"]:
        """Indices of the nearest entries."""
        host, (parts, _, width) = (
            _vectors("x", x, self.codebooks.shape[0] * self.codebooks.shape[2]),
            self.codebooks.shape,
        )
        metrics = [None] * parts if self.metric is None else list(self.metric.reshape(parts, width))
        columns = [
            nearest(np.ascontiguousarray(host[:, i * width : (i + 1) * width]), self.codebooks[i], metric=metrics[i])
            for i in range(parts)
        ]
        return from_host(np.stack(columns, axis=1), like=x)

    def decode(self, codes: Int[Array, "n parts"]) -> Float[Array, "n dimension"]:
        """The entries side by side."""
        host = to_host(codes)
        found = np.concatenate([self.codebooks[i][host[:, i]] for i in range(len(self.codebooks))], axis=1)
        return from_host(found, like=codes)


def fit_product(
    x: Float[Array, "n dimension"],
    size: int,
    parts: int,
    weights: Float[Array, " n"] | None = None,
    *,
    metric: Float[Array, " dimension"] | None = None,
    **options: Any,
) -> ProductCodebook:
    """A product of `parts` codebooks of `size` entries, each by `kmeans`.

    Parameters
    ----------
    x, weights : samples
    size, parts : entries of a codebook, and their number, a divisor of the dimension
    metric : weights of the squared coordinates, at least one of each part above zero; a full metric would couple parts
    options : of `kmeans`

    Raises
    ------
    InvalidInputError : if `parts` does not divide the dimension, or as for `kmeans`.

    References
    ----------
    Jégou, Douze and Schmid 2011.

    Examples
    --------
    >>> fit_product(np.array([[0.0, 1.0], [0.0, 5.0], [2.0, 1.0]]), 2, 2).codebooks[1]
    array([[1.],
           [5.]])
    """
    host, parts = _vectors("x", x), at_least_one("parts", parts)
    dimension = host.shape[1]
    if dimension % parts:
        msg = f"`parts` is {parts}, which does not divide the {dimension} numbers of a vector"
        raise InvalidInputError(msg)
    scale = None if metric is None else finite_floats("metric", metric).astype(np.float64)
    if scale is not None and scale.shape != (dimension,):
        msg = f"`metric` has shape {scale.shape}; give the {dimension} weights of a diagonal one"
        raise InvalidInputError(msg)
    width, books = dimension // parts, []
    for low in range(0, dimension, width):
        part = np.ascontiguousarray(host[:, low : low + width])
        own = None if scale is None else scale[low : low + width]
        books.append(kmeans(part, size, weights, metric=own, **options).centroids)
    return ProductCodebook(np.stack(books), scale)


@short_repr
@dataclasses.dataclass(frozen=True, eq=False)
class ResidualCodebook:
    """A vector is a sum of one entry of each codebook.

    Attributes
    ----------
    codebooks : entries of each stage, (stages, size, dimension), float64
    root : B with B Bᵀ the metric, or None
    beam : partial sums that the search keeps at each stage
    history : weighted mean squared error per number of the training samples after each round

    Examples
    --------
    >>> x = np.array([[0.0], [1.0], [10.0], [11.0]])
    >>> book = fit_residual(x, 2, 2)
    >>> book.decode(book.encode(x)).round(9).T
    array([[ 0.,  1., 10., 11.]])
    """

    codebooks: np.ndarray
    root: np.ndarray | None = None
    beam: int = 8
    history: tuple[float, ...] = ()

    @property
    def index_bits(self) -> float:
        """Bits per number, without the codebooks."""
        stages, size, dimension = self.codebooks.shape
        return stages * math.log2(size) / dimension

    def encode(self, x: Float[Array, "n dimension"]) -> Int[Array, "n stages"]:
        """Indices of the best sums that the beam search meets; with a beam of size^(stages - 1), of the best."""
        host = _vectors("x", x, self.codebooks.shape[2]).astype(np.float64)
        target = host if self.root is None else host @ self.root
        books = self.codebooks if self.root is None else self.codebooks @ self.root
        rows = max(1, _BLOCK // (self.beam * books.shape[1]))
        with threadpool_limits(1):
            parts = [_search(target[low : low + rows], books, self.beam) for low in range(0, len(target), rows)]
        return from_host(np.concatenate(parts), like=x)

    def decode(self, codes: Int[Array, "n stages"]) -> Float[Array, "n dimension"]:
        """Sums of entries."""
        host = to_host(codes)
        entries = [book[host[:, i]] for i, book in enumerate(self.codebooks)]
        return from_host(np.sum(entries, axis=0), like=codes)


def fit_residual(
    x: Float[Array, "n dimension"],
    size: int,
    stages: int,
    weights: Float[Array, " n"] | None = None,
    *,
    metric: Float[Array, "..."] | None = None,
    beam: int = 8,
    rounds: int = 10,
    **options: Any,
) -> ResidualCodebook:
    """Additive codebooks: k-means of what earlier stages leave, then rounds of search and refit of every stage.

    In a round each sample takes the codes of the beam search where they are better than those it has, and each codebook
    in turn becomes the means of what the others leave: the error never grows.

    Parameters
    ----------
    x, weights : samples
    size, stages : entries of a codebook, and their number
    metric : as for `kmeans`
    beam : partial sums that the search keeps at each stage
    rounds : of search and refit after the first; 0 for plain residual quantization
    options : of `kmeans`, for the first codebooks

    Raises
    ------
    InvalidInputError : as for `kmeans`, or if `stages` or `beam` is below 1.

    References
    ----------
    Babenko and Lempitsky 2014 (additive quantization); Liu et al. 2015 (beam search).

    Examples
    --------
    >>> fit_residual(np.array([[0.0], [1.0], [10.0], [11.0]]), 2, 2).history[-1] < 1e-20
    True
    """
    host, stages, beam = _vectors("x", x), at_least_one("stages", stages), at_least_one("beam", beam)
    host, size, rounds = host.astype(np.float64), at_least_one("size", size), as_integer("rounds", rounds)
    mass = np.ones(len(host)) if weights is None else check_weights(weights, (len(host),))
    root = None if metric is None else metric_root(metric, host.shape[1])
    books, codes, rest = [], np.zeros((len(host), stages), np.int32), host
    for stage in range(stages):
        found = kmeans(rest, min(size, different_rows(rest, size)), weights, metric=metric, **options)
        entries = np.asarray(found.centroids)
        books.append(np.concatenate([entries, np.repeat(entries[-1:], size - len(entries), axis=0)]))
        codes[:, stage] = found.assignment
        rest = rest - books[stage][codes[:, stage]]
    book = ResidualCodebook(np.stack(books), root, beam)
    history = [_error(book, host, mass, codes).sum() / (mass.sum() * host.shape[1])]
    for _ in range(rounds):
        other = book.encode(host)
        better = _error(book, host, mass, other) < _error(book, host, mass, codes)
        codes[better] = other[better]
        _refit(book.codebooks, host, mass, codes)
        history.append(_error(book, host, mass, codes).sum() / (mass.sum() * host.shape[1]))
    return dataclasses.replace(book, history=tuple(float(error) for error in history))


def _vectors(name: str, x: Array, dimension: int | None = None) -> np.ndarray:
    host = finite_floats(name, x)
    if host.ndim != 2 or dimension not in (None, host.shape[1]):
        msg = (
            f"`{name}` has shape {host.shape}; pass one vector {f'of {dimension} numbers ' if dimension else ''}per row"
        )
        raise InvalidInputError(msg)
    return host


def _search(x: np.ndarray, books: np.ndarray, beam: int) -> np.ndarray:
    """Codes of the best sum, of the `beam` best after each stage; the first of equal ones."""
    n, size = len(x), books.shape[1]
    rest, codes = x[:, None], np.zeros((n, 1, 0), np.int32)
    for book in books:
        scores = np.square(rest).sum(axis=2)[:, :, None] - 2 * rest @ book.T + np.square(book).sum(axis=1)
        scores = scores.reshape(n, -1)
        kept = min(beam, scores.shape[1])
        chosen = np.sort(np.argpartition(scores, kept - 1, axis=1)[:, :kept], axis=1)
        chosen = np.take_along_axis(chosen, np.take_along_axis(scores, chosen, 1).argsort(axis=1, kind="stable"), 1)
        before, index = chosen // size, chosen % size
        rest = np.take_along_axis(rest, before[:, :, None], axis=1) - book[index]
        earlier = np.take_along_axis(codes, before[:, :, None], axis=1)
        codes = np.concatenate([earlier, index[:, :, None].astype(np.int32)], axis=2)
    return codes[:, 0]


def _error(book: ResidualCodebook, x: np.ndarray, mass: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Weighted squared error of each sample."""
    offset = x - book.decode(codes)
    return mass * np.square(offset if book.root is None else offset @ book.root).sum(axis=1)


def _refit(books: np.ndarray, x: np.ndarray, mass: np.ndarray, codes: np.ndarray) -> None:
    """Each codebook in turn the means of what the others leave; unused entries stay."""
    rest = x - sum(book[codes[:, i]] for i, book in enumerate(books))
    for i, book in enumerate(books):
        own, total = codes[:, i], np.bincount(codes[:, i], mass, len(book))
        moves = np.stack([np.bincount(own, mass * column, len(book)) for column in rest.T], axis=1)
        moves /= np.where(total > 0, total, 1.0)[:, None]
        book += moves
        rest -= moves[own]
