"""The loop for groups of rows with second moments of their own: once for each, since rows do not hear each other."""

import math
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from lattq._array import Array, array_namespace
from lattq.errors import InvalidInputError
from lattq.feedback.cancellation import Cancellation
from lattq.feedback.loop import successive_cancellation
from lattq.linalg.ldl import LDL
from lattq.linalg.stacked import StackedLDL
from lattq.quantizers.base import Design, Quantizer

__all__ = ["cancel_groups"]


def cancel_groups(
    weight: Float[Array, "rows columns"],
    factors: list[LDL],
    design: Design,
    *,
    sweeps: int = 0,
    kept: Bool[np.ndarray, "rows columns"] | None = None,
    outputs: StackedLDL | None = None,
) -> Cancellation:
    """`successive_cancellation` of equal groups of rows, each with its own factor.

    Parameters
    ----------
    factors : of each group; with one alone this is the loop itself
    design : called for each group of rows; it must not shrink
    sweeps, kept, outputs : as in `successive_cancellation`; the outputs of several groups are a diagonal

    Raises
    ------
    InvalidInputError : as there, or for quantizers that do not say how rows of several stand one below the other

    Examples
    --------
    >>> from lattq.linalg import ldl
    >>> from lattq.quantizers import Uniform
    >>> weight, sigma = np.array([[0.6, 0.6], [0.6, 0.6]]), np.array([[1.0, 0.9], [0.9, 1.0]])
    >>> cancel_groups(weight, [ldl(sigma), ldl(np.eye(2))], Uniform(1.0)).codes
    array([[0, 1],
           [1, 1]], dtype=int32)
    """
    if len(factors) == 1:
        return successive_cancellation(weight, factors[0], design, sweeps=sweeps, kept=kept, outputs=outputs)
    height, found = math.ceil(weight.shape[0] / len(factors)), []
    for k, factor in enumerate(factors):
        rows = slice(k * height, (k + 1) * height)
        own = None if outputs is None else StackedLDL(outputs.unit[rows], outputs.pivots[rows])
        some = None if kept is None else kept[rows]
        found.append(successive_cancellation(weight[rows, :], factor, design, sweeps=sweeps, kept=some, outputs=own))
    xp = array_namespace(weight)
    return Cancellation(
        xp.concat([one.codes for one in found], axis=0),
        found[0].gains,
        [_stacked(list(parts), height) for parts in zip(*(one.quantizers for one in found), strict=True)],
        sum(one.overload for one in found),
        lambda: xp.concat([one.reconstruction for one in found], axis=0),
        lambda: xp.concat([one.noise for one in found], axis=0),
    )


def _stacked(parts: list[Any], height: int) -> Quantizer:
    """One quantizer of a group of columns from those of its groups of rows."""
    first = type(parts[0])
    found = first.stacked(parts, height) if all(type(part) is first for part in parts) else None
    if found is None:
        msg = (
            f"{first.__name__} does not say how rows of several stand one below the other, which `guides` ask for; "
            "leave `guides` out, or write `stacked(parts, height)`"
        )
        raise InvalidInputError(msg)
    return found
