"""Row and column variances of a weight matrix: the two-way scaled Gaussian of maximum likelihood."""

import numpy as np
from jaxtyping import Float

from lattq._array import Array, host_reals
from lattq.errors import InvalidInputError

__all__ = ["two_way_variances"]

# Relative error of the two stationarity conditions; the standard error of a variance, √(2 / columns), is far above.
_TOLERANCE = 1e-10
_SWEEPS, _NEWTON_STEPS = 100, 100
_RUNAWAY = 20.0  # nats between row variances and means of squares at which zeros are taken to push the maximum away


def two_way_variances(
    weight: Float[Array, "rows columns"],
) -> tuple[Float[np.ndarray, " rows"], Float[np.ndarray, " columns"]]:
    """Fit the variance ``row[r] * column[j]`` to a matrix by maximum likelihood, theory (1.13).

    For zero-mean Gaussian entries the likelihood is stationary where each side is the mean of the squares divided by
    the other side, ``row[r] = mean_j(w[r, j]**2 / column[j])`` and ``column[j] = mean_r(w[r, j]**2 / row[r])``. They
    are iterated until they hold; that is Sinkhorn's balancing of the squares, and Newton's method where it is slow.
    Zero rows and columns get variance 0 and stay out of the means of the others.

    Returns
    -------
    Row variances, whose mean over all rows is 1, and column variances in squared units of `weight`. The columns of a
    zero matrix are zero and its rows are 1.

    Raises
    ------
    InvalidInputError : if `weight` is not a finite matrix, or so many of its entries are zero that the likelihood has
        no maximum; without zeros there always is one.

    References
    ----------
    Sinkhorn 1964; the likelihood is convex in log row: Cohen, Madry, Tsipras and Vladu 2017.

    Examples
    --------
    >>> row, column = two_way_variances(np.sqrt(np.outer([0.5, 1.5], [1.0, 2.0, 3.0])))
    >>> row.round(9), column.round(9)
    (array([0.5, 1.5]), array([1., 2., 3.]))
    """
    host = host_reals("weight", weight)
    if host.ndim != 2 or host.size == 0:
        msg = f"`weight` has shape {host.shape}; pass a matrix with rows and columns"
        raise InvalidInputError(msg)
    row, column = np.zeros(host.shape[0]), np.zeros(host.shape[1])
    peak = float(np.abs(host).max())
    if peak > 1e150:
        msg = f"`weight` holds an entry of size {peak:.3g}, whose square overflows; rescale the weights"
        raise InvalidInputError(msg)
    if peak == 0.0:
        return np.ones_like(row), column
    squares = np.square(host / peak)  # no overflow, and no underflow that matters
    live_rows, live_columns = squares.any(axis=1), squares.any(axis=0)
    if not (live_rows.all() and live_columns.all()):
        squares = squares[np.ix_(live_rows, live_columns)]
    wide = squares.shape[0] <= squares.shape[1]  # Newton's method factors a matrix of the shorter side
    short, long = _balance(squares if wide else squares.T)
    row[live_rows], column[live_columns] = (short, long) if wide else (long, short)
    mean = row.mean()
    return row / mean, column * (mean * peak**2)


def _balance(squares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Alternate the two means until they no longer move."""
    row = squares.mean(axis=1)
    for _ in range(_SWEEPS):
        column = (1.0 / row) @ squares / row.size
        ratio = (squares @ (1.0 / column) / column.size) / row
        if np.abs(ratio - 1.0).max() <= _TOLERANCE:
            return row, column
        row = row * ratio
    return _newton(squares, np.log(row))


def _newton(squares: np.ndarray, log_row: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Minimise Σ_r log_row + (rows / columns) Σ_j ln Σ_r squares / row, convex: the likelihood at its best columns."""
    aspect, plain = squares.shape[0] / squares.shape[1], np.log(squares.mean(axis=1))
    runaway = np.inf if squares.all() else _RUNAWAY  # Sinkhorn's theorem

    def cost(x: np.ndarray) -> float:
        return float(x.sum() + aspect * np.log(np.exp(-x) @ squares).sum())

    error = np.inf
    for _ in range(_NEWTON_STEPS):
        log_row = log_row - log_row.mean()  # the split between rows and columns is free; keep it from drifting
        scaled = squares * np.exp(-log_row)[:, None]
        column = scaled.mean(axis=0)
        share = scaled / (column * len(scaled))
        gradient = 1.0 - aspect * share.sum(axis=1)
        error = float(np.abs(gradient).max())
        if error <= _TOLERANCE:
            return np.exp(log_row), column
        # The free split makes the Hessian singular; the ridge is below the tolerance.
        hessian = np.diag(1.0 - gradient + 0.1 * _TOLERANCE) - aspect * (share @ share.T)
        step = -np.linalg.solve(hessian, gradient)
        step /= max(1.0, float(np.abs(step).max()))  # within 1 the Hessian changes by e² at most
        while cost(log_row + step) > cost(log_row) and np.abs(step).max() > 1e-6:
            step /= 2.0
        log_row = log_row + step
        if np.ptp(log_row - plain) > runaway:
            break
    msg = (
        f"`weight` has no two-way variances: Newton's method stops with a row off its condition by {error:.2g} "
        "(relative). Too many entries are zero; leave out the sparsest rows or columns"
    )
    raise InvalidInputError(msg)
