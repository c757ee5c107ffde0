"""Stacks of second moments: of the blocks down the diagonal of a matrix, or one for each group of rows."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from lattq._array import as_array, short_repr
from lattq.errors import InvalidInputError, NotPositiveSemidefiniteError
from lattq.linalg.checks import require_root, require_semidefinite
from lattq.linalg.ldl import unchecked_ldl

__all__ = ["StackedLDL", "by_groups", "output_blocks", "square_parts", "stacked_moments", "stacked_roots"]

PART = 512  # rows and columns of a product whose squares are added up at a time


@short_repr
@dataclass(frozen=True, eq=False)
class StackedLDL:
    """``G[k] == unit[k] @ diag(pivots[k]) @ unit[k].T`` for each block, in float64 on the host.

    Attributes
    ----------
    unit : unit lower triangular
    pivots : one for each row of a block

    Examples
    --------
    >>> StackedLDL.of(np.array([[[4.0, 2.0], [2.0, 3.0]]])).pivots
    array([[4., 2.]])
    """

    unit: Float[np.ndarray, "groups height height"]
    pivots: Float[np.ndarray, "groups height"]

    @staticmethod
    def of(blocks: Float[np.ndarray, "groups height height"]) -> "StackedLDL":
        """The factors, rows in their own order, of blocks that are semidefinite."""
        found = [unchecked_ldl(block, "natural", 1) for block in blocks]
        return StackedLDL(np.stack([one.unit for one in found]), np.stack([one.pivots for one in found]))

    @property
    def height(self) -> int:
        """Rows of a block."""
        return self.pivots.shape[1]

    def rescaled(self, scale: Float[np.ndarray, " rows"]) -> "StackedLDL":
        """The factors of ``scale[:, None] * G * scale``.

        >>> StackedLDL.of(np.array([[[4.0, 2.0], [2.0, 3.0]]])).rescaled(np.array([0.5, 1.0])).pivots
        array([[1., 2.]])
        """
        s = scale.reshape(self.pivots.shape)
        return StackedLDL(self.unit / s[:, None, :] * s[:, :, None], self.pivots * s**2)


def stacked_moments(guides: Any, columns: int) -> Float[np.ndarray, "groups columns columns"]:
    """Second moments of the inputs for groups of rows, each checked.

    Raises `InvalidInputError` or `NotPositiveSemidefiniteError` for what is no stack of them.

    >>> stacked_moments(np.array([[[2.0]], [[1.0]]]), 1).shape
    (2, 1, 1)
    """
    found = as_array("guides", guides)
    if found.ndim != 3 or found.shape[1:] != (columns, columns) or not len(found):
        msg = (
            f"`guides` has shape {tuple(found.shape)}; pass a second moment of {columns} columns for each group of rows"
        )
        raise InvalidInputError(msg)
    return _checked("guides", "x", found)


def stacked_roots(blocks: Float[np.ndarray, "groups n n"]) -> Float[np.ndarray, "groups n rank"]:
    """F with F Fᵀ of each block, all of the same width.

    >>> stacked_roots(np.array([[[4.0]], [[0.0]]])).tolist()
    [[[2.0]], [[0.0]]]
    """
    roots = [require_root(block) for block in blocks]
    width = max(root.shape[1] for root in roots)
    return np.stack([np.pad(root, [(0, 0), (0, width - root.shape[1])]) for root in roots])


def by_groups(x: Float[np.ndarray, "rows n"], blocks: Float[np.ndarray, "groups n m"]) -> Float[np.ndarray, "rows m"]:
    """Each of equal groups of rows times its own block.

    >>> by_groups(np.ones((4, 1)), np.array([[[1.0]], [[2.0]]])).T
    array([[1., 1., 2., 2.]])
    """
    return np.matmul(x.reshape(len(blocks), -1, x.shape[1]), blocks).reshape(len(x), -1)


def square_parts(
    x: Float[np.ndarray, "rows n"],
    roots: Float[np.ndarray, "groups n m"],
    output_roots: Float[np.ndarray, "blocks height k"] | None = None,
) -> Iterator[float]:
    """Sums of squares of parts of Lᵀ X F, which add up to ‖Lᵀ X F‖².

    Parameters
    ----------
    roots : F of each of equal groups of rows
    output_roots : L, block by block down its diagonal; None for the identity. Blocks are no higher than groups

    Examples
    --------
    >>> list(square_parts(np.ones((1, 2)), np.array([[[1.0, 0.0], [2.0, 3.0]]])))
    [18.0]
    """
    height = 1 if output_roots is None else output_roots.shape[1]
    step, rows = max(PART // height, 1) * height, len(x) // len(roots)
    for top in range(0, len(x), rows):
        for first in range(top, top + rows, step):
            last = min(first + step, top + rows)
            for left in range(0, roots.shape[2], PART):
                part = roots[top // rows, :, left : left + PART]
                zeros = 0 if part[:left].any() else left  # the factor of Cholesky is a triangle
                image = x[first:last, zeros:] @ part[zeros:]
                if output_roots is not None:
                    own = output_roots[first // height : last // height]
                    image = np.matmul(own.swapaxes(1, 2), image.reshape(len(own), height, -1))
                flat = image.reshape(-1)
                yield float(np.einsum("i,i->", flat, flat))


def output_blocks(outputs: Any) -> Float[np.ndarray, "groups height height"]:
    """Blocks of G, each checked, from its diagonal, the whole, or blocks of equal height.

    Raises `InvalidInputError` or `NotPositiveSemidefiniteError`.

    >>> output_blocks(np.array([1.0, 4.0])).shape
    (2, 1, 1)
    """
    found = as_array("outputs", outputs)
    if found.ndim not in (1, 2, 3) or 0 in found.shape:
        msg = f"`outputs` has shape {tuple(found.shape)}; pass a diagonal, a matrix, or blocks of equal height"
        raise InvalidInputError(msg)
    shape = (*found.shape, 1, 1) if found.ndim == 1 else found.shape
    blocks = found.reshape(shape[-3:] if len(shape) == 3 else (1, *shape))
    checked = _checked("outputs", "g", blocks)
    if not np.einsum("gii->", checked) > 0:
        msg = "`outputs` is zero: no error would cost anything; pass None for the identity, or measure more text"
        raise InvalidInputError(msg)
    return checked


def _checked(name: str, vector: str, blocks: np.ndarray) -> Float[np.ndarray, "groups n n"]:
    """Blocks that are second moments; errors name them and what they are moments of."""

    def said(error: Exception) -> str:
        return str(error).replace("`sigma`", f"`{name}`").replace("E[x x^T]", f"E[{vector} {vector}^T]")

    try:
        return np.stack([require_semidefinite(block) for block in blocks])
    except NotPositiveSemidefiniteError as error:
        raise NotPositiveSemidefiniteError(said(error), index=error.index, pivot=error.pivot) from None
    except InvalidInputError as error:
        raise InvalidInputError(said(error)) from None
