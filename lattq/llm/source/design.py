"""What a design of maps for a whole model is, and what it says about the maps that it folded."""

import dataclasses
from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int
from torch import Tensor

from lattq.errors import InvalidInputError
from lattq.progress import Stage

__all__ = ["ROUNDED", "Chain", "FoldedMap", "Kept", "MapDesign", "as_designs"]

ROUNDED = "rounded"  # in place of a structure: a layer whose weights are on a grid already
Kept = MutableMapping[str, Mapping[str, np.ndarray]]


@dataclasses.dataclass(frozen=True)
class FoldedMap:
    """One map that was folded into a model.

    Attributes
    ----------
    place : its full name
    structure : of the map, one of the place's structures, or "shift"; "rounded" for a layer, then the place, whose
        weights a design left on the grid of integers that it trained them for
    condition : of the map, ‖T‖₂ ‖T⁻¹‖₂: by how much rounding may grow
    design : what chose the map
    values : numbers that stay to be applied at run time; 0 because it is folded
    added : weights that the model has more, because its output layer no longer shares the embedding's
    certificate : bounds that hold for the map, by name, where its design gives one
    errors : of the outputs of its block on held-out tokens, relative and squared, where its design was trained: "plain"
        rounding, at the "start", and at the "end"
    clip : of a rounded layer, the factor on the range of its inputs that it was trained with, if they are rounded

    Examples
    --------
    >>> FoldedMap("model.layers.0.mlp_input", "diagonal", 8.0, "SmoothQuant").values
    0
    """

    place: str
    structure: str
    condition: float
    design: str = ""
    values: int = 0
    added: int = 0
    certificate: Mapping[str, float] | None = None
    errors: Mapping[str, float] | None = None
    clip: float | None = None


@runtime_checkable
class MapDesign(Protocol):
    """What chooses maps for a model and folds them, such as those of `lattq.llm.tune`.

    It is named by its `repr`, which must say all that the maps depend on beside the model and the windows.
    """

    def __call__(
        self, model: Any, windows: Int[Tensor, "windows window"], *, work: Stage, keep: Kept
    ) -> tuple[FoldedMap, ...]:
        """Fold maps into a model and say which.

        Parameters
        ----------
        model : a dense model of `transformers` in memory, in float32; its parameters are written
        windows : tokens to run it on
        work : the stage that this is part of
        keep : arrays by name, by name of what they are of: what an interrupted run has put there is there again when
            the same is repeated, so that long designs continue; empty at first
        """
        ...


def as_designs(name: str, value: Any) -> tuple[MapDesign, ...]:
    """Designs as a tuple; raises `InvalidInputError` for what is none, such as a class, and for no design at all.

    >>> from lattq.llm.tune import Rotate
    >>> as_designs("maps", [Rotate(seed=1)])[0].seed
    1
    """
    given = tuple(value) if isinstance(value, list | tuple) else (value,)
    wrong = [one for one in given if not callable(one) or isinstance(one, type)]
    if wrong or not given:
        msg = f"`{name}` holds {wrong[0]!r}, no design" if wrong else f"`{name}` holds no design"
        msg += "; pass one of `lattq.llm.tune`, such as SmoothQuant(), or a list of them"
        raise InvalidInputError(msg)
    return given


@dataclasses.dataclass(frozen=True)
class Chain:
    """Designs one after the other, each for the model that the ones before it leave.

    Attributes
    ----------
    designs : in their order

    Raises
    ------
    InvalidInputError : for what is no design, such as a class, and for none

    Examples
    --------
    >>> from lattq.llm.tune import Balanced, Rotate
    >>> Chain((Rotate(), Balanced())).designs[0]
    Rotate(seed=0, places=('residual', '*.values'))
    """

    designs: tuple[MapDesign, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "designs", as_designs("designs", self.designs))

    def __call__(
        self, model: Any, windows: Int[Tensor, "windows window"], *, work: Stage, keep: Kept
    ) -> tuple[FoldedMap, ...]:
        """Fold all of them."""
        found: list[FoldedMap] = []
        for index, design in enumerate(self.designs):
            with work.stage(type(design).__name__) as stage:
                found += design(model, windows, work=stage, keep=_Part(keep, f"{index} "))
        return tuple(found)


@dataclasses.dataclass
class _Part(MutableMapping[str, Mapping[str, np.ndarray]]):
    """The entries whose names begin with a prefix, without it."""

    whole: Kept
    prefix: str

    def __getitem__(self, name: str) -> Mapping[str, np.ndarray]:
        return self.whole[self.prefix + name]

    def __setitem__(self, name: str, value: Mapping[str, np.ndarray]) -> None:
        self.whole[self.prefix + name] = value

    def __delitem__(self, name: str) -> None:
        del self.whole[self.prefix + name]

    def __iter__(self) -> Iterator[str]:
        return (name.removeprefix(self.prefix) for name in self.whole if name.startswith(self.prefix))

    def __len__(self) -> int:
        return sum(1 for _ in self)
