"""A layer as it is given: its weight, and the metric of its errors."""

from typing import Any

from lattq._array import Array, as_floats
from lattq._metric import Metric, unchecked
from lattq.errors import InvalidInputError
from lattq.linalg.checks import with_root

__all__ = ["as_metric", "check_layer"]


def as_metric(sigma: Any, shape: tuple[int, int] | None = None) -> Metric:
    """A metric as it is, a second moment as the metric of its inputs; checked against the shape of the weights.

    Raises
    ------
    InvalidInputError, NotPositiveSemidefiniteError : as `Metric`, or for another number of columns or rows

    Examples
    --------
    >>> import numpy as np
    >>> as_metric(np.eye(2), (3, 2)).rows is None
    True
    """
    if not isinstance(sigma, Metric):
        inputs, root = with_root(sigma, None if shape is None else shape[1])
        return unchecked(inputs, None, root=root)
    if shape is not None and (sigma.columns != shape[1] or sigma.rows not in (None, shape[0])):
        rows = "any number of rows" if sigma.rows is None else f"{sigma.rows} rows"
        msg = (
            f"the metric is one of {rows} and {sigma.columns} columns, the weight has shape {tuple(shape)}; pass "
            "second moments of the inputs and of the gradients at the outputs of this layer"
        )
        raise InvalidInputError(msg)
    if shape is not None and sigma.guides is not None and shape[0] % len(sigma.guides):
        msg = (
            f"the metric has `guides` of {len(sigma.guides)} groups, which do not divide {shape[0]} rows of the weight"
        )
        raise InvalidInputError(msg)
    return sigma


def check_layer(weight: Array, sigma: Any) -> tuple[Array, Metric]:
    """Return weight as floating point of at least 32 bits, and the metric of its errors.

    Raises
    ------
    InvalidInputError : unless `weight` is a finite floating-point matrix, or as `as_metric`
    NotPositiveSemidefiniteError : for a second moment with a negative pivot

    Examples
    --------
    >>> import numpy as np
    >>> check_layer(np.ones((2, 3), dtype=np.float16), np.eye(3))[0].dtype
    dtype('float32')
    """
    weight = as_floats("weight", weight)
    if weight.ndim != 2 or 0 in weight.shape:
        msg = f"`weight` has shape {tuple(weight.shape)}; it must be a matrix with rows and columns"
        raise InvalidInputError(msg)
    return weight, as_metric(sigma, (int(weight.shape[0]), int(weight.shape[1])))
