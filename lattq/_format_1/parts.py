"""Parts whose meaning has changed since format 1; files hold them no longer, and none is registered."""

import dataclasses
from typing import Any

import numpy as np

from lattq._array import Array
from lattq._format_1.streams import integers
from lattq.coding.schema import KIND, Inner, Octets, Record, checked
from lattq.parts.registry import find
from lattq.quantizers.uniform import UniformQuantizer
from lattq.transforms import chains
from lattq.transforms.base import BaseTransform
from lattq.transforms.grid import grid_scale
from lattq.transforms.maps import Diagonal
from lattq.transforms.outliers import Sparse

__all__ = ["PART", "quantizer_of", "transform_of"]

PART = Record(kind=KIND, state=Inner())


class Added(Sparse):
    """A sparse part that is added to what the rest decodes to, where others replace it."""

    kept = BaseTransform.kept
    split = BaseTransform.split

    def inverse(self, weight: Array) -> Array:
        """The weight with the sparse part."""
        return weight + self._spread(weight, self.values)


class Dithered(UniformQuantizer):
    """A uniform quantizer whose dither comes from another generator."""


def transform_of(state: Any, size: int) -> Any:
    """A transform; chains in chains are one chain."""
    kind, own = checked(PART, state, "transform")
    if kind == "chain":
        return find("transform", "chain")(tuple(transform_of(part, size) for part in own))
    if kind == "diagonal" and len(own) > 1:
        return Diagonal(grid_scale(integers(own, size)))
    if kind == "sparse":
        count, gaps, values = own
        halves = np.frombuffer(checked(Octets(2 * count), values, "values"), dtype="<f2").astype(np.float64)
        return Added(np.cumsum(integers(gaps, count, 0) + 1) - 1, halves, size)
    return chains.from_state([kind, own], size)


def quantizer_of(state: list, coder: Any, context: dict[str, Any], shape: tuple[int, int]) -> Any:
    """A quantizer, with what its coder stored for it."""
    kind, own = state
    if kind == "format":
        scales, packed, height, group, number = own
        own = [scales, group, height, packed, number]
    found: Any = find("quantizer", kind).from_state(own, shape)
    found.check_coder(coder)
    if kind == "uniform" and found.dither is not None:
        zero = _dither(found.dither, shape)
        return Dithered(found.step, zero, found.low, found.high, found.group, found.dither)
    known = {name: value for name, value in context.items() if name in found.carried}
    return dataclasses.replace(found, **known) if known else found


def _dither(seed: int, shape: tuple[int, int]) -> np.ndarray:
    """Uniform numbers in [-1/2, 1/2)."""
    columns = range(shape[1])
    draws = [np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, 0, j])).random(shape[0]) for j in columns]
    return np.stack(draws, axis=1) - 0.5
