"""Dense and sparse: a few weights leave the matrix and are stored by themselves."""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from lattq._array import Array, array_namespace, from_host, short_repr, to_host
from lattq._options import as_float, normalize
from lattq.codebooks.importance import Importance
from lattq.coding.integers import decode_integers, encode_integers
from lattq.coding.schema import Inner, Integer, Octets, Record, checked
from lattq.errors import DamagedFileError, InvalidInputError
from lattq.parts import register
from lattq.transforms.base import BaseTransform
from lattq.transforms.gain import EXPONENT, to_unit
from lattq.transforms.maps import Identity

__all__ = ["Outliers", "Sparse"]

MOST_PLACES = 1 << 40


@register("transform", "sparse")
@short_repr
@dataclasses.dataclass(frozen=True, eq=False)
class Sparse(BaseTransform):
    """Float16 numbers, times one power of two, in place of a few entries: W - S goes in, S comes out where it has any.

    What is left there is what float16 cannot hold. The inverse replaces: whatever the rest decodes to at these places
    does not count, and no more does it in the loop.

    Attributes
    ----------
    places : of the entries in the matrix, row by row, ascending
    values : the entries of S, rounded to float16, at once
    columns : of the matrix
    exponent : k of the power 2^k that all entries are stored in units of

    Examples
    --------
    >>> sparse = Sparse(np.array([1]), np.array([9.0]), 2)
    >>> sparse.forward(np.array([[1.0, 9.5]])), sparse.inverse(np.array([[1.0, 0.25]]))
    (array([[1. , 0.5]]), array([[1., 9.]]))
    """

    places: Int[np.ndarray, " entries"]
    values: Float[np.ndarray, " entries"]
    columns: int
    exponent: int = 0

    keeps_entries = True  # what is left are the same weights, in their places
    schema = Record(count=Integer(0, MOST_PLACES), gaps=Inner(), values=Octets(lambda at: 2 * at.count))

    def __post_init__(self) -> None:
        with np.errstate(over="ignore"):
            halves = np.ldexp(self.values, -self.exponent).astype(np.float16)
        rounded = np.ldexp(halves.astype(np.float64), self.exponent)
        if not np.isfinite(rounded).all():
            msg = f"`values` holds {self.values[~np.isfinite(rounded)][0]:.3g}, which is beyond float16"
            raise InvalidInputError(msg + "; divide the weights by a constant first")
        object.__setattr__(self, "values", rounded)

    def forward(self, weight: Array) -> Array:
        """The weight without the sparse part."""
        return weight - self._spread(weight, self.values)

    def inverse(self, weight: Array) -> Array:
        """The sparse part where it has entries, the weight elsewhere."""
        others = 1.0 - self._spread(weight, np.ones(self.places.size))
        return weight * others + self._spread(weight, self.values)

    def congruence(self, sigma: np.ndarray) -> np.ndarray:
        """The second moment: inputs are as they were."""
        return sigma

    def kept(self, shape: tuple[int, int], found: Any = None) -> Any:
        """Where a matrix of this shape has no entry of the sparse part, and had none that did not count."""
        self._check(shape)
        mine = np.ones(shape, dtype=bool)
        mine.reshape(-1)[self.places] = False
        return mine if found is None else mine & found

    def split(self) -> tuple["Sparse", Identity]:
        """All of it."""
        return self, Identity()

    def on_inputs(self, x: Array) -> Array:
        """Raise `InvalidInputError`: a sparse part adds to the product, where it stands first."""
        msg = (
            f"a sparse part of {self.places.size} weights comes after other transforms, which would spread it "
            "over the matrix; take outliers out first"
        )
        raise InvalidInputError(msg)

    def inverse_on_inputs(self, x: Array) -> Array:
        """Raise `InvalidInputError`, as `on_inputs`."""
        return self.on_inputs(x)

    def _check(self, shape: tuple[int, int]) -> None:
        if shape[1] != self.columns:
            msg = f"{self.places.size} entries of a matrix of {self.columns} columns do not fit the shape {shape}"
            raise InvalidInputError(msg)
        self.check_rows(shape[0])

    def _spread(self, like: Array, values: np.ndarray) -> Array:
        shape = tuple(like.shape)
        self._check(shape)
        found = np.zeros(shape)
        found.reshape(-1)[self.places] = values
        return array_namespace(like).astype(from_host(found, like=like), like.dtype)

    def check_rows(self, rows: int) -> None:
        """Raise `InvalidInputError` unless all entries lie in a matrix of so many rows.

        >>> Sparse(np.array([1]), np.array([9.0]), 2).check_rows(1)
        """
        if self.places.size and self.places[-1] >= rows * self.columns:
            msg = f"a sparse entry at {self.places[-1]} of {rows} x {self.columns} weights"
            raise InvalidInputError(msg)

    def to_state(self) -> list:
        """Entropy-coded distances of places, float16 numbers, and their exponent unless it is 0."""
        gaps = np.diff(self.places, prepend=-1) - 1
        values = np.ldexp(self.values, -self.exponent).astype("<f2").tobytes()
        return [self.places.size, encode_integers(gaps), values, *([self.exponent] if self.exponent else [])]

    @staticmethod
    def from_state(state: list, size: int) -> "Sparse":
        """Inverse of `to_state`."""
        schema = Sparse.schema
        if type(state) is list and len(state) > len(schema.fields):
            schema = Record(**schema.fields, exponent=EXPONENT)
        count, gaps, data, *power = checked(schema, state, "sparse entries")
        exponent = power[0] if power else 0
        values = np.frombuffer(data, dtype="<f2").astype(np.float64)
        gaps = decode_integers(gaps, count, 0, MOST_PLACES)
        if not np.isfinite(values).all():
            msg = "a sparse entry is NaN or infinite; the file is damaged"
            raise DamagedFileError(msg)
        places = np.cumsum(gaps + 1) - 1
        return Sparse(places, np.ldexp(values, exponent), size, exponent)


@dataclasses.dataclass(frozen=True)
class Outliers:
    """Design of the sparse part: the weights of largest magnitude, and those where errors cost most (SqueezeLLM).

    A weight that is both counts once, so there are at most `fraction` + `sensitive`.

    Parameters
    ----------
    fraction : of weights of largest magnitude; 0.004 as published
    sensitive : fraction of weights with the largest importance times w²; 0.0005 as published
    importance : of squared errors, (rows, columns): a Fisher diagonal, as published; None takes Σ_jj in each row

    Examples
    --------
    >>> Outliers(fraction=0.25, sensitive=0.0)(np.array([[1.0, -5.0], [0.5, 2.0]]), np.eye(2)).places
    array([1])
    """

    fraction: float = 0.004
    sensitive: float = 0.0005
    importance: Any = None

    def __post_init__(self) -> None:
        if self.importance is not None:
            object.__setattr__(self, "importance", Importance.of(self.importance))
        normalize(self, as_float, "fraction", "sensitive")
        for name in ("fraction", "sensitive"):
            if not 0.0 <= getattr(self, name) < 1.0:
                msg = f"`{name}` is {getattr(self, name)}; a fraction of the weights is at least 0 and below 1"
                raise InvalidInputError(msg)

    def __call__(self, weight: Array, sigma: np.ndarray) -> Sparse:
        """The sparse part, in units of the power of two that takes the largest magnitude into [1, 2)."""
        unit = to_unit(weight)
        host = unit.forward(to_host(weight).astype(np.float64))
        counts = [round(share * host.size) for share in (self.fraction, self.sensitive)]
        power = np.diag(sigma) if self.importance is None else self.importance.values
        if power.shape not in ((host.shape[1],), host.shape):
            msg = f"`importance` has shape {power.shape}, the weight {host.shape}; give one to each weight"
            raise InvalidInputError(msg)
        scores = np.abs(host), host**2 * power
        chosen = [np.argsort(-s.reshape(-1), kind="stable")[:n] for s, n in zip(scores, counts, strict=True)]
        places = np.unique(np.concatenate(chosen))
        values = host.reshape(-1)[places].astype(np.float16).astype(np.float64)
        return Sparse(places, unit.inverse(values), host.shape[1], -(unit.exponent or 0))
