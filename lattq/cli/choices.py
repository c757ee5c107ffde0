"""What the options of `lattq quantize` choose from, and the recipe that they make."""

import enum
import functools
import inspect
from collections.abc import Callable
from typing import Any

from lattq import recipes
from lattq.errors import InvalidInputError
from lattq.scheme import Scheme

__all__ = ["Allocation", "Fit", "Order", "RecipeName", "recipe_of", "takers"]


class RecipeName(enum.StrEnum):
    """Recipes by name."""

    two_sided = "two_sided"
    watersic = "watersic"
    huffman_gptq = "huffman_gptq"
    watersic_published = "watersic_published"
    bitshift = "bitshift"
    ecvq = "ecvq"
    gptq = "gptq"
    gptq_published = "gptq_published"
    gptvq = "gptvq"
    gptvq_published = "gptvq_published"
    guided = "guided"
    nestquant = "nestquant"
    palettize = "palettize"
    pq = "pq"
    rtn = "rtn"
    squeezellm = "squeezellm"
    yaqa = "yaqa"


class Fit(enum.StrEnum):
    """What steps are fitted to."""

    error = "error"
    range = "range"


class Order(enum.StrEnum):
    """Orders of the feedback; "sorted" codes the columns of largest second moment first."""

    natural = "natural"
    reversed = "reversed"
    sorted = "sorted"
    pivoted = "pivoted"


class Allocation(enum.StrEnum):
    """How steps differ between layers."""

    loss = "loss"
    rate = "rate"
    distortion = "distortion"
    best = "best"


def recipe_of(name: str, **options: Any) -> Callable[..., Scheme]:
    """A recipe with the options that are not None; raises `InvalidInputError` for one it does not have.

    >>> recipe_of("rtn", group=None, sweeps=None)(levels=4).quantizer
    AbsMax(levels=4, group=128, shrink=False, shared=False, fit='error')
    """
    recipe = _recipe(name)
    given = {key: value for key, value in options.items() if value is not None}
    known = inspect.signature(recipe).parameters
    for key in (key for key in given if key not in known):
        msg = f"`--{key}` does not apply to the recipe {name}; leave it out or choose another recipe"
        raise InvalidInputError(msg)
    if given.get("group") == 0:
        given["group"] = None
    return functools.partial(recipe, **given)


def takers(option: str) -> str:
    """The recipes that have an option, for its help.

    >>> takers("group")
    'gptq, gptq_published, guided, rtn, yaqa'
    """
    return ", ".join(one for one in RecipeName if option in inspect.signature(_recipe(one)).parameters)


def _recipe(name: str) -> Callable[..., Scheme]:
    return recipes.UNBIASED if name == "watersic" else getattr(recipes, name)
