"""What a conversion knows of the unquantized model: measured on windows of text, or read from statistics."""

from collections.abc import Iterable, Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from lattq.errors import InvalidInputError
from lattq.llm.measure.model import measure_windows
from lattq.llm.measure.moments import UNREACHED, InputMoments, forward_batches, reached
from lattq.llm.measure.origin import Origin
from lattq.llm.measure.score import Score
from lattq.llm.measure.sensitivity import output_sensitivities
from lattq.llm.measure.statistics import Statistics
from lattq.llm.source.architecture import Choice
from lattq.llm.source.matrices import Matrix
from lattq.llm.source.windows import batches_of
from lattq.progress import Stage

__all__ = ["Calibration", "FromStatistics", "Moments", "OnText", "sensitivities_of"]

SENSITIVITY_WINDOWS = 32
DRAWS = 2  # of labels for each window
PILOT = 8  # one window of so many says how to weigh the tokens of all, or about what rate a step will give


@runtime_checkable
class Moments(Protocol):
    """Second moments of the inputs of layers by name: those of `InputMoments`, or `Statistics`."""

    def sigma(self, name: str) -> Float[np.ndarray, "columns columns"]:
        """E[x xᵀ], shrunk."""
        ...

    def tokens(self, name: str) -> int:
        """How many inputs were seen."""
        ...

    def borrowed(self, name: str) -> bool:
        """Whether they are those of siblings."""
        ...


@runtime_checkable
class Calibration(Protocol):
    """What a conversion asks for before it quantizes."""

    def windows(self) -> Int[Tensor, "windows window"]:
        """Tokens for passes through the model."""
        ...

    def part(self) -> "Calibration":
        """Less of it, for what need not be exact."""
        ...

    def choose(self, model: Any, layers: Mapping[str, Matrix]) -> Choice:
        """The layers that something reached, and why the others stay."""
        ...

    def moments(self, model: Any, layers: Mapping[str, Matrix], work: Stage) -> Moments:
        """Second moments of inputs."""
        ...

    def sensitivities(self, model: Any, layers: Mapping[str, Matrix], work: Stage) -> dict[str, float]:
        """Mean squared scores at the outputs of layers, all of them positive unless all are zero."""
        ...

    def statistics(
        self, model: Any, layers: Mapping[str, Matrix], work: Stage, *, guides: int = 0, weighed: bool = True
    ) -> Statistics:
        """Second moments of inputs and of scores at outputs, and of inputs for so many groups of outputs.

        `weighed` asks for tokens that count by the other side, as `Matched` does, where there are no groups.
        """
        ...


class OnText:
    """Measured on windows of text.

    Parameters
    ----------
    windows : of tokens
    seed : of drawn labels
    pooling : as in `Score`
    """

    def __init__(self, windows: Int[Tensor, "windows window"], seed: int, pooling: str | None = None) -> None:
        self._windows, self.seed, self.pooling = windows, seed, pooling

    def windows(self) -> Int[Tensor, "windows window"]:
        """All of them."""
        return self._windows

    def part(self) -> "OnText":
        """One window of eight."""
        return OnText(self._windows[::PILOT], self.seed, self.pooling)

    def choose(self, model: Any, layers: Mapping[str, Matrix]) -> Choice:
        """Those that the first windows reach."""
        return reached(model, layers, batches_of(self._windows)[0])

    def moments(self, model: Any, layers: Mapping[str, Matrix], work: Stage) -> InputMoments:
        """Of all windows."""
        moments, batches = InputMoments(layers), batches_of(self._windows)
        with work.stage("measure inputs", len(batches)) as stage:
            forward_batches(model, stage.over(batches), moments)
        return moments

    def sensitivities(self, model: Any, layers: Mapping[str, Matrix], work: Stage) -> dict[str, float]:
        """Of some windows."""
        batches = batches_of(self._windows[:: max(1, len(self._windows) // SENSITIVITY_WINDOWS)])
        with work.stage("measure sensitivities", len(batches)) as stage:
            found = output_sensitivities(model, layers, stage.over(batches), self.seed)
        return with_one_more(found, sum(batch.numel() for batch in batches))

    def statistics(
        self, model: Any, layers: Mapping[str, Matrix], work: Stage, *, guides: int = 0, weighed: bool = True
    ) -> Statistics:
        """Of all windows, weighed by what some of them say (theory 16.4)."""
        if guides or not weighed:
            return self._measured("measure statistics", self._windows, model, layers, work, guides=guides)
        pilot = self._measured("measure weights of tokens", self._windows[::PILOT], model, layers, work)
        return self._measured("measure statistics", self._windows, model, layers, work, matched=pilot)

    def _measured(
        self,
        what: str,
        windows: Int[Tensor, "some window"],
        model: Any,
        layers: Mapping[str, Matrix],
        work: Stage,
        **options: Any,
    ) -> Statistics:
        score = Score(self.seed, DRAWS, self.pooling)
        with work.stage(what, len(windows)) as stage:
            found = measure_windows(model, layers, windows, score, told=stage, **options)
        tokens = windows.numel()
        return found.statistics(Origin("", "", (), (), (), (self.seed,), tokens, DRAWS * tokens))


class FromStatistics:
    """Read from statistics.

    Parameters
    ----------
    statistics : of the unquantized model
    source : hash of the model directory

    Raises
    ------
    InvalidInputError : if they are of another model
    """

    def __init__(self, statistics: Statistics, source: str) -> None:
        if statistics.origin.model != source:
            msg = (
                f"`statistics` are of another model, with the hash {statistics.origin.model}, and that of `source` is "
                f"{source}; measure this one"
            )
            raise InvalidInputError(msg)
        self._statistics = statistics

    def windows(self) -> Int[Tensor, "windows window"]:
        """There are none: no text is kept."""
        msg = "statistics hold no text; give `calibration_text`"
        raise InvalidInputError(msg)

    def part(self) -> "FromStatistics":
        """All of it, which costs nothing."""
        return self

    def choose(self, model: Any, layers: Mapping[str, Matrix]) -> Choice:
        """Those that the statistics hold."""
        known = self._statistics.layers
        found = {name: one for name, one in layers.items() if name in known}
        for name, matrix in found.items():
            if matrix.routed:
                matrix.transposed = known[name].transposed
            if matrix.shape != known[name].shape:
                msg = f"`statistics` hold {name} as {known[name].shape}, and it is {matrix.shape}; measure this model"
                raise InvalidInputError(msg)
        return Choice(found, {name: UNREACHED for name in layers if name not in found})

    def moments(self, model: Any, layers: Mapping[str, Matrix], work: Stage) -> Statistics:
        """The statistics themselves."""
        return self._statistics

    def statistics(
        self, model: Any, layers: Mapping[str, Matrix], work: Stage, *, guides: int = 0, weighed: bool = True
    ) -> Statistics:
        """The statistics themselves."""
        return self._statistics

    def sensitivities(self, model: Any, layers: Mapping[str, Matrix], work: Stage) -> dict[str, float]:
        """Of all tokens that were measured."""
        return sensitivities_of(self._statistics, layers)


def sensitivities_of(statistics: Statistics, names: Iterable[str]) -> dict[str, float]:
    """Mean squared scores at the outputs of layers, with one more token."""
    return with_one_more({name: statistics.sensitivity(name) for name in names}, statistics.origin.scored)


def with_one_more(found: dict[str, float], tokens: int) -> dict[str, float]:
    """With one more token, of mean sensitivity: queries and keys do nothing for a first token, some layers for none.

    >>> with_one_more({"a": 0.0, "b": 2.0}, 1)
    {'a': 0.5, 'b': 1.5}
    """
    prior = sum(found.values()) / len(found)
    return {name: (tokens * g + prior) / (tokens + 1) for name, g in found.items()}
