"""Second moments of the inputs of matrices, from calibration text."""

import contextlib
import weakref
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from lattq.errors import InvalidInputError
from lattq.linalg import SecondMoment
from lattq.llm.source.architecture import Choice
from lattq.llm.source.matrices import Matrix, watching
from lattq.llm.source.windows import run

__all__ = ["UNREACHED", "InputMoments", "forward_batches", "reached"]

UNREACHED = "no calibration input reached it"
MORE = "more than a product with its inputs"
CHANGED = "changed by its class when it runs"


class InputMoments:
    """Second moments of the inputs of matrices, updated while a model runs inside `record`.

    Layers that receive the same tensor, such as q, k and v, share one accumulator. An expert that no token chose has
    the moment of all its siblings' inputs. With `drift`, forwards come in pairs: first the clean model inside
    `remember`, then the drifted one inside `record`; matrices that tokens choose have no such pairs.

    Parameters
    ----------
    layers : name to matrix
    drift : also accumulate E[(x - x̂) x̂ᵀ] of remembered and recorded inputs
    shared : whether layers that receive one tensor in `remember` receive one in `record` too
    """

    def __init__(self, layers: Mapping[str, Matrix], *, drift: bool = False, shared: bool = True) -> None:
        self.layers, self.drift, self.shared = layers, drift, shared
        self.leader: dict[str, str] = {}
        self._moments: dict[str, SecondMoment] = {}
        self._cross: dict[str, SecondMoment] = {}
        self._clean: dict[str, Tensor] = {}
        self._seen: list[tuple[weakref.ref, str]] = []

    def moment(self, name: str) -> SecondMoment:
        """The accumulator of a layer, or those of its siblings together: what was measured is its `matrix`.

        Raises
        ------
        InvalidInputError : if no input reached it, nor a sibling of its
        """
        if name in self.leader:
            return self._moments[self.leader[name]]
        known = [self._moments[self.leader[other]] for other in self.layers[name].siblings if other in self.leader]
        if not known:
            msg = f"no calibration input reached `{name}`; leave it out of `modules`"
            raise InvalidInputError(msg)
        total = SecondMoment(len(known[0].matrix))
        for one in known:
            total.merge(one)
        return total

    def sigma(self, name: str) -> Float[np.ndarray, "columns columns"]:
        """E[x xᵀ] of the inputs of a layer, shrunk as far as their number asks for (theory 11.3)."""
        return self.moment(name).shrunk().matrix

    def tokens(self, name: str) -> int:
        """How many inputs of a layer were seen."""
        return round(self.moment(name).count)

    def borrowed(self, name: str) -> bool:
        """Whether the moment of a layer is that of its siblings."""
        return name not in self.leader

    def cross(self, name: str) -> Float[np.ndarray, "columns columns"] | None:
        """E[x x̂ᵀ] of remembered and recorded inputs of a layer: `sigma`, and the drift shrunk by itself.

        None without such pairs.
        """
        found = self._cross.get(self.leader.get(name, name))
        return None if found is None else self.sigma(name) + found.shrunk().matrix

    @contextlib.contextmanager
    def record(self) -> Iterator[None]:
        """Accumulate what reaches the layers in one forward."""
        with self._watching(self._update):
            yield
        self._clean.clear()

    @contextlib.contextmanager
    def remember(self) -> Iterator[None]:
        """Keep what reaches the layers in one forward, for the cross moments of the next `record`."""
        with self._watching(self._clean.__setitem__):
            yield

    @contextlib.contextmanager
    def _watching(self, act: Any) -> Iterator[None]:
        self._seen = []
        with watching(self.layers, lambda name, x, y: self._arrived(name, x, act)):
            yield

    def _arrived(self, name: str, x: Tensor, act: Any) -> None:
        if name not in self.leader:
            # identity: the modules read one tensor
            same = (first for seen, first in self._seen if self.shared and seen() is x)
            self.leader[name] = next(same, name)
        if self.leader[name] == name:
            self._seen.append((weakref.ref(x), name))
            act(name, x)

    def _update(self, name: str, x: Tensor) -> None:
        width = x.shape[-1]
        self._moments.setdefault(name, SecondMoment(width)).update(x)
        if self.drift and not self.layers[name].routed:
            x = x.double()
            self._cross.setdefault(name, SecondMoment(width, width)).update(self._clean[name].double() - x, x)


def forward_batches(model: Any, batches: Iterable[Int[Tensor, "_ window"]], moments: InputMoments) -> None:
    """Run the whole model over all batches while `moments` records."""
    for batch in batches:
        with torch.no_grad(), moments.record():
            run(model, batch)


def reached(model: Any, layers: Mapping[str, Matrix], batch: Int[Tensor, "_ window"]) -> Choice:
    """The layers that one forward uses as products and leaves as they are, with the siblings of those, and why the
    others stay dense."""
    used: set[str] = set()
    before = {key: one.detach().clone() for key, one in {x.key: x.parameter for x in layers.values()}.items()}
    reasons = dict.fromkeys(layers, UNREACHED)

    def act(name: str, x: Tensor, y: Any) -> None:
        if layers[name].explains(x, y):
            used.update(layers[name].siblings)
        else:
            reasons[name] = MORE

    with torch.no_grad(), watching(layers, act):
        run(model, batch)
    after = {layer.key: layer.parameter for layer in layers.values()}  # once for all experts of a stack
    changed = {key for key, parameter in after.items() if not torch.equal(before[key], parameter)}
    reasons |= {name: CHANGED for name, layer in layers.items() if layer.key in changed}
    used -= {name for name, why in reasons.items() if why in (MORE, CHANGED)}
    for name in used:  # siblings lie alike
        seen = [layers[other].transposed for other in layers[name].siblings]
        layers[name].transposed = any(seen)
    found = {name: matrix for name, matrix in layers.items() if name in used}
    return Choice(found, {name: why for name, why in reasons.items() if name not in used})
