"""Training with codes frozen: Adam towards the predictions of the dense model, the best rounded state kept."""

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from lattq.errors import InvalidInputError
from lattq.llm.distill.divergence import distance, mean_distance, predictions
from lattq.llm.distill.record import Distillation, Epoch, Refining
from lattq.llm.distill.student import Student
from lattq.llm.source.design import Kept
from lattq.llm.source.windows import calibrating
from lattq.progress import Stage

__all__ = ["distill"]

BETAS = (0.9, 0.99)  # a hundred steps of memory: an epoch has as many
LEAST = 0.005  # by which an epoch must make the score better, or rates halve
KEPT = "refine"  # name of what an interrupted run continues from


def distill(
    student: Student,
    teacher: Any,
    windows: Int[Tensor, "windows window"],
    refining: Refining,
    work: Stage,
    keep: Kept,
    most_bytes: float = math.inf,
) -> Distillation:
    """Train a student; it has the best state at the end, which may be the one it began with.

    The loss is the mean divergence and what the gains cost: at rate R the divergence falls as 4^-R, so a bit that is
    stored anywhere must spare 2 ln 2 · divergence / weights.

    Parameters
    ----------
    teacher : the dense model, in float32; asked batch by batch
    windows : tokens; every `held_out`-th judges
    keep : where the state after each epoch goes, and comes from when an interrupted run is repeated
    most_bytes : of all payloads

    Raises
    ------
    InvalidInputError : for fewer than two windows, or a quantized layer that no gradient reaches
    """
    judging, training = parted(windows, refining.held_out)
    run = _Run(student, teacher, training, judging, refining, most_bytes)
    if KEPT in keep:
        run.restore(keep[KEPT])
    else:
        run.begin()
    work.total = refining.epochs
    while not run.over:
        run.epoch()
        keep[KEPT] = run.kept()
        ratio = run.best.divergence / run.start.divergence
        work.advance(f"epoch {len(run.epochs)}: {run.epochs[-1].divergence:.4g}, best {ratio:.3f} of the start")
    student.load(run.best_state)
    return Distillation(run.start, run.best, run.best_epoch, tuple(run.epochs), len(training), len(judging))


def parted(windows: Int[Tensor, "windows window"], held_out: int) -> tuple[Tensor, Tensor]:
    """Windows that judge, at least one, and those that train; raises `InvalidInputError` for fewer than two.

    >>> [len(part) for part in parted(torch.zeros(9, 4, dtype=torch.int64), 8)]
    [1, 8]
    """
    if len(windows) < 2:
        msg = f"{len(windows)} windows of calibration text; refining takes 2: one judges, the others train"
        raise InvalidInputError(msg)
    places = torch.arange(len(windows)) % held_out == held_out - 1
    if not places.any():
        places[-1] = True
    return windows[places], windows[~places]


class _Run:
    """The state of training."""

    def __init__(
        self,
        student: Student,
        teacher: Any,
        training: Tensor,
        judging: Tensor,
        refining: Refining,
        most_bytes: float,
    ) -> None:
        self.student, self.teacher, self.refining = student, teacher, refining
        self.training, self.judging, self.most_bytes = training, judging, most_bytes
        self.batch = max(1, refining.tokens // training.shape[1])
        self.epochs: list[Epoch] = []
        self.misses = self.best_epoch = 0

    def begin(self) -> None:
        """Judge what there is before training."""
        self.first = self.student.state()
        self.start = self.best = self.judge(None)
        self.best_state = self.first
        self.optimizer = self.adam()

    @property
    def over(self) -> bool:
        """Whether nothing is left to try."""
        done = len(self.epochs) >= self.refining.epochs or self.misses > self.refining.patience
        return done or not 0 < self.start.divergence < math.inf

    def adam(self) -> torch.optim.Adam:
        """Fresh moments, and rates by the sizes at the start and the misses so far."""
        factor = self.refining.reach * 0.5**self.misses
        groups = [
            {"params": [one], "lr": factor * float(self.first[name].square().mean().sqrt())}
            for name, one in self.student.learned.items()
        ]
        return torch.optim.Adam(groups, betas=BETAS)

    def epoch(self) -> None:
        """Train on all windows once, and judge."""
        sound = self.train()
        found = dataclasses.replace(self.judge(self.start) if sound else self.best, rejected=not sound)
        self.epochs.append(found)
        allowed = found.divergence <= self.start.divergence and found.payload_bytes <= self.most_bytes
        enough = (1 - LEAST) * self.best.score
        if sound and allowed and found.score < self.best.score:
            self.best, self.best_state, self.best_epoch = found, self.student.state(), len(self.epochs)
        if self.best.score > enough:
            self.misses += 1
            self.student.load(self.best_state)
            self.optimizer = self.adam()

    def train(self) -> bool:
        """One pass; False where it met a number that is not finite, which changes nothing."""
        generator = torch.Generator().manual_seed(self.refining.seed + len(self.epochs))
        order = torch.randperm(len(self.training), generator=generator)
        reached: set[str] = set()
        with self.student.recomputing():
            for places in order.split(self.batch):
                if not self.step(self.training[places], reached):
                    return False
        if not self.epochs:
            self.require_gradients(reached)
        return True

    def step(self, batch: Int[Tensor, "batch window"], reached: set[str]) -> bool:
        """One step, unless a gradient is not finite."""
        with torch.no_grad():
            wanted = predictions(self.teacher, batch)
        self.optimizer.zero_grad()
        with torch.enable_grad(), calibrating(self.student.model):  # blocks run again in backward
            loss = distance(wanted, predictions(self.student.model, batch)).mean()
            loss.backward()
            reached |= {name for name, one in self.student.learned.items() if one.grad is not None}
            cost = self.price * self.student.bits()
            if cost.requires_grad:
                cost.backward()
        gradients = [one.grad for one in self.student.learned.values() if one.grad is not None]
        if not all(bool(one.isfinite().all()) for one in (loss, *gradients)):
            return False
        self.optimizer.step()
        return True

    @property
    def price(self) -> float:
        """Nats that a bit must spare."""
        return 2 * math.log(2) * self.start.divergence / self.student.weights

    def require_gradients(self, reached: set[str]) -> None:
        """Raise `InvalidInputError` for a layer that predictions do not depend on."""
        learning = {name.rpartition(".")[0] for name in self.student.learned}
        for name in self.student.layers.keys() & learning:
            if not any(one.startswith(f"{name}.") for one in reached):
                msg = f"no gradient reaches {name}: predictions do not depend on it; quantize the model without it"
                raise InvalidInputError(msg)

    def judge(self, start: Epoch | None) -> Epoch:
        """Held-out windows under the state, rounded."""
        with self.student.rounded():
            size, mean = self.student.size(), mean_distance(self.teacher, self.student.model, self.judging)
        more = 0.0 if start is None else 8 * (size - start.payload_bytes) / self.student.weights
        score = mean * 4.0**more
        return Epoch(mean, size, score if math.isfinite(score) else math.inf)

    def kept(self) -> dict[str, np.ndarray]:
        """All that training goes on from, as arrays."""
        moments = self.optimizer.state_dict()["state"]
        rows = [dataclasses.astuple(one) for one in (self.start, self.best, *self.epochs)]
        found = {"epochs": np.array(rows, dtype=np.float64), "counts": np.array([self.misses, self.best_epoch])}
        for prefix, state in (("now", self.student.state()), ("first", self.first), ("best", self.best_state)):
            found |= {f"{prefix} {name}": one.numpy() for name, one in state.items()}
        for index, moment in moments.items():
            found |= {f"{key} {index}": one.numpy() for key, one in moment.items()}
        return found

    def restore(self, kept: Mapping[str, np.ndarray]) -> None:
        """Inverse of `kept`."""
        self.start, self.best, *self.epochs = _epochs(kept["epochs"])
        self.misses, self.best_epoch = (int(one) for one in kept["counts"])
        now, self.first, self.best_state = (
            {name: torch.from_numpy(kept[f"{prefix} {name}"]) for name in self.student.learned}
            for prefix in ("now", "first", "best")
        )
        self.student.load(now)
        self.optimizer = self.adam()
        state = self.optimizer.state_dict()
        for key in ("step", "exp_avg", "exp_avg_sq"):
            for index in range(len(self.student.learned)):
                if f"{key} {index}" in kept:
                    state["state"].setdefault(index, {})[key] = torch.from_numpy(kept[f"{key} {index}"])
        self.optimizer.load_state_dict(state)


def _epochs(rows: Sequence[Sequence[float]] | np.ndarray) -> Iterator[Epoch]:
    for divergence_, size, score, rejected in rows:
        yield Epoch(float(divergence_), int(size), float(score), bool(rejected))
