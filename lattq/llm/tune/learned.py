"""Maps with numbers to learn: each is certified invertible at every step, in the shape that a place lets through.

A learned map begins at the identity: a positive diagonal, a complex number for each rotary pair, or D (I + N) with rows
of N inside an ℓ1 ball whose radius grows (theory 12.7). A reference T0 to learn around is folded before.
"""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from lattq.affine.checks import check_ratio
from lattq.affine.dominance import Certificate, certificate, condition
from lattq.affine.projections import onto_l1_ball
from lattq.affine.schedules import growing_ratio
from lattq.llm.tune.maps import Blocks, Diagonal, Map

__all__ = ["LearnedBlocks", "LearnedDiagonal", "LearnedMap", "LearnedMatrices", "LearnedPairs"]


class LearnedMap(nn.Module):
    """What training needs of a map.

    Attributes
    ----------
    structure : key of `lattq.llm.source.place.STRUCTURES`
    slow : names of parameters that take small steps, the off-diagonals
    """

    structure = ""
    slow: tuple[str, ...] = ()

    def map(self) -> Map:
        """The map now; torch differentiates through it."""
        raise NotImplementedError

    def constrain(self, step: int, steps: int) -> None:
        """Put the numbers back into the set in which the map is certified, after `step` of `steps`."""

    @torch.no_grad()
    def reset(self) -> None:
        """Back to the identity."""
        for parameter in self.parameters():
            parameter.zero_()

    def values(self) -> np.ndarray:
        """The numbers that `lattq.llm.tune.maps.map_of` takes for the structure."""
        raise NotImplementedError

    def certificates(self) -> tuple[Certificate, ...]:
        """One for each block; none where numbers other than 0 are enough."""
        return ()

    def certified(self) -> dict[str, float] | None:
        """What holds for all blocks of the map: the largest of each bound, the least of fractions."""
        found = self.certificates()
        if not found:
            return None
        names = ("row_ratio", "column_ratio", "inverse_inf", "condition_inf")
        worst = {name: max(getattr(one, name) for one in found) for name in names}
        return {**worst, "dominant_rows": min(one.dominant_rows for one in found)}

    def condition(self) -> float:
        """κ₂ of the map, of its worst block."""
        raise NotImplementedError


class LearnedDiagonal(LearnedMap):
    """A positive number for each channel.

    Parameters
    ----------
    start : of training; ones if not given

    Examples
    --------
    >>> LearnedDiagonal(heads=1, size=2).values()
    array([1., 1.])
    """

    def __init__(self, heads: int, size: int, structure: str = "diagonal", *, start: Tensor | None = None) -> None:
        super().__init__()
        self.structure = structure
        self.logarithm = nn.Parameter(torch.zeros(heads, size) if start is None else start.log())

    def map(self) -> Diagonal:
        """The map now."""
        return Diagonal(self.logarithm.exp())

    @torch.no_grad()
    def values(self) -> np.ndarray:
        """A number for each channel."""
        return self.logarithm.double().exp().numpy().ravel()

    def condition(self) -> float:
        """Largest number over the least."""
        logarithm = self.logarithm.detach()
        return float((logarithm.max() - logarithm.min()).exp())


class LearnedPairs(LearnedMap):
    """A complex number for each rotary pair of each head of keys: channels i and i + pairs.

    >>> LearnedPairs(heads=1, size=2, pairs=1).values()
    array([[1.+0.j]])
    """

    structure = "rotary"

    def __init__(self, heads: int, size: int, pairs: int) -> None:
        super().__init__()
        self.size = size
        self.logarithm = nn.Parameter(torch.zeros(heads, pairs))
        self.angle = nn.Parameter(torch.zeros(heads, pairs))

    def map(self) -> Blocks:
        """The map now."""
        return Blocks(self._matrix(1.0), self._matrix(-1.0))

    @torch.no_grad()
    def values(self) -> np.ndarray:
        """A complex number for each pair."""
        return np.exp(self.logarithm.double().numpy() + 1j * self.angle.double().numpy())

    def condition(self) -> float:
        """Largest modulus over the least; channels behind the pairs have that of 1."""
        moduli = self.logarithm.detach().ravel()
        if self.size > 2 * self.logarithm.shape[-1]:
            moduli = torch.cat([moduli, torch.zeros(1)])
        return float((moduli.max() - moduli.min()).exp())

    def _matrix(self, power: float) -> Float[Tensor, "heads size size"]:
        """The map to the power of 1 or -1."""
        modulus, angle = (power * self.logarithm).exp(), power * self.angle
        real, imag = torch.diag_embed(modulus * angle.cos()), torch.diag_embed(modulus * angle.sin())
        turned = torch.cat([torch.cat([real, -imag], -1), torch.cat([imag, real], -1)], -2)
        rest = self.size - turned.shape[-1]
        ones = (torch.arange(self.size) >= self.size - rest).to(turned)
        return nn.functional.pad(turned, (0, rest, 0, rest)) + torch.diag(ones)


class LearnedMatrices(LearnedMap):
    """A matrix A for each block, whatever it is made of: T = A⁻ᵀ acts on the activation."""

    structure = "heads"

    def matrix(self) -> Float[Tensor, "heads size size"]:
        """A."""
        raise NotImplementedError

    def map(self) -> Blocks:
        """The map now."""
        matrix = self.matrix()
        return Blocks(torch.linalg.inv(matrix).mT, matrix.mT)

    @torch.no_grad()
    def values(self) -> np.ndarray:
        """T of each block."""
        return torch.linalg.inv(self.matrix().double()).mT.contiguous().numpy()

    @torch.no_grad()
    def certificates(self) -> tuple[Certificate, ...]:
        """What dominance says of every block, without what would be measured."""
        return tuple(certificate(matrix, measure=False) for matrix in self.matrix().double().numpy())

    @torch.no_grad()
    def condition(self) -> float:
        """As measured, which the certificates leave out."""
        return max(condition(matrix) for matrix in self.matrix().double().numpy())


class LearnedBlocks(LearnedMatrices):
    """A = D (I + N) for each block, rows of N within a radius below 1: T = A⁻ᵀ acts on the activation.

    Parameters
    ----------
    ratio : the last radius; the off-diagonals have a growing one before (`lattq.affine.schedules.growing_ratio`)

    Examples
    --------
    >>> found = LearnedBlocks(heads=1, size=2, ratio=0.5)
    >>> found.values(), found.certificates()[0].row_ratio
    (array([[[1., 0.],
            [0., 1.]]]), 0.0)
    """

    slow = ("off",)

    def __init__(self, heads: int, size: int, ratio: float) -> None:
        super().__init__()
        self.ratio = check_ratio(ratio)
        self.logarithm = nn.Parameter(torch.zeros(heads, size))
        self.off = nn.Parameter(torch.zeros(heads, size, size))

    def matrix(self) -> Float[Tensor, "heads size size"]:
        """A."""
        return self.logarithm.exp()[..., None] * (torch.eye(self.off.shape[-1]) + self.off)

    @torch.no_grad()
    def constrain(self, step: int, steps: int) -> None:
        """Project the rows of N."""
        radius = growing_ratio(step, steps, self.ratio)
        self.off.mul_(1 - torch.eye(self.off.shape[-1]))
        self.off.copy_(onto_l1_ball(self.off.double(), torch.full(self.off.shape[:-1], radius, dtype=torch.float64)))
