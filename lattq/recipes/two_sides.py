"""Recipes for metrics that say how much errors of the outputs count: fed along rows too, or by groups of rows."""

import dataclasses

from lattq.quantizers import Lattice, Trellis, Uniform
from lattq.recipes.grids import gptq, watersic
from lattq.scheme import Scheme
from lattq.transforms.designs import TransformDesign

__all__ = ["guided", "two_sided", "yaqa"]

SHRINKAGE = 0.2  # ratio of `MMSE` on each side: measured on a small Llama at 2 and 3 bits (theory 15.7)


def two_sided(
    step: float,
    *,
    quantizer: Uniform | Trellis | Lattice | None = None,
    rotation: TransformDesign | None = None,
    order: str = "pivoted",
    mmse: float = SHRINKAGE,
    sweeps: int | None = None,
) -> Scheme:
    """WaterSIC with both sides of a metric, and a trellis for its cell: what `quantize_model` takes unless told.

    A part of the MMSE rule keeps weights of low rate from costing more than zeros would, and shrinks them little enough
    for a chain of layers (theory 15.7).

    Parameters
    ----------
    step, rotation, order, mmse, sweeps : as in `watersic`
    quantizer : the cell, as in `watersic`; `Trellis(states=256)` unless given

    Examples
    --------
    >>> two_sided(step=0.1).quantizer
    Trellis(states=256, step=0.1, shrink=False, segment=512, priced=True)
    """
    cell = Trellis() if quantizer is None else quantizer
    return watersic(step, quantizer=cell, rotation=rotation, order=order, mmse=mmse, sweeps=sweeps, outputs=True)


def yaqa(
    levels: int = 16,
    *,
    group: int | None = 128,
    symmetric: bool = True,
    order: str = "reversed",
    damping: float = 0.01,
    fit: str = "error",
    sweeps: int = 6,
) -> Scheme:
    """`gptq` with feedback along rows too: the rounding of YAQA (Tseng et al. 2025) with integers for its quantizer.

    Sweeps spare a tenth of the errors that count at 3 and 4 bits: steps follow the rows, so that cells are not equal,
    and what is far from its best place finds it with all others known; then steps are fitted to their codes in the
    metric (theory 15.8).

    Parameters
    ----------
    levels, group, symmetric, order, damping, fit : as in `gptq`
    sweeps : passes of coordinate descent after the loop; 0 as published

    Examples
    --------
    >>> yaqa(levels=8).outputs
    True
    """
    found = gptq(levels, group=group, symmetric=symmetric, order=order, damping=damping, fit=fit)
    return dataclasses.replace(found, outputs=True, sweeps=sweeps, refit=("steps",) if fit == "error" else ())


def guided(
    levels: int = 16,
    *,
    guides: int = 4,
    group: int | None = 128,
    symmetric: bool = True,
    order: str = "reversed",
    damping: float = 0.01,
    fit: str = "error",
) -> Scheme:
    """`gptq` with a second moment for each group of rows, whose tokens weigh what they matter to it.

    Weights are mean squared gradients at the outputs of a group (GuidedQuant, Kim et al. 2025, with GPTQ for its
    rounding). `dataclasses.replace(watersic(step), guides=4)` is the same with entropy coding.

    Parameters
    ----------
    guides : groups of rows, at most, for each layer of a model; a `Metric` with `guides` has its own number
    levels, group, symmetric, order, damping, fit : as in `gptq`

    Examples
    --------
    >>> guided(levels=8).guides
    4
    """
    found = gptq(levels, group=group, symmetric=symmetric, order=order, damping=damping, fit=fit)
    return dataclasses.replace(found, guides=guides)
