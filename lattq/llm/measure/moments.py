"""Second moments of the inputs of linear layers, from calibration text."""

import contextlib
import weakref
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lattq.errors import InvalidInputError
from lattq.linalg import SecondMoment
from lattq.llm.source.windows import run

__all__ = ["InputMoments", "forward_batches"]


class InputMoments:
    """Second moments of the inputs of linear layers, updated while a model runs inside `record`.

    Layers that receive the same tensor, such as q, k and v, share one accumulator, see `moment`. With `drift`,
    forwards come in pairs: first the clean model inside `remember`, then the drifted one inside `record`.

    Parameters
    ----------
    layers : name to linear layer
    drift : also accumulate E[(x - x̂) x̂ᵀ] of remembered and recorded inputs
    """

    def __init__(self, layers: Mapping[str, nn.Linear], *, drift: bool = False) -> None:
        self.layers, self.drift = layers, drift
        self.leader: dict[str, str] = {}
        self._moments: dict[str, SecondMoment] = {}
        self._cross: dict[str, SecondMoment] = {}
        self._clean: dict[str, Tensor] = {}
        self._seen: list[tuple[weakref.ref, str]] = []

    def sigma(self, name: str) -> Float[np.ndarray, "columns columns"]:
        """E[x xᵀ] of the inputs of a layer, shrunk as far as their number asks for (theory 11.3)."""
        return self.moment(name).shrunk().matrix

    def tokens(self, name: str) -> int:
        """How many inputs of a layer were seen."""
        return round(self.moment(name).count)

    def moment(self, name: str) -> SecondMoment:
        """The accumulator of a layer: what was measured is its `matrix`."""
        if name not in self.leader:
            msg = f"no calibration input reached `{name}`; leave it out of `modules`"
            raise InvalidInputError(msg)
        return self._moments[self.leader[name]]

    def cross(self, name: str) -> Float[np.ndarray, "columns columns"]:
        """E[x x̂ᵀ] of remembered and recorded inputs of a layer: `sigma`, and the drift shrunk by itself."""
        return self.sigma(name) + self._cross[self.leader[name]].shrunk().matrix

    @contextlib.contextmanager
    def record(self) -> Iterator[None]:
        """Accumulate what reaches the layers in one forward."""
        with self._hooked(self._update):
            yield
        self._clean.clear()

    @contextlib.contextmanager
    def remember(self) -> Iterator[None]:
        """Keep what reaches the layers in one forward, for the cross moments of the next `record`."""
        with self._hooked(self._clean.__setitem__):
            yield

    @contextlib.contextmanager
    def _hooked(self, act: Any) -> Iterator[None]:
        def hook(name: str) -> Any:
            return lambda module, inputs: self._arrived(name, inputs[0], act)

        handles = [layer.register_forward_pre_hook(hook(name)) for name, layer in self.layers.items()]
        self._seen = []
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _arrived(self, name: str, x: Tensor, act: Any) -> None:
        if name not in self.leader:
            same = (first for seen, first in self._seen if seen() is x)  # identity: the modules read one tensor
            self.leader[name] = next(same, name)
        if self.leader[name] == name:
            self._seen.append((weakref.ref(x), name))
            act(name, x)

    def _update(self, name: str, x: Tensor) -> None:
        width = x.shape[-1]
        self._moments.setdefault(name, SecondMoment(width)).update(x)
        if self.drift:
            x = x.double()
            self._cross.setdefault(name, SecondMoment(width, width)).update(self._clean[name].double() - x, x)


def forward_batches(model: Any, batches: Iterable[Int[Tensor, "_ window"]], moments: InputMoments) -> None:
    """Run the whole model over all batches while `moments` records."""
    for batch in batches:
        with torch.no_grad(), moments.record():
            run(model, batch)
