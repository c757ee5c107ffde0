"""What an error of a weight matrix costs: second moments of the inputs, and of the gradients at the outputs.

An error E of the weights costs D = tr(G E Σ Eᵀ) / (rows columns). Σ = E[x xᵀ] is what the inputs excite; G says how
much errors of the outputs count, and is the identity where nobody says otherwise (theory 15).
"""

import dataclasses
import functools
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from lattq._array import short_repr
from lattq._options import as_float
from lattq.errors import InvalidInputError
from lattq.linalg.checks import require_root, with_root
from lattq.linalg.shrinkage import shrink
from lattq.linalg.stacked import StackedLDL, by_groups, output_blocks, square_parts, stacked_moments, stacked_roots

__all__ = ["OUTPUT_DAMPING", "Metric", "unchecked"]

PART = 64  # rows of errors at a time
OUTPUT_DAMPING = 0.3  # of the mean diagonal: shares from 0.3 to 1 are best for models, and nearly alike (theory 15.6)


@short_repr
@dataclasses.dataclass(frozen=True, eq=False)
class Metric:
    """The quadratic form tr(G E Σ Eᵀ) / (rows columns) of the errors E of a weight matrix.

    Whatever takes `sigma` takes a metric; a bare second moment is the metric without an output side. It is checked
    once, and what is derived from it is computed once.

    Parameters
    ----------
    inputs : Σ = E[x xᵀ], symmetric positive semidefinite; singular is legal
    outputs : G: its diagonal (one number for each row), blocks down its diagonal (groups x height x height, groups
        times height rows), or the whole matrix (rows x rows); None for the identity
    input_count, output_count : samples that Σ and G are means of; None where they are exact. See `shrunk`
    guides : Σ of each of equal groups of rows (groups x columns x columns), where tokens matter to them unequally; then
        `outputs` is a diagonal or None, D is the sum of G_ii e_i Σ_g e_iᵀ over rows i, g the group of each, and Σ is
        their mean, which transforms see. None for one group

    Raises
    ------
    InvalidInputError : for a matrix that is not finite, square and symmetric, a count that is not positive, or guides
        beside outputs that are no diagonal
    NotPositiveSemidefiniteError : for a negative pivot; it names the first such column

    References
    ----------
    Tseng, Sun, Hou and De Sa 2025 (YAQA); Kim et al. 2025 (GuidedQuant).

    Examples
    --------
    >>> metric = Metric(np.eye(2), outputs=np.array([1.0, 4.0, 1.0]))
    >>> metric.squared_error(np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 0.0]]))  # 4 / 6
    0.6666666666666666
    """

    inputs: Any
    outputs: Any = None
    _: dataclasses.KW_ONLY
    input_count: Any = None
    output_count: Any = None
    guides: Any = None

    def __post_init__(self) -> None:
        self.__dict__["inputs"], root = with_root(self.inputs)
        self.__dict__.update({} if root is None else {"root": root})
        if self.outputs is not None:
            object.__setattr__(self, "outputs", output_blocks(self.outputs))
        for name in ("input_count", "output_count"):
            count = getattr(self, name)
            if count is None:
                continue
            count = as_float(name, count)
            if not 0.0 < count < np.inf:
                msg = f"`{name}` is {count}; pass how many samples the matrix is the mean of, or None if it is exact"
                raise InvalidInputError(msg)
            object.__setattr__(self, name, count)
        if self.guides is not None:
            object.__setattr__(self, "guides", stacked_moments(self.guides, self.columns))
            if self.height > 1:
                msg = f"`outputs` has blocks of {self.height} rows beside `guides`; give its diagonal, or no guides"
                raise InvalidInputError(msg)

    @property
    def columns(self) -> int:
        """Columns of the weights."""
        return len(self.inputs)

    @property
    def rows(self) -> int | None:
        """Rows of the weights; None where any number will do."""
        return None if self.outputs is None else self.outputs.shape[0] * self.outputs.shape[1]

    @property
    def height(self) -> int:
        """Rows of a block of G: rows of different blocks do not hear each other. 1 where G is diagonal."""
        return 1 if self.outputs is None else self.outputs.shape[1]

    @functools.cached_property
    def root(self) -> Float[np.ndarray, "columns rank"]:
        """F with F Fᵀ = Σ."""
        return require_root(self.inputs)

    @functools.cached_property
    def guide_roots(self) -> Float[np.ndarray, "groups columns rank"]:
        """F with F Fᵀ = Σ of each group of rows, all of the same width; raises where there are none."""
        return stacked_roots(self.guides)

    @functools.cached_property
    def output_roots(self) -> Float[np.ndarray, "groups height rank"] | None:
        """L with L Lᵀ = G, block by block, all of the same width."""
        return None if self.outputs is None else stacked_roots(self.outputs)

    @functools.cached_property
    def output_factor(self) -> StackedLDL | None:
        """V diag(c) Vᵀ = G, V unit lower triangular, rows in their own order; None without an output side."""
        return None if self.outputs is None else StackedLDL.of(self.outputs)

    def squared_error(self, error: Float[np.ndarray, "rows columns"]) -> float:
        """tr(G E Σ Eᵀ) / (rows columns) as the square of a norm, ‖Lᵀ E F‖² / (rows columns): never negative."""
        with np.errstate(over="ignore"):  # beyond float64 it is infinite
            return sum(self._parts(error)) / error.size

    def at_least(self, error: Float[np.ndarray, "rows columns"], bound: float) -> bool:
        """Whether the squared error is so large, which a part of it may tell.

        >>> Metric(np.eye(2)).at_least(np.ones((3, 2)), 1.0)
        True
        """
        with np.errstate(over="ignore", invalid="ignore"):
            ways = (self._parts,) if "root" in self.__dict__ else (self._least_parts, self._parts)
            return any(
                part / error.size >= bound for way in ways for part in itertools.accumulate(way(error), initial=0.0)
            )

    def _least_parts(self, error: np.ndarray) -> Iterator[float]:
        """What rows of errors cost, less what rounding may add: without a root of Σ, where outputs are all alike."""
        if self.outputs is not None or self.guides is not None:
            return
        rounding = self.columns * float(np.finfo(np.float64).eps) * float(np.trace(self.inputs))
        for start in range(0, len(error), PART):
            rows = error[start : start + PART].astype(np.float64)
            yield float(np.sum(rows @ self.inputs * rows)) - rounding * float(np.sum(rows * rows))

    def _parts(self, error: np.ndarray) -> Iterator[float]:
        roots = self.root[None] if self.guides is None else self.guide_roots
        return square_parts(error, roots, self.output_roots)

    def rounding(self, error: Float[np.ndarray, "rows columns"]) -> float:
        """What rounding alone makes of a squared error of zero: an entry of a product is off by n eps times its norms.

        >>> Metric(np.eye(2)).rounding(np.zeros((1, 2)))
        0.0
        """
        eps = max(self.columns, self.height, 8) * float(np.finfo(np.float64).eps)
        roots = self.root[None] if self.guides is None else self.guide_roots
        size = float(np.square(roots).sum(axis=(1, 2)).max())
        if self.outputs is not None:
            size *= float(np.max(np.trace(self.outputs, axis1=1, axis2=2)))
        return float(np.sum(np.square(error))) * size * eps**2 / error.size

    def left(self, x: Float[np.ndarray, "rows n"]) -> Float[np.ndarray, "rows n"]:
        """G x.

        >>> Metric(np.eye(1), np.array([1.0, 4.0])).left(np.ones((2, 1)))
        array([[1.],
               [4.]])
        """
        if self.outputs is None:
            return x
        return np.matmul(self.outputs, x.reshape(len(self.outputs), self.height, -1)).reshape(x.shape)

    def right(
        self, x: Float[np.ndarray, "rows some"], some: slice = slice(None), others: slice = slice(None)
    ) -> Float[np.ndarray, "rows others"]:
        """x Σ, each row with the Σ of its group; or its columns `others` for an x of columns `some` and 0 elsewhere.

        >>> Metric(np.eye(1), guides=np.array([[[1.0]], [[4.0]]])).right(np.ones((2, 1)))
        array([[1.],
               [4.]])
        """
        return x @ self.inputs[some, others] if self.guides is None else by_groups(x, self.guides[:, some, others])

    def diagonal(self, rows: int) -> Float[np.ndarray, "rows columns"]:
        """G_ii Σ_jj: what a single error costs at each of so many rows.

        >>> Metric(np.diag([1.0, 2.0])).diagonal(1)
        array([[1., 2.]])
        """
        own = np.ones(rows) if self.outputs is None else np.einsum("gii->gi", self.outputs).reshape(-1)
        if self.guides is None:
            return own[:, None] * np.diag(self.inputs)
        return own[:, None] * np.repeat(np.einsum("gii->gi", self.guides), rows // len(self.guides), axis=0)

    def moved(self, transform: Any) -> "Metric":
        """The metric of weights in other coordinates, where inputs are T x and outputs may be scaled."""
        inputs = transform.congruence(self.inputs)
        outputs = None if self.outputs is None else transform.output_congruence(self.outputs)
        if inputs is self.inputs and outputs is self.outputs:
            return self
        guides = None if self.guides is None else np.stack([transform.congruence(guide) for guide in self.guides])
        return unchecked(inputs, outputs, guides=guides)

    def of_inputs(self) -> "Metric":
        """The metric in which all outputs count alike."""
        return self if self.outputs is None and self.guides is None else self._with(None)

    def seen(self, *, outputs: bool, guides: bool) -> "Metric":
        """What counts for one that feeds errors along rows, or gives each group of rows a Σ of its own, or neither.

        >>> Metric(np.eye(1), np.ones(2)).seen(outputs=False, guides=True).outputs is None
        True
        """
        whole = outputs if self.guides is None else guides
        return self if whole else self._with(self.outputs if outputs else None)

    def of_groups(self, groups: np.ndarray) -> "Metric":
        """The metric of some of the blocks of rows, without guides.

        >>> Metric(np.eye(2), np.ones(3)).of_groups(np.array([0, 2])).rows
        2
        """
        return self if self.outputs is None else self._with(self.outputs[groups])

    def _with(self, outputs: np.ndarray | None, *counts: float | None, guides: np.ndarray | None = None) -> "Metric":
        """Other outputs, counts and guides for the same Σ, whose root is kept if it is known."""
        return unchecked(self.inputs, outputs, *counts, guides=guides, root=self.__dict__.get("root"))

    def damped(self, outputs: float | int = OUTPUT_DAMPING) -> "Metric":
        """G with this fraction of its mean diagonal added to its diagonal, scaled back to its trace.

        The mean is that of all rows. Weak damping follows the calibration text where others do not (theory 15.6). So do
        guides: they are drawn as far to Σ.
        """
        share = as_float("outputs", outputs)
        if not 0.0 <= share < np.inf:
            msg = f"`outputs` is {share}; pass a fraction of the mean diagonal, 0 or more"
            raise InvalidInputError(msg)
        guides = self.guides
        if guides is not None:
            size = np.trace(guides, axis1=1, axis2=2) / (np.trace(self.inputs) or 1.0)
            guides = (guides + share * size[:, None, None] * self.inputs) / (1 + share)
        found = self.outputs
        if found is not None:
            mean = float(np.einsum("gii->", found)) / (found.shape[0] * self.height)
            found = (found + share * mean * np.eye(self.height)) / (1 + share)
        return self._with(found, self.input_count, self.output_count, guides=guides)

    def shrunk(self, outputs: float | int = OUTPUT_DAMPING) -> "Metric":
        """Both sides as far from what was measured as their numbers of samples ask for; exact ones stay as they are.

        Σ as in `lattq.linalg.shrink`; each block of G likewise, then `damped`, guides too.

        >>> Metric(np.array([[2.0, 1.0], [1.0, 2.0]]), input_count=1e9).shrunk().inputs.round(3)
        array([[2., 1.],
               [1., 2.]])
        """
        inputs, blocks = self.inputs, self.outputs
        if self.input_count is not None:
            inputs = shrink(inputs, self.input_count).matrix
        if blocks is not None and self.output_count is not None:
            blocks = np.stack([shrink(block, self.output_count).matrix for block in blocks])
        return Metric(inputs, blocks, guides=self.guides).damped(outputs)

    def to_arrays(self) -> dict[str, Shaped[np.ndarray, "..."]]:
        """Everything as host arrays, to be saved."""
        found = {"inputs": self.inputs}
        found |= {name: getattr(self, name) for name in ("outputs", "guides") if getattr(self, name) is not None}
        for name in ("input_count", "output_count"):
            if getattr(self, name) is not None:
                found[name] = np.asarray(getattr(self, name))
        return found

    @staticmethod
    def from_arrays(arrays: Mapping[str, Shaped[np.ndarray, "..."]]) -> "Metric":
        """Inverse of `to_arrays`; raises `InvalidInputError` for arrays that are none.

        >>> Metric.from_arrays(Metric(np.eye(2), np.ones(3)).to_arrays()).rows
        3
        """
        known = {"inputs", "outputs", "input_count", "output_count", "guides"}
        if "inputs" not in arrays or (unknown := set(arrays) - known):
            wrong = "no `inputs`" if "inputs" not in arrays else f"`{sorted(unknown)[0]}`"
            msg = f"`arrays` hold {wrong}: not a saved metric; pass what `to_arrays` returned"
            raise InvalidInputError(msg)
        counts = {name: float(arrays[name]) for name in ("input_count", "output_count") if name in arrays}
        return Metric(arrays["inputs"], arrays.get("outputs"), **counts, guides=arrays.get("guides"))


def unchecked(
    inputs: np.ndarray,
    outputs: np.ndarray | None,
    input_count: float | None = None,
    output_count: float | None = None,
    guides: np.ndarray | None = None,
    root: np.ndarray | None = None,
) -> Metric:
    """A metric made from one that was checked, with its root if known: by rounding it may not quite be semidefinite.

    >>> unchecked(np.eye(2), None).columns
    2
    """
    found = object.__new__(Metric)
    sides = {"inputs": inputs, "outputs": outputs, "guides": guides}
    found.__dict__.update(sides, input_count=input_count, output_count=output_count)
    found.__dict__.update({} if root is None else {"root": root})
    return found
