"""Statistics of a model: second moments of the inputs and of the scores of its layers, as one value and one file."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from lattq.errors import InvalidInputError
from lattq.linalg.shrinkage import shrink
from lattq.llm.measure.exact import Exact
from lattq.llm.measure.statistics_file import read_arrays, write_arrays
from lattq.llm.measure.sums import PARTS, Moments

__all__ = ["LayerStatistics", "MeasuredLayer", "Origin", "Statistics"]


class LayerStatistics(NamedTuple):
    """What was measured of one layer.

    Attributes
    ----------
    inputs : E[x xᵀ] as it was measured
    outputs : E[g gᵀ] of the scores g at its outputs, nats per squared output, in blocks down the diagonal
    input_count, output_count : of vectors of equal weight that tell as much
    input_powers, output_powers : mean fourth powers of the entries
    """

    inputs: Float[np.ndarray, "columns columns"]
    outputs: Float[np.ndarray, "groups height height"]
    input_count: float
    output_count: float
    input_powers: Float[np.ndarray, " columns"]
    output_powers: Float[np.ndarray, " rows"]


@dataclasses.dataclass(frozen=True)
class MeasuredLayer:
    """A layer of `Statistics`.

    Attributes
    ----------
    shape : rows and columns
    groups : of its outputs
    siblings : layers whose moments stand in for its own if nothing reached it
    leader : the layer that received the same inputs and has their moments; None if nothing reached it
    transposed : whether its parameter holds inputs × outputs
    """

    shape: tuple[int, int]
    groups: int
    siblings: tuple[str, ...]
    leader: str | None
    transposed: bool


@dataclasses.dataclass(frozen=True)
class Origin:
    """What statistics were measured on, and how.

    Attributes
    ----------
    model : hash of its directory
    texts : hashes
    windows : digests of the windows with the seed and number of draws, sorted
    lengths : of windows
    seeds : of labels
    draws : of labels for each window
    """

    model: str
    texts: tuple[str, ...]
    windows: tuple[str, ...]
    lengths: tuple[int, ...]
    seeds: tuple[int, ...]
    draws: tuple[int, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Statistics:
    """Second moments of the inputs and of the scores of the layers of a model, with all that they were made of.

    Parameters
    ----------
    layers : by name
    arrays : of sums, by their names in a file
    origin : what they were measured on
    """

    layers: Mapping[str, MeasuredLayer]
    arrays: Mapping[str, Any]
    origin: Origin

    def save(self, path: str | Path) -> None:
        """Write one safetensors file."""
        about = {"layers": {name: dataclasses.asdict(one) for name, one in self.layers.items()}}
        write_arrays(path, self.arrays, about | {"origin": dataclasses.asdict(self.origin)})

    @classmethod
    def load(cls, path: str | Path) -> "Statistics":
        """Read what `save` wrote; arrays stay in the file until they are used."""
        arrays, about = read_arrays(path)
        layers = {
            name: MeasuredLayer(
                **{**one, "shape": tuple(one["shape"]), "siblings": tuple(one["siblings"])},
            )
            for name, one in about["layers"].items()
        }
        origin = {key: tuple(one) if isinstance(one, list) else one for key, one in about["origin"].items()}
        return cls(layers, arrays, Origin(**origin))

    def moments(self, name: str) -> LayerStatistics:
        """What was measured of a layer, or of its siblings together if nothing reached it."""
        layer = self.layers[name]
        reached = [one for one in layer.siblings if self.layers[one].leader is not None]
        names = [name] if layer.leader is not None else reached
        if not names:
            msg = f"no calibration input reached `{name}`; leave it out of `modules`"
            raise InvalidInputError(msg)
        inputs = Moments.of(self._total("inputs", [str(self.layers[one].leader) for one in names]), 1)
        outputs = Moments.of(self._total("outputs", names), layer.groups)
        return LayerStatistics(
            inputs.matrix[0], outputs.matrix, inputs.count, outputs.count, inputs.powers, outputs.powers
        )

    def sigma(self, name: str) -> Float[np.ndarray, "columns columns"]:
        """E[x xᵀ] of the inputs of a layer, shrunk as far as their number asks for (theory 11.3)."""
        found = self.moments(name)
        return shrink(found.inputs, found.input_count, found.input_powers).matrix

    def tokens(self, name: str) -> int:
        """How many inputs of a layer were seen."""
        return round(self.moments(name).input_count)

    def borrowed(self, name: str) -> bool:
        """Whether the moments of a layer are those of its siblings."""
        return self.layers[name].leader is None

    def _total(self, kind: str, names: list[str]) -> dict[str, Exact]:
        found = {}
        for part in PARTS:
            keys = [f"{name}.{kind}.{part}" for name in names]
            total = np.sum([np.asarray(self.arrays[key]) for key in keys], axis=0) if len(keys) > 1 else None
            single = np.asarray(self.arrays[keys[0]])
            found[part] = Exact(single if total is None else total, np.zeros(0, dtype=np.int64))
        return found
