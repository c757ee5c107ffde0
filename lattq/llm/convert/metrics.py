"""The metric of each layer: second moments of its inputs as they are now, and of the scores at its outputs."""

import dataclasses
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from lattq._metric import Metric
from lattq.linalg.shrinkage import shrink
from lattq.llm.measure.statistics import Statistics

__all__ = ["Metrics", "outputs_of"]


@dataclasses.dataclass(frozen=True)
class Metrics:
    """Metrics of layers whose outputs count by the Fisher information, or all alike.

    Parameters
    ----------
    statistics : of the unquantized model; None where outputs count alike
    units : what G of each layer is divided by
    guides : whether groups of rows have second moments of their own, in place of G

    Examples
    --------
    >>> Metrics().of("layer", np.eye(2)).outputs is None
    True
    """

    statistics: Statistics | None = None
    units: Mapping[str, float] = dataclasses.field(default_factory=dict)
    guides: bool = False

    def of(self, name: str, sigma: Float[np.ndarray, "columns columns"]) -> Metric:
        """The metric of a layer whose inputs have this second moment."""
        if self.statistics is None:
            return Metric(sigma)
        if self.guides:
            return _guided(self.statistics, name, sigma, self.units[name])
        return Metric(sigma, outputs_of(self.statistics, name) / self.units[name]).damped()


def outputs_of(statistics: Statistics, name: str) -> Float[np.ndarray, "groups height height"]:
    """Blocks of G of a layer: one more token of mean sensitivity, then shrunk as far as their number asks for."""
    known = statistics.moments(name)
    blocks = statistics.information(name)
    if not known.output_count > 1:
        return blocks
    powers = known.output_powers.reshape(blocks.shape[:2])
    return np.stack([shrink(g, known.output_count, fourth).matrix for g, fourth in zip(blocks, powers, strict=True)])


def _guided(statistics: Statistics, name: str, sigma: Float[np.ndarray, "columns columns"], unit: float) -> Metric:
    """Σ of each group of outputs at the scale of that of all, and what a group counts as the diagonal of G.

    With one more token of mean sensitivity, as in `Statistics.information`, and damped. Σ of a group is that of the
    unquantized model, whatever the layers before this one have become.
    """
    if statistics.borrowed(name):
        return Metric(sigma)
    tokens, prior = statistics.origin.scored, np.mean([statistics.sensitivity(one) for one in statistics.layers])
    stack = (tokens * statistics.guided(name) + prior * statistics.sigma(name)) / (tokens + 1)
    size = np.trace(stack, axis1=1, axis2=2) / np.trace(sigma)
    outputs = np.repeat(size / unit, statistics.layers[name].shape[0] // len(stack))
    return Metric(sigma, outputs, guides=stack / size[:, None, None]).damped()
