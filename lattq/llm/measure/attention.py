"""Inputs of queries, keys and values weighed by the attention that their tokens receive."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lattq.errors import InvalidInputError
from lattq.llm.source.matrices import Matrix
from lattq.llm.source.windows import all_configs, run

__all__ = ["Attention", "received"]

SHARE = 0.01  # of plain weights


class Attention:
    """The attention modules of a model, and what their first layers read until it is known how much it is attended to.

    Errors of the keys and values of a token count as much as others attend to it (Lifar et al., "WaterSIC:
    information-theoretically (near) optimal linear layer quantization", eq. 19): its input gets the mean attention that
    it receives over heads and over the queries that may attend to it, in units of the mean over the tokens of the
    window, plus a hundredth of a plain weight.

    Parameters
    ----------
    model : whose attention can be computed in the open, as `eager`
    layers : to measure
    window : of tokens, to find the modules with

    Raises
    ------
    InvalidInputError : if no module around a layer returns how much each token attends to each
    """

    def __init__(self, model: Any, layers: Mapping[str, Matrix], window: Int[Tensor, "1 window"]) -> None:
        self.model = model
        self._held: dict[str, tuple[str, np.ndarray]] = {}
        self._entered: str | None = None
        found: set[str] = set()
        with torch.no_grad(), in_the_open(model), _hooks(model, lambda name, weights: found.add(name)):
            run(model, window)
        around = {name for name in found if any(layer.startswith(f"{name}.") for layer in layers)}
        self.modules = {one for one in around if not any(other.startswith(f"{one}.") for other in around)}
        if not self.modules:
            msg = f"no module of {type(model).__name__} returns attention around the layers; leave out `attention`"
            raise InvalidInputError(msg)

    @contextlib.contextmanager
    def watching(self, add: Callable[[str, np.ndarray, np.ndarray], None]) -> Iterator[None]:
        """Call `add` with the layer, inputs and weights of what was held, when an attention module is done."""

        def leave(name: str, weights: Tensor) -> None:
            held = self._held.pop(name, None)
            if held is not None:
                add(*held, received(weights))

        with in_the_open(self.model), _hooks(self.model, leave, self.modules, self._enter):
            yield

    def module_of(self, layer: str) -> str | None:
        """The attention module around a layer."""
        return next((one for one in self.modules if layer.startswith(f"{one}.")), None)

    def hold(self, layer: str, x: Float[np.ndarray, "tokens columns"]) -> bool:
        """Hold the inputs of a layer if it is the first of its attention module to run; others read other tensors."""
        module = self.module_of(layer)
        if module is None or module != self._entered:
            return False
        self._held[module], self._entered = (layer, x), None
        return True

    def _enter(self, name: str) -> None:
        self._entered = name


def received(weights: Float[Tensor, "1 heads queries keys"]) -> Float[np.ndarray, " keys"]:
    """Weights of tokens, of mean 1, from how much each query attends to them.

    >>> received(torch.tensor([[[[1.0, 0.0], [0.5, 0.5]]]])).round(3)
    array([1.198, 0.802])
    """
    found = weights.detach().double()[0]
    queries = (found > 0).any(0).sum(0).clamp(min=1)  # those that are not masked
    mean = (found.mean(0).sum(0) / queries).numpy()
    return (1 - SHARE) * mean / mean.mean() + SHARE


@contextlib.contextmanager
def in_the_open(model: nn.Module) -> Iterator[None]:
    """Let attention be computed by products that can be seen."""
    key = "_attn_implementation_internal"
    before = [(config, getattr(config, key)) for config in all_configs(model) if hasattr(config, key)]
    for config, _ in before:
        setattr(config, key, "eager")
    try:
        yield
    finally:
        for config, value in before:
            setattr(config, key, value)


@contextlib.contextmanager
def _hooks(
    model: nn.Module,
    leave: Callable[[str, Tensor], Any],
    names: set[str] | None = None,
    enter: Callable[[str], None] = lambda name: None,
) -> Iterator[None]:
    """Tell of modules that return attention beside their outputs, before and after they run."""

    def after(name: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            second = output[1] if isinstance(output, tuple) and len(output) > 1 else None
            if isinstance(second, Tensor) and second.ndim == 4 and second.shape[-1] == second.shape[-2]:
                leave(name, second)

        return hook

    handles = []
    for name, module in model.named_modules():
        if names is None or name in names:
            handles.append(module.register_forward_pre_hook(lambda module, args, name=name: enter(name)))
            handles.append(module.register_forward_hook(after(name)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
