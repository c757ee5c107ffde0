"""Recipes of fixed rate whose cells are no cubes: a trellis, and nested lattices."""

from lattq._options import as_float
from lattq.errors import InvalidInputError, shown
from lattq.feedback import Cholesky, OpenLoop
from lattq.feedback.rules import Feedback, NoisyInputs
from lattq.lattices import E8
from lattq.lattices.nested import NESTQUANT_SCALES
from lattq.quantizers import Bitshift, Nested
from lattq.scheme import Scheme
from lattq.transforms import Hadamard
from lattq.transforms.designs import TransformDesign
from lattq.transforms.maps import Identity

__all__ = ["bitshift", "nestquant"]


def bitshift(
    bits: int = 2,
    *,
    memory: int = 12,
    code: str = "latin",
    rotation: TransformDesign | None = None,
    order: str = "reversed",
    damping: float = 0.01,
    shared: bool = True,
) -> Scheme:
    """A trellis of fixed rate down the rows of each column, with Cholesky feedback (QTIP, Tseng et al. 2024).

    Parameters
    ----------
    bits : per weight, 1 to 4
    memory, code, shared : as in `lattq.quantizers.Bitshift`
    rotation : a transform before the feedback, such as `Hadamard(seed)` of `lattq.transforms`, as QTIP has it: the code
        is made for Gaussian weights of one variance
    order, damping : as in `gptq`

    Examples
    --------
    >>> bitshift(bits=3).quantizer
    Bitshift(bits=3, memory=12, code='latin', block=256, group=1, shrink=False, shared=True)
    """
    return Scheme(
        transform=rotation or Identity(),
        feedback=Cholesky(order, damping),
        quantizer=Bitshift(bits, memory, code, shared=shared),
    )


def nestquant(
    levels: int = 14,
    *,
    scales: int | str | tuple[float, ...] = 4,
    noise: float = 0.0,
    damping: float = 1e-2,
    index: str = "coded",
    feedback: bool = True,
    seed: int = 0,
) -> Scheme:
    """Nested E8 lattices along rotated rows (NestQuant, Savkin et al. 2025): log2(levels) bits, and 1/4 for the scale.

    For weights, with feedback in blocks of eight columns; without it for activations, keys and values, whose rows are
    quantized as they come (`lattq.matmul.approximate`).

    Parameters
    ----------
    levels : q of the nested lattice, 2 to 256
    scales : how many, the best ones for Gaussian numbers; or the published ones for "weights", "activations", "keys" or
        "values" (with levels=14); or the scales themselves
    noise : mean square of the noise of the inputs over that of the inputs, if they are quantized too: 1 / 155 as
        published. The feedback is then `NoisyInputs`
    damping : as in `gptq`, where there is no noise
    index : how the scale is stored, see `lattq.lattices.packing.NestedCoder`
    feedback : False rounds in the open loop
    seed : of the rotation

    Raises
    ------
    InvalidInputError : for published scales with other levels, or noise without feedback

    Examples
    --------
    >>> nestquant(feedback=False).feedback
    OpenLoop(block=8)
    >>> nestquant(noise=1 / 155).feedback.noise == 1 / 155
    True
    """
    if isinstance(scales, str):
        if scales not in NESTQUANT_SCALES:
            msg = f"`scales` is {shown(scales)}; scales are published for {', '.join(NESTQUANT_SCALES)}"
            raise InvalidInputError(msg)
        if levels != 14:
            msg = f"`levels` is {shown(levels)}; the scales for {scales!r} are published for 14: pass scales=4"
            raise InvalidInputError(msg)
        scales = tuple(scale / 14 for scale in NESTQUANT_SCALES[scales])
    noise = as_float("noise", noise)
    if noise and not feedback:
        msg = f"`noise` is {noise}, which only feedback can use; leave it out, or pass feedback=True"
        raise InvalidInputError(msg)
    closed: Feedback = NoisyInputs(noise, block=8) if noise else Cholesky("natural", damping, block=8)
    return Scheme(
        transform=Hadamard(seed),
        feedback=closed if feedback else OpenLoop(block=8),
        quantizer=Nested(E8, levels, scales, index=index),
    )
