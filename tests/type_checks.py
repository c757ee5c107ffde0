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

__all__ = ["checked", "install"]

plain = jaxtyping.jaxtyped
scope = plain("context")


def checked(*, typechecker: Callable) -> Callable:
    """`jaxtyping.jaxtyped` as the import hook calls it, before functions and dataclasses."""
    return functools.partial(_decorated, typechecker=typechecker)


def _decorated(fn: Any, typechecker: Callable) -> Any:
    if isinstance(fn, type):
        if dataclasses.is_dataclass(fn) and not hasattr(fn.__init__, "__wrapped__"):
            fn.__init__ = _in_scope(fn.__init__, typechecker)
        return fn
    return _in_scope(fn, typechecker) if inspect.isfunction(fn) else plain(fn, typechecker=typechecker)


def _in_scope(fn: Callable, typechecker: Callable) -> Callable:
    hinted, config = typechecker(fn), jaxtyping.config

    @functools.wraps(fn)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        if config.jaxtyping_disable:
            return fn(*args, **kwargs)
        with scope:
            return hinted(*args, **kwargs)

    return wrapper


def install() -> None:
    """Before lattq is imported."""
    jaxtyping.jaxtyped = checked
