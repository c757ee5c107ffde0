"""AffineQuant as published: A under a gradual mask, which neither the article nor its code keeps dominant.

Ma et al., "AffineQuant: Affine transformation quantization for large language models", arXiv 2403.12544, with the
settings of its code: matrices begin at SmoothQuant's scales; entries other than 0 are kept at 0.01 or more before every
forward; Adam has constant rates; the last state is taken. A baseline: `Trained` is what to use.
"""

import dataclasses
import functools
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lattq._options import normalize
from lattq.affine.checks import as_fraction, check_stability
from lattq.affine.scales import smoothquant_scales
from lattq.affine.schedules import gradual_mask
from lattq.llm.source.design import FoldedMap, Kept
from lattq.llm.tune.learned import LearnedDiagonal, LearnedMap, LearnedMatrices
from lattq.llm.tune.mapped_block import MappedBlock
from lattq.llm.tune.rounded_block import RoundedBlock, Rounding, check_rounding
from lattq.llm.tune.statistics import chosen, readings
from lattq.llm.tune.trained import fold_block, train_blocks
from lattq.llm.tune.training import Schedule
from lattq.progress import Stage

__all__ = ["AffineQuant", "GradualBlocks"]

LEAST = 1e-2  # magnitude of entries that are not 0
BEHIND_NORMS = ("attention_input", "mlp_input")
VALUES = "values"


@dataclasses.dataclass(frozen=True)
class AffineQuant:
    """The published recipe, as a design of maps.

    Matrices of values are folded, and so are the scales behind norms where inputs are rounded. With weights alone the
    recipe puts a dense matrix behind each norm, which stays at run time: `FoldedMap.values` counts its numbers, and the
    weights of the model become what layer and matrix make of the input together. `quantize_model` refuses that: a
    directory holds no such matrix.

    Parameters
    ----------
    levels, group, input_levels : as in `Trained`
    stability : the factor α of the mask
    strength : of SmoothQuant's scales, at which it begins
    epochs : 20, or 40 for two bits
    seed : of the order of windows

    Raises
    ------
    InvalidInputError : for options out of range

    Examples
    --------
    >>> AffineQuant(levels=16, group=None, input_levels=16).stability
    0.1
    """

    levels: int = 8
    group: int | None = 128
    input_levels: int | None = None
    stability: float = 0.1
    strength: float = 0.5
    epochs: int = 20
    seed: int = 0

    def __post_init__(self) -> None:
        check_rounding(self)
        normalize(self, as_fraction, "strength")
        object.__setattr__(self, "stability", check_stability(self.stability))
        object.__setattr__(self, "epochs", self.schedule.epochs)
        object.__setattr__(self, "seed", self.schedule.seed)

    @property
    def schedule(self) -> Schedule:
        """Constant rates, one window for each step, and nothing held out."""
        return Schedule(self.epochs, batch=1, slow_rate=5e-3, decay=False, held_out=0, seed=self.seed)

    def __call__(
        self, model: Any, windows: Int[Tensor, "windows window"], *, work: Stage, keep: Kept
    ) -> tuple[FoldedMap, ...]:
        """Train every block, then fold what can be folded."""
        known = chosen(model, [f"*.{name}" for name in (*BEHIND_NORMS, VALUES)])
        starts = {one.place.name: self._start(one) for group in readings(model, known, windows, work) for one in group}
        build = functools.partial(self.prepared, starts=starts)
        trained = list(train_blocks(model, windows, build, self.schedule, work, keep))
        return tuple(row for block, found in trained for row in fold_block(model, block, found, type(self).__name__))

    def prepared(self, block: MappedBlock, starts: dict[str, Tensor]) -> RoundedBlock:
        """A block before training, whose matrices begin with these diagonals."""
        begun = {name: starts[place.name] for name, place in block.places.items() if place.name in starts}
        maps: dict[str, LearnedMap] = {VALUES: GradualBlocks(begun[VALUES], self.stability, self.epochs)}
        dense: dict[str, LearnedMap] = {}
        for name in BEHIND_NORMS:
            if self.input_levels is None:
                dense[name] = GradualBlocks(begun[name], self.stability, self.epochs)
            else:
                heads, size = begun[name].shape
                maps[name] = LearnedDiagonal(heads, size, start=1 / begun[name])
        return RoundedBlock(block, maps, Rounding(self.levels, self.group, self.input_levels), online=dense)

    def _start(self, reading: Any) -> Float[Tensor, "heads size"]:
        """SmoothQuant's scales of what reads a place: the diagonal of A."""
        scales = smoothquant_scales(reading.peaks, reading.stacked(), strength=self.strength)
        return torch.from_numpy(scales.reshape(reading.place.heads, reading.place.size)).float()


class GradualBlocks(LearnedMatrices):
    """A ∘ mask for each block: T = (A ∘ mask)⁻ᵀ acts on the activation.

    Parameters
    ----------
    start : diagonal of each block
    stability : the factor of the mask off the diagonal
    epochs : in which the mask's band grows; 0 keeps it at the diagonal
    """

    def __init__(self, start: Float[Tensor, "heads size"], stability: float, epochs: int) -> None:
        super().__init__()
        self.stability, self.epochs = stability, epochs
        self.raw = nn.Parameter(torch.diag_embed(start))
        self.mask: Tensor
        self.register_buffer("mask", torch.eye(start.shape[-1]))

    def matrix(self) -> Float[Tensor, "heads size size"]:
        """A ∘ mask."""
        return self.raw * self.mask

    @torch.no_grad()
    def constrain(self, step: int, steps: int) -> None:
        """The mask of the epoch, and no small entries."""
        if self.epochs:
            epoch = min(step * self.epochs // steps, self.epochs - 1)
            self.mask.copy_(_mask(self.mask.shape[-1], epoch, self.epochs, self.stability))
        small = (self.raw.abs() < LEAST) & (self.raw != 0)
        self.raw[small] = self.raw[small].sign() * LEAST

    @torch.no_grad()
    def reset(self) -> None:
        """The identity."""
        for one in (self.raw, self.mask):
            one.copy_(torch.eye(self.mask.shape[-1]).expand_as(one))


@functools.lru_cache(maxsize=4)
def _mask(n: int, epoch: int, epochs: int, stability: float) -> Float[Tensor, "n n"]:
    """The mask, which stays for all steps of an epoch."""
    return torch.from_numpy(gradual_mask(n, epoch, epochs, stability))
