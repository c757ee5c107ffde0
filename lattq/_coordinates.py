"""The coordinates that a scheme quantizes a layer in: its transform, and the equalizing diagonal behind it."""

import dataclasses
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from lattq._array import Array, array_namespace, to_host
from lattq._layer import check_layer
from lattq._metric import Metric
from lattq.errors import InvalidInputError
from lattq.feedback.rules import beside
from lattq.linalg.checks import with_diagonal
from lattq.linalg.ldl import LDL
from lattq.linalg.stacked import StackedLDL
from lattq.parts.registry import kind_of
from lattq.transforms import Fixed, chains
from lattq.transforms.base import Transform

__all__ = ["Changed", "changed", "holding", "require_below", "transform_of"]


class Changed(NamedTuple):
    """A layer in other coordinates.

    Attributes
    ----------
    transform : T
    weight : W T⁻¹
    factors : of T Σ Tᵀ of each group of rows; one if there are no groups
    outputs : factors of the metric of the outputs; None for the identity
    """

    transform: Any
    weight: Array
    factors: list[LDL]
    outputs: StackedLDL | None


def changed(weight: Array, metric: Metric, scheme: Any, damping: float = 0.0) -> Changed:
    """A layer as the loop of a scheme sees it, with so much more damping of its feedback."""
    transform: Any = scheme.transform(weight, metric.inputs)
    kind_of("transform", transform)
    if scheme.quantizer.importance is not None and not transform.keeps_entries:
        msg = f"`importance` weighs the weights themselves, not those after {transform!r}; leave one out"
        raise InvalidInputError(msg)
    moved, now = transform.forward(weight), metric.moved(transform)
    feedback, outputs = scheme.feedback, None
    if now.outputs is not None:
        moved, blocks, feedback = beside(feedback, moved, now.outputs, now.inputs)
        outputs = StackedLDL.of(blocks)
    if now.height > 1 and scheme.quantizer.sequences:  # a decoder follows fronts in the order of the matrix
        feedback = dataclasses.replace(feedback, order="natural")
    factor = _factor(feedback, moved, now.inputs, damping)
    factors = [factor] if now.guides is None else _of_groups(feedback, moved, now.guides, damping)
    if scheme.equalize and outputs is not None:
        rows = scheme.equalize.rows(outputs, weight.shape[1])
        transform, moved, outputs = (
            chains.append(transform, rows),
            rows.forward(moved),
            outputs.rescaled(1 / rows.scale),
        )
    largest = _largest(moved)
    _require_range(moved, largest, np.ones(1))
    if scheme.equalize:
        diagonal = scheme.equalize(factor, weight.shape[0])
        _require_range(moved, largest, diagonal.scale)
        transform, moved = chains.append(transform, diagonal), diagonal.forward(moved)
        factors = [one.rescaled(1 / diagonal.scale) for one in factors]
    return Changed(transform, moved, factors, outputs)


def _factor(feedback: Any, weight: Array, sigma: np.ndarray, damping: float) -> LDL:
    """The factor of a rule, with so much more damping."""
    if damping:
        sigma = with_diagonal(sigma, damping * float(np.diag(sigma).mean()), "damping", damping)
    return feedback.factor(weight, sigma)


def _of_groups(feedback: Any, weight: Array, guides: np.ndarray, damping: float) -> list[LDL]:
    """The factor of each group of rows."""
    height = int(weight.shape[0]) // len(guides)
    rows = [weight[k * height : (k + 1) * height, :] for k in range(len(guides))]
    return [_factor(feedback, own, guide, damping) for own, guide in zip(rows, guides, strict=True)]


def transform_of(weight: Float[Array, "rows columns"], sigma: Float[Array, "columns columns"], scheme: Any) -> Any:
    """The transform that a scheme chooses for a layer, without a run of its loop.

    `quantize` may add a power of two to it, and damps what is worse than zeros.

    Raises
    ------
    InvalidInputError, NotPositiveSemidefiniteError : as `quantize`

    Examples
    --------
    >>> import lattq as lq
    >>> transform_of(np.eye(4), np.eye(4), lq.Scheme(transform=lq.transforms.Hadamard(1)))
    Hadamard(seed=1)
    """
    checked, metric = check_layer(weight, sigma)
    return changed(to_host(checked), scheme.sees(metric), scheme).transform


def holding(scheme: Any, transform: Transform) -> Any:
    """A scheme with this transform, whatever layer it is given.

    >>> import lattq as lq
    >>> held = holding(lq.recipes.watersic(0.1), lq.transforms.Hadamard(1))
    >>> held.transform(np.eye(4), np.eye(4)), held.equalize
    (Hadamard(seed=1), None)
    """
    return dataclasses.replace(scheme, transform=Fixed(transform), equalize=None)


def require_below(largest: float, limit: float, weight: Array) -> None:
    """Raise `InvalidInputError` where scaled weights reach beyond what their dtype holds.

    >>> require_below(1.0, 2.0, np.ones(1))
    """
    if not largest <= limit:
        msg = (
            f"weights scaled by the pivots of `sigma` reach {largest:.3g}, but {weight.dtype} holds up to {limit:.3g} "
            "here; multiply `sigma` or the weights by a constant, or pass the weights as float64"
        )
        raise InvalidInputError(msg)


def _largest(weight: Array) -> np.ndarray:
    """The largest magnitude in each column."""
    xp = array_namespace(weight)
    high, low = (to_host(reduce(weight, axis=0)).astype(np.float64) for reduce in (xp.max, xp.min))
    return np.maximum(high, -low)


def _require_range(weight: Array, columns: np.ndarray, scale: np.ndarray) -> None:
    """Raise `InvalidInputError` unless the loop's dtype holds the scaled columns, of these largest magnitudes."""
    limit = float(array_namespace(weight).finfo(weight.dtype).max)
    require_below(float(np.maximum(columns * scale, scale).max()), limit, weight)
