"""What a scheme does to a matrix, in order, and where its bits and its distortion come from."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from lattq.quantized import Quantized

__all__ = ["Explanation"]


@dataclasses.dataclass(frozen=True)
class Stage:
    """One line of an `Explanation`.

    Attributes
    ----------
    name : the part of the scheme, or of the file
    does : what it does, in words
    nbytes : of the file that it takes
    bits : the same per weight
    distortion : squared error per weight once it has run; None where it moves no weight

    Examples
    --------
    >>> Stage("coder", "TwoWay()", 16, 2.0, None).bits
    2.0
    """

    name: str
    does: str
    nbytes: int
    bits: float
    distortion: float | None


@dataclasses.dataclass(frozen=True)
class Explanation:
    """What `Scheme.explain` returns; prints as a table.

    Attributes
    ----------
    stages : in the order in which they run
    shape : rows and columns

    Examples
    --------
    >>> import numpy as np
    >>> import lattq as lq
    >>> found = lq.recipes.rtn(levels=3).explain(np.eye(2), np.eye(2))
    >>> [stage.name for stage in found.stages]
    ['weights', 'transform', 'feedback', 'loop', 'quantizer', 'coder', 'container']
    >>> found.rate == lq.quantize(np.eye(2), np.eye(2), lq.recipes.rtn(levels=3)).rate
    True
    """

    stages: tuple[Stage, ...]
    shape: tuple[int, int]

    @property
    def rate(self) -> float:
        """Bits per weight of all stages: that of the file."""
        return 8 * sum(stage.nbytes for stage in self.stages) / (self.shape[0] * self.shape[1])

    @property
    def distortion(self) -> float:
        """Squared error per weight, once all stages have run."""
        return next(stage.distortion for stage in reversed(self.stages) if stage.distortion is not None)

    @staticmethod
    def of(scheme: Any, zeros: float, runs: Sequence[tuple[str, str, Quantized, float]]) -> "Explanation":
        """From the squared error of zeros, and the results of the passes and what they are called, first to last."""
        final = runs[-1][2]
        sizes, weights = final.sizes(), final.codes.size
        rows, columns = final.shape
        lines: list[tuple[str, str, int, float | None]] = [
            ("weights", f"{rows} x {columns}; the error of zeros in their place", 0, zeros),
            ("transform", repr(scheme.transform) + (", equalize" if scheme.equalize else ""), sizes["transform"], None),
            ("feedback", repr(scheme.feedback), 0, None),
            *((name, does, 0, distortion) for name, does, _, distortion in runs),
            ("quantizer", f"{scheme.quantizer!r}: its scales and tables", sizes["quantizer"], None),
            ("gains", "of rows and columns, and centroids", sizes["gains"], None),
            ("coder", f"{final.coder!r}: the codes", sizes["coder"], None),
            ("container", "header, shape and hash", sizes["container"], None),
        ]
        return Explanation(
            tuple(Stage(*line[:3], 8 * line[2] / weights, line[3]) for line in lines if line[0] != "gains" or line[2]),
            final.shape,
        )

    def __str__(self) -> str:
        """A table with a line for each stage, and the sums."""
        lines = [
            (s.name, s.does, f"{s.bits:.4f}", "" if s.distortion is None else f"{s.distortion:.4g}")
            for s in self.stages
        ]
        lines.append(("all", "", f"{self.rate:.4f}", f"{self.distortion:.4g}"))
        heads = ("stage", "does", "bits", "distortion")
        widths = [max(len(line[i]) for line in (heads, *lines)) for i in range(4)]
        widths[1] = min(widths[1], 72)
        texts = [
            f"{name:{widths[0]}}  {does[: widths[1]]:{widths[1]}}  {bits:>{widths[2]}}  {error:>{widths[3]}}"
            for name, does, bits, error in (heads, *lines)
        ]
        return "\n".join(text.rstrip() for text in texts)
