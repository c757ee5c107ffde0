"""Designs of maps for whole models beyond scales: closed forms, rotations, orders, and several in turn."""

import contextlib
import dataclasses
import functools
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from lattq._options import as_names, as_seed, normalize
from lattq.affine.checks import as_damping, as_fraction, at_least
from lattq.affine.closed_forms import balanced, wush
from lattq.affine.scales import range_order, smoothquant_scales
from lattq.errors import InvalidInputError
from lattq.linalg.hadamard import has_hadamard_matrix, randomized_hadamard
from lattq.llm.source.design import Chain, FoldedMap, Kept, MapDesign
from lattq.llm.source.place import Place
from lattq.llm.tune.folding import Draft, fold
from lattq.llm.tune.maps import centred
from lattq.llm.tune.scale_designs import ALL_PLACES, AWQ, BEHIND_NORMS, SCALED, Shift, SmoothQuant
from lattq.llm.tune.statistics import Reading, chosen, readings
from lattq.llm.tune.tying import tie, untied
from lattq.progress import Stage

__all__ = ["AWQ", "Balanced", "Chain", "Reorder", "Rotate", "Shift", "SmoothQuant", "chain"]

ROTATED = ("rotation", "centred_rotation", "heads")


def chain(*designs: MapDesign) -> Chain:
    """Designs one after the other, each for the model that the ones before it leave.

    >>> chain(Rotate(), Balanced()).designs[1].share
    0.5
    """
    return Chain(designs)


@dataclasses.dataclass(frozen=True)
class Balanced:
    """At each place the map of its kind after which weights and inputs have the same second moments.

    At values a matrix for each head, `lattq.affine.wush` with the head as its block (`balanced` where no Hadamard
    matrix of its size is known); elsewhere the best diagonal, (E x²)^½ / ‖w‖ to the power of one half. The diagonal
    attains the least product of the powers of both sides that any diagonal can, groups of columns or not.

    Attributes
    ----------
    share : p of S^-p, 0 to 1: what the inputs keep of the common second moment S is S^2p. One half for plain rounding,
        about 0.75 before feedback (theory 13.5)
    damping : of the matrices, see `lattq.affine.balanced`
    seed : of the signs of the Hadamard matrices
    places : patterns of their names below the base model

    Raises
    ------
    InvalidInputError : for options out of range; when it is called, for patterns that match nothing

    References
    ----------
    Chen et al. 2026, "WUSH", arXiv 2512.00956; theory 13.3.

    Examples
    --------
    >>> import torch
    >>> from lattq import llm
    >>> from lattq.llm.source import load_model
    >>> model = load_model(llm.embedded_model(), dtype=torch.float32)
    >>> rows = Balanced()(model, torch.arange(2, 66)[None], work=Stage("maps"), keep={})
    >>> [(row.place.rpartition(".")[2], row.structure) for row in rows[:4]]
    [('attention_input', 'diagonal'), ('values', 'heads'), ('mlp_input', 'diagonal'), ('mlp_hidden', 'diagonal')]
    """

    share: float = 0.5
    damping: float = 0.01
    seed: int = 0
    places: tuple[str, ...] = ALL_PLACES

    def __post_init__(self) -> None:
        normalize(self, as_fraction, "share")
        normalize(self, as_damping, "damping")
        object.__setattr__(self, "seed", as_seed(self.seed))
        normalize(self, as_names, "places")

    def __call__(
        self, model: Any, windows: Int[Tensor, "windows window"], *, work: Stage, keep: Kept
    ) -> tuple[FoldedMap, ...]:
        """Fold the maps into a model."""
        rows: list[FoldedMap] = []
        for group in readings(model, chosen(model, self.places, ("heads", *SCALED)), windows, work):
            for reading in group:
                place = reading.place
                structure = next(one for one in ("heads", *SCALED) if one in place.structures)
                values = self._heads(reading) if structure == "heads" else self._scales(reading)
                condition = float(np.linalg.cond(values if structure == "heads" else np.diag(values)).max())
                fold(model, place, structure, values)
                rows.append(FoldedMap(place.name, structure, condition, type(self).__name__))
        return tuple(rows)

    def _scales(self, reading: Reading) -> Float[np.ndarray, " channels"]:
        """T: what SmoothQuant does with largest magnitudes, done with powers."""
        sizes = np.sqrt(reading.tied(np.diag(reading.sigma), np.sum))
        norms = np.linalg.norm(reading.stacked(), axis=0, keepdims=True)
        return 1 / smoothquant_scales(sizes, norms, strength=1 - self.share)

    def _heads(self, reading: Reading) -> Float[np.ndarray, "heads size size"]:
        """T = A⁻ᵀ of each head: its copies are layers that share their inputs."""
        weights, shape = reading.heads(reading.weight), (reading.place.heads, reading.copies, reading.place.size)
        sigma, found = reading.sigma.reshape(*shape, *shape), []
        for head in range(reading.place.heads):
            parts = [weights[:, head, copy] for copy in range(reading.copies)]
            moment = sum(sigma[head, copy, :, head, copy] for copy in range(reading.copies))
            if has_hadamard_matrix(reading.place.size):
                rule = functools.partial(wush, block=None, seed=self.seed)
            else:
                rule = balanced
            matrix = rule(parts, moment, damping=self.damping, share=self.share)
            found.append(np.linalg.inv(matrix).T)
        return np.stack(found)


@dataclasses.dataclass(frozen=True)
class Rotate:
    """QuaRot: a randomized Hadamard matrix of the residual stream, and one of each head of the values.

    Gains of norms move into the layers behind them, and the output layer gets weights of its own where it shares the
    embedding's: rows of the result, and `Report.added_bytes` of a conversion, say how many.

    Attributes
    ----------
    seed : of the signs
    places : patterns of their names below the base model

    Raises
    ------
    InvalidInputError
        for options out of range; when it is called on a class with norms that no rotation passes (Gemma 2), for sizes
        without a Hadamard matrix, and as `fold_gains`. Nothing is changed then

    References
    ----------
    Ashkboos et al. 2024, "QuaRot", arXiv 2404.00456. What it rotates at run time (keys, inputs of the last layer of
    each MLP) stays as it is: this is what can be folded.

    Examples
    --------
    >>> import torch
    >>> from lattq import llm
    >>> from lattq.llm.source import load_model
    >>> model = load_model(llm.embedded_model(), dtype=torch.float32)
    >>> rows = Rotate()(model, torch.arange(2, 66)[None], work=Stage("maps"), keep={})
    >>> rows[0].place, rows[0].added
    ('model.residual', 524288)
    """

    seed: int = 0
    places: tuple[str, ...] = ("residual", "*.values")

    def __post_init__(self) -> None:
        object.__setattr__(self, "seed", as_seed(self.seed))
        normalize(self, as_names, "places")

    def __call__(
        self, model: Any, windows: Int[Tensor, "windows window"], *, work: Stage, keep: Kept
    ) -> tuple[FoldedMap, ...]:
        """Fold the rotations into a model."""
        found = [(place, _rotation_of(model, place)) for place in chosen(model, self.places).values()]
        turns = {place.size: randomized_hadamard(np.eye(place.size), self.seed).T for place, _ in found}
        found.sort(key=lambda one: one[1] == "heads")
        stream = [place.name for place, structure in found if structure != "heads"]
        draft = Draft(model)
        with untied(model) if stream else contextlib.nullcontext(0) as added:
            if stream:
                draft.fold_gains()
            for place, structure in found:
                draft.fold(place, structure, _turned(place, structure, turns[place.size]))
        draft.write()
        return tuple(
            FoldedMap(place.name, structure, 1.0, type(self).__name__, added=added if place.name in stream else 0)
            for place, structure in found
        )


@dataclasses.dataclass(frozen=True)
class Reorder:
    """RPTQ: channels of like range become neighbours, so that a group or a token's range serves them better.

    Attributes
    ----------
    clusters : of (max, min), by k-means; 32 as published
    restarts, seed : of k-means
    places : patterns of their names below the base model; "residual" has one order for the whole model, by the ranges
        behind all norms

    Raises
    ------
    InvalidInputError : for options out of range; when it is called, for patterns that match nothing

    References
    ----------
    Yuan et al. 2023, "RPTQ", arXiv 2304.01089.

    Examples
    --------
    >>> import torch
    >>> from lattq import llm
    >>> from lattq.llm.source import load_model
    >>> model = load_model(llm.embedded_model(), dtype=torch.float32)
    >>> rows = Reorder()(model, torch.arange(2, 66)[None], work=Stage("maps"), keep={})
    >>> len(rows), rows[0].place, rows[0].condition
    (3, 'model.layers.0.mlp_hidden', 1.0)
    """

    clusters: int = 32
    restarts: int = 10
    seed: int = 0
    places: tuple[str, ...] = ("*.mlp_hidden",)

    def __post_init__(self) -> None:
        for name in ("clusters", "restarts"):
            object.__setattr__(self, name, at_least(name, getattr(self, name), 1))
        object.__setattr__(self, "seed", as_seed(self.seed))
        normalize(self, as_names, "places")

    def __call__(
        self, model: Any, windows: Int[Tensor, "windows window"], *, work: Stage, keep: Kept
    ) -> tuple[FoldedMap, ...]:
        """Fold the orders into a model."""
        found = chosen(model, self.places, ("permutation",))
        inside = {name: place for name, place in found.items() if not place.norms}
        rows = []
        for group in readings(model, inside, windows, work):
            rows += [self._fold(model, one.place, one.low, one.high) for one in group]
        for place in (place for place in found.values() if place.norms):
            norms = chosen(model, BEHIND_NORMS)
            behind = [one for group in readings(model, norms, windows, work) for one in group]
            low, high = np.min([one.low for one in behind], axis=0), np.max([one.high for one in behind], axis=0)
            with untied(model) as added:
                row = self._fold(model, place, low, high)
            rows.append(row)
            if added:
                tie(model)
        return tuple(rows)

    def _fold(self, model: Any, place: Place, low: np.ndarray, high: np.ndarray) -> FoldedMap:
        order = range_order(low, high, clusters=self.clusters, restarts=self.restarts, seed=self.seed)
        fold(model, place, "permutation", order)
        return FoldedMap(place.name, "permutation", 1.0, type(self).__name__)


def _turned(place: Place, structure: str, turn: Float[np.ndarray, "size size"]) -> np.ndarray:
    """The numbers of a rotation for the map of a place."""
    if structure == "heads":
        return np.stack([turn] * place.heads)
    return centred(turn) if structure == "centred_rotation" else turn


def _rotation_of(model: Any, place: Place) -> str:
    """The rotation that a place allows; raises `InvalidInputError` if it allows none."""
    structure = next((one for one in ROTATED if one in place.structures), None)
    if structure is None:
        msg = (
            f"no rotation is exact at {place.name} of {type(model).__name__}, which takes "
            f"{', '.join(place.structures)}; leave it out of `places`"
        )
        raise InvalidInputError(msg)
    return structure
