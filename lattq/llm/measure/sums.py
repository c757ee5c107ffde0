"""Second moments of one stream of vectors as sums that merge exactly."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.linalg import blas

from lattq.llm.measure.exact import Exact, ExactSum

__all__ = ["PARTS", "MomentSums", "Moments", "design_effect", "exponent_of", "height_of", "shapes_of", "unpacked"]

# Units of the sums, as powers of 2. A window of 128 inputs of power 10^-5, or gradients of power 10^-11, has products
# whose rounding is below 10^-10 of them; those of inputs up to 10^4 and gradients up to 10^2 over 2^40 tokens fit 115
# bits. Fourth powers fit less: those of a window of 2048 gradients of 512 outputs if these are about 1 at most.
EXPONENTS = {
    "inputs": {"outer": -44, "powers": -30, "counts": -40},
    "outputs": {"outer": -64, "powers": -80, "counts": -40, "energy": -64, "windows": -72},
    "guided": {"outer": -64, "powers": -60, "counts": -64},
}
PARTS = {side: tuple(exponents) for side, exponents in EXPONENTS.items()}


def exponent_of(key: str) -> int:
    """Of the unit of a sum, by the end of its name.

    >>> exponent_of("model.layers.0.mlp.down_proj.inputs.outer")
    -44
    """
    side, part = key.split(".")[-2:]
    return EXPONENTS[side][part]


def height_of(rows: int, most: int) -> int:
    """The largest divisor of a number of outputs that is at most so many: the outputs of a block.

    >>> height_of(11008, 512), height_of(384, 512), height_of(7, 2)
    (344, 384, 1)
    """
    return next(height for height in range(min(rows, most), 0, -1) if rows % height == 0)


def shapes_of(side: str, groups: int, height: int) -> dict[str, tuple[int, ...]]:
    """Shapes of the sums of a side of a layer, by their names."""
    triangle = height * (height + 1) // 2
    shapes: dict[str, tuple[int, ...]] = {"outer": (groups, triangle), "powers": (groups * height,), "counts": (3,)}
    if side == "guided":  # each group of rows weighs the tokens anew
        return {"outer": (groups, triangle), "powers": (groups, height), "counts": (groups, 3)}
    return shapes | ({"energy": (5,), "windows": (3,)} if side == "outputs" else {})


class MomentSums:
    """Sums over vectors x of weights w: of w x xᵀ in blocks down the diagonal, of w x⁴, and of 1, w and w².

    Parameters
    ----------
    side : "inputs" or "outputs" of a layer, or "guided" for inputs weighed by outputs; outputs have more sums: see
        `add_energy`, and what the vectors that are added at once, those of a window, tell of each other
    groups, height : how many blocks, and their size

    Products of gradients, which are noisy and damped when they are used, are taken in float32, all others in float64.

    Examples
    --------
    >>> sums = MomentSums("inputs", 1, 2)
    >>> sums.add(np.array([[1.0, 2.0], [3.0, 0.0]]))
    >>> Moments.of({part: one.sum for part, one in sums.parts().items()}, 1).matrix
    array([[[5., 1.],
            [1., 2.]]])
    """

    def __init__(self, side: str, groups: int, height: int, allocate: Callable[..., Any] = np.zeros) -> None:
        self.groups, self.height = groups, height
        self._product: Callable[..., Any] = getattr(blas, "ssyrk" if side == "outputs" else "dsyrk")
        shapes = shapes_of(side, groups, height)
        self.sums = {part: ExactSum(shape, EXPONENTS[side][part], allocate) for part, shape in shapes.items()}

    def add(
        self, x: Float[np.ndarray, "tokens _"], weights: Float[np.ndarray, " tokens"] | None = None, share: float = 1.0
    ) -> None:
        """Add vectors, each of weight 1 unless given; a share of each, if it comes several times with other weights."""
        scaled = x if weights is None else x * np.sqrt(share * weights)[:, None]
        for group in range(self.groups):
            block = np.ascontiguousarray(scaled[:, group * self.height : (group + 1) * self.height])
            product = self._product(1.0, block.T, lower=0).T
            self.sums["outer"].add_triangle(group, product)
            if "windows" in self.sums:
                lengths = np.einsum("ti,ti->t", block, block)
                self.sums["windows"].add(np.array([group == 0, _square_of(product), lengths @ lengths]))
        self.sums["powers"].add(np.einsum("ti,ti->i", scaled**2, x**2))
        count = float(len(x))
        weight = (count, count) if weights is None else (float(weights.sum()), float(np.square(weights).sum()))
        self.sums["counts"].add(share * np.array([count, *weight]))

    def add_energy(self, energy: float, cross: float, trace: float, inputs: float, whole: float) -> None:
        """Add what inputs x and gradients g of the tokens of a window have in common.

        That is Σ |x|² |g|², Σ w v of their weights, Σ v |g|², Σ |x|², and |Σ g xᵀ|² of all tokens together.
        """
        self.sums["energy"].add(np.array([energy, cross, trace, inputs, whole]))

    def parts(self) -> dict[str, Exact]:
        """The sums by their names."""
        return {part: one.exact() for part, one in self.sums.items()}


class Moments(NamedTuple):
    """Means of one stream.

    Attributes
    ----------
    matrix : sum of w x xᵀ over the number of vectors, in blocks down the diagonal
    powers : mean of x⁴ by the weights
    vectors : their number
    count : number of independent vectors of equal weight that tell as much: (Σ w)² / Σ w², for outputs over their
        `design_effect`
    """

    matrix: Float[np.ndarray, "groups height height"]
    powers: Float[np.ndarray, " n"]
    vectors: float
    count: float

    @staticmethod
    def of(sums: Mapping[str, Float[np.ndarray, "..."]], groups: int) -> "Moments":
        """Means from sums."""
        vectors, weight, squares = (float(one) for one in sums["counts"])
        powers = sums["powers"]
        matrix = unpacked(sums["outer"], len(powers) // groups) / vectors
        count = weight**2 / squares if squares > 0 else 0.0
        if "windows" in sums:
            count /= design_effect(float(np.sum(np.square(matrix * vectors))), vectors, *sums["windows"])
        return Moments(matrix, powers / weight if weight > 0 else powers, vectors, count)


def design_effect(total: float, vectors: float, windows: float, squares: float, fourths: float) -> float:
    """How much more the sum of x xᵀ varies than if the vectors of a window were independent of each other.

    By the scatter of windows, over the scatter of vectors; 1 where one window does not tell (Kish, "Survey Sampling",
    1965; theory 16.6).

    Parameters
    ----------
    total : squared norm of the sum of x xᵀ
    vectors, windows : how many
    squares, fourths : squared norms of x xᵀ, summed over windows first, and of each vector

    >>> x = np.array([1.0, 2.0, 4.0])[:, None].repeat(5, 1)  # three windows of five equal vectors each
    >>> design_effect((5 * 21.0) ** 2, 15.0, 3.0, float(25 * (x[:, 0] ** 4).sum()), float((x**4).sum()))
    7.5
    """
    alone = fourths - total / max(vectors, 1.0)
    if windows < 2 or not alone > 0:
        return 1.0
    return max(1.0, windows / (windows - 1) * (squares - total / windows) / alone)


def unpacked(lower: Float[np.ndarray, "groups entries"], height: int) -> Float[np.ndarray, "groups height height"]:
    """Symmetric matrices from their lower triangles."""
    rows, columns = np.tril_indices(height)
    found = np.empty((len(lower), height, height))
    found[:, rows, columns] = lower
    found[:, columns, rows] = lower
    return found


def _square_of(lower: Float[np.ndarray, "n n"]) -> float:
    """Squared norm of a symmetric matrix, from its lower triangle."""
    return float(2 * np.square(lower, dtype=np.float64).sum() - np.square(np.diag(lower), dtype=np.float64).sum())
