"""What reaches the readers of places, block by block, and the weights that read it there."""

import dataclasses
import fnmatch
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from lattq._array import to_host
from lattq._options import as_names
from lattq.errors import InvalidInputError
from lattq.llm.measure.hidden_states import follow
from lattq.llm.measure.moments import InputMoments
from lattq.llm.source.architecture import find_blocks
from lattq.llm.source.matrices import Matrix, matrices, watching
from lattq.llm.source.place import Place
from lattq.llm.source.places import places
from lattq.llm.source.windows import batches_of, run
from lattq.progress import Stage

__all__ = ["Reading", "chosen", "readings"]


@dataclasses.dataclass
class Reading:
    """Inputs and weights of the readers of a place.

    A reader has a column for each channel, or several where the heads of a group of queries read the same values: then
    `tied` numbers of columns are those of all copies.

    Attributes
    ----------
    place : that they read
    weight : of all readers, one above the other
    sigma : E[x xᵀ] of their inputs, shrunk as far as the number of tokens asks for
    low, high, size : least, largest, and mean magnitude of each input
    """

    place: Place
    weight: Float[np.ndarray, "rows columns"]
    sigma: Float[np.ndarray, "columns columns"]
    low: Float[np.ndarray, " columns"]
    high: Float[np.ndarray, " columns"]
    size: Float[np.ndarray, " columns"]

    @property
    def peaks(self) -> Float[np.ndarray, " channels"]:
        """Largest magnitude of each channel, over its copies."""
        return self.tied(np.maximum(np.abs(self.low), np.abs(self.high)))

    @property
    def copies(self) -> int:
        """Columns of a reader for each channel."""
        return self.weight.shape[1] // self.place.channels

    def heads(self, columns: Float[np.ndarray, "*rows columns"]) -> Float[np.ndarray, "*rows heads copies size"]:
        """Numbers of columns by head of the place, copy and channel of the head."""
        place = self.place
        return columns.reshape(*columns.shape[:-1], place.heads, self.copies, place.size)

    def stacked(self) -> Float[np.ndarray, "_ channels"]:
        """The weights that read the channels, copies one above the other."""
        parts = np.moveaxis(self.heads(self.weight), 2, 0)
        return parts.reshape(-1, self.place.channels)

    def tied(self, columns: Float[np.ndarray, " columns"], rule: Any = np.max) -> Float[np.ndarray, " channels"]:
        """One number of each channel for those of its copies."""
        return rule(self.heads(columns), axis=1).reshape(-1)

    def spread(self, channels: Float[np.ndarray, " channels"]) -> Float[np.ndarray, " columns"]:
        """Numbers of channels for their columns: inverse of `tied`."""
        heads = channels.reshape(self.place.heads, 1, self.place.size)
        return np.broadcast_to(heads, (self.place.heads, self.copies, self.place.size)).reshape(-1)


def chosen(model: Any, patterns: Sequence[str], structures: Sequence[str] | None = None) -> dict[str, Place]:
    """The places of a model whose name below the base model matches one of some patterns, ``*`` for any text.

    Parameters
    ----------
    structures : a place must allow one of them; those that allow none are passed over

    Raises
    ------
    InvalidInputError : if patterns are no texts, one matches nothing, or no place is left

    Examples
    --------
    >>> from lattq import llm
    >>> from lattq.llm.source import load_model
    >>> list(chosen(load_model(llm.embedded_model()), ["*.1.values"]))
    ['model.layers.1.values']
    """
    patterns = as_names("places", patterns)
    known = places(model)
    prefix = "" if model.base_model is model else f"{model.base_model_prefix}."
    found: dict[str, Place] = {}
    for pattern in patterns:
        named = [name for name in known if fnmatch.fnmatchcase(name.removeprefix(prefix), pattern)]
        if not named:
            msg = f"`places` holds {pattern!r}, which matches none of {', '.join(known)}"
            raise InvalidInputError(msg)
        found |= {name: known[name] for name in named}
    left = {
        name: place
        for name, place in known.items()
        if name in found and (structures is None or set(structures) & set(place.structures))
    }
    if not left:
        msg = (
            f"`places` are {', '.join(patterns)}, where {type(model).__name__} allows no map that is "
            f"{' or '.join(structures or ())}; choose others, see docs/places.md"
        )
        raise InvalidInputError(msg)
    return left


def readings(
    model: Any, found: Mapping[str, Place], windows: Int[Tensor, "windows window"], work: Stage
) -> Iterator[list[Reading]]:
    """The readings of the places of one block after the other, and then of those outside, such as the head's.

    Maps may be folded between one block and the next: hidden states between blocks stay as they are. Not so a map of
    the residual stream, which needs to be folded before or after all of them.

    Raises
    ------
    InvalidInputError : for no windows, and if no layer reads a place (keys), or one that does is no dense matrix
    """
    batches, known = batches_of(windows), matrices(model)
    names = find_blocks(model)
    groups = [[place for name, place in found.items() if name.startswith(f"{block}.")] for block, _ in names]
    inside = {place.name for group in groups for place in group}
    rest = [place for name, place in found.items() if name not in inside]
    last = max((index for index, group in enumerate(groups) if group), default=-1)
    if last >= 0:
        with work.stage("measure places", last + 1) as stage:
            stream = follow(model, [block for _, block in names], batches)
            for index in stage.over(range(last + 1)):
                if groups[index]:
                    with _Inputs(_readers(groups[index], known)) as inputs:
                        for batch in range(len(batches)):
                            with inputs.moments.record():
                                stream.apply(index, stream.hidden, batch)
                    yield [inputs.reading(place, known) for place in groups[index]]
                if index < last:
                    stream.hidden = stream.advance(index, stream.hidden)
    if rest:
        with work.stage("measure the head", len(batches)) as stage, _Inputs(_readers(rest, known)) as inputs:
            for batch in stage.over(batches):
                with torch.no_grad(), inputs.moments.record():
                    run(model, batch)
        yield [inputs.reading(place, known) for place in rest]


def _readers(group: list[Place], known: Mapping[str, Matrix]) -> dict[str, Matrix]:
    """One reader of each place: all read the same."""
    unread = [place.name for place in group if not place.readers]
    if unread:
        msg = f"no layer has {unread[0]} as its input, so nothing is known of what reads it; leave it out of `places`"
        raise InvalidInputError(msg)
    names = [place.readers[0] for place in group]
    missing = [name for name in names if name not in known]
    if missing:
        msg = f"{missing[0]} holds no dense matrix; design maps before quantizing"
        raise InvalidInputError(msg)
    return {name: known[name] for name in names}


class _Inputs:
    """Second moments and ranges of the inputs of layers, while it is open."""

    def __init__(self, layers: dict[str, Matrix]) -> None:
        self.moments = InputMoments(layers)
        self.low: dict[str, Tensor] = {}
        self.high: dict[str, Tensor] = {}
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}
        self._watching = watching(layers, self._seen)

    def __enter__(self) -> "_Inputs":
        self._watching.__enter__()
        return self

    def __exit__(self, *about: Any) -> None:
        self._watching.__exit__(*about)

    def _seen(self, name: str, x: Tensor, y: Tensor) -> None:
        rows = x.detach().reshape(-1, x.shape[-1])
        low, high = rows.amin(dim=0), rows.amax(dim=0)
        self.low[name] = torch.minimum(self.low.get(name, low), low)
        self.high[name] = torch.maximum(self.high.get(name, high), high)
        total = rows.abs().sum(dim=0, dtype=torch.float64)
        self.sums[name] = self.sums.get(name, torch.zeros_like(total)) + total
        self.counts[name] = self.counts.get(name, 0) + len(rows)

    def reading(self, place: Place, known: Mapping[str, Matrix]) -> Reading:
        """What was seen of a place."""
        first = place.readers[0]
        weight = np.vstack([np.asarray(to_host(known[name].weight), dtype=np.float64) for name in place.readers])
        low, high = (np.asarray(to_host(one[first]), dtype=np.float64) for one in (self.low, self.high))
        size = np.asarray(to_host(self.sums[first]), dtype=np.float64) / self.counts[first]
        return Reading(place, weight, self.moments.sigma(first), low, high, size)
