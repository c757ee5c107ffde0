"""The step, the number of levels or of bits at which a recipe reaches a rate in real bytes."""

import functools
import inspect
import math
from collections.abc import Callable
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np
from jaxtyping import Float
from threadpoolctl import threadpool_limits

from lattq import bounds
from lattq._array import Array, array_namespace, from_host, to_host
from lattq._options import as_float, as_seed
from lattq.errors import CodeOverflowError, InvalidInputError, RateNotReachedError
from lattq.linalg import check_layer
from lattq.quantized import Quantized
from lattq.scheme import Scheme, quantize

__all__ = ["HasRate", "at_rate", "first_step", "largest_levels", "most", "search_step", "searched"]

TOLERANCE = 0.005
SAMPLE_ROWS = 512
SAMPLE_WEIGHTS = 1 << 16  # at least, so that the header of a sample is below 0.05 bit a weight
MAX_RATE = 24.0
RANGES = {"levels": (2, 257), "bits": (1, 9)}  # least number, and the first that is too many
FULL_ENCODES = 6
MOST_ENCODES = 12
OVERFLOW_MOVE = 8.0  # octaves up, after codes that no coder holds
LARGEST_MOVE = 3.0  # octaves: beyond that a slope says nothing


@runtime_checkable
class HasRate(Protocol):
    """Anything with a rate in bits per weight: a quantized matrix, or a whole model."""

    @property
    def rate(self) -> float:
        """Bits per weight."""
        ...


Rated = TypeVar("Rated", bound=HasRate)


def at_rate(
    rate: float,
    recipe: Callable[..., Scheme],
    weight: Float[Array, "rows columns"],
    sigma: Float[Array, "columns columns"],
    *,
    seed: int = 0,
) -> Quantized:
    """Quantize at a wanted rate of the real bytes.

    Recipes with a `step` are searched by secant on log2(step), where the rate has slope -1 at high rate: first on a
    seeded sample of rows, then with at most six encodes of a larger matrix. Recipes with `levels` (2 to 256) or `bits`
    (1 to 8) give the largest number whose rate is not above the target.

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
    RateNotReachedError : if no step comes within 0.005 bit, or two levels or one bit are too many; it carries the best
        result

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
    weight, sigma = check_layer(weight, sigma)
    sample = _row_sample(weight, seed)
    with threadpool_limits(1):
        step = first_step(rate, sample, sigma)
    encodes = MOST_ENCODES
    if sample.shape[0] < weight.shape[0]:
        step, _ = search_step(rate, step, lambda step: quantize(sample, sigma, scheme(step)), encodes=encodes)
        encodes = FULL_ENCODES
    step, best = search_step(rate, step, lambda step: quantize(weight, sigma, scheme(step)), encodes=encodes)
    if abs(best.rate - rate) > TOLERANCE:
        msg = (
            f"no step of the recipe gives {rate} bits per weight within {TOLERANCE}: the nearest found is "
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
        msg = f"`recipe` is {recipe!r}; pass a function that returns a `Scheme`, such as `lattq.recipes.watersic`"
        raise InvalidInputError(msg)
    fixed = recipe.keywords if isinstance(recipe, functools.partial) else {}
    free = [one for one in inspect.signature(recipe).parameters.values() if one.name not in fixed]
    by_place = [one for one in free if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD, one.VAR_POSITIONAL)]
    named = [one for one in free if one.name in ("step", *RANGES)]
    if not named and by_place and isinstance(by_place[0].default, str):  # a name is no step
        by_place = []
    if not named and not by_place:
        msg = f"`recipe` is {recipe!r}, which leaves nothing to search; call `quantize` with what it returns"
        raise InvalidInputError(msg)
    found = (named or by_place)[0]
    if by_place and found is by_place[0]:
        return found.name if named else "step", recipe
    return found.name, lambda value: recipe(**{found.name: value})


def search_step(rate: float, step: float, encode: Callable[[float], Rated], *, encodes: int) -> tuple[float, Rated]:
    """Secant on log2(step) for `encode(step).rate == rate`; the step that came closest and its result.

    Stops within a fifth of the tolerance, or after `encodes` calls. A step whose codes overflow is too small.
    Raises `RateNotReachedError` if that holds for all.

    >>> import types
    >>> search_step(3.0, 1.0, lambda step: types.SimpleNamespace(rate=2 - math.log2(step)), encodes=3)[0]
    0.5
    """
    tried: list[tuple[float, Rated]] = []
    log, slope, floor = math.log2(step), -1.0, -math.inf
    for _ in range(encodes):
        try:
            tried.append((log, encode(2.0**log)))
        except CodeOverflowError:  # the rate is above any that a coder holds
            floor = log
            log = (log + tried[-1][0]) / 2 if tried else log + OVERFLOW_MOVE
            continue
        miss = tried[-1][1].rate - rate
        if abs(miss) <= TOLERANCE / 5:
            break
        if len(tried) > 1:
            (old_log, old), (_, new) = tried[-2:]
            if new.rate != old.rate:
                slope = min(max((new.rate - old.rate) / (log - old_log), -2.0), -0.05)
        move = min(max(-miss / slope, -LARGEST_MOVE), LARGEST_MOVE)
        log = max(log + move, (log + floor) / 2)
    if not tried:
        msg = f"steps up to 2^{floor:.0f} give codes that no coder holds; {rate} bits per weight are too many here"
        raise RateNotReachedError(msg, rate=rate)
    best_log, best = min(tried, key=lambda one: abs(one[1].rate - rate))
    return 2.0**best_log, best


def most(recipe: Callable[..., Scheme]) -> int:
    """The most levels or bits that a recipe takes.

    >>> from lattq import recipes
    >>> most(recipes.gptq), most(recipes.bitshift)
    (256, 4)
    """
    name, scheme = searched(recipe)
    if name not in RANGES:
        msg = f"`recipe` is {recipe!r}, which takes a step; only levels and bits have a largest number"
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

    Raises `RateNotReachedError` if the least number is too many.

    >>> import types
    >>> largest_levels(3.2, lambda levels: types.SimpleNamespace(rate=math.log2(levels), levels=levels)).levels
    9
    """
    low, high = RANGES[name][0], RANGES[name][1] if most is None else most + 1
    best = encode(low)
    if best.rate > rate:
        least = "two levels already take" if name == "levels" else "one bit already takes"
        msg = f"{least} {best.rate:.4f} bits per weight, {rate} were asked for; use an entropy coder"
        raise RateNotReachedError(msg, rate=rate, best=best)
    while high - low > 1:
        middle = (low + high) // 2
        found = encode(middle)
        if found.rate <= rate:
            best, low = found, middle
        else:
            high = middle
    return best


def first_step(rate: float, weight: Array, sigma: Array) -> float:
    """Step whose cell gives the distortion that the bound allows at `rate`, less the loss of a cubic cell.

    >>> bool(abs(first_step(4.0, np.ones((1, 2)), np.eye(2)) - 4.13 / 16) < 0.01)
    True
    """
    host = to_host(weight).astype(np.float64)
    peak = float(np.abs(host).max()) or 1.0
    squares = np.square(host / peak)
    # One round of the two-way fit is near enough, and exists for sparse weights too.
    rows = squares.mean(axis=1) / (squares.mean() or 1.0)
    columns = squares.mean(axis=0) * (peak * peak)
    if not np.any(rows) or not np.any(columns) or not np.any(to_host(sigma)):
        return 1.0
    distortion = bounds.layer_distortion(sigma, max(rate - bounds.CUBIC_GAP, rate / 4), rows, columns)
    return math.sqrt(12 * distortion) if distortion > 0 else 1.0


def _row_sample(weight: Array, seed: int) -> Array:
    rows, columns = weight.shape
    size = max(SAMPLE_ROWS, -(-SAMPLE_WEIGHTS // columns))
    if rows <= size:
        return weight
    chosen = np.sort(np.random.default_rng(seed).permutation(rows)[:size])
    return array_namespace(weight).take(weight, from_host(chosen, like=weight), axis=0)
