"""A scheme names the parts of a method; quantize runs them."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float
from threadpoolctl import threadpool_limits

from lattq._array import Array, array_namespace, from_host, to_host
from lattq._coordinates import changed, require_below
from lattq._distortion import where_measured
from lattq._guard import Encoded, no_worse_than_zeros
from lattq._layer import check_layer
from lattq._metric import Metric
from lattq._options import as_flag, as_integer, normalize
from lattq.coding.integers import encode_integers
from lattq.errors import InvalidInputError, shown
from lattq.explain import Explanation
from lattq.feedback import Cholesky, successive_cancellation
from lattq.feedback.by_rows import cancel_groups
from lattq.feedback.cancellation import Cancellation
from lattq.feedback.loop import GAIN_GRID
from lattq.feedback.rules import Feedback
from lattq.least_squares.alternate import alternate
from lattq.linalg.ldl import LDL
from lattq.parts.registry import require_part
from lattq.quantized import Quantized
from lattq.quantizers import BaseDesign, Entries, Given, Uniform
from lattq.quantizers.groups import join
from lattq.transforms import Diagonal, Equalize, chains
from lattq.transforms.designs import TransformDesign, refuse_equalize
from lattq.transforms.gain import Gain, to_unit
from lattq.transforms.grid import bfloat16
from lattq.transforms.maps import Identity

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
    refit : what `lattq.refit` re-estimates once the codes are known, for example `lattq.least_squares.alternate.GAINS`
    rounds : how often sweeps and refit follow each other again, for codebooks: no step raises the distortion, if
        nothing is charged for bits
    outputs : whether the output side of a metric counts: errors are fed back along rows too, and with `equalize` rows
        have scales. Without it a metric is that of its inputs
    guides : groups of rows with a second moment of the inputs of their own (`Metric.guides`), each quantized for it; a
        metric says how many there are, and this number how many a model is asked for. 0 ignores them

    Examples
    --------
    >>> Scheme(quantizer=Uniform(0.5)) == Scheme(quantizer=Uniform(0.5))
    True
    """

    transform: TransformDesign = dataclasses.field(default_factory=Identity)
    feedback: Feedback = dataclasses.field(default_factory=Cholesky)
    quantizer: BaseDesign = dataclasses.field(default_factory=Uniform)
    coder: Any = None
    equalize: Equalize | None = None
    sweeps: int = 0
    refit: tuple[str, ...] = ()
    rounds: int = 0
    outputs: bool = False
    guides: int = 0

    def __post_init__(self) -> None:
        kinds = {"transform": TransformDesign, "feedback": Feedback, "quantizer": BaseDesign}
        for name, kind in kinds.items():
            if not isinstance(getattr(self, name), kind):
                msg = f"`{name}` is {shown(getattr(self, name))}, no `{kind.__name__}`; pass one, or inherit from it"
                raise InvalidInputError(msg)
        normalize(self, as_integer, "rounds", "sweeps", "guides")
        normalize(self, as_flag, "outputs")
        self._check_rounds()
        refuse_equalize(self.transform)

    def explain(self, weight: Float[Array, "rows columns"], sigma: Any) -> Explanation:
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
        checked, metric = check_layer(weight, sigma)
        host, metric = where_measured(runs[-1][2].transform, to_host(checked).astype(np.float64), metric)
        return Explanation.of(self, metric.squared_error(host), runs)

    def sees(self, metric: Metric) -> Metric:
        """The part of a metric that counts for this scheme.

        >>> import numpy as np
        >>> Scheme().sees(Metric(np.eye(2), np.ones(3))).outputs is None
        True
        """
        return metric.seen(outputs=self.outputs, guides=self.guides > 0)

    def _check_rounds(self) -> None:
        for name in ("sweeps", "rounds", "guides"):
            if getattr(self, name) < 0:
                msg = f"`{name}` is {getattr(self, name)}; pass how many, 0 or more"
                raise InvalidInputError(msg)
        whole = [f"`{name}` is" for name in ("refit", "rounds") if getattr(self, name)]
        whole += [f"`shrink` of {self.quantizer!r} is"] if self.quantizer.shrink else []
        whole += [f"the sequences of {self.quantizer!r} are"] if self.quantizer.sequences else []
        if self.guides and whole:
            msg = (
                f"`guides` is {self.guides}, but {whole[0]} for the rows of all groups together; pass guides=0, or a "
                "quantizer such as `Uniform`, `AbsMax` or `MinMax` without it"
            )
            raise InvalidInputError(msg)
        if self.coder is not None:
            require_part("coder", self.coder)
        if self.rounds and not self.quantizer.in_rounds:
            msg = f"`rounds` is {self.rounds}, but only codebooks are fitted in rounds; pass 0 and more `sweeps`"
            raise InvalidInputError(msg)
        if self.rounds and (self.quantizer.shrink or set(self.refit) - {"tables"}):
            msg = f"`rounds` is {self.rounds}, whose sweeps know no gains; refit tables only, and do not shrink"
            raise InvalidInputError(msg)


def quantize(weight: Float[Array, "rows columns"], sigma: Any, scheme: Scheme) -> Quantized:
    """Quantize a weight matrix whose errors cost what `sigma` says.

    Weights in another unit, by a power of two, give the same codes wherever the scheme has no step in that unit. No
    result is worse than zeros: where feedback drives targets out of the range of a quantizer, it is damped, and what
    even that does not help is shrunk row by row. `stats` count both: `retries`, `damping`, `shrunk_rows`.

    Parameters
    ----------
    weight : any array library; in its dtype (float32 at least) the loop runs there, or in NumPy, as the design wants it
    sigma : E[x xᵀ] of the inputs, symmetric positive semidefinite, singular is legal; or a `Metric`, which also says
        how much errors of the outputs count. Where its outputs are no diagonal the loop runs on the host, and codes
        that form sequences take the columns in their natural order
    scheme : see `Scheme` and `lattq.recipes`

    Raises
    ------
    InvalidInputError : NaN, wrong shapes, codes that overflow, a transform that leaves the layer worse than zeros
    NotPositiveSemidefiniteError : a negative pivot, named

    Examples
    --------
    >>> import numpy as np
    >>> import lattq as lq
    >>> lq.quantize(np.eye(2), np.eye(2), lq.recipes.rtn(levels=3)).dequantize()
    array([[1., 0.],
           [0., 1.]], dtype=float32)
    """
    if not isinstance(scheme, Scheme):
        msg = f"`scheme` is {shown(scheme)}; pass a `Scheme`, such as `lattq.recipes.watersic(step=0.1)`"
        raise InvalidInputError(msg)
    weight, metric = check_layer(weight, sigma)
    metric = scheme.sees(metric)
    weight = weight if scheme.quantizer.array_generic and metric.height == 1 else to_host(weight)
    with threadpool_limits(1):  # sums in one order: the same bytes whatever the number of threads
        return no_worse_than_zeros(lambda damping: _encoded(weight, metric, scheme, damping), weight, metric)


def _encoded(weight: Array, metric: Metric, scheme: Scheme, damping: float) -> Encoded:
    """One run of the scheme with so much more damping of its feedback."""
    transform, moved, factors, outputs = changed(weight, metric, scheme, damping)
    unit = to_unit(moved) if scheme.quantizer.scale_free else Gain(1.0)
    if unit.scale != 1.0:
        transform, moved = chains.append(transform, unit), unit.forward(moved)
        factors = [one.rescaled(np.full(weight.shape[1], 1 / unit.scale)) for one in factors]
    if scheme.quantizer.shrink:
        _require_squares(moved)
    kept = chains.kept(transform, tuple(weight.shape))
    run = functools.partial(cancel_groups, moved, factors, sweeps=scheme.sweeps, kept=kept, outputs=outputs)
    result = _shorter(run, factors[0], _Stored(scheme.quantizer))
    codes = to_host(result.codes)
    quantizer = join(result.quantizers, scheme.quantizer.group or weight.shape[1], tuple(weight.shape))
    quantizer = quantizer.along(metric.height)
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
        found = alternate(found, weight, metric, scheme.refit)
    if scheme.rounds:
        found = _in_rounds(found, weight, metric, scheme, weight.shape[1] // len(factors[0].pivots))
    if scheme.equalize and scheme.equalize.merged:
        found = _merged(found)
    aims_elsewhere = metric.outputs is not None or scheme.refit or scheme.rounds or found.column_gains is not None
    return Encoded(
        found,
        lambda: any(np.count_nonzero(one.unit) > len(one.unit) for one in factors),
        math.inf if aims_elsewhere or metric.guides is not None else result.bound / found.codes.size,
    )


def _shorter(run: Callable[[Any], Cancellation], factor: LDL, design: Any) -> Cancellation:
    """The loop; without gains of the columns where these take more bits than their smaller error is worth."""
    result = run(design)
    gains = result.gains / GAIN_GRID
    if not design.shrink or (gains == 1).all():
        return result
    pivots = np.empty(len(gains))
    sizes = factor.pivots if factor.pivots.ndim == 1 else np.diagonal(factor.pivots, axis1=1, axis2=2)
    pivots[factor.order] = sizes.reshape(-1)
    found, noise = (to_host(x).astype(np.float64) for x in (result.reconstruction, result.noise))
    plain = np.divide(found, gains, out=np.zeros_like(found), where=gains != 0)  # a gain of 0 brings what it can
    with_gains, without = (float(np.sum(pivots * np.square(e))) for e in (noise, noise + found - plain))
    bits = 8 * len(encode_integers(result.gains)[2]) / found.size
    if without <= with_gains or (with_gains > 0 and math.log2(without / with_gains) < 2 * bits):
        return run(dataclasses.replace(design, shrinks=False))
    return result


def _in_rounds(found: Quantized, weight: Array, metric: Metric, scheme: Scheme, block: int) -> Quantized:
    """Better codes for the tables, by coordinate descent on the second moment itself, then better tables for these."""
    moved = found.transform.forward(weight)
    now = metric.moved(found.transform)
    factor = Cholesky(block=block).factor(moved, now.inputs)
    charged = scheme.quantizer.slope > 0  # then distortion is traded for bits
    distortion = found.distortion(weight, metric)
    for _ in range(scheme.rounds):
        start = array_namespace(moved).astype(from_host(found.decoded(), like=moved), moved.dtype)
        design, sweeps = Given(found.quantizer), max(scheme.sweeps, 1)
        result = successive_cancellation(
            moved, factor, design, sweeps=sweeps, start=start, kept=found.kept, outputs=now.output_factor
        )
        better = dataclasses.replace(found, codes=to_host(result.codes))
        if scheme.refit:
            better = alternate(better, weight, metric, scheme.refit)
        less = better.distortion(weight, metric)
        if not (less <= distortion or charged):
            break  # in float32 a singular moment may mislead, and would again
        found, distortion = better, less
    return found


def _merged(found: Quantized) -> Quantized:
    """The gains of columns as part of the diagonal, which comes last: one number of 16 bits for both."""
    first, diagonal = chains.split_last(found.transform)
    gains = 1.0 if found.column_gains is None else np.maximum(found.column_gains, 1) / GAIN_GRID
    merged = Diagonal(bfloat16(diagonal.scale / gains))
    return found.revalued(transform=chains.append(first, merged), column_gains=None)


def _require_squares(weight: Array) -> None:
    """Raise `InvalidInputError` unless the loop's dtype holds the sums of squares of gains."""
    xp = array_namespace(weight)
    limit = math.sqrt(float(xp.finfo(weight.dtype).max) / weight.shape[0])
    require_below(float(xp.max(xp.abs(weight))), limit, weight)


@dataclasses.dataclass(frozen=True)
class _Stored:
    """A design whose quantizers are as files hold them, before anything is encoded."""

    design: BaseDesign
    shrinks: bool = True

    @property
    def group(self) -> int | None:
        return self.design.group

    @property
    def shrink(self) -> bool:
        return self.shrinks and self.design.shrink

    def __call__(self, entries: Entries) -> Any:
        found: Any = self.design(entries)
        require_part("quantizer", found)
        return found.stored()
