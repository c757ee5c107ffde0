"""Designs of diagonal maps for whole models: SmoothQuant, AWQ, and the shift of Outlier Suppression+."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from lattq._options import as_integer, as_names, check_levels, normalize
from lattq.affine.checks import as_fraction, at_least
from lattq.affine.scales import awq_scales, clipped, smoothquant_scales
from lattq.llm.source.design import FoldedMap, Kept
from lattq.llm.tune.folding import fold, shift
from lattq.llm.tune.statistics import Reading, chosen, readings
from lattq.progress import Stage
from lattq.quantizers.integers import check_group

__all__ = ["AWQ", "Shift", "SmoothQuant", "fold_scales"]

SCALED = ("diagonal", "positive")
BEHIND_NORMS = ("*.attention_input", "*.mlp_input")
ALL_PLACES = (*BEHIND_NORMS, "*.values", "*.mlp_hidden")


@dataclasses.dataclass(frozen=True)
class SmoothQuant:
    """Scales max|x|^strength / max|w|^(1 - strength) of each channel: inputs are divided, weights multiplied by them.

    All layers that read a place count, with the largest of their weights.

    Attributes
    ----------
    strength : 0 to 1; 0.5 as published
    places : patterns of their names below the base model. As published, those behind norms; "*.values" and
        "*.mlp_hidden" take scales too

    Raises
    ------
    InvalidInputError : for options out of range; when it is called, for patterns that match nothing

    References
    ----------
    Xiao et al. 2023, "SmoothQuant", arXiv 2211.10438.

    Examples
    --------
    >>> import torch
    >>> from lattq import llm
    >>> from lattq.llm.source import load_model
    >>> model = load_model(llm.embedded_model(), dtype=torch.float32)
    >>> rows = SmoothQuant()(model, torch.arange(2, 66)[None], work=Stage("maps"), keep={})
    >>> len(rows), rows[0].place, rows[0].structure
    (6, 'model.layers.0.attention_input', 'diagonal')
    """

    strength: float = 0.5
    places: tuple[str, ...] = BEHIND_NORMS

    def __post_init__(self) -> None:
        normalize(self, as_fraction, "strength")
        normalize(self, as_names, "places")

    def __call__(
        self, model: Any, windows: Int[Tensor, "windows window"], *, work: Stage, keep: Kept
    ) -> tuple[FoldedMap, ...]:
        """Fold the scales into a model."""

        def scales(reading: Reading) -> np.ndarray:
            return smoothquant_scales(reading.peaks, reading.stacked(), strength=self.strength)

        return fold_scales(self, self.places, scales, model, windows, work)


@dataclasses.dataclass(frozen=True)
class AWQ:
    """Scales (mean |x|)^r, with the r on a grid from 0 below 1 that costs least when the weights are rounded.

    Rounding is to `levels` integers between the least and the largest weight of each group, and what counts is the
    error of the outputs of all layers that read a place.

    Attributes
    ----------
    levels : of the integers, 2 to 256
    group : columns that share a range; None for all
    points : of the grid; 20 as published
    places : patterns of their names below the base model

    Raises
    ------
    InvalidInputError : for options out of range; when it is called, for patterns that match nothing

    References
    ----------
    Lin et al. 2024, "AWQ", arXiv 2306.00978.

    Examples
    --------
    >>> import torch
    >>> from lattq import llm
    >>> from lattq.llm.source import load_model
    >>> model = load_model(llm.embedded_model(), dtype=torch.float32)
    >>> design = AWQ(levels=8, group=128, points=4, places=("*.values",))
    >>> [row.place for row in design(model, torch.arange(2, 66)[None], work=Stage("maps"), keep={})]
    ['model.layers.0.values', 'model.layers.1.values', 'model.layers.2.values']
    """

    levels: int
    group: int | None = 128
    points: int = 20
    places: tuple[str, ...] = ALL_PLACES

    def __post_init__(self) -> None:
        normalize(self, as_integer, "levels", optional=("group",))
        check_levels(self.levels)
        check_group(self.group)
        object.__setattr__(self, "points", at_least("points", self.points, 1))
        normalize(self, as_names, "places")

    def __call__(
        self, model: Any, windows: Int[Tensor, "windows window"], *, work: Stage, keep: Kept
    ) -> tuple[FoldedMap, ...]:
        """Fold the scales into a model."""

        def scales(reading: Reading) -> np.ndarray:
            sizes = reading.spread(reading.tied(reading.size, np.mean))
            found = awq_scales(reading.weight, reading.sigma, self._rounded, sizes=sizes, points=self.points)
            return reading.tied(found)

        return fold_scales(self, self.places, scales, model, windows, work)

    def _rounded(self, weight: Float[np.ndarray, "rows columns"]) -> Float[np.ndarray, "rows columns"]:
        columns = weight.shape[1]
        groups = np.split(weight, range(self.group or columns, columns, self.group or columns), axis=1)
        whole = np.ones((len(weight), 2))
        return np.hstack([clipped(group, self.levels, whole) for group in groups])


@dataclasses.dataclass(frozen=True)
class Shift:
    """The shift that centres the range of each input, x → x − (max + min) / 2, which biases undo.

    Attributes
    ----------
    places : patterns of their names below the base model

    Raises
    ------
    InvalidInputError
        for places that are no patterns; when it is called on a class without biases there, as those of the Llama
        family, see `shift`

    References
    ----------
    Wei et al. 2023, "Outlier Suppression+", arXiv 2304.09145.

    Examples
    --------
    >>> import torch
    >>> from lattq import llm
    >>> from lattq.llm.source import load_model
    >>> model = load_model(llm.embedded_model())
    >>> Shift()(model, torch.arange(2, 66)[None], work=Stage("maps"), keep={})
    Traceback (most recent call last):
    lattq.errors.InvalidInputError: model.layers.0.input_layernorm has no bias to take a shift ...
    """

    places: tuple[str, ...] = (*BEHIND_NORMS, "*.values")

    def __post_init__(self) -> None:
        normalize(self, as_names, "places")

    def __call__(
        self, model: Any, windows: Int[Tensor, "windows window"], *, work: Stage, keep: Kept
    ) -> tuple[FoldedMap, ...]:
        """Fold the shifts into a model."""
        rows: list[FoldedMap] = []
        for group in readings(model, chosen(model, self.places), windows, work):
            for reading in group:
                low, high = reading.tied(reading.low, np.min), reading.tied(reading.high)
                shift(model, reading.place, low / 2 + high / 2)
                rows.append(FoldedMap(reading.place.name, "shift", 1.0, type(self).__name__))
        return tuple(rows)


def fold_scales(
    design: Any,
    patterns: Sequence[str],
    scales: Callable[[Reading], np.ndarray],
    model: Any,
    windows: Int[Tensor, "windows window"],
    work: Stage,
) -> tuple[FoldedMap, ...]:
    """Divide the channels of places by scales, one for each; `design` is who chose them."""
    rows: list[FoldedMap] = []
    for group in readings(model, chosen(model, patterns, SCALED), windows, work):
        for reading in group:
            structure = next(one for one in SCALED if one in reading.place.structures)
            found = scales(reading)
            fold(model, reading.place, structure, 1 / found)
            name, condition = reading.place.name, float(found.max() / found.min())
            rows.append(FoldedMap(name, structure, condition, type(design).__name__))
    return tuple(rows)
