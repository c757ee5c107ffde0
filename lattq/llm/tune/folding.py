"""Fold invertible maps into a model: its function stays, its class too, its weights are others.

Everything is computed in float64 and rounded once, and nothing is written before all of it is known to be right.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lattq._array import Array, host_reals
from lattq.errors import InvalidInputError
from lattq.llm.source.place import Location, Place, Site
from lattq.llm.source.places import places, submodule, text_config
from lattq.llm.tune.equivalence import folded, shifted
from lattq.llm.tune.maps import map_of

__all__ = ["fold", "fold_gains", "shift", "tie", "untie"]

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
ROTATIONS = ("rotation", "centred_rotation")
Changes = list[tuple[nn.Parameter, Tensor]]
Act = Callable[[Place, Mapping[str, Tensor]], dict[str, Tensor]]


@torch.no_grad()
def fold(model: Any, place: str | Place, structure: str, values: Array) -> None:
    """Fold a map into a model, x → T x at a place: its outputs stay, up to rounding times the condition of T.

    Maps at one place compose: folding A, then B, is folding B A. A map D R at a norm is the rotation R of the residual
    stream, folded first, and then the diagonal D at the norm.

    Parameters
    ----------
    model : a dense model of `transformers` in memory; its parameters are written
    place : name of one of `places(model)`, or one of them
    structure : what the map is, one of the place's structures
    values : its numbers, with the shapes that `lattq.llm.tune.maps.map_of` lists

    Raises
    ------
    InvalidInputError
        for maps that `map_of` refuses, weights that are quantized, on the meta device or shared with others, rotations
        between norms whose gains are not 1, and weights that leave the range of their type; nothing is written then

    Examples
    --------
    >>> import numpy as np
    >>> from lattq import llm
    >>> from lattq.llm.source import load_model
    >>> model = load_model(llm.embedded_model(), dtype=torch.float32)
    >>> tokens = torch.arange(8)[None]
    >>> before = model(tokens).logits
    >>> heads = np.random.default_rng(0).standard_normal((4, 64, 64)) + 8 * np.eye(64)
    >>> fold(model, "model.layers.0.values", "heads", heads)
    >>> bool((model(tokens).logits - before).abs().max() < 1e-4)
    True
    """
    place = _of(model, place)
    transform = map_of(place, structure, values)
    if structure in ROTATIONS:
        _require_unit_gains(model, place)
    _write(_changes(model, place, lambda part, tensors: folded(part, transform, tensors)))


@torch.no_grad()
def shift(model: Any, place: str | Place, delta: Float[Array, " channels"]) -> None:
    """Move an activation, x → x − δ, which biases around it undo.

    Parameters
    ----------
    model, place : as for `fold`
    delta : one number for each channel

    Raises
    ------
    InvalidInputError
        where a shift is not exact, or a layer that would take it has no bias, as all norms of the Llama family; and as
        `fold`. Nothing is written then

    Examples
    --------
    >>> import numpy as np
    >>> from lattq import llm
    >>> from lattq.llm.source import load_model
    >>> shift(load_model(llm.embedded_model()), "model.layers.0.values", np.ones(256))
    Traceback (most recent call last):
    lattq.errors.InvalidInputError: model.layers.0.self_attn.v_proj has no bias to take a shift ...
    """
    place = _of(model, place)
    if place.shift is None:
        msg = (
            f"a shift at {place.name} is not exact; shift inputs of a norm's readers, keys without rotation, or values"
        )
        raise InvalidInputError(msg)
    offset = torch.from_numpy(host_reals("delta", delta))
    if offset.shape != (place.channels,):
        msg = f"`delta` has shape {tuple(offset.shape)}; {place.name} takes ({place.channels},)"
        raise InvalidInputError(msg)
    for site in place.forward + (place.inverse if place.shift == "undone" else ()):
        if getattr(submodule(model, site.module), "bias", None) is None:
            msg = f"{site.module} has no bias to take a shift at {place.name}; only classes with biases allow it"
            raise InvalidInputError(msg)
    offsets = offset.reshape(place.heads, place.size)
    _write(_changes(model, place, lambda part, tensors: shifted(part, offsets, tensors)))


@torch.no_grad()
def fold_gains(model: Any) -> None:
    """Move the gains of all norms into the layers behind them; a bias is divided by its gain.

    Raises
    ------
    InvalidInputError : for a gain of 0 beside a bias, and as `fold`

    Examples
    --------
    >>> from lattq import llm
    >>> from lattq.llm.source import load_model
    >>> model = load_model(llm.embedded_model())
    >>> untie(model)
    524288
    >>> fold_gains(model)
    >>> bool((model.model.norm.weight == 1).all())
    True
    """
    found: Changes = []
    for place in places(model).values():
        if place.readers and place.forward[0].location is Location.GAIN:
            norm = place.forward[0]
            _require_foldable(model, place, norm)
            gain = submodule(model, norm.module).weight.double() + norm.plus
            found += _changes(model, place, lambda part, tensors, gain=gain: _without_gain(part, gain, tensors))
    _write(found)


def untie(model: Any) -> int:
    """Give the output layer a weight of its own where it shares the embedding's; returns how many weights that adds.

    Rotations of the residual stream and gains of the last norm need it: the two then differ.

    Examples
    --------
    >>> from lattq import llm
    >>> from lattq.llm.source import load_model
    >>> model = load_model(llm.embedded_model())
    >>> untie(model), untie(model), model.config.tie_word_embeddings
    (524288, 0, False)
    """
    text_config(model)
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    if head is None or head.weight is not embedding.weight:
        return 0
    head.weight = nn.Parameter(head.weight.detach().clone(), requires_grad=head.weight.requires_grad)
    _say_tied(model, False)
    return head.weight.numel()


def tie(model: Any) -> None:
    """Undo `untie`: the output layer shares the embedding's weight, which must have the same values.

    Raises
    ------
    InvalidInputError : if they differ

    Examples
    --------
    >>> from lattq import llm
    >>> from lattq.llm.source import load_model
    >>> model = load_model(llm.embedded_model())
    >>> untie(model)
    524288
    >>> tie(model)
    >>> model.config.tie_word_embeddings
    True
    """
    text_config(model)
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    if head is None or not torch.equal(head.weight, embedding.weight):
        msg = f"the output layer of {type(model).__name__} has other weights than its embedding; they cannot be shared"
        raise InvalidInputError(msg)
    head.weight = embedding.weight
    _say_tied(model, True)


def _say_tied(model: Any, tied: bool) -> None:
    """Tell what loads and saves a model whether the output layer has a weight of its own."""
    for config in (text_config(model), model.config):
        config.tie_word_embeddings = tied
    model.all_tied_weights_keys = model.get_expanded_tied_weights_keys(all_submodels=True)


def _of(model: Any, place: str | Place) -> Place:
    """The place of a model that is meant."""
    if isinstance(place, Place):
        return place
    found = places(model)
    if place not in found:
        msg = f"`place` is {place!r}; {type(model).__name__} has {', '.join(found)}"
        raise InvalidInputError(msg)
    return found[place]


def _changes(model: Any, place: Place, act: Act) -> Changes:
    """Parameters around a place and what they become, layer by layer, each checked and rounded to its type."""
    for site in place.sites:
        _require_foldable(model, place, site)
    found: Changes = []
    for name in dict.fromkeys(site.module for site in place.sites):
        part = place.changed(lambda site, name=name: [site] if site.module == name else [])
        parameters = dict(submodule(model, name).named_parameters(prefix=name, recurse=False))
        new = act(part, {key: parameter.detach().double() for key, parameter in parameters.items()})
        for key, tensor in new.items():
            rounded = tensor.to(parameters[key].dtype)
            if not rounded.isfinite().all():
                msg = f"{key} leaves the range of {rounded.dtype} at {place.name}; choose a map that moves less"
                raise InvalidInputError(msg)
            found.append((parameters[key], rounded))
    return found


def _write(changes: Changes) -> None:
    for parameter, new in changes:
        parameter.copy_(new)


def _require_foldable(model: Any, place: Place, site: Site) -> None:
    """Raise unless the parameters of a site are dense, in memory, of the right width and nobody else's."""
    module: Any = submodule(model, site.module)
    weight = module._parameters.get("weight")
    if weight is None or weight.dtype not in FLOATS or weight.ndim != (1 if site.location is Location.GAIN else 2):
        msg = f"{site.module} ({type(module).__name__}) holds no dense weight to fold into; fold before quantizing"
        raise InvalidInputError(msg)
    if weight.is_meta:
        msg = f"{site.module} is on the meta device; load the model into memory first"
        raise InvalidInputError(msg)
    along = weight.shape[-1] if site.location is Location.WEIGHT_INPUT or site.transposed else weight.shape[0]
    along = site.rows[1] - site.rows[0] if site.rows and site.location is Location.WEIGHT_OUTPUT else along
    if along % place.channels or (along != place.channels and not place.per_head):
        msg = (
            f"{site.module} has {along} channels where {place.name} has {place.channels}; its table is of another model"
        )
        raise InvalidInputError(msg)
    owners = [name for name, other in model.named_modules() if any(one is weight for one in other._parameters.values())]
    if len(owners) > 1:
        cost = weight.nbytes / 2**20
        msg = (
            f"{' and '.join(owners)} share one weight, which {place.name} would change for one of them; call `untie`, "
            f"which adds {weight.numel()} weights ({cost:.1f} MiB)"
        )
        raise InvalidInputError(msg)


def _require_unit_gains(model: Any, place: Place) -> None:
    for site in place.norms:
        weight = submodule(model, site.module).weight
        if weight is not None and not bool((weight + site.plus == 1).all()):
            msg = f"{site.module} has gains other than 1, which no rotation passes; call `fold_gains` first"
            raise InvalidInputError(msg)


def _without_gain(place: Place, gain: Float[Tensor, " n"], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Parameters around a norm after its gain has moved into its readers."""
    found = {f"{name}.weight": tensors[f"{name}.weight"] * gain for name in place.readers}
    for norm in place.forward:
        found[f"{norm.module}.weight"] = torch.full_like(gain, 1 - norm.plus)
        if f"{norm.module}.bias" in tensors:
            bias = tensors[f"{norm.module}.bias"]
            lost = ((gain == 0) & (bias != 0)).nonzero().ravel().tolist()
            if lost:
                msg = f"{norm.module} has gain 0 and a bias at channel {lost[0]}; move the bias with `shift` first"
                raise InvalidInputError(msg)
            found[f"{norm.module}.bias"] = torch.where(gain == 0, bias, bias / gain)
    return found
