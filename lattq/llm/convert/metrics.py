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

    Examples
    --------
    >>> Metrics().of("layer", np.eye(2)).outputs is None
    True
    """

    statistics: Statistics | None = None
    units: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def of(self, name: str, sigma: Float[np.ndarray, "columns columns"]) -> Metric:
        """The metric of a layer whose inputs have this second moment."""
        if self.statistics is None:
            return Metric(sigma)
        return Metric(sigma, outputs_of(self.statistics, name) / self.units[name]).damped()


def outputs_of(statistics: Statistics, name: str) -> Float[np.ndarray, "groups height height"]:
    """Blocks of G of a layer: one more token of mean sensitivity, then shrunk as far as their number asks for."""
    known = statistics.moments(name)
    blocks = statistics.information(name)
    if not known.output_count > 1:
        return blocks
    powers = known.output_powers.reshape(blocks.shape[:2])
    return np.stack([shrink(g, known.output_count, fourth).matrix for g, fourth in zip(blocks, powers, strict=True)])
