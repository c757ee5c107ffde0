"""A scheme names the parts of a method; quantize runs them."""

import dataclasses
import math
from typing import Any

import numpy as np
from jaxtyping import Float
from threadpoolctl import threadpool_limits

from lattq import transforms
from lattq._array import Array, array_namespace, from_host, to_host
from lattq._options import as_integer, normalize
from lattq.errors import InvalidInputError
from lattq.explain import Explanation
from lattq.feedback import GAIN_GRID, Cholesky, Feedback, successive_cancellation
from lattq.least_squares import alternate
from lattq.linalg import check_layer
from lattq.parts import kind_of, require_part
from lattq.quantized import Quantized
from lattq.quantizers import Design, Entries, Given, Uniform, join

__all__ = ["Scheme", "quantize"]


@dataclasses.dataclass(frozen=True)
class Scheme:
    """How to quantize: transform x feedback x quantizer design x coder. Frozen, printable, comparable.

    Parameters
    ----------
    transform : design of the change of input coordinates
    feedback : what the loop feeds back, and in which order
    quantizer : design of the quantizer
    equalize : design of the diagonal that makes the pivots of the feedback equal; None leaves them as they are
    coder : integers to bytes; None takes the one that is made for the quantizer
    sweeps : passes of coordinate descent after the loop (see `successive_cancellation`)
    refit : what `lattq.refit` re-estimates once the codes are known, for example `lattq.least_squares.GAINS`
    rounds : how often sweeps and refit follow each other again, for codebooks: no step raises the distortion, if
        nothing is charged for bits

    Examples
    --------
    >>> Scheme(quantizer=Uniform(0.5)) == Scheme(quantizer=Uniform(0.5))
    True
    """

    transform: transforms.TransformDesign = dataclasses.field(default_factory=transforms.Identity)
    feedback: Feedback = dataclasses.field(default_factory=Cholesky)
    quantizer: Design = dataclasses.field(default_factory=Uniform)
    coder: Any = None
    equalize: transforms.Equalize | None = None
    sweeps: int = 0
    refit: tuple[str, ...] = ()
    rounds: int = 0

    def __post_init__(self) -> None:
        kinds = {"transform": transforms.TransformDesign, "feedback": Feedback, "quantizer": Design}
        for name, kind in kinds.items():
            if not isinstance(getattr(self, name), kind):
                msg = f"`{name}` is {getattr(self, name)!r}, no `{kind.__name__}`; pass a part as `Scheme` lists them"
                raise InvalidInputError(msg)
        normalize(self, as_integer, "rounds", "sweeps")
        self._check_rounds()
        transforms.refuse_equalize(self.transform)

    def explain(self, weight: Float[Array, "rows columns"], sigma: Float[Array, "columns columns"]) -> Explanation:
        """What runs on this matrix, in order, with bits and distortion of each stage; prints as a table.

        The scheme is run once for each stage that moves weights: the loop, then sweeps, refits and rounds. Bits add up
        to the rate of `quantize`, whose distortion is the last.

        Raises
        ------
        InvalidInputError, NotPositiveSemidefiniteError : as in `quantize`

        Examples
        --------
        >>> import numpy as np
        >>> import lattq as lq
        >>> found = lq.recipes.watersic(0.3).explain(np.random.default_rng(0).normal(size=(64, 8)), np.eye(8))
        >>> [(stage.name, round(stage.distortion, 4)) for stage in found.stages if stage.distortion]
        [('weights', 1.02), ('loop', 0.008), ('sweeps', 0.008)]
        """
        passes = [
            ("loop", "one pass: errors are fed into the columns that follow", {"sweeps": 0, "refit": (), "rounds": 0}),
            ("sweeps", f"{self.sweeps} passes of coordinate descent", {"refit": (), "rounds": 0}),
            ("refit", f"least squares for {', '.join(self.refit)}, codes as they are", {"rounds": 0}),
            ("rounds", f"{self.rounds} of sweeps and refits in turn", {}),
        ]
        runs = []
        for name, does, changes in passes:
            if name == "loop" or getattr(self, name):
                found = quantize(weight, sigma, dataclasses.replace(self, **changes))
                runs.append((name, does, found, found.distortion(weight, sigma)))
        final = runs[-1][2]
        zeros = dataclasses.replace(final, row_gains=np.zeros(final.shape[0], dtype=np.int64))
        return Explanation.of(self, zeros.distortion(weight, sigma), runs)

    def _check_rounds(self) -> None:
        for name in ("sweeps", "rounds"):
            if getattr(self, name) < 0:
                msg = f"`{name}` is {getattr(self, name)}; pass how many follow, 0 or more"
                raise InvalidInputError(msg)
        if self.coder is not None:
            require_part("coder", self.coder)
        if self.rounds and not getattr(self.quantizer, "in_rounds", False):
            msg = f"`rounds` is {self.rounds}, but only codebooks are fitted in rounds; pass 0 and more `sweeps`"
            raise InvalidInputError(msg)
        if self.rounds and (self.quantizer.shrink or set(self.refit) - {"tables"}):
            msg = f"`rounds` is {self.rounds}, whose sweeps know no gains; refit tables only, and do not shrink"
            raise InvalidInputError(msg)
        weighs = getattr(self.quantizer, "importance", None) is not None
        if weighs and not getattr(self.transform, "keeps_entries", False):
            msg = f"`importance` weighs the weights themselves, not those after {self.transform!r}; leave one out"
            raise InvalidInputError(msg)


def quantize(weight: Float[Array, "rows columns"], sigma: Float[Array, "columns columns"], scheme: Scheme) -> Quantized:
    """Quantize a weight matrix whose inputs have second moment `sigma`.

    Parameters
    ----------
    weight : any array library; the loop runs there, in its dtype (float32 at least)
    sigma : E[x xᵀ], symmetric positive semidefinite; singular is legal
    scheme : see `Scheme` and `lattq.recipes`

    Raises
    ------
    InvalidInputError : NaN, wrong shapes, codes that overflow
    NotPositiveSemidefiniteError : a negative pivot, named

    Examples
    --------
    >>> import numpy as np
    >>> import lattq as lq
    >>> lq.quantize(np.eye(2), np.eye(2), lq.recipes.rtn(levels=3)).dequantize()
    array([[1., 0.],
           [0., 1.]], dtype=float32)
    """
    weight, moment = check_layer(weight, sigma)
    with threadpool_limits(1):  # sums in one order: the same bytes whatever the number of threads
        transform = scheme.transform(weight, moment)
        kind_of("transform", transform)
        changed, second = transform.forward(weight), transform.congruence(moment)
        factor = scheme.feedback.factor(changed, second)
        _require_range(changed, np.ones(1), scheme)
        if scheme.equalize:
            diagonal = scheme.equalize(factor)
            _require_range(changed, diagonal.scale, scheme)
            transform, changed = transforms.append(transform, diagonal), diagonal.forward(changed)
            factor = factor.rescaled(1 / diagonal.scale)
        result = successive_cancellation(changed, factor, _Stored(scheme.quantizer), sweeps=scheme.sweeps)
        codes = to_host(result.codes)
        quantizer = join(result.quantizers, scheme.quantizer.group or weight.shape[1], tuple(weight.shape))
        found = Quantized(
            codes=codes,
            quantizer=quantizer,
            transform=transform,
            coder=scheme.coder or quantizer.coder,
            column_gains=result.gains if (result.gains != GAIN_GRID).any() else None,
            stats={
                "overload": result.overload,
                "underflow": quantizer.underflow(),
                "idle_columns": quantizer.idle(codes),
            },
        )
        if scheme.refit:
            found = alternate(found, weight, moment, scheme.refit)
        if scheme.rounds:
            found = _in_rounds(found, weight, moment, scheme, weight.shape[1] // len(factor.pivots))
        return found


def _in_rounds(found: Quantized, weight: Array, moment: np.ndarray, scheme: Scheme, block: int) -> Quantized:
    """Better codes for the tables, by coordinate descent on the second moment itself, then better tables for these."""
    changed = found.transform.forward(weight)
    factor = Cholesky(block=block).factor(changed, found.transform.congruence(moment))
    charged = getattr(scheme.quantizer, "slope", 0.0) > 0  # then distortion is traded for bits
    distortion = found.distortion(weight, moment)
    for _ in range(scheme.rounds):
        start = array_namespace(changed).astype(from_host(found.decoded(), like=changed), changed.dtype)
        design, sweeps = Given(found.quantizer), max(scheme.sweeps, 1)
        result = successive_cancellation(changed, factor, design, sweeps=sweeps, start=start)
        better = dataclasses.replace(found, codes=to_host(result.codes))
        if scheme.refit:
            better = alternate(better, weight, moment, scheme.refit)
        now = better.distortion(weight, moment)
        if not (now <= distortion or charged):
            break  # in float32 a singular moment may mislead, and would again
        found, distortion = better, now
    return found


def _require_range(weight: Array, scale: np.ndarray, scheme: Scheme) -> None:
    """Raise `InvalidInputError` unless the loop's dtype holds the scaled columns, and the sums of squares of gains."""
    xp = array_namespace(weight)
    columns = to_host(xp.max(xp.abs(weight), axis=0)).astype(np.float64)
    largest = float(np.maximum(columns * scale, scale).max())
    high = float(xp.finfo(weight.dtype).max)
    limit = math.sqrt(high / weight.shape[0]) if scheme.quantizer.shrink else high
    if not largest <= limit:
        msg = (
            f"weights scaled by the pivots of `sigma` reach {largest:.3g}, but {weight.dtype} holds up to {limit:.3g} "
            "here; multiply `sigma` or the weights by a constant, or pass the weights as float64"
        )
        raise InvalidInputError(msg)


@dataclasses.dataclass(frozen=True)
class _Stored:
    """A design whose quantizers are as files hold them, before anything is encoded."""

    design: Design

    @property
    def group(self) -> int | None:
        return self.design.group

    @property
    def shrink(self) -> bool:
        return self.design.shrink

    def __call__(self, entries: Entries) -> Any:
        found: Any = self.design(entries)
        require_part("quantizer", found)
        return found.stored()
