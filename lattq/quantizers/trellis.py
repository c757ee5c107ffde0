"""Entropy-coded trellis quantization of columns: the cell is nearly a ball, and so is the loss."""

import dataclasses
import functools
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Num

from lattq._array import Array, array_namespace, from_host, short_repr, to_host
from lattq._options import as_flag, as_float, as_integer, normalize
from lattq.coding.scaling import Scaling
from lattq.coding.schema import SCALE, Record, checked
from lattq.parts import register
from lattq.quantizers.base import BaseDesign
from lattq.quantizers.entries import Entries
from lattq.quantizers.steps import OneStep, check_step, step_like, too_large
from lattq.quantizers.strips import Strip
from lattq.trellis import EntropyCodedTrellis, TrellisCode
from lattq.trellis.coder import SEGMENT, STATES
from lattq.trellis.codes import segment_ends, segments
from lattq.trellis.fronts import FrontTrellis

__all__ = ["Trellis", "TrellisQuantizer"]

LARGEST_CODE = 2**30
WIDE = 1.5  # codes: from here on odd and even codes cost the same


@register("quantizer", "trellis")
@short_repr
@dataclasses.dataclass(frozen=True, eq=False)
class TrellisQuantizer(OneStep):
    """The quantizer ``step / 2 * k``, where each segment of the column k is a sequence of a trellis code.

    Odd and even integers k are the two supersets, of spacing `step`. So the rate is that of cells of the side `step`,
    and the squared error step² times `TrellisCode.second_moment`, which is below 1/12.

    Parameters
    ----------
    step : spacing of the supersets, in the units of the weights; shape (1, 1)
    states, segment : of the code; least length of the sequences that a column is cut into
    priced : count what odd codes cost less to code, which matters below about one bit
    variance : of the weight at each entry; None where all are alike
    height : rows of a group, where sequences run along fronts and not down the columns; see `lattq.coding.fronts`

    Examples
    --------
    >>> quantizer = TrellisQuantizer(np.array([[0.5]]), states=4)
    >>> codes = quantizer.encode(np.array([[0.05], [0.22], [-0.3], [0.6]]))
    >>> codes.T, quantizer.decode(codes).T
    (array([[ 0,  2, -1,  3]], dtype=int32), array([[ 0.  ,  0.5 , -0.25,  0.75]]))
    """

    states: int = 256
    segment: int = 512
    priced: bool = True
    variance: Float[np.ndarray, " rows"] | None = dataclasses.field(default=None, repr=False)
    height: int = 1

    schema = Record(step=SCALE, states=STATES, segment=SEGMENT)

    @property
    def code(self) -> TrellisCode:
        """The code, which checks `states`."""
        return _code(self.states)

    @property
    def coder(self) -> EntropyCodedTrellis | FrontTrellis:
        """Conditions on the superset, which a decoder knows."""
        if self.height > 1:
            return FrontTrellis(self.states, self.segment, self.height)
        return EntropyCodedTrellis(self.states, self.segment)

    @property
    def scaling(self) -> Scaling:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Half a step."""
        return Scaling(float(self.step[0, 0] / 2))

    def strip(self, strip: Strip) -> int | None:
        """Compiled, unless a class has its own way to encode, or entries have prices of their own."""
        own = type(self).encode is TrellisQuantizer.encode and type(self).decode is TrellisQuantizer.decode
        if not own or self.variance is not None:
            return None
        from lattq.kernels import trellis_columns, viterbi  # numba takes long to import, and few need it

        half = self.step[0, 0] / 2
        pricing = 4 * self.code.second_moment, WIDE if self.priced else 0.0
        cuts, searcher = segment_ends(strip.rows, self.segment), viterbi.searcher(self.code.polynomials)
        searched: Any = trellis_columns.search_columns
        largest = searched(
            *(strip.target, strip.weight, strip.unit, strip.idle, strip.target.dtype.type(half), half, pricing, cuts),
            *(searcher, strip.codes, strip.error),
        )
        if not largest == 0.0:
            raise too_large(largest)
        return 0

    def in_front(self, rows: np.ndarray, columns: np.ndarray, variance: np.ndarray) -> "TrellisQuantizer":
        """With a price for each entry of its own."""
        return dataclasses.replace(self, variance=variance) if self.priced else self

    def along(self, height: int) -> "TrellisQuantizer":
        """Its sequences are the fronts."""
        return dataclasses.replace(self, height=height, variance=None)

    def encode(self, x: Float[Array, "rows block"]) -> Int[Array, "rows block"]:
        """Codes of the cheapest sequences; raises `CodeOverflowError` for NaN or a code beyond 2^30.

        The search runs on the host. Cheapest is the squared error plus what a bit is worth at this step times the bits
        of odd codes above those of even ones: that matters below a bit per weight.
        """
        host = to_host(x)
        scaled = host.T / (float(self.step[0, 0]) / 2)
        largest = float(np.abs(scaled).max(initial=0.0))
        if not largest <= LARGEST_CODE:
            raise too_large(largest)
        places, lengths = _sequences(host.shape[0], self.segment)
        even = places.size == len(host)  # then segments follow each other as they are
        flat = (scaled if even else np.take(scaled, places, axis=1)).reshape(-1, places.shape[1])
        odd = self._odd(scaled, places)
        lengths = lengths if len(scaled) == 1 else np.tile(lengths, len(scaled))
        found = self.code.search(flat, lengths, odd).reshape(len(scaled), -1)
        if not even:
            found = found[:, (np.arange(places.shape[1]) < lengths[: len(places), None]).ravel()]
        return from_host(np.ascontiguousarray(found.T), like=x)

    def decode(self, codes: Num[Array, "rows block"]) -> Float[Array, "rows block"]:
        """Reconstructions, in the dtype of `step`; of points between the codes too."""
        return array_namespace(codes).astype(codes, self.step.dtype) * (self.step / 2)

    def to_state(self) -> list:
        """Step, states and segment, for the container."""
        return [float(self.step[0, 0]), self.states, self.segment]

    @staticmethod
    def from_state(state: list, shape: tuple[int, int]) -> "TrellisQuantizer":
        """Inverse of `to_state`."""
        step, states, segment = checked(TrellisQuantizer.schema, state, "trellis quantizer")
        return TrellisQuantizer(np.full((1, 1), step), states, segment)

    def _odd(self, scaled: np.ndarray, places: np.ndarray) -> np.ndarray | None:
        """Price of an odd code at each place of the sequences, theory (5.10); None where there is none."""
        if not self.priced:
            return None
        noise = 4 * self.code.second_moment
        power = np.einsum("cr,cr->c", scaled, scaled) / scaled.shape[1]
        if self.variance is not None:  # beside what feedback adds, which is the same everywhere
            own = self.variance / (float(self.step[0, 0]) / 2) ** 2
            power = own + np.maximum(power - own.mean(), 0.0)[:, None]
        power = power + noise
        low = power < WIDE**2
        if not low.any():
            return None
        prices = np.zeros(power.shape)
        prices[low] = price_of_odd(power[low], noise)
        if self.variance is not None:
            return np.take(prices, places, axis=1).reshape(-1, places.shape[1])
        return np.broadcast_to(np.repeat(prices, len(places))[:, None], (len(prices) * len(places), places.shape[1]))


_code = functools.cache(TrellisCode)


@functools.lru_cache(maxsize=64)
def _sequences(rows: int, segment: int) -> tuple[np.ndarray, np.ndarray]:
    """Row of each time of each segment, and their lengths; where a segment has ended, its last row."""
    cuts = segments(rows, segment)
    starts, stops = np.array([(cut.start, cut.stop) for cut in cuts]).T
    times = np.arange((stops - starts).max(initial=0))
    return np.minimum(starts[:, None] + times, np.maximum(stops - 1, 0)[:, None]), stops - starts


def price_of_odd(power: np.ndarray, noise: float) -> np.ndarray:
    """2 D' ln (Z_1 / Z_0) for codes of this mean square and cells of this squared error D, D' = D / (1 + D / power).

    Z_0 and Z_1 sum exp(-k² / 2 power) over even and odd k. The price is negative: odd supersets have less to tell.

    >>> price_of_odd(np.array([0.5, 1.0]), 0.25).round(4)
    array([-0.1142, -0.0115])
    """
    q = np.exp(-0.5 / power)
    term, ratio, sums = np.ones_like(q), q, [np.ones_like(q), np.zeros_like(q)]
    for k in range(1, 17):  # the term q^(k²) from the one before it
        term = term * ratio
        ratio = ratio * q * q
        sums[k % 2] += 2 * term
    even, odd = sums
    return 2 * noise / (1 + noise / power) * np.log(odd / even)


@dataclasses.dataclass(frozen=True)
class Trellis(BaseDesign):
    """Design of an entropy-coded trellis quantizer down the rows of each column.

    Parameters
    ----------
    states : 4 to 4096, see `lattq.trellis.TrellisCode`; 256 is 0.032 bit from the limit, 8 is 0.075
    step : spacing of the supersets: the side of a cube of the same volume, as in `Uniform`
    shrink : scale each column by its LMMSE gain, inside the loop
    segment : least length of the sequences that a column is cut into; each starts anew, which costs 0.005 bit at 512
    priced : weigh bits against error below about one bit. That is right for targets that MMSE feedback has shrunk. For
        others it costs a layer distortion, but favours codes that are not 0: a model wins, whose layers must not shrink

    Examples
    --------
    >>> Trellis(states=8, step=0.5)(Entries(np.zeros((2, 1))))
    TrellisQuantizer(step=array([[0.5]]), states=8, segment=512, priced=True, height=1)
    """

    states: int = 256
    step: float = 1.0
    shrink: bool = False
    segment: int = 512
    priced: bool = True

    array_generic, scale_free, sequences = True, False, True  # `step` is in the unit of the weights

    def __post_init__(self) -> None:
        normalize(self, as_float, "step")
        normalize(self, as_integer, "states", "segment")
        normalize(self, as_flag, "shrink", "priced")
        check_step(self.step)
        segments(1, self.segment)
        _ = TrellisCode(self.states)

    @property
    def group(self) -> int | None:
        """All columns share the step."""
        return None

    @property
    def second_moment(self) -> float:
        """Squared error of a cell of side 1."""
        return TrellisCode(self.states).second_moment

    def __call__(self, entries: Entries) -> TrellisQuantizer:
        """The quantizer; it depends on the data only through dtype and device."""
        return TrellisQuantizer(step_like(self.step, entries.values), self.states, self.segment, self.priced)
