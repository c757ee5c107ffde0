"""Training the maps of one block so that its outputs survive rounding."""

import dataclasses
import functools
import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from lattq._options import as_count, as_flag, as_float, as_integer, as_seed, normalize
from lattq.errors import InvalidInputError
from lattq.llm.tune.rounded_block import RoundedBlock
from lattq.progress import Stage

__all__ = ["Fit", "Schedule", "fit", "relative_error"]

Hidden = Sequence[Tensor]
Root = Float[Tensor, "channels channels"] | None


@dataclasses.dataclass(frozen=True)
class Schedule:
    """How a block is trained, by Adam.

    Parameters
    ----------
    epochs : passes over the windows that train
    batch : windows of a step
    rate, slow_rate, clip_rate, weight_rate : of maps, of their off-diagonals, of logits of ranges, of weights
    decay : whether rates fall to zero along a cosine
    held_out : of this many batches, 2 or more, one judges and does not train, unless there is no other; 0 for none, and
        then the last state is taken
    patience : rejected steps, each of which halves the rates, before training ends
    seed : of the order of windows

    Raises
    ------
    InvalidInputError : for numbers that are negative or not finite, fewer than one epoch, and seeds from 2^64 on

    Examples
    --------
    >>> Schedule(epochs=0)
    Traceback (most recent call last):
    lattq.errors.InvalidInputError: `epochs` is 0; use at least 1
    """

    epochs: int = 10
    batch: int = 4
    rate: float = 5e-3
    slow_rate: float = 5e-4
    clip_rate: float = 1e-2
    weight_rate: float = 1e-3
    decay: bool = True
    held_out: int = 8
    patience: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        normalize(self, as_count, "epochs", "batch")
        normalize(self, as_integer, "held_out", "patience")
        normalize(self, as_float, "rate", "slow_rate", "clip_rate", "weight_rate")
        normalize(self, as_flag, "decay")
        object.__setattr__(self, "seed", as_seed(self.seed, bits=64))
        for name in ("rate", "slow_rate", "clip_rate", "weight_rate", "held_out", "patience"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                msg = f"`{name}` is {value}; pass a number of at least 0"
                raise InvalidInputError(msg)
        if self.held_out == 1:
            msg = "`held_out` is 1, which leaves no batch to train on; hold one of 2 or more out, or 0 for none"
            raise InvalidInputError(msg)


@dataclasses.dataclass(frozen=True)
class Fit:
    """What training did: relative squared errors of the outputs on held-out windows, and how it went.

    Attributes
    ----------
    plain : of rounding with nothing learned
    start : with which training began, ranges being cut a little
    end : of what is kept, at most `plain` where windows were held out
    best_epoch : after which it was found; 0 for before training
    rejected : steps that were taken back because a number was not finite
    """

    plain: float
    start: float
    end: float
    best_epoch: int
    rejected: int


def relative_error(found: Tensor, wanted: Tensor, root: Root = None) -> Tensor:
    """Squared error over squared length, both in the metric F Fᵀ.

    >>> relative_error(torch.tensor([1.0, 3.0]), torch.tensor([1.0, 2.0]))
    tensor(0.2000)
    """
    return _power(found - wanted, root) / _power(wanted, root)


def _power(x: Tensor, root: Root) -> Tensor:
    return (x if root is None else x @ root).square().sum()


def fit(block: RoundedBlock, hidden: Hidden, wanted: Hidden, schedule: Schedule, work: Stage, root: Root = None) -> Fit:
    """Train what a block learns; it has the best state at the end, which may be that without anything learned.

    A step with a gradient that is not finite is taken back to the last epoch, with half the rates from there on.

    Parameters
    ----------
    hidden, wanted : inputs and outputs of each batch of windows
    root : F of the metric F Fᵀ in which errors e of the outputs count, ‖e F‖²; None for all alike
    """
    judging, training = _parted(len(hidden), schedule.held_out)
    judge = functools.partial(_judge, block, hidden, wanted, judging or training, root)
    steps, done, rejected = schedule.epochs * len(training), 0, 0
    block.constrain(0, steps)
    first = _copied(block)
    block.open()
    plain, unlearned = judge(), _copied(block)
    block.load_state_dict(first)
    start = judge()
    best, best_epoch, kept, sound = start, 0, first, first
    optimizer = _optimizer(block, schedule)
    generator = torch.Generator().manual_seed(schedule.seed)
    for epoch in range(schedule.epochs):
        for index in torch.randperm(len(training), generator=generator).tolist():
            window = training[index]
            _set_rates(optimizer, schedule, done / steps, 0.5**rejected)
            done += 1
            if _step(block, optimizer, hidden[window], wanted[window], window, root):
                block.constrain(done, steps)
                continue
            rejected += 1
            block.load_state_dict(sound)
            optimizer = _optimizer(block, schedule)
            if rejected > schedule.patience:
                break
        found = judge()
        work.advance(f"epoch {epoch + 1}: {found:.4g}, unlearned {plain:.4g}")
        if math.isfinite(found):
            sound = _copied(block)
        if found < best or (not schedule.held_out and math.isfinite(found)):
            best, best_epoch, kept = found, epoch + 1, sound
        if rejected > schedule.patience:
            break
    if schedule.held_out and not best <= plain:
        best, best_epoch, kept = plain, 0, unlearned
    block.load_state_dict(kept)
    optimizer.zero_grad()  # a design holds every block until it folds
    return Fit(plain, start, best, best_epoch, rejected)


def _parted(count: int, held_out: int) -> tuple[list[int], list[int]]:
    """Windows that judge, and windows that train; a single one does both."""
    judging = [window for window in range(count) if held_out and window % held_out == held_out - 1]
    if held_out and not judging:
        judging = [count - 1]
    return judging, [window for window in range(count) if window not in judging] or judging


def _step(
    block: RoundedBlock, optimizer: torch.optim.Optimizer, hidden: Tensor, wanted: Tensor, window: int, root: Root
) -> bool:
    """One step of Adam, unless a gradient is not finite."""
    optimizer.zero_grad()
    with torch.enable_grad():
        error = relative_error(block(hidden, window), wanted, root)
        error.backward()
    gradients = [one.grad for one in block.parameters() if one.grad is not None]
    if not all(bool(one.isfinite().all()) for one in (error, *gradients)):
        return False
    optimizer.step()
    return True


def _optimizer(block: RoundedBlock, schedule: Schedule) -> torch.optim.Optimizer:
    maps = [(name in one.slow, number) for one in block.learned.values() for name, number in one.named_parameters()]
    groups = [
        {"params": [number for slow, number in maps if not slow], "base": schedule.rate},
        {"params": [number for slow, number in maps if slow], "base": schedule.slow_rate},
        {"params": [*block.clip.values(), *block.input_clip.values()], "base": schedule.clip_rate},
        {"params": list(block.moved.values()), "base": schedule.weight_rate},
    ]
    return torch.optim.Adam([group for group in groups if group["params"]])


def _set_rates(optimizer: torch.optim.Optimizer, schedule: Schedule, share: float, factor: float) -> None:
    cosine = (1 + math.cos(math.pi * share)) / 2 if schedule.decay else 1.0
    for group in optimizer.param_groups:
        group["lr"] = group["base"] * factor * cosine


@torch.no_grad()
def _judge(block: RoundedBlock, hidden: Hidden, wanted: Hidden, windows: Sequence[int], root: Root) -> float:
    """Relative error over some windows."""
    parameters = block.rounded()
    errors = [_power(block(hidden[w], w, parameters) - wanted[w], root) for w in windows]
    return float(torch.stack(errors).sum() / torch.stack([_power(wanted[w], root) for w in windows]).sum())


def _copied(block: RoundedBlock) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in block.state_dict().items()}
