"""Forms of quantized matrices as plain arrays: what packed products, exports and least squares ask a quantizer for."""

import dataclasses
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float, Int

__all__ = ["NestedForm", "NumberForm", "RunScales", "TableForm"]


@dataclasses.dataclass(frozen=True, eq=False)
class NumberForm:
    """Indices into tables of numbers, times a scale for each row and group of columns.

    Attributes
    ----------
    index : of each weight, 0 or more
    tables : of numbers
    which : table of each row and group
    scales : of each row and group
    group : columns that share table and scale
    factors : of columns, beside; None for 1

    Examples
    --------
    >>> form = NumberForm(np.array([[0, 1]]), np.array([[-1.0, 1.0]]), np.array([[0]]), np.array([[0.5]]), 2)
    >>> form.dense()
    array([[-0.5,  0.5]])
    """

    index: Int[np.ndarray, "rows columns"]
    tables: Float[np.ndarray, "tables values"]
    which: Int[np.ndarray, "rows groups"]
    scales: Float[np.ndarray, "rows groups"]
    group: int
    factors: Float[np.ndarray, " columns"] | None = None
    kind: ClassVar[str] = "numbers"

    def dense(self) -> Float[np.ndarray, "rows columns"]:
        """The weights."""
        groups = np.arange(self.index.shape[1]) // self.group
        found = self.tables[self.which[:, groups], self.index] * self.scales[:, groups]
        return found if self.factors is None else found * self.factors


@dataclasses.dataclass(frozen=True, eq=False)
class RunScales:
    """Scales of short runs of columns in each row, as codes for a few values.

    >>> RunScales(np.array([[0, 1]]), np.array([[1.0, 2.0], [3.0, 4.0]]), 2).factors(3)
    array([[1., 1., 4.]])
    """

    codes: Int[np.ndarray, "rows runs"]
    values: Float[np.ndarray, "runs values"]
    run: int

    def factors(self, columns: int) -> Float[np.ndarray, "rows columns"]:
        """Scale of each weight."""
        runs = np.arange(columns) // self.run
        return self.values[runs, self.codes[:, runs]]


@dataclasses.dataclass(frozen=True, eq=False)
class TableForm:
    """Indices into tables of numbers or vectors, which groups of rows and of columns share.

    All weights of a vector have the index of its entry as their code. Vectors lie side by side in a row, or down the
    rows; what is left over at the ends belongs to the last groups.

    Attributes
    ----------
    tables : entries of each group of rows and of columns
    rows, group : rows and columns that share a table
    down : whether vectors lie down the rows
    scales : of runs of columns, or None

    Examples
    --------
    >>> form = TableForm(np.array([[[[0.0, 1.0], [4.0, 5.0]]]]), rows=1, group=4)
    >>> form.dense(np.array([[0, 0, 1, 1]]))
    array([[0., 1., 4., 5.]])
    """

    tables: Float[np.ndarray, "row_groups column_groups size dimension"]
    rows: int
    group: int
    down: bool = False
    scales: RunScales | None = None
    kind: ClassVar[str] = "tables"

    def places(self, codes: Int[np.ndarray, "rows columns"]) -> Int[np.ndarray, "rows columns"]:
        """Where the number that each weight is decoded to stands in the raveled tables."""
        groups, across, size, dimension = self.tables.shape
        down, along = np.arange(codes.shape[0]), np.arange(codes.shape[1])
        group = np.minimum(down // self.rows, groups - 1)[:, None]
        column = along // self.group if across > 1 else along * 0
        inside = (down[:, None] if self.down else along[None, :]) % dimension
        return ((group * across + column) * size + codes) * dimension + inside

    def factors(self, shape: tuple[int, int]) -> Float[np.ndarray, "#rows #columns"]:
        """What each number is multiplied by."""
        return np.ones((1, 1)) if self.scales is None else self.scales.factors(shape[1])

    def dense(self, codes: Int[np.ndarray, "rows columns"]) -> Float[np.ndarray, "rows columns"]:
        """The weights."""
        return self.tables.reshape(-1)[self.places(codes)] * self.factors(codes.shape)


@dataclasses.dataclass(frozen=True, eq=False)
class NestedForm:
    """Digits of nested E8 codes of odd q: eight columns are a vector, with a scale of its own and one of row and group.

    Attributes
    ----------
    codes : digits, 0 ... q - 1; that of the first column of a vector is digit + q · index of its scale
    turn : digits of a vector times this matrix, plus q // 2, modulo q, are its coset
    q : odd, 5 to 13
    factors : of the vectors, up to 4
    scales : of rows and groups
    group : columns that share a scale, where there are several

    Examples
    --------
    >>> NestedForm(np.zeros((1, 8), dtype=int), np.eye(8, dtype=int), 5, np.ones(1), np.ones((1, 1)), 8).q
    5
    """

    codes: Any
    turn: Any
    q: int
    factors: Any
    scales: Any
    group: int
    kind: ClassVar[str] = "nested"
