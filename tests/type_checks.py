"""The checks of annotations that every test runs under, at a quarter of their usual price.

`--jaxtyping-packages` decorates each function of lattq with `jaxtyping.jaxtyped`, which binds the arguments of every
call by `inspect` and runs the type checker twice: up to half of the time of tests of the loop. Here the same checker
checks the same annotations in one pass, with one scope of shapes for each call. What is left out is the binding, which
serves annotations that refer to arguments by value (``"{n}"``): lattq has none.
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any

import jaxtyping
from beartype import BeartypeConf, beartype

__all__ = ["checked", "install"]

plain = jaxtyping.jaxtyped
scope = plain("context")
hinted = beartype(conf=BeartypeConf(violation_type=jaxtyping.TypeCheckError))


def checked(*, typechecker: Callable) -> Callable:
    """`jaxtyping.jaxtyped` as the import hook calls it, before functions and dataclasses."""

    def decorate(fn: Any) -> Any:
        if isinstance(fn, type):
            if dataclasses.is_dataclass(fn) and not hasattr(fn.__init__, "__wrapped__"):
                fn.__init__ = _in_scope(fn.__init__)
            return fn
        return _in_scope(fn) if inspect.isfunction(fn) else plain(fn, typechecker=typechecker)

    return decorate


def _in_scope(fn: Callable) -> Callable:
    strict, config = hinted(fn), jaxtyping.config

    @functools.wraps(fn)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        if config.jaxtyping_disable:
            return fn(*args, **kwargs)
        with scope:
            return strict(*args, **kwargs)

    return wrapper


def install() -> None:
    """Before lattq is imported."""
    jaxtyping.jaxtyped = checked
