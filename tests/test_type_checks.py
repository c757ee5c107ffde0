"""The cheaper checks of annotations find what jaxtyping's own find."""

import dataclasses
from collections.abc import Callable
from typing import Any

import beartype
import jaxtyping
import numpy as np
import pytest
from jaxtyping import Float

import lattq as lq
from lattq.linalg.hadamard import randomized_hadamard
from tests.type_checks import checked, plain

DECORATORS = [checked(typechecker=beartype.beartype), plain(typechecker=beartype.beartype)]
SQUARE, TALL = np.zeros((2, 2)), np.zeros((3, 2))


def product(a: Float[np.ndarray, "rows n"], b: Float[np.ndarray, "n columns"]) -> Float[np.ndarray, "rows columns"]:
    return a @ b


def transposed(a: Float[np.ndarray, "rows n"]) -> Float[np.ndarray, "n rows"]:
    return a


def named(size: int, name: str = "x") -> str:
    return name if size else size  # type: ignore[return-value]


RIGHT: list[tuple[Any, tuple]] = [(product, (TALL, SQUARE)), (transposed, (SQUARE,)), (named, (1,))]
WRONG: list[tuple[Any, tuple]] = [
    (product, (TALL, TALL)), (product, (TALL, SQUARE.astype(int))), (product, (TALL, [[1.0]])), (transposed, (TALL,)),
    (named, (0,)), (named, ("1",)),
]  # fmt: skip


@pytest.mark.parametrize("decorate", DECORATORS)
@pytest.mark.parametrize(("what", "arguments"), RIGHT)
def test_what_fits_is_accepted(decorate: Callable, what: Any, arguments: tuple):
    decorate(what)(*arguments)


@pytest.mark.parametrize("decorate", DECORATORS)
@pytest.mark.parametrize(("what", "arguments"), WRONG)
def test_what_does_not_fit_is_refused(decorate: Callable, what: Any, arguments: tuple):
    """Shapes of several arguments and of the result, dtypes, types."""
    with pytest.raises(jaxtyping.TypeCheckError):
        decorate(what)(*arguments)


@pytest.mark.parametrize("decorate", DECORATORS)
def test_fields_are_checked_together(decorate: Callable):
    @decorate
    @dataclasses.dataclass
    class Pair:
        a: Float[np.ndarray, "rows n"]
        b: Float[np.ndarray, " n"]

    Pair(TALL, np.zeros(2))
    with pytest.raises(jaxtyping.TypeCheckError):
        Pair(TALL, np.zeros(3))


def test_shapes_are_those_of_one_call():
    checks = checked(typechecker=beartype.beartype)
    inner = checks(product)
    twice = checks(lambda a: inner(inner(a, np.ones((2, 5))), np.ones((5, 2))))
    assert twice(TALL).shape == TALL.shape
    assert inner(SQUARE, np.zeros((2, 7))).shape == (2, 7)


def test_the_library_runs_under_them():
    with pytest.raises(jaxtyping.TypeCheckError):
        randomized_hadamard(np.zeros(4), "0")  # type: ignore[arg-type]
    assert lq.quantize.__wrapped__ is not None  # type: ignore[attr-defined]


@pytest.mark.usefixtures("unchecked")
def test_they_can_be_switched_off():
    for decorate in DECORATORS:
        assert decorate(named)("1") == "x"
