"""The scales of a nested code: dynamic programming for the first that fits, then descent for the best of all."""

import dataclasses
import math

import numpy as np
from jaxtyping import Bool, Float, Int

from lattq._array import Array, host_reals, short_repr
from lattq._options import among, as_integer, as_seed
from lattq.errors import InvalidInputError, shown
from lattq.lattices.lattice import Lattice
from lattq.lattices.nested import entropy_bits, pulled, trial
from lattq.lattices.voronoi import VoronoiCode

__all__ = ["best_scales"]

OCTAVE = 24  # candidates in a factor 2
PASSES = 20
MAGNITUDES = (1e-100, 1e100)  # of the largest entry of a sample, so that squares neither vanish nor overflow
RARE = 0.05  # share of vectors that may overload at the last scale


def best_scales(
    lattice: Lattice,
    q: int,
    count: int,
    sample: Float[Array, "size dim"] | None = None,
    *,
    rule: str = "best",
    coded: bool = True,
    shaping: str = "voronoi",
    samples: int = 2**15,
    seed: int = 0,
) -> tuple[float, ...]:
    """Scales for which ½ log2 of the squared error, plus the bits of the index if it is coded, is least on a sample.

    Candidates are a 24th of an octave apart. For the rule "first" each vector has a smallest candidate that does not
    overload, and scales are cuts of that order: dynamic programming finds the best ones, with the entropy of the index
    at the price 2 ln 2 D / n that a bit has at the distortion D. For "best" the scales of "first" are moved one by one
    as long as that helps.

    Parameters
    ----------
    lattice, q, shaping : of the Voronoi code
    count : number of scales, 1 to 16
    sample : vectors, (size, dim); None for `samples` vectors of independent N(0, 1)
    rule : of the encoder, "best" or "first"
    coded : whether the index will cost its entropy; otherwise its length is fixed
    samples, seed : of the Gaussian sample

    Raises
    ------
    InvalidInputError : for options out of range, or a sample without vectors or of zeros

    References
    ----------
    Savkin, Porat, Ordentlich, Polyanskiy 2025 (NestQuant).

    Examples
    --------
    >>> from lattq.lattices import Z
    >>> [round(scale, 2) for scale in best_scales(Z(1), 16, 1, samples=2**12)]
    [0.32]
    """
    code, count = VoronoiCode(lattice, q, shaping), as_integer("count", count)
    if not 1 <= count <= 16:
        msg = f"`count` is {count}; choose 1 to 16 scales"
        raise InvalidInputError(msg)
    if not among(rule, ("best", "first")):
        msg = f'`rule` is {shown(rule)}; choose "best" or "first"'
        raise InvalidInputError(msg)
    table = _table(code, _gaussian(code, samples, seed) if sample is None else _checked(sample))
    cuts = _first(table, min(count, len(table.scales)), 0.0)
    if coded:
        price = 2 * math.log(2) * table.loss(cuts, "first", coded=False)[0]
        cuts = _first(table, len(cuts), price)
    cuts = _descent(table, cuts, rule, coded)
    return tuple(table.scales[cuts].tolist())


@short_repr
@dataclasses.dataclass(frozen=True, eq=False)
class _Table:
    """Squared errors and overload of a sample at every candidate, (candidates, size); its first that fits, (size).

    In `last` are the errors where the candidate is the last scale, which pulls in what overloads.
    """

    scales: Float[np.ndarray, " candidates"]
    errors: Float[np.ndarray, "candidates size"]
    last: Float[np.ndarray, "candidates size"]
    fits: Int[np.ndarray, " size"]
    dimension: int
    overload: Bool[np.ndarray, "candidates size"]

    def loss(self, cuts: np.ndarray, rule: str, *, coded: bool) -> tuple[float, float]:
        """Squared error per vector, and what is to be minimised: bits per dimension, up to a constant."""
        errors = np.append(self.errors[cuts[:-1]], self.last[cuts[-1:]], axis=0)
        if rule == "best":
            index = errors.argmin(axis=0)
        else:
            index = np.minimum((self.overload[cuts]).argmin(axis=0), len(cuts) - 1)
            index[self.overload[cuts].all(axis=0)] = len(cuts) - 1
        distortion = float(np.take_along_axis(errors, index[None], axis=0).mean())
        bits = entropy_bits(np.bincount(index) / len(index)) if coded else 0.0
        return distortion, 0.5 * math.log2(max(distortion, 1e-300)) + bits / self.dimension


def _gaussian(code: VoronoiCode, samples: int, seed: int) -> np.ndarray:
    """Vectors of independent N(0, 1)."""
    count = as_integer("samples", samples)
    if count < 1:
        msg = f"`samples` is {count}; draw at least one vector"
        raise InvalidInputError(msg)
    return np.random.default_rng(as_seed(seed)).standard_normal((count, code.dimension)) @ code.frame


def _checked(sample: Array) -> np.ndarray:
    """The sample in float64."""
    sample = host_reals("sample", sample)
    if sample.ndim != 2 or not sample.any():
        msg = f"`sample` has shape {sample.shape} and {np.count_nonzero(sample)} entries that are not 0; pass vectors"
        raise InvalidInputError(msg)
    largest, (low, high) = float(np.abs(sample).max()), MAGNITUDES
    if not low <= largest <= high:
        msg = f"`sample` reaches {largest:.3g}, beyond {low:.3g} ... {high:.3g}; multiply it by a constant"
        raise InvalidInputError(msg)
    return sample.astype(np.float64)


def _table(code: VoronoiCode, sample: np.ndarray) -> _Table:
    """Candidates from a third of the scale at which a typical vector just fits, to one at which all fit."""
    radius = np.linalg.norm(sample, axis=1)
    reach = code.q * code.lattice.packing_radius  # a ball inside q times the cell
    typical = math.sqrt(float(np.mean(radius**2))) / (code.q * code.lattice.volume ** (1 / code.dimension))
    lowest = math.log2(typical / math.sqrt(code.dimension))
    highest = math.log2(2 * float(radius.max()) / max(reach - 2 * code.lattice.covering_radius, reach / 8))
    scales = 2 ** (lowest + np.arange(max(1, math.ceil((highest - lowest) * OCTAVE)) + 1) / OCTAVE)
    errors, last, overload = [], [], []
    for scale in scales:
        found = trial(code, sample, float(scale))
        over = found[2]
        errors.append(found[1])
        last.append(pulled(code, sample, float(scale), found)[1] if over.mean() < RARE else found[1])
        overload.append(over)
        if not over.any():
            break
    beyond = np.array(overload)
    fits = np.where(beyond.all(axis=0), len(errors) - 1, beyond.argmin(axis=0))
    return _Table(scales[: len(errors)], np.array(errors), np.array(last), fits, code.dimension, beyond)


def _first(table: _Table, count: int, price: float) -> np.ndarray:
    """Cuts i_1 < ... < i_count of the candidates with the least sum of errors and index bits.

    The vectors whose first fit lies in (i', i] get candidate i. With prefix sums the cost of every pair is known, and
    the best chain of pairs that ends at the last candidate needed is found in count · candidates² steps.
    """
    size, last = len(table.fits), int(table.fits.max())
    count = min(count, last + 1)
    sums = np.zeros((last + 1, last + 2))  # errors at i of vectors that fit below j
    for place in range(last + 1):
        sums[place, 1:] = np.cumsum(np.bincount(table.fits, table.errors[place], last + 1))
    numbers = np.append(0, np.cumsum(np.bincount(table.fits, minlength=last + 1)))
    rows, columns = np.arange(last + 1)[None, :], np.arange(last + 2)[:, None]  # candidate i, first place j above i'
    members = numbers[rows + 1] - numbers[np.minimum(columns, last + 1)]
    error = sums[rows, rows + 1] - sums[rows, np.minimum(columns, last + 1)]
    bits = members * np.log2(size / np.maximum(members, 1))
    cost = np.where(columns <= rows, error + price * bits / table.dimension, np.inf)
    best, origin = cost[0], []
    for _ in range(count - 1):
        chains = best[:, None] + cost[1:, :]  # the last cut is i', the next one starts above it
        origin.append(chains.argmin(axis=0))
        best = chains.min(axis=0)
    cuts = [last]
    for step in reversed(origin):
        cuts.append(int(step[cuts[-1]]))
    return np.array(cuts[::-1])


def _descent(table: _Table, cuts: np.ndarray, rule: str, coded: bool) -> np.ndarray:
    """Move one cut at a time, by up to an octave, as long as the loss falls."""
    moves = [way * size for size in (OCTAVE, OCTAVE // 2, OCTAVE // 4, 3, 2, 1) for way in (-1, 1)]
    least = table.loss(cuts, rule, coded=coded)[1]
    for _ in range(PASSES):
        before = least
        for place in range(len(cuts)):
            for move in moves:
                trial_cuts = cuts.copy()
                trial_cuts[place] += move
                if not 0 <= trial_cuts[place] < len(table.scales) or len(set(trial_cuts)) < len(cuts):
                    continue
                trial_cuts.sort()
                loss = table.loss(trial_cuts, rule, coded=coded)[1]
                if loss < least:
                    cuts, least = trial_cuts, loss
        if least == before:
            break
    return cuts
