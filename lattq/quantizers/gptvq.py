"""The codebooks of GPTVQ as published: seeds by Mahalanobis distance, diagonal weights, no reseeding."""

import dataclasses

import numpy as np

from lattq.codebooks.local_metrics import nearest_in_blocks
from lattq.errors import InvalidInputError
from lattq.quantizers.rounded import rounded_entries
from lattq.quantizers.tables import Codebook

__all__ = ["GPTVQCodebook"]


@dataclasses.dataclass(frozen=True)
class GPTVQCodebook(Codebook):
    """Design of tables as published with GPTVQ, for `ElementwiseCholesky`: a baseline, not a proposal.

    Seeds lie at evenly spaced ranks of (x - μ)ᵀ S⁻¹ (x - μ). k-means weighs coordinates by U_jj where errors cost
    1 / U_jj², lookups by 1 / U_jj; entries that no vector takes become zero; entries are rounded to integers last.
    Parameters are those of `Codebook`; the paper has 100 iterations.

    References
    ----------
    van Baalen et al. 2024 (GPTVQ), section 3.2, and its code.

    Examples
    --------
    >>> from lattq.quantizers import Entries
    >>> targets = np.array([[0.0], [1.0], [4.0], [5.0]])
    >>> GPTVQCodebook(size=2, entry_bits=None)(Entries(targets)).tables[0, 0]
    array([[0.5],
           [4.5]])
    """

    iterations: int = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.down or self.slope or self.importance is not None or not self.weighted:
            msg = f"{self!r}: the published codebooks lie along rows, and know no slope, importance or equal weights"
            raise InvalidInputError(msg)

    def _table(
        self, x: np.ndarray, mass: np.ndarray, metrics: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray | None, None]:
        d = self.dimension
        vectors = x.reshape(len(x), -1, d).transpose(1, 0, 2)
        pivots = np.einsum("bii->bi", metrics)
        weights = 1 / np.maximum(pivots, 1e-12 * (pivots.max() or 1.0))
        weights = np.ldexp(weights, 1 - np.frexp(weights.max())[1])  # whatever the unit of the inputs
        entries = _seeds(vectors.reshape(-1, d), self.size)
        for _ in range(self.iterations):
            cells = nearest_in_blocks(vectors, entries[None], weights[:, :, None] * np.eye(d))
            moved = np.empty_like(entries)
            for i in range(d):
                own = np.broadcast_to(weights[:, None, i], cells.shape).reshape(-1)
                total = np.bincount(cells.reshape(-1), own, self.size)
                moved[:, i] = np.bincount(cells.reshape(-1), own * vectors[..., i].reshape(-1), self.size)
                moved[:, i] /= np.maximum(total, 1e-10)
            if np.array_equal(moved, entries):
                break
            entries = moved
        return *rounded_entries(entries, self.entry_bits), None


def _seeds(x: np.ndarray, size: int) -> np.ndarray:
    """Vectors at evenly spaced ranks of their Mahalanobis distance from the mean."""
    offset = x - x.mean(axis=0)
    distance = np.einsum("ni,ij,nj->n", offset, np.linalg.pinv(offset.T @ offset), offset)
    return x[np.argsort(distance, kind="stable")[np.rint(np.linspace(0, len(x) - 1, size)).astype(np.int64)]]
