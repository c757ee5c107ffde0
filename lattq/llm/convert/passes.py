"""One pass over a model: every chosen layer quantized, with clean inputs or behind the quantized prefix."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from threadpoolctl import threadpool_limits
from torch import Tensor

from lattq._coordinates import holding
from lattq._metric import Metric
from lattq.errors import InvalidInputError
from lattq.llm.convert.calibration import Moments
from lattq.llm.convert.metrics import Metrics
from lattq.llm.convert.rate_control import OneSetting, Settings
from lattq.llm.convert.report import LayerRow, layer_row
from lattq.llm.convert.rounded import InputSettings, RoundedInputs, measured, naming, observed, rounding, targets_of
from lattq.llm.convert.workspace import Workspace
from lattq.llm.measure.hidden_states import BlockStream, WholeModel, follow
from lattq.llm.source.architecture import find_blocks
from lattq.llm.source.design import FoldedMap
from lattq.llm.source.matrices import Matrix
from lattq.llm.source.windows import batches_of, run
from lattq.quantized import Quantized
from lattq.scheme import Scheme, quantize
from lattq.transforms.chains import folded

__all__ = ["Encoder", "clean_pass", "propagated_pass", "rounded_pass"]

# Relative squared change of weights that were rounded before: norms in bfloat16 move columns by 2⁻⁹, other grids more.
REROUNDED = 1e-3


class Encoder:
    """Quantizes layers, several at once, and keeps what it made in the workspace.

    Parameters
    ----------
    recipe : from a step or number of levels to a scheme
    scales : factor of the step for each layer
    jobs : layers at once
    inputs : how they are rounded while the model runs; None for not at all

    Attributes
    ----------
    report : called with the name of each finished layer
    metrics : of layers, from second moments of their inputs
    settings : what each layer is quantized at
    trained : layers whose weights `maps` left rounded, which must come back as they are
    """

    def __init__(
        self,
        recipe: Callable[..., Scheme],
        scales: Mapping[str, float],
        workspace: Workspace,
        jobs: int,
        inputs: InputSettings | None = None,
    ) -> None:
        self.recipe, self.scales = recipe, scales
        self.workspace, self.jobs, self.inputs = workspace, jobs, inputs
        self.metrics = Metrics()
        self.trained: dict[str, FoldedMap] = {}
        self.settings: Settings = OneSetting(1.0)
        self.report: Callable[[str], None] = lambda name: None

    def sizes(self, value: float | int, weights: dict[str, np.ndarray], moments: Moments) -> dict[str, int]:
        """Payload bytes of each layer at one setting; nothing is kept."""

        def size(name: str) -> int:
            metric = self.metrics.of(name, moments.sigma(name))
            return len(self.quantize(name, weights[name], metric, self.scaled(name, value)).payload)

        found = {}
        for name, bytes_ in zip(weights, self._parallel(size, list(weights)), strict=True):
            found[name] = bytes_
            self.report(name)
        return found

    def stored(self, name: str) -> tuple[Quantized, LayerRow] | None:
        """What the workspace holds of a layer."""
        value = self.settings.of(name)
        found = None if value is None else self.workspace.get(value, name)
        if found is not None:
            self.settings.learn(name, len(found[0].payload))
        return found

    def store(
        self,
        targets: dict[str, np.ndarray],
        moments: Moments,
        rounded: Mapping[str, RoundedInputs] | None = None,
    ) -> Iterator[tuple[str, Quantized]]:
        """Quantize and store the layers of `targets`, in the coordinates that their inputs are rounded in."""
        rounded = rounded or {}

        def encode(name: str) -> tuple[Quantized, LayerRow]:
            start, metric, inputs = time.perf_counter(), self.metrics.of(name, moments.sigma(name)), rounded.get(name)
            quantized = self.quantize(name, targets[name], metric, self.setting(name), inputs)
            row = layer_row(
                name,
                self.setting(name),
                quantized,
                targets[name],
                metric,
                time.perf_counter() - start,
                moments.tokens(name),
                None if inputs is None else inputs.rounding.clip,
            )
            if moments.borrowed(name):
                row.stats["inputs"] = "none: of its siblings"
            return quantized, row

        waiting = list(targets)
        while waiting:
            ready = self.settings.next(waiting)
            for (name, value), (quantized, row) in zip(ready.items(), self._parallel(encode, list(ready)), strict=True):
                self.workspace.put(value, name, quantized.payload, row)
                self.settings.learn(name, len(quantized.payload))
                self.report(name)
                yield name, quantized
            waiting = [name for name in waiting if name not in ready]

    def setting(self, name: str) -> float | int:
        """Step or number of levels of one layer; of one that has to wait, any."""
        return self.scaled(name, self.settings.of(name) or 1.0)

    def scaled(self, name: str, value: float | int) -> float | int:
        """A step for one layer, or a number of levels."""
        return value if isinstance(value, int) else value * self.scales[name]

    def quantize(
        self, name: str, weight: np.ndarray, metric: Metric, setting: float | int, inputs: RoundedInputs | None = None
    ) -> Quantized:
        """Quantize one layer; errors name it."""
        with naming(name):
            scheme = self.recipe(setting)
            found = quantize(weight, metric, scheme if inputs is None else holding(scheme, inputs.transform))
        if folded(found.transform) is not None:
            msg = (
                f"layer {name}: `recipe` folds a transform of its own, and those with the same inputs need one map for "
                "all; store it, or fold maps of the whole model with `maps`"
            )
            raise InvalidInputError(msg)
        if name in self.trained:
            lost, power = (float(np.square(one).sum()) for one in (found.dequantize() - weight, weight))
            if lost > REROUNDED * power:
                msg = (
                    f"layer {name}: {self.trained[name].design} left its weights rounded, and `recipe` rounds them to "
                    f"others (relative squared error {lost / power if power else lost:.2g}); give the one that it was "
                    'trained for, such as rtn with its levels and group, symmetric=False and fit="range"'
                )
                raise InvalidInputError(msg)
        return found

    def rounded(
        self,
        layers: dict[str, Matrix],
        weights: Mapping[str, np.ndarray],
        forward: Callable[[int], Any],
        batches: list[Int[Tensor, "_ window"]],
    ) -> dict[str, RoundedInputs]:
        """How the inputs of layers are rounded; nothing if they are not. `forward` runs one of the batches."""
        if self.inputs is None:
            return {}
        stored = {name: self.stored(name) for name in layers}
        found = {name: self.inputs.stored(*entry) for name, entry in stored.items() if entry is not None}
        missing = {name: layers[name] for name in layers if name not in found}
        seen = observed(missing, forward, batches)
        for name in missing:
            with naming(name):
                scheme, known = self.recipe(self.setting(name)), self.trained.get(name)
                clip = None if known is None else known.clip
                found[name] = self.inputs.design(scheme, weights[name], *seen(name), clip)
        return found

    @property
    def corrects(self) -> bool:
        """Whether weights are corrected for the rounding of their inputs."""
        return self.inputs is not None and self.inputs.correction

    def _parallel(self, function: Callable[[str], Any], names: list[str]) -> Iterator[Any]:
        # The limit is process-wide: set outside, no thread lifts it while another still computes.
        with threadpool_limits(1), ThreadPoolExecutor(self.jobs) as pool:
            yield from pool.map(function, names)


def clean_pass(
    encoder: Encoder, weights: dict[str, np.ndarray], moments: Moments
) -> dict[str, tuple[Quantized, LayerRow]]:
    """Quantize all layers for the inputs of the unquantized model; what is stored already is kept."""
    missing = {name: w for name, w in weights.items() if encoder.stored(name) is None}
    for _ in encoder.store(missing, moments):
        pass
    return _stored(encoder, weights)


def propagated_pass(
    encoder: Encoder,
    model: Any,
    layers: dict[str, Matrix],
    weights: dict[str, np.ndarray],
    windows: Int[Tensor, "windows window"],
    *,
    drift: bool = False,
) -> dict[str, tuple[Quantized, LayerRow]]:
    """Quantize block by block, each for the inputs that the quantized blocks before it produce.

    Layers outside the blocks come last, for inputs of the model with all blocks quantized. The model gets its own
    weights back at the end.

    Parameters
    ----------
    weights : copies of the layers' own weights
    drift : aim for the output of the unquantized model, ``(W E[x x̂ᵀ]) E[x̂ x̂ᵀ]⁻¹`` instead of W, in the blocks

    Raises
    ------
    InvalidInputError : if `drift` is asked of a model whose blocks cannot be called one by one
    """
    try:
        batches = batches_of(windows)
        names = find_blocks(model, layers)
        stream = follow(model, [block for _, block in names], batches)
        if drift and not isinstance(stream, BlockStream):
            msg = f"`drift` needs blocks that hand on hidden states alone; those of {type(model).__name__} do more"
            raise InvalidInputError(msg)
        drifted = list(stream.hidden)
        last = max((i for i, (block, _) in enumerate(names) if _inside(layers, block)), default=-1)
        with contextlib.ExitStack() as prefix:
            for index, (block, _) in enumerate(names[: last + 1]):
                mine = _inside(layers, block)
                clean = _quantize_block(encoder, stream, index, mine, weights, drifted, drift, prefix, batches)
                if index < last:
                    drifted = stream.advance(index, drifted)
                    stream.hidden = clean
            rest = {name: one for name, one in layers.items() if not any(_within(name, block) for block, _ in names)}
            rounded_pass(encoder, model, rest, weights, batches)
    finally:
        for name, layer in layers.items():
            layer.write(torch.from_numpy(weights[name]))
    return _stored(encoder, weights)


def rounded_pass(
    encoder: Encoder,
    model: Any,
    layers: dict[str, Matrix],
    weights: Mapping[str, np.ndarray],
    batches: list[Int[Tensor, "_ window"]],
) -> dict[str, tuple[Quantized, LayerRow]]:
    """Quantize layers for the inputs that they have in the model as it is, each rounded if the encoder says so.

    With rounded inputs all layers see what the rounding of those before them makes; their weights are clean.
    """

    def forward(batch: int) -> None:
        with torch.no_grad():
            run(model, batches[batch])

    missing = [name for name in layers if encoder.stored(name) is None]
    if missing:
        rounded = encoder.rounded(layers, weights, forward, batches)
        reference = forward if encoder.corrects else None
        moments, _ = measured(layers, range(len(batches)), forward, reference, rounded)
        targets = targets_of({name: weights[name] for name in missing}, moments)
        for _ in encoder.store(targets, moments, rounded):
            pass
    return _stored(encoder, layers)


def _quantize_block(
    encoder: Encoder,
    stream: BlockStream | WholeModel,
    index: int,
    layers: dict[str, Matrix],
    weights: dict[str, np.ndarray],
    drifted: list[Any],
    drift: bool,
    prefix: contextlib.ExitStack,
    batches: list[Int[Tensor, "_ window"]],
) -> list[Any]:
    """Quantize the layers of one block and put the result into it; the clean outputs, if drift is followed.

    Where inputs are rounded, those of the block are from here on until `prefix` closes.
    """
    stored = {name: encoder.stored(name) for name in layers}
    missing = [name for name, found in stored.items() if found is None]

    def own(batch: int) -> Any:
        return stream.apply(index, drifted, batch)

    def pristine(batch: int) -> Any:
        return stream.apply(index, stream.hidden, batch)

    found = {name: entry[0] for name, entry in stored.items() if entry is not None}
    rounded = encoder.rounded(layers, weights, own, batches)
    clean = []
    if missing:
        reference = pristine if drift else own if encoder.corrects else None
        moments, clean = measured(layers, range(len(drifted)), own, reference, rounded)
        targets = targets_of({name: weights[name] for name in missing}, moments)
        found |= dict(encoder.store(targets, moments, rounded))
    elif drift:
        clean = [pristine(batch) for batch in range(len(drifted))]
    for name, quantized in found.items():
        layers[name].write(torch.from_numpy(quantized.dequantize()))
    prefix.enter_context(rounding(layers, rounded))
    return clean


def _stored(encoder: Encoder, names: Any) -> dict[str, tuple[Quantized, LayerRow]]:
    found = {name: encoder.stored(name) for name in names}
    return {name: entry for name, entry in found.items() if entry is not None}


def _inside(layers: dict[str, Matrix], block: str) -> dict[str, Matrix]:
    return {name: layer for name, layer in layers.items() if _within(name, block)}


def _within(name: str, block: str) -> bool:
    return name.startswith(f"{block}.")
