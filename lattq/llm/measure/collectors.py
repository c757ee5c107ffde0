"""What becomes of the inputs and the gradients of a layer: plain moments, or those that match a Kronecker product."""

import contextlib
import weakref

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lattq.llm.measure.attention import Attention
from lattq.llm.measure.ledger import Ledger
from lattq.llm.measure.statistics import Statistics

__all__ = ["Guided", "Matched", "Plain"]


class Plain:
    """Sums of x xᵀ and of g gᵀ; layers that receive one tensor share the former.

    Parameters
    ----------
    ledger : where the sums are
    attention : weighs the inputs of queries, keys and values; None for plain ones
    """

    def __init__(self, ledger: Ledger, attention: Attention | None = None) -> None:
        self.ledger, self.attention = ledger, attention
        self._seen: list[tuple[weakref.ref, str, np.ndarray]] = []

    def watching(self) -> contextlib.AbstractContextManager:
        """Everything that is measured happens inside."""
        if self.attention is None:
            return contextlib.nullcontext()
        return self.attention.watching(lambda name, rows, weights: self.ledger.inputs(name).add(rows, weights))

    def begin(self, piece: int) -> None:
        """Before a piece of the model runs on a window: the tensors of the last one are gone."""
        self._seen = []

    def __call__(self, name: str, x: Tensor, y: Tensor) -> None:
        """Add the inputs of a layer, and wait for the gradients at its outputs."""
        norms = self._inputs(name, x)

        def add(gradient: Tensor) -> None:
            rows = vectors(gradient)
            sums = self.ledger.outputs(name)
            sums.add(rows)
            lengths = squares(rows)
            sums.add_energy(float(norms @ lengths), float(len(rows)), float(lengths.sum()))

        if y.requires_grad:
            y.register_hook(add)

    def _inputs(self, name: str, x: Tensor) -> Float[np.ndarray, " tokens"]:
        """Squared lengths of the inputs, whose moment is added if no layer did that before."""
        found = next((one for one in self._seen if one[0]() is x and self._alike(one[1], name)), None)
        leader = self.ledger.leader.setdefault(name, name if found is None else found[1])
        if leader != name and found is not None:
            return found[2]
        rows = vectors(x)
        norms = squares(rows)
        if leader == name:
            self._seen.append((weakref.ref(x), name, norms))
            if self.attention is None or not self.attention.hold(name, rows):
                self.ledger.inputs(name).add(rows)
        return norms

    def _alike(self, one: str, other: str) -> bool:
        """Whether layers that read one tensor weigh its vectors alike."""
        return self.attention is None or self.attention.module_of(one) == self.attention.module_of(other)


class Guided:
    """`Plain`, and sums of w x xᵀ for groups of outputs, w the mean squared gradient at the outputs of a group.

    They say what an error of the rows of a group costs, as far as errors at different outputs add up without regard to
    their signs (Kim et al., "GuidedQuant: Large language model quantization via exploiting end loss guidance", 2025).

    Parameters
    ----------
    ledger : where the sums are
    """

    def __init__(self, ledger: Ledger) -> None:
        self.ledger, self.plain = ledger, Plain(ledger)

    def watching(self) -> contextlib.AbstractContextManager:
        """Nothing but the layers is watched."""
        return contextlib.nullcontext()

    def begin(self, piece: int) -> None:
        """Before a piece of the model runs on a window."""
        self.plain.begin(piece)

    def __call__(self, name: str, x: Tensor, y: Tensor) -> None:
        """Keep the inputs of a layer until the gradients at its outputs are known."""
        self.plain(name, x, y)
        kept = x.detach().clone()

        def add(gradient: Tensor) -> None:
            inputs, outputs, sums = vectors(kept), vectors(gradient), self.ledger.guided(name)
            weights = np.square(outputs).reshape(len(outputs), len(sums), -1).mean(2)
            for one, w in zip(sums, weights.T, strict=True):
                one.add(inputs, w)

        if y.requires_grad:
            y.register_hook(add)


class Matched:
    """Sums of (gᵀ G⁻¹ g / rows) x xᵀ and of (xᵀ Σ⁻¹ x / columns) g gᵀ for fixed G and Σ, of a round before.

    Steps of these kind lead to the Kronecker product G ⊗ Σ of largest likelihood if x gᵀ were Gaussian of that
    covariance (Dutilleul, "The MLE algorithm for the matrix normal distribution", 1999).

    Parameters
    ----------
    ledger : where the sums are
    base : statistics that Σ and G are taken from
    damping : what their diagonals are raised by, in units of their means: of Σ, and of G
    """

    def __init__(self, ledger: Ledger, base: Statistics, damping: tuple[float, float] = (0.01, 0.3)) -> None:
        self.ledger, self.base, self.damping = ledger, base, damping
        self._piece, self._inverses = -1, dict[str, tuple[np.ndarray, np.ndarray]]()

    def watching(self) -> contextlib.AbstractContextManager:
        """Nothing but the layers is watched."""
        return contextlib.nullcontext()

    def begin(self, piece: int) -> None:
        """Before a piece of the model runs on a window: the inverses of others are not needed now."""
        if piece != self._piece:
            self._piece, self._inverses = piece, {}

    def __call__(self, name: str, x: Tensor, y: Tensor) -> None:
        """Keep the inputs of a layer until the gradients at its outputs are known."""
        self.ledger.leader[name] = name
        kept = x.detach().clone()

        def add(gradient: Tensor) -> None:
            inputs, outputs = vectors(kept), vectors(gradient)
            sigma, information = self._of(name)
            v = np.einsum("ti,ti->t", inputs @ sigma, inputs) / inputs.shape[1]
            blocks = outputs.reshape(len(outputs), *information.shape[:2]).transpose(1, 0, 2)
            w = np.einsum("gti,gti->t", blocks @ information, blocks) / outputs.shape[1]
            sums = self.ledger.outputs(name)
            self.ledger.inputs(name).add(inputs, w)
            sums.add(outputs, v)
            lengths = squares(outputs)
            sums.add_energy(float(squares(inputs) @ lengths), float(v @ w), float(v @ lengths))

        if y.requires_grad:
            y.register_hook(add)

    def _of(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Inverses of the damped Σ and blocks of G."""
        if name not in self._inverses:
            sigma, information = self.base.sigma(name), self.base.information(name)
            columns, height = len(sigma), information.shape[1]
            on_inputs = self.damping[0] * np.trace(sigma) / columns
            on_outputs = self.damping[1] * np.trace(information, axis1=1, axis2=2).mean() / height
            self._inverses[name] = (
                np.linalg.inv(sigma + on_inputs * np.eye(columns)),
                np.linalg.inv(information + on_outputs * np.eye(height)),
            )
        return self._inverses[name]


def vectors(x: Tensor) -> Float[np.ndarray, "tokens _"]:
    """Vectors along the last axis, in float64."""
    return x.detach().reshape(-1, x.shape[-1]).to(torch.float64).numpy()


def squares(x: Float[np.ndarray, "tokens n"]) -> Float[np.ndarray, " tokens"]:
    """Squared lengths."""
    return np.einsum("ti,ti->t", x, x)
