"""Designs: rules that choose a transform from the weights and the second moment."""

import dataclasses
from typing import Protocol, runtime_checkable

import numpy as np

from lattq._array import Array
from lattq.errors import InvalidInputError
from lattq.linalg.ldl import LDL
from lattq.linalg.stacked import StackedLDL
from lattq.transforms.base import Transform
from lattq.transforms.chains import Chain, Folded
from lattq.transforms.grid import SCALE_GRID, grid_scale, stored_grid
from lattq.transforms.maps import Diagonal, Permutation
from lattq.transforms.rows import RowScales

STRIDES = (1, 2, 4, 8, 16, 32, 64, 1 << 20)  # 16ths of an octave between scales; with the last there is one for all

__all__ = ["Equalize", "Fixed", "Sort", "Then", "TransformDesign", "refuse_equalize", "then"]


@runtime_checkable
class TransformDesign(Protocol):
    """A rule that chooses a transform from the weights and the second moment."""

    def __call__(self, weight: Array, sigma: np.ndarray) -> Transform:
        """The transform."""
        ...


@dataclasses.dataclass(frozen=True)
class Fixed:
    """Design that returns a given transform; `Fixed(transform, folded=True)` leaves it to the owner.

    >>> Fixed(Permutation(np.array([1, 0])))(np.ones((1, 2)), np.eye(2)).order
    array([1, 0])
    """

    transform: Transform
    folded: bool = False

    def __call__(self, weight: Array, sigma: np.ndarray) -> Transform:
        """The transform."""
        return Folded(self.transform) if self.folded else self.transform


@dataclasses.dataclass(frozen=True)
class Equalize:
    """Design of the diagonal transform that makes all pivots of a factor equal to 1.

    One step for all columns is then the step c / √pivot of WaterSIC, and D = c² / 12 whatever sigma is (theory 2.3).
    It sees the factor that the loop uses, so that the order in which pivots were found is the order of the loop.

    Parameters
    ----------
    exact : round the scales to float32 and charge that, instead of rounding them to 1/16 octave
    merged : exact in the loop; afterwards the gains of the columns go into the scales, and a column is charged one
        bfloat16 number for both, as WaterSIC was published

    Examples
    --------
    >>> from lattq.linalg import ldl
    >>> Equalize()(ldl(np.diag([4.0, 1.0]))).scale
    array([2., 1.])
    """

    exact: bool = False
    merged: bool = False

    def __call__(self, factor: LDL, rows: int = 1 << 20) -> Diagonal:
        """Square roots of the pivots; columns with a zero pivot, which cost no rate, get the mean of the others.

        The columns of a block share the geometric mean of the eigenvalues of its pivot. The fewer `rows` there are to
        pay for the scales, the coarser their grid, down to one scale for all: what is least is the sum of their own
        bits and of those that unequal pivots cost.
        """
        pivots = np.empty(len(factor.order))
        pivots[factor.order] = _sizes(factor.pivots)
        log, live = _octaves(pivots)
        if self.exact or self.merged:
            return Diagonal(np.exp2(log))
        return Diagonal(grid_scale(_cheapest(log, live, rows)))

    def rows(self, factor: StackedLDL, columns: int) -> RowScales:
        """The scales of rows that make all pivots of the outputs equal to 1, on the grid that so many columns pay for.

        >>> Equalize().rows(StackedLDL.of(np.array([[[4.0]], [[1.0]]])), 1 << 20).scale
        array([2., 1.])
        """
        log, live = _octaves(factor.pivots.reshape(-1))
        return RowScales(_cheapest(log, live, columns))


@dataclasses.dataclass(frozen=True)
class Sort:
    """Design of the permutation by decreasing diagonal of sigma, so that groups hold columns of like weight.

    >>> Sort()(np.ones((1, 2)), np.diag([1.0, 4.0])).order
    array([1, 0])
    """

    def __call__(self, weight: Array, sigma: np.ndarray) -> Permutation:
        """The permutation."""
        return Permutation(np.argsort(-np.diag(sigma), kind="stable"))


@dataclasses.dataclass(frozen=True)
class Then:
    """Design of a chain: each design sees weights and second moment as the ones before it leave them."""

    designs: tuple[TransformDesign, ...]

    def __post_init__(self) -> None:
        for design in self.designs:
            refuse_equalize(design)

    def __call__(self, weight: Array, sigma: np.ndarray) -> Chain:
        """The chain."""
        parts = []
        for design in self.designs:
            parts.append(design(weight, sigma))
            weight, sigma = parts[-1].forward(weight), parts[-1].congruence(sigma)
        return Chain(tuple(parts))


def refuse_equalize(design: object) -> None:
    """Raise `InvalidInputError` for an `Equalize`, which no one but the scheme can call.

    >>> refuse_equalize(Sort())
    """
    if isinstance(design, Equalize):
        msg = "Equalize needs the factor of the feedback and comes last of all; pass it as `equalize` of the scheme"
        raise InvalidInputError(msg)


def then(*designs: TransformDesign) -> Then:
    """Chain designs.

    >>> from lattq.transforms import Hadamard
    >>> chain = then(Hadamard(seed=1), Sort())(np.ones((1, 4)), np.eye(4))
    >>> [type(part).__name__ for part in chain.parts]
    ['Hadamard', 'Permutation']
    """
    return Then(designs)


def _octaves(pivots: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Half the logarithms of pivots, for those of zero the mean of the others, and which are not zero."""
    live = pivots > 0
    log = np.zeros(len(pivots))
    log[live] = 0.5 * np.log2(pivots[live])
    log[~live] = log[live].mean() if live.any() else 0.0
    return log, live


def _cheapest(log: np.ndarray, live: np.ndarray, payers: int) -> np.ndarray:
    """Scales in 16ths of an octave, on the grid of the least sum of their bits and those that unequal pivots cost."""
    tried = [_rounded(SCALE_GRID * log, stride) for stride in STRIDES]
    return min(tried, key=lambda found: _bits(found, log, live, payers))


def _rounded(exponents: np.ndarray, stride: int) -> np.ndarray:
    """Exponents on a grid of so many 16ths of an octave, through the mean."""
    middle = round(float(exponents.mean()))
    return middle + stride * np.rint((exponents - middle) / stride).astype(np.int64)


def _bits(found: np.ndarray, log: np.ndarray, live: np.ndarray, payers: int) -> float:
    """What scales cost, and what unequal pivots lose at high rate: ½ log2 (mean / geometric mean) a weight."""
    side = 8.0 * sum(len(part) for part in stored_grid(found) if isinstance(part, bytes))
    if not live.any():
        return side
    left = log[live] - found[live] / SCALE_GRID
    return side + payers * left.size * float(0.5 * np.log2(np.mean(np.exp2(2 * (left - left.mean())))))


def _sizes(pivots: np.ndarray) -> np.ndarray:
    """Pivot of each column; in blocks the root of the determinant, 0 if that is."""
    if pivots.ndim == 1:
        return pivots
    width = pivots.shape[1]
    sign, log = np.linalg.slogdet(pivots)
    return np.repeat(np.where(sign > 0, np.exp(log / width), 0.0), width)
