"""Statistics of a model: second moments of the inputs of its layers and of its scores at their outputs, as a value."""

import dataclasses
import functools
import hashlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from lattq.errors import InvalidInputError
from lattq.linalg.shrinkage import shrink
from lattq.llm.measure.merging import Merged
from lattq.llm.measure.origin import MeasuredLayer, Origin, merged_layers, merged_origin
from lattq.llm.measure.statistics_file import pieces, read_statistics, write_statistics
from lattq.llm.measure.sums import PARTS, Moments

__all__ = ["LayerStatistics", "Statistics"]

ROUNDING = 1e-12  # of squares


class LayerStatistics(NamedTuple):
    """What was measured of one layer, not shrunk yet.

    Attributes
    ----------
    inputs : E[x xᵀ] of what reached it
    outputs : E[g gᵀ] of the scores g at its outputs over all tokens, those that did not reach it too, in nats per
        squared output, in blocks down the diagonal; zero if no gradient arrived
    input_count, output_count : of vectors of equal weight that tell as much; gradients of a window count as far as
        they differ
    input_powers, output_powers : mean fourth powers of the entries, of what reached it
    energy : E |x|² |g|² over what it would be if the lengths of x and g did not depend on each other; nan without g
    coherence : squared norm of the gradient Σ g xᵀ of a window, per token, over that which inputs and outputs give for
        tokens that do not depend on each other, inputs at the scale of `power`; nan without g
    power : E |x|², whatever the weights of the inputs are; nan without g
    """

    inputs: Float[np.ndarray, "columns columns"]
    outputs: Float[np.ndarray, "groups height height"]
    input_count: float
    output_count: float
    input_powers: Float[np.ndarray, " columns"]
    output_powers: Float[np.ndarray, " rows"]
    energy: float
    coherence: float
    power: float

    @property
    def scale(self) -> float:
        """What outputs are multiplied by for whole windows: the coherence, or 1 where it is not known."""
        return 1.0 if math.isnan(self.coherence) else self.coherence


@dataclasses.dataclass(frozen=True, eq=False)
class Statistics:
    """Second moments of the inputs and of the scores of the layers of a model, and what they were measured on.

    Made by `measure_model`. Parts that were measured on other windows merge to the same bytes as if all had been
    measured at once: sums are exact.

    Parameters
    ----------
    layers : by name
    arrays : of sums, by their names in a file
    origin : what they were measured on

    Examples
    --------
    >>> import tempfile
    >>> from lattq.llm import embedded_model, embedded_text
    >>> from lattq.llm.measure import measure_model
    >>> text, name = embedded_text("calibration"), "model.layers.0.self_attn.q_proj"
    >>> found = measure_model(embedded_model(), calibration_text=text, samples=2, window=64, modules=[name])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     found.save(f"{folder}/statistics.safetensors")
    ...     same = Statistics.load(f"{folder}/statistics.safetensors")
    ...     same.tokens(name), same.sigma(name).shape, same.information(name).shape
    (128, (256, 256), (1, 256, 256))
    """

    layers: Mapping[str, MeasuredLayer]
    arrays: Mapping[str, Any]
    origin: Origin

    def save(self, path: str | Path, *, exact: bool = True) -> None:
        """Write one safetensors file, which appears whole or not at all; equal statistics are equal bytes.

        Parameters
        ----------
        exact : float64 sums and what is missing to the exact ones; False for sums in float32, a quarter of the bytes,
            which cannot be merged
        """
        write_statistics(path, self.layers, self.arrays, self.origin, exact=exact)

    @classmethod
    def load(cls, path: str | Path) -> "Statistics":
        """Read what `save` wrote; arrays stay in the file until they are used.

        Raises
        ------
        InvalidInputError : if there is no such file, or it holds something else
        DamagedFileError : if it is not whole, or of another version
        """
        return cls(*read_statistics(path))

    def merge(self, other: "Statistics") -> "Statistics":
        """The statistics of all windows of both: the same bytes in any order and grouping.

        Windows that both have seen count twice, as `Origin.repeated` says.

        Raises
        ------
        InvalidInputError
            if they are of other models or layers, or were measured in other ways, or one was saved in float32
        """
        origin = merged_origin(self.origin, other.origin)
        layers = merged_layers(self.layers, other.layers)
        return Statistics(layers, Merged(self.arrays, other.arrays), origin)

    def digest(self) -> str:
        """Hash of the bytes that `save` writes."""
        found = hashlib.blake2b(digest_size=16)
        for piece in pieces(self.layers, self.arrays, self.origin):
            found.update(piece)
        return found.hexdigest()

    def moments(self, name: str) -> LayerStatistics:
        """What was measured of a layer, or of its siblings together if nothing reached it.

        Raises
        ------
        InvalidInputError : if they do not know the layer
        """
        layer, names = self._layer(name), self._reached(name)
        inputs = Moments.of(self._total("inputs", [str(self.layers[one].leader) for one in names]), 1)
        about = inputs.matrix[0], inputs.count, inputs.powers
        scored = [one for one in names if f"{one}.outputs.outer" in self.arrays]
        if not scored:
            height = layer.shape[0] // layer.groups
            nothing = np.zeros((layer.groups, height, height))
            return LayerStatistics(
                about[0], nothing, about[1], 0.0, about[2], np.zeros(layer.shape[0]), math.nan, math.nan, math.nan
            )
        sums = self._total("outputs", scored)
        outputs, total = Moments.of(sums, layer.groups), sums["energy"] / sums["counts"][0]
        energy, cross, trace, power, whole = (float(one) for one in total)
        share = outputs.vectors / self.origin.scored / (len(layer.siblings) if layer.leader is None else 1)
        scale = share / cross if cross > 0 else 0.0  # theory (16.5): cross is 1 for plain factors
        lengths = float(np.trace(inputs.matrix[0])) * trace
        ratio = energy / lengths if lengths > 0 else math.nan
        coherence = whole * cross / (power * trace) if power * trace > 0 else math.nan
        seen = outputs.matrix * scale, about[1], outputs.count, about[2], outputs.powers
        return LayerStatistics(about[0], *seen, ratio, coherence, power)

    def sigma(self, name: str) -> Float[np.ndarray, "columns columns"]:
        """E[x xᵀ] of the inputs of a layer, shrunk as far as their number asks for (theory 11.3).

        Where tokens are weighed the trace is that of plain inputs, so that steps mean the same.
        """
        found = self.moments(name)
        sigma, trace = shrink(found.inputs, found.input_count, found.input_powers).matrix, np.trace(found.inputs)
        return sigma * (found.power / trace) if found.power > 0 and trace > 0 else sigma

    def information(self, name: str) -> Float[np.ndarray, "groups height height"]:
        """E[g gᵀ] of the scores at the outputs of a layer, at the scale that whole windows give the Fisher information.

        That is times its coherence (theory 16.6), and with one more token, of the mean over layers: so it is positive
        definite, whatever few tokens say. A first token attends to itself alone, for which queries and keys do not
        matter (theory 11.6).
        """
        found, height = self.moments(name), self.layers[name].shape[0] // self.layers[name].groups
        known = found.outputs * found.scale
        tokens = self.origin.scored
        return (tokens * known + self._mean_sensitivity * np.eye(height)) / (tokens + 1)

    @functools.cached_property
    def _mean_sensitivity(self) -> float:
        """Over layers."""
        return float(np.mean([self.sensitivity(one) for one in self.layers]))

    def sensitivity(self, name: str) -> float:
        """Mean of the diagonal of what `information` is without its token, which experts of one parameter share."""
        siblings = self._layer(name).siblings
        keys = [f"{one}.outputs.energy" for one in siblings if f"{one}.outputs.energy" in self.arrays]
        total = 0.0
        for key in keys:
            *_, power, whole = (float(one) for one in self.arrays[key])
            vectors = float(self.arrays[f"{key.removesuffix('energy')}counts"][0])
            total += whole * vectors / power if power > 0 else 0.0
        return total / (self.origin.scored * self.layers[name].shape[0] * len(siblings))

    def guided(self, name: str) -> Float[np.ndarray, "guides columns columns"]:
        """E[w x xᵀ] for each group of the outputs of a layer, w the mean squared score at them, shrunk as `sigma` is.

        At the scale of whole windows, as `information` is.

        Raises
        ------
        InvalidInputError : if they were measured without `guides`, or nothing reached the layer
        """
        layer = self._layer(name)
        if not layer.guides or f"{name}.guided.outer" not in self.arrays:
            msg = f"no groups of outputs were measured for `{name}`; measure with `guides` (`lattq measure --guides 4`)"
            raise InvalidInputError(msg)
        sums, scale = self._total("guided", [name]), self.moments(name).scale
        found = np.zeros((layer.guides, layer.shape[1], layer.shape[1]))
        for group in range(layer.guides):
            mine = {part: one[group] for part, one in sums.items()}
            _, weight, _ = mine["counts"]
            if weight > 0:
                moments = Moments.of(mine | {"outer": mine["outer"][None] / weight * mine["counts"][0]}, 1)
                shrunk = shrink(moments.matrix[0], moments.count, moments.powers).matrix
                found[group] = shrunk * weight / self.origin.scored * scale
        return found

    def tokens(self, name: str) -> int:
        """How many inputs of a layer were seen."""
        leaders = [self.layers[one].leader for one in self._reached(name)]
        return round(sum(float(self.arrays[f"{one}.inputs.counts"][0]) for one in leaders))

    def borrowed(self, name: str) -> bool:
        """Whether the moments of a layer are those of its siblings."""
        return self._layer(name).leader is None

    @property
    def silent(self) -> tuple[str, ...]:
        """Layers at whose outputs no gradient arrived but zero, or what rounding in float32 leaves of it."""
        found = {name: self.sensitivity(name) for name in self.layers}
        return tuple(name for name, one in found.items() if one <= ROUNDING * max(found.values()))

    def _layer(self, name: str) -> MeasuredLayer:
        if name not in self.layers:
            msg = f"the statistics hold nothing of `{name}`; measure it too, or leave it out of `modules`"
            raise InvalidInputError(msg)
        return self.layers[name]

    def _reached(self, name: str) -> list[str]:
        """The layer, or its siblings that something reached if nothing reached it."""
        layer = self._layer(name)
        return [name] if layer.leader is not None else [one for one in layer.siblings if self.layers[one].leader]

    def _total(self, side: str, names: list[str]) -> dict[str, np.ndarray]:
        """Sums of some layers together."""
        found = {}
        for part in PARTS[side]:
            arrays = [np.asarray(self.arrays[f"{name}.{side}.{part}"], dtype=np.float64) for name in names]
            found[part] = arrays[0] if len(arrays) == 1 else np.sum(arrays, axis=0)
        return found
