"""How the off-diagonals are let in during training: AffineQuant's gradual mask, and a budget that grows."""

import math

import numpy as np
from jaxtyping import Float

from lattq._options import as_float, as_integer
from lattq.affine.checks import at_least, check_ratio, check_stability
from lattq.errors import InvalidInputError

__all__ = ["gradual_mask", "growing_ratio", "stable_factor"]


def gradual_mask(
    n: int, epoch: int, epochs: int, stability: float = 1.0, *, heads: int = 1
) -> Float[np.ndarray, "size size"]:
    """The mask of AffineQuant at an epoch: 1 on the diagonal, `stability` in a band that grows, 0 outside.

    The band reaches ⌊(n − 1) epoch / (epochs − 1)⌋ from the diagonal: the first epoch, 0, trains the diagonal, the
    last all of the matrix. A single epoch is the last. The mask of the last epoch stays: the map is A ∘ mask.
    It keeps a matrix dominant if it was, and makes none dominant (theory 12.6).

    Parameters
    ----------
    n : rows of a head
    stability : the factor α of the article, above 0 and at most 1
    heads : blocks of n rows on the diagonal; nothing outside

    Raises
    ------
    InvalidInputError : for an epoch that is not below `epochs`, an α that is not in (0, 1], and sizes below 1

    References
    ----------
    Ma et al., "AffineQuant: Affine transformation quantization for large language models", 2024, eq. 6.

    Examples
    --------
    >>> gradual_mask(3, 1, 3, 0.1)
    array([[1. , 0.1, 0. ],
           [0.1, 1. , 0.1],
           [0. , 0.1, 1. ]])
    """
    n, heads = (at_least(name, value, 1) for name, value in (("n", n), ("heads", heads)))
    epoch, epochs, stability = as_integer("epoch", epoch), as_integer("epochs", epochs), check_stability(stability)
    if not 0 <= epoch < epochs:
        msg = f"`epoch` is {epoch} of {epochs}; epochs count from 0 to epochs - 1"
        raise InvalidInputError(msg)
    reach = (n - 1) * epoch // (epochs - 1) if epochs > 1 else n - 1
    distance = np.abs(np.arange(n)[:, None] - np.arange(n))
    mask = np.where(distance == 0, 1.0, np.where(distance <= reach, stability, 0.0))
    return np.kron(np.eye(heads), mask)


def stable_factor(n: int, steps: int, rate: float, diagonal: float = 1.0) -> float:
    """The α below which Adam's steps cannot leave the dominant set: steps · rate · α (n − 1) < diagonal.

    No entry moves more than `rate` in a step, and the diagonal is taken to stay above `diagonal` (theory 12.6).

    >>> f"{stable_factor(4096, 2560, 5e-3):.1e}"      # the article's settings, with α = 0.01
    '1.9e-05'
    """
    n, steps = at_least("n", n, 1), at_least("steps", steps, 1)
    reach = as_float("rate", rate) * steps * (n - 1)
    return as_float("diagonal", diagonal) / reach if reach > 0 else math.inf


def growing_ratio(step: int, steps: int, ratio: float = 0.9, *, share: float = 0.5) -> float:
    """The budget of a step: 0 at the first, growing linearly to `ratio` over a share of the steps, constant after.

    Projected on rows of N within that budget, training goes from a diagonal map to the full one, and every map on the
    way is certified.

    Parameters
    ----------
    share : of the steps, above 0 and at most 1, in which the ratio grows

    Raises
    ------
    InvalidInputError : unless 0 <= step <= steps, 0 < ratio < 1 and 0 < share <= 1

    Examples
    --------
    >>> [growing_ratio(step, 8, 0.8) for step in (0, 2, 4, 8)]
    [0.0, 0.4, 0.8, 0.8]
    """
    step, steps, share = as_integer("step", step), at_least("steps", steps, 1), as_float("share", share)
    if not 0 <= step <= steps:
        msg = f"`step` is {step} of {steps}; steps count from 0"
        raise InvalidInputError(msg)
    if not 0 < share <= 1:
        msg = f"`share` is {share}; the ratio grows over a share above 0 and at most 1 of the steps"
        raise InvalidInputError(msg)
    return check_ratio(ratio) * min(1.0, step / (share * steps))
