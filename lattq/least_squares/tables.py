"""Entries of codebooks by least squares, indices as they are: a small positive definite system, never formed."""

import dataclasses
import math

import numpy as np

from lattq._array import short_repr
from lattq._metric import Metric
from lattq.feedback.loop import GAIN_GRID
from lattq.quantized import Quantized
from lattq.transforms.chains import split_unit

__all__ = ["fit_tables", "fit_tables_by_adam"]

ITERATIONS = 12  # of conjugate gradients; five come within 1e-4 of the least error
ACCURACY = 1e-4
ADAM_STEPS, ADAM_RATE = 25, 1e-3


@short_repr
@dataclasses.dataclass(frozen=True, eq=False)
class _Entries:
    """Entries of all tables as one vector c: the reconstruction is linear in it, Ŵ = c[place] · factor."""

    tables: np.ndarray
    place: np.ndarray
    factor: np.ndarray

    @staticmethod
    def of(found: Quantized) -> "_Entries | None":
        """None for quantizers without tables."""
        form = found.quantizer.table_form()
        if form is None:
            return None
        factor = form.factors(found.shape)
        if found.column_gains is not None:
            factor = factor * (found.column_gains / GAIN_GRID)
        if found.row_gains is not None:
            factor = factor * (found.row_gains[:, None] / GAIN_GRID)
        if found.kept is not None:
            factor = factor * found.kept
        return _Entries(form.tables, form.places(found.codes), np.broadcast_to(factor, found.shape))

    def spread(self, entries: np.ndarray) -> np.ndarray:
        """The reconstruction."""
        return entries[self.place] * self.factor

    def gather(self, x: np.ndarray) -> np.ndarray:
        """The transpose of `spread`."""
        return np.bincount(self.place.ravel(), (x * self.factor).ravel(), self.tables.size)


def fit_tables(found: Quantized, w: np.ndarray, metric: Metric) -> Quantized:
    """argmin of tr(G (W-Ŵ) Σ (W-Ŵ)ᵀ) over the entries, by conjugate gradients with the diagonal as preconditioner.

    Then rounded as they are stored. Nothing for other quantizers.
    """
    linear = _Entries.of(found)
    if linear is None:
        return found
    entries, s = linear.tables.reshape(-1).copy(), metric.inputs
    diagonal = linear.gather(metric.diagonal(len(w)) * linear.factor)
    inverse = np.divide(1.0, diagonal, out=np.zeros_like(diagonal), where=diagonal > 0)
    rest = linear.gather(metric.left((w - linear.spread(entries)) @ s))
    turned = inverse * rest
    direction, power = turned, float(rest @ turned)
    enough = ACCURACY**2 * power
    for _ in range(ITERATIONS):
        if not power > enough:
            break
        image = linear.gather(metric.left(linear.spread(direction) @ s))
        curvature = float(direction @ image)
        if not curvature > 0:
            break
        entries += power / curvature * direction
        rest = rest - power / curvature * image
        turned = inverse * rest
        power, before = float(rest @ turned), power
        direction = turned + power / before * direction
    return found.revalued(quantizer=found.quantizer.with_tables(entries.reshape(linear.tables.shape)))


def fit_tables_by_adam(found: Quantized, w: np.ndarray, metric: Metric) -> Quantized:
    """The update of GPTVQ as published: 25 steps of Adam at rate 1e-3; where the loss ends higher, a tenth of the rate.

    Its result depends on the unit of the weights, unlike least squares: the unit is that of the weights as they came.
    That of the inputs drops out, up to Adam's 1e-8: a power of four brings the trace of Σ near 1. As published it has
    no output side.
    """
    linear = _Entries.of(found)
    if linear is None:
        return found
    s = metric.inputs
    unit = 2.0 ** -split_unit(found.transform)[1]
    of_inputs = 4.0 ** (math.frexp(np.trace(s))[1] // 2)
    start, ws, s = linear.tables.reshape(-1) * unit, w @ s * (unit / of_inputs), s / of_inputs

    def slope(entries: np.ndarray) -> tuple[float, np.ndarray]:
        """Loss, less that of zero entries, and its gradient."""
        decoded = linear.spread(entries)
        image = decoded @ s
        return float(np.sum(decoded * (image - 2 * ws))), 2 * linear.gather(image - ws)

    first, rate = slope(start)[0], ADAM_RATE
    for _ in range(12):  # the published loop has no end
        entries, mean, square = start.copy(), np.zeros_like(start), np.zeros_like(start)
        for step in range(1, ADAM_STEPS + 1):
            gradient = slope(entries)[1]
            mean, square = 0.9 * mean + 0.1 * gradient, 0.999 * square + 0.001 * gradient**2
            root = np.sqrt(square / (1 - 0.999**step)) + 1e-8
            entries = entries - rate * (mean / (1 - 0.9**step)) / root
        if slope(entries)[0] < first:
            return found.revalued(quantizer=found.quantizer.with_tables((entries / unit).reshape(linear.tables.shape)))
        rate /= 10
    return found
