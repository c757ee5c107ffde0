"""The sums of all layers of a model while it is measured."""

import math
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lattq.llm.measure.origin import MeasuredLayer, Origin
from lattq.llm.measure.statistics import Statistics
from lattq.llm.measure.sums import PARTS, MomentSums, height_of, shapes_of
from lattq.llm.source.matrices import Matrix

__all__ = ["Arena", "Ledger"]


class Ledger:
    """Sums of inputs and of gradients at outputs, by layer.

    Parameters
    ----------
    layers : name to matrix
    block : most outputs whose gradients are multiplied with each other
    allocate : makes the zeros in which sums lie
    guides : most groups of outputs that weigh the inputs; 0 for none

    Attributes
    ----------
    leader : by layer that something reached, the layer whose inputs are its own
    """

    def __init__(
        self, layers: Mapping[str, Matrix], block: int, allocate: Callable[..., Any] = np.zeros, guides: int = 0
    ) -> None:
        self.layers, self.block, self.allocate, self.guides = layers, block, allocate, guides
        self.leader: dict[str, str] = {}
        self._sums: dict[tuple[str, str], MomentSums] = {}
        self._guided: dict[str, list[MomentSums]] = {}

    def inputs(self, name: str) -> MomentSums:
        """Sums of the inputs of a layer."""
        return self._of(name, "inputs", 1, self.layers[name].shape[1])

    def outputs(self, name: str) -> MomentSums:
        """Sums of the gradients at the outputs of a layer."""
        height = height_of(self.layers[name].shape[0], self.block)
        return self._of(name, "outputs", self.layers[name].shape[0] // height, height)

    def guided(self, name: str) -> list[MomentSums]:
        """Sums of the inputs of a layer for each group of its outputs."""
        if name not in self._guided:
            groups, columns = self.guides_of(name), self.layers[name].shape[1]
            self._guided[name] = [MomentSums("guided", 1, columns, self.allocate) for _ in range(groups)]
        return self._guided[name]

    def guides_of(self, name: str) -> int:
        """Groups of the outputs of a layer: the largest divisor of their number that is allowed."""
        return height_of(self.layers[name].shape[0], self.guides) if self.guides else 0

    def _of(self, name: str, side: str, groups: int, height: int) -> MomentSums:
        if (name, side) not in self._sums:
            self._sums[name, side] = MomentSums(side, groups, height, self.allocate)
        return self._sums[name, side]

    def statistics(self, origin: Origin) -> Statistics:
        """The sums as a value; layers that nothing reached, nor a sibling of theirs, are not in it."""
        arrays: dict[str, np.ndarray] = {}
        for (name, side), one in self._sums.items():
            for part, exact in one.parts().items():
                arrays[f"{name}.{side}.{part}"], arrays[f"{name}.{side}.{part}.rest"] = exact
        for name, some in self._guided.items():
            for part in PARTS["guided"]:
                every = [one.parts()[part] for one in some]
                shape = shapes_of("guided", len(some), some[0].height)[part]
                arrays[f"{name}.guided.{part}"] = np.stack([one.sum for one in every]).reshape(shape)
                arrays[f"{name}.guided.{part}.rest"] = np.stack([one.rest for one in every]).reshape(shape)
        layers = {}
        for name, matrix in self.layers.items():
            if any(other in self.leader for other in matrix.siblings):
                rows, columns = matrix.shape
                groups, leader = rows // height_of(rows, self.block), self.leader.get(name)
                about = (rows, columns), groups, matrix.siblings, leader, bool(matrix.transposed)
                layers[name] = MeasuredLayer(*about, self.guides_of(name))
        return Statistics(layers, arrays, origin)


class Arena:
    """Zeros in a file that nobody sees, so that sums of a large model need not be in memory all at once.

    Parameters
    ----------
    folder : in which the file lies, until the last array in it is gone
    layers : whose sums there is room for
    block, guides : as in `Ledger`
    """

    def __init__(self, folder: Path, layers: Mapping[str, Matrix], block: int, guides: int = 0) -> None:
        shapes = []
        for matrix in layers.values():
            height = height_of(matrix.shape[0], block)
            shapes += [shapes_of("inputs", 1, matrix.shape[1]), shapes_of("outputs", matrix.shape[0] // height, height)]
            shapes += [shapes_of("guided", guides, matrix.shape[1])]
        room = 2 * sum(math.prod(shape) for one in shapes for shape in one.values())
        with tempfile.TemporaryFile(dir=folder) as file:
            self._all = np.memmap(file, np.int64, "w+", shape=(room,))
        self._used = 0

    def __call__(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """Zeros of a shape."""
        start, self._used = self._used, self._used + math.prod(shape)
        return np.asarray(self._all[start : self._used].reshape(shape), dtype=dtype)
