"""Recipes that round to grids: integers, number formats, lattices and trellises."""

import dataclasses
import functools

from lattq._options import as_float
from lattq.coding import Pooled, TwoWay
from lattq.errors import InvalidInputError, shown
from lattq.feedback import MMSE, Cholesky, OpenLoop
from lattq.feedback.rules import Feedback
from lattq.least_squares.alternate import GAINS
from lattq.quantizers import AbsMax, Format, Lattice, MinMax, Trellis, Uniform
from lattq.scheme import Scheme
from lattq.transforms import Equalize, Normalize
from lattq.transforms.designs import Sort, TransformDesign
from lattq.transforms.gain import LARGEST
from lattq.transforms.maps import Identity

__all__ = [
    "UNBIASED",
    "block_format",
    "gptq",
    "gptq_published",
    "huffman_gptq",
    "rtn",
    "watersic",
    "watersic_published",
]


def rtn(levels: int = 16, *, group: int | None = 128, symmetric: bool = True, fit: str = "error") -> Scheme:
    """Round to nearest: integers with a step for each group, without feedback.

    Steps of least error weigh the columns by the diagonal of the second moment, all alike where that is the identity.

    Parameters
    ----------
    levels : 2 to 256; 16 is INT4
    group : columns that share a step; None for one step per row
    symmetric : around 0; otherwise with a zero point
    fit : "error" for the step of least squared error; "range" for that of the largest magnitude, the usual baseline

    Examples
    --------
    >>> rtn(levels=8, fit="range").quantizer == AbsMax(levels=8, group=128)
    True
    """
    return Scheme(feedback=OpenLoop(), quantizer=(AbsMax if symmetric else MinMax)(levels, group, fit=fit))


def block_format(name: str = "mxfp4", *, feedback: Feedback | None = None, fit: str = "error") -> Scheme:
    """Round to nearest in a block format of hardware or QLoRA, its scales charged in their own format.

    Parameters
    ----------
    name : of `lattq.bounds.BLOCK_FORMATS`: "mxfp4", "mxfp6-e2m3", "mxfp6-e3m2", "mxfp8-e4m3", "mxfp8-e5m2", "mxint8"
        (blocks of 32, scales E8M0), "nvfp4" (16, E4M3, and one float32 for the whole weight) or "nf4" (64, float16)
    feedback : none unless given; `Cholesky("reversed", 0.01)` makes it GPTQ in that format
    fit : "error" for the scale of least squared error; "range" for the published rule, whose error on Gaussian numbers
        is `lattq.bounds.block_distortion`

    Examples
    --------
    >>> block_format("nf4", fit="range").quantizer == Format.named("nf4")
    True
    """
    design = Format.named(name, fit=fit)
    largest = LARGEST if fit == "range" else 0.75 * LARGEST  # the best scale may lie above the plain one
    transform = Normalize(largest) if design.scale == "e4m3" else Identity()
    return Scheme(transform=transform, feedback=OpenLoop() if feedback is None else feedback, quantizer=design)


def gptq(
    levels: int = 16,
    *,
    group: int | None = 128,
    symmetric: bool = True,
    order: str = "reversed",
    damping: float = 0.01,
    fit: str = "error",
) -> Scheme:
    """GPTQ (Frantar et al. 2023): integers with Cholesky feedback, and steps of least error unless asked otherwise.

    Parameters
    ----------
    levels, group, symmetric, fit : as in `rtn`
    order : "reversed" codes the first column first, as published; "sorted" is act-order, and with groups the columns
        are sorted before they form them, at 16 bits a column
    damping : fraction of the mean diagonal added to the factor

    Examples
    --------
    >>> gptq().feedback
    Cholesky(order='reversed', damping=0.01, block=1)
    >>> gptq(group=32, order="sorted").transform
    Sort()
    """
    sort = order == "sorted" and group is not None
    return Scheme(
        transform=Sort() if sort else Identity(),
        feedback=Cholesky("reversed" if sort else order, damping),
        quantizer=(AbsMax if symmetric else MinMax)(levels, group, fit=fit),
    )


def gptq_published(
    levels: int = 16,
    *,
    group: int | None = 128,
    symmetric: bool = False,
    order: str = "reversed",
    damping: float = 0.01,
) -> Scheme:
    """GPTQ in the setting it was published with: integers with a zero point that span each group's range. A baseline.

    Parameters
    ----------
    levels, group, symmetric, order, damping : as in `gptq`

    Examples
    --------
    >>> gptq_published().quantizer
    MinMax(levels=16, group=128, shrink=False, shared=False, fit='range')
    """
    return gptq(levels, group=group, symmetric=symmetric, order=order, damping=damping, fit="range")


def huffman_gptq(step: float, *, order: str = "reversed", damping: float = 0.0, shrink: bool = False) -> Scheme:
    """GPTQ with one uniform step for all columns and an entropy coder ("Huffman-GPTQ", HPTQ).

    Its loss over the bound at high rate is 0.2546 bit + ½ log2 (AM/GM of the pivots) (theory 2.2).

    Examples
    --------
    >>> huffman_gptq(0.1).quantizer
    Uniform(step=0.1, offset=0.0, shrink=False, dither=None, levels=None)
    """
    return Scheme(feedback=Cholesky(order, damping), quantizer=Uniform(step, shrink=shrink), coder=TwoWay())


def watersic(
    step: float,
    *,
    quantizer: Uniform | Trellis | Lattice | None = None,
    rotation: TransformDesign | None = None,
    order: str = "pivoted",
    mmse: float = 1.0,
    sweeps: int | None = None,
    shrink: bool | None = None,
    refit: tuple[str, ...] = (),
    coder: object = None,
    outputs: bool = True,
) -> Scheme:
    """WaterSIC (Lifar et al. 2026) with pivoted order, MMSE feedback, sweeps and two-way coding.

    MMSE feedback with ratio 1 already makes every reconstruction the least-squares one, so LMMSE gains and
    refits find next to nothing left (theory 2.4); without it (`mmse=0`) switch both on.

    Parameters
    ----------
    step : side c of the cell where pivots are equal; D is about c² / 12 whatever sigma is
    quantizer : the cell: `Uniform()` unless given, or `Trellis(states=256)`, or `Lattice(Leech24)` of `lattq.lattices`;
        its step is replaced
    rotation : a transform before equalization
    order, mmse : order of the feedback, and `ratio` of `MMSE`; 0 for plain Cholesky feedback. With a `Trellis`
        a ratio of 1.4 saves 0.01 bit at one bit (theory 5.5)
    sweeps : passes of coordinate descent, 2 unless given for cubic cells and 0 for others, which they hardly improve;
        each costs as much as the loop, and D then depends a little on sigma's basis
    shrink, refit, coder : as in `Uniform` and `Scheme`; with `sweeps` a shrunk column may be coded a little worse
    outputs : False ignores the output side of a metric, as all other recipes do. Sequences along fronts take the
        natural order, whatever `order` says: a decoder follows them

    Examples
    --------
    >>> watersic(step=0.1).feedback
    MMSE(noise=0.0008333333333333335, ratio=1.0, order='pivoted', block=1)
    """
    cell, step = Uniform() if quantizer is None else quantizer, as_float("step", step)
    if not all(hasattr(cell, name) for name in ("step", "second_moment")):
        msg = f"`quantizer` is {shown(cell)}; a cell with a step is Uniform(), Trellis() or Lattice()"
        raise InvalidInputError(msg)
    feedback = MMSE(step * step * cell.second_moment, mmse, order) if mmse else Cholesky(order)
    return Scheme(
        transform=rotation or Identity(),
        feedback=feedback,
        quantizer=dataclasses.replace(cell, step=step, shrink=cell.shrink if shrink is None else shrink),
        coder=coder,
        equalize=Equalize(),
        sweeps=cell.sweeps if sweeps is None else sweeps,
        refit=refit,
        outputs=outputs,
    )


# Errors that shrink the weights do not average out over the layers of a model (theory 2.6). All outputs count alike.
UNBIASED = functools.partial(watersic, mmse=0.0, outputs=False)


def watersic_published(step: float) -> Scheme:
    """WaterSIC as published: natural order, damping 1e-4, shrinkage, rescalers, one pooled histogram. A baseline.

    A column is charged one 16-bit number for its spacing and its rescaler together, as the authors count.

    Examples
    --------
    >>> watersic_published(0.1).coder
    Pooled()
    """
    return Scheme(
        feedback=Cholesky("natural", damping=1e-4),
        quantizer=Uniform(step, shrink=True),
        coder=Pooled(),
        equalize=Equalize(merged=True),
        refit=GAINS,
    )
