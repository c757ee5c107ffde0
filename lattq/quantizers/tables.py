"""Designs of codebooks: k-means of what the loop hands over, in the metric of its pivots."""

import dataclasses
from typing import Any

import numpy as np

from lattq._array import to_host
from lattq._options import as_flag, as_float, as_integer, normalize
from lattq.codebooks.clustering import different_rows
from lattq.codebooks.importance import Importance
from lattq.codebooks.local_metrics import charges_of, kmeans_blocks
from lattq.errors import InvalidInputError
from lattq.quantizers.base import BaseDesign
from lattq.quantizers.codebook import ENTRY_BITS, CodebookQuantizer
from lattq.quantizers.entries import Entries
from lattq.quantizers.integers import check_group
from lattq.quantizers.logarithmic import LogScales, check_run
from lattq.quantizers.rounded import rounded_entries
from lattq.quantizers.steps import GROWN

__all__ = ["Codebook"]


@dataclasses.dataclass(frozen=True)
class Codebook(BaseDesign):
    """Design of tables for blocks of weights, fitted when the feedback into a group of columns is complete.

    Errors of a vector are measured by the pivot of its columns, a matrix: the loop's own measure (theory 9.2).

    Parameters
    ----------
    size : entries of a table, 2 to 65536
    dimension : weights of a vector, 1 to 8; along rows, which takes feedback with block=dimension
    group : columns that share a table; None for all
    rows : that share a table; None for all
    entry_bits : None for entries in float16; 8 or 4 for integers times a float16 step of the table
    scale : columns of a row that share a scale of four bits, or None
    down : vectors lie down the rows of a column, which takes feedback with block=1 (VPTQ)
    slope : squared error (in the units of the pivots) that a bit is worth; above zero, indices are entropy coded
    importance : weights of squared errors of numbers, (rows, columns), such as a Fisher diagonal, in place of the
        pivots; None for the pivots
    weighted : False makes all weights alike, in place of the pivots
    iterations : of k-means, at most; numbers are solved exactly
    shrink : scale each column by its LMMSE gain, inside the loop

    Examples
    --------
    >>> targets = np.array([[0.0, 1.0], [0.0, 1.5], [4.0, 4.0], [4.5, 4.0]])
    >>> found = Codebook(size=2, dimension=2, entry_bits=None)(Entries(targets, pivots=np.eye(2)[None]))
    >>> found.tables[0, 0]
    array([[0.  , 1.25],
           [4.25, 4.  ]])
    """

    size: int = 16
    dimension: int = 1
    group: int | None = 256
    rows: int | None = None
    entry_bits: int | None = 8
    scale: int | None = None
    down: bool = False
    slope: float = 0.0
    importance: Any = None
    weighted: bool = True
    iterations: int = 25
    shrink: bool = False

    array_generic, in_rounds = True, True  # indices and tables may be found again in turns

    def __post_init__(self) -> None:
        normalize(
            self, as_integer, "size", "dimension", "iterations", optional=("group", "rows", "entry_bits", "scale")
        )
        normalize(self, as_float, "slope")
        normalize(self, as_flag, "down", "weighted", "shrink")
        check_group(self.group)
        for name, low, high in (("size", 2, 1 << 16), ("dimension", 1, 8), ("iterations", 1, 1 << 20)):
            if not low <= getattr(self, name) <= high:
                msg = f"`{name}` is {getattr(self, name)}; choose {low} to {high}"
                raise InvalidInputError(msg)
        step = self.dimension if self.down else 1
        if self.rows is not None and (self.rows < 1 or self.rows % step):
            msg = f"`rows` is {self.rows}; tables of whole vectors are shared by a multiple of {step} rows"
            raise InvalidInputError(msg)
        if self.entry_bits not in (None, *ENTRY_BITS):
            msg = f"`entry_bits` is {self.entry_bits}; pass None for float16, 8 or 4"
            raise InvalidInputError(msg)
        if self.group is not None and not self.down and self.group % self.dimension:
            msg = f"`group` is {self.group}, no multiple of `dimension` = {self.dimension}; vectors lie in one group"
            raise InvalidInputError(msg)
        if self.down and self.scale is not None:
            msg = f"`scale` is {self.scale}, but vectors down the rows have one scale; pass None"
            raise InvalidInputError(msg)
        check_run(self.scale, self.dimension, self.group)
        if not 0.0 <= self.slope < np.inf:
            msg = f"`slope` is {self.slope}; pass the squared error that a bit is worth, zero or above"
            raise InvalidInputError(msg)
        if self.importance is not None:
            object.__setattr__(self, "importance", Importance.of(self.importance))
        if (self.slope or self.dimension > 1) and self.importance is not None:
            msg = f"`importance` weighs numbers of equal length; pass dimension=1, not {self.dimension}, and no slope"
            raise InvalidInputError(msg)
        if self.slope and self.scale is not None:
            msg = f"`slope` is {self.slope} in units that `scale` changes from run to run; leave one of them out"
            raise InvalidInputError(msg)

    def __call__(self, entries: Entries) -> CodebookQuantizer:
        """Tables of each group of rows of the entries."""
        host, metrics = to_host(entries.values).astype(np.float64), entries.metrics
        order = np.argsort(entries.columns)
        self._check(host, entries.columns.reshape(len(metrics), -1))
        scale = None if self.scale is None else LogScales.fit(host[:, order], self.scale)
        mass = self._weights(entries)
        if scale is not None:
            factors = scale.values(host.shape)[:, np.argsort(order)]
            host, mass = host / factors, mass * factors**2
        height = min(self.rows or len(host), len(host))
        parts = [slice(low, low + height) for low in range(0, len(host), height)]
        fits: list[Any] = [self._table(host[part], mass[part], metrics) for part in parts]
        steps, charges = (None if fits[0][i] is None else np.stack([fit[i] for fit in fits]) for i in (1, 2))
        return CodebookQuantizer(
            np.stack([fit[0] for fit in fits])[:, None],
            height,
            entry_steps=None if steps is None else steps[:, None],
            entry_bits=self.entry_bits,
            down=self.down,
            coded=self.slope > 0,
            scale=scale,
            weighted=self.weighted and self.importance is None,
            charges=None if charges is None else charges[:, None],
        )

    def _check(self, host: np.ndarray, blocks: np.ndarray) -> None:
        largest = float(np.abs(host).max(initial=0.0))
        if not largest < 1e30:
            msg = f"a weight of {largest:.3g} is beyond float16; {GROWN}"
            raise InvalidInputError(msg)
        if (np.diff(blocks, axis=1) != 1).any():
            msg = (
                f"this order of the feedback tears vectors of {self.dimension} adjacent columns apart; pass "
                'order="natural" or "reversed"'
            )
            raise InvalidInputError(msg)
        across, name = (host.shape[0], "rows") if self.down else (host.shape[1], "columns")
        if across % self.dimension or blocks.shape[1] != (1 if self.down else self.dimension):
            msg = (
                f"vectors of {self.dimension} weights {'down the rows' if self.down else 'along rows'} do not fit "
                f"{across} {name} and blocks of {blocks.shape[1]} columns; pass a `dimension` that divides, and "
                f"feedback with block={1 if self.down else self.dimension}"
            )
            raise InvalidInputError(msg)

    def _weights(self, entries: Entries) -> np.ndarray:
        """What squared errors are weighed by beside the pivots."""
        shape, columns = entries.values.shape, entries.columns
        kept = 1.0 if entries.kept is None else entries.kept
        if self.importance is None:
            rows = entries.row_power if self.weighted and entries.row_power is not None else np.ones(shape[0])
            return np.repeat(rows[:, None], shape[1], axis=1) * kept
        importance = self.importance.values
        if importance.shape[0] != shape[0] or importance.shape[1] <= columns.max():
            msg = f"`importance` has shape {importance.shape}; give a weight to each of the {shape[0]} rows and columns"
            raise InvalidInputError(msg)
        return importance[:, columns] * kept

    def _table(
        self, x: np.ndarray, mass: np.ndarray, metrics: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
        """Entries of a group of rows, their step, and what they are charged."""
        d = self.dimension
        if self.down:  # the metric of a column is a number: the weight of its vectors
            vectors = x.T.reshape(x.shape[1], -1, d)
            metrics = metrics * np.eye(d)
            mass = mass.T.reshape(x.shape[1], -1, d).mean(axis=2)
        else:
            vectors = x.reshape(len(x), -1, d).transpose(1, 0, 2)
            mass = mass.reshape(len(x), -1, d).mean(axis=2).T
        mass = np.maximum(mass, 1e-12 * (mass.max() or 1.0)) / (mass.max() or 1.0)
        if not self.weighted or self.importance is not None:  # one metric for all: one block
            vectors, mass, metrics = vectors.reshape(1, -1, d), mass.reshape(1, -1), np.eye(d)[None]
        size = different_rows(vectors.reshape(-1, d), self.size)
        found = kmeans_blocks(vectors, metrics, size, mass, slope=self.slope, iterations=self.iterations)
        entries = np.concatenate([found.centroids, np.repeat(found.centroids[-1:], self.size - size, axis=0)])
        charges = charges_of(found.assignment, self.size, self.slope) if self.slope else None
        return *rounded_entries(entries, self.entry_bits), charges
