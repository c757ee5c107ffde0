"""Maps with numbers to learn: each is certified invertible at every step, in the shape that a place lets through.

A learned map starts at a given one, and is it times something that starts at the identity: a positive diagonal, a
complex number for each rotary pair, or D (I + N) T0 with rows of N inside an ℓ1 ball whose radius grows (theory 12.7).
"""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from lattq.affine.dominance import Certificate, certificate
from lattq.affine.projections import onto_l1_ball
from lattq.affine.schedules import growing_ratio
from lattq.llm.source.place import Place
from lattq.llm.tune.maps import Blocks, Diagonal, Map

__all__ = ["LearnedBlocks", "LearnedDiagonal", "LearnedMap", "LearnedPairs"]


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

    def values(self) -> np.ndarray:
        """The numbers that `lattq.llm.tune.maps.map_of` takes for the structure."""
        raise NotImplementedError

    def certificates(self) -> tuple[Certificate, ...]:
        """One for each block that was learned around a reference; none where numbers other than 0 are enough."""
        return ()


class LearnedDiagonal(LearnedMap):
    """A positive factor for each channel.

    >>> LearnedDiagonal(torch.tensor([[2.0, 4.0]])).map()
    Diagonal(scale=tensor([[2., 4.]], grad_fn=<MulBackward0>))
    """

    structure = "diagonal"

    def __init__(self, start: Float[Tensor, "heads size"], structure: str = "diagonal") -> None:
        super().__init__()
        self.structure = structure
        self.start: Tensor
        self.register_buffer("start", start)
        self.logarithm = nn.Parameter(torch.zeros_like(start))

    def map(self) -> Diagonal:
        """The map now."""
        return Diagonal(self.start * self.logarithm.exp())

    @torch.no_grad()
    def values(self) -> np.ndarray:
        """A number for each channel."""
        return self.map().scale.double().numpy().ravel()


class LearnedPairs(LearnedMap):
    """A complex number for each rotary pair of each head of keys: channels i and i + pairs.

    >>> place = Place("keys", ("rotary",), (), (), heads=1, size=2, pairs=1)
    >>> LearnedPairs(place).values()
    array([[1.+0.j]])
    """

    structure = "rotary"

    def __init__(self, place: Place) -> None:
        super().__init__()
        self.size = place.size
        self.logarithm = nn.Parameter(torch.zeros(place.heads, place.pairs))
        self.angle = nn.Parameter(torch.zeros(place.heads, place.pairs))

    def map(self) -> Blocks:
        """The map now."""
        return Blocks(self._matrix(1.0), self._matrix(-1.0))

    @torch.no_grad()
    def values(self) -> np.ndarray:
        """A complex number for each pair."""
        return np.exp(self.logarithm.double().numpy() + 1j * self.angle.double().numpy())

    def _matrix(self, power: float) -> Float[Tensor, "heads size size"]:
        """The map to the power of 1 or -1."""
        modulus, angle = (power * self.logarithm).exp(), power * self.angle
        real, imag = torch.diag_embed(modulus * angle.cos()), torch.diag_embed(modulus * angle.sin())
        turned = torch.cat([torch.cat([real, -imag], -1), torch.cat([imag, real], -1)], -2)
        rest = self.size - turned.shape[-1]
        return nn.functional.pad(turned, (0, rest, 0, rest)) + torch.diag(
            torch.cat([torch.zeros(self.size - rest), torch.ones(rest)])
        )


class LearnedBlocks(LearnedMap):
    """A = D (I + N) T0 for each block, rows of N within a radius below 1: T = A⁻ᵀ acts on the activation.

    Parameters
    ----------
    reference : T0 of each block, invertible
    ratio : the last radius; the off-diagonals have a growing one before (`lattq.affine.schedules.growing_ratio`)
    """

    structure = "heads"
    slow = ("off",)

    def __init__(self, reference: Float[Tensor, "heads size size"], ratio: float) -> None:
        super().__init__()
        self.reference: Tensor
        self.register_buffer("reference", reference)
        heads, size, _ = reference.shape
        self.ratio = ratio
        self.logarithm = nn.Parameter(torch.zeros(heads, size))
        self.off = nn.Parameter(torch.zeros(heads, size, size))

    def core(self) -> Float[Tensor, "heads size size"]:
        """D (I + N)."""
        return self.logarithm.exp()[..., None] * (torch.eye(self.off.shape[-1]) + self.off)

    def matrix(self) -> Float[Tensor, "heads size size"]:
        """A."""
        return self.core() @ self.reference

    def map(self) -> Blocks:
        """The map now."""
        matrix = self.matrix()
        return Blocks(torch.linalg.inv(matrix).mT, matrix.mT)

    @torch.no_grad()
    def constrain(self, step: int, steps: int) -> None:
        """Project the rows of N."""
        radius = growing_ratio(step, steps, self.ratio)
        self.off.mul_(1 - torch.eye(self.off.shape[-1]))
        self.off.copy_(onto_l1_ball(self.off.double(), torch.full(self.off.shape[:-1], radius, dtype=torch.float64)))

    @torch.no_grad()
    def values(self) -> np.ndarray:
        """T of each block."""
        return torch.linalg.inv(self.matrix().double()).mT.contiguous().numpy()

    @torch.no_grad()
    def certificates(self) -> tuple[Certificate, ...]:
        """Of every block, around T0."""
        return tuple(
            certificate(matrix, base)
            for matrix, base in zip(self.matrix().double().numpy(), self.reference.double().numpy(), strict=True)
        )
