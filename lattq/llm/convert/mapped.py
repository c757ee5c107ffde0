"""Maps folded into the model before anything is measured, so that the files hold exactly what was quantized.

A directory keeps the gains of norms, biases and embeddings in the type of its source, often bfloat16, while the weights
behind them are quantized from float32. A gain g s that the file rounds to g' realizes the scale g' / g and not s, so
that the weights must take the inverse of that; the same holds for biases in front of layers with biases. Then what
rounding leaves is that of the biases of the readers, of embeddings and of layers that stay dense (`docs/places.md`).
"""

import re
from collections.abc import Collection, Mapping
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lattq.errors import InvalidInputError
from lattq.llm.run.digests import digests_of_state
from lattq.llm.run.plugin import saved_tensors
from lattq.llm.source.design import Chain, FoldedMap, Kept, MapDesign, as_designs
from lattq.llm.source.place import Location, Place, Site
from lattq.llm.source.places import places
from lattq.llm.source.windows import batches_of, run
from lattq.progress import Stage

__all__ = ["changed_tensors", "design_of", "fold_maps", "settle"]

Types = Mapping[str, torch.dtype]


def design_of(maps: Any) -> MapDesign | None:
    """One design for what `quantize_model` was given; raises `InvalidInputError` for what is none."""
    if maps is None:
        return None
    found = as_designs("maps", maps)
    if any(re.search(r" at 0x[0-9a-fA-F]+>", repr(one)) for one in found):
        msg = f"`maps` is {maps!r}, whose repr differs from run to run; a design is named by it: give it one that lasts"
        raise InvalidInputError(msg)
    return Chain(found) if isinstance(maps, list | tuple) else found[0]


def fold_maps(
    model: Any,
    windows: Int[Tensor, "windows window"],
    design: MapDesign,
    own: Mapping[str, bytes],
    dtypes: Types,
    work: Stage,
    keep: Kept,
) -> tuple[FoldedMap, ...]:
    """Fold a design into a model in float32.

    Parameters
    ----------
    own : digests of its tensors in the source
    dtypes : of its tensors in the source

    Raises
    ------
    InvalidInputError
        for a class that changes its weights when it runs: a map could not tell which it is for; and for maps that stay
    """
    with torch.no_grad():
        run(model, batches_of(windows[:1])[0])
    changed = changed_tensors(model, own, dtypes)
    if changed:
        msg = f"{type(model).__name__} changes {next(iter(changed))} when it runs; no map can be folded into it"
        raise InvalidInputError(msg)
    with work.stage("fold maps") as stage:
        found = tuple(design(model, windows, work=stage, keep=keep))
    stay = next((row for row in found if row.values), None)
    if stay is not None:
        msg = (
            f"{stay.design} leaves {stay.values} numbers at {stay.place} to be applied at run time, which a directory "
            "does not hold; choose a design that folds all of its maps"
        )
        raise InvalidInputError(msg)
    return found


@torch.no_grad()
def settle(model: Any, dtypes: Types, quantized: Collection[str]) -> None:
    """Round every tensor that stays dense to its type in the files, and let weights behind norms make up for it.

    Parameters
    ----------
    dtypes : of the tensors in the source
    quantized : keys of the weights that will be quantized, and are not rounded here
    """
    for place in places(model).values():
        if place.readers and place.forward[0].location is Location.GAIN:
            _settle_gain(model, place, dtypes)
        if place.readers and place.shift == "undone":
            _settle_bias(model, place, dtypes)
    for key, tensor in saved_tensors(model).items():
        if key not in quantized:
            tensor.copy_(_rounded(tensor, key, dtypes))


def changed_tensors(
    model: Any, own: Mapping[str, bytes], dtypes: Types, without: Collection[str] = ()
) -> dict[str, Tensor]:
    """The tensors, in their types in the files, that are not those with these digests; but for some."""
    found = {}
    for key, tensor in saved_tensors(model).items():
        if key not in without:
            written = {key: tensor.to(dtypes.get(key, tensor.dtype))}
            if digests_of_state(written)[key] != own.get(key):
                found |= written
    return found


def _settle_gain(model: Any, place: Place, dtypes: Types) -> None:
    """Give a norm the gain that the file will hold, and its readers the inverse of the scale which that realizes."""
    site = place.forward[0]
    norm = model.get_submodule(site.module)
    key = f"{site.module}.weight"
    wanted, given = norm.weight.double() + site.plus, _rounded(norm.weight, key, dtypes).double() + site.plus
    if torch.equal(wanted, given):
        return
    lost = _ratio(wanted, given)
    for name in place.readers:
        weight = model.get_submodule(name).weight
        weight.copy_(weight.double() * lost)
    if getattr(norm, "bias", None) is not None:
        norm.bias.copy_(norm.bias.double() / lost)
    norm.weight.copy_(given - site.plus)


def _ratio(wanted: Float[Tensor, " n"], given: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """By which weights take up a gain's rounding; a gain that the file holds as 0 reaches nothing any more."""
    return torch.where((wanted == 0) | (given == 0), torch.ones_like(wanted), wanted / given)


def _settle_bias(model: Any, place: Place, dtypes: Types) -> None:
    """Give what writes a place the bias that the file will hold, and let biases of the readers undo the difference."""
    site = place.forward[0]
    readers = [model.get_submodule(name) for name in place.readers]
    bias = getattr(model.get_submodule(site.module), "bias", None)
    if bias is None or any(reader.bias is None for reader in readers):
        return
    rows = _rows(site, bias)
    moved = (_rounded(bias, f"{site.module}.bias", dtypes) - bias).double()[rows]
    heads = moved.reshape(place.heads, 1, place.size)
    for reader in readers:
        copies = reader.weight.shape[1] // place.channels
        columns = heads.expand(place.heads, copies, place.size).reshape(-1)
        reader.bias.copy_(reader.bias.double() - reader.weight.double() @ columns)
    bias[rows] = _rounded(bias, f"{site.module}.bias", dtypes)[rows]


def _rows(site: Site, bias: nn.Parameter) -> slice:
    """The part of a layer's outputs that a site means."""
    return slice(*(site.rows or (0, len(bias))))


def _rounded(tensor: Tensor, key: str, dtypes: Types) -> Tensor:
    """The numbers that a file will hold, in the type of the tensor."""
    return tensor.to(dtypes.get(key, tensor.dtype)).to(tensor.dtype)
