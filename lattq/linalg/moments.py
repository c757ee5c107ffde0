"""Second moments of a stream of inputs, accumulated in float64."""

from collections.abc import Mapping

import numpy as np
from array_api_compat import device
from jaxtyping import Float, Shaped

from lattq._array import Array, array_namespace, as_array, as_reals, from_host, require_finite, to_host
from lattq.errors import InvalidInputError
from lattq.linalg.shrinkage import Shrunk, intensity, shrink

__all__ = ["SecondMoment"]


class SecondMoment:
    """Streaming E[x xᵀ], or E[x yᵀ] of two streams that run in step.

    Batches come from any array library; each product is taken in float64 where the batch lies, and the sum
    moves there too. An accumulator that was saved and loaded between two batches goes on to the same bits.
    What few samples leave open is counted beside the sum, see `shrunk`.

    Parameters
    ----------
    n : width of x
    other : width of y; leave it out for E[x xᵀ]

    Examples
    --------
    >>> moment = SecondMoment(2)
    >>> moment.update(np.array([[1.0, 2.0], [3.0, 0.0]]))
    >>> moment.matrix
    array([[5., 1.],
           [1., 2.]])
    >>> moment.count
    2.0
    >>> moment.shrunk().matrix
    array([[3.5, 0. ],
           [0. , 3.5]])
    """

    def __init__(self, n: int, other: int | None = None) -> None:
        if n < 1 or (other is not None and other < 1):
            msg = f"the widths are `n` = {n} and `other` = {other}; each must be at least 1"
            raise InvalidInputError(msg)
        self._symmetric = other is None
        self._shape = (n, n if other is None else other)
        self._sum: Array = np.zeros(self._shape)
        self._count = self._squares = 0.0
        self._powers: Array = np.zeros(n if other is None else n + other)  # x⁴, or x² and y²

    @property
    def count(self) -> float:
        """Number of samples seen, or the sum of their weights."""
        return self._count

    @property
    def matrix(self) -> Float[np.ndarray, "n other"]:
        """The mean of the products, in float64 on the host; E[x xᵀ] is exactly symmetric.

        Raises
        ------
        InvalidInputError : if no sample was seen
        """
        if not self._count > 0:
            msg = f"no mean of {self._count:g} samples; call `update` with at least one (of positive weight) first"
            raise InvalidInputError(msg)
        mean = to_host(self._sum) / self._count
        return 0.5 * (mean + mean.T) if self._symmetric else mean

    @property
    def effective_count(self) -> float:
        """Number of samples of equal weight that tell as much: (Σ w)² / Σ w².

        >>> moment = SecondMoment(1)
        >>> moment.update(np.ones((3, 1)), weights=np.array([2.0, 1.0, 1.0]))
        >>> moment.count, round(moment.effective_count, 3)
        (4.0, 2.667)
        """
        return self._count**2 / self._squares if self._squares > 0 else 0.0

    def shrunk(self) -> Shrunk:
        """The mean of the products, shrunk as far as the number of samples asks for.

        E[x xᵀ] as in `shrink`; E[x yᵀ] towards zero, by the same rule for correlations.

        Raises
        ------
        InvalidInputError : if no sample was seen
        """
        matrix, count = self.matrix, self.effective_count
        powers = to_host(self._powers) / self._count
        if self._symmetric:
            return shrink(matrix, count, powers)
        rows, columns = powers[: matrix.shape[0], None], powers[matrix.shape[0] :]
        shares = np.divide(matrix**2, rows * columns, out=np.zeros_like(matrix), where=(rows > 0) & (columns > 0))
        pull = intensity(float(np.sum(shares)), float(matrix.size), count)
        return Shrunk((1 - pull) * matrix, 0.0, pull)

    def update(
        self,
        x: Float[Array, "*batch n"],
        y: Float[Array, "*batch other"] | None = None,
        *,
        weights: Float[Array, "*batch"] | None = None,
    ) -> None:
        """Add samples: all vectors along the last axis.

        Parameters
        ----------
        y : the other stream, sample by sample; given if and only if the accumulator has a width for it
        weights : one weight of at least 0 per sample; 1 each by default

        Raises
        ------
        InvalidInputError
            if a width or number of samples is wrong, a value is NaN or infinite, or a weight is negative
        """
        if (y is None) != self._symmetric:
            wanted = "E[x xᵀ] takes no `y`" if self._symmetric else "E[x yᵀ] needs `y`"
            msg = f"this accumulator of shape {self._shape} for {wanted}; `SecondMoment(n, other)` is the one for pairs"
            raise InvalidInputError(msg)
        left = _rows("x", x, self._shape[0])
        right = left if y is None else _rows("y", y, self._shape[1])
        if left.shape[0] != right.shape[0]:
            msg = f"`x` has {left.shape[0]} samples and `y` has {right.shape[0]}; the streams must run in step"
            raise InvalidInputError(msg)
        xp, count = array_namespace(left), float(left.shape[0])
        squares, weighed, other = count, left, right
        if weights is not None:
            column = _weight_column(weights, left)
            count, squares = float(xp.sum(column)), float(xp.sum(column * column))
            weighed, other = left * column, right * column
        if self._symmetric:
            powers = xp.sum(weighed * left * left * left, axis=0)
        else:
            powers = xp.concat([xp.sum(weighed * left, axis=0), xp.sum(other * right, axis=0)])
        self._add(xp.matmul(weighed.T, right), powers, count, squares)

    def merge(self, other: "SecondMoment") -> None:
        """Add everything another accumulator of the same kind has seen.

        Raises
        ------
        InvalidInputError : if its widths or its kind differ
        """
        if (other._shape, other._symmetric) != (self._shape, self._symmetric):
            msg = f"cannot merge moments of shapes {self._shape} and {other._shape}; both must be of one kind and size"
            raise InvalidInputError(msg)
        self._add(other._sum, other._powers, other._count, other._squares)

    def to_arrays(self) -> dict[str, Shaped[np.ndarray, "..."]]:
        """Return the state as host arrays, to be saved: `sum`, `powers`, `count`, `squares` and `symmetric`."""
        return {
            "sum": np.array(to_host(self._sum)),
            "powers": np.array(to_host(self._powers)),
            "count": np.asarray(self._count),
            "squares": np.asarray(self._squares),
            "symmetric": np.asarray(self._symmetric),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Shaped[np.ndarray, "..."]]) -> "SecondMoment":
        """Restore what `to_arrays` returned.

        Raises
        ------
        InvalidInputError : if an array is missing, of a wrong shape or type, or not finite
        """
        names = {"sum": 2, "powers": 1, "count": 0, "squares": 0, "symmetric": 0}
        total, powers, count, squares, symmetric = (_entry(arrays, name, ndim) for name, ndim in names.items())
        n, other = total.shape
        kind = total.dtype == powers.dtype == np.float64 and (not symmetric or n == other)
        if not kind or len(powers) != (n if symmetric else n + other) or min(count, squares) < 0:
            msg = (
                f"`arrays` hold a {total.dtype} sum of shape {total.shape}, {len(powers)} powers, count {count} and "
                f"squares {squares}: not a saved moment"
            )
            raise InvalidInputError(msg)
        moment = cls(n, None if symmetric else other)
        moment._add(total, powers, float(count), float(squares))
        return moment

    def _add(self, product: Array, powers: Array, count: float, squares: float) -> None:
        self._sum, self._powers = _move(self._sum, product), _move(self._powers, product)
        self._sum += product
        self._powers += powers
        self._count += count
        self._squares += squares


def _rows(name: str, x: Array, width: int) -> Array:
    """Return `x` as finite float64 rows."""
    x = as_reals(name, x)  # without history: a sum that kept the graph of every batch would never free it
    require_finite(name, x)
    if x.ndim < 1 or x.shape[-1] != width:
        msg = f"`{name}` has shape {tuple(x.shape)}; its last axis must be {width} long"
        raise InvalidInputError(msg)
    xp = array_namespace(x)
    return xp.astype(xp.reshape(x, (-1, width)), xp.float64, copy=False)


def _weight_column(weights: Array, rows: Array) -> Array:
    """Return one non-negative finite weight per row, as a column beside `rows`."""
    column = _move(_rows("weights", as_array("weights", weights)[..., None], 1), rows)
    if column.shape[0] != rows.shape[0]:
        msg = f"`weights` has {column.shape[0]} entries for {rows.shape[0]} samples; give one each"
        raise InvalidInputError(msg)
    smallest = float(to_host(column).min(initial=0.0))
    if smallest < 0:
        msg = f"`weights` holds {smallest}; the weight of a sample is at least 0"
        raise InvalidInputError(msg)
    return column


def _move(x: Array, like: Array) -> Array:
    """Return `x` in the library and on the device of `like`."""
    if array_namespace(x) is array_namespace(like) and device(x) == device(like):
        return x
    return from_host(to_host(x), like=like)


def _entry(arrays: Mapping[str, np.ndarray], name: str, ndim: int) -> np.ndarray:
    if name not in arrays or np.ndim(arrays[name]) != ndim or not np.isfinite(arrays[name]).all():
        msg = f"`arrays` has no finite entry `{name}` with {ndim} axes; pass what `to_arrays` returned"
        raise InvalidInputError(msg)
    return np.asarray(arrays[name])
