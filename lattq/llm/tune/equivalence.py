"""What a map or a shift of an activation makes of the parameters around it, as pure functions of tensors."""

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from lattq.llm.source.place import Location, Place, Site
from lattq.llm.tune.maps import Blocks, Diagonal, Map, Order

__all__ = ["folded", "shifted"]

Act = Callable[[Tensor], Tensor]


def folded(place: Place, transform: Map, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The parameters that a map changes, after it; torch differentiates through this.

    Nothing is checked: a map that changes the model's function does so.

    Parameters
    ----------
    place : one of `places(model)`
    transform : the map
    tensors : parameters by full name, at least those of the place's sites

    Examples
    --------
    >>> from lattq.llm.source.place import Location, Place, Site
    >>> sites = (Site("up", Location.WEIGHT_OUTPUT),), (Site("down", Location.WEIGHT_INPUT),)
    >>> place = Place("hidden", ("diagonal",), *sites, heads=1, size=2)
    >>> tensors = {"up.weight": torch.ones(2, 3), "down.weight": torch.ones(1, 2)}
    >>> folded(place, Diagonal(torch.tensor([[2.0, 4.0]])), tensors)["down.weight"]
    tensor([[0.5000, 0.2500]])
    """
    now = dict(tensors)
    found: dict[str, Tensor] = {}
    dual = transform.dual
    for site in place.forward:
        found |= _outputs(site, transform, now | found)
    for site in place.inverse:
        if site.location is Location.WEIGHT_INPUT:
            name = f"{site.module}.weight"
            found[name] = dual.left((now | found)[name].mT).mT
        else:
            found |= _outputs(site, dual, now | found)
    passing = place.gates + place.norms if isinstance(transform, Order) else ()
    for site in passing:
        found |= _outputs(site, transform, now | found)
    for site in place.norms if isinstance(transform, Blocks) else ():
        name = f"{site.module}.bias"
        if name in now:
            found[name] = transform.left(now[name][:, None])[:, 0]
    return found


def shifted(place: Place, delta: Float[Tensor, "heads size"], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The biases that a shift x → x − δ changes, after it; nothing is checked.

    >>> from lattq.llm.source.place import Location, Place, Site
    >>> sites = (Site("up", Location.WEIGHT_OUTPUT),), (Site("down", Location.WEIGHT_INPUT),)
    >>> place = Place("hidden", ("diagonal",), *sites, shift="undone", heads=1, size=2)
    >>> tensors = {"up.bias": torch.zeros(2), "down.weight": torch.ones(1, 2), "down.bias": torch.zeros(1)}
    >>> shifted(place, torch.tensor([[1.0, 3.0]]), tensors)
    {'up.bias': tensor([-1., -3.]), 'down.bias': tensor([4.])}
    """
    found: dict[str, Tensor] = {}
    for site in place.forward:
        name = f"{site.module}.bias"
        found |= _on_rows(site, {name: tensors[name]}, lambda bias: bias - delta.reshape(-1, 1).to(bias))
    for site in place.inverse if place.shift == "undone" else ():
        weight, name = tensors[f"{site.module}.weight"], f"{site.module}.bias"
        moved = Diagonal(delta).left(torch.ones_like(weight[0])[:, None])
        found[name] = tensors[name] + (weight @ moved)[:, 0]
    return found


def _outputs(site: Site, transform: Map, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weight and bias of a site after a map of its outputs."""
    weight = tensors[f"{site.module}.weight"]
    rows = weight.mT if site.transposed else weight
    own = {f"{site.module}.weight": _gain(site, tensors) if site.location is Location.GAIN else rows}
    if f"{site.module}.bias" in tensors:
        own[f"{site.module}.bias"] = tensors[f"{site.module}.bias"]
    found = _on_rows(site, own, transform.left)
    if site.location is Location.GAIN:
        found[f"{site.module}.weight"] = found[f"{site.module}.weight"] - site.plus
    if site.transposed:
        found[f"{site.module}.weight"] = found[f"{site.module}.weight"].mT
    return found


def _on_rows(site: Site, tensors: Mapping[str, Tensor], act: Act) -> dict[str, Tensor]:
    """What `act` makes of the rows of a site, in matrices and in vectors."""
    found = {}
    for name, tensor in tensors.items():
        first, last = site.rows or (0, len(tensor))
        matrix = tensor if tensor.ndim == 2 else tensor[:, None]
        whole = torch.cat([matrix[:first], act(matrix[first:last]), matrix[last:]])
        found[name] = whole if tensor.ndim == 2 else whole[:, 0]
    return found


def _gain(site: Site, tensors: Mapping[str, Tensor]) -> Float[Tensor, " n"]:
    return tensors[f"{site.module}.weight"] + site.plus
