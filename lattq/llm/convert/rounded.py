"""Layers whose inputs are rounded while the model runs: where, by how much, and what they see then (theory 10.5).

The order is that of what depends on what. The transform T comes first, from the second moment of the inputs as they
are; then the clip of the range, in the coordinates of T; then the inputs x̂ = T⁻¹ Q(T x) are measured, and the weights
quantized for them with T held.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from lattq._coordinates import transform_of
from lattq._options import as_flag
from lattq.errors import InvalidInputError
from lattq.linalg.effective import effective_weight
from lattq.llm.convert.report import LayerRow
from lattq.llm.measure.moments import InputMoments
from lattq.llm.run.inputs import InputRounding, as_input_bits, as_input_clip
from lattq.llm.source.matrices import Matrix, watching
from lattq.quantized import Quantized
from lattq.scheme import Scheme

__all__ = ["InputSettings", "RoundedInputs", "measured", "naming", "observed", "rounding", "targets_of"]

CLIPS = tuple(np.linspace(0.5, 1.0, 21).round(3).tolist())  # tried where the factor is searched
TOKENS = 2048  # of each layer, on which it is searched
DRIFT_DAMPING = 0.01


@dataclasses.dataclass(frozen=True)
class InputSettings:
    """How a conversion rounds inputs; errors name the options of `quantize_model`.

    Parameters
    ----------
    bits : 2 to 8
    clip : factor of the ranges of all layers; None to search one for each
    correction : aim for the output of inputs that are not rounded, ``(W E[x x̂ᵀ]) E[x̂ x̂ᵀ]⁻¹`` instead of W
    """

    bits: int
    clip: float | None = None
    correction: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "bits", as_input_bits("input_bits", self.bits))
        object.__setattr__(self, "correction", as_flag("input_correction", self.correction))
        if self.clip is not None:
            object.__setattr__(self, "clip", as_input_clip("input_clip", self.clip))

    def rounding(self, clip: float) -> InputRounding:
        """The rounding with one factor."""
        return InputRounding(self.bits, clip=clip)

    def check(self, layers: Mapping[str, Matrix]) -> None:
        """Raise `InvalidInputError` for a matrix whose inputs cannot be rounded."""
        routed = next((name for name, one in layers.items() if one.routed), None)
        if routed is not None:
            msg = f"`input_bits` is {self.bits}, but {routed} is an expert, whose inputs stay as they are; `exclude` it"
            raise InvalidInputError(msg)

    def design(
        self, scheme: Scheme, weight: np.ndarray, sigma: np.ndarray, rows: Tensor, known: float | None = None
    ) -> "RoundedInputs":
        """The transform of a layer, and the clip: that for all, one that is known, or that of least error on inputs."""
        transform = transform_of(weight, sigma, scheme)
        moved = transform.on_inputs(rows)
        clip = known if self.clip is None else self.clip
        if clip is not None:
            return RoundedInputs(transform, self.rounding(clip))
        weights = torch.from_numpy(np.ascontiguousarray(transform.forward(weight))).to(rows)
        errors = {clip: _error(moved, weights, self.rounding(clip)) for clip in reversed(CLIPS)}
        return RoundedInputs(transform, self.rounding(min(errors, key=lambda clip: errors[clip])))

    def stored(self, quantized: Quantized, row: LayerRow) -> "RoundedInputs":
        """Those of a layer that is quantized already."""
        return RoundedInputs(quantized.transform, self.rounding(1.0 if row.input_clip is None else row.input_clip))


@dataclasses.dataclass(frozen=True, eq=False)
class RoundedInputs:
    """Inputs of one layer, rounded in the coordinates of its transform.

    Examples
    --------
    >>> from lattq.transforms import Hadamard
    >>> inputs = RoundedInputs(Hadamard(1), InputRounding(bits=8))
    >>> x = torch.tensor([[3.0, -1.0, 0.0, 2.0]])
    >>> bool((inputs(x) - x).abs().max() < 0.02)
    True
    """

    transform: Any
    rounding: InputRounding

    def __call__(self, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch n"]:
        """T⁻¹ Q(T x): what the layer in its own coordinates sees instead of x."""
        moved = self.transform.on_inputs(x.reshape(-1, x.shape[-1]))
        return self.transform.inverse_on_inputs(self.rounding(moved)).reshape(x.shape)


def observed(
    layers: Mapping[str, Matrix], forward: Callable[[int], Any], batches: Sequence[Tensor]
) -> Callable[[str], tuple[np.ndarray, Tensor]]:
    """Run some batches; by the name of a layer, the second moment of its inputs, and some of them, evenly spread."""
    stride = max(1, -(-sum(batch.numel() for batch in batches) // TOKENS))
    moments, rows = InputMoments(layers), {name: [] for name in layers}

    def keep(name: str, x: Tensor, y: Any) -> None:
        rows[name].append(x.detach().reshape(-1, x.shape[-1])[::stride].clone())

    for batch in range(len(batches) if layers else 0):
        with moments.record(), watching(layers, keep):
            forward(batch)
    return lambda name: (moments.sigma(name), torch.cat(rows[name]))


@contextlib.contextmanager
def rounding(layers: Mapping[str, Matrix], found: Mapping[str, RoundedInputs]) -> Iterator[None]:
    """Let the layers of a model see rounded inputs, in this block of code."""
    handles = [layers[name].module.register_forward_pre_hook(_hook(one)) for name, one in found.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def measured(
    layers: Mapping[str, Matrix],
    batches: Iterable[int],
    forward: Callable[[int], Any],
    reference: Callable[[int], Any] | None,
    rounded: Mapping[str, RoundedInputs],
) -> tuple[InputMoments, list[Any]]:
    """Second moments of the inputs that layers see in some forwards, rounded if they are, and what `reference` returns.

    Parameters
    ----------
    forward : runs one batch
    reference : runs it with the inputs that the layers should have seen, for the cross moments; None for none
    """
    moments, returned = InputMoments(layers, drift=reference is not None, shared=not rounded), []
    for batch in batches:
        if reference is not None:
            with moments.remember():
                returned.append(reference(batch))
        with rounding(layers, rounded), moments.record():
            forward(batch)
    return moments, returned


def targets_of(weights: Mapping[str, np.ndarray], moments: InputMoments) -> dict[str, np.ndarray]:
    """What to quantize: the weights, corrected for their inputs where there are cross moments."""
    found = dict(weights)
    for name, w in weights.items():
        cross = moments.cross(name) if moments.drift else None
        if cross is not None:
            found[name] = effective_weight(w, cross, moments.sigma(name), damping=DRIFT_DAMPING).astype(w.dtype)
    return found


@contextlib.contextmanager
def naming(layer: str) -> Iterator[None]:
    """Put the layer before the message of an `InvalidInputError`."""
    try:
        yield
    except InvalidInputError as error:
        msg = f"layer {layer}: {error}"
        raise InvalidInputError(msg) from error


def _hook(inputs: RoundedInputs) -> Callable[[nn.Module, tuple], tuple]:
    return lambda module, args: (inputs(args[0]), *args[1:])


def _error(moved: Tensor, weights: Tensor, rounding: InputRounding) -> float:
    """Squared error of the outputs."""
    return float(nn.functional.linear(rounding(moved) - moved, weights).double().square().sum())
