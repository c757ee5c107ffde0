"""What designs of maps refuse: options of any kind, places, windows, and what others kept. The argument is named."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from lattq.errors import InvalidInputError
from lattq.llm.source.design import MapDesign
from lattq.llm.tune import AWQ, Balanced, Reorder, Rotate, Schedule, Shift, SmoothQuant, Trained, chain
from lattq.llm.tune.affinequant import AffineQuant
from lattq.llm.tune.statistics import chosen
from lattq.progress import Stage
from tests.llm.decoders import TOKENS, decoder


def designed(design: MapDesign, model: Any, windows: Any = TOKENS) -> Any:
    """Rows of a design folded into a model."""
    return design(model, windows, work=Stage("maps"), keep={})


REFUSED: list[tuple[str, Callable[[], MapDesign], str]] = [
    ("gemma2", Rotate, r"no rotation is exact at model\.residual .* takes permutation; leave it out of `places`"),
    ("llama", lambda: SmoothQuant(strength=2), "`strength` is 2"),
    ("llama", lambda: SmoothQuant(places=("*.nowhere",)), r"'\*\.nowhere', which matches none of model\.layers\.0"),
    ("llama", lambda: SmoothQuant(places=("*.keys",)), "allows no map that is diagonal or positive"),
    ("llama", lambda: Balanced(places="residual"), "`places` is 'residual'; pass a tuple of names"),  # type: ignore[arg-type]
    ("llama", lambda: Balanced(share=-1), "`share` is -1"),
    ("opt", lambda: SmoothQuant(places=("*.keys",)), r"no layer has model\.decoder\.layers\.0\.keys as its input"),
    ("opt", lambda: Shift(places=("*.keys",)), r"no layer has model\.decoder\.layers\.0\.keys as its input"),
    ("opt", lambda: Balanced(places=("*.keys",)), r"no layer has model\.decoder\.layers\.0\.keys as its input"),
    ("llama", lambda: AWQ(levels=1), "`levels` is 1"),
    ("llama", lambda: AWQ(levels=4, group=0), "`group` is 0"),
    ("llama", lambda: AWQ(levels=4, points=0), "`points` is 0"),
    ("llama", lambda: Reorder(clusters=0), "`clusters` is 0"),
]


@pytest.mark.parametrize(("kind", "make", "message"), REFUSED)
def test_what_no_map_can_be_made_of_is_refused(kind: str, make: Any, message: str, unchecked: None):
    model = decoder(kind)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(InvalidInputError, match=message):
        designed(make(), model)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


MAKERS: dict[str, Callable[..., Any]] = {
    "AWQ": functools.partial(AWQ, levels=4),
    "AffineQuant": AffineQuant,
    "Balanced": Balanced,
    "Reorder": Reorder,
    "Rotate": Rotate,
    "Schedule": Schedule,
    "Shift": Shift,
    "SmoothQuant": SmoothQuant,
    "Trained": Trained,
}
NO_NUMBERS: tuple[Any, ...] = ("a", None, [1], 1j)
BEYOND: tuple[Any, ...] = (float("nan"), -1, 2)
ODD: dict[tuple[str, str], tuple[Any, ...]] = {
    ("SmoothQuant", "strength"): (*NO_NUMBERS, *BEYOND),
    ("AWQ", "levels"): (*NO_NUMBERS, *BEYOND[:2], 2.5, 257),
    ("AWQ", "group"): ("a", [1], 0, 2.5),
    ("AWQ", "points"): (*NO_NUMBERS, 0, 2.5),
    ("Balanced", "share"): (*NO_NUMBERS, *BEYOND),
    ("Balanced", "damping"): (*NO_NUMBERS, *BEYOND[:2], float("inf")),
    ("Balanced", "seed"): (*NO_NUMBERS, *BEYOND[:2]),
    ("Rotate", "seed"): (*NO_NUMBERS, *BEYOND[:2]),
    ("Reorder", "clusters"): (*NO_NUMBERS, 0),
    ("Reorder", "restarts"): (*NO_NUMBERS, 0),
    ("Reorder", "seed"): (*NO_NUMBERS, *BEYOND[:2]),
    ("AffineQuant", "stability"): (*NO_NUMBERS, *BEYOND, 0),
    ("AffineQuant", "strength"): (*NO_NUMBERS, *BEYOND),
    ("AffineQuant", "seed"): (*NO_NUMBERS, *BEYOND[:2], 2**64),
    ("Trained", "structures"): ("heads", None, (), (1,), [["heads"]], ("rotation",)),
    ("Trained", "ratio"): (*NO_NUMBERS, *BEYOND),
    ("Trained", "damping"): (*NO_NUMBERS, *BEYOND[:2]),
    ("Schedule", "rate"): (*NO_NUMBERS, *BEYOND[:2]),
    ("Schedule", "seed"): (*NO_NUMBERS, *BEYOND[:2], 2**64),
}
ODD |= {
    (name, "places"): ("residual", 3, None, (), (1,), [["residual"]])
    for name in ("AWQ", "Balanced", "Reorder", "Rotate", "Shift", "SmoothQuant", "Trained")
}


@pytest.mark.parametrize(("name", "option"), ODD)
def test_an_option_that_no_design_takes_is_named_when_it_is_made(name: str, option: str, unchecked: None):
    for value in ODD[name, option]:
        with pytest.raises(InvalidInputError, match=f"^`{option}` (is|holds) .*[;,] "):
            MAKERS[name](**{option: value})


def test_numbers_and_names_of_any_type_are_one_design(unchecked: None):
    """A design is named by its repr, by which an interrupted run is found again."""
    one: Any = np.float64(0.25)
    two: Any = np.int64(4)
    values: Any = ["*.values"]
    designs: list[tuple[Any, Any]] = [
        (SmoothQuant(one, values), SmoothQuant(0.25, ("*.values",))),
        (AWQ(two, two, two), AWQ(4, 4, 4)),
        (Balanced(one, one, two), Balanced(0.25, 0.25, 4)),
        (Rotate(two), Rotate(4)),
        (Reorder(two, two, two), Reorder(4, 4, 4)),
        (Trained(places=values), Trained(places=("*.values",))),
    ]
    for given, plain in designs:
        assert repr(given) == repr(plain)


READING: list[MapDesign] = [
    SmoothQuant(), AWQ(levels=4), Balanced(), Reorder(), Trained(), Trained(metric="distortion"), AffineQuant(),
]  # fmt: skip
NO_WINDOWS = (TOKENS[:0], TOKENS[:, :0], TOKENS[0], TOKENS.tolist(), None)


@pytest.mark.parametrize("design", READING, ids=lambda one: type(one).__name__)
def test_no_windows_are_named_where_a_design_reads_activations(design: MapDesign, unchecked: None):
    for windows in NO_WINDOWS:
        with pytest.raises(InvalidInputError, match=r"`windows` is .*; pass a tensor of tokens"):
            designed(design, decoder("llama"), windows)


@pytest.mark.parametrize("places", [(1,), 3, None, (), "residual", [["residual"]]])
def test_patterns_that_are_no_names_are_refused(places: Any, unchecked: None):
    with pytest.raises(InvalidInputError, match=r"^`places` (is|holds) .*; pass a tuple of"):
        chosen(decoder("llama"), places)


@pytest.mark.parametrize("designs", [(3,), (SmoothQuant,), (SmoothQuant(), None), ()])
def test_a_chain_of_what_is_no_design_is_refused(designs: Any, unchecked: None):
    with pytest.raises(InvalidInputError, match=r"^`designs` holds .*no design; pass one of `lattq\.llm\.tune`"):
        chain(*designs)


def test_a_class_without_a_table_is_refused():
    config = transformers.GPT2Config(n_embd=16, n_head=2, n_layer=1, vocab_size=64)
    with pytest.raises(InvalidInputError, match="no table of places for models of the type 'gpt2'"):
        designed(SmoothQuant(), transformers.GPT2LMHeadModel(config))
