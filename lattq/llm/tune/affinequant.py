"""AffineQuant as published: A under a gradual mask, which neither the article nor its code keeps dominant.

Ma et al., "AffineQuant: Affine transformation quantization for large language models", arXiv 2403.12544, with the
settings of its code: matrices begin at SmoothQuant's scales; entries other than 0 are kept at 0.01 or more before every
forward; Adam has constant rates; the last state is taken.
"""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from lattq.affine.dominance import Certificate, certificate
from lattq.affine.schedules import gradual_mask
from lattq.llm.tune.learned import LearnedMap
from lattq.llm.tune.maps import Blocks

__all__ = ["GradualBlocks"]

LEAST = 1e-2  # magnitude of entries that are not 0


class GradualBlocks(LearnedMap):
    """A ∘ mask for each block: T = (A ∘ mask)⁻ᵀ acts on the activation.

    Parameters
    ----------
    start : diagonal of each block
    stability : the factor of the mask off the diagonal
    epochs : in which the mask's band grows; 0 keeps it at the diagonal
    """

    structure = "heads"

    def __init__(self, start: Float[Tensor, "heads size"], stability: float, epochs: int) -> None:
        super().__init__()
        self.stability, self.epochs = stability, epochs
        self.raw = nn.Parameter(torch.diag_embed(start))
        self.mask: Tensor
        self.register_buffer("mask", torch.eye(start.shape[-1]))

    def matrix(self) -> Float[Tensor, "heads size size"]:
        """A ∘ mask."""
        return self.raw * self.mask

    def map(self) -> Blocks:
        """The map now."""
        matrix = self.matrix()
        return Blocks(torch.linalg.inv(matrix).mT, matrix.mT)

    @torch.no_grad()
    def constrain(self, step: int, steps: int) -> None:
        """The mask of the epoch, and no small entries."""
        if self.epochs:
            epoch = min(step * self.epochs // steps, self.epochs - 1)
            mask = gradual_mask(self.mask.shape[-1], epoch, self.epochs, self.stability)
            self.mask.copy_(torch.from_numpy(mask))
        small = (self.raw.abs() < LEAST) & (self.raw != 0)
        self.raw[small] = self.raw[small].sign() * LEAST

    @torch.no_grad()
    def values(self) -> np.ndarray:
        """T of each block."""
        return torch.linalg.inv(self.matrix().double()).mT.contiguous().numpy()

    @torch.no_grad()
    def certificates(self) -> tuple[Certificate, ...]:
        """What dominance says about each block."""
        return tuple(certificate(one) for one in self.matrix().double().numpy())
