"""How the bits of a model go to its layers: metrics, and factors of the step, from what a calibration measures."""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from lattq._rate_curve import RateCurve
from lattq.llm.convert.calibration import Calibration, Moments, sensitivities_of
from lattq.llm.convert.metrics import Metrics
from lattq.llm.measure.statistics import Statistics
from lattq.llm.source.matrices import Matrix
from lattq.progress import Stage
from lattq.rate import RANGES, searched
from lattq.scheme import Scheme

__all__ = ["Plans", "is_fixed_rate", "scheme_of"]

USUAL_RATE = 3.0  # bits, at which layers are made alike where no rate is given; at high rates any would do


class Plans:
    """What a conversion knows before it quantizes anything; each thing is measured when first asked for.

    Parameters
    ----------
    recipe : from a step or a number of levels or bits to a scheme
    layers, weights : to quantize, by name
    work : told of what is measured
    at_once : whether layers see inputs of the unquantized model; else those are only good for a plan
    """

    def __init__(
        self,
        recipe: Callable[..., Scheme],
        calibration: Calibration,
        model: Any,
        layers: Mapping[str, Matrix],
        weights: Mapping[str, np.ndarray],
        work: Stage,
        *,
        at_once: bool,
    ) -> None:
        self.recipe, self.scheme = recipe, scheme_of(recipe)
        self.calibration, self.measured = calibration, (model, layers, work)
        self.layers, self.weights, self.at_once = layers, weights, at_once
        self._curves: dict[str, dict[str, RateCurve]] = {}

    @functools.cached_property
    def statistics(self) -> Statistics | None:
        """Of the unquantized model, if outputs of layers count for the recipe, or groups of them."""
        if not self.scheme.outputs and not self.scheme.guides:
            return None
        # tokens count by the other side where no other inputs follow, whose moments are plain
        return self.calibration.statistics(*self.measured, guides=self.scheme.guides, weighed=self.at_once)

    @functools.cached_property
    def moments(self) -> Moments:
        """Second moments of inputs in the unquantized model: exact for layers that see them, else as a plan needs."""
        if self.statistics is not None:
            return self.statistics
        return (self.calibration if self.at_once else self.calibration.part()).moments(*self.measured)

    @functools.cached_property
    def sensitivities(self) -> dict[str, float]:
        """Mean squared scores at the outputs of layers."""
        if self.statistics is not None:
            return sensitivities_of(self.statistics, self.layers)
        return self.calibration.sensitivities(*self.measured)

    def metrics(self, allocation: str) -> Metrics:
        """Metrics of the layers: where errors of outputs count, in nats, times a common factor for all layers.

        Then one step for all is the same slope everywhere; unless the allocation is "loss" every layer has its own
        factor, so that outputs count alike on the mean.
        """
        if self.statistics is None:
            return Metrics()
        units = self.sensitivities
        if allocation == "loss":
            units = dict.fromkeys(units, math.exp(self._mean({name: math.log(g) for name, g in units.items()})))
        return Metrics(self.statistics, units, self.scheme.guides > 0)

    def scales(self, allocation: str, rate: float | int | None) -> dict[str, float]:
        """Factor of the step for each layer, with geometric mean 1 over the weights; 1 where metrics have units."""
        if is_fixed_rate(self.recipe) or allocation == "distortion":
            return dict.fromkeys(self.layers, 1.0)
        if allocation == "rate":
            curves = self.curves(allocation)
            logs = {name: math.log(curve.step(rate or USUAL_RATE)) for name, curve in curves.items()}
        elif self.statistics is not None:
            return dict.fromkeys(self.layers, 1.0)
        else:
            logs = {name: -0.5 * math.log(max(g, 1e-300)) for name, g in self.sensitivities.items()}
        mean = self._mean(logs)
        return {name: math.exp(log - mean) for name, log in logs.items()}

    def curves(self, allocation: str) -> dict[str, RateCurve]:
        """What rates the layers are expected to have at a step, found once for each allocation."""
        if allocation not in self._curves:
            metric, sigma, sees = self.metrics(allocation).of, self.moments.sigma, self.scheme.sees
            with threadpool_limits(1):
                self._curves[allocation] = {
                    name: RateCurve.of(w, sees(metric(name, sigma(name))), self.scheme)
                    for name, w in self.weights.items()
                }
        return self._curves[allocation]

    def _mean(self, values: Mapping[str, float]) -> float:
        """Over the weights."""
        sizes = {name: w.size for name, w in self.weights.items()}
        return sum(values[name] * size for name, size in sizes.items()) / sum(sizes.values())


def scheme_of(recipe: Callable[..., Scheme], value: float | int | None = None) -> Scheme:
    """What a recipe gives at a setting, or at some: the words of a report."""
    name, scheme = searched(recipe)
    if name in RANGES:
        return scheme(RANGES[name][0] if value is None else value)
    return scheme(float(value or 1.0))


def is_fixed_rate(recipe: Callable[..., Scheme]) -> bool:
    """Whether a recipe takes a number of levels or bits, not a step."""
    return searched(recipe)[0] in RANGES
