"""Options become Python numbers; None is an option only where it means something."""

from typing import Any

import numpy as np
import pytest

import lattq as lq
from lattq.coding import FixedLength, TwoWay
from lattq.errors import InvalidInputError
from lattq.lattices import E8
from lattq.lattices.coder import EntropyCodedLattice
from lattq.quantizers import AbsMax, Bitshift, Lattice, MinMax, Nested, Trellis, Uniform
from lattq.transforms import Hadamard
from lattq.trellis import EntropyCodedTrellis, TrellisCode
from lattq.trellis.bitshift import BitshiftCode

REQUIRED = [
    *((Uniform, name) for name in ("step", "offset")),
    *((Trellis, name) for name in ("states", "step", "segment")),
    *((Lattice, name) for name in ("lattice", "step")),
    *((Bitshift, name) for name in ("bits", "memory", "code", "block")),
    *((kind, "levels") for kind in (AbsMax, MinMax, FixedLength)),
    *((BitshiftCode, name) for name in ("bits", "memory", "code")),
    (TrellisCode, "states"),
    *((EntropyCodedTrellis, name) for name in ("states", "segment", "block")),
    *((EntropyCodedLattice, name) for name in ("name", "block")),
    (TwoWay, "block"),
    (Hadamard, "seed"),
    (lq.recipes.watersic, "step"),
    (lq.recipes.huffman_gptq, "step"),
    (lq.recipes.rtn, "levels"),
]


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(("kind", "name"), REQUIRED, ids=lambda value: getattr(value, "__name__", value))
@pytest.mark.parametrize("value", [None, [], "four"], ids=repr)
def test_values_that_no_option_has_are_named(kind: Any, name: str, value: Any):
    """None used to pass as an option of its own, and failed in a comparison."""
    with pytest.raises(InvalidInputError, match=f"`{name}` is"):
        kind(**{name: value})


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(("kind", "name"), REQUIRED, ids=lambda value: getattr(value, "__name__", value))
def test_a_matrix_in_place_of_an_option_is_not_printed(kind: Any, name: str):
    with pytest.raises(InvalidInputError, match=rf"`{name}` is a ndarray of shape \(96, 96\)"):
        kind(**{name: np.full((96, 96), 0.125)})


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("kind", "name"),
    [(Uniform, "dither"), (Uniform, "levels"), (AbsMax, "group"), (MinMax, "group"), (Bitshift, "group")],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_none_stays_where_it_is_an_option(kind: Any, name: str):
    assert getattr(kind(**{name: None}), name) is None
    with pytest.raises(InvalidInputError, match=f"`{name}` is 'four'"):
        kind(**{name: "four"})


@pytest.mark.usefixtures("unchecked")
def test_numbers_of_other_types_become_those_of_python():
    design = Bitshift(np.int64(2), np.int32(8), group=np.int8(3))  # pyright: ignore[reportArgumentType]
    assert [type(value) for value in (design.bits, design.memory, design.group)] == [int, int, int]
    assert type(Lattice(E8, np.float32(0.5)).step) is float  # pyright: ignore[reportArgumentType]


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("kind", "name"),
    [
        *((kind, "shrink") for kind in (Uniform, Trellis, Lattice, Bitshift, AbsMax, MinMax, Nested)),
        *((kind, "shared") for kind in (Bitshift, AbsMax, MinMax)),
        (Trellis, "priced"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_what_only_counts_as_true_is_no_flag(kind: Any, name: str):
    """The word "no" used to mean yes."""
    with pytest.raises(InvalidInputError, match=f"`{name}` is 'no'; pass True or False"):
        kind(**{name: "no"})
    assert getattr(kind(**{name: np.True_}), name) is True


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", ["transform", "feedback", "quantizer"])
def test_a_scheme_has_parts(name: str):
    with pytest.raises(InvalidInputError, match=f"`{name}` is 3, no `"):
        lq.Scheme(**{name: 3})  # pyright: ignore[reportArgumentType]
