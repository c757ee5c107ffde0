"""What a place is: an activation of a model, the layers that write and read it, and the maps that are exact there.

A map T at an activation x, x → T x, goes into the outputs of the layers that write x, W → T W and b → T b, and T⁻¹ into
the inputs of those that read it, W → W T⁻¹, once and for all: the model keeps its class and costs nothing more. What
lies between decides which T are exact. In the notation of AffineQuant (arXiv 2403.12544), which writes X A⁻¹ · A W with
inputs as rows, T⁻¹ = Aᵀ.

Keys meet queries in a scalar product, so the inverse of a map of keys goes into the outputs of the queries, transposed:
(T⁻ᵀ q)ᵀ (T k) = qᵀ k. Where rotary embeddings lie between them, T must commute with every rotation of every pair: one
complex number for each pair does, and nothing else where the pairs turn at different speeds. A norm of queries and keys
leaves still less: one real number for each pair, the same for all heads, in its gains.

Names of locations are those of compressed-tensors; `GAIN`, the weight and bias of a norm, is ours.
"""

import dataclasses
import enum
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

__all__ = ["STRUCTURES", "Architecture", "Location", "Part", "Place", "Site"]


class Location(enum.StrEnum):
    """Where a map meets a layer, or the cache.

    >>> [str(location) for location in Location if location.online]
    ['input', 'output', 'k_cache', 'q_attn']
    """

    GAIN = "gain"
    WEIGHT_INPUT = "weight_input"
    WEIGHT_OUTPUT = "weight_output"
    INPUT = "input"
    OUTPUT = "output"
    K_CACHE = "k_cache"
    Q_ATTN = "q_attn"

    @property
    def online(self) -> bool:
        """Whether the map has to be applied at run time."""
        return self not in (Location.GAIN, Location.WEIGHT_INPUT, Location.WEIGHT_OUTPUT)


STRUCTURES = {
    "diagonal": "a number other than 0 for each channel",
    "positive": "a number above 0 for each channel",
    "permutation": "an order of the channels, x → x[order]",
    "heads": "an invertible matrix for each head of keys and values",
    "rotary": "a complex number other than 0 for each rotary pair of each head of keys",
    "pairs": "a real number other than 0 for each rotary pair, the same for all heads",
    "rotation": "an orthogonal matrix, while the gains of the norms between are 1",
    "centred_rotation": "a rotation that maps the vector of ones to itself or its negative",
}


class Part(NamedTuple):
    """Some of the outputs of a layer that computes several things at once.

    Attributes
    ----------
    stack : "qkv" for queries, keys and values, "halves" for gate and up
    index : which of them
    """

    stack: str
    index: int


class Site(NamedTuple):
    """A layer that a map changes.

    Attributes
    ----------
    module : its name; a star stands for the name of a block
    location : which side of it
    part : of its outputs, where it computes several things at once
    plus : what a norm adds to its weight to get the gain
    rows : first of its outputs that `part` means, and the first behind them, once the model is known
    transposed : whether the parameter holds inputs × outputs, as embeddings do, once the model is known
    """

    module: str
    location: Location
    part: Part | None = None
    plus: float = 0.0
    rows: tuple[int, int] | None = None
    transposed: bool = False


@dataclasses.dataclass(frozen=True)
class Place:
    """An activation, the layers around it, and the maps that are exact there.

    Attributes
    ----------
    name : with a star for one place in each block; a star in a site of a place without one stands for all blocks
    structures : keys of `STRUCTURES`, the maps that can be folded
    forward : sites that take T
    inverse : sites that take T⁻¹ on their inputs, or its transpose on their outputs
    gates : sites whose outputs multiply the activation channel by channel: they take its permutations
    norms : sites between the two; gains and biases take permutations, biases alone rotations
    per_head : whether maps act on each head of keys and values by itself
    shift : whether x → x − δ is exact too: "undone" by the biases of the readers, "free" if nothing needs to undo it
    online : where at run time any invertible map is exact
    requires : what the config must say
    heads, size : number of heads, or 1, and channels of each, once the model is known
    pairs : rotary pairs of a head, once the model is known

    Examples
    --------
    >>> hidden = Place("*.hidden", ("diagonal",), (Site("*.up", Location.WEIGHT_OUTPUT),),
    ...                (Site("*.down", Location.WEIGHT_INPUT),))
    >>> print(hidden)
    *.hidden: diagonal
        T into *.up weight_output
        T⁻¹ into *.down weight_input
    """

    name: str
    structures: tuple[str, ...]
    forward: tuple[Site, ...]
    inverse: tuple[Site, ...]
    gates: tuple[Site, ...] = ()
    norms: tuple[Site, ...] = ()
    per_head: bool = False
    shift: str | None = None
    online: Location | None = None
    requires: tuple[tuple[str, Any], ...] = ()
    heads: int = 0
    size: int = 0
    pairs: int = 0

    @property
    def sites(self) -> tuple[Site, ...]:
        """Every site."""
        return self.forward + self.inverse + self.gates + self.norms

    @property
    def channels(self) -> int:
        """Of the activation."""
        return self.heads * self.size

    @property
    def readers(self) -> tuple[str, ...]:
        """Names of the layers whose inputs are the activation."""
        return tuple(site.module for site in self.inverse if site.location is Location.WEIGHT_INPUT)

    def changed(self, change: Callable[[Site], Iterable[Site]], **fields: Any) -> "Place":
        """With each site replaced by those that `change` makes of it, and other fields by new values."""
        for key in ("forward", "inverse", "gates", "norms"):
            fields[key] = tuple(new for site in getattr(self, key) for new in change(site))
        return dataclasses.replace(self, **fields)

    def __str__(self) -> str:
        lines = [f"{self.name}: {', '.join(self.structures)}"]
        takes = {"T": self.forward, "T⁻¹": self.inverse, "permutations": self.gates, "gains 1 in": self.norms}
        for what, sites in takes.items():
            if sites:
                listed = ", ".join(dict.fromkeys(_shown(site) for site in sites))
                lines.append(f"    {what}{'' if what.endswith(' in') else ' into'} {listed}")
        if self.shift:
            lines.append(f"    shift {self.shift}" + (" by biases, if there are" if self.shift == "undone" else ""))
        if self.online:
            lines.append(f"    any map at run time at {self.online}")
        return "\n".join(lines)


class Architecture(NamedTuple):
    """Where the blocks of a class are, and its places.

    Names of modules are those below the base model, except `lm_head`. Of places with one name the first holds whose
    requirements the config meets.
    """

    blocks: str
    places: tuple[Place, ...]


def _shown(site: Site) -> str:
    """A site on one line."""
    part = f" ({site.part.index + 1} of {site.part.stack})" if site.part else ""
    gain = f" ({site.plus:g} + weight)" if site.plus else ""
    return f"{site.module}{part} {site.location}{gain}"
