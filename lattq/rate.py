"""The step, the number of levels or of bits at which a recipe reaches a rate in real bytes."""

import dataclasses
import functools
import inspect
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float
from threadpoolctl import threadpool_limits

from lattq._array import Array, array_namespace, from_host, to_host
from lattq._layer import check_layer
from lattq._metric import Metric
from lattq._options import as_float, as_seed
from lattq._rate_curve import RateCurve
from lattq._step_search import TOLERANCE, Rated, search_step
from lattq.errors import InvalidInputError, RateNotReachedError, shown
from lattq.quantized import Quantized
from lattq.scheme import Scheme, quantize

__all__ = ["at_rate"]

SAMPLE_ROWS = 128
SAMPLE_WEIGHTS = 1 << 16  # at least, so that the header of a sample is below 0.05 bit a weight
SAMPLE_NEAR = 0.03  # bits: curves are right to a tenth of a miss, so that the rest is within the tolerance
MAX_RATE = 24.0
RANGES = {"levels": (2, 257), "bits": (1, 9)}  # least number, and the first that is too many
GUESSES = 4  # then halving is surer
FULL_ENCODES = 6
MOST_ENCODES = 12
SMALL = 1 << 17  # weights over encodes: where the rate jumps by bytes, there are more, up to 64


def at_rate(
    rate: float,
    recipe: Callable[..., Scheme],
    weight: Float[Array, "rows columns"],
    sigma: Any,
    *,
    seed: int = 0,
) -> Quantized:
    """Quantize at a wanted rate of the real bytes, to 0.005 bit or one byte.

    Recipes with a `step` are searched along the rate that Gaussian weights are expected to take: first on a seeded
    sample of rows, then with at most six encodes of a larger matrix, where one or two do mostly. Recipes with `levels`
    (2 to 256) or `bits` (1 to 8) give the largest number whose rate is not above the target.

    Steps are 2^(k / 1024), k an integer, so the result does not depend on the last digits of sums. The bytes are the
    same for any memory layout of the arrays and any number of threads. On another processor the linear algebra may
    round otherwise: then the step is the same as long as the rates are, to a part of a thousandth of a bit, and a code
    differs only where a weight lies within rounding of the border of two cells.

    Parameters
    ----------
    rate : bits per weight, all bytes of `to_bytes()` included
    recipe : from a step, a number of levels or of bits to a `Scheme`; `functools.partial` sets its options. The first
        parameter called `step`, `levels` or `bits` that is not set is searched; without any, the first one is a step
    seed : of the sample of rows

    Raises
    ------
    InvalidInputError : for a rate that is not in (0, 24], a recipe with nothing left to search, or what `quantize`
        refuses
    RateNotReachedError : if no step comes within 0.005 bit or one byte, whichever is more, or two levels or one bit are
        too many; it carries the best result

    Examples
    --------
    >>> import lattq as lq
    >>> weight = np.random.default_rng(0).normal(size=(512, 32))
    >>> layer = lq.at_rate(3.0, lq.recipes.watersic, weight, np.eye(32))
    >>> abs(layer.rate - 3.0) <= 0.005
    True
    """
    rate = as_float("rate", rate)
    if not 0 < rate <= MAX_RATE:
        msg = f"`rate` is {rate} bits per weight; choose one above 0 and at most {MAX_RATE:g}"
        raise InvalidInputError(msg)
    seed = as_seed(seed)
    name, scheme = searched(recipe)
    if name != "step":
        return largest_levels(rate, lambda value: quantize(weight, sigma, scheme(value)), name, most(recipe))
    weight, metric = check_layer(weight, sigma)
    metric = scheme(1.0).sees(metric)
    size, rows = math.prod(weight.shape), weight.shape[0]
    with threadpool_limits(1):
        curve = RateCurve.of(weight, metric, scheme(1.0))
    encodes, tolerance = max(MOST_ENCODES, min(SMALL // size, 64)), max(TOLERANCE, 8 / size)
    step = curve.step(rate)
    sample = _row_sample(weight, metric, seed)
    if sample is not None:

        def of_sample(step: float) -> _Grown:
            return _Grown(quantize(*sample, scheme(step)), rows)

        step, near = search_step(rate, step, of_sample, curve, encodes=encodes, near=SAMPLE_NEAR)
        step, encodes = curve.step(curve.rate(step) + rate - near.rate), FULL_ENCODES

    def encode(step: float) -> Quantized:
        return quantize(weight, metric, scheme(step))

    step, best = search_step(rate, step, encode, curve, encodes=encodes, near=tolerance)
    if abs(best.rate - rate) > tolerance:
        msg = (
            f"no step of the recipe gives {rate} bits per weight within {tolerance:.3g}: the nearest found is "
            f"{best.rate:.4f} at step {step:.4g}; the {best.codes.size} weights carry {best.nbytes} bytes"
        )
        raise RateNotReachedError(msg, rate=rate, best=best)
    return best


def searched(recipe: Callable[..., Scheme]) -> tuple[str, Callable[..., Scheme]]:
    """What a recipe leaves to search, "step", "levels" or "bits", and the scheme as a function of that alone.

    Raises `InvalidInputError` for a recipe that leaves nothing, or for what is no recipe.

    >>> from lattq import recipes
    >>> name, scheme = searched(functools.partial(recipes.gptq, group=32))
    >>> name, scheme(8).quantizer
    ('levels', AbsMax(levels=8, group=32, shrink=False, shared=False, fit='error'))
    """
    if isinstance(recipe, Scheme) or not callable(recipe):
        msg = f"`recipe` is {shown(recipe)}; pass a function that returns a `Scheme`, such as `lattq.recipes.watersic`"
        raise InvalidInputError(msg)
    fixed = recipe.keywords if isinstance(recipe, functools.partial) else {}
    free = [one for one in inspect.signature(recipe).parameters.values() if one.name not in fixed]
    by_place = [one for one in free if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD, one.VAR_POSITIONAL)]
    named = [one for one in free if one.name in ("step", *RANGES)]
    if not named and by_place and isinstance(by_place[0].default, str):  # a name is no step
        by_place = []
    if not named and not by_place:
        msg = f"`recipe` is {shown(recipe)}, which leaves nothing to search; call `quantize` with what it returns"
        raise InvalidInputError(msg)
    found = (named or by_place)[0]
    if by_place and found is by_place[0]:
        return found.name if named else "step", recipe
    return found.name, lambda value: recipe(**{found.name: value})


def most(recipe: Callable[..., Scheme]) -> int:
    """The most levels or bits that a recipe takes.

    >>> from lattq import recipes
    >>> most(recipes.gptq), most(recipes.bitshift)
    (256, 4)
    """
    name, scheme = searched(recipe)
    if name not in RANGES:
        msg = f"`recipe` is {shown(recipe)}, which takes a step; only levels and bits have a largest number"
        raise InvalidInputError(msg)
    low, high = RANGES[name]
    if name == "levels":
        return high - 1
    for value in range(low, high):
        try:
            scheme(value)
        except InvalidInputError:
            return value - 1
    return high - 1


def largest_levels(rate: float, encode: Callable[[int], Rated], name: str = "levels", most: int | None = None) -> Rated:
    """Result with the most levels, 2 to 256, or bits, 1 to 8, whose rate is not above the target.

    The first guess is what fixed length would allow, the next what the last rate leaves. Raises `RateNotReachedError`
    if the least number is too many.

    >>> import types
    >>> largest_levels(3.2, lambda levels: types.SimpleNamespace(rate=math.log2(levels), levels=levels)).levels
    9
    """
    least, end = RANGES[name][0], RANGES[name][1] if most is None else most + 1
    low, high = least - 1, end
    best, found, value = None, None, fitting(name, rate)
    for guess in range(end):
        if high - low <= 1:
            break
        value = (low + high) // 2 if guess >= GUESSES else min(max(value, low + 1), high - 1)
        found = encode(value)
        low, high, best = (value, high, found) if found.rate <= rate else (low, value, best)
        value = fitting(name, rate - found.rate, value)
    if best is None:
        raise least_is_too_much(name, rate, found)
    return best


def least_is_too_much(name: str, rate: float, found: Any) -> RateNotReachedError:
    """The error for a rate below what two levels, or one bit, take.

    >>> import types
    >>> str(least_is_too_much("bits", 1.0, types.SimpleNamespace(rate=1.25)))
    'one bit already takes 1.2500 bits per weight, 1.0 were asked for; use an entropy coder'
    """
    least = "two levels already take" if name == "levels" else "one bit already takes"
    msg = f"{least} {found.rate:.4f} bits per weight, {rate} were asked for; use an entropy coder"
    return RateNotReachedError(msg, rate=rate, best=found)


def fitting(name: str, rate: float, value: int | None = None) -> int:
    """Levels or bits that may take so many bits more than a number of them, or than nothing.

    >>> fitting("levels", 3.2), fitting("levels", -0.2, 9), fitting("bits", 1.5, 2)
    (9, 7, 3)
    """
    if name == "bits":
        return (value or 0) + math.floor(rate)
    return math.floor((value or 1) * 2.0 ** min(rate, MAX_RATE))


def _row_sample(weight: Array, metric: Metric, seed: int) -> tuple[Array, Metric] | None:
    """Some rows, in whole groups of those that hear each other, and their metric; None where all would be needed.

    Groups are ordered by how large their weights are for their columns, and taken at equal distances: what is left of
    the sample's error is that of its rounding.
    """
    rows, columns = weight.shape
    height, wanted = metric.height, max(SAMPLE_ROWS, -(-SAMPLE_WEIGHTS // columns))
    every = rows // (-(-wanted // height) * height)
    if every < 2 or metric.guides is not None:
        return None
    squares = np.square(to_host(weight).astype(np.float64))
    means = squares.mean(axis=0)
    power = (squares / np.where(means > 0, means, 1.0)).mean(axis=1).reshape(-1, height).mean(axis=1)
    drawn = np.sort(np.argsort(power, kind="stable")[np.random.default_rng(seed).integers(every) :: every])
    chosen = (drawn[:, None] * height + np.arange(height)).reshape(-1)
    sample = array_namespace(weight).take(weight, from_host(chosen, like=weight), axis=0)
    return sample, metric.of_groups(drawn)


@dataclasses.dataclass(frozen=True)
class _Grown:
    """What a sample of rows says of a matrix with all of them."""

    sample: Quantized
    rows: int

    @property
    def rate(self) -> float:
        """Bits per weight: what codes and rows take grows with the rows, the rest is there once."""
        (rows, columns), sizes = self.sample.shape, self.sample.sizes()
        once = sum(size for name, size in sizes.items() if name != "coder") + self.sample.coder.fixed(self.sample.coded)
        return 8 * (once / self.rows + (self.sample.nbytes - once) / rows) / columns
