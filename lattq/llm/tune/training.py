"""Training the maps of one block so that its outputs survive rounding."""

import dataclasses
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from lattq.llm.tune.rounded_block import RoundedBlock
from lattq.progress import Stage

__all__ = ["Fit", "Schedule", "fit", "relative_error"]

Hidden = Sequence[Tensor]


@dataclasses.dataclass(frozen=True)
class Schedule:
    """How maps are trained, by Adam.

    Parameters
    ----------
    epochs : passes over the training windows
    rate, slow_rate, clip_rate : of maps, of their off-diagonals, of logits of ranges
    decay : whether rates fall to zero along a cosine
    held_out : of this many windows one judges and does not train; 0 for none, and then the last state is taken
    patience : rejected steps before training ends; each halves the rates
    seed : of the order of windows
    """

    epochs: int = 20
    rate: float = 5e-3
    slow_rate: float = 5e-4
    clip_rate: float = 1e-2
    weight_rate: float = 0.0
    decay: bool = True
    held_out: int = 8
    patience: int = 10
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class Fit:
    """What training did: relative squared errors of the outputs on held-out windows, and how it went.

    Attributes
    ----------
    plain : without maps and with whole ranges
    start : with the maps that training began with
    end : with those that are kept
    best_epoch : after which they were found; 0 for the start
    rejected : steps that were taken back because a number was not finite
    """

    plain: float
    start: float
    end: float
    best_epoch: int
    rejected: int


def relative_error(found: Tensor, wanted: Tensor) -> Tensor:
    """Squared error over squared length.

    >>> relative_error(torch.tensor([1.0, 3.0]), torch.tensor([1.0, 2.0]))
    tensor(0.2000)
    """
    return (found - wanted).square().sum() / wanted.square().sum()


def fit(rounded: RoundedBlock, hidden: Hidden, wanted: Hidden, schedule: Schedule, work: Stage, plain: float) -> Fit:
    """Train; `rounded` has the best state at the end.

    A step that ends in numbers that are not finite is taken back, with half the rates from there on.
    """
    windows = range(len(hidden))
    judging = [w for w in windows if schedule.held_out and w % schedule.held_out == schedule.held_out - 1]
    training = [w for w in windows if w not in judging]
    optimizer = _optimizer(rounded, schedule)
    steps, done, rejected = schedule.epochs * len(training), 0, 0
    generator = torch.Generator().manual_seed(schedule.seed)
    rounded.constrain(0, steps)
    start = best = _judge(rounded, hidden, wanted, judging or training)
    kept, best_epoch = _copied(rounded), 0
    sound = kept
    for epoch in range(schedule.epochs):
        for index in torch.randperm(len(training), generator=generator).tolist():
            window = training[index]
            _set_rates(optimizer, schedule, done / steps, 0.5**rejected)
            optimizer.zero_grad()
            error = relative_error(rounded(hidden[window], window), wanted[window])
            error.backward()
            if not _finite(error, rounded):
                rejected += 1
                if rejected > schedule.patience:
                    break
                rounded.load_state_dict(sound)
                optimizer = _optimizer(rounded, schedule)
                continue
            optimizer.step()
            done += 1
            rounded.constrain(done, steps)
        found = _judge(rounded, hidden, wanted, judging or training)
        work.advance(f"epoch {epoch + 1}: {found:.4g} of {plain:.4g}")
        if math.isfinite(found):
            sound = _copied(rounded)
        if found < best or not judging:
            best, kept, best_epoch = found, _copied(rounded), epoch + 1
        if rejected > schedule.patience:
            break
    rounded.load_state_dict(kept)
    return Fit(plain, start, best, best_epoch, rejected)


def _optimizer(rounded: RoundedBlock, schedule: Schedule) -> torch.optim.Optimizer:
    maps = [(name in one.slow, parameter) for one in rounded.learned.values() for name, parameter in one.named_parameters()]
    groups = [
        {"params": [parameter for slow, parameter in maps if not slow], "base": schedule.rate},
        {"params": [parameter for slow, parameter in maps if slow], "base": schedule.slow_rate},
        {"params": list(rounded.clip.values()), "base": schedule.clip_rate},
        {"params": list(rounded.moved.values()), "base": schedule.weight_rate},
    ]
    return torch.optim.Adam([group for group in groups if group["params"]])


def _set_rates(optimizer: torch.optim.Optimizer, schedule: Schedule, share: float, factor: float) -> None:
    cosine = (1 + math.cos(math.pi * share)) / 2 if schedule.decay else 1.0
    for group in optimizer.param_groups:
        group["lr"] = group["base"] * factor * cosine


@torch.no_grad()
def _judge(rounded: RoundedBlock, hidden: Hidden, wanted: Hidden, windows: Sequence[int]) -> float:
    """Relative error over some windows."""
    parameters = rounded.parameters_rounded()
    errors = [(rounded(hidden[w], w, parameters) - wanted[w]).square().sum() for w in windows]
    return float(sum(errors) / sum(wanted[w].square().sum() for w in windows))


def _finite(error: Tensor, rounded: RoundedBlock) -> bool:
    gradients = [one.grad for one in rounded.parameters() if one.grad is not None]
    return bool(error.isfinite()) and all(bool(one.isfinite().all()) for one in gradients)


def _copied(rounded: RoundedBlock) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in rounded.state_dict().items()}
