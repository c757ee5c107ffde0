"""Statistics of a model directory, measured on text."""

import hashlib
import weakref
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int
from torch import Tensor

from lattq.llm.measure.gradients import differentiate
from lattq.llm.measure.moments import reached
from lattq.llm.measure.score import Score, digest_of_window, pooling_of
from lattq.llm.measure.statistics import MeasuredLayer, Origin, Statistics
from lattq.llm.measure.sums import INPUTS, OUTPUTS, MomentSums, height_of
from lattq.llm.source import checkpoint
from lattq.llm.source.architecture import choose
from lattq.llm.source.matrices import Matrix
from lattq.llm.source.windows import fixed_threads, longest_window, token_windows
from lattq.progress import Observer, Stage, stage

__all__ = ["measure_model", "statistics_of"]


def measure_model(
    source: str | Path,
    *,
    calibration_text: str,
    window: int | None = None,
    samples: int | None = None,
    seed: int = 0,
    label_seed: int = 0,
    draws: int = 1,
    block: int = 512,
    modules: Iterable[str] | None = None,
    include: Iterable[str] | None = None,
    exclude: Iterable[str] = (),
    threads: int = 1,
    progress: Stage | Observer | None = None,
) -> Statistics:
    """Measure second moments of the inputs of a model's layers, and of its score at their outputs."""
    with fixed_threads(threads), stage("measure the model", inside=progress) as work:
        with work.stage("load the model"):
            tokenizer, model = checkpoint.load_tokenizer(source), checkpoint.load_model(source).float()
        window = int(window if window is not None else longest_window(model))
        windows = token_windows(tokenizer, calibration_text, window, samples, seed)
        found = choose(model, modules, include=include, exclude=exclude)
        layers = reached(model, found.matrices, windows[:1]).matrices
        score = Score(label_seed, draws, pooling_of(source))
        with work.stage("measure statistics", len(windows)) as told:
            sums = statistics_of(model, layers, list(windows[:, None]), score, block, told)
        text = hashlib.blake2b(calibration_text.encode(), digest_size=16).hexdigest()
        digests = tuple(sorted(digest_of_window(one, label_seed, draws) for one in windows))
        origin = Origin(checkpoint.source_hash(source), (text,), digests, (window,), (label_seed,), (draws,))
        return sums.statistics(origin)


def statistics_of(
    model: Any,
    layers: Mapping[str, Matrix],
    windows: Sequence[Int[Tensor, "1 window"]],
    score: Score,
    block: int = 512,
    told: Stage | None = None,
    whole: bool | None = None,
) -> "Collected":
    """Sums over some windows of a model at hand."""
    found = Collected(layers, block)
    advance = (lambda name: None) if told is None else told.advance
    differentiate(model, layers, windows, score, found, found.begin, advance, whole)
    return found


class Collected:
    """Sums of the layers of a model, fed by the uses of the layers."""

    def __init__(self, layers: Mapping[str, Matrix], block: int) -> None:
        self.layers, self.block = layers, block
        self.leader: dict[str, str] = {}
        self.sums: dict[tuple[str, str], MomentSums] = {}
        self._seen: list[tuple[weakref.ref, str]] = []

    def begin(self) -> None:
        """Forget which tensors were seen."""
        self._seen = []

    def __call__(self, name: str, x: Tensor, y: Tensor) -> None:
        """Take the inputs of a layer, and wait for gradients at its outputs."""
        if name not in self.leader:
            same = (first for seen, first in self._seen if seen() is x)
            self.leader[name] = next(same, name)
        if self.leader[name] == name:
            self._seen.append((weakref.ref(x), name))
            rows = _rows(x)
            self.of(name, "inputs", rows.shape[1]).add(rows)
        if y.requires_grad:
            y.register_hook(lambda gradient: self.gradient(name, gradient))

    def gradient(self, name: str, gradient: Tensor) -> None:
        """Take the gradient at the outputs of a layer."""
        rows = _rows(gradient)
        self.of(name, "outputs", rows.shape[1]).add(rows)

    def of(self, name: str, kind: str, width: int) -> MomentSums:
        """The sums of one side of a layer."""
        key = (name, kind)
        if key not in self.sums:
            height = width if kind == "inputs" else height_of(width, self.block)
            self.sums[key] = MomentSums(INPUTS if kind == "inputs" else OUTPUTS, width // height, height)
        return self.sums[key]

    def statistics(self, origin: Origin) -> Statistics:
        """The value."""
        arrays: dict[str, np.ndarray] = {}
        for (name, kind), one in self.sums.items():
            for part, exact in one.parts().items():
                arrays[f"{name}.{kind}.{part}"] = exact.sum
                arrays[f"{name}.{kind}.{part}.rest"] = exact.rest
        layers = {
            name: MeasuredLayer(
                one.shape,
                one.shape[0] // height_of(one.shape[0], self.block),
                one.siblings,
                self.leader.get(name),
                bool(one.transposed),
            )
            for name, one in self.layers.items()
        }
        return Statistics(layers, arrays, origin)


def _rows(x: Tensor) -> np.ndarray:
    return x.detach().reshape(-1, x.shape[-1]).double().numpy()
