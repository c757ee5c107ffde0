"""What becomes of the inputs and the gradients of a layer: plain moments, or those that match a Kronecker product."""

import contextlib
import weakref

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lattq.llm.measure.attention import Attention
from lattq.llm.measure.ledger import Ledger
from lattq.llm.measure.score import digest_of_window
from lattq.llm.measure.statistics import Statistics

__all__ = ["Guided", "Matched", "Plain", "Probes"]

PROBES = 16  # for each window; their noise is sqrt(2 / 16) of a window at most, and 2 % of 300 windows


class Plain:
    """Sums of x xᵀ and of g gᵀ; layers that receive one tensor share the former.

    Parameters
    ----------
    ledger : where the sums are
    attention : weighs the inputs of queries, keys and values; None for plain ones
    """

    def __init__(self, ledger: Ledger, attention: Attention | None = None) -> None:
        self.ledger, self.attention = ledger, attention
        self._seen: list[tuple[weakref.ref, str, np.ndarray, np.ndarray]] = []

    def watching(self) -> contextlib.AbstractContextManager:
        """Everything that is measured happens inside."""
        if self.attention is None:
            return contextlib.nullcontext()
        return self.attention.watching(lambda name, rows, weights: self.ledger.inputs(name).add(rows, weights))

    def begin(self, piece: int, window: Tensor) -> None:
        """Before a piece of the model runs on a window: the tensors of the last one are gone."""
        self._seen, self.probes = [], Probes(window)

    def __call__(self, name: str, x: Tensor, y: Tensor) -> None:
        """Add the inputs of a layer, and wait for the gradients at its outputs."""
        norms, probed = self._inputs(name, x)

        def add(gradient: Tensor) -> None:
            rows = vectors(gradient)
            sums = self.ledger.outputs(name)
            sums.add(rows)
            lengths = squares(rows)
            both = float(norms @ lengths), float(len(rows)), float(lengths.sum()), float(norms.sum())
            sums.add_energy(*both, squared_norm(rows, probed))

        if y.requires_grad:
            y.register_hook(add)

    def _inputs(self, name: str, x: Tensor) -> tuple[Float[np.ndarray, " tokens"], Float[np.ndarray, "tokens probes"]]:
        """Squared lengths of the inputs, and what probes see of them; their moment is added if no layer did that."""
        found = next((one for one in self._seen if one[0]() is x and self._alike(one[1], name)), None)
        leader = self.ledger.leader.setdefault(name, name if found is None else found[1])
        if leader != name and found is not None:
            return found[2:]
        rows = vectors(x)
        told = squares(rows), self.probes.of(rows)
        if leader == name:
            self._seen.append((weakref.ref(x), name, *told))
            if self.attention is None or not self.attention.hold(name, rows):
                self.ledger.inputs(name).add(rows)
        return told

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

    def begin(self, piece: int, window: Tensor) -> None:
        """Before a piece of the model runs on a window."""
        self.plain.begin(piece, window)

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

    Layers of which the base knows no gradient have nothing to weigh by: they are as in `Plain`. Steps of this kind lead
    to the Kronecker product G ⊗ Σ of largest likelihood if x gᵀ were Gaussian of that covariance (Dutilleul, "The MLE
    algorithm for the matrix normal distribution", 1999).

    Parameters
    ----------
    ledger : where the sums are
    base : statistics that Σ and G are taken from
    draws : of labels for each window
    damping : what their diagonals are raised by, in units of their means: of Σ, and of G
    """

    def __init__(
        self, ledger: Ledger, base: Statistics, draws: int = 1, damping: tuple[float, float] = (0.01, 0.3)
    ) -> None:
        self.ledger, self.base, self.draws, self.damping = ledger, base, draws, damping
        self.plain, self._weighed = Plain(ledger), base.layers.keys() - set(base.silent)
        self._piece, self._inverses = -1, dict[str, tuple[np.ndarray, np.ndarray]]()

    def watching(self) -> contextlib.AbstractContextManager:
        """Nothing but the layers is watched."""
        return contextlib.nullcontext()

    def begin(self, piece: int, window: Tensor) -> None:
        """Before a piece of the model runs on a window: the inverses of others are not needed now."""
        self.plain.begin(piece, window)
        if piece != self._piece:
            self._piece, self._inverses = piece, {}

    def __call__(self, name: str, x: Tensor, y: Tensor) -> None:
        """Keep the inputs of a layer until the gradients at its outputs are known."""
        if name not in self._weighed:
            self.plain(name, x, y)
            return
        self.ledger.leader[name] = name
        kept, probes = x.detach().clone(), self.plain.probes

        def add(gradient: Tensor) -> None:
            inputs, outputs = vectors(kept), vectors(gradient)
            sigma, information = self._of(name)
            v = np.einsum("ti,ti->t", inputs @ sigma, inputs) / inputs.shape[1]
            blocks = outputs.reshape(len(outputs), *information.shape[:2]).transpose(1, 0, 2)
            w = np.einsum("gti,gti->t", blocks @ information, blocks) / outputs.shape[1]
            sums = self.ledger.outputs(name)
            self.ledger.inputs(name).add(inputs, w, 1 / self.draws)
            sums.add(outputs, v)
            norms, lengths = squares(inputs), squares(outputs)
            both = float(norms @ lengths), float(v @ w), float(v @ lengths), float(norms.sum())
            sums.add_energy(*both, squared_norm(outputs, probes.of(inputs)))

        if y.requires_grad:
            y.register_hook(add)

    def _of(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Inverses of the damped Σ and blocks of G."""
        if name not in self._inverses:
            pair = zip((self.base.sigma(name)[None], self.base.information(name)), self.damping, strict=True)
            (sigma,), information = (_inverses(blocks, share) for blocks, share in pair)
            self._inverses[name] = sigma, information
        return self._inverses[name]


def _inverses(blocks: Float[np.ndarray, "groups n n"], damping: float) -> Float[np.ndarray, "groups n n"]:
    """Of damped blocks; of ones where all of them are zero."""
    n, mean = blocks.shape[1], np.trace(blocks, axis1=1, axis2=2).mean() / blocks.shape[1]
    return np.linalg.inv(blocks + (damping * mean if mean > 0 else 1.0) * np.eye(n))


class Probes:
    """Products of the inputs of a window with random signs, which depend on the window alone.

    The squared norm of any M is the mean of that of its products with them (Hutchinson, "A stochastic estimator of the
    trace of the influence matrix for Laplacian smoothing splines", 1990).

    Parameters
    ----------
    window : of tokens
    """

    def __init__(self, window: Tensor) -> None:
        self._seed = int(digest_of_window(window, "probes"), 16)
        self._signs: dict[int, np.ndarray] = {}

    def of(self, x: Float[np.ndarray, "tokens columns"]) -> Float[np.ndarray, "tokens probes"]:
        """As many products for each token as there are probes."""
        columns = x.shape[1]
        if columns not in self._signs:
            drawn = np.random.default_rng([self._seed, columns]).integers(0, 2, (columns, PROBES))
            self._signs[columns] = (2.0 * drawn - 1) / PROBES**0.5
        return x @ self._signs[columns]


def squared_norm(g: Float[np.ndarray, "tokens rows"], probed: Float[np.ndarray, "tokens probes"]) -> float:
    """About |Σ g xᵀ|², from what probes see of x."""
    return float(np.square(g.T @ probed).sum())


def vectors(x: Tensor) -> Float[np.ndarray, "tokens _"]:
    """Vectors along the last axis, in float64."""
    return x.detach().reshape(-1, x.shape[-1]).to(torch.float64).numpy()


def squares(x: Float[np.ndarray, "tokens n"]) -> Float[np.ndarray, " tokens"]:
    """Squared lengths."""
    return np.einsum("ti,ti->t", x, x)
