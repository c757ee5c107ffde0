"""The sums of all layers of a model while it is measured."""

import math
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lattq.llm.measure.origin import MeasuredLayer, Origin
from lattq.llm.measure.statistics import Statistics
from lattq.llm.measure.sums import MomentSums, height_of, shapes_of
from lattq.llm.source.matrices import Matrix

__all__ = ["Arena", "Ledger"]


class Ledger:
    """Sums of inputs and of gradients at outputs, by layer.

    Parameters
    ----------
    layers : name to matrix
    block : most outputs whose gradients are multiplied with each other
    allocate : makes the zeros in which sums lie

    Attributes
    ----------
    leader : by layer that something reached, the layer whose inputs are its own
    """

    def __init__(self, layers: Mapping[str, Matrix], block: int, allocate: Callable[..., Any] = np.zeros) -> None:
        self.layers, self.block, self.allocate = layers, block, allocate
        self.leader: dict[str, str] = {}
        self._sums: dict[tuple[str, str], MomentSums] = {}

    def inputs(self, name: str) -> MomentSums:
        """Sums of the inputs of a layer."""
        return self._of(name, "inputs", 1, self.layers[name].shape[1])

    def outputs(self, name: str) -> MomentSums:
        """Sums of the gradients at the outputs of a layer."""
        height = height_of(self.layers[name].shape[0], self.block)
        return self._of(name, "outputs", self.layers[name].shape[0] // height, height)

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
        layers = {}
        for name, matrix in self.layers.items():
            if any(other in self.leader for other in matrix.siblings):
                rows, columns = matrix.shape
                groups, leader = rows // height_of(rows, self.block), self.leader.get(name)
                layers[name] = MeasuredLayer((rows, columns), groups, matrix.siblings, leader, bool(matrix.transposed))
        return Statistics(layers, arrays, origin)


class Arena:
    """Zeros in a file that nobody sees, so that sums of a large model need not be in memory all at once.

    Parameters
    ----------
    folder : in which the file lies, until the last array in it is gone
    layers : whose sums there is room for
    block : as in `Ledger`
    """

    def __init__(self, folder: Path, layers: Mapping[str, Matrix], block: int) -> None:
        shapes = []
        for matrix in layers.values():
            height = height_of(matrix.shape[0], block)
            shapes += [shapes_of("inputs", 1, matrix.shape[1]), shapes_of("outputs", matrix.shape[0] // height, height)]
        room = 2 * sum(math.prod(shape) for one in shapes for shape in one.values())
        with tempfile.TemporaryFile(dir=folder) as file:
            self._all = np.memmap(file, np.int64, "w+", shape=(room,))
        self._used = 0

    def __call__(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """Zeros of a shape."""
        start, self._used = self._used, self._used + math.prod(shape)
        return np.asarray(self._all[start : self._used].reshape(shape), dtype=dtype)
