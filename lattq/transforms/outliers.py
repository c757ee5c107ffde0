"""Dense and sparse: a few weights leave the matrix and are stored by themselves."""

import dataclasses

import numpy as np
from jaxtyping import Float, Int

from lattq._array import Array, array_namespace, from_host, to_host
from lattq._options import as_float, normalize
from lattq.coding import decode_integers, encode_integers
from lattq.errors import DamagedFileError, InvalidInputError
from lattq.parts import register
from lattq.transforms.base import BaseTransform
from lattq.transforms.maps import Identity

__all__ = ["Outliers", "Sparse"]


@register("transform", "sparse")
@dataclasses.dataclass(frozen=True, eq=False)
class Sparse(BaseTransform):
    """W - S with a sparse S of float16 numbers: what is left has zeros there, or what float16 cannot hold.

    Attributes
    ----------
    places : of the entries in the matrix, row by row, ascending
    values : the entries of S, rounded to float16, at once
    columns : of the matrix

    Examples
    --------
    >>> Sparse(np.array([1]), np.array([9.0]), 2).forward(np.array([[1.0, 9.5]]))
    array([[1. , 0.5]])
    """

    places: Int[np.ndarray, " entries"]
    values: Float[np.ndarray, " entries"]
    columns: int

    def __post_init__(self) -> None:
        with np.errstate(over="ignore"):
            rounded = self.values.astype(np.float16).astype(np.float64)
        if not np.isfinite(rounded).all():
            msg = f"`values` holds {self.values[~np.isfinite(rounded)][0]:.3g}, which is beyond float16"
            raise InvalidInputError(msg + "; divide the weights by a constant first")
        object.__setattr__(self, "values", rounded)

    def forward(self, weight: Array) -> Array:
        """The weight without the sparse part."""
        return weight - self._dense(weight)

    def inverse(self, weight: Array) -> Array:
        """The weight with the sparse part."""
        return weight + self._dense(weight)

    def congruence(self, sigma: np.ndarray) -> np.ndarray:
        """The second moment: inputs are as they were."""
        return sigma

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

    def _dense(self, like: Array) -> Array:
        shape = tuple(like.shape)
        if shape[1] != self.columns:
            msg = f"{self.places.size} entries of a matrix of {self.columns} columns do not fit the shape {shape}"
            raise InvalidInputError(msg)
        self.check_rows(shape[0])
        found = np.zeros(shape)
        found.reshape(-1)[self.places] = self.values
        return array_namespace(like).astype(from_host(found, like=like), like.dtype)

    def check_rows(self, rows: int) -> None:
        """Raise `InvalidInputError` unless all entries lie in a matrix of so many rows.

        >>> Sparse(np.array([1]), np.array([9.0]), 2).check_rows(1)
        """
        if self.places.size and self.places[-1] >= rows * self.columns:
            msg = f"a sparse entry at {self.places[-1]} of {rows} x {self.columns} weights"
            raise InvalidInputError(msg)

    def to_state(self) -> list:
        """Entropy-coded distances of places, and float16 numbers."""
        gaps = np.diff(self.places, prepend=-1) - 1
        return [self.places.size, encode_integers(gaps), self.values.astype("<f2").tobytes()]

    @staticmethod
    def from_state(state: list, size: int) -> "Sparse":
        """Inverse of `to_state`."""
        count, gaps, data = state
        values = np.frombuffer(data, dtype="<f2").astype(np.float64)
        gaps = decode_integers(gaps, len(values))
        if values.shape != (count,) or not np.isfinite(values).all() or not ((gaps >= 0) & (gaps < 1 << 41)).all():
            msg = f"{len(values)} sparse entries for {count} places, or not finite; the file is damaged"
            raise DamagedFileError(msg)
        places = np.cumsum(gaps + 1) - 1
        return Sparse(places, values, size)


@dataclasses.dataclass(frozen=True)
class Outliers:
    """Design of the sparse part: the weights of largest magnitude, and those where errors cost most (SqueezeLLM).

    Parameters
    ----------
    fraction : of weights of largest magnitude; 0.004 as published
    sensitive : fraction of weights with the largest w² Σ_jj; 0.0005 as published, there by a Fisher diagonal

    Examples
    --------
    >>> Outliers(fraction=0.25, sensitive=0.0)(np.array([[1.0, -5.0], [0.5, 2.0]]), np.eye(2)).places
    array([1])
    """

    keeps_entries = True  # what is left are the same weights, in their places

    fraction: float = 0.004
    sensitive: float = 0.0005

    def __post_init__(self) -> None:
        normalize(self, as_float, "fraction", "sensitive")
        for name in ("fraction", "sensitive"):
            if not 0.0 <= getattr(self, name) < 1.0:
                msg = f"`{name}` is {getattr(self, name)}; a fraction of the weights is at least 0 and below 1"
                raise InvalidInputError(msg)

    def __call__(self, weight: Array, sigma: np.ndarray) -> Sparse:
        """The sparse part; raises `InvalidInputError` for outliers beyond float16."""
        host = to_host(weight).astype(np.float64)
        counts = [round(share * host.size) for share in (self.fraction, self.sensitive)]
        scores = np.abs(host), host**2 * np.diag(sigma)
        chosen = [np.argsort(-s.reshape(-1), kind="stable")[:n] for s, n in zip(scores, counts, strict=True)]
        places = np.unique(np.concatenate(chosen))
        values = host.reshape(-1)[places]
        if values.size and np.abs(values).max() > np.finfo(np.float16).max:
            msg = f"an outlier of {np.abs(values).max():.3g} is beyond float16; divide the weights by a constant first"
            raise InvalidInputError(msg)
        return Sparse(places, values.astype(np.float16).astype(np.float64), host.shape[1])
